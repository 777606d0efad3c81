"""Clocks that are wrong: of a record, ours, the broker's.  What is of the future moves nothing, and somebody is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.catalog import Catalog
from pipeline.contract.model import PipelineAlerts
from pipeline.errors import Stalled
from pipeline.rules.pipeline_alerts import Stall, Unmatched, stalled
from pipeline.stream.clocks import Ahead, Clocks
from pipeline.stream.health import Health, IntakeState
from pipeline.stream.topic_admin import ClockReading
from pipeline.stream.watermark import Watermarks

GPU = "telemetry.gpu"
HOUR, DAY = 3600.0, 86_400.0
YEARS_72 = 72 * 365 * DAY
START = 1_790_000_000.0


class Times:
    """A wall clock that can be set, and a steady one that cannot."""

    def __init__(self) -> None:
        self.wall, self.steady, self.truth = START, 500.0, START
        self.clocks = Clocks(lambda: self.wall, lambda: self.steady)

    def wait(self, seconds: float) -> None:
        self.wall, self.steady, self.truth = (t + seconds for t in (self.wall, self.steady, self.truth))

    def broker(self, off: float = 0.0) -> None:
        """The broker tells its clock, which is `off` by so much."""
        self.clocks.heard(ClockReading(self.truth + off, self.steady, 0.01))

    def words(self, **marks: float) -> list[str]:
        return [skew.words for skew in self.clocks.skews({f"telemetry.{k}": v for k, v in marks.items()})]


@pytest.fixture
def times() -> Times:
    return Times()


# Records.  The broker's clock stands at T0 in all of these.


def _batch(make: Any, *records: Any, after: Any = None, kind: int = 0) -> Any:
    """Of a CreateTime topic, or (`kind` 1) of one that the broker stamps; fetched when its clock stood at T0."""
    batch = make.batch(*records, after=after)
    places = {place: [replace(r, timestamp_type=kind) for r in own] for place, own in batch.records.items()}
    return replace(batch, records=places, clock=float(make.T0))


def _take(pipeline: Any, make: Any, *records: Any, kind: int = 0) -> Any:
    delta, letters = pipeline.process(_batch(make, *records, after=pipeline.ledger.offsets(), kind=kind))
    assert letters == []
    pipeline.apply(delta)
    return delta


@pytest.mark.parametrize("ahead", [61.0, 55 * 60.0, DAY, YEARS_72, 50_000 * 365 * DAY])
@pytest.mark.parametrize("binary", [False, True])
def test_a_record_of_the_future_is_quarantined_and_moves_nothing(
    pipeline: Any, make: Any, ahead: float, binary: bool
) -> None:
    good = make.event(at=make.T0 - 1, appended=make.T0 - 1, id="good")
    at = make.T0 + min(ahead, YEARS_72)
    delta = _take(pipeline, make, good, make.event(at=at, appended=make.T0 + ahead, id="2098", binary=binary))
    assert pipeline.fates() == {("aggregated", ""): 1, ("quarantined", "record_time_in_future"): 1}
    assert list(delta.progress.values()) == [make.naive(make.T0 - 1)]
    assert max(fate.minute for fate in delta.fates) <= make.naive(make.T0)
    assert pipeline.sql("SELECT max(time) FROM recent_gpu") == [(make.naive(make.T0 - 1),)]


def test_an_event_of_the_future_is_measured_by_the_brokers_clock_and_not_by_its_own_record(
    pipeline: Any, make: Any
) -> None:
    """Its record's time is 50 s ahead, which is allowed; the event is 100 s ahead, which is not."""
    _take(
        pipeline,
        make,
        make.event(at=make.T0 + 50, appended=make.T0 + 50, id="a"),
        make.event(at=make.T0 + 100, appended=make.T0 + 50, id="b"),
    )
    assert pipeline.fates() == {("aggregated", ""): 1, ("quarantined", "time_in_future"): 1}
    assert pipeline.ledger.progress() == {(GPU, 0): make.naive(make.T0)}, "no later than the clock"


def test_what_the_broker_has_stamped_is_its_clock(pipeline: Any, make: Any) -> None:
    _take(pipeline, make, make.event(at=make.T0 + 3000, appended=make.T0 + 3000), kind=1)
    assert pipeline.fates() == {("aggregated", ""): 1}


@settings(max_examples=25)
@given(offs=st.lists(st.tuples(st.integers(-200, 200), st.integers(-200, 200)), min_size=1, max_size=8))
def test_alone_and_in_company_a_record_has_the_same_fate(
    tmp_path_factory: pytest.TempPathFactory, catalog: Catalog, make: Any, offs: list[tuple[int, int]]
) -> None:
    pipeline = make.Pipeline(tmp_path_factory.mktemp("data"), catalog)
    records = [
        make.event(at=make.T0 + at, appended=make.T0 + stamp, id=str(n)) for n, (at, stamp) in enumerate(offs)
    ]
    _take(pipeline, make, *records)
    expected: dict[tuple[str, str], int] = {}
    for at, stamp in offs:
        late = "record_time_in_future" if stamp > 60 else "time_in_future" if at > min(stamp, 0) + 60 else ""
        key = ("quarantined" if late else "aggregated", late)
        expected[key] = expected.get(key, 0) + 1
    found = pipeline.fates()
    pipeline.close()
    assert found == expected


def test_how_far_ahead_they_are_is_told_with_their_source(pipeline: Any, make: Any) -> None:
    records = [make.event(at=make.T0 + n * HOUR, appended=make.T0 + n * HOUR, id=str(n)) for n in (1, 3, 2)]
    assert pipeline.processor.decode(_batch(make, *records)).ahead == {GPU: Ahead(3, 3 * HOUR, "/sim/n1")}


# Clocks.


def test_all_is_well_while_the_clocks_agree(times: Times) -> None:
    assert times.words() == []
    times.broker(off=2.0)
    times.wait(HOUR)
    assert times.words(gpu=times.truth - 5) == []
    assert times.clocks.least() == times.truth and times.clocks.bound() == times.truth + 2


@pytest.mark.parametrize("step", [HOUR, -HOUR, DAY, -DAY])
def test_our_own_clock_that_is_set_wrong_is_named_until_it_is_right_again(times: Times, step: float) -> None:
    times.broker()
    times.wait(10)
    times.wall += step
    (words,) = times.words()
    way = "ahead of" if step > 0 else "behind"
    assert f"our own clock is {'1 d' if abs(step) == DAY else '1 h'} {way} that of the broker" in words
    assert "was set" in words and ("forward" if step > 0 else "back") in words
    assert times.clocks.bound() == times.truth, "records are held against the broker's"
    assert times.clocks.least() == min(times.truth, times.wall)
    times.wall -= step
    assert times.words() == []


@pytest.mark.parametrize("step", [HOUR, -DAY])
def test_a_broker_that_does_not_tell_its_clock_leaves_ours(times: Times, step: float) -> None:
    times.wall += step
    times.wait(1)
    (words,) = times.words()
    assert "our own clock" in words and "where it stood" in words
    assert times.clocks.least() == times.wall
    assert times.clocks.bound() == max(times.wall, times.truth), "waiting records are not all of the future"


def test_a_broker_whose_clock_is_wrong_holds_the_watermark_and_is_said_to_be_possible(times: Times) -> None:
    times.broker(off=-DAY)
    (words,) = times.words()
    assert "1 d ahead of that of the broker" in words and "may be the broker's that is wrong" in words
    assert times.clocks.least() == times.truth - DAY


def test_records_and_watermarks_of_the_future_are_named(times: Times) -> None:
    times.broker()
    times.clocks.met({GPU: Ahead(2, 55 * 60.0, "/agent/7")})
    (words,) = times.words(queue=times.truth)
    assert "records of telemetry.gpu" in words and "55 min" in words and "/agent/7" in words
    times.wait(301)
    assert times.words() == []
    (words,) = times.words(queue=times.truth + DAY)
    assert "the watermark of telemetry.queue is 1 d ahead" in words
    times.wait(DAY)
    assert times.words(queue=times.truth) == [], "the clocks have reached it: nothing had to be deleted"


# Watermarks and health, whose durations no clock's step changes.


@pytest.fixture
def quiet(catalog: Catalog, times: Times) -> Watermarks:
    """One partition, read to its end, whose newest event is of now; nothing comes any more."""
    marks = Watermarks(catalog)
    marks.assign((GPU, 0), 0)
    _answer(marks, times, 10)
    marks.applied({(GPU, 0): (0, 10)}, {(GPU, 0): times.truth}, times.steady)
    for _ in range(8):
        times.wait(0.5)
        _answer(marks, times, 10)
    return marks


def _answer(marks: Watermarks, times: Times, end: int) -> None:
    marks.answered({(GPU, 0): end}, times.steady)


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("step", [HOUR, DAY])
def test_our_clock_that_runs_ahead_takes_no_watermark_with_it(
    quiet: Watermarks, times: Times, step: float, known: bool
) -> None:
    if known:
        times.broker()
    times.wall += step
    assert quiet.current(times.steady, times.clocks.least())[GPU] == times.truth - 5


@pytest.mark.parametrize("step", [-HOUR, -DAY])
def test_no_watermark_passes_a_clock_that_is_behind(quiet: Watermarks, times: Times, step: float) -> None:
    times.wall += step
    assert quiet.current(times.steady, times.clocks.least())[GPU] == times.wall - 5
    times.wall -= step
    assert quiet.current(times.steady, times.clocks.least())[GPU] == times.truth - 5


def _health(marks: Watermarks, times: Times) -> Health:
    return Health([GPU], marks, {}, stalled_after=30, give_up_after=180, steady=times.steady)


def _look(health: Health, times: Times, work: IntakeState) -> list[tuple[str, str]]:
    found = health.look(PipelineAlerts(), work, times.steady, times.wall, times.clocks.skews({}))[1]
    return [(change.state.alertname, change.kind) for change in found]


@pytest.mark.parametrize("step", [HOUR, -HOUR, DAY, -DAY])
def test_a_step_of_our_clock_while_records_wait_is_told_and_is_no_standstill(
    quiet: Watermarks, times: Times, step: float
) -> None:
    times.broker()
    health = _health(quiet, times)
    told = []
    for second in range(60):
        times.wait(1)
        times.wall += step if second == 20 else -step if second == 40 else 0
        _answer(quiet, times, 1000 + second)
        told += _look(health, times, IntakeState({(GPU, 0): 10 + second // 5}))
    assert told == [("ClockSkew", "firing"), ("ClockSkew", "resolved")]


def test_a_standstill_is_told_and_then_ends_the_process(quiet: Watermarks, times: Times) -> None:
    health, told, looks = _health(quiet, times), [], 0
    with pytest.raises(Stalled, match=r"telemetry\.deadletter is missing: gigawatch topics create"):
        for looks in range(400):
            times.wait(1)
            _answer(quiet, times, 1000)
            held_up = "the dead-letter topic telemetry.deadletter is missing: gigawatch topics create"
            told += [
                (*change, looks)
                for change in _look(health, times, IntakeState({(GPU, 0): 10}, held_up=held_up))
            ]
    assert [name for name, *_ in told] == ["PipelineStalled"]
    assert told[0][2] == 31 and looks == 181
    assert "topics create" in health.hangs
    assert health.stall and health.stall.topics == (GPU,)


def test_a_broker_that_does_not_answer_is_one_stall_of_all_topics_and_an_alert_for_each_topic_is_ended(
    quiet: Watermarks, times: Times
) -> None:
    """Before, each topic had an alert of its own: what fired when the program was replaced must not fire for ever."""
    other = "telemetry.queue"
    old, _ = stalled(None, PipelineAlerts().pipeline_stalled, Stall(0, "", ()), 30, 0)
    assert old
    old = replace(old, by=(("topic", GPU),))
    health = Health(
        [GPU, other], quiet, {old.identity: old}, stalled_after=30, give_up_after=180, steady=times.steady
    )
    quiet.assign((other, 0), 0)
    told = []
    for _ in range(600):
        times.wait(1)
        told += _look(health, times, IntakeState({(GPU, 0): 10}))
    assert told == [("PipelineStalled", "resolved"), ("PipelineStalled", "firing")]
    assert (
        health.stall
        and health.stall.topics == (GPU, other)
        and health.stall.why == "the broker does not answer"
    )
    assert not health.hangs, "the Watchdog goes on: we live"
    assert health.outage is None, "it is not over"
    began = health.stall.since
    told, over = [], times.wall + 1
    for _ in range(32):  # it answers, and what waits is not taken in: another cause, told in its own time
        times.wait(1)
        quiet.answered({(other, 0): 0, (GPU, 0): 1000}, times.steady)
        told += _look(health, times, IntakeState({(GPU, 0): 10}))
    assert told == [("PipelineStalled", "resolved"), ("PipelineStalled", "firing")]
    assert health.outage == (began, over) and health.stall and health.stall.topics == (GPU,)


def test_a_ledger_that_is_busy_is_a_standstill_although_no_record_waits(
    quiet: Watermarks, times: Times
) -> None:
    health, told = _health(quiet, times), []
    with pytest.raises(Stalled, match=r"the ledger is busy with one statement \(apply\)"):
        for second in range(400):
            times.wait(1)
            _answer(quiet, times, 10)
            told += _look(health, times, IntakeState({(GPU, 0): 10}, busy=float(second), busy_with="apply"))
    assert told == [("PipelineStalled", "firing")]


def test_a_clause_that_matches_nothing_is_told_after_an_hour_of_events_and_until_it_matches(
    quiet: Watermarks, times: Times
) -> None:
    health = _health(quiet, times)

    def look(found: list[Unmatched] | None) -> list[tuple[str, dict[str, str]]]:
        changes = health.look_at_clauses(PipelineAlerts(), found, times.wall)[1]
        return [
            (change.kind, dict(change.state.labels) | dict(change.state.annotations)) for change in changes
        ]

    def one(seconds: int) -> Unmatched:
        return Unmatched("acme", "floor", "region is 'boralis'; did you mean 'borealis'?", seconds)

    assert look(None) == look([one(3599)]) == []
    ((kind, told),) = look([one(3600)])
    assert (kind, told["alertname"], told["contract"], told["clause"], told["severity"]) == (
        "firing", "ClauseUnmatched", "acme", "floor", "warning",
    )  # fmt: skip
    assert told["summary"] == (
        "Clause floor of acme matches nothing that was ever seen: region is 'boralis'; did you mean 'borealis'?"
    )
    assert look([one(3700)]) == look(None) == [], "it is told once, and nobody knows before the first look"
    ((kind, told),) = look([])
    assert (kind, told["summary"]) == (
        "resolved", "Clause floor of acme matches something now, or is no longer in force",
    )  # fmt: skip


def test_a_process_that_was_suspended_was_not_watching(quiet: Watermarks, times: Times) -> None:
    health = _health(quiet, times)
    for _ in range(3):
        times.wait(3600)
        _answer(quiet, times, 1000)
        assert _look(health, times, IntakeState({(GPU, 0): 10})) == []


def test_evaluating_a_backlog_is_progress(quiet: Watermarks, times: Times) -> None:
    health = _health(quiet, times)
    for second in range(300):
        times.wait(1)
        _answer(quiet, times, 1000)
        assert _look(health, times, IntakeState({(GPU, 0): 10}, steps=second // 3)) == []


def test_data_of_a_pipeline_goes_on_after_a_restart_under_a_clock_that_is_a_day_fast(
    tmp_path: Path, catalog: Catalog, times: Times
) -> None:
    """What was reached is kept with the time of it; how long ago that was goes by the least clock."""
    times.broker()
    times.wall += DAY
    marks = Watermarks(catalog)
    gone = max(0.0, times.clocks.least() - (times.truth - 600))
    marks.assign((GPU, 0), 10, times.truth - 600, times.steady - gone)
    for _ in range(8):
        times.wait(0.5)
        _answer(marks, times, 10)
    assert marks.current(times.steady, times.clocks.least())[GPU] == times.truth - 5
