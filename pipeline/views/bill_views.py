"""Ready views of bills: the charges that count, and what became of each delivery."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.catalog import EventType
from pipeline.readings.charges_sql import sum_sql
from pipeline.readings.deliveries_sql import REVISION, ROWS, WHOLE, counting
from pipeline.rules.ready_view import ReadyView

NEEDS = frozenset(("billing", "deliveries"))


def charges_view(charges: EventType) -> ReadyView:
    """The charges that count now, with all columns of the bill."""
    fields: Mapping[str, str] = {f.name: f.description for f in charges.fields}
    measures: Mapping[str, str] = {m.name: m.description for m in charges.measures}
    return ReadyView(
        "charges",
        "The charges that count: the newest revision of each, and of deliveries only the newest whole one of an issuer, export "
        "and billing period. `billing` has all that ever came",
        {
            "time": "When the charge was issued, UTC",
            **fields,
            **measures,
            "x_columns": "Custom columns x_…, as a JSON object",
            "source": "CloudEvents source: who sent it",
            "id": "CloudEvents id: unique for its source",
            "idx": "Place in the message's array of charges; 0 for a single one",
            "known_from": "First instant of evaluation that could see it, UTC",
        },
        f"""SELECT * EXCLUDE (date) FROM billing
        WHERE "DeliveryId" IS NULL OR "DeliveryId" IN ({counting("billing", "deliveries")})
        QUALIFY row_number() OVER (PARTITION BY {REVISION} ORDER BY "time" DESC, known_from DESC) = 1""",
        NEEDS,
    )


BILLS = ReadyView(
    "bills",
    "Each delivery of a bill, in each of its currencies: whether it counts, what it came to, and by how much it differs from "
    "the whole one before it",
    {
        "issuer": "Who bills (InvoiceIssuerName); NULL: no event has closed the delivery",
        "export": "Which of the issuer's exports (ExportName)",
        "billing_period": "First day of the billing period, UTC",
        "delivery": "Delivery, by its id",
        "delivered": "When it was closed, UTC",
        "state": "counts; replaced: a newer one counts; incomplete: rows are missing, so nothing of it counts; contradicted: its "
        "rows are not those that it says; not_closed: nothing has said yet how many rows it has",
        "row_count": "Charges that it says it has",
        "rows_there": "Charges of it that have come",
        "currency": "BillingCurrency of the amounts",
        "billed_cost": "BilledCost of its charges, exactly",
        "replaces": "The whole delivery before it, by its id",
        "change": "billed_cost less that of the delivery before; NULL: there is none",
    },
    f"""WITH closed AS (
        SELECT * FROM deliveries
        QUALIFY row_number() OVER (PARTITION BY "DeliveryId" ORDER BY "time" DESC, known_from DESC, source, id) = 1),
    arrived AS (SELECT "DeliveryId", {ROWS} FROM billing WHERE "DeliveryId" IS NOT NULL GROUP BY ALL),
    judged AS (
        SELECT *, CASE WHEN "DeliveryId" IN ({counting("billing", "deliveries")}) THEN 'counts'
            WHEN "RowCount" IS NULL THEN 'not_closed' WHEN {WHOLE} THEN 'replaced'
            WHEN coalesce(n, 0) < "RowCount" THEN 'incomplete' ELSE 'contradicted' END AS state
        FROM closed FULL JOIN arrived USING ("DeliveryId")),
    ordered AS (
        SELECT *, lag("DeliveryId") OVER (PARTITION BY "InvoiceIssuerName", "ExportName", "BillingPeriodStart",
            state IN ('counts', 'replaced') ORDER BY "time", "DeliveryId") AS earlier FROM judged),
    placed AS (
        SELECT * EXCLUDE (earlier), CASE WHEN state IN ('counts', 'replaced') THEN earlier END AS replaces FROM ordered),
    sums AS (
        SELECT "DeliveryId", "BillingCurrency" AS currency, {sum_sql('"BilledCost"')} AS cost
        FROM billing WHERE "DeliveryId" IS NOT NULL GROUP BY ALL),
    amounts AS (
        SELECT "DeliveryId", currency, sum(cost) AS billed_cost, sum(earlier) AS earlier_cost
        FROM (SELECT "DeliveryId", currency, cost, NULL AS earlier FROM sums
            UNION ALL SELECT placed."DeliveryId", currency, NULL, cost FROM placed JOIN sums ON sums."DeliveryId" = replaces)
        GROUP BY ALL)
    SELECT "InvoiceIssuerName" AS issuer, "ExportName" AS export, "BillingPeriodStart"::DATE AS billing_period,
        "DeliveryId" AS delivery, "time" AS delivered, state, "RowCount" AS row_count, coalesce(n, 0)::BIGINT AS rows_there,
        currency, coalesce(billed_cost, 0)::DECIMAL(38, 15) AS billed_cost, replaces,
        CASE WHEN replaces IS NOT NULL THEN (coalesce(billed_cost, 0) - coalesce(earlier_cost, 0))::DECIMAL(38, 15) END AS change
    FROM placed LEFT JOIN amounts USING ("DeliveryId")""",
    NEEDS,
)
