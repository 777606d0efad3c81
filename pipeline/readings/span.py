"""What every query of a reading shares: the instants that it answers for, and the series that match.

A partial row counts at the instants from its `known_from` to its `window_start + span`: an interval.  Grid
numbers are instants divided by 10 s.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pipeline.catalog import EventType
from pipeline.readings.reading import GRID, GRID_US, LONGEST, By, Match
from pipeline.readings.spec import Inquiry, Query
from pipeline.rollup.quoting import quoted, timestamp

if TYPE_CHECKING:
    from pipeline.readings.silence import Gap

Slow = tuple[tuple[int, tuple[int, ...]], ...]
"""Declared intervals longer than the schema's, with the series that they are of."""
#: Series x instants that one query spreads over: beyond, its bit sets (about 1 KB each) would fill the memory.
SPREAD = 40_000


@dataclass(frozen=True, slots=True)
class Span:
    """The grid numbers `(low, high]` to answer for, looking back `seconds`.

    Of the series in `slow`, which declare that they report only every so many seconds, it looks back `reports` of their
    own intervals where that is longer, and `grace` more: there is a reading until they are silent.
    """

    low: int
    high: int
    seconds: int
    slow: Slow = ()
    reports: int = 1
    grace: int = 2 * GRID

    def within(self, low: int, high: int) -> Span:
        """The same for other instants."""
        return replace(self, low=low, high=high)

    @property
    def longest(self) -> int:
        """Seconds that it looks back at most."""
        return max([self.seconds, *(self._own(interval) for interval, _ in self.slow)])

    def _own(self, interval: int) -> int:
        return max(self.seconds, min(self.reports * interval + self.grace, LONGEST))

    def own_sql(self, series: str = "series") -> str:
        """SQL for the seconds that it looks back for the column `series`."""
        if not self.slow:
            return f"{self.seconds}::BIGINT"
        cases = " ".join(
            f"WHEN {series} IN ({', '.join(map(str, of))}) THEN {self._own(interval)}"
            for interval, of in self.slow
        )
        return f"(CASE {cases} ELSE {self.seconds} END)::BIGINT"

    def interval_sql(self, event_type: EventType) -> str:
        """SQL for the seconds between two reports of the column `series`."""
        cases = " ".join(
            f"WHEN series IN ({', '.join(map(str, of))}) THEN {interval}" for interval, of in self.slow
        )
        return f"(CASE {cases} ELSE {event_type.interval} END)" if cases else str(event_type.interval)

    def parts(self, event_type: EventType) -> Inquiry[list[Span]]:
        """This span in pieces of at most `SPREAD` series x instants; a shared entity weighs a sixteenth of a series."""
        view = event_type.view
        shared = f" + (SELECT count(*) // 16 FROM shared_{view})" if event_type.entity else ""
        [(count,)] = yield Query(f"SELECT count(*){shared} FROM series_{view}")
        step = max(1, SPREAD // max(1, count))
        return [self.within(low, min(low + step, self.high)) for low in range(self.low, self.high, step)]

    def near(self, gaps: Sequence[Gap]) -> list[Gap]:
        """The gaps that share an instant with this span."""
        return [g for g in gaps if g.first <= self.high and g.last > self.low]

    @property
    def single(self) -> bool:
        return self.high - self.low == 1

    @property
    def counted(self) -> str:
        """WHERE for the rows that count at any of the instants."""
        first = (self.low + 1) * GRID
        own = f" AND epoch(window_start) >= {first} - {self.own_sql()}" if self.slow else ""
        return (
            f"window_start >= {timestamp(first - self.longest)} AND window_start < {timestamp(self.high * GRID)} "
            f"AND known_from <= {timestamp(self.high * GRID)}{own}"
        )

    @property
    def interval(self) -> str:
        """Select list: the first and last grid number at which a row counts."""
        if self.single:
            return f"{self.high} AS a, {self.high} AS b"
        return (
            f"greatest(epoch_us(known_from) // {GRID_US}, {self.low + 1}) AS a, "
            f"least((epoch_us(window_start) + {self.own_sql()} * 1000000) // {GRID_US}, {self.high}) AS b"
        )

    @property
    def spread(self) -> str:
        """Select list: the grid numbers of an interval."""
        return "b AS t" if self.single else "unnest(range(a, b + 1)) AS t"


def chosen_sql(event_type: EventType, match: Match, by: By) -> tuple[str, dict[str, Any]]:
    """SELECT of the series that match, with their group as columns g0, g1, …; and its parameters."""
    groups = "".join(f", coalesce({quoted(d)}, '') AS g{i}" for i, d in enumerate(by))
    params = {f"m{i}": list(values) for i, (_, values) in enumerate(match)}
    tests = [f"list_contains($m{i}, {quoted(d)})" for i, (d, _) in enumerate(match)]
    where = f" WHERE {' AND '.join(tests)}" if tests else ""
    return f"SELECT series{groups} FROM series_{event_type.view}{where}", params


def group_columns(by: By) -> str:
    """`, g0, g1, …`: the columns of a group."""
    return "".join(f", g{i}" for i in range(len(by)))


def groups_of(event_type: EventType, match: Match, by: By) -> Inquiry[dict[int, By]]:
    """Series → the group that it is in, of those that match."""
    rows = yield Query(*chosen_sql(event_type, match, by))
    return {row[0]: row[1:] for row in rows}


def slow_times(paces: Iterable[tuple[int, int, Slow]]) -> list[tuple[int, int, int]]:
    """(after, until, seconds) in epoch seconds, where a source declares a longer interval than the schema: the longest."""
    return [(low * GRID, high * GRID, slow[-1][0]) for low, high, slow in paces if slow]
