"""Each rule of the architecture's chapter on time, with explicit clocks."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.catalog import Catalog
from pipeline.stream.watermark import AFTER_OUTAGE, WAITING, Watermarks

GPU, QUEUE, ENERGY, BILLING = "telemetry.gpu", "telemetry.queue", "telemetry.energy", "telemetry.billing"
NOW = 2_000_000.0
"""Wall clock; event time in these tests is in the thousands, so it is plain when the one becomes the other."""
LATENESS = 5


class Clocked:
    """Watermarks with a broker whose log ends are known, at a clock that the test moves."""

    def __init__(self, catalog: Catalog) -> None:
        self.marks, self.now = Watermarks(catalog), NOW
        self.ends: dict[tuple[str, int], int] = {}

    def partition(self, topic: str, part: int, end: int = 0, **options: Any) -> None:
        self.ends[topic, part] = end
        self.marks.assign((topic, part), 0, **options)

    def answer(self, *places: tuple[str, int]) -> Clocked:
        """The broker says where the logs end (of all partitions unless told otherwise)."""
        self.marks.answered({p: self.ends[p] for p in places or self.ends}, self.now)
        return self

    def read(self, topic: str, part: int, to: int, progress: float | None = None) -> Clocked:
        """Everything up to offset `to` is taken in; the newest event of it was at `progress`."""
        place = (topic, part)
        lo = self.marks.positions()[place]
        self.marks.applied({place: (lo, to)}, {} if progress is None else {place: progress}, self.now)
        return self

    def wait(self, seconds: float) -> Clocked:
        """Time passes while the broker answers every half second."""
        for _ in range(int(seconds * 2)):
            self.now += 0.5
            self.answer()
        return self

    def silence(self, seconds: float) -> Clocked:
        """Time passes and the broker answers nothing."""
        self.now += seconds
        return self

    def of(self, topic: str) -> float | None:
        return self.marks.current(self.now, self.now).get(topic)


@pytest.fixture
def clocked(catalog: Catalog) -> Clocked:
    return Clocked(catalog)


@pytest.fixture
def two(clocked: Clocked) -> Clocked:
    """Two partitions of the GPU topic with a long backlog."""
    clocked.partition(GPU, 0, 1000)
    clocked.partition(GPU, 1, 1000)
    return clocked.answer()


def test_it_is_the_least_progress_less_the_lateness_that_the_schema_allows(two: Clocked) -> None:
    two.read(GPU, 0, 10, 5000).read(GPU, 1, 10, 4000)
    assert two.of(GPU) == 4000 - LATENESS
    two.read(GPU, 1, 20, 4600)
    assert two.of(GPU) == 4600 - LATENESS


def test_progress_never_goes_back(two: Clocked) -> None:
    two.read(GPU, 0, 10, 5000).read(GPU, 1, 10, 5000).read(GPU, 0, 20, 4000)
    assert two.of(GPU) == 5000 - LATENESS


def test_a_topic_is_not_held_back_by_another(two: Clocked) -> None:
    two.partition(QUEUE, 0, 1000)
    two.answer().read(QUEUE, 0, 1, 100).read(GPU, 0, 1, 5000).read(GPU, 1, 1, 5000)
    assert (two.of(GPU), two.of(QUEUE)) == (5000 - LATENESS, 100 - LATENESS)


def test_a_partition_that_has_not_been_read_holds_its_topic(two: Clocked) -> None:
    two.read(GPU, 0, 10, 5000)
    assert two.of(GPU) == WAITING
    two.read(GPU, 1, 10, 4000)
    assert two.of(GPU) == 4000 - LATENESS


def test_a_topic_whose_first_records_wait_is_waited_for_and_an_empty_one_is_not(two: Clocked) -> None:
    two.partition(QUEUE, 0, 3)
    two.partition(ENERGY, 0, 0)
    two.answer().read(GPU, 0, 10, 5000).read(GPU, 1, 10, 5000)
    assert two.of(QUEUE) == WAITING
    assert two.of(ENERGY) is None
    two.read(QUEUE, 0, 3)
    assert two.of(QUEUE) is None, "nothing good came of its records"


def test_an_idle_partition_holds_nobody_back(two: Clocked) -> None:
    two.read(GPU, 0, 1000, 5000).read(GPU, 1, 1000, 4990).wait(2)
    two.ends[GPU, 0] = 1500
    two.answer().read(GPU, 0, 1100, 5500)
    assert two.of(GPU) == 5500 - LATENESS


@pytest.mark.parametrize("seconds", [0, 1, 1.5])
def test_a_partition_is_not_idle_until_nothing_came_for_two_seconds(two: Clocked, seconds: float) -> None:
    two.read(GPU, 0, 1000, 5000).read(GPU, 1, 1000, 4990).wait(seconds)
    assert two.of(GPU) == 4990 - LATENESS
    two.wait(2)
    assert two.of(GPU) is not None and two.of(GPU) > 4990 - LATENESS  # type: ignore[operator]


def test_a_partition_is_not_idle_on_an_answer_older_than_a_second(two: Clocked) -> None:
    """A paused broker answers nothing: then the watermark stands still."""
    two.read(GPU, 0, 1000, 5000).read(GPU, 1, 1000, 4000).wait(5)
    moving = two.of(GPU)
    two.silence(1)
    assert two.of(GPU) == moving + 1  # type: ignore[operator]
    two.silence(0.001)
    assert two.of(GPU) == 4000 - LATENESS, "the ledger keeps what was reached before"
    two.silence(3600)
    assert two.of(GPU) == 4000 - LATENESS


def test_after_an_outage_no_partition_is_idle_until_each_has_reached_its_end_once(two: Clocked) -> None:
    two.read(GPU, 0, 1000, 5000).read(GPU, 1, 1000, 5000).wait(5).silence(60)
    two.ends[GPU, 1] = 1300  # written while nobody could read
    two.answer().wait(10)
    assert two.of(GPU) == 5000 - LATENESS
    two.read(GPU, 1, 1200, 5040).wait(10)
    assert two.of(GPU) == 5010 - LATENESS, "the one at its end holds the others back 30 s at most"
    two.read(GPU, 1, 1300, 5060).wait(1)
    assert two.of(GPU) == 5060 - LATENESS, "the other one is idle again"
    two.wait(2)
    assert two.of(GPU) > 5060 - LATENESS  # type: ignore[operator]


def test_after_an_outage_other_topics_wait_too(two: Clocked) -> None:
    """The queue's end may be stale news as long as the GPUs' backlog says that there was an outage."""
    two.partition(QUEUE, 0, 10)
    two.answer().read(QUEUE, 0, 10, 5000).read(GPU, 0, 1000, 5000).read(GPU, 1, 1000, 5000).wait(5).silence(
        60
    )
    two.ends[GPU, 1] = 1300
    two.answer().wait(20)
    assert two.of(QUEUE) == 5000 - LATENESS
    two.read(GPU, 1, 1300, 5060).wait(3)
    assert two.of(QUEUE) > 5000 - LATENESS  # type: ignore[operator]


def test_for_some_seconds_after_an_outage_nobody_is_idle_since_producers_send_what_they_kept(
    two: Clocked,
) -> None:
    two.read(GPU, 0, 1000, 5000).read(GPU, 1, 1000, 4990).wait(5).silence(60)
    two.answer().wait(AFTER_OUTAGE - 1)
    assert two.of(GPU) == 4990 - LATENESS
    two.wait(2)
    assert two.of(GPU) > 5000  # type: ignore[operator]


def test_one_partition_without_an_answer_keeps_itself_from_being_idle(two: Clocked) -> None:
    two.read(GPU, 0, 1000, 5000).read(GPU, 1, 1000, 4000).wait(1)
    for _ in range(8):
        two.now += 0.5
        two.answer((GPU, 0))
    two.ends[GPU, 0] = 2000
    two.answer((GPU, 0)).read(GPU, 0, 1100, 6000)
    assert two.of(GPU) == 4000 - LATENESS


def test_a_partition_far_behind_at_its_end_holds_the_others_back_thirty_seconds_at_most(two: Clocked) -> None:
    two.read(GPU, 0, 900, 5000).read(GPU, 1, 1000, 4980)
    assert two.of(GPU) == 4980 - LATENESS
    two.read(GPU, 0, 950, 5500)
    assert two.of(GPU) == 5470 - LATENESS


def test_a_partition_far_behind_that_is_not_at_its_end_holds_without_limit(two: Clocked) -> None:
    two.read(GPU, 0, 900, 50_000).read(GPU, 1, 10, 100)
    assert two.of(GPU) == 100 - LATENESS


def test_when_all_is_idle_it_goes_on_at_the_pace_of_the_wall_clock(two: Clocked) -> None:
    two.read(GPU, 0, 1000, 5000).read(GPU, 1, 1000, 4000).wait(2)
    assert two.of(GPU) == 5000 + 2 - LATENESS
    two.wait(60)
    assert two.of(GPU) == 5000 + 62 - LATENESS


def test_it_never_goes_beyond_now(two: Clocked) -> None:
    two.read(GPU, 0, 1000, NOW + 3).read(GPU, 1, 1000, NOW - 1).wait(2)
    assert two.of(GPU) == NOW + 2 - LATENESS
    two.wait(60)
    assert two.of(GPU) == NOW + 62 - LATENESS


def test_a_restart_counts_the_wall_clock_from_when_the_progress_was_reached(clocked: Clocked) -> None:
    clocked.partition(GPU, 0, 0, progress=5000.0, progress_at=NOW - 600)
    clocked.answer().wait(2)
    assert clocked.of(GPU) == 5000 + 602 - LATENESS


def test_a_new_partition_holds_its_topic_until_it_is_read_and_not_when_it_is_empty(two: Clocked) -> None:
    two.read(GPU, 0, 10, 5000).read(GPU, 1, 10, 5000)
    two.partition(GPU, 2, 0)
    two.answer()
    assert two.of(GPU) == 4970 - LATENESS, "it may get its first event any moment"
    two.partition(GPU, 3, 50)
    two.answer()
    assert two.of(GPU) == WAITING
    two.read(GPU, 3, 50, 5000)
    assert two.of(GPU) == 4970 - LATENESS


def test_billing_holds_nothing_back_and_follows_the_newest_telemetry(two: Clocked) -> None:
    two.partition(BILLING, 0, 1)
    two.partition(QUEUE, 0, 10)
    two.answer().read(BILLING, 0, 1, 10.0)
    two.read(GPU, 0, 10, 5000).read(GPU, 1, 10, 5000).read(QUEUE, 0, 5, 7000)
    assert two.of(GPU) == 5000 - LATENESS
    assert two.of(BILLING) == two.of(QUEUE) == 7000 - LATENESS


def test_billing_that_has_fallen_behind_holds_back_its_own_clauses(two: Clocked) -> None:
    two.partition(BILLING, 0, 100)
    two.answer().read(GPU, 0, 10, 5000).read(GPU, 1, 10, 5000)
    assert two.of(BILLING) is None
    two.read(BILLING, 0, 50, 3000)
    assert (two.of(BILLING), two.of(GPU)) == (3000, 5000 - LATENESS)
    two.read(BILLING, 0, 100, 3500)
    assert two.of(BILLING) == 5000 - LATENESS


def test_lag_is_what_lies_between_position_and_end(two: Clocked) -> None:
    two.read(GPU, 0, 400, 5000)
    assert two.marks.lag() == {(GPU, 0): 600, (GPU, 1): 1000}
