"""The raw rows behind a reading, for the few that partial roll-ups cannot answer: those of the delta under way too."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import structlog
from duckdb import DuckDBPyConnection

from pipeline.catalog import EventType, Measure
from pipeline.readings.reading import GRID, GRID_US
from pipeline.rollup.aggregate import quanta_sql
from pipeline.rollup.quoting import quoted, timestamp
from pipeline.views.published import literal, pattern

log = structlog.get_logger()

TRIES = 20
PAUSE = 0.05
"""Seconds between two looks at files that sealing or merging has just moved; both take a few milliseconds."""


class RawRows:
    """The rows of the ledger on `con` under `data`.

    `arriving`: the event types whose delta stands in `delta_samples_{view}` and in no committed segment yet, with the
    first instant that it can count at.
    """

    def __init__(self, con: DuckDBPyConnection, data: Path) -> None:
        self._con, self._data = con, data
        self.arriving: Mapping[str, datetime] = {}

    def fetch(self, event: EventType, measure: Measure, start: int, end: int, series: Sequence[int]) -> None:
        """Make `raw_{view}(series, entity, w, k, total, n)` of the samples in `[start, end)`.

        `w` and `k` are the grid numbers of a sample's window and of its `known_from`; `n` samples have `measure`, and
        `total` is what they add up to, in quanta.
        """
        assert event.entity
        counts = f"epoch_us(known_from) // {GRID_US}"
        found = self._committed(
            event, start, end, series, lambda rows: _counted(event, measure, counts, start, end, rows)
        )
        target = f"raw_{event.view}"
        if found is None:
            self._con.execute(
                f"CREATE OR REPLACE TEMP TABLE {target}"
                "(series UBIGINT, entity VARCHAR, w BIGINT, k BIGINT, total HUGEINT, n BIGINT)"
            )
        else:
            self._con.register("committed", found)
            self._con.execute(f"CREATE OR REPLACE TEMP TABLE {target} AS SELECT * FROM committed")
            self._con.unregister("committed")
        if (known := self.arriving.get(event.view)) is not None:
            first = f"greatest({_grid('time')} + 1, epoch_us(TIMESTAMP '{known}') // {GRID_US})"
            rows = f"FROM delta_samples_{event.view} WHERE series IN (SELECT unnest($series::UBIGINT[]))"
            self._con.execute(
                f"INSERT INTO {target} {_counted(event, measure, first, start, end, rows)}",
                {"series": list(series)},
            )

    def labels(
        self,
        event: EventType,
        label: str,
        start: int,
        end: int,
        known: int,
        entities: Sequence[tuple[int, str]],
    ) -> dict[tuple[int, str], str]:
        """(series, entity) → the last value of `label` in `[start, end)`, of what was known by the instant `known`.

        Those that are not there have none.
        """
        assert event.entity
        series = sorted({s for s, _ in entities})
        values: dict[str, Sequence[object]] = {"series": series}
        values |= {"of": [s for s, _ in entities], "who": [who for _, who in entities]}
        name, last = quoted(event.entity.name), f'arg_max({quoted(label)}, ("time", {quoted(label)}))'

        def select(rows: str) -> str:
            return (
                f"SELECT series, {name} AS entity, {last} AS label {rows} AND {quoted(label)} IS NOT NULL "
                f'AND "time" >= {timestamp(start)} AND "time" < {timestamp(end)} AND (series, {name}) IN '
                "(SELECT unnest($of::UBIGINT[]), unnest($who::VARCHAR[])) GROUP BY ALL"
            )

        seen = f"AND known_from <= {timestamp(known)}"
        found = self._committed(event, start, end, series, lambda rows: select(rows + seen), values)
        labels = {
            (row["series"], row["entity"]): row["label"] for row in (found.to_pylist() if found else ())
        }
        first = self.arriving.get(event.view)
        if first is not None and first <= datetime.fromtimestamp(known, UTC).replace(tzinfo=None):
            rows = f"FROM delta_samples_{event.view} WHERE series IN (SELECT unnest($series::UBIGINT[]))"
            labels |= {(s, who): text for s, who, text in self._con.execute(select(rows), values).fetchall()}
        return labels

    def _committed(
        self,
        event: EventType,
        start: int,
        end: int,
        series: Sequence[int],
        select: Callable[[str], str],
        values: Mapping[str, object] | None = None,
    ) -> pa.Table | None:
        """From segments and published files, as they are named now: housekeeping moves them meanwhile.

        `select` makes the query of the rows, which end in a WHERE; None where there is no file.
        """
        cursor = self._con.cursor()
        names = [quoted(d.name) for d in event.dimensions]
        same = " AND ".join(f"r.{name} IS NOT DISTINCT FROM s.{name}" for name in names)
        for tries in range(TRIES):
            paths = list(self._paths(cursor, event, start, end))
            if tries == TRIES - 1:
                paths = self._there(paths)
            if not paths:
                break
            listed = ", ".join(literal(pattern(path.parent, path.name)) for path in paths)
            rows = (
                f"FROM read_parquet([{listed}], union_by_name = true, hive_partitioning = false) r "
                f"JOIN (SELECT * FROM series_{event.view} WHERE series IN (SELECT unnest($series::UBIGINT[]))) s "
                f"ON {same} WHERE true "
            )
            try:
                return cursor.sql(select(rows), params=values or {"series": list(series)}).to_arrow_table()
            except duckdb.IOException:
                if tries == TRIES - 1:
                    raise
                time.sleep(PAUSE)
        return None

    def _paths(self, cursor: DuckDBPyConnection, event: EventType, start: int, end: int) -> Iterator[Path]:
        held = f"topic = $topic AND max_time >= {timestamp(start)} AND min_time < {timestamp(end)}"
        rows = cursor.execute(
            f"SELECT 'segments/' || segment, NULL FROM segments WHERE {held} UNION ALL "
            f"SELECT path, staged FROM files WHERE {held} AND state <> 'merging'",
            {"topic": event.topic},
        ).fetchall()
        for path, staged in rows:
            moved = self._data / path
            yield self._data / staged if staged and not moved.exists() else moved

    def _there(self, paths: Sequence[Path]) -> list[Path]:
        missing = [path for path in paths if not path.exists()]
        if missing:
            log.warning(
                "raw files are missing: a mean over a fleet goes without them", files=list(map(str, missing))
            )
        return [path for path in paths if path not in missing]


def _grid(time: str) -> str:
    return f"epoch_us(time_bucket(INTERVAL {GRID} SECOND, {time})) // {GRID_US}"


def _counted(event: EventType, measure: Measure, known: str, start: int, end: int, rows: str) -> str:
    """SELECT of `rows`, which ends in a WHERE, by entity, window and first instant."""
    assert event.entity
    return (
        f"SELECT series, {quoted(event.entity.name)} AS entity, {_grid('time')} AS w, {known} AS k, "
        f"coalesce(sum({quanta_sql(measure)}), 0)::HUGEINT AS total, count({quoted(measure.name)}) AS n "
        f'{rows} AND "time" >= {timestamp(start)} AND "time" < {timestamp(end)} GROUP BY ALL'
    )
