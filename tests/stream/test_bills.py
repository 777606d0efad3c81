"""Bills as they really are: what is billed counts, whatever it can be attributed to."""

from __future__ import annotations

import csv
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

SAMPLE = Path("shared") / "data" / "focus" / "focus_1.0_sample.csv"
NOWHERE = ("NULL", "null", "(null)", "", None)
BILLING = "telemetry.billing"


def event(make: Any, data: dict[str, Any] | list[dict[str, Any]], ident: str = "1") -> Any:
    message = json.loads(make.event(BILLING).value) | {"id": ident, "data": data}
    return make.record(json.dumps(message).encode(), topic=BILLING)


def fates(pipeline: Any) -> dict[tuple[str, str], int]:
    """How many of each fate, without what came in."""
    return {(fate, reason): n for (fate, reason), n in pipeline.fates().items() if fate != "in"}


@pytest.fixture
def charge(make: Any) -> dict[str, Any]:
    """The least that a charge needs, with money as text."""
    data = json.loads(make.event(BILLING).value)["data"]
    least = (
        "ServiceProviderName",
        "ChargeCategory",
        "BillingCurrency",
        "ChargePeriodStart",
        "ChargePeriodEnd",
    )
    return {name: data[name] for name in least} | {"BilledCost": "0.10"}


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("nothing", NOWHERE)
def test_every_column_that_is_not_required_may_be_said_to_be_nothing(
    pipeline: Any, make: Any, charge: dict[str, Any], nothing: str | None, listed: bool
) -> None:
    properties = json.loads(Path("schemas/billing.charge.v1.json").read_text())["properties"]
    data = dict.fromkeys(properties, nothing) | charge
    pipeline.take(event(make, [data, charge] if listed else data, "a"), event(make, charge, "b"))
    rows = pipeline.sql(
        "SELECT DISTINCT RegionId, SkuId, ResourceId, Tags, EffectiveCost, BilledCost FROM charges"
    )
    assert rows == [(None, None, None, None, None, Decimal("0.10"))]
    assert pipeline.sql("SELECT count(*) FROM series_billing") == [(1,)]


@pytest.mark.parametrize("name", ["ChargeCategory", "BillingCurrency", "ChargePeriodStart", "BilledCost"])
def test_what_is_required_is_missing_when_it_is_said_to_be_nothing(
    pipeline: Any, make: Any, charge: dict[str, Any], name: str
) -> None:
    rest = {k: v for k, v in charge.items() if k != name}
    pipeline.take(*(event(make, data) for data in (rest, *({**rest, name: nothing} for nothing in NOWHERE))))
    assert fates(pipeline) == {("dead_lettered", f"{name}_missing"): 1 + len(NOWHERE)}


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize(
    ("named", "issuer"),
    [
        ({"ProviderName": "AWS"}, "AWS"),
        ({"ProviderName": "AWS", "ServiceProviderName": "NULL"}, "AWS"),
        ({"ProviderName": "old", "ServiceProviderName": "new"}, "new"),
        ({"InvoiceIssuerName": "Amazon Web Services, Inc."}, "Amazon Web Services, Inc."),
        ({"InvoiceIssuerName": "Inc.", "ProviderName": "AWS"}, "AWS"),
    ],
)
def test_the_issuer_is_found_under_any_of_its_names(
    pipeline: Any, make: Any, charge: dict[str, Any], named: dict[str, str], issuer: str, listed: bool
) -> None:
    data = {k: v for k, v in charge.items() if k != "ServiceProviderName"} | named
    pipeline.take(event(make, [data] if listed else data))
    sql = "SELECT ServiceProviderName, InvoiceIssuerName FROM charges"
    assert pipeline.sql(sql) == [(issuer, named.get("InvoiceIssuerName"))]


@pytest.mark.parametrize("as_text", [False, True])
def test_a_commitment_is_kept_under_one_spelling_with_all_digits_of_its_money(
    pipeline: Any, make: Any, charge: dict[str, Any], as_text: bool
) -> None:
    element = {"ContractID": "c", "ContractCommitmentID": "m", "ContractCommitmentAppliedCost": "HERE"}
    applied: Any = json.dumps({"Elements": [element]}).replace('"HERE"', "0.123456789012345")
    data = charge | {"ContractApplied": "APPLIED"}
    record = event(make, data)
    value = record.value.decode().replace('"APPLIED"', json.dumps(applied) if as_text else applied)
    pipeline.take(make.record(value.encode(), topic=BILLING))
    ((text,),) = pipeline.sql("SELECT ContractApplied FROM charges")
    assert json.loads(text) == {
        "Elements": [
            {
                "ContractId": "c",
                "ContractCommitmentId": "m",
                "ContractCommitmentAppliedCost": "0.123456789012345",
            }
        ]
    }


@pytest.mark.parametrize(
    ("cost", "fate", "reason"),
    [
        ("0.0000000000000001", "quarantined", "too_precise"),
        ("1" + "0" * 22, "quarantined", "out_of_range"),
        ("1,50", "dead_lettered", "mistyped"),
    ],
)
def test_a_charge_that_cannot_be_kept_exactly_is_refused_by_name(
    pipeline: Any, make: Any, charge: dict[str, Any], cost: str, fate: str, reason: str
) -> None:
    element = {"ContractCommitmentId": "m", "ContractCommitmentAppliedCost": cost}
    pipeline.take(
        event(make, charge | {"BilledCost": cost}, "a"),
        event(make, [charge | {"BilledCost": cost}], "b"),
        event(make, charge | {"ContractApplied": {"Elements": [element]}}, "c"),
    )
    assert fates(pipeline) == {
        (fate, f"BilledCost_{reason}"): 2,
        (fate, f"ContractCommitmentAppliedCost_{reason}"): 1,
    }


@pytest.mark.parametrize("cost", ["1e-16", "1e-400", "0.00001e-0300", "1E-999999999"])
def test_a_number_that_a_double_would_make_nought_is_refused_too(
    pipeline: Any, make: Any, charge: dict[str, Any], cost: str
) -> None:
    one = charge | {"BilledCost": "HERE"}
    values = (
        r.value.replace(b'"HERE"', cost.encode()) for r in (event(make, one, "a"), event(make, [one], "b"))
    )
    pipeline.take(*(make.record(value, topic=BILLING) for value in values))
    assert fates(pipeline) == {("quarantined", "BilledCost_too_precise"): 2}


def rows_of_the_sample() -> list[dict[str, str]]:
    found = next((up / SAMPLE for up in Path(__file__).parents if (up / SAMPLE).exists()), None)
    if found is None:
        pytest.skip(f"{SAMPLE} is in no folder above; it is others' data and no part of the project")
    with found.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("listed", [False, True])
def test_the_sample_of_the_focus_foundation_is_taken_as_it_stands(
    pipeline: Any, make: Any, listed: bool
) -> None:
    rows = rows_of_the_sample()
    if listed:
        pipeline.take(*(event(make, rows[at : at + 100], f"r{at}") for at in range(0, 1000, 100)))
    else:
        pipeline.take(*(event(make, row, f"r{n}") for n, row in enumerate(rows)))
    sums = pipeline.sql(
        "SELECT ServiceProviderName, count(*)::INTEGER, sum(BilledCost) FROM charges GROUP BY 1 ORDER BY 1"
    )
    assert sums == [
        ("AWS", 942, Decimal("18.00663861840")),
        ("Microsoft", 51, Decimal("1.97651418586")),
        ("Oracle", 7, Decimal("0.53707392473")),
    ]
