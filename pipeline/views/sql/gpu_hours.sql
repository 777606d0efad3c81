-- GPU-hours of each day, delivered, healthy and used, beside what was billed, and how much of the difference silence
-- explains; a GPU counts for each minute in which it reported, once, wherever it was
--
-- needs: billing, gpu
--
-- day: Day, UTC
-- provider: Supplier, as telemetry names it
-- region: Region, as telemetry names it
-- sku: SKU, as telemetry names it
-- delivered: GPU-hours of GPUs that reported
-- healthy: GPU-hours of those that were not degraded or failed in their minute
-- used: GPU-hours of those that were at work in it
-- covered_hours: Hours of the day in which any of these GPUs reported: what telemetry can speak of
-- silent: GPU-hours of GPUs whose source as a whole had stopped, for a day after it was last heard: they may have been
--     there
-- billed_quantity: Hours of that day's usage charges of the same names, or of their aliases: ConsumedQuantity in hours,
--     minutes, seconds or days, as hours
-- difference: billed_quantity less delivered: above zero, more was billed than reported; NULL where no hours are billed
-- explained_by_silence: Share of a difference above zero that the silent GPU-hours would make up for, from 0 to 1; the
--     rest is to be asked about, where covered_hours is the whole day. NULL where no telemetry came
-- billed_cost: BilledCost of them
-- other_cost: BilledCost of such charges in other units, or in none: their quantity is no hours
-- currency: BillingCurrency of them
-- step_seconds: 60: counted by the minute; 900: by the quarter of an hour, of days before GPU-minutes were kept
WITH telemetry AS (
    SELECT
        date AS day,
        provider,
        region,
        sku,
        sum(delivered) / 60 AS delivered,
        sum(healthy) / 60 AS healthy,
        sum(used) / 60 AS used,
        sum(covered) / 60 AS covered_hours,
        sum(silent) / 60 AS silent,
        max(step_seconds) AS step_seconds
    FROM gpu_minutes
    GROUP BY ALL
),
-- what a name in a bill is called in telemetry: its alias in a contract, else the same
named AS (
    SELECT dimension, map(list(billed), list(name)) AS names
    FROM (SELECT DISTINCT dimension, billed, name FROM aliases)
    GROUP BY dimension
),
-- FOCUS units are words such as Hours, GPU-Hours or Seconds
usage AS (
    SELECT *, regexp_replace(lower(ConsumedUnit), '^gpu[- ]', '') AS unit
    FROM billing_1d
    WHERE ChargeCategory = 'Usage'
),
charged AS (
    SELECT
        *,
        CASE
            WHEN unit IN ('hour', 'hours', 'hr', 'hrs', 'h') THEN ConsumedQuantity_sum::DOUBLE
            WHEN unit IN ('minute', 'minutes', 'min') THEN ConsumedQuantity_sum::DOUBLE / 60
            WHEN unit IN ('second', 'seconds', 'sec', 's') THEN ConsumedQuantity_sum::DOUBLE / 3600
            WHEN unit IN ('day', 'days') THEN ConsumedQuantity_sum::DOUBLE * 24
        END AS hours
    FROM usage
),
billed AS (
    SELECT
        date AS day,
        coalesce((SELECT names FROM named WHERE dimension = 'provider')[ServiceProviderName], ServiceProviderName)
            AS provider,
        coalesce((SELECT names FROM named WHERE dimension = 'region')[RegionId], RegionId) AS region,
        coalesce((SELECT names FROM named WHERE dimension = 'sku')[SkuId], SkuId) AS sku,
        sum(hours) AS billed_quantity,
        sum(BilledCost_sum) FILTER (hours IS NOT NULL) AS billed_cost,
        sum(BilledCost_sum) FILTER (hours IS NULL) AS other_cost,
        BillingCurrency AS currency
    FROM charged
    GROUP BY ALL
),
compared AS (
    SELECT *, billed_quantity - coalesce(delivered, 0) AS difference
    FROM telemetry
    FULL JOIN billed USING (day, provider, region, sku)
)
SELECT
    day,
    provider,
    region,
    sku,
    delivered,
    healthy,
    used,
    covered_hours,
    silent,
    billed_quantity,
    difference,
    CASE WHEN difference > 0 AND silent IS NOT NULL THEN least(silent, difference) / difference END
        AS explained_by_silence,
    billed_cost,
    other_cost,
    currency,
    step_seconds
FROM compared
