"""What is measured for a time more than once: the newest report counts, and all of them stay in the history."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.catalog import Catalog
from pipeline.history.rollup_select import partials_select
from pipeline.rollup.grid import WIDTHS as LEDGER_WIDTHS
from pipeline.views.published import WIDTHS

HOUR = 1_790_000_000 // 3600 * 3600
MEASURES = ("carbon_gco2e_per_kwh", "renewable_ratio", "price_per_mwh")
WORDS = ("estimated", "final")
ZONE = {"provider": "halcyon", "region": "eu-west", "site": "ams-02"}


class Report(NamedTuple):
    """One report of a zone for an hour; `values` those of `MEASURES`, None where it does not say one."""

    feed: str
    hour: int
    final: bool
    issued: int
    values: tuple[float | None, ...]

    @property
    def sample(self) -> dict[str, Any]:
        said = {name: value for name, value in zip(MEASURES, self.values, strict=True) if value is not None}
        issued = HOUR + 86_400 + self.issued
        return {**ZONE, "feed": self.feed, "status": WORDS[self.final], "issued": moment(issued), **said}


def moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")


def event(make: Any, report: Report, provider: str = "halcyon") -> Any:
    at = HOUR + 3600 * report.hour
    return make.event(
        "telemetry.energy",
        at=at,
        id=f"{report}",
        source=f"/map/{report.feed}",
        data={**report.sample, "provider": provider},
        appended=HOUR + 200_000,
    )


def power(make: Any, n: int, provider: str) -> Any:
    """A meter beside them, which nobody revises."""
    data = {
        **ZONE,
        "provider": provider,
        "feed": "NL",
        "it_power_watts": 1e6 + n,
        "carbon_gco2e_per_kwh": 100.0 + n,
    }
    at = HOUR + 1800 * n + 7
    return make.event("telemetry.energy", at=at, id=f"{provider}{n}", source="/meter", data=data, appended=at)


def newest(reports: Sequence[Report]) -> list[Report]:
    """Of each measure of each hour the report that counts, in a few lines of plain Python."""
    best: dict[tuple[str, int, int], Report] = {}
    for report in reports:
        for place, value in enumerate(report.values):
            key = (report.feed, report.hour, place)
            if value is not None and (key not in best or report[2:4] > best[key][2:4]):
                best[key] = report
    found: dict[Report, list[float | None]] = {}
    for (_, _, place), report in best.items():
        found.setdefault(report, [None] * len(MEASURES))[place] = report.values[place]
    return [report._replace(values=tuple(values)) for report, values in found.items()]


def rollups(pipeline: Any, provider: str) -> dict[str, str]:
    energy = pipeline.catalog.by_view("energy")
    of = "SELECT * EXCLUDE (provider) FROM ({}) WHERE provider = '" + provider + "'"
    return {w.name: repr(pipeline.sql(of.format(partials_select(energy, w, 0, 2**33)))) for w in WIDTHS}


NUMBERS = count()


VALUES = st.tuples(
    st.none() | st.integers(0, 9).map(lambda n: 100.1 + n),
    st.none() | st.integers(0, 9).map(lambda n: n / 10),
    st.none() | st.integers(-5, 5).map(float),
).filter(lambda values: any(value is not None for value in values))
REPORTS = st.lists(
    st.builds(Report, st.sampled_from(["NL", "DE"]), st.integers(0, 2), st.booleans(), st.integers(0, 3), VALUES),
    min_size=1, max_size=10, unique_by=lambda r: r[:4],
)  # fmt: skip


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, make: Any, catalog: Catalog) -> Iterator[tuple[Any, Any]]:
    """Two pipelines that are open for all examples; each has a provider of its own."""
    found = tuple(make.Pipeline(tmp_path_factory.mktemp("run") / "data", catalog) for _ in range(2))
    yield found
    for one in found:
        one.close()


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(reports=REPORTS, seed=st.integers(0, 2**32), pieces=st.integers(1, 3))
def test_any_order_any_batches_and_any_repetition_add_up_to_what_the_newest_reports_say(
    pair: tuple[Any, Any], make: Any, reports: list[Report], seed: int, pieces: int
) -> None:
    rng = random.Random(seed)
    pipeline, reference = pair
    provider = f"p{next(NUMBERS)}"
    meters = [power(make, n, provider) for n in range(4)]
    reference.take(*meters, *(event(make, report, provider) for report in newest(reports)))
    sent = [event(make, r, provider) for r in reports for _ in range(rng.choice([1, 1, 2]))] + meters
    rng.shuffle(sent)
    before = pipeline.fates()
    for piece in range(pieces):
        if records := sent[piece::pieces]:
            pipeline.take(*records)
    assert rollups(pipeline, provider) == rollups(reference, provider)
    added = {fate: n - before.get(fate, 0) for fate, n in pipeline.fates().items()}
    assert added.get(("duplicate", "identity_seen"), 0) == len(sent) - len(reports) - len(meters)
    assert added["aggregated", ""] == len(reports) + len(meters)


def only(pipeline: Any, columns: str, t: float = 2**33) -> list[Any]:
    """Of the ledger's ten-second rows what an instant sees."""
    return pipeline.sql(
        f"SELECT {columns} FROM partials_energy_10s WHERE known_from <= make_timestamp({int(t)}::BIGINT * 1000000)"
    )


def test_what_was_known_at_an_instant_stays_what_was_known_then(pipeline: Any, make: Any) -> None:
    sums = (
        "sum(carbon_gco2e_per_kwh_sum)::BIGINT, sum(carbon_gco2e_per_kwh_count)::BIGINT, sum(samples)::BIGINT"
    )
    first, second = (
        Report("NL", 0, False, 1, (300.0, None, None)),
        Report("NL", 0, True, 2, (250.0, None, None)),
    )
    pipeline.take(event(make, first), watermarks={"telemetry.energy": HOUR + 100})
    before = only(pipeline, sums, HOUR + 100)
    pipeline.take(event(make, second), watermarks={"telemetry.energy": HOUR + 200})
    assert only(pipeline, sums, HOUR + 100) == before == [(300_000, 1, 1)]
    assert only(pipeline, sums, HOUR + 200) == [(250_000, 1, 1)]
    rows = pipeline.sql(
        "SELECT status, carbon_gco2e_per_kwh FROM "
        f"read_parquet('{pipeline.data}/segments/energy-*.parquet') ORDER BY status"
    )
    assert rows == [("estimated", 300.0), ("final", 250.0)]


def test_what_is_revised_is_published_anew_in_roll_ups_of_every_width(pipeline: Any, make: Any) -> None:
    pipeline.take(event(make, Report("NL", 0, False, 1, (300.0, None, None))))
    pipeline.sql("DELETE FROM dirty")
    pipeline.take(event(make, Report("NL", 0, True, 2, (250.0, None, None))))
    assert pipeline.sql("SELECT view, epoch(minute)::BIGINT FROM dirty WHERE view = 'energy'") == [
        ("energy", HOUR)
    ]
    energy, names = pipeline.catalog.by_view("energy"), ("mean", "min", "max", "last", "sum")
    for width in WIDTHS:
        columns = ", ".join(f"carbon_gco2e_per_kwh_{name}" for name in names)
        [row] = pipeline.sql(f"SELECT samples, {columns} FROM ({partials_select(energy, width, 0, 2**33)})")
        assert row == (1, 250.0, 250.0, 250.0, 250.0, 250.0), width.name
    assert len(WIDTHS) == len(LEDGER_WIDTHS)


def test_a_sample_that_measures_power_too_is_no_report(pipeline: Any, make: Any) -> None:
    data = {**Report("NL", 0, True, 1, (300.0, None, None)).sample, "it_power_watts": 5.0}
    pipeline.take(make.event("telemetry.energy", at=HOUR, data=data))
    assert pipeline.sql("SELECT count(*) FROM revised_energy") == [(0,)]
    assert only(pipeline, "carbon_gco2e_per_kwh_sum::BIGINT, carbon_gco2e_per_kwh_min") == [(300_000, 300.0)]


def hourly(pipeline: Any) -> list[Any]:
    energy, width = pipeline.catalog.by_view("energy"), next(w for w in WIDTHS if w.name == "1h")
    return pipeline.sql(
        f"SELECT carbon_gco2e_per_kwh_mean, samples FROM ({partials_select(energy, width, 0, 2**33)}) ORDER BY window_start"
    )


def test_a_source_that_says_no_time_of_issue_is_asked_again_and_again(pipeline: Any, make: Any) -> None:
    told = [(318.0, 0), (318.0, 0), (310.0, 0), (318.0, 0), (302.0, 1), (311.0, 0), (302.0, 1), (303.0, 1)]
    for n, (intensity, final) in enumerate(told):
        sample = {**ZONE, "feed": "NL", "status": WORDS[final], "carbon_gco2e_per_kwh": intensity}
        appended = HOUR + 300 * n
        pipeline.take(make.event("telemetry.energy", at=HOUR, source="/map", data=sample, appended=appended))
    assert hourly(pipeline) == [(303.0, 1)]
    assert pipeline.fates() == {("aggregated", ""): 6, ("duplicate", "identity_seen"): 2}


def test_reports_are_known_again_after_a_restart_however_old_they_are(
    tmp_path: Path, make: Any, make_pipeline: Callable[..., Any]
) -> None:
    reports = [
        Report("NL", hour, final, hour, (300.0 - 50 * final, None, None))
        for hour in (0, 2)
        for final in (0, 1)
    ]
    first = make_pipeline(tmp_path / "data")
    first.take(*(event(make, report) for report in reports))
    first.close()
    again = make_pipeline(tmp_path / "data")
    again.take(*(event(make, report) for report in reports))
    assert hourly(again) == [(250.0, 1), (250.0, 1)]
    assert again.fates() == {("aggregated", ""): 4, ("duplicate", "identity_seen"): 4}
