"""Spend: the burn-down of each tranche with its forecast, and what is charged for what."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard

from pipeline.serve.dashboards_frame import PREFIX, frame
from pipeline.serve.dashboards_panels import COUNT, NUMBER, SHARE, data_age, lay_out, lines, rows, stat
from pipeline.serve.dashboards_sql import chosen, in_time, of_contract, of_region, spread, to_clause

LATEST = f"""SELECT * FROM spend WHERE {of_contract()}
          QUALIFY row_number() OVER (PARTITION BY contract, clause ORDER BY day DESC) = 1"""
NOW_SPENT = f"""
    SELECT concat_ws(' ', clause, what, currency) AS tranche, value
    FROM (SELECT contract, clause, currency, {spread("spent", "remaining", "forecast")} FROM ({LATEST}))
    WHERE value IS NOT NULL ORDER BY contract, clause LIMIT 9
"""
OVER = f"""
    SELECT max(forecast / nullif(ceiling, 0)) AS "forecast", max(spent::DOUBLE / nullif(ceiling, 0)) AS "spent"
    FROM ({LATEST}) WHERE ceiling IS NOT NULL
"""
BURN_DOWN = f"""
    SELECT moment AS "time", concat_ws(' ', clause, what) AS metric, value
    FROM (
        SELECT day::TIMESTAMP AS moment, clause, {spread("spent", "ceiling", "commit")}
        FROM spend WHERE {of_contract()}
        UNION ALL
        SELECT unnest([day::TIMESTAMP, ends]) AS moment, clause, 'forecast' AS what, unnest([spent::DOUBLE, forecast]) AS value
        FROM ({LATEST})
        UNION ALL
        SELECT ends AS moment, clause, {spread("ceiling", "commit")} FROM ({LATEST}))
    WHERE value IS NOT NULL AND moment >= $__timeFrom() AND moment <= $__timeTo() ORDER BY 1
"""
TRANCHES = f"""
    SELECT clause, starts, ends, spent::DOUBLE AS spent, forecast, "commit"::DOUBLE AS "commit",
        ceiling::DOUBLE AS ceiling, remaining::DOUBLE AS remaining, spent::DOUBLE / nullif(ceiling, 0) AS "of ceiling",
        forecast / nullif(ceiling, 0) AS "forecast of ceiling", currency, day AS "until", contract,
        {to_clause(events="'billing'")}
    FROM ({LATEST}) ORDER BY "forecast of ceiling" DESC NULLS LAST, clause LIMIT 100
"""
CHARGES = f"{in_time('window_start')} AND {chosen('RegionId', 'region')}"


def by_day(column: str) -> str:
    """BilledCost of each day, a series for each value of a column and each currency."""
    return f"""
        SELECT window_start AS "time", concat_ws(' ', {column}, BillingCurrency) AS metric,
            sum(BilledCost_sum)::DOUBLE AS value
        FROM billing_1d WHERE {CHARGES} GROUP BY ALL ORDER BY 1
    """


TABLE = f"""
    SELECT RegionId AS region, SkuId AS sku, ChargeCategory AS category, sum(BilledCost_sum)::DOUBLE AS billed,
        sum(ListCost_sum)::DOUBLE AS "at list price", sum(ConsumedQuantity_sum)::DOUBLE AS quantity,
        ConsumedUnit AS unit,
        sum(BilledCost_sum)::DOUBLE / nullif(sum(ConsumedQuantity_sum)::DOUBLE, 0) AS "per unit",
        BillingCurrency AS currency, sum(samples)::DOUBLE AS charges, max(window_start) AS "newest day"
    FROM billing_1d WHERE {CHARGES} GROUP BY ALL ORDER BY billed DESC NULLS LAST, region, sku, category LIMIT 200
"""
HOURS = f"""
    SELECT day, provider, region, sku, delivered, healthy, used, billed_quantity::DOUBLE AS billed,
        billed_quantity::DOUBLE / nullif(delivered, 0) AS "billed of delivered", billed_cost::DOUBLE AS cost, currency
    FROM gpu_hours
    WHERE day >= greatest($__timeFrom(), least($__timeTo(), now()::TIMESTAMP) - INTERVAL 7 DAY)::DATE
        AND day <= $__timeTo()::DATE AND {of_region()}
    ORDER BY day DESC, region, sku LIMIT 200
"""


def spend() -> dashboard.Dashboard:
    """Money: tranches first, charges below."""
    clause = f"{PREFIX}clause"
    panels = lay_out(
        (4, [
            (14, stat("Tranches now", "Spent, remaining and forecast of each tranche, in the contract's currency",
                      NOW_SPENT, COUNT, rows=True, decimals=0)),
            (7, stat("Nearest to a ceiling", "The greatest share of its ceiling that any tranche is forecast to reach, "
                     "and has spent", OVER, SHARE, decimals=1)),
            (3, data_age()),
        ]),
        (10, [(24, lines("Burn-down", "Charges from each tranche's start by the end of each day, and what it is on course "
                         "to; dashed: ceiling and commit. In the contract's currency", BURN_DOWN, COUNT, decimals=0,
                         least="1d", zero=True))]),
        (7, [(24, rows("Tranches, nearest to the ceiling first", "Amounts in the contract's currency", TRANCHES, unit=COUNT,
                       fields={"of ceiling": {"unit": SHARE}, "forecast of ceiling": {"unit": SHARE}},
                       links={"clause": clause}))]),
        (9, [
            (12, lines("Charges by SKU", "BilledCost of each day, in the bill's currency", by_day("SkuId"), COUNT,
                       bars=True, least="1d", decimals=0)),
            (12, lines("Charges by region", "BilledCost of each day, in the bill's currency", by_day("RegionId"),
                       COUNT, bars=True, least="1d", decimals=0)),
        ]),
        (9, [(24, rows("Charges of the time range", "By region, SKU, category and unit, the greatest first", TABLE, unit=COUNT,
                       fields={"per unit": {"unit": NUMBER, "decimals": 4}}))]),
        (9, [(24, rows("GPU-hours delivered and billed", "The newest seven days of the time range; a GPU seen in a quarter "
                       "of an hour counts for all of it", HOURS, unit=COUNT,
                       fields={"billed of delivered": {"unit": SHARE}}))]),
    )  # fmt: skip
    return frame(
        "spend", "Spend", "Tranches against ceiling and commit, and charges by SKU and region", panels, back="now-30d",
        ahead="now+30d",
    )  # fmt: skip
