"""Capacity & power: what was contracted, delivered, healthy and in use; the ramp, the headroom, the PUE."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard

from pipeline.dashboards.frame import PREFIX, RESOLUTION_MS, frame, resolution, that_read, variable
from pipeline.dashboards.panel_series import complete, with_gaps
from pipeline.dashboards.panel_sql import (
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
)
from pipeline.dashboards.panels import (
    GPUS,
    MEGAWATTS,
    NONE_IS_GOOD,
    RATIO,
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
)  # fmt: skip
from pipeline.dashboards.sql_words import NOT_KNOWN, amount, known, known_state

HERE = f"{of_contract()} AND {of_region()}"
IN_TIME = f"{in_time()} AND {HERE}"
LATEST = f"""SELECT * FROM capacity
          WHERE {at_last("15 MINUTE")} AND {HERE}
          QUALIFY row_number() OVER (PARTITION BY {CLAUSE_LABEL}, contract ORDER BY "time" DESC) = 1"""

UNREAD = "(state = 'unknown' OR (delivered = 0 AND silent + lost > 0))"
"""Nobody knows what is delivered: also where all of it is silent and counts as lost."""
IN_GPUS = "format('{{:,.0f}} GPUs', {})"
IN_MW = "format('{{:,.3f}} MW', {})"
NOW_GPUS = f"""
    SELECT {known(IN_GPUS.format(f"sum(delivered) FILTER (NOT {UNREAD})"))} AS delivered,
        {IN_GPUS.format("sum(committed)")} AS committed,
        {known(IN_GPUS.format(f"coalesce(sum(greatest(-headroom, 0)) FILTER (NOT {UNREAD}), 0)"))} AS missing,
        {known(IN_GPUS.format("coalesce(sum(silent + lost), 0)"))} AS silent
    FROM ({LATEST})
"""
NOW_POWER = f"""
    SELECT {known(IN_MW.format("sum(drawn_megawatts) FILTER (state <> 'unknown')"))} AS drawn,
        {IN_MW.format("sum(contracted_megawatts)")} AS contracted,
        {known(IN_MW.format("min(headroom_megawatts) FILTER (state <> 'unknown')"))} AS "least headroom",
        {
    known(
        f"(SELECT format('{{:.3f}}', sum(facility_megawatts) / nullif(sum(it_megawatts), 0)) FROM energy_mix "
        f"WHERE {at_last('30 MINUTE')} AND {of_region()})"
    )
} AS "PUE"
    FROM (SELECT * FROM power
          WHERE {at_last("15 MINUTE")} AND {HERE}
          QUALIFY row_number() OVER (PARTITION BY {CLAUSE_LABEL}, contract ORDER BY "time" DESC) = 1)
"""
DELIVERED = with_gaps(f"""
        SELECT moment AS "time", concat_ws(' ', label, what) AS metric, value
        FROM (
            SELECT moment, label, {spread("delivered", "committed", "ceiling")}
            FROM (
                SELECT {BUCKET} AS moment, {CLAUSE_LABEL} AS label, min(delivered) FILTER (NOT {UNREAD}) AS delivered,
                    max(committed) AS committed, max(ceiling) AS ceiling
                FROM capacity WHERE {IN_TIME} GROUP BY ALL))
    """)
HEADROOM = with_gaps(f"""
        SELECT {BUCKET} AS "time", {CLAUSE_LABEL} AS metric, min(headroom) FILTER (NOT {UNREAD}) AS value
        FROM capacity WHERE {IN_TIME} GROUP BY ALL
    """)
REPORTS = f"""{in_time("window_start")} AND {of_region()}
        AND {chosen("sku", "sku")}"""
OVER = complete("telemetry.gpu", RESOLUTION_MS)
FLEET = with_gaps(
    f"""
        SELECT "time", concat_ws(' ', region, sku, what) AS metric, value
        FROM (
            SELECT "time", region, sku, {spread("reported", "healthy", "in use")}
            FROM (
                SELECT window_start AS "time", region, sku, sum(gpus) AS reported, sum(gpus - gpus_unhealthy) AS healthy,
                    sum(gpus_in_use) AS "in use"
                FROM gpu_${{resolution}} WHERE {REPORTS} AND {OVER} GROUP BY ALL))
    """,
    f"to_milliseconds({RESOLUTION_MS})",
)
BY_SKU = f"""
    SELECT region, sku, arg_max(reported, moment) AS reported, arg_max(healthy, moment) AS healthy,
        arg_max("in use", moment) AS "in use",
        arg_max("in use", moment) / nullif(arg_max(reported, moment), 0) AS "share"
    FROM (
        SELECT window_start AS moment, region, sku, sum(gpus) AS reported, sum(gpus - gpus_unhealthy) AS healthy,
            sum(gpus_in_use) AS "in use"
        FROM gpu_${{resolution}}
        WHERE window_start >= $__timeTo() - to_milliseconds(3 * {RESOLUTION_MS}) AND {REPORTS}
            AND {OVER}
        GROUP BY ALL)
    GROUP BY ALL ORDER BY reported DESC, region, sku LIMIT 200
"""
AGAINST = f"""
    SELECT {
    known_state()
} AS state, clause, concat_ws(' / ', provider, region, site, cluster, sku) AS "where", committed,
        {
    ", ".join(
        f"CASE WHEN unread THEN unread_as ELSE format('{{:,.0f}}', {of}) END AS {name}"
        for of, name in (
            ("delivered", "delivered"),
            ("healthy", "healthy"),
            ("in_use", '"in use"'),
            ("headroom", "headroom"),
        )
    )
},
        silent, CASE WHEN NOT unread THEN delivered / nullif(committed, 0) END AS "of committed", ceiling, "window",
        {to_clause("region")}
    FROM (SELECT * REPLACE (silent + lost AS silent), {
    UNREAD
} AS unread, CASE WHEN silent + lost > 0 THEN 'silent' ELSE '{NOT_KNOWN}' END AS unread_as
          FROM ({LATEST})) AS newest
    ORDER BY unread DESC, newest.headroom, clause LIMIT 200
"""
DRAWN = with_gaps(f"""
        SELECT moment AS "time", concat_ws(' ', label, what) AS metric, value
        FROM (
            SELECT moment, label, {spread("drawn", "contracted")}
            FROM (
                SELECT {BUCKET} AS moment, {CLAUSE_LABEL} AS label,
                    max(drawn_megawatts) FILTER (state <> 'unknown') AS drawn, max(contracted_megawatts) AS contracted
                FROM power WHERE {IN_TIME} GROUP BY ALL))
    """)
PUE = with_gaps(f"""
        SELECT {BUCKET} AS "time", concat_ws(' / ', region, site) AS metric,
            sum(facility_megawatts) / nullif(sum(it_megawatts), 0) AS value
        FROM energy_mix WHERE {in_time()} AND {of_region()} GROUP BY ALL
    """)
UNIT_OF_TERM = "CASE WHEN term LIKE '%megawatts' THEN 'MW' WHEN term LIKE '%gpus' THEN 'GPUs' ELSE '' END"
RAMP = f"""
    SELECT clause, replace(term, '_', ' ') AS term, strftime(begins, '%Y-%m-%d') AS "from",
        {amount("(step ->> '$.value')::DOUBLE", UNIT_OF_TERM)} AS value,
        CASE WHEN begins > {NOW} THEN 'to come' WHEN lead(begins) OVER later <= {NOW} THEN 'past' ELSE 'in force' END
            AS "stands"
    FROM (
        SELECT *, (step ->> '$.from')::TIMESTAMP AS begins FROM (
            SELECT contract, clause, each.key AS term,
                unnest(CASE WHEN each.type = 'ARRAY' THEN each.value::JSON[] END) AS step
            FROM (SELECT contract, clause, terms FROM clauses WHERE {of_contract()}), json_each(terms) AS each))
    WHERE begins IS NOT NULL
    WINDOW later AS (PARTITION BY contract, clause, term ORDER BY begins)
    ORDER BY clause, term, begins LIMIT 200
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
            (12, stat("GPUs now", "Delivered and committed over all clauses, what is missing where it is short, and GPUs "
                      "whose source is silent, of which nobody knows", NOW_GPUS,
                      fields={"missing": {"mappings": NONE_IS_GOOD}, "silent": {"mappings": NONE_IS_GOOD}}, size=24)),
            (12, stat("Power now", "Drawn and contracted over all power clauses, the least headroom of any, and facility ÷ "
                      "IT power of the last half hour", NOW_POWER, size=22,
                      fields={"least headroom": {"mappings": [*UNKNOWN, like("^-.*", RED)]}})),
        ]),
        (11, [(24, lines("Delivered against committed", "GPUs of each capacity clause; dashed: the floor in force then, "
                         "dotted: the ceiling. A gap: silent, nobody knows", DELIVERED, GPUS, decimals=0, legend=470))]),
        (7, [(24, rows("Capacity clauses, least headroom first", "The newest reading of each, in GPUs", AGAINST,
                       widths={"state": 80, "clause": 150, "committed": 95, "delivered": 90, "healthy": 85, "in use": 80,
                               "headroom": 95, "silent": 80, "of committed": 110, "ceiling": 80, "window": 115},
                       wrapped=["where", "window"], links={"clause": clause}, fields={
                           "of committed": {"unit": SHARE, "decimals": 0}, "delivered": RIGHT, "healthy": RIGHT,
                           "in use": RIGHT, "headroom": RIGHT, **counts("committed", "silent", "ceiling")}))]),
        (10, [(24, lines("Headroom", "Delivered less committed: below zero is a shortfall. A gap: silent, nobody knows",
                         HEADROOM, GPUS, decimals=0, zero=True, legend=360))]),
        (14, [(24, lines("GPUs that reported, were healthy and in use", "Distinct GPUs of each region and SKU, from "
                         "roll-ups as wide as the time range asks for", FLEET, GPUS, zero=True, decimals=0,
                         legend=420))]),
        (8, [
            (12, rows("By region and SKU", "The newest roll-up that is complete: GPUs", BY_SKU,
                      widths={"region": 100, "reported": 80, "healthy": 75, "in use": 70, "share": 75},
                      wrapped=["sku"], fields={
                          "share": {"unit": SHARE, "decimals": 0}, **counts("reported", "healthy", "in use")})),
            (12, rows("The ramp", "Every dated step of every term, past and to come", RAMP,
                      widths={"from": 95, "value": 105, "stands": 80}, wrapped=["clause", "term"],
                      fields={"value": RIGHT})),
        ]),
        (10, [(24, lines("Power against the ramp", "Megawatts of each power clause; dotted: what is contracted at that date",
                         DRAWN, MEGAWATTS, decimals=3, legend=470))]),
        (9, [(24, lines("PUE", "Facility ÷ IT power of each site, from quarter-hours as metered", PUE, RATIO, decimals=3,
                        least="15m"))]),
    )  # fmt: skip
    return frame(
        "capacity", "Capacity & power", "Contracted, delivered, healthy and in use, in GPUs and in megawatts",
        panels, variables=[skus, resolution()], concerning=that_read("gpu"),
    )  # fmt: skip
