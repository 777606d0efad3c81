"""Capacity & power: what was contracted, delivered, healthy and in use; the ramp, the headroom, the PUE."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard

from pipeline.serve.dashboards_frame import PREFIX, RESOLUTION_MS, frame, resolution, variable
from pipeline.serve.dashboards_panels import (
    COUNT,
    MEGAWATTS,
    NUMBER,
    SHARE,
    data_age,
    lay_out,
    lines,
    rows,
    stat,
)  # fmt: skip
from pipeline.serve.dashboards_sql import (
    BUCKET,
    CLAUSE_LABEL,
    NOW,
    at_last,
    chosen,
    in_days,
    in_time,
    of_contract,
    of_region,
    spread,
    to_clause,
)  # fmt: skip

HERE = f"{of_contract()} AND {of_region()}"
IN_TIME = f"{in_time()} AND {HERE}"
LATEST = f"""SELECT * FROM capacity
          WHERE {at_last("15 MINUTE")} AND {HERE}
          QUALIFY row_number() OVER (PARTITION BY {CLAUSE_LABEL}, contract ORDER BY "time" DESC) = 1"""

NOW_GPUS = f"""
    SELECT sum(delivered) AS delivered, sum(committed) AS committed, least(sum(least(headroom, 0)), 0) AS missing,
        sum(silent) AS silent
    FROM ({LATEST})
"""
NOW_POWER = f"""
    SELECT sum(drawn_megawatts) AS drawn, sum(contracted_megawatts) AS contracted, min(headroom_megawatts) AS
        "least headroom"
    FROM (SELECT * FROM power
          WHERE {at_last("15 MINUTE")} AND {HERE}
          QUALIFY row_number() OVER (PARTITION BY {CLAUSE_LABEL}, contract ORDER BY "time" DESC) = 1)
"""
PUE_NOW = f"""
    SELECT sum(facility_megawatts) / nullif(sum(it_megawatts), 0) AS "PUE" FROM energy_mix
    WHERE {at_last("30 MINUTE")} AND {of_region()}
"""
DELIVERED = f"""
    SELECT moment AS "time", concat_ws(' ', label, what) AS metric, value
    FROM (
        SELECT moment, label, {spread("delivered", "committed", "ceiling")}
        FROM (
            SELECT {BUCKET} AS moment, {CLAUSE_LABEL} AS label, min(delivered) AS delivered, max(committed) AS committed,
                max(ceiling) AS ceiling
            FROM capacity WHERE {IN_TIME} GROUP BY ALL))
    WHERE value IS NOT NULL ORDER BY 1
"""
HEADROOM = f"""
    SELECT {BUCKET} AS "time", {CLAUSE_LABEL} AS metric, min(headroom) AS value
    FROM capacity WHERE {IN_TIME} AND headroom IS NOT NULL GROUP BY ALL ORDER BY 1
"""
GPUS = f"""{in_time("window_start")} AND {of_region()}
        AND {chosen("sku", "sku")}"""
FLEET = f"""
    SELECT "time", concat_ws(' ', region, sku, what) AS metric, value
    FROM (
        SELECT "time", region, sku, {spread("reported", "healthy", "in use")}
        FROM (
            SELECT window_start AS "time", region, sku, sum(gpus) AS reported, sum(gpus - gpus_unhealthy) AS healthy,
                sum(gpus_in_use) AS "in use"
            FROM gpu_${{resolution}} WHERE {GPUS} GROUP BY ALL))
    ORDER BY 1
"""
BY_SKU = f"""
    SELECT region, sku, max(reported) AS reported, arg_max(healthy, moment) AS healthy, arg_max("in use", moment) AS "in use",
        arg_max("in use", moment) / nullif(arg_max(reported, moment), 0) AS "share in use",
        max(moment) AS "window"
    FROM (
        SELECT window_start AS moment, region, sku, sum(gpus) AS reported, sum(gpus - gpus_unhealthy) AS healthy,
            sum(gpus_in_use) AS "in use"
        FROM gpu_${{resolution}}
        WHERE window_start >= $__timeTo() - to_milliseconds(2 * {RESOLUTION_MS}) AND {GPUS}
        GROUP BY ALL)
    GROUP BY ALL ORDER BY reported DESC, region, sku LIMIT 200
"""
AGAINST = f"""
    SELECT state, clause, concat_ws(' / ', provider, region, site, cluster, sku) AS "where", committed, delivered,
        healthy, in_use AS "in use", silent, headroom, delivered / nullif(committed, 0) AS "share of committed", ceiling,
        "window", "time" AS "read", contract, {to_clause("region")}
    FROM ({LATEST}) ORDER BY headroom, clause LIMIT 200
"""
DRAWN = f"""
    SELECT moment AS "time", concat_ws(' ', label, what) AS metric, value
    FROM (
        SELECT moment, label, {spread("drawn", "contracted")}
        FROM (
            SELECT {BUCKET} AS moment, {CLAUSE_LABEL} AS label, max(drawn_megawatts) AS drawn,
                max(contracted_megawatts) AS contracted
            FROM power WHERE {IN_TIME} GROUP BY ALL))
    WHERE value IS NOT NULL ORDER BY 1
"""
PUE = f"""
    SELECT {BUCKET} AS "time", concat_ws(' / ', region, site) AS metric,
        sum(facility_megawatts) / nullif(sum(it_megawatts), 0) AS value
    FROM energy_mix WHERE {in_time()} AND {of_region()} GROUP BY ALL ORDER BY 1
"""
RAMP = f"""
    SELECT clause, term, (step ->> '$.from')::TIMESTAMP AS "from", (step ->> '$.value')::DOUBLE AS value,
        CASE WHEN "from" > {NOW} THEN 'to come' WHEN lead("from") OVER later <= {NOW} THEN 'past' ELSE 'in force' END
            AS "stands", contract
    FROM (
        SELECT contract, clause, each.key AS term, unnest(CASE WHEN each.type = 'ARRAY' THEN each.value::JSON[] END) AS step
        FROM (SELECT contract, clause, terms FROM clauses WHERE {of_contract()}), json_each(terms) AS each)
    WHERE step ->> '$.from' IS NOT NULL
    WINDOW later AS (PARTITION BY contract, clause, term ORDER BY "from")
    ORDER BY clause, term, "from" LIMIT 200
"""
SKUS = f"SELECT DISTINCT sku FROM gpu_1d WHERE {in_days('$__timeTo() - INTERVAL 1 DAY')} ORDER BY 1"


def capacity() -> dashboard.Dashboard:
    """Contracted against delivered, in GPUs and in megawatts."""
    clause = f"{PREFIX}clause"
    skus = variable("sku", "SKU", SKUS, "SKUs that reported lately").refresh(
        dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED
    )
    panels = lay_out(
        (4, [
            (9, stat("GPUs now", "Delivered and committed over all clauses, what is missing where it is short, and GPUs "
                     "whose source is silent", NOW_GPUS, COUNT, decimals=0)),
            (8, stat("Megawatts now", "Drawn and contracted over all power clauses, and the least headroom of any",
                     NOW_POWER, MEGAWATTS, decimals=3)),
            (4, stat("PUE now", "Facility ÷ IT power of the last half hour, as metered", PUE_NOW, NUMBER, decimals=3)),
            (3, data_age()),
        ]),
        (9, [
            (16, lines("Delivered against committed", "GPUs of each capacity clause; dashed: the floor and the ceiling in "
                       "force then", DELIVERED, COUNT, decimals=0)),
            (8, lines("Headroom", "Delivered less committed: below zero is a shortfall", HEADROOM, COUNT, decimals=0,
                      zero=True)),
        ]),
        (8, [(24, rows("Capacity clauses, least headroom first", "The newest reading of each", AGAINST,
                       fields={"share of committed": {"unit": SHARE}}, unit=COUNT, links={"clause": clause}))]),
        (9, [
            (14, lines("GPUs that reported, were healthy and in use", "Distinct GPUs of each region and SKU, from "
                       "roll-ups as wide as the time range asks for", FLEET, COUNT, least="1m", zero=True, decimals=0)),
            (10, rows("By region and SKU", "The newest roll-up", BY_SKU, unit=COUNT, fields={
                "share in use": {"unit": SHARE}})),
        ]),
        (9, [
            (14, lines("Power against the ramp", "Megawatts of each power clause; dashed: what is contracted at that date",
                       DRAWN, MEGAWATTS, decimals=3)),
            (10, lines("PUE", "Facility ÷ IT power of each site, from quarter-hours as metered", PUE, NUMBER, decimals=3,
                       least="15m")),
        ]),
        (8, [(24, rows("The ramp", "Every dated step of every term, past and to come", RAMP))]),
    )  # fmt: skip
    return frame(
        "capacity", "Capacity & power", "Contracted, delivered, healthy and in use, in GPUs and in megawatts",
        panels, variables=[skus, resolution()],
    )  # fmt: skip
