"""Ready views of what was paid for, beside what came of it: GPU-hours, and what changed since yesterday."""

from __future__ import annotations

from pipeline.clauses import alerts_that_add_up_to
from pipeline.rollup.quoting import literal
from pipeline.rules.ready_view import ReadyView


def _named(dimension: str, billed: str) -> str:
    """What a name in a bill is called in telemetry: its alias in a contract, else the same."""
    names = f"SELECT DISTINCT billed, name FROM aliases WHERE dimension = '{dimension}'"
    return f"coalesce((SELECT map(list(billed), list(name)) FROM ({names}))[{billed}], {billed})"


_UNIT = "regexp_replace(lower(ConsumedUnit), '^gpu[- ]', '')"
"""FOCUS units are words such as Hours, GPU-Hours or Seconds."""
_AS_HOURS = f"""CASE WHEN {_UNIT} IN ('hour', 'hours', 'hr', 'hrs', 'h') THEN ConsumedQuantity_sum::DOUBLE
              WHEN {_UNIT} IN ('minute', 'minutes', 'min') THEN ConsumedQuantity_sum::DOUBLE / 60
              WHEN {_UNIT} IN ('second', 'seconds', 'sec', 's') THEN ConsumedQuantity_sum::DOUBLE / 3600
              WHEN {_UNIT} IN ('day', 'days') THEN ConsumedQuantity_sum::DOUBLE * 24 END"""

GPU_HOURS = ReadyView(
    "gpu_hours",
    "GPU-hours of each day, delivered, healthy and used, beside what was billed, and how much of the difference silence "
    "explains; a GPU counts for each minute in which it reported, once, wherever it was",
    {
        "day": "Day, UTC",
        "provider": "Supplier, as telemetry names it",
        "region": "Region, as telemetry names it",
        "sku": "SKU, as telemetry names it",
        "delivered": "GPU-hours of GPUs that reported",
        "healthy": "GPU-hours of those that were not degraded or failed in their minute",
        "used": "GPU-hours of those that were at work in it",
        "covered_hours": "Hours of the day in which any of these GPUs reported: what telemetry can speak of",
        "silent": "GPU-hours of GPUs whose source as a whole had stopped, for a day after it was last heard: they may have been "
        "there",
        "billed_quantity": "Hours of that day's usage charges of the same names, or of their aliases: ConsumedQuantity in "
        "hours, minutes, seconds or days, as hours",
        "difference": "billed_quantity less delivered: above zero, more was billed than reported; NULL where no hours are billed",
        "explained_by_silence": "Share of a difference above zero that the silent GPU-hours would make up for, from 0 to 1; the "
        "rest is to be asked about, where covered_hours is the whole day. NULL where no telemetry came",
        "billed_cost": "BilledCost of them",
        "other_cost": "BilledCost of such charges in other units, or in none: their quantity is no hours",
        "currency": "BillingCurrency of them",
        "step_seconds": "60: counted by the minute; 900: by the quarter of an hour, of days before GPU-minutes were kept",
    },
    f"""SELECT day, provider, region, sku, delivered, healthy, used, covered_hours, silent, billed_quantity, difference,
        CASE WHEN difference > 0 AND silent IS NOT NULL THEN least(silent, difference) / difference END AS explained_by_silence,
        billed_cost, other_cost, currency, step_seconds
    FROM (
        SELECT *, billed_quantity - coalesce(delivered, 0) AS difference
        FROM (SELECT date AS day, provider, region, sku, sum(delivered) / 60 AS delivered, sum(healthy) / 60 AS healthy,
                  sum(used) / 60 AS used, sum(covered) / 60 AS covered_hours, sum(silent) / 60 AS silent,
                  max(step_seconds) AS step_seconds
              FROM gpu_minutes GROUP BY ALL)
        FULL JOIN (SELECT date AS day, {_named("provider", "ServiceProviderName")} AS provider,
                  {_named("region", "RegionId")} AS region, {_named("sku", "SkuId")} AS sku,
                  sum(hours) AS billed_quantity, sum(BilledCost_sum) FILTER (hours IS NOT NULL) AS billed_cost,
                  sum(BilledCost_sum) FILTER (hours IS NULL) AS other_cost, BillingCurrency AS currency
              FROM (SELECT *, {_AS_HOURS} AS hours FROM billing_1d WHERE ChargeCategory = 'Usage') GROUP BY ALL)
        USING (day, provider, region, sku))""",
    frozenset(("gpu", "billing")),
)


def _both(value: str, yesterday: str, now: str) -> str:
    """The same aggregate over the 24 hours to a day ago, and over those to now."""
    return f"{value} FILTER (NOT recent) AS {yesterday}, {value} FILTER (recent) AS {now}"


def _alerts(quantity: str) -> str:
    """The condition for a reading of what comes to a quantity over a day."""
    return f"alertname IN ({', '.join(map(literal, alerts_that_add_up_to(quantity)))})"


_MONEY = "DECIMAL(38, 15)"
SINCE_YESTERDAY = ReadyView(
    "since_yesterday",
    "What each clause has come to, now and 24 hours before: money spent and forecast as known at both instants; GPU-hours "
    "and breaches of the 24 hours up to each. Now is the newest instant evaluated, so a replayed day has its own",
    {
        "contract": "Contract, by its id",
        "clause": "Clause, by its id",
        "by_values": "The values that the clause is split by, as a JSON object",
        "quantity": "spent, forecast, gpu_hours (delivered, as the clause counts), breaches (times that it went out of "
        "bounds) or breach_minutes",
        "unit": "The contract's currency for money; h, times or min",
        "yesterday": "The quantity 24 hours before; NULL: nothing is known of then",
        "now": "The quantity now",
        "change": "now less yesterday",
        "yesterday_hours": "Hours of the 24 up to then that have a reading which is not unknown: with fewer, sums are short",
        "now_hours": "The same of the 24 hours up to now",
        "as_of": "The instant that now is, UTC",
    },
    f"""WITH newest AS (
        SELECT date_trunc('minute', max("time")) AS as_of FROM standing SEMI JOIN clauses USING (contract, clause)),
    instants AS (
        SELECT contract, clause, by_values, "time", as_of, "time" > as_of - INTERVAL 24 HOUR AS recent,
            "time" = date_trunc('minute', "time") AS full_minute, bool_or(state = 'breach') AS breach,
            bool_or(state <> 'unknown') AS known, max(observed) FILTER ({_alerts("gpu_hours")}) AS gpus,
            max(TRY_CAST(facts ->> '$.spent' AS {_MONEY})) AS spent,
            max(TRY_CAST(coalesce(facts ->> '$.forecast', observed::VARCHAR) AS {_MONEY}))
                FILTER ({_alerts("forecast")}) AS forecast
        FROM readings, newest WHERE "time" > as_of - INTERVAL 48 HOUR AND "time" <= as_of
        GROUP BY ALL),
    told AS (
        SELECT *, breach AND NOT coalesce(lag(breach) OVER (
            PARTITION BY contract, clause, by_values ORDER BY "time"), false) AS begins FROM instants),
    sums AS (
        SELECT contract, clause, by_values, as_of,
            {_both("arg_max(spent, time)", "spent_then", "spent_now")},
            {_both("arg_max(forecast, time)", "forecast_then", "forecast_now")},
            {_both("sum(gpus * full_minute::INT)", "gpus_then", "gpus_now")},
            {_both("sum(begins::INT)", "breaches_then", "breaches_now")},
            {_both("sum((breach AND full_minute)::INT)", "minutes_then", "minutes_now")},
            {_both("sum((known AND full_minute)::INT)", "known_then", "known_now")}
        FROM told GROUP BY ALL),
    each AS (
        SELECT contract, clause, by_values, as_of, known_then, known_now, unnest([
            {{'quantity': 'spent', 'unit': currency, 'yesterday': spent_then, 'now': spent_now}},
            {{'quantity': 'forecast', 'unit': currency, 'yesterday': forecast_then, 'now': forecast_now}},
            {{'quantity': 'gpu_hours', 'unit': 'h', 'yesterday': round(gpus_then / 60, 6)::{_MONEY},
              'now': round(gpus_now / 60, 6)::{_MONEY}}},
            {{'quantity': 'breaches', 'unit': 'times', 'yesterday': breaches_then::{_MONEY},
              'now': breaches_now::{_MONEY}}},
            {{'quantity': 'breach_minutes', 'unit': 'min', 'yesterday': minutes_then::{_MONEY},
              'now': minutes_now::{_MONEY}}}], recursive := true)
        FROM sums JOIN (SELECT contract, clause, currency FROM clauses) USING (contract, clause))
    SELECT contract, clause, by_values, quantity, unit, yesterday, now, now - yesterday AS change,
        coalesce(known_then, 0) / 60 AS yesterday_hours, coalesce(known_now, 0) / 60 AS now_hours, as_of
    FROM each WHERE yesterday IS NOT NULL OR now IS NOT NULL""",
)
