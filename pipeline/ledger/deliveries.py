"""Deliveries of bills in the ledger: what of them has arrived, which of them count, and what a new one changed.

`delivered` has how many charges of a delivery count from an instant on, and what they add up to: a row for each delta.
`counted` names the deliveries that count once all that is known does; what is published follows it, readings go by the
instant.  A charge without a delivery has no part in this.
"""

from __future__ import annotations

from datetime import datetime

import structlog
from duckdb import DuckDBPyConnection

from pipeline.catalog import MONEY, Catalog, EventType
from pipeline.contract.money import ZERO, money_text, total
from pipeline.ledger.transaction import Fence, transaction
from pipeline.readings.charges_sql import sum_sql
from pipeline.readings.deliveries_sql import COUNTS, REVISION, ROWS, counting_when
from pipeline.rollup.quoting import literal, quoted
from pipeline.views.published import Columns

log = structlog.get_logger()

DELIVERED: Columns = (
    ("DeliveryId", "VARCHAR"),
    ("counts", "BIGINT"),
    ("n", "BIGINT"),
    ("whole", "HUGEINT"),
    ("rest", MONEY),
)
COUNTED: Columns = (("DeliveryId", "VARCHAR"),)


def revision(event: EventType) -> str:
    """What makes a charge the same charge, as a list of columns."""
    return REVISION if event.delivery else "source, id, idx"


def counts_now(event: EventType) -> str:
    """The condition for a charge that is of no delivery, or of one that counts."""
    return '("DeliveryId" IS NULL OR "DeliveryId" IN (FROM counted))' if event.delivery else "true"


def by_itself(event: EventType) -> str:
    """The condition for a charge that is of no delivery."""
    return '"DeliveryId" IS NULL' if event.delivery else "true"


def note_delivered(con: DuckDBPyConnection, event: EventType, known_from: datetime) -> None:
    """Add what the delta's charges are of their deliveries; `known_from` is the first unevaluated instant."""
    if event.delivery:
        con.execute(
            f'INSERT INTO delivered SELECT "DeliveryId", {COUNTS} AS counts, {ROWS} '
            f"FROM (SELECT *, TIMESTAMP '{known_from}' AS known_from FROM added_charges) "
            'WHERE "DeliveryId" IS NOT NULL GROUP BY ALL'
        )


def recount(con: DuckDBPyConnection, catalog: Catalog) -> None:
    """Take over which deliveries count; mark what is published of those that begin or cease to, and log the change."""
    charges = next((e for e in catalog.types if e.delivery and not e.closes), None)
    if charges is None:
        return
    con.execute(f"CREATE OR REPLACE TEMP TABLE counting AS FROM ({counting_when()}) WHERE until IS NULL")
    con.execute(
        'CREATE OR REPLACE TEMP TABLE changed AS SELECT "DeliveryId", now IS NOT NULL AS begins '
        'FROM (SELECT "DeliveryId", true AS now FROM counting) FULL JOIN (SELECT "DeliveryId", true AS before FROM counted) '
        'USING ("DeliveryId") WHERE now IS NULL OR before IS NULL'
    )
    if not con.execute("SELECT 1 FROM changed LIMIT 1").fetchall():
        return
    moment = quoted(charges.window_time or "time")
    con.execute(
        f"INSERT INTO dirty SELECT DISTINCT {literal(charges.view)}, time_bucket(INTERVAL 1 MINUTE, {moment}) "
        'FROM charges SEMI JOIN changed USING ("DeliveryId")'
    )
    con.execute("DELETE FROM counted")
    con.execute('INSERT INTO counted SELECT "DeliveryId" FROM counting')
    _tell(con)


def _tell(con: DuckDBPyConnection) -> None:
    """Say what each bill came to that has changed, in each of its currencies."""
    rows = con.execute(
        f"""WITH closed AS (
            SELECT "DeliveryId", "InvoiceIssuerName" AS issuer, "ExportName" AS export, "BillingPeriodStart" AS period, begins
            FROM deliveries JOIN changed USING ("DeliveryId")
            QUALIFY row_number() OVER (PARTITION BY "DeliveryId" ORDER BY "time" DESC) = 1),
        sums AS (
            SELECT issuer, export, period, "BillingCurrency" AS currency, begins,
                max("DeliveryId") AS delivery, count(*) AS charges, {sum_sql('"BilledCost"')} AS cost
            FROM closed JOIN charges USING ("DeliveryId") GROUP BY ALL)
        SELECT issuer, export, period, currency, max(delivery) FILTER (begins),
            coalesce(sum(charges) FILTER (begins), 0)::BIGINT,
            any_value(cost) FILTER (NOT begins), any_value(cost) FILTER (begins)
        FROM sums GROUP BY issuer, export, period, currency ORDER BY ALL"""
    ).fetchall()
    for issuer, export, period, currency, delivery, charges, before, now in rows:
        log.info(
            "the bill of a period is now that of another delivery",
            issuer=issuer, export=export, period=f"{period:%Y-%m-%d}", delivery=delivery, charges=charges, currency=currency,
            before=money_text(before or ZERO), now=money_text(now or ZERO),
            change=money_text(total((now or ZERO, -(before or ZERO)))),
        )  # fmt: skip


def prune(con: DuckDBPyConnection, fence: Fence) -> None:
    """Forget what had arrived of deliveries whose closing event and charges are gone."""
    gone = (
        '"DeliveryId" NOT IN (SELECT "DeliveryId" FROM deliveries UNION '
        'SELECT "DeliveryId" FROM charges WHERE "DeliveryId" IS NOT NULL)'
    )
    if con.execute(f"SELECT 1 FROM delivered WHERE {gone} LIMIT 1").fetchone():
        with transaction(con, fence):
            con.execute(f"DELETE FROM delivered WHERE {gone}")
