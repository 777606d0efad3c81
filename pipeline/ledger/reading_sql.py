"""What every query of a reading shares: the instants it answers for, the series that match, the gaps.

A partial row counts at the instants from its `known_from` to its `window_start + span`: an interval.  Grid
numbers are instants divided by 10 s.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from duckdb import DuckDBPyConnection

from pipeline.catalog import EventType
from pipeline.ledger.silence import GRID_US, Gap
from pipeline.rules.readings import GRID, LONGEST, Match, Mute

By = tuple[str, ...]
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

    def parts(self, con: DuckDBPyConnection, event_type: EventType) -> Iterator[Span]:
        """This span in pieces of at most `SPREAD` series x instants; a shared entity weighs a sixteenth of a series."""
        view = event_type.view
        shared = f" + (SELECT count(*) // 16 FROM shared_{view})" if event_type.entity else ""
        row = con.execute(f"SELECT count(*){shared} FROM series_{view}").fetchone()
        step = max(1, SPREAD // max(1, row[0] if row else 0))
        for low in range(self.low, self.high, step):
            yield self.within(low, min(low + step, self.high))

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


def timestamp(t: int) -> str:
    return f"make_timestamp({t * 1_000_000})"


def quoted(column: str) -> str:
    return '"' + column.replace('"', '""') + '"'


def chosen_sql(event_type: EventType, match: Match, by: By) -> tuple[str, dict[str, Any]]:
    """SELECT of the series that match, with their group as columns g0, g1, …; and its parameters."""
    groups = "".join(f", coalesce({quoted(d)}, '') AS g{i}" for i, d in enumerate(by))
    params = {f"m{i}": list(values) for i, (_, values) in enumerate(match)}
    tests = [f"list_contains($m{i}, {quoted(d)})" for i, (d, _) in enumerate(match)]
    where = f" WHERE {' AND '.join(tests)}" if tests else ""
    return f"SELECT series{groups} FROM series_{event_type.view}{where}", params


def group_columns(by: By) -> str:
    return "".join(f", g{i}" for i in range(len(by)))


def groups_of(con: DuckDBPyConnection, event_type: EventType, match: Match, by: By) -> dict[int, By]:
    sql, params = chosen_sql(event_type, match, by)
    return {row[0]: row[1:] for row in con.execute(sql, params).fetchall()}


GAPS = """, gaps AS MATERIALIZED (
        SELECT unnest($gap_series::UBIGINT[]) AS series,
               unnest($gap_first::BIGINT[]) AS "first", unnest($gap_last::BIGINT[]) AS "last")"""

IN_GAP = "SELECT 1 FROM gaps WHERE gaps.series = s.series AND s.t BETWEEN gaps.first AND gaps.last"


def gap_params(gaps: Sequence[Gap]) -> dict[str, Any]:
    return {
        "gap_series": [g.series for g in gaps],
        "gap_first": [g.first for g in gaps],
        "gap_last": [g.last for g in gaps],
    }


class Mutes:
    """The series of each group that are mute, at each grid number."""

    def __init__(
        self, con: DuckDBPyConnection, event_type: EventType, gaps: Mapping[str, Sequence[Gap]]
    ) -> None:
        self._gaps = gaps
        every = tuple(d.name for d in event_type.dimensions)
        self._names = groups_of(con, event_type, (), every) if any(gaps.values()) else {}

    def of(self, groups: Mapping[int, By], span: Span) -> dict[tuple[int, By], tuple[Mute, ...]]:
        """(grid number, group) → who is mute then, by name; `groups`: series → group."""
        found: dict[tuple[int, By], list[Mute]] = defaultdict(list)
        for measure, gaps in self._gaps.items():
            for gap in gaps:
                if gap.series in groups:
                    name = tuple(value for value in self._names[gap.series] if value)
                    mute = Mute(name, measure, gap.last_us / 1e6)
                    for grid in range(max(gap.first, span.low + 1), min(gap.last, span.high) + 1):
                        found[grid, groups[gap.series]].append(mute)
        return {key: tuple(sorted(mutes)) for key, mutes in found.items()}


class Tally:
    """What the gaps of each group add up to at each grid number, kept as differences."""

    def __init__(self, span: Span, loss_after: int) -> None:
        self.span, self.loss_after = span, loss_after
        self._steps: dict[By, dict[int, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0, 0, 0]))

    def add(self, by: By, gap: Gap, value: int, lasting: bool = False) -> None:
        """A gap counts from its first instant; from the one by which it has lasted `loss_after`, as old.

        One that is `lasting` never does.
        """
        first, end = max(gap.first, self.span.low + 1), gap.last + 1
        old = (gap.last_us + self.loss_after * 1_000_000) // GRID_US + 1
        self._step(by, first, end, 0, value)
        if not lasting:
            self._step(by, max(first, old), end, 2, value)

    def _step(self, by: By, first: int, end: int, at: int, value: int) -> None:
        if first < end:
            for grid, sign in ((first, 1), (end, -1)):
                change = self._steps[by][grid]
                change[at] += sign * value
                change[at + 1] += sign

    def sums(self) -> Iterable[tuple[int, By, list[int]]]:
        """(grid number, group, [silent in all, its series, old, its series]) wherever there are any."""
        for by, steps in self._steps.items():
            now = [0, 0, 0, 0]
            for grid in range(self.span.low + 1, self.span.high + 1):
                if grid in steps:
                    now = [a + b for a, b in zip(now, steps[grid], strict=True)]
                if now[1]:
                    yield grid, by, now
