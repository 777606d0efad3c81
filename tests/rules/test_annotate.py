"""What an alert says: one short line, the facts, and SQL that gives the number it fired on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import catalog as catalogs
from pipeline.clauses import load, plan_of
from pipeline.readings import (
    DaySpend,
    EntityCount,
    FleetPower,
    MeterMean,
    Reading,
    Readings,
    TrancheSpend,
)
from pipeline.rules.alerts import AlertChange
from pipeline.rules.annotate import SUMMARY_LIMIT, Trust
from pipeline.rules.evaluate import Plan, evaluate

CATALOG = catalogs.load()
START = 1_780_272_000  # 2026-06-01T00:00:00Z
DAY = 86_400
CONTRACT = """
metadata: {id: acme, version: "1"}
parties: {customer: Carrier, supplier: Acme}
term: {start: 2026-01-01, end: 2027-01-01}
currency: EUR
timezone: UTC
capacity:
  - id: floor
    text: At least 100 healthy GPUs in each region (schedule A).
    by: [region]
    committed_gpus: 100
    money_at_risk: {per_hour: 1250}
    runbook: https://runbooks.example/floor
    contact: NOC, +49 30 555 0100
power: [{id: ramp, ceiling_megawatts: 1, overhead_ratio: 0.5, by: [region]}]
spend: {tranches: [{id: t1, from: 2026-05-22, to: 2026-06-21, ceiling: 1000}]}
"""


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    path = tmp_path_factory.mktemp("contract") / "acme.yaml"
    path.write_text(CONTRACT)
    return plan_of([load(path)], CATALOG)


def fired(
    plan: Plan, rows: Mapping[type, Iterable[Reading]], trust: Mapping[str, Trust] | None = None
) -> list[AlertChange]:
    """The changes at the first instant, with these readings for each type of spec."""
    due = {group: (START, START + 10) for group in plan.groups}
    answers = {spec: Readings(rows.get(type(spec), ())) for spec in plan.wanted(due)}
    return list(evaluate(plan, due, answers, {}, (), trust).changes)


def short(region: str, **more: Any) -> Reading:
    return Reading(START + 10, (region,), 90.0, samples=270, **more)


def test_an_alert_tells_what_a_tired_person_needs(plan: Plan) -> None:
    trust = {"telemetry.gpu": Trust(0.25, 0.002)}
    (change,) = fired(plan, {EntityCount: [short("eu-west", silent=4.0, lost=2.0)]}, trust)
    notes = dict(change.state.annotations)
    sql = notes.pop("sql")
    assert "FROM gpu" in sql and "'eu-west'" in sql and "known_from <= TIMESTAMP '2026-06-01 00:00:10'" in sql
    assert notes == {
        "summary": "floor: 90 GPUs delivered, at least 100 promised (eu-west)",
        "description": (
            "eu-west: 90 GPUs delivered, at least 100 promised; out of bounds since 2026-06-01T00:00:10Z."
        ),
        "text": "At least 100 healthy GPUs in each region (schedule A).",
        "observed": "90",
        "bound": "100",
        "unit": "GPUs",
        "since": "2026-06-01T00:00:10Z",
        "at_risk": "1,250 EUR an hour; 10 GPUs",
        "samples": "270",
        "trust": (
            "4 GPUs are silent: last known, not seen now. "
            "2 GPUs have been silent for so long that they count as lost. "
            "25.0% of telemetry.gpu were duplicates. "
            "0.2% of telemetry.gpu were quarantined as not credible."
        ),
        "runbook": "https://runbooks.example/floor",
        "contact": "NOC, +49 30 555 0100",
    }


@given(region=st.text(min_size=1, max_size=400))
def test_the_summary_is_one_short_line_whatever_the_labels_are(plan: Plan, region: str) -> None:
    (change,) = fired(plan, {EntityCount: [short(region)]})
    summary = change.state.annotations["summary"]
    assert len(summary) <= SUMMARY_LIMIT and summary.splitlines() == [summary]


@given(region=st.text(min_size=1))
def test_the_sql_is_one_select_and_finds_the_group_whatever_its_name_is(plan: Plan, region: str) -> None:
    (change,) = fired(plan, {EntityCount: [short(region)]})
    sql = change.state.annotations["sql"]
    con = duckdb.connect()
    (statement,) = con.extract_statements(sql)
    assert statement.type == duckdb.StatementType.SELECT
    raw(con, "gpu", [{"region": region, "gpu": "g1", "time": at(0), "known_from": at(10)}])
    assert con.execute(sql).fetchone() == (1,)


def at(seconds: int) -> datetime:
    return datetime.fromtimestamp(START + seconds, UTC).replace(tzinfo=None)


def raw(con: duckdb.DuckDBPyConnection, view: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Rows of a public raw view; what a row does not name is NULL."""
    columns = [("time", "TIMESTAMP"), *CATALOG.by_view(view).columns(), ("source", "VARCHAR")]
    columns += [("id", "VARCHAR"), ("idx", "INTEGER"), ("known_from", "TIMESTAMP")]
    con.execute(f"CREATE TABLE {view}({', '.join(f'{chr(34)}{n}{chr(34)} {kind}' for n, kind in columns)})")
    for row in rows:
        con.execute(
            f"INSERT INTO {view} BY NAME SELECT {', '.join(f'${name} AS {name}' for name in row)}", row
        )


def test_the_sql_of_a_group_that_is_part_metered_and_part_derived_adds_both_up(plan: Plan) -> None:
    (change,) = fired(
        plan,
        {
            MeterMean: [Reading(START + 10, ("eu", "acme", "s1"), 600_000.0, series=1)],
            FleetPower: [
                Reading(START + 10, ("eu", "acme", "s1"), 9_000_000.0, series=1),
                Reading(START + 10, ("eu", "acme", "s2"), 400_000.0, series=1),
            ],
        },
    )
    con = duckdb.connect()
    known = {"time": at(5), "known_from": at(10), "provider": "acme", "region": "eu"}
    raw(con, "energy", [{**known, "site": "s1", "feed": "a", "it_power_watts": 600_000}])
    raw(
        con,
        "gpu",
        [
            {**known, "site": site, "cluster": "c", "sku": "H", "gpu": gpu, "power_watts": watts}
            for site, gpu, watts in (("s1", "g1", 9_000_000), ("s2", "g2", 150_000), ("s2", "g3", 250_000))
        ],
    )
    assert change.state.observed == pytest.approx(1.2)
    assert con.execute(change.state.annotations["sql"]).fetchone() == (pytest.approx(1.2),)


def test_the_sql_of_a_forecast_gives_the_forecast(plan: Plan) -> None:
    days = tuple(
        DaySpend(START - (10 - i) * DAY, Decimal(40 + i), Decimal(7 if i in (2, 9) else 0)) for i in range(10)
    )
    amount = sum((d.usage + d.other for d in days), Decimal(0))
    reading = Reading(START + 10, (), float(amount), amount=amount, days=days, samples=12)
    (change,) = fired(plan, {TrancheSpend: [reading]})
    # Eight of ten days are complete: (40 + … + 47) ÷ 8 x 30, and the purchase of the third day.
    assert change.state.alertname == "TrancheOverrunForecast" and change.state.observed == 43.5 * 30 + 7
    # 7 + 43.5 a day: 1,000 is passed on the 23rd day of those that begin on 22 May.
    notes = change.state.annotations
    assert notes["crosses"] == "2026-06-13"
    assert "passed on 2026-06-13" in notes["summary"]
    assert "The ceiling is passed on 2026-06-13 (UTC)." in notes["description"]
    con = duckdb.connect()
    rows = []
    for i, day in enumerate(days):
        for category, cost in (("Usage", day.usage), ("Purchase", day.other)):
            start = at(day.day - START)
            row = {
                "ChargePeriodStart": start,
                "ChargeCategory": category,
                "BilledCost": cost,
                "BillingCurrency": "EUR",
            }
            rows.append(
                {**row, "id": f"{category}{i}", "source": "s", "idx": 0, "time": at(-5), "known_from": at(0)}
            )
    raw(con, "billing", rows)
    raw(con, "deliveries", [])
    assert con.execute(change.state.annotations["sql"]).fetchone() == (pytest.approx(43.5 * 30 + 7),)
