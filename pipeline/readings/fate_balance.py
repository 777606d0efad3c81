"""Whether all events that came in are accounted for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pipeline.catalog import EventType
from pipeline.readings.memory import Memory
from pipeline.readings.past import all_of
from pipeline.readings.reading import GRID, GRID_US, Reading, Readings
from pipeline.readings.spec import Group, Inquiry, Instant, Query, ReadingSpec
from pipeline.rollup.quoting import literal, moment, timestamp

_SIGNED = "CASE WHEN fate = 'in' THEN n ELSE -n END"


@dataclass(frozen=True, slots=True)
class FateBalance(ReadingSpec):
    """Events in, less events whose fate is known, for each partition: `by` is (partition,), 0 is healthy."""

    topic: str
    span: int

    def query(self, event_type: EventType, t0: int, t1: int, memory: Memory) -> Inquiry[Readings]:
        """Partitions whose fates do not add up to what came in; one that never counted `in` is silent."""
        rows = yield Query(
            f"""SELECT part, epoch_us(minute) // {GRID_US} AS k, sum({_SIGNED})::BIGINT,
                   sum(n) FILTER (fate = 'in')::BIGINT
            FROM fates WHERE topic = $topic AND minute >= {timestamp(t0 + GRID - self.span)}
              AND minute < {timestamp(t1)} AND part IN (SELECT part FROM fates WHERE topic = $topic AND fate = 'in')
            GROUP BY ALL HAVING sum({_SIGNED}) <> 0""",
            {"topic": self.topic},
        )
        return Readings(self._balances(rows, t0, t1))

    def _balances(self, rows: Iterable[tuple[int, int, int, int]], t0: int, t1: int) -> Iterator[Reading]:
        """`rows`: (partition, minute as a grid number, missing, came in)."""
        rows = list(rows)
        for t in range(t0 + GRID, t1 + 1, GRID) if rows else ():
            sums: dict[int, list[int]] = {}
            for part, minute, missing, came in rows:
                if t - self.span <= minute * GRID < t:
                    found = sums.setdefault(part, [0, 0])
                    found[0], found[1] = found[0] + missing, found[1] + (came or 0)
            yield from (Reading(t, (str(p),), float(m), samples=c) for p, (m, c) in sums.items() if m)

    def reproduce(self, event_type: EventType, group: Group, at: Instant) -> str:
        within = [
            f"minute >= {moment(at.t - self.span)}",
            f"minute < {moment(at.t)}",
            f"topic = {literal(self.topic)}",
        ]
        within += [f"part = {int(group['partition'])}"] if "partition" in group else []
        return f"SELECT coalesce(sum({_SIGNED}), 0) AS value FROM fates\nWHERE {all_of(within)}"
