"""What the verdicts on one group have been over weeks: kept as runs of one state, saved with the alerts.

Roll-ups of 10 s live two days, so a rule that looks back over a month (an error budget) cannot read them again: it
counts its own verdicts.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import NamedTuple

from pipeline.readings import GRID
from pipeline.rules.verdicts import State


class Run(NamedTuple):
    """Every verdict in `(start, end]` (epoch seconds) had this `state`."""

    start: int
    end: int
    state: State


class Counts(NamedTuple):
    """Seconds of a span, by what was known of them.  What no verdict spoke of is unknown: unmeasured is not up."""

    good: int
    bad: int
    unknown: int


class VerdictTally:
    """The runs of one group, oldest first.

    >>> tally = VerdictTally()
    >>> for t, state in ((10, "ok"), (20, "breach"), (30, "ok"), (50, "ok")):
    ...     tally.fold(t, state, keep=3600)
    >>> tally.over(0, 60)
    Counts(good=30, bad=10, unknown=20)
    """

    def __init__(self, runs: Iterable[Run] = ()) -> None:
        self._runs = list(runs)
        self._changed: dict[int, Run] = {}

    def fold(self, t: int, state: State, keep: int) -> None:
        """Count the verdict at `t`, which speaks for the step of the grid before it; forget what is `keep` s older."""
        last = self._runs[-1] if self._runs else None
        if last is not None and (last.end, last.state) == (t - GRID, state):
            self._runs[-1] = run = last._replace(end=t)
        else:
            run = Run(t - GRID, t, state)
            self._runs.append(run)
        self._changed[run.start] = run
        while self._runs[0].end <= t - keep:
            self._changed.pop(self._runs.pop(0).start, None)

    def over(self, t0: int, t1: int) -> Counts:
        """How many seconds of `(t0, t1]` were good, bad or unknown."""
        first = bisect_right(self._runs, t0, key=lambda run: run.end)
        seconds = {"ok": 0, "breach": 0, "unknown": 0}
        for run in self._runs[first:]:
            if run.start >= t1:
                break
            seconds[run.state] += min(run.end, t1) - max(run.start, t0)
        good, bad = seconds["ok"], seconds["breach"]
        return Counts(good, bad, max(t1 - t0, 0) - good - bad)

    @property
    def runs(self) -> tuple[Run, ...]:
        return tuple(self._runs)

    @property
    def changed(self) -> tuple[Run, ...]:
        """The runs that began or went on since this tally was made."""
        return tuple(self._changed.values())
