"""SLA & queues: waits and depths against the bound in force, and how long each promise was broken."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard

from pipeline.serve.dashboards_frame import PREFIX, frame, resolution, variable
from pipeline.serve.dashboards_panels import (
    COUNT,
    SECONDS,
    SHARE,
    data_age,
    lay_out,
    lines,
    rows,
    stat,
)  # fmt: skip
from pipeline.serve.dashboards_sql import (
    BUCKET,
    BY_REGION,
    CLAUSE_LABEL,
    at_last,
    chosen,
    in_days,
    in_time,
    of_contract,
    of_region,
    spread,
    to_clause,
    where,
)  # fmt: skip

QUEUE = chosen("queue", "queue")
HERE = f"{of_contract()} AND {of_region()} AND {QUEUE}"
BY_QUEUE = "by_values ->> '$.queue'"
READ = f"{of_contract()} AND {of_region(BY_REGION)} AND {chosen(BY_QUEUE, 'queue')}"
QUEUES = f"SELECT DISTINCT queue FROM queue_1d WHERE {in_days()} ORDER BY 1"

WORST = f"""
    SELECT clause, observed / nullif(bound, 0) AS "of its bound" FROM queue_wait
    WHERE {at_last("15 MINUTE")} AND {HERE}
    QUALIFY row_number() OVER (PARTITION BY {CLAUSE_LABEL}, contract ORDER BY "time" DESC) = 1
    ORDER BY 2 DESC NULLS LAST LIMIT 4
"""
BROKEN_NOW = f"""
    SELECT count(*) FILTER (state = 'breach') AS broken, count(*) FILTER (state = 'unknown') AS unknown
    FROM standing WHERE {READ}
"""
IN_BREACH = f"""
    SELECT 60 * count(*) AS "in breach" FROM readings
    WHERE {in_time()} AND state = 'breach' AND second("time") = 0 AND {READ}
"""


def against(condition: str) -> str:
    """Readings of service levels beside the bound in force: the worst of each step of time."""
    return f"""
        SELECT moment AS "time", concat_ws(' ', label, what) AS metric, value
        FROM (
            SELECT moment, label, {spread("observed", "bound")}
            FROM (
                SELECT {BUCKET} AS moment, {CLAUSE_LABEL} AS label, max(observed) AS observed, min(bound) AS bound
                FROM queue_wait WHERE {in_time()} AND {condition} AND {HERE} GROUP BY ALL))
        WHERE value IS NOT NULL ORDER BY 1
    """


TIME_IN_BREACH = f"""
    SELECT clause, alertname AS "fires", {where()} AS "where", 60 * count(*) FILTER (state = 'breach') AS "in breach",
        count(*) FILTER (state = 'breach') / count(*) AS "share of time", 60 * count(*) FILTER (state = 'unknown')
            AS "unknown", max(observed) AS greatest, arg_max(bound, "time") AS bound, any_value(unit) AS unit, contract,
        {to_clause(f"any_value({BY_REGION})")}
    FROM readings WHERE {in_time()} AND second("time") = 0 AND {READ}
    GROUP BY contract, clause, alertname, by_values ORDER BY "in breach" DESC, "unknown" DESC, clause LIMIT 200
"""
ROLLED = f"{in_time('window_start')} AND {of_region()} AND {QUEUE}"
QUANTILES = f"""
    SELECT "time", concat_ws(' ', queue, what) AS metric, value
    FROM (
        SELECT window_start AS "time", queue, {spread("p50", "p95", "p99")}
        FROM (
            SELECT window_start, queue, max(admission_wait_seconds_p50) AS p50, max(admission_wait_seconds_p95) AS p95,
                max(admission_wait_seconds_p99) AS p99
            FROM queue_${{resolution}} WHERE {ROLLED} GROUP BY ALL))
    WHERE value IS NOT NULL ORDER BY 1
"""
DEPTH = f"""
    SELECT window_start AS "time", queue AS metric, sum(pending_jobs_last) AS value
    FROM queue_${{resolution}} WHERE {ROLLED} GROUP BY ALL ORDER BY 1
"""
OLDEST = f"""
    SELECT window_start AS "time", queue AS metric, max(oldest_wait_seconds_max) AS value
    FROM queue_${{resolution}} WHERE {ROLLED} GROUP BY ALL ORDER BY 1
"""
GPUS = f"""
    SELECT "time", concat_ws(' ', queue, what) AS metric, value
    FROM (
        SELECT window_start AS "time", queue, {spread("running", "pending")}
        FROM (
            SELECT window_start, queue, sum(running_gpus_last) AS running, sum(pending_gpus_last) AS pending
            FROM queue_${{resolution}} WHERE {ROLLED} GROUP BY ALL))
    WHERE value IS NOT NULL ORDER BY 1
"""
NEWEST = f"""
    SELECT state, clause, indicator, concat_ws(' / ', provider, region, cluster, queue, workload_class) AS "where",
        observed, bound, observed / nullif(bound, 0) AS "of bound", unit, "window", basis, "time" AS "read", contract,
        {to_clause("region", events="'queue'")}
    FROM queue_wait
    WHERE {at_last("15 MINUTE")} AND {HERE}
    QUALIFY row_number() OVER (PARTITION BY {CLAUSE_LABEL}, contract ORDER BY "time" DESC) = 1
    ORDER BY "of bound" DESC NULLS LAST, clause LIMIT 200
"""


def queues() -> dashboard.Dashboard:
    """Service levels of queues, and the time in breach of every promise."""
    clause = f"{PREFIX}clause"
    queue = variable("queue", "Queue", QUEUES, "Queues that reported in the time range").refresh(
        dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED
    )
    panels = lay_out(
        (4, [
            (5, stat("Promises now", "Promises of these queues and regions that are broken or unknown now", BROKEN_NOW,
                     COUNT, bad_above=1)),
            (12, stat("Nearest to their bound", "What is read as a share of the bound in force: the four greatest", WORST,
                      SHARE, rows=True, decimals=0)),
            (4, stat("In breach", "Time in breach of all of them, counted by the minute and summed", IN_BREACH, SECONDS,
                     bad_above=1)),
            (3, data_age()),
        ]),
        (9, [
            (14, lines("Waits against the bound in force", "The worst wait quantile of each step of time; dashed: the "
                       "bound, tighter inside windows", against("unit = 's'"), SECONDS, zero=True)),
            (10, lines("Depths against the bound in force", "Service levels that are not about time, such as jobs that "
                       "are pending; dashed: the bound", against("unit <> 's'"), COUNT, zero=True)),
        ]),
        (8, [(24, rows("Service levels, nearest to the bound first", "The newest reading of each", NEWEST, fields={
            "of bound": {"unit": SHARE}, "observed": {"decimals": 1}}, links={"clause": clause}))]),
        (8, [(24, rows("Time in breach", "Of every promise over the time range, counted by the minute: unknown is "
                       "neither kept nor broken", TIME_IN_BREACH, fields={
                           "in breach": {"unit": SECONDS}, "unknown": {"unit": SECONDS},
                           "share of time": {"unit": SHARE}}, links={"clause": clause}))]),
        (8, [
            (12, lines("Admission waits", "Quantiles over the jobs admitted, of each queue; the longest over its clusters",
                       QUANTILES, SECONDS, zero=True)),
            (12, lines("Longest wait of a job that is not admitted", "The oldest pending job of each queue", OLDEST,
                       SECONDS, zero=True)),
        ]),
        (8, [
            (12, lines("Jobs pending", "The last report of each queue, summed over clusters", DEPTH, COUNT, zero=True)),
            (12, lines("GPUs running and asked for", "By the jobs of each queue", GPUS, COUNT, zero=True)),
        ]),
    )  # fmt: skip
    return frame(
        "queues", "SLA & queues", "Waits and depths against the bound in force, and the time in breach", panels,
        variables=[queue, resolution()],
    )  # fmt: skip
