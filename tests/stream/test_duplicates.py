"""Duplicates: by the order of the log, within two minutes behind a partition's progress; charges for ever."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.catalog import Catalog


def fates(pipeline: Any) -> dict[str, int]:
    found: dict[str, int] = {}
    for (fate, _), n in pipeline.fates().items():
        found[fate] = found.get(fate, 0) + n
    return found


def test_a_sample_that_is_sent_again_counts_once(pipeline: Any, make: Any) -> None:
    one = make.event(at=make.T0, id="a")
    pipeline.take(one, one)
    pipeline.take(one)
    assert fates(pipeline) == {"aggregated": 1, "duplicate": 2}
    assert pipeline.sql("SELECT sum(samples)::INTEGER FROM partials_gpu_1d") == [(1,)]
    assert pipeline.fates()["duplicate", "identity_seen"] == 2


def test_the_identity_is_source_id_and_index_whatever_the_content(pipeline: Any, make: Any) -> None:
    pipeline.take(make.event(id="a", power_watts=1), make.event(id="a", power_watts=2))
    pipeline.take(make.event(id="a", source="/other"), make.event(id="b"))
    pipeline.take(make.event(id="c", data=[make.GPU, make.GPU]), make.event(id="c", data=[make.GPU] * 3))
    assert fates(pipeline) == {"aggregated": 1 + 2 + 3, "duplicate": 1 + 2}


@pytest.mark.parametrize(
    ("behind", "fate"), [(119.999, "duplicate"), (120, "duplicate"), (120.001, "aggregated")]
)
def test_a_sample_sent_again_two_minutes_behind_its_partition_is_no_duplicate_any_more(
    pipeline: Any, make: Any, behind: float, fate: str
) -> None:
    pipeline.take(make.event(at=make.T0, id="a"))
    pipeline.take(make.event(at=make.T0 + behind, id="b"))
    pipeline.take(make.event(at=make.T0, id="a", appended=make.T0 + behind))
    expected = {"aggregated": 2, "duplicate": 1} if fate == "duplicate" else {"aggregated": 3}
    assert fates(pipeline) == expected


def test_progress_is_bounded_by_the_time_of_the_record(pipeline: Any, make: Any) -> None:
    """A clock that runs 50 s ahead must not make others' samples old."""
    pipeline.take(make.event(at=make.T0, id="a"))
    pipeline.take(make.event(at=make.T0 + 150, id="b", appended=make.T0 + 100))
    pipeline.take(make.event(at=make.T0, id="a", appended=make.T0 + 100))
    assert fates(pipeline) == {"aggregated": 2, "duplicate": 1}


def test_a_sample_is_known_in_whichever_partition_it_comes_again(pipeline: Any, make: Any) -> None:
    pipeline.take(make.event(id="a", part=0))
    pipeline.take(make.event(id="a", part=1))
    assert fates(pipeline) == {"aggregated": 1, "duplicate": 1}
    assert pipeline.sql("SELECT part FROM fates WHERE fate = 'duplicate'") == [(1,)]


def test_what_was_refused_is_not_known(pipeline: Any, make: Any) -> None:
    ahead = make.event(id="a", at=make.T0 + 600, appended=make.T0)
    pipeline.take(ahead, make.event(id="b", sku=...))
    pipeline.take(make.event(id="a"), make.event(id="b"))
    assert fates(pipeline) == {"quarantined": 1, "dead_lettered": 1, "aggregated": 2}


def test_a_partition_that_stands_still_keeps_its_own_two_minutes_and_no_more(
    pipeline: Any, make: Any
) -> None:
    pipeline.take(make.event(at=make.T0, id="old", part=1))
    for minute in range(1, 30):
        at = make.T0 + 60 * minute
        pipeline.take(*(make.event(at=at + i, id=f"{minute}-{i}", part=0) for i in range(10)))
    (remembered,) = pipeline.sql("SELECT count(*) FROM recent_gpu")[0]
    assert remembered <= 1 + 10 * 4
    pipeline.take(make.event(at=make.T0, id="old", part=1, appended=make.T0 + 1800))
    assert fates(pipeline)["duplicate"] == 1


def test_after_a_restart_the_last_two_minutes_are_known_again(
    tmp_path: Path, make_pipeline: Callable[..., Any], make: Any
) -> None:
    from pipeline.history.seal import seal

    first = make_pipeline(tmp_path)
    first.take(*(make.event(at=make.T0 + i, id=f"old{i}") for i in range(5)), make.event(part=1, id="stands"))
    first.take(make.event(at=make.T0 + 3600, id="sealed"))
    seal(first.ledger.cursor(), tmp_path, first.catalog)
    first.take(make.event(at=make.T0 + 3660, id="private"))
    first.close()

    again = make_pipeline(tmp_path)
    assert again.sql("SELECT count(*) FROM recent_gpu") == [(3 + 5,)], "each partition's own two minutes"
    late = make.T0 + 3660
    again.take(make.event(at=make.T0 + 3600, id="sealed", appended=late), make.event(at=late, id="private"))
    again.take(make.event(at=make.T0, id="stands", part=1, appended=late))
    again.take(make.event(at=make.T0 + 1, id="old1", appended=late))
    assert fates(again) == {"aggregated": 8 + 1, "duplicate": 3}


SENT = st.lists(
    st.tuples(st.integers(0, 5), st.integers(-180, 15), st.integers(0, 1)), min_size=1, max_size=25
)


def by_the_rule(sent: list[tuple[int, float, int]]) -> list[bool]:
    """The rule of the domain, sample by sample: is it a duplicate?"""
    progress: dict[int, float] = {}
    known: dict[int, list[float]] = {}
    verdicts = []
    for id, at, part in sent:
        progress[part] = max(progress.get(part, at), at)
        horizon = progress[part] - 120
        again = at >= horizon and any(before >= horizon for before in known.get(id, []))
        verdicts.append(again)
        if not again:
            known.setdefault(id, []).append(at)
    return verdicts


@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(steps=SENT, cuts=st.sets(st.integers(1, 24)), restart=st.booleans())
def test_what_is_a_duplicate_follows_from_the_log_and_not_from_its_batches(
    catalog: Catalog, make: Any, tmp_path_factory: pytest.TempPathFactory, steps: Any, cuts: set[int], restart: bool
) -> None:  # fmt: skip
    """One partition per identity, as the key makes it; times may differ between two of the same identity."""
    now, sent = float(make.T0), []
    for id, step, _ in steps:
        now += max(step, 0)
        sent.append((id, now + min(step, 0), id % 2))
    expected = by_the_rule(sent)
    data = tmp_path_factory.mktemp("duplicates")
    pipeline = make.Pipeline(data, catalog)
    records = [make.event(at=at, id=str(id), part=part) for id, at, part in sent]
    start = 0
    for cut in sorted({*cuts, len(records)}):
        if start < min(cut, len(records)):
            pipeline.take(*records[start:cut])
            start = cut
            if restart:
                pipeline.close()
                pipeline = make.Pipeline(data, catalog)
    found = fates(pipeline)
    pipeline.close()
    assert found.get("duplicate", 0) == sum(expected)
    assert found.get("aggregated", 0) == len(expected) - sum(expected)


def charge(make: Any, issued: float, cost: Any, **more: Any) -> Any:
    return make.event("telemetry.billing", at=issued, id="charge", source="/bill", BilledCost=cost, **more)


def test_a_charge_issued_again_unchanged_is_a_duplicate_however_late(pipeline: Any, make: Any) -> None:
    pipeline.take(charge(make, make.T0, "10"))
    pipeline.take(charge(make, make.T0, "10", appended=make.T0 + 90 * 86400))
    pipeline.take(charge(make, make.T0 + 86400, "10"))
    assert fates(pipeline) == {"aggregated": 1, "duplicate": 2}


def test_a_charge_with_a_later_time_and_other_content_is_a_revision(pipeline: Any, make: Any) -> None:
    first, second = charge(make, make.T0, "10"), charge(make, make.T0 + 60, "12")
    pipeline.take(first, second)
    pipeline.take(second, first)
    assert fates(pipeline) == {"aggregated": 2, "duplicate": 2}
    assert pipeline.sql("SELECT BilledCost::INTEGER FROM charges ORDER BY time") == [(10,), (12,)]


@pytest.mark.parametrize("together", [True, False])
def test_a_charge_that_goes_back_to_what_it_was_is_one_more_revision(
    pipeline: Any, make: Any, together: bool
) -> None:
    issues = [charge(make, make.T0 + 60 * n, cost) for n, cost in enumerate(["10", "12", "10", "10"])]
    for batch in [issues] if together else [[one] for one in issues]:
        pipeline.take(*batch)
    assert pipeline.sql("SELECT BilledCost::INTEGER FROM charges ORDER BY time") == [(10,), (12,), (10,)]
    assert fates(pipeline) == {"aggregated": 3, "duplicate": 1}


def test_charges_are_known_after_a_restart(
    tmp_path: Path, make_pipeline: Callable[..., Any], make: Any
) -> None:
    first = make_pipeline(tmp_path)
    first.take(charge(make, make.T0, "10"))
    first.close()
    again = make_pipeline(tmp_path)
    again.take(charge(make, make.T0, "10"))
    assert fates(again) == {"aggregated": 1, "duplicate": 1}
