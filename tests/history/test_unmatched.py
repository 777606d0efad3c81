"""A clause that matches nothing that was ever seen is found, with the values that come nearest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.catalog import Catalog
from pipeline.clauses import load_all, plan_of
from pipeline.history import unmatched
from pipeline.history.unmatched import A_BILL_COMES_WITHIN, SETTLES
from pipeline.ledger.store import Ledger

T = 1_767_225_600  # 2026-01-01T00:00:00Z
HEAD = """
metadata: {id: acme, version: "1"}
parties: {customer: Acme, supplier: Azure}
term: {start: 2026-01-01, end: 2027-01-01}
currency: USD
timezone: UTC
"""
FLOOR = "capacity: [{id: floor, text: t, match: {%s}, by: [region, sku], committed_gpus: 1}]\n"
WAIT = "service_levels: [{id: wait, text: t, indicator: queue_wait_p95, bound: 10m}]\n"
TRANCHE = (
    "spend: {tranches: [{id: year, text: t, from: 2026-01-01, to: 2027-01-01, ceiling: '9.00', "
    "match: {ServiceProviderName: %s}}]}\n"
)


@pytest.fixture
def asked(ledger: Any, catalog: Catalog, tmp_path: Path, rows: Any) -> Any:
    """`asked(clauses, at)`: what is found at an instant (s after T) in a ledger that has seen two regions and a bill."""
    ledger.add(
        "gpu", [rows.gpu(T), {**rows.gpu(T, gpu=2, cluster="c2"), "region": "borealis", "sku": "h200"}]
    )
    ledger.add("billing", [rows.charge(T, T, "1.00", "1")])

    def ask(clauses: str, at: float) -> list[str] | None:
        path = tmp_path / "contract.yaml"
        path.write_text(HEAD + clauses)
        ledger.watermark(T + at)
        found = unmatched.note(ledger.ledger.cursor(), plan_of(load_all(path), catalog), catalog)
        return None if found is None else [f"{one.clause}: {one.why} ({one.seconds})" for one in found]

    return ask


@pytest.mark.parametrize(
    ("match", "why"),
    [
        ("region: boralis", "on telemetry.gpu region is 'boralis'; did you mean 'borealis'?"),
        ("region: [x, y], sku: gb300", "on telemetry.gpu region is 'x' or 'y', and was 'borealis' or 'eastus'"),
        ("region: borealis, sku: gb300", "on telemetry.gpu region 'borealis' and sku 'gb300' were seen, but never together"),
        ("data_class: eu", "on telemetry.gpu data_class is 'eu', and was never given"),
    ],
)  # fmt: skip
def test_what_matches_nothing_is_named_with_what_was_seen(asked: Any, match: str, why: str) -> None:
    assert asked(FLOOR % match, 0) == [], "a fleet that has just begun is given time"
    assert asked(FLOOR % match, SETTLES) == [f"floor: {why} ({SETTLES})"]


def test_what_matches_anything_is_not_named(asked: Any) -> None:
    for at, match in enumerate(("region: [boralis, borealis]", "provider: azure", "site: s1")):
        asked(FLOOR % match, 20_000 * at)
        assert asked(FLOOR % match, 20_000 * at + 9_000) == []


def test_a_topic_on_which_nothing_ever_came_is_named(asked: Any) -> None:
    asked(WAIT, 0)
    assert asked(WAIT, 600) == ["wait: nothing has ever come on telemetry.queue (600)"]


def test_a_supplier_that_has_sent_no_bill_is_given_a_month_unless_its_name_is_nearly_one_that_has(
    asked: Any,
) -> None:
    asked(TRANCHE % "Halcyon", 0)
    assert asked(TRANCHE % "Halcyon", A_BILL_COMES_WITHIN - 1) == []
    (late,) = asked(TRANCHE % "Halcyon", A_BILL_COMES_WITHIN)
    assert late.startswith("year: on telemetry.billing ServiceProviderName is 'Halcyon', and was 'azure'")
    assert asked(TRANCHE % "azure", A_BILL_COMES_WITHIN) == []
    assert asked(TRANCHE % "azzure", A_BILL_COMES_WITHIN) == []
    (near,) = asked(TRANCHE % "azzure", A_BILL_COMES_WITHIN + SETTLES)
    assert "did you mean 'azure'?" in near


def test_since_when_is_counted_in_event_time_and_kept_over_a_restart(
    asked: Any, ledger: Any, catalog: Catalog
) -> None:
    wrong = FLOOR % "region: boralis"
    asked(wrong, 100)
    ledger.close()
    ledger.ledger = Ledger(ledger.data, catalog)
    assert asked(wrong, 700)[0].endswith("(600)")
    assert asked(FLOOR % "region: borealis", 700) == []
    asked(wrong, 800)
    assert asked(wrong, 1_000)[0].endswith("(200)"), "it was right meanwhile"


def test_outside_its_term_a_contract_promises_nothing(asked: Any) -> None:
    wrong = FLOOR % "region: boralis"
    asked(wrong, 0)
    assert asked(wrong, 366 * 86_400) == []


def test_before_the_first_event_nobody_knows(ledger: Any, catalog: Catalog, tmp_path: Path) -> None:
    path = tmp_path / "contract.yaml"
    path.write_text(HEAD + WAIT)
    assert unmatched.note(ledger.ledger.cursor(), plan_of(load_all(path), catalog), catalog) is None
