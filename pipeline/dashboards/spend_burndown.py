"""Spend: the burn-down of each tranche with its forecast, and what is charged for what."""

from __future__ import annotations

from typing import Any

from grafana_foundation_sdk.models import dashboard

from pipeline.dashboards.frame import DAYS, PREFIX, frame, hidden, that_read
from pipeline.dashboards.panel_sql import (
    NOW,
    chosen,
    in_time,
    of_contract,
    of_region,
    spread,
    to_clause,
)
from pipeline.dashboards.panels import (
    NUMBER,
    RED,
    RIGHT,
    SHARE,
    UNKNOWN,
    counts,
    lay_out,
    like,
    lines,
    rows,
    stat,
    with_unit,
)
from pipeline.dashboards.sql_words import amount, known

LATEST = f"""SELECT * FROM spend WHERE {of_contract()}
          QUALIFY row_number() OVER (PARTITION BY contract, clause ORDER BY day DESC) = 1"""
MONEY = "format('{{:,.0f}} {{}}', ({})::DOUBLE, {})"


def money(value: str, currency: str = "currency") -> str:
    """A whole amount with its currency; NULL for none."""
    return MONEY.format(value, currency)


NOW_SPENT = f"""
    SELECT clause AS tranche, {known(money("spent"))} AS spent, {known(money("remaining"))} AS remaining,
        {known(money("forecast"))} AS "on course to", {known("format('{:.0f} %', 100 * share)")} AS "of ceiling",
        {known("coalesce(strftime(crosses, '%Y-%m-%d'), 'never')")} AS "passes it on"
    FROM (SELECT *, coalesce(forecast, spent)::DOUBLE / nullif(ceiling, 0)::DOUBLE AS share FROM ({LATEST}))
    ORDER BY ends > {NOW} DESC, share DESC NULLS LAST, clause LIMIT 1
"""
BURN_DOWN = f"""
    SELECT moment AS "time", concat_ws(' ', clause, what, currency) AS metric, value
    FROM (
        SELECT day::TIMESTAMP AS moment, clause, currency, {spread("spent", "ceiling", "commit")}
        FROM spend WHERE {of_contract()}
        UNION ALL
        SELECT unnest([day::TIMESTAMP, ends]) AS moment, clause, currency, 'forecast' AS what,
            unnest([spent::DOUBLE, forecast::DOUBLE]) AS value
        FROM ({LATEST})
        UNION ALL
        SELECT ends AS moment, clause, currency, {spread("ceiling", "commit")} FROM ({LATEST}))
    WHERE value IS NOT NULL AND moment >= $__timeFrom() AND moment <= $__timeTo() ORDER BY 1
"""
ONE_CURRENCY = """
    SELECT CASE WHEN count(DISTINCT {0}) = 1 THEN concat('currency:', max({0}), ' ') ELSE 'short' END AS unit FROM {1}
"""
"""Of several currencies none can stand at an axis: then only the names of the series say them."""
OPEN_NOW = f"""(SELECT min(starts) AS starts, max(ends) AS ends FROM ({LATEST})
          WHERE ends > {NOW} OR ends = (SELECT max(ends) FROM spend WHERE {of_contract()}))"""
"""The span of the tranches that are open, else of the last."""
LENGTH = (
    f"SELECT concat(ceil((epoch(ends) - epoch(starts)) / 3600)::BIGINT + 2, 'h') AS length FROM {OPEN_NOW} "
    "WHERE ends IS NOT NULL"
)
SHIFT = f"""
    SELECT CASE WHEN ahead >= 0 THEN concat('0h+', ahead, 'h') ELSE concat(-ahead, 'h') END AS shift
    FROM (SELECT ceil((epoch(ends) - epoch({NOW})) / 3600)::BIGINT AS ahead FROM {OPEN_NOW}) WHERE ahead IS NOT NULL
"""
"""How far the range of `LENGTH` before now is moved: Grafana puts a minus before it, so what follows a plus goes ahead."""
TRANCHES = f"""
    SELECT clause, strftime(starts, '%Y-%m-%d') AS starts, strftime(ends, '%Y-%m-%d') AS ends,
        {money("spent")} AS spent, {money("remaining")} AS remaining, {money("forecast")} AS "on course to",
        {money('"commit"')} AS "commit", {money("ceiling")} AS ceiling, share AS "of ceiling",
        strftime(crosses, '%Y-%m-%d') AS "passes it on",
        {to_clause(events="'billing'")}
    FROM (SELECT *, coalesce(forecast, spent)::DOUBLE / nullif(ceiling, 0)::DOUBLE AS share FROM ({LATEST})) AS newest
    ORDER BY share DESC NULLS LAST, clause LIMIT 100
"""
CHARGES = f"{in_time('window_start')} AND {chosen('RegionId', 'region')}"


def by_day(column: str) -> str:
    """BilledCost of each day, a series for each value of a column and each currency."""
    return f"""
        SELECT window_start AS "time", concat_ws(' ', {column}, BillingCurrency) AS metric,
            sum(BilledCost_sum)::DOUBLE AS value
        FROM billing_1d WHERE {CHARGES} GROUP BY ALL ORDER BY 1
    """


BILLS = f"(SELECT BillingCurrency FROM billing_1d WHERE {CHARGES})"
TABLE = f"""
    SELECT RegionId AS region, SkuId AS sku, ChargeCategory AS category,
        {money("sum(BilledCost_sum)", "BillingCurrency")} AS billed,
        {money("sum(ListCost_sum)", "BillingCurrency")} AS "at list price",
        {amount("sum(ConsumedQuantity_sum)", "ConsumedUnit")} AS quantity,
        format('{{:,.4f}} {{}}', sum(BilledCost_sum)::DOUBLE / nullif(sum(ConsumedQuantity_sum)::DOUBLE, 0), BillingCurrency)
            AS "per unit", sum(samples)::DOUBLE AS charges, strftime(max(window_start), '%Y-%m-%d') AS "newest day"
    FROM billing_1d WHERE {CHARGES} GROUP BY RegionId, SkuId, ChargeCategory, BillingCurrency, ConsumedUnit
    ORDER BY sum(BilledCost_sum) DESC NULLS LAST, region, sku, category LIMIT 200
"""
HOURS = f"""
    SELECT strftime(day, '%Y-%m-%d') AS day, provider, region, sku, delivered, healthy, used, billed_quantity::DOUBLE AS billed,
        billed_quantity::DOUBLE / nullif(delivered, 0) AS "billed of it", {money("billed_cost")} AS cost
    FROM gpu_hours
    WHERE gpu_hours.day >= greatest($__timeFrom(), least($__timeTo(), now()::TIMESTAMP) - INTERVAL 7 DAY)::DATE
        AND gpu_hours.day <= $__timeTo()::DATE AND {of_region()}
    ORDER BY gpu_hours.day DESC, region, sku LIMIT 200
"""


def spend() -> dashboard.Dashboard:
    """Money: tranches first, charges below."""
    clause = f"{PREFIX}clause"
    # Its own range: that of the tranches, whatever the dashboard shows.
    burn_down = lines(
        "Burn-down", "Charges from each tranche's start by the end of each day, and what it is on course to; dashed: the "
        "commit, dotted: the ceiling. It shows the whole of the open tranches, whatever the time range, if that is a "
        "relative one", BURN_DOWN, NUMBER, least="1d", zero=True, legend=400,
        **with_unit(ONE_CURRENCY.format("currency", f"({LATEST})")),
        range_of_its_own=("${tranche_length}", "${tranche_shift}"),
    )  # fmt: skip
    by: dict[str, Any] = {"bars": True, "least": "1d", "zero": True, "legend": 350,
          **with_unit(ONE_CURRENCY.format("BillingCurrency", BILLS))}  # fmt: skip
    hours = {"unit": "suffix:h", "decimals": 1}
    panels = lay_out(
        (4, [
            (24, stat("Tranche nearest to its ceiling", "Of those that are open the one that is on course to the greatest "
                      "share of its ceiling, and the date on which it passes it", NOW_SPENT, size=22,
                      fields={"of ceiling": {"mappings": [*UNKNOWN, like("^[1-9][0-9]{2,} %$", RED)]}})),
        ]),
        (11, [(24, burn_down)]),
        (7, [(24, rows("Tranches, nearest to the ceiling first", "Amounts in the contract's currency", TRANCHES,
                       widths={"starts": 95, "ends": 95, "spent": 125, "remaining": 125, "on course to": 130, "commit": 125,
                               "ceiling": 125, "of ceiling": 95, "passes it on": 115},
                       fields={"of ceiling": {"unit": SHARE, "decimals": 0}, **dict.fromkeys(
                           ("spent", "remaining", "on course to", "commit", "ceiling"), RIGHT)},
                       links={"clause": clause}))]),
        (10, [(24, lines("Charges by SKU", "BilledCost of each day, in the bill's currency", by_day("SkuId"), NUMBER, **by))]),
        (9, [(24, lines("Charges by region", "BilledCost of each day, in the bill's currency", by_day("RegionId"),
                        NUMBER, **by))]),
        (9, [(24, rows("Charges of the time range", "By region, SKU, category and unit, the greatest first", TABLE,
                       widths={"region": 110, "category": 110, "billed": 140, "at list price": 140, "quantity": 160,
                               "per unit": 130, "charges": 80, "newest day": 110}, wrapped=["sku"],
                       fields={**counts("charges"), **dict.fromkeys(
                           ("billed", "at list price", "quantity", "per unit"), RIGHT)}))]),
        (9, [(24, rows("GPU-hours delivered and billed", "The newest seven days of the time range", HOURS,
                       widths={"day": 105, "provider": 110, "region": 110, "delivered": 100, "healthy": 100, "used": 100,
                               "billed": 100, "billed of it": 100, "cost": 140}, wrapped=["sku"],
                       fields={"billed of it": {"unit": SHARE, "decimals": 0}, "cost": RIGHT, 
                           "delivered": hours, "healthy": hours, "used": hours, "billed": hours}))]),
    )  # fmt: skip
    variables = [
        hidden("tranche_length", LENGTH, "How long the open tranches are", "720h"),
        hidden("tranche_shift", SHIFT, "How far their end is from now", "0h+360h"),
    ]
    return frame(
        "spend", "Spend", "Tranches against ceiling and commit, and charges by SKU and region", panels,
        variables=variables, back="now-30d", kind=DAYS, concerning=that_read("billing"),
    )  # fmt: skip
