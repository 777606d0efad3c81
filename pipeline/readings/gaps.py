"""What silent and mute series add up to in each group: for queries, and by name.

A gap stands in a query as `gaps(series, "first", "last")`, a CTE.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipeline.catalog import EventType
from pipeline.readings.reading import GRID_US, By, Mute
from pipeline.readings.silence import Gap
from pipeline.readings.span import Span, groups_of
from pipeline.readings.spec import Inquiry

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


Mutes = dict[tuple[int, By], tuple[Mute, ...]]
"""(grid number, group) → who is mute then, by name."""


def mutes_of(
    event_type: EventType, gaps: Mapping[str, Sequence[Gap]], groups: Mapping[int, By], span: Span
) -> Inquiry[Mutes]:
    """The series of each group that are mute, at each grid number; `gaps`: measure → where any lacks it.

    `groups`: series → group.
    """
    if not any(gaps.values()):
        return {}
    names = yield from groups_of(event_type, (), tuple(d.name for d in event_type.dimensions))
    found: dict[tuple[int, By], list[Mute]] = defaultdict(list)
    for measure, own in gaps.items():
        for gap in own:
            if gap.series in groups:
                name = tuple(value for value in names[gap.series] if value)
                mute = Mute(name, measure, gap.last_us / 1e6)
                for grid in range(max(gap.first, span.low + 1), min(gap.last, span.high) + 1):
                    found[grid, groups[gap.series]].append(mute)
    return {key: tuple(sorted(mutes)) for key, mutes in found.items()}


class GapSums:
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
