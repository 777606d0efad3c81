"""The raw rows behind a reading, for the few that partial roll-ups cannot answer: those of the delta under way too."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import structlog
from duckdb import DuckDBPyConnection

from pipeline.catalog import EventType, Measure
from pipeline.ledger.instants import utc
from pipeline.ledger.registered import executed, registered
from pipeline.ledger.stamped import Stamped, stamped_rows
from pipeline.readings.reading import GRID, GRID_US
from pipeline.readings.spec import RawLabels
from pipeline.rollup.aggregate import quanta_sql
from pipeline.rollup.quoting import quoted, timestamp
from pipeline.views.published import raw_table

log = structlog.get_logger()

T = TypeVar("T")

TRIES = 20
PAUSE = 0.05
"""Seconds between two looks at files that sealing or merging has just moved; both take a few milliseconds."""


class RawRows:
    """The rows of the ledger on `con` under `data`."""

    def __init__(self, con: DuckDBPyConnection, data: Path) -> None:
        self._con, self._data = con, data
        self._arriving: Callable[[], Sequence[tuple[Any, ...]]] = tuple

    @contextlib.contextmanager
    def arriving(self, segments: Callable[[], Sequence[tuple[Any, ...]]]) -> Iterator[None]:
        """While a delta is applied: `segments` gives its rows of that table, once its segments are on the disk."""
        self._arriving = segments
        try:
            yield
        finally:
            self._arriving = tuple

    def fetch(self, event: EventType, measure: Measure, start: int, end: int, series: Sequence[int]) -> None:
        """Make `raw_{view}` as `readings.spec.RawSamples` has it."""
        found = self._found(
            event,
            [(start, end)],
            series,
            lambda rows: _counted(event, measure, start, end, rows),
            executed,
        )
        target = f"raw_{event.view}"
        if found is None:
            self._con.execute(
                f"CREATE OR REPLACE TEMP TABLE {target}"
                "(series UBIGINT, entity VARCHAR, w BIGINT, k BIGINT, total HUGEINT, n BIGINT)"
            )
        else:
            with registered(self._con, "found", found):
                self._con.execute(f"CREATE OR REPLACE TEMP TABLE {target} AS FROM found")

    def labels(self, asked: RawLabels) -> list[tuple[int, str, str]]:
        """Rows (series, entity, label) as `readings.spec.RawLabels` has it."""
        event = asked.event_type
        assert event.entity
        sought = asked.sought
        name, label = quoted(event.entity.name), quoted(asked.label)
        values = {
            "of": [one.series for one in sought],
            "who": [one.name for one in sought],
            "since": [utc(one.start) for one in sought],
            "until": [utc(one.end) for one in sought],
        }

        def select(rows: str) -> str:
            return (
                f'SELECT series, who, arg_max({label}, ("time", {label})) FROM (SELECT series, {name} AS who, "time", {label} '
                f"{rows} AND {label} IS NOT NULL AND known_from <= {timestamp(asked.known)}) JOIN (SELECT "
                "unnest($of::UBIGINT[]) AS series, unnest($who::VARCHAR[]) AS who, unnest($since::TIMESTAMP[]) AS since, "
                "unnest($until::TIMESTAMP[]) AS until) USING (series, who) "
                'WHERE "time" >= since AND "time" < until GROUP BY ALL'
            )

        # The entities are picked out before the series are joined.  Few of a fleet's are asked for, and to join all the
        # others was four fifths of the work.
        who = f"{name} IN (SELECT unnest($who::VARCHAR[]))"
        within = sorted({(one.start, one.end) for one in sought})
        return self._found(
            event, within, sorted({one.series for one in sought}), select,
            lambda con, sql: con.execute(sql, values).fetchall(), who,
        ) or []  # fmt: skip

    def _found(
        self,
        event: EventType,
        within: Sequence[tuple[int, int]],
        series: Sequence[int],
        select: Callable[[str], str],
        fetch: Callable[[DuckDBPyConnection, str], T],
        only: str = "true",
    ) -> T | None:
        """What `fetch` makes of segments and published files, as they are named now: housekeeping moves them meanwhile.

        `within`: times `[start, end)` that files are looked for in; `select` makes the query of the rows, which end in a
        WHERE; `only`: a condition on each; None where there is no file.
        """
        cursor = self._con.cursor()
        # the transaction under way knows series that the cursor does not see
        named = executed(
            self._con,
            f"SELECT * FROM series_{event.view} WHERE series IN (SELECT unnest($series::UBIGINT[]))",
            {"series": list(series)},
        )
        names = [quoted(d.name) for d in event.dimensions]
        same = " AND ".join(f"r.{name} IS NOT DISTINCT FROM s.{name}" for name in names)
        for tries in range(TRIES):
            paths = list(self._paths(cursor, event, within))
            if tries == TRIES - 1:
                paths = self._there(paths)
            if not paths:
                break
            stamped = stamped_rows(paths, raw_table(event), only=only)
            rows = f"FROM ({stamped}) r JOIN named s ON {same} WHERE true "
            try:
                with registered(cursor, "named", named):
                    return fetch(cursor, select(rows))
            except duckdb.IOException:
                if tries == TRIES - 1:
                    raise
                time.sleep(PAUSE)
        return None

    def _paths(
        self, cursor: DuckDBPyConnection, event: EventType, within: Sequence[tuple[int, int]]
    ) -> Iterator[Stamped]:
        overlaps = " OR ".join(
            f"max_time >= {timestamp(start)} AND min_time < {timestamp(end)}" for start, end in within
        )
        held = f"topic = $topic AND ({overlaps})"
        rows = cursor.execute(
            f"SELECT 'segments/' || segment, NULL, known_from FROM segments WHERE {held} UNION ALL "
            f"SELECT path, staged, NULL FROM files WHERE {held} AND state <> 'merging'",
            {"topic": event.topic},
        ).fetchall()
        for path, staged, known_from in rows:
            moved = self._data / path
            yield self._data / staged if staged and not moved.exists() else moved, known_from
        for segment, topic, _, low, high, known_from in self._arriving():
            if topic == event.topic and any(high >= utc(a) and low < utc(b) for a, b in within):
                yield self._data / "segments" / segment, known_from

    def _there(self, paths: Sequence[Stamped]) -> list[Stamped]:
        missing = [path for path, _ in paths if not path.exists()]
        if missing:
            log.warning(
                "raw files are missing: a mean over a fleet goes without them", files=list(map(str, missing))
            )
        return [stamped for stamped in paths if stamped[0] not in missing]


def _grid(time: str) -> str:
    return f"epoch_us(time_bucket(INTERVAL {GRID} SECOND, {time})) // {GRID_US}"


def _counted(event: EventType, measure: Measure, start: int, end: int, rows: str) -> str:
    """SELECT of `rows`, which ends in a WHERE, by entity, window and first instant."""
    assert event.entity
    return (
        f"SELECT series, {quoted(event.entity.name)} AS entity, {_grid('time')} AS w, epoch_us(known_from) // {GRID_US} AS k, "
        f"coalesce(sum({quanta_sql(measure)}), 0)::HUGEINT AS total, count({quoted(measure.name)}) AS n "
        f'{rows} AND "time" >= {timestamp(start)} AND "time" < {timestamp(end)} GROUP BY ALL'
    )
