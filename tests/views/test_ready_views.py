"""Promises as tables, and the views that answer ready-made: what each column says, for clauses of any kind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from pipeline.catalog import Catalog, load
from pipeline.clauses import load_all, plan_of
from pipeline.history import health_table, query
from pipeline.history.health_table import Pulse
from pipeline.ledger.terms import AROUND
from pipeline.rules.pipeline_alerts import Stall
from pipeline.views.published import published_tables
from pipeline.views.ready_views import ready_views

EXAMPLE = Path(__file__).parents[2] / "schemas" / "example-contract.yaml"
NOW = 1_796_000_000  # 2026-11-29T23:33:20Z, inside the example's peak-season
READINGS = (
    "time",
    "contract",
    "clause",
    "alertname",
    "by_values",
    "state",
    "observed",
    "bound",
    "unit",
    "facts",
)


def moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)


@pytest.fixture
def promised(ledger: Any, catalog: Catalog) -> Iterator[Any]:
    """A ledger that goes by the example contract."""
    contracts = load_all(EXAMPLE)
    ledger.ledger.use(contracts, plan_of(contracts, catalog), NOW)
    yield ledger


def asked(ledger: Any, catalog: Catalog, sql: str) -> list[dict[str, Any]]:
    """Rows as a reader gets them, after a round of publishing."""
    ledger.publish()
    with query.open_views(ledger.data, catalog) as con:
        found = query.ask(con, sql)
        return [dict(zip(found.columns, row, strict=True)) for row in found.rows]


def read(ledger: Any, **values: Any) -> None:
    """A row of the history of readings."""
    row = {
        "contract": "northwind-aurora",
        "by_values": "{}",
        "state": "ok",
        "unit": "",
        "facts": "{}",
        **values,
    }
    row["time"] = moment(row["time"])
    names = ", ".join(f'"{name}"' for name in row)
    ledger.con.execute(
        f"INSERT INTO readings({names}) VALUES ({', '.join('?' * len(row))})", list(row.values())
    )
    ledger.con.execute("INSERT INTO dirty VALUES ('readings', ?)", [row["time"]])


def test_every_clause_of_a_contract_is_a_row_whatever_its_kind(promised: Any, catalog: Catalog) -> None:
    rows = {row["clause"]: row for row in asked(promised, catalog, "FROM clauses")}
    contract = load_all(EXAMPLE)[0]
    assert list(rows) == sorted(clause.id for clause in contract.clauses)
    fleet = rows["eu-fleet"]
    assert (fleet["contract"], fleet["supplier"], fleet["kind"]) == (
        "northwind-aurora",
        "Aurora Compute",
        "capacity",
    )
    assert json.loads(fleet["match"]) == {"provider": ["aurora"], "sku": ["GB300", "H200"]}
    assert json.loads(fleet["by_dimensions"]) == ["region"]
    assert fleet["risk_per_hour"] == Decimal(18000)
    terms = json.loads(fleet["terms"])
    assert [step["value"] for step in terms["committed_gpus"]] == [2048, 3072]
    assert terms["committed_gpus"][0]["from"] == "2025-12-31T23:00:00Z"
    assert json.loads(rows["year-1"]["terms"])["ceiling"] == "42000000.00"


def test_windows_are_rows_of_half_open_times_around_now(promised: Any, catalog: Catalog) -> None:
    rows = asked(promised, catalog, 'FROM windows ORDER BY "window", starts')
    peaks = [(r["starts"], r["ends"]) for r in rows if r["window"] == "peak-season"]
    # In Berlin the season begins at midnight, an hour before that in UTC.
    assert peaks[0] == (datetime(2026, 11, 15, 23), datetime(2027, 1, 10, 23))
    assert all(r["starts"] <= moment(NOW + AROUND) and r["ends"] >= moment(NOW - AROUND) for r in rows)
    assert sum(r["window"] == "fleet-replanning" for r in rows) > 300


def test_a_contract_that_is_taken_over_replaces_what_the_last_one_promised(
    promised: Any, catalog: Catalog
) -> None:
    promised.ledger.use((), plan_of((), catalog), NOW)
    assert asked(promised, catalog, "FROM clauses") == []
    assert asked(promised, catalog, "FROM windows") == []


def test_capacity_has_the_floor_and_the_ceiling_of_a_clause_in_one_row(
    promised: Any, catalog: Catalog
) -> None:
    facts = json.dumps(
        {
            "seen": 4000.0, "healthy": 3900.0, "in_use": 3000.0, "silent": 50.0, "frozen": 6, "moved": 3,
            "moved_to": "aurora/eu-north (3)",
        }
    )  # fmt: skip
    shared = {"time": NOW, "clause": "eu-fleet", "by_values": '{"region": "eu-west"}', "observed": 3900.0}
    read(promised, alertname="CapacityShortfall", bound=4096.0, state="breach", facts=facts, **shared)
    read(promised, alertname="CapacityCeilingExceeded", bound=6144.0, facts=facts, **shared)
    (row,) = asked(promised, catalog, "FROM capacity")
    assert (row["region"], row["sku"]) == ("eu-west", None)
    assert (row["committed"], row["ceiling"], row["delivered"], row["headroom"]) == (4096, 6144, 3900, -196)
    assert (row["observed"], row["healthy"], row["in_use"], row["silent"], row["lost"]) == (
        4000,
        3900,
        3000,
        50,
        0,
    )
    assert row["state"] == "breach"
    assert (row["moved"], row["moved_to"], row["frozen"]) == (3, "aurora/eu-north (3)", 6)


def test_power_and_queue_waits_stand_beside_what_was_contracted(promised: Any, catalog: Catalog) -> None:
    site = '{"site": "fra-01"}'
    read(
        promised, time=NOW, clause="facility-power", alertname="PowerCeilingExceeded", by_values=site, observed=8.5,
        bound=9.0, unit="MW", facts='{"basis": "metered"}',
    )  # fmt: skip
    queue = '{"region": "eu-west", "queue": "plan"}'
    read(
        promised, time=NOW, clause="planning-wait-p95", alertname="QueueWaitBreach", by_values=queue, observed=400.0,
        bound=300.0, unit="s", state="breach",
    )  # fmt: skip
    (power,) = asked(promised, catalog, "FROM power")
    assert (power["site"], power["at"], power["basis"]) == ("fra-01", "facility", "metered")
    assert (power["contracted_megawatts"], power["drawn_megawatts"], power["headroom_megawatts"]) == (
        9,
        8.5,
        0.5,
    )
    (wait,) = asked(promised, catalog, "FROM queue_wait")
    assert (wait["queue"], wait["indicator"], wait["state"]) == ("plan", "queue_wait_p95", "breach")


def test_the_burn_down_adds_up_by_day_in_exact_decimals(promised: Any, catalog: Catalog) -> None:
    day = 1_767_225_600
    days = [
        {"day": day, "usage": "100000.10", "other": "0"},
        {"day": day + 86_400, "usage": "100000.20", "other": "2.00"},
    ]
    for alertname, observed, facts in (
        ("TrancheExhausted", 200002.3, {"days": days}),
        (
            "TrancheOverrunForecast",
            43_000_000.0,
            {"forecast": "43000000.000000000000001", "crosses": "2026-12-24"},
        ),
    ):
        promised.con.execute(
            "INSERT INTO standing BY NAME SELECT 'northwind-aurora' AS contract, 'year-1' AS clause, ? AS alertname, "
            "'{}' AS by_values, 'ok' AS state, ? AS observed, ?::TIMESTAMP AS \"time\", ? AS facts",
            [alertname, observed, moment(NOW), json.dumps(facts)],
        )
    promised.con.execute("INSERT INTO dirty VALUES ('standing', NULL)")
    first, second = asked(promised, catalog, "FROM spend ORDER BY day")
    assert (first["spent"], second["spent"]) == (Decimal("100000.10"), Decimal("200002.30"))
    assert second["remaining"] == Decimal("42000000.00") - Decimal("200002.30")
    assert second["forecast"] == Decimal("43000000.000000000000001")
    assert (second["currency"], str(second["day"])) == ("EUR", "2026-01-02")
    assert str(second["crosses"]) == "2026-12-24"


def test_names_in_bills_are_those_of_telemetry_where_a_contract_maps_them(
    promised: Any, catalog: Catalog, rows: Any
) -> None:
    hour = NOW // 3600 * 3600
    known = {"provider": "aurora", "sku": "H200"}
    promised.add("gpu", [rows.gpu(hour + 900 * i, gpu=n, **known) for i in range(4) for n in range(3)])
    billed = {
        "ServiceProviderName": "Aurora Compute",
        "SkuId": "AUR-GPU-HOUR-H200",
        "ConsumedQuantity": "2.5",
        "ConsumedUnit": "GPU-Hours",
    }
    charges = [
        rows.charge(hour, hour + 7200, "10.00", "one", **billed),
        rows.charge(hour, hour + 7200, "3.00", "two", **billed | {"SkuId": "H200"}),
        rows.charge(hour, hour + 7200, "7.00", "three", SkuId="nobody's"),
    ]
    promised.add("billing", charges)
    found = asked(promised, catalog, "FROM gpu_hours ORDER BY provider")
    assert [
        (r["provider"], r["sku"], r["delivered"], r["billed_quantity"], r["billed_cost"], r["other_cost"])
        for r in found
    ] == [
        ("aurora", "H200", 12 / 60, 5.0, Decimal("13.00"), None),
        ("azure", "nobody's", None, None, None, Decimal("7.00")),
    ]


def test_hours_are_billed_in_any_unit_of_time_and_nothing_else_is_added_to_them(
    ledger: Any, catalog: Catalog, rows: Any
) -> None:
    hour = NOW // 3600 * 3600
    billed = [
        ("560", "Hours"),
        ("2016000", "Seconds"),
        ("60", "GPU-Minutes"),
        ("2", "GPU Days"),
        ("9", "GB"),
        ("1", None),
    ]
    ledger.add(
        "billing",
        [
            rows.charge(hour, hour + 7200, "7.50", f"{n}", ConsumedQuantity=quantity, ConsumedUnit=unit)
            for n, (quantity, unit) in enumerate(billed)
        ],
    )
    (found,) = asked(ledger, catalog, "FROM gpu_hours")
    assert (found["billed_quantity"], found["billed_cost"]) == (560 + 560 + 1 + 48, Decimal("30.00"))
    assert found["other_cost"] == Decimal("15.00")
    # No telemetry came at all: that is no silence.
    assert found["difference"] == found["billed_quantity"] and found["explained_by_silence"] is None


CRITICAL = '{"region": "eu-west", "nvlink_domain": "nvl-7", "feed": "b", "severity": "critical"}'


def alert(ledger: Any, state: str, at: int, **values: Any) -> None:
    row = {
        "time": moment(at), "alertname": "CapacityShortfall", "contract": "northwind-aurora", "clause": "eu-fleet",
        "labels": CRITICAL, "state": state, "severity": "critical",
        "active_at": moment(NOW), "annotations": '{"summary": "too few"}', "observed": 1.0, "bound": 2.0, **values,
    }  # fmt: skip
    names = ", ".join(f'"{name}"' for name in row)
    ledger.con.execute(
        f"INSERT INTO alerts({names}) VALUES ({', '.join('?' * len(row))})", list(row.values())
    )
    ledger.con.execute("INSERT INTO dirty VALUES ('alerts', ?)", [row["time"]])


def test_an_alert_is_open_from_pending_until_it_is_over(promised: Any, catalog: Catalog) -> None:
    def open_now() -> list[tuple[Any, ...]]:
        found = asked(promised, catalog, "FROM alerts_open")
        return [(r["state"], r["about"], r["stale"], r["risk_per_hour"], r["urgency"]) for r in found]

    alert(promised, "pending", NOW)
    assert open_now() == [("pending", "eu-west / nvl-7 / b", False, Decimal(18000), 0)]
    warning = '{"region": "eu-west", "nvlink_domain": "nvl-7", "feed": "b", "severity": "warning"}'
    alert(promised, "firing", NOW + 60, fired_at=moment(NOW + 60), labels=warning, severity="warning")
    alert(promised, "stale", NOW + 90, fired_at=moment(NOW + 60), labels=warning, severity="warning")
    assert open_now() == [("firing", "eu-west / nvl-7 / b", True, Decimal(18000), 1)]
    over = {"fired_at": moment(NOW + 60), "resolved_at": moment(NOW + 120), "labels": warning}
    alert(promised, "resolved", NOW + 120, severity="warning", **over)
    assert open_now() == []


def test_the_pipelines_own_health_is_a_row_a_minute_and_tells_the_age_of_the_data(
    ledger: Any, catalog: Catalog
) -> None:
    now = datetime.now(UTC).timestamp()
    minute = now // 60 * 60
    for at, lag in ((minute - 30, 7), (minute + 1, 5), (minute + 2, 3)):
        health_table.note(ledger.ledger.cursor(), Pulse({"telemetry.gpu": lag}, 12.5, 0.5, 9.0), at)
    rows = asked(ledger, catalog, 'SELECT lag, events_per_second FROM health ORDER BY "time"')
    assert [(r["lag"], r["events_per_second"]) for r in rows] == [(7, 12.5), (3, 12.5)]
    (age,) = asked(ledger, catalog, "FROM data_age")
    assert age["lag"] == 3 and age["published_at"] - moment(minute + 2) < timedelta(seconds=1)
    assert age["watermark"] is None


def test_one_row_says_whether_the_pipeline_lives_since_when_it_does_not_and_why(
    ledger: Any, catalog: Catalog
) -> None:
    con = ledger.ledger.cursor()

    def said() -> tuple[Any, ...]:
        (row,) = asked(ledger, catalog, "FROM pipeline_health")
        return row["state"], row["since"], row["why"]

    assert said() == ("never", None, "nothing has been published yet")
    now, lag = datetime.now(UTC).timestamp(), {"telemetry.gpu": 7, "telemetry.queue": 0}
    health_table.note(con, Pulse(lag), now - 130)
    state, since, why = said()
    assert (state, since) == ("silent", moment(now - 130)) and why.startswith(
        "it has published nothing since 20"
    )
    health_table.note(
        con, Pulse(lag, stall=Stall(int(now) - 40, "the broker does not answer", ("telemetry.gpu",))), now - 2
    )
    assert said() == ("stalled", moment(int(now) - 40), "the broker does not answer")
    assert asked(ledger, catalog, "SELECT topic, why FROM health WHERE state = 'well' AND lag = 0 ORDER BY time")[-1] == {
        "topic": "telemetry.queue", "why": None
    }  # fmt: skip
    health_table.note(con, Pulse(lag), now - 1)
    assert said() == ("well", None, None)
    health_table.note(con, Pulse(lag, stopped=True), now)
    assert said() == ("stopped", moment(now), "it was stopped in good order")


def test_a_pipeline_that_died_while_it_was_stalled_says_both(ledger: Any, catalog: Catalog) -> None:
    now = datetime.now(UTC).timestamp()
    stall = Stall(int(now) - 900, "the broker does not answer", ("telemetry.gpu",))
    health_table.note(ledger.ledger.cursor(), Pulse({"telemetry.gpu": 7}, stall=stall), now - 600)
    (row,) = asked(ledger, catalog, "FROM pipeline_health")
    assert (row["state"], row["since"]) == ("silent", moment(int(now) - 900))
    assert row["why"].endswith("it is dead, or hangs; its last word: the broker does not answer")


def test_health_of_an_older_program_is_well(ledger: Any, catalog: Catalog) -> None:
    """What was published before there was a state: NULL, and no stall."""
    ledger.con.execute(
        "INSERT INTO health(time, topic, lag) SELECT make_timestamp(epoch_us(now())), 'telemetry.gpu', 0"
    )
    ledger.con.execute("INSERT INTO dirty SELECT 'health', make_timestamp(epoch_us(now()))")
    (row,) = asked(ledger, catalog, "FROM pipeline_health")
    assert (row["state"], row["since"], row["why"]) == ("well", None, None)


def test_energy_is_summed_over_feeds_and_its_mix_weighted_by_power(ledger: Any, catalog: Catalog) -> None:
    at = NOW // 900 * 900
    shared = {"provider": "aurora", "region": "eu", "site": "s", "source": "m"}
    feeds = [
        {"feed": "a", "it_power_watts": 1e6, "facility_power_watts": 2e6, "renewable_ratio": 1.0,
         "carbon_gco2e_per_kwh": 100.0},
        {"feed": "b", "it_power_watts": 1e6, "facility_power_watts": 1e6, "renewable_ratio": 0.4,
         "carbon_gco2e_per_kwh": 400.0},
    ]  # fmt: skip
    ledger.add("energy", [{**shared, **f, "time": moment(at), "id": f["feed"], "idx": 0} for f in feeds])
    (row,) = asked(ledger, catalog, "FROM energy_mix")
    assert (row["it_megawatts"], row["facility_megawatts"], row["pue"]) == (2.0, 3.0, 1.5)
    assert row["renewable_ratio"] == pytest.approx(0.8) and row["carbon_gco2e_per_kwh"] == pytest.approx(
        200.0
    )
    assert row["carbon_kg"] == pytest.approx(150.0)  # 0.75 MWh at 200 g/kWh


def test_every_view_and_every_column_says_what_it_is(tmp_path: Path, catalog: Catalog) -> None:
    with query.open_views(tmp_path, catalog, comments=True) as con:
        silent = con.execute(
            "SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal AND coalesce(comment, '') = ''"
        ).fetchall()
        views = con.execute(
            "SELECT view_name FROM duckdb_views() WHERE NOT internal AND coalesce(comment, '') = ''"
        ).fetchall()
        assert (silent, views) == ([], [])
        for view in ready_views(catalog):
            described = con.execute(f'DESCRIBE "{view.name}"').fetchall()
            assert [column[0] for column in described] == list(view.columns), view.name


def test_ready_views_that_need_an_event_type_are_left_out_where_it_is_not_known(tmp_path: Path) -> None:
    only = Catalog(tuple(t for t in load().types if t.view == "queue"))
    assert {v.name for v in ready_views(only)} == {
        "capacity",
        "power",
        "queue_wait",
        "spend",
        "since_yesterday",
        "alerts_open",
        "data_age",
        "pipeline_health",
    }
    with query.open_views(tmp_path, only) as con:
        assert con.execute("SELECT count(*) FROM alerts_open").fetchone() == (0,)
    assert {t.view for t in published_tables(only)} >= {"queue", "readings", "clauses", "windows", "health"}
