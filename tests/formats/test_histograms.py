"""Cumulative histograms become what each report adds, whatever restarts in between."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from pipeline.formats.histograms import Differences, Reported, Spread, spreads
from pipeline.formats.point import Buckets
from pipeline.rollup.grid import DAY

BOUNDS = (1.0, 2.5, 5.0)
counts = st.tuples(*[st.integers(0, 50)] * 4)


@given(st.lists(counts, min_size=1, max_size=8))
def test_what_the_reports_add_is_what_was_counted_after_the_first(added: list[tuple[int, ...]]) -> None:
    differences, total, found = Differences(), (0, 0, 0, 0), []
    for time, more in enumerate(added):
        total = tuple(a + b for a, b in zip(total, more, strict=True))  # type: ignore[assignment]
        found.append(differences.added("source", time, Buckets(BOUNDS, total)))
    assert found[0] is None
    assert [f.counts for f in found[1:] if f] == list(added[1:])


def again(saved: Mapping[str, Reported | None]) -> dict[str, Reported]:
    """What is read again of what was saved."""
    return {key: Reported.read(last.text()) for key, last in saved.items() if last}


@given(st.lists(counts, min_size=2, max_size=6), st.integers(0, 5))
def test_a_saved_state_goes_on_where_it_stopped(added: list[tuple[int, ...]], cut: int) -> None:
    reports, total = [], (0, 0, 0, 0)
    for more in added:
        total = tuple(a + b for a, b in zip(total, more, strict=True))  # type: ignore[assignment]
        reports.append(Buckets(BOUNDS, total))
    whole = Differences()
    expected = [whole.added("s", t, r) for t, r in enumerate(reports)]
    cut = min(cut, len(reports))
    first = Differences()
    found = [first.added("s", t, r) for t, r in enumerate(reports[:cut])]
    second = Differences(again(first.changed()))
    found += [second.added("s", t, r) for t, r in enumerate(reports[cut:], cut)]
    assert found == expected


def test_a_restart_adds_what_was_counted_since() -> None:
    differences = Differences()
    differences.added("s", 0, Buckets(BOUNDS, (100, 50, 20, 7)))
    assert differences.added("s", 30, Buckets(BOUNDS, (2, 0, 0, 1))) == Buckets(
        BOUNDS, (2, 0, 0, 1), cumulative=False
    )


def test_a_restart_that_the_source_says_is_one_though_no_count_fell() -> None:
    differences = Differences()
    differences.added("s", 0, Buckets(BOUNDS, (1, 0, 0, 0), since=1))
    assert differences.added("s", 30, Buckets(BOUNDS, (5, 0, 0, 0), since=20)) == Buckets(
        BOUNDS, (5, 0, 0, 0), cumulative=False, since=20
    )


def test_the_same_report_again_and_an_older_one_add_nothing() -> None:
    differences = Differences()
    differences.added("s", 0, Buckets(BOUNDS, (1, 0, 0, 0)))
    again = Buckets(BOUNDS, (3, 0, 0, 0))
    assert differences.added("s", 30, again) is not None
    assert differences.added("s", 30, again) is None
    assert differences.added("s", 10, Buckets(BOUNDS, (2, 0, 0, 0))) is None


def test_counts_since_the_last_report_are_taken_as_they_are() -> None:
    delta = Buckets(BOUNDS, (1, 2, 0, 3), cumulative=False)
    assert Differences().added("s", 0, delta) is delta


def test_beyond_the_last_bound_a_value_is_only_known_to_be_greater() -> None:
    assert spreads(Buckets((1.0, 40960.0), (2, 0, 3))) == (Spread(0.0, 1.0, 2), Spread(40960.0, None, 3))


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(-DAY, 2 * DAY), st.booleans(), st.booleans()),
        max_size=12,
    )
)
def test_what_is_forgotten_follows_from_when_it_was_heard_whoever_asks_or_starts_anew(
    heard: list[tuple[str, int, bool, bool]],
) -> None:
    """One is never asked what changed; the other is at times, and now and then starts from what it saved."""
    never, asked, saved = Differences(), Differences(), dict[str, Reported | None]()
    now, last, total = 10**9, dict[str, int](), (0, 0, 0, 0)
    for differences in (never, asked):
        differences.hear(now * 1_000_000)
    for key, after, ask, anew in heard:
        total = tuple(n + 1 for n in total)  # type: ignore[assignment]
        for differences in (never, asked):
            differences.hear((now + after) * 1_000_000)
        now = max(now, now + after)
        found = [each.added(key, None, Buckets(BOUNDS, total)) for each in (never, asked)]
        assert found[0] == found[1]
        assert (found[0] is None) == (key not in last or now - last[key] > DAY)
        last[key] = now
        if ask or anew:
            saved |= asked.changed()
            saved = {each: kept for each, kept in saved.items() if kept}
            assert set(saved) == {each for each, at in last.items() if now - at <= DAY}
        if anew:
            asked = Differences(again(saved))
