"""Deliveries of bills: of several snapshots of one period the newest whole one counts, as of every instant."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.catalog import load
from pipeline.contract.money import total
from pipeline.history import query
from pipeline.ledger import deliveries
from pipeline.ledger.append import append_rows
from pipeline.ledger.raw_rows import RawRows
from pipeline.ledger.reader import Reader
from pipeline.ledger.tables import create
from pipeline.readings.reading import Readings
from pipeline.readings.spec import Instant
from pipeline.readings.tranche_spend import TrancheSpend
from pipeline.rollup.aggregate import charges_sql
from pipeline.rollup.delta import Addition

CATALOG = load()
CHARGES, CLOSINGS = CATALOG.by_view("billing"), CATALOG.by_view("deliveries")
T = 1_790_000_000 // 86_400 * 86_400
PERIOD = datetime.fromtimestamp(T, UTC).replace(tzinfo=None)
SPEND = TrancheSpend(
    topic=CHARGES.topic, match=(), by=(), from_t=T, to_t=T + 86_400, categories=("Usage",),
    cost_column="BilledCost", commitment_id=None, currency="EUR",
)  # fmt: skip


def at(seconds: int) -> datetime:
    return datetime.fromtimestamp(T + seconds, UTC).replace(tzinfo=None)


@dataclass(frozen=True)
class Row:
    """A charge, or what closes a delivery (`closes`: rows, total and snapshot); issued and known in seconds after T."""

    id: str
    time: int
    known: int
    delivery: str | None
    cost: Decimal = Decimal(0)
    closes: tuple[int, Decimal, str] | None = None

    @property
    def counts(self) -> int:
        """The first instant at which it counts."""
        return max(-(-self.time // 10) * 10, self.known)

    def columns(self) -> dict[str, Any]:
        named = {
            "source": "/bill",
            "id": self.id,
            "idx": 0,
            "time": at(self.time),
            "DeliveryId": self.delivery,
        }
        if self.closes is None:
            return named | {
                "ServiceProviderName": "acme", "ChargeCategory": "Usage", "BillingCurrency": "EUR",
                "ChargePeriodStart": at(3600), "ChargePeriodEnd": at(7200), "BilledCost": self.cost,
            }  # fmt: skip
        count, cost, export = self.closes
        return named | {
            "InvoiceIssuerName": "acme", "ExportName": export or None, "BillingPeriodStart": PERIOD,
            "BillingPeriodEnd": PERIOD, "RowCount": count, "ControlTotal": cost,
        }  # fmt: skip


@st.composite
def bills(draw: st.DrawFn) -> list[Row]:
    """Deliveries of two exports, whole or not, closed twice or never, and charges of none; each row known when it may."""
    rows: list[Row] = []
    instants = st.integers(0, 12).map(lambda n: n * 10)
    for n in range(draw(st.integers(0, 5))):
        name, time = f"d{n}", draw(st.integers(0, 100))
        costs = draw(st.lists(st.decimals(-(10**21), 10**21, places=15), max_size=3))
        rows += [Row(f"{name}-{i}", time, draw(instants), name, cost) for i, cost in enumerate(costs)]
        for closing in range(draw(st.sampled_from([0, 1, 1, 1, 2]))):
            off = draw(st.sampled_from([(0, 0), (0, 0), (0, 0), (1, 0), (0, 1), (-1, 0)]))
            said = (
                len(costs) + off[0],
                total((*costs, Decimal(off[1]))),
                draw(st.sampled_from(["", "", "b"])),
            )
            when = time + draw(st.integers(0, 1)) * closing * 20
            rows.append(Row(f"close-{name}-{closing}", when, draw(instants), name, closes=said))
    for n in range(draw(st.integers(0, 2))):
        cost = draw(st.decimals(0, 10**6, places=2))
        rows.append(Row(f"alone-{n}", draw(st.integers(0, 100)), draw(instants), None, cost))
    return rows


def expected(rows: Iterable[Row], t: int) -> Decimal:
    """What the charges come to that count at `t`, said with loops."""
    known = [row for row in rows if row.counts <= t]
    closings = {}
    for row in sorted((r for r in known if r.closes), key=lambda r: (r.time, r.known, r.id)):
        closings[row.delivery] = row
    newest: dict[str, Row] = {}
    for row in sorted(closings.values(), key=lambda r: (r.time, r.delivery)):
        of_it = [r.cost for r in known if r.delivery == row.delivery and not r.closes]
        assert row.closes
        if row.closes[:2] == (len(of_it), total(of_it)):
            newest[row.closes[2]] = row
    counting = {None, *(row.delivery for row in newest.values())}
    return total(r.cost for r in known if not r.closes and r.delivery in counting)


@cache
def tables() -> duckdb.DuckDBPyConnection:
    """One ledger in memory for the module, and what of it is published; what an example writes is rolled back."""
    con = duckdb.connect()
    create(con, CATALOG)
    for event in (CHARGES, CLOSINGS):
        con.execute(
            f"CREATE TABLE batch_{event.view} AS SELECT * EXCLUDE (content, known_from), 7::UBIGINT AS series FROM {event.kept}"
        )
    con.execute("BEGIN")
    return con


def ledger(rows: Sequence[Row]) -> duckdb.DuckDBPyConnection:
    """The module's ledger after `rows`, each appended as a delta of its own, and what of them is published."""
    con = tables()
    con.execute("ROLLBACK")
    con.execute("BEGIN")
    for row in rows:
        append(con, row)
    con.execute("CREATE TABLE billing AS SELECT * FROM charges")
    return con


def append(con: duckdb.DuckDBPyConnection, row: Row) -> None:
    event = CHARGES if row.closes is None else CLOSINGS
    columns, batch = row.columns(), f"batch_{event.view}"
    listed = ", ".join(f'${name} AS "{name}"' for name in columns)
    con.execute(f"DELETE FROM {batch}")
    con.execute(f"INSERT INTO {batch} BY NAME SELECT 7 AS series, {listed}", columns)
    charges = con.sql(charges_sql(event, batch)).to_arrow_table()
    append_rows(con, event, Addition(event.view, charges=charges), at(row.known))


def read(con: duckdb.DuckDBPyConnection, t0: int, t1: int) -> Readings:
    return Reader(con, CATALOG, RawRows(con, Path("nowhere"))).read(SPEND, t0, t1)


LAW = settings(max_examples=60, deadline=None)


@LAW
@given(bills(), st.sampled_from([(0, 130), (30, 40), (60, 100)]))
def test_at_every_instant_the_newest_whole_delivery_counts_and_nothing_of_the_others(
    rows: list[Row], instants: tuple[int, int]
) -> None:
    con = ledger(rows)
    t0, t1 = instants
    found = read(con, T + t0, T + t1)
    for t in range(t0 + 10, t1 + 1, 10):
        (reading,) = found.at(T + t)
        assert reading.amount == expected(rows, t), t


@LAW
@given(bills(), st.integers(1, 13))
def test_the_sql_under_a_spend_alert_knows_which_delivery_counted(rows: list[Row], step: int) -> None:
    con, t = ledger(rows), T + step * 10
    (reading,) = read(con, t - 10, t).at(t)
    assert con.execute(SPEND.reproduce(CHARGES, {}, Instant(t))).fetchone() == (reading.amount,)


@LAW
@given(bills(), st.randoms(use_true_random=False))
def test_whatever_comes_first_the_same_counts_in_the_end(rows: list[Row], chance: random.Random) -> None:
    mixed = [replace(row, known=0) for row in rows]
    chance.shuffle(mixed)
    con = ledger([])
    for row in mixed:
        append(con, row)
        deliveries.recount(con, CATALOG)
    counting = 'SELECT coalesce(sum("BilledCost"), 0) FROM charges WHERE ' + deliveries.counts_now(CHARGES)
    assert con.execute(counting).fetchone() == (expected(mixed, 10_000),)


# --- from the ledger to what is published ----------------------------------------------------------------------


def closing(rows: Any, n: int, issued: float, count: int, total: str) -> dict[str, Any]:
    return {
        "time": rows.moment(issued), "InvoiceIssuerName": "azure", "DeliveryId": f"d{n}", "BillingPeriodStart": PERIOD,
        "BillingPeriodEnd": PERIOD, "RowCount": count, "ControlTotal": total, "source": "/bill", "id": f"close-d{n}", "idx": 0,
    }  # fmt: skip


def deliver(ledger: Any, rows: Any, n: int, costs: Sequence[str], missing: int = 0) -> None:
    """Delivery `n` of one bill, of which the last `missing` rows do not come."""
    issued = T + 86_400 * n
    charges = [rows.charge(T, issued, cost, f"row-{i}", DeliveryId=f"d{n}") for i, cost in enumerate(costs)]
    ledger.add("billing", charges[: len(charges) - missing])
    ledger.add("deliveries", [closing(rows, n, issued, len(costs), str(sum(map(Decimal, costs))))])


def answers(ledger: Any, sql: str) -> list[tuple[Any, ...]]:
    ledger.seal()
    ledger.publish()
    return list(query.ask(query.open_views(ledger.data, CATALOG), sql).rows)


BILLED = """SELECT (SELECT sum(BilledCost) FROM charges), (SELECT sum(BilledCost_sum) FROM billing_1d),
    (SELECT sum(BilledCost_sum) FROM billing_10s)"""


def test_every_view_follows_the_delivery_that_counts_and_says_by_how_much_it_differs(
    ledger: Any, rows: Any
) -> None:
    deliver(ledger, rows, 1, ["100", "100", "100"])
    assert answers(ledger, BILLED) == [(300, 300, 300)]
    deliver(ledger, rows, 2, ["110", "110"])
    assert answers(ledger, BILLED) == [(220, 220, 220)]
    deliver(ledger, rows, 3, ["1", "1", "1"], missing=1)
    assert answers(ledger, BILLED) == [(220, 220, 220)]
    ledger.add("billing", [rows.charge(T, T + 86_400 * 3, "1", "row-2", DeliveryId="d3")])
    assert answers(ledger, BILLED) == [(3, 3, 3)]
    found = "SELECT delivery, state, rows_there, billed_cost, replaces, change FROM bills ORDER BY delivery"
    assert answers(ledger, found) == [
        ("d1", "replaced", 3, 300, None, None),
        ("d2", "replaced", 2, 220, "d1", -80),
        ("d3", "counts", 3, 3, "d2", -217),
    ]


def test_what_of_a_delivery_does_not_count_is_told(ledger: Any, rows: Any) -> None:
    deliver(ledger, rows, 1, ["100", "100"], missing=1)
    ledger.add("billing", [rows.charge(T, T, "7", f"row-{n}", DeliveryId="open") for n in range(2)])
    ledger.add("billing", [rows.charge(T, T, "8", "row-0", DeliveryId="d2")])
    ledger.add("deliveries", [closing(rows, 2, T, 1, "9")])
    found = "SELECT delivery, state, row_count, rows_there, billed_cost FROM bills ORDER BY delivery"
    assert answers(ledger, found) == [
        ("d1", "incomplete", 2, 1, 100),
        ("d2", "contradicted", 1, 1, 8),
        ("open", "not_closed", None, 2, 14),
    ]
    assert answers(ledger, BILLED) == [(None, None, None)]


def test_a_delivery_without_rows_takes_away_what_was_billed(ledger: Any, rows: Any) -> None:
    deliver(ledger, rows, 1, ["100"])
    ledger.add("deliveries", [closing(rows, 2, T + 86_400 * 2, 0, "0")])
    assert answers(ledger, BILLED) == [(None, None, None)]


def test_a_ledger_of_version_6_learns_of_deliveries_and_its_charges_stay(ledger: Any, rows: Any) -> None:
    """The last version without deliveries: charges lacked the column, and there was no table for them."""
    ledger.add("billing", [rows.charge(T, T + 10, "40", "old")])
    assert answers(ledger, "SELECT sum(BilledCost_sum) FROM billing_1d") == [(40,)]
    con = ledger.ledger.con
    (content,) = con.execute("SELECT content FROM charges").fetchone()
    con.execute('ALTER TABLE charges DROP COLUMN "DeliveryId"')
    for table in ("delivered", "counted", "deliveries", "series_deliveries"):
        con.execute(f"DROP TABLE {table}")
    con.execute("UPDATE charges SET content = 1")
    con.execute("UPDATE meta SET value = '6' WHERE key = 'schema_version'")
    ledger.close()
    ledger.__init__(ledger.data, CATALOG)
    assert ledger.ledger.con.execute("SELECT content FROM charges").fetchone() == (content,)
    deliver(ledger, rows, 1, ["2"])
    assert answers(ledger, BILLED) == [(42, 42, 42)]
