"""A tally: seconds of good, bad and unknown, whatever the runs, the restarts and the spans asked for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.rules.tally import Counts, VerdictTally
from pipeline.rules.verdicts import State

STATES: tuple[State | None, ...] = ("ok", "breach", "unknown", None)
said = st.lists(st.sampled_from(STATES), max_size=60)


def tally_of(
    states: list[State | None], keep: int = 10_000, restarts: frozenset[int] = frozenset()
) -> VerdictTally:
    """The verdicts of the instants 10, 20, …; None: there was none.  At a restart it is saved and read again."""
    tally = VerdictTally()
    for i, state in enumerate(states, 1):
        if state is not None:
            tally.fold(10 * i, state, keep)
        if i in restarts:
            tally = VerdictTally(tally.runs)
    return tally


@given(said, st.integers(0, 70), st.integers(0, 70))
def test_a_span_has_the_seconds_of_each_verdict_in_it_and_the_rest_is_unknown(
    states: list[State | None], first: int, last: int
) -> None:
    counted = [state for i, state in enumerate(states, 1) if first < i <= last]
    good, bad = 10 * counted.count("ok"), 10 * counted.count("breach")
    span = 10 * max(last - first, 0)
    assert tally_of(states).over(10 * first, 10 * last) == Counts(good, bad, span - good - bad)


@given(said, st.frozensets(st.integers(1, 60)))
def test_a_restart_does_not_show(states: list[State | None], restarts: frozenset[int]) -> None:
    assert tally_of(states, restarts=restarts).runs == tally_of(states).runs


@given(said)
def test_what_changed_since_it_was_read_makes_the_saved_runs_complete(states: list[State | None]) -> None:
    saved = {run.start: run for run in tally_of(states[:30]).runs}
    tally = VerdictTally(saved.values())
    for i, state in enumerate(states[30:], 31):
        if state is not None:
            tally.fold(10 * i, state, 10_000)
    saved |= {run.start: run for run in tally.changed}
    assert tuple(saved[start] for start in sorted(saved)) == tally.runs


@pytest.mark.parametrize("keep", [10, 100, 300])
def test_what_is_older_than_it_is_kept_is_forgotten(keep: int) -> None:
    tally = tally_of(["ok", "breach"] * 30, keep)
    assert sum(run.end - run.start for run in tally.runs) == keep
    assert tally.over(600 - keep, 600).unknown == 0
