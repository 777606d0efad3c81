"""How many series and entities a topic may have: those that are there go on, what is beyond is set aside.

A label that changes with every job or pod makes a series of each sample, and every table, reading and status grows with
them.  Which ones are let in follows from the order of the log: the first `max_series` that were heard in the last
`HEARD_WITHIN` days of event time, as the ledger has them, so that it is the same after a restart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.catalog import EventType
from pipeline.ledger.registered import executed, registered
from pipeline.stream.decoded import Decoded

HEARD_WITHIN = 30
"""Days after its last sample in which a series keeps its place."""
TOO_MANY_SERIES = "too_many_series"
TOO_MANY_ENTITIES = "too_many_entities"
KEPT = 20
"""Samples of a batch that are kept in `quarantine`; all are counted."""
VALUE_LENGTH = 100
TOLD = 5
"""Values that are told of the dimension that grows."""


@dataclass(frozen=True, slots=True)
class Beyond:
    """Samples that were not let in: what is counted, what is kept, and which dimension (or entity) grows."""

    reason: str
    counts: Counter[tuple[int, datetime]]
    kept: Sequence[dict[str, Any]]
    grows: str
    values: tuple[str, ...]


class Growth:
    """That a topic grows beyond its limit: how many samples were set aside since the start, and the last of why."""

    def __init__(self, topic: str, last: Beyond, before: Growth | None = None) -> None:
        self.topic = topic
        self.samples: int = sum(last.counts.values()) + (before.samples if before else 0)
        what = "series" if last.reason == TOO_MANY_SERIES else "entities"
        self.words = (
            f"{topic} has more {what} than the setting max_{what} allows: {last.grows} has ever new values, such as "
            f"{', '.join(value[:VALUE_LENGTH] for value in last.values)}"
        )


class Admission:
    """Lets the series and entities of one event type in; `con` is the ledger's connection."""

    def __init__(
        self, con: duckdb.DuckDBPyConnection, event: EventType, max_series: int, max_entities: int
    ) -> None:
        self._con, self._event = con, event
        self._max_series, self._max_entities = max_series, max_entities
        self._day: datetime | None = None
        self._series = pa.array([], pa.uint64())
        self._refusing = False
        self._at_most = max_entities
        """Entities that there can be at most now; they are counted when that would be too many."""

    def admit(self, decoded: Decoded, known_from: datetime) -> tuple[Decoded, list[Beyond]]:
        """What of a batch is let in, and what is not.

        `known_from`: the first instant not yet evaluated, which says what day it is.
        """
        self._look(known_from)
        found: list[Beyond] = []
        samples = decoded.samples
        if self._refusing or decoded.met:
            self._meet(samples)
            if self._refusing:
                samples = self._split(samples, pc.is_in(samples["series"], self._series), found)
                known = [met.filter(pc.is_in(met["series"], self._series)) for met in decoded.met]
                decoded = replace(decoded, met=known)
        if self._event.entity is not None:
            samples = self._entities(samples, found)
        return (replace(decoded, samples=samples) if found else decoded), found

    def _look(self, known_from: datetime) -> None:
        """Once a day of event time: which series have a place."""
        day = known_from.replace(hour=0, minute=0, second=0, microsecond=0)
        if day == self._day:
            return
        view, self._day = self._event.view, day
        source = f"SELECT series FROM series_{view}"
        if not self._event.retained and day > datetime(1970, 2, 1):
            since = day - timedelta(days=HEARD_WITHIN)
            source = (
                f"SELECT DISTINCT series FROM partials_{view}_1d WHERE window_start >= TIMESTAMP '{since}'"
            )
        found = executed(self._con, source)
        self._series = found["series"].combine_chunks().cast(pa.uint64())
        self._refusing = len(self._series) >= self._max_series

    def _meet(self, samples: pa.Table) -> None:
        """Give a place to the first that are new, in the order of the batch, while there are places."""
        room = self._max_series - len(self._series)
        new = pc.unique(samples["series"].filter(pc.invert(pc.is_in(samples["series"], self._series))))
        if len(new) > room:
            self._refusing = True
            rows = samples.select(["series", "row", "idx"]).filter(pc.is_in(samples["series"], new))
            order = rows.sort_by([("row", "ascending"), ("idx", "ascending")])["series"]
            new = pc.unique(order)[: max(0, room)]
        self._series = pa.concat_arrays([self._series, new])

    def _entities(self, samples: pa.Table, found: list[Beyond]) -> pa.Table:
        """The samples whose entity is known or has a place.  Mostly all fit, and then nobody is asked for by name."""
        assert self._event.entity is not None
        view, name = self._event.view, self._event.entity.name
        self._at_most += samples.num_rows
        if self._at_most <= self._max_entities:
            return samples
        ((count,),) = self._con.execute(f"SELECT count(*) FROM entities_{view}").fetchall()
        room, self._at_most = self._max_entities - count, count + samples.num_rows
        if samples.num_rows <= room:
            return samples
        with registered(self._con, "arriving", samples):
            beyond = executed(
                self._con,
                f"SELECT s.row, s.idx FROM arriving s JOIN (SELECT series, {name} FROM (SELECT series, {name}, "
                f"min(row * 1000000::BIGINT + idx) AS first FROM arriving a WHERE NOT EXISTS (SELECT 1 FROM entities_{view} e "
                f"WHERE e.series = a.series AND e.entity = a.{name}) GROUP BY ALL) "
                f"ORDER BY first OFFSET {max(0, room)}) USING (series, {name})",
            )
        if not beyond.num_rows:
            return samples
        key = pc.add(pc.multiply(samples["row"].cast(pa.int64()), 1_000_000), samples["idx"].cast(pa.int64()))
        out = pc.add(pc.multiply(beyond["row"].cast(pa.int64()), 1_000_000), beyond["idx"].cast(pa.int64()))
        keep = pc.invert(pc.is_in(key, out.combine_chunks()))
        return self._split(samples, keep, found, name)

    def _split(
        self, samples: pa.Table, keep: pa.ChunkedArray, found: list[Beyond], entity: str | None = None
    ) -> pa.Table:
        beyond = samples.filter(pc.invert(keep))
        if not beyond.num_rows:
            return samples
        minutes = pc.floor_temporal(beyond["record_time"], unit="minute")
        grouped = pa.table({"part": beyond["part"], "minute": minutes}).group_by(["part", "minute"])
        counted = grouped.aggregate([([], "count_all")]).to_pylist()
        counts = Counter({(row["part"], row["minute"]): row["count_all"] for row in counted})
        names = [entity] if entity else [d.name for d in self._event.dimensions]
        distinct = {name: pc.unique(beyond[name].cast(pa.string())).drop_null() for name in names}
        grows = max(names, key=lambda name: len(distinct[name]))
        kept = [self._kept(row) for row in beyond.slice(0, KEPT).to_pylist()]
        values = tuple(sorted(distinct[grows].slice(0, TOLD).to_pylist()))
        reason = TOO_MANY_ENTITIES if entity else TOO_MANY_SERIES
        found.append(Beyond(reason, counts, kept, grows, values))
        return samples.filter(keep)

    def _kept(self, row: dict[str, Any]) -> dict[str, Any]:
        entity = [self._event.entity.name] if self._event.entity else []
        names = [*(d.name for d in self._event.dimensions), *entity]
        return {**row, "sample": {name: row[name] for name in names if row[name] is not None}}
