-- Each delivery of a bill, in each of its currencies: whether it counts, what it came to, and by how much it differs
-- from the whole one before it
--
-- needs: billing, deliveries
--
-- issuer: Who bills (InvoiceIssuerName); NULL: no event has closed the delivery
-- export: Which of the issuer's exports (ExportName)
-- billing_period: First day of the billing period, UTC
-- delivery: Delivery, by its id
-- delivered: When it was closed, UTC
-- state: counts; replaced: a newer one counts; incomplete: rows are missing, so nothing of it counts; contradicted: its
--     rows are not those that it says; not_closed: nothing has said yet how many rows it has
-- row_count: Charges that it says it has
-- rows_there: Charges of it that have come
-- currency: BillingCurrency of the amounts
-- billed_cost: BilledCost of its charges, exactly
-- replaces: The whole delivery before it, by its id
-- change: billed_cost less that of the delivery before; NULL: there is none
WITH closed AS (
    SELECT * FROM deliveries
    QUALIFY row_number() OVER (PARTITION BY "DeliveryId" ORDER BY "time" DESC, known_from DESC, source, id) = 1
),
arrived AS (
    SELECT "DeliveryId", {rows} FROM billing WHERE "DeliveryId" IS NOT NULL GROUP BY ALL
),
judged AS (
    SELECT
        *,
        CASE
            WHEN "DeliveryId" IN ({counting}) THEN 'counts'
            WHEN "RowCount" IS NULL THEN 'not_closed'
            WHEN {whole} THEN 'replaced'
            WHEN coalesce(n, 0) < "RowCount" THEN 'incomplete'
            ELSE 'contradicted'
        END AS state
    FROM closed
    FULL JOIN arrived USING ("DeliveryId")
),
ordered AS (
    SELECT
        *,
        lag("DeliveryId") OVER (
            PARTITION BY "InvoiceIssuerName", "ExportName", "BillingPeriodStart", state IN ('counts', 'replaced')
            ORDER BY "time", "DeliveryId"
        ) AS earlier
    FROM judged
),
placed AS (
    SELECT * EXCLUDE (earlier), CASE WHEN state IN ('counts', 'replaced') THEN earlier END AS replaces
    FROM ordered
),
sums AS (
    SELECT "DeliveryId", "BillingCurrency" AS currency, {billed_cost} AS cost
    FROM billing
    WHERE "DeliveryId" IS NOT NULL
    GROUP BY ALL
),
-- a currency that only one of the two deliveries has is a change too
amounts AS (
    SELECT "DeliveryId", currency, sum(cost) AS billed_cost, sum(earlier) AS earlier_cost
    FROM (
        SELECT "DeliveryId", currency, cost, NULL AS earlier FROM sums
        UNION ALL
        SELECT placed."DeliveryId", currency, NULL, cost FROM placed JOIN sums ON sums."DeliveryId" = replaces
    )
    GROUP BY ALL
)
SELECT
    "InvoiceIssuerName" AS issuer,
    "ExportName" AS export,
    "BillingPeriodStart"::DATE AS billing_period,
    "DeliveryId" AS delivery,
    "time" AS delivered,
    state,
    "RowCount" AS row_count,
    coalesce(n, 0)::BIGINT AS rows_there,
    currency,
    coalesce(billed_cost, 0)::DECIMAL(38, 15) AS billed_cost,
    replaces,
    CASE WHEN replaces IS NOT NULL THEN (coalesce(billed_cost, 0) - coalesce(earlier_cost, 0))::DECIMAL(38, 15) END
        AS change
FROM placed
LEFT JOIN amounts USING ("DeliveryId")
