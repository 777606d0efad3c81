"""SQL for which deliveries of a bill count: one text for the ledger's readings, the SQL under an alert and the views.

A delivery is a snapshot of what an issuer bills for one billing period, from one export.  It is *whole* when its charges
are as many, and add up to as much, as the event that closes it says.  The newest whole one of an issuer, export and
billing period counts, and nothing of the others does.  Whether one is whole follows from the set of rows that are known,
so it is the same in whatever order they come.
"""

from __future__ import annotations

from pipeline.catalog import MONEY
from pipeline.readings.reading import GRID_US

COUNTS = f'greatest((epoch_us("time") + {GRID_US - 1}) // {GRID_US}, epoch_us(known_from) // {GRID_US})'
"""The number of the instant, rounded up, from which a row counts: it is issued (`time`) and known (`known_from`) then."""
REVISION = 'source, id, idx, "DeliveryId"'
"""What makes a charge the same charge; a later one is its revision."""
ROWS = 'count(*) AS n, sum(trunc("BilledCost")::HUGEINT) AS whole, sum("BilledCost" - trunc("BilledCost")) AS rest'
"""How many charges there are, and what they add up to: whole units and the rest, for a sum of DECIMALs may overflow."""
_SNAPSHOT = '"InvoiceIssuerName", "ExportName", "BillingPeriodStart"'
_NEWEST = '"time", known_from, source, id, idx'
WHOLE = (
    'coalesce(n, 0) = "RowCount" AND '
    f'TRY_CAST(coalesce(whole, 0) - trunc("ControlTotal")::HUGEINT AS {MONEY}) '
    '= "ControlTotal" - trunc("ControlTotal") - coalesce(rest, 0)'
)
"""The condition for a delivery to be whole, of its closing event beside ROWS of its charges."""


def counting(charges: str, deliveries: str) -> str:
    """SELECT of the ids of the deliveries that count, where `charges` and `deliveries` hold all that is known."""
    newest = ", ".join(f"{name} DESC" for name in _NEWEST.split(", "))
    return (
        f'SELECT "DeliveryId" FROM (\n  SELECT * FROM {deliveries}\n'
        f'  QUALIFY row_number() OVER (PARTITION BY "DeliveryId" ORDER BY {newest}) = 1)\n'
        f'LEFT JOIN (SELECT "DeliveryId", {ROWS} FROM {charges} GROUP BY ALL) USING ("DeliveryId")\n'
        f"WHERE {WHOLE}\n"
        f'QUALIFY row_number() OVER (PARTITION BY {_SNAPSHOT} ORDER BY "time" DESC, "DeliveryId" DESC) = 1'
    )


def counting_when() -> str:
    """SELECT of `"DeliveryId", since, until` from the ledger's `delivered` and `deliveries`: when each delivery counts.

    `since` and `until` are numbers of instants, until NULL: for all that is known.  A delivery may have several rows.
    `delivered` has ROWS by delivery and `counts`, the instant from which they do.
    """
    following = (
        f'(PARTITION BY "DeliveryId" ORDER BY {_NEWEST} ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING)'
    )
    return f"""
        WITH closed AS (
            SELECT *, coalesce("ExportName", '') AS export, min(counts) OVER {following} AS ended
            FROM (SELECT *, {COUNTS} AS counts FROM deliveries)),
        arrived AS (
            SELECT "DeliveryId", counts, lead(counts) OVER arriving AS next, sum(sum(n)) OVER arriving AS n,
                sum(sum(whole)) OVER arriving AS whole, sum(sum(rest)) OVER arriving AS rest
            FROM (FROM delivered UNION ALL SELECT DISTINCT "DeliveryId", -1, 0, 0, 0 FROM deliveries)
            GROUP BY "DeliveryId", counts WINDOW arriving AS (PARTITION BY "DeliveryId" ORDER BY counts)),
        complete AS (
            SELECT c."DeliveryId", "InvoiceIssuerName", export, "BillingPeriodStart", "time",
                greatest(c.counts, a.counts) AS since, least(ended, next) AS until
            FROM closed c JOIN arrived a USING ("DeliveryId")
            WHERE {WHOLE} AND (least(ended, next) IS NULL OR greatest(c.counts, a.counts) < least(ended, next))),
        turns AS (
            SELECT DISTINCT "InvoiceIssuerName", export, "BillingPeriodStart", unnest([since, until]) AS turn FROM complete),
        newest AS (
            SELECT "InvoiceIssuerName", export, "BillingPeriodStart", turn,
                arg_max("DeliveryId", ("time", "DeliveryId")) FILTER (since <= turn AND (until IS NULL OR turn < until))
                    AS "DeliveryId"
            FROM turns JOIN complete USING ("InvoiceIssuerName", export, "BillingPeriodStart")
            WHERE turn IS NOT NULL GROUP BY ALL)
        SELECT "DeliveryId", turn AS since,
            lead(turn) OVER (PARTITION BY "InvoiceIssuerName", export, "BillingPeriodStart" ORDER BY turn) AS until
        FROM newest QUALIFY "DeliveryId" IS NOT NULL"""
