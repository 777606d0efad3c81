"""Money keeps its digits in the ledger, in what is published and in what is shown; so does that of older versions."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from pipeline.catalog import MONEY, Catalog
from pipeline.history import publish, query, seal
from pipeline.ledger.store import Ledger

T = 1_790_000_000 // 86_400 * 86_400
MOST = "9999999999999999999999.999999999999999"


def answers(data: Path, catalog: Catalog, sql: str) -> list[tuple[Any, ...]]:
    return list(query.ask(query.open_views(data, catalog), sql).rows)


def test_roll_ups_add_up_to_the_last_digit(ledger: Any, catalog: Catalog, rows: Any) -> None:
    costs = [MOST, MOST, "-0.000000000000001", "0.00000000603"]
    ledger.add("billing", [rows.charge(T, T + 10, cost, str(n)) for n, cost in enumerate(costs)])
    ledger.publish()
    sql = "SELECT BilledCost_sum, BilledCost_min, BilledCost_max FROM billing_1d"
    assert answers(ledger.data, catalog, sql) == [
        (Decimal("20000000000000000000000.000000006029997"), Decimal("-0.000000000000001"), Decimal(MOST))
    ]


def test_a_sum_with_more_digits_than_money_may_have_stops_nothing(
    ledger: Any, catalog: Catalog, rows: Any
) -> None:
    ledger.add("billing", [rows.charge(T, T + 10, MOST, str(n)) for n in range(11)])
    ledger.publish()
    sql = "SELECT samples, BilledCost_sum, BilledCost_max FROM billing_1d"
    assert answers(ledger.data, catalog, sql) == [(11, None, Decimal(MOST))]


def test_roll_ups_are_grouped_by_the_units_of_their_quantities(
    ledger: Any, catalog: Catalog, rows: Any
) -> None:
    units = [("560", "Hours"), ("2016000", "Seconds"), ("40", "Hours"), ("1", None)]
    ledger.add(
        "billing",
        [
            rows.charge(T, T + 10, "4200", str(n), ConsumedQuantity=quantity, ConsumedUnit=unit)
            for n, (quantity, unit) in enumerate(units)
        ],
    )
    ledger.publish()
    found = answers(
        ledger.data, catalog, "SELECT ConsumedUnit, ConsumedQuantity_sum FROM billing_1d ORDER BY 1"
    )
    assert found == [("Hours", 600), ("Seconds", 2_016_000), (None, 1)]


@pytest.mark.parametrize(
    ("form", "shown"),
    [
        ("csv", "n\n-0.00000000603\n"),
        ("json", '[\n{"n": "-0.00000000603"}\n]\n'),
        ("table", "-0.00000000603"),
    ],
)
def test_money_is_shown_without_an_exponent(tmp_path: Path, catalog: Catalog, form: Any, shown: str) -> None:
    result = query.ask(query.open_views(tmp_path, catalog), f"SELECT '-0.00000000603'::{MONEY} AS n")
    assert shown in "".join(query.render(result, form))


def as_of_version_4(data: Path, catalog: Catalog) -> None:
    """Makes of a ledger and its files what version 4 had: money with ten decimals, units that are no dimensions."""
    ledger = Ledger(data, catalog)
    con = ledger.con
    old = "DECIMAL(38,10)"
    for path in data.glob("**/*.parquet"):
        described = con.execute(f"DESCRIBE FROM read_parquet('{path}', hive_partitioning = false)").fetchall()
        money = [name for name, kind, *_ in described if kind == MONEY]
        if money:
            casts = ", ".join(f'"{name}"::{old} AS "{name}"' for name in money)
            gone = "" if "history" in str(path) else "EXCLUDE (ConsumedUnit, PricingUnit) "
            con.execute(
                f"COPY (SELECT * {gone}REPLACE ({casts}) FROM read_parquet('{path}', hive_partitioning = false)) "
                f"TO '{path}' (FORMAT parquet)"
            )
    for measure in catalog.by_view("billing").measures:
        con.execute(f'ALTER TABLE charges ALTER "{measure.name}" TYPE {old}')
    for unit in ("ConsumedUnit", "PricingUnit"):
        con.execute(f'ALTER TABLE series_billing DROP COLUMN "{unit}"')
    con.execute("UPDATE charges SET content = 1")
    con.execute("UPDATE meta SET value = '4' WHERE key = 'schema_version'")
    ledger.close()


def test_a_ledger_of_version_4_is_brought_up_to_date_and_read_together_with_what_comes(
    ledger: Any, catalog: Catalog, rows: Any
) -> None:
    old = rows.charge(T, T + 10, "0.1000000001", "old", ConsumedQuantity="3", ConsumedUnit="Hours")
    ledger.add("billing", [old])
    ledger.seal()
    ledger.publish()
    (content,) = ledger.con.execute("SELECT content FROM charges").fetchone()
    ledger.close()
    as_of_version_4(ledger.data, catalog)
    raw = "SELECT sum(BilledCost) FROM billing"
    daily = "SELECT ConsumedUnit, BilledCost_sum FROM billing_1d ORDER BY ALL"
    assert answers(ledger.data, catalog, raw) == [(Decimal("0.1000000001"),)]
    assert answers(ledger.data, catalog, daily) == [(None, Decimal("0.1000000001"))]

    ledger.__init__(ledger.data, catalog)
    assert ledger.con.execute("SELECT content FROM charges").fetchone() == (content,)
    ledger.add("billing", [rows.charge(T, T + 10, "0.000000000000001", "new")])
    seal.seal(ledger.ledger.cursor(), ledger.data, catalog)
    publish.publish(ledger.ledger.cursor(), ledger.data, catalog)
    assert answers(ledger.data, catalog, raw) == [(Decimal("0.100000000100001"),)]
    assert answers(ledger.data, catalog, daily) == [
        ("Hours", Decimal("0.1000000001")),
        (None, Decimal("0.000000000000001")),
    ]
