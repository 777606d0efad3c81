"""SLA & queues: waits and depths against the bound in force, and how long each promise was broken."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard

from pipeline.dashboards.frame import PREFIX, RESOLUTION_MS, frame, resolution, that_read, variable
from pipeline.dashboards.panel_series import complete, with_gaps
from pipeline.dashboards.panel_sql import (
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
)
from pipeline.dashboards.panels import (
    COUNT,
    GPUS,
    JOBS,
    NONE_IS_GOOD,
    ORANGE,
    RED,
    RIGHT,
    SECONDS,
    SHARE,
    UNKNOWN,
    lay_out,
    like,
    lines,
    rows,
    stat,
)  # fmt: skip
from pipeline.dashboards.sql_words import NOT_KNOWN, amount, known, known_state, span

QUEUE = chosen("queue", "queue")
HERE = f"{of_contract()} AND {of_region()} AND {QUEUE}"
BY_QUEUE = "by_values ->> '$.queue'"
READ = f"{of_contract()} AND {of_region(BY_REGION)} AND {chosen(BY_QUEUE, 'queue')}"
QUEUES = f"SELECT DISTINCT queue FROM queue_1d WHERE {in_days()} ORDER BY 1"

WORST = f"""
    SELECT {known("format('{:.0f} % of the bound, {}', 100 * share, clause)")} AS nearest FROM (
        SELECT max(share) AS share, arg_max(clause, share) AS clause FROM (
            SELECT clause, observed / nullif(bound, 0) AS share FROM queue_wait
            WHERE {at_last("15 MINUTE")} AND {HERE} AND state <> 'unknown'
            QUALIFY row_number() OVER (PARTITION BY {CLAUSE_LABEL}, contract ORDER BY "time" DESC) = 1))
"""
BROKEN_NOW = f"""
    SELECT {known("count(*) FILTER (state = 'breach')")} AS broken,
        {known("count(*) FILTER (state = 'unknown')")} AS unknown
    FROM standing WHERE {READ}
"""
IN_BREACH = f"""
    SELECT coalesce({span("60.0 * max(minutes)")} || ', ' || arg_max(clause, minutes), 'none') AS longest FROM (
        SELECT clause, count(*) AS minutes FROM readings
        WHERE {in_time()} AND state = 'breach' AND second("time") = 0 AND {READ} GROUP BY contract, clause, by_values, alertname)
"""


def against(condition: str) -> str:
    """Readings of service levels beside the bound in force: the worst of each step of time."""
    return with_gaps(f"""
        SELECT moment AS "time", concat_ws(' ', label, what) AS metric, value
        FROM (
            SELECT moment, label, {spread("observed", "bound")}
            FROM (
                SELECT {BUCKET} AS moment, {CLAUSE_LABEL} AS label, max(observed) FILTER (state <> 'unknown') AS observed,
                    min(bound) AS bound
                FROM queue_wait WHERE {in_time()} AND {condition} AND {HERE} GROUP BY ALL))
    """)


LAST_BOUND = 'arg_max(bound, "time")'
TIME_IN_BREACH = f"""
    SELECT clause, alertname AS "fires", {where()} AS "where",
        {span("60.0 * count(*) FILTER (state = 'breach')")} AS "in breach",
        count(*) FILTER (state = 'breach') / count(*) AS "share of time",
        {span("60.0 * count(*) FILTER (state = 'unknown')")} AS "unknown",
        {amount("(max(observed) FILTER (state <> 'unknown'))", "any_value(unit)")} AS greatest,
        {amount(LAST_BOUND, "any_value(unit)")} AS bound,
        {to_clause(f"any_value({BY_REGION})")}
    FROM readings WHERE {in_time()} AND second("time") = 0 AND {READ}
    GROUP BY contract, clause, alertname, by_values
    ORDER BY count(*) FILTER (state = 'breach') DESC, count(*) FILTER (state = 'unknown') DESC, clause LIMIT 200
"""
ROLLED = f"{in_time('window_start')} AND {of_region()} AND {QUEUE} AND {complete('telemetry.queue', RESOLUTION_MS)}"
WIDTH = f"to_milliseconds({RESOLUTION_MS})"
QUANTILES = with_gaps(
    f"""
        SELECT "time", concat_ws(' ', queue, what) AS metric, value
        FROM (
            SELECT window_start AS "time", queue, {spread("p95", "p99")}
            FROM (
                SELECT window_start, queue, max(admission_wait_seconds_p95) AS p95, max(admission_wait_seconds_p99) AS p99
                FROM queue_${{resolution}} WHERE {ROLLED} GROUP BY ALL))
    """,
    WIDTH,
)
DEPTH = with_gaps(
    f"""
        SELECT window_start AS "time", queue AS metric, sum(pending_jobs_last) AS value
        FROM queue_${{resolution}} WHERE {ROLLED} GROUP BY ALL
    """,
    WIDTH,
)
OLDEST = with_gaps(
    f"""
        SELECT window_start AS "time", queue AS metric, max(oldest_wait_seconds_max) AS value
        FROM queue_${{resolution}} WHERE {ROLLED} GROUP BY ALL
    """,
    WIDTH,
)
RUNNING = with_gaps(
    f"""
        SELECT "time", concat_ws(' ', queue, what) AS metric, value
        FROM (
            SELECT window_start AS "time", queue, {spread("running", "pending")}
            FROM (
                SELECT window_start, queue, sum(running_gpus_last) AS running, sum(pending_gpus_last) AS pending
                FROM queue_${{resolution}} WHERE {ROLLED} GROUP BY ALL))
    """,
    WIDTH,
)
NEWEST = f"""
    SELECT {known_state()} AS state, clause, replace(indicator, '_', ' ') AS indicator,
        concat_ws(' / ', provider, region, cluster, queue, workload_class) AS "where",
        CASE WHEN newest.state = 'unknown' THEN '{NOT_KNOWN}' ELSE {amount("observed", "unit")} END AS observed,
        {amount("bound", "unit")} AS bound,
        CASE WHEN newest.state <> 'unknown' THEN newest.observed / nullif(newest.bound, 0) END AS "of bound", "window",
        "time" AS "read", {to_clause("region", events="'queue'")}
    FROM (SELECT * FROM queue_wait WHERE {at_last("15 MINUTE")} AND {HERE}
          QUALIFY row_number() OVER (PARTITION BY {CLAUSE_LABEL}, contract ORDER BY "time" DESC) = 1) AS newest
    ORDER BY "of bound" DESC NULLS LAST, clause LIMIT 200
"""


def queues() -> dashboard.Dashboard:
    """Service levels of queues, and the time in breach of every promise."""
    clause = f"{PREFIX}clause"
    queue = variable("queue", "Queue", QUEUES, "Queues that reported in the time range").refresh(
        dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED
    )
    over = [*UNKNOWN, like("^[1-9][0-9]{2,} .*", RED)]
    amber = [{"value": None, "color": "text"}, {"value": 1, "color": ORANGE}]
    panels = lay_out(
        (4, [
            (7, stat("Promises now", "Promises of these queues and regions that are broken or unknown now", BROKEN_NOW,
                     COUNT, bad_above=1, size=28,
                     fields={"unknown": {"thresholds": {"mode": "absolute", "steps": amber}}})),
            (9, stat("Nearest to its bound", "The service level whose reading is the greatest share of the bound in force",
                     WORST, mappings=over, size=20)),
            (8, stat("Longest in breach", "Of all promises the one that was broken for the most minutes of this time range",
                     IN_BREACH, mappings=NONE_IS_GOOD, size=20)),
        ]),
        (10, [(24, lines("Waits against the bound in force", "The worst wait quantile of each step of time; dotted: the "
                         "bound, tighter inside windows. A gap: nobody knows", against("unit = 's'"), SECONDS, zero=True,
                         legend=470))]),
        (9, [(24, lines("Depths against the bound in force", "Service levels that are not about time, such as jobs that "
                        "are pending; dotted: the bound", against("unit <> 's'"), JOBS, zero=True, decimals=0,
                        legend=470))]),
        (8, [(24, rows("Service levels, nearest to the bound first", "The newest reading of each", NEWEST,
                       times=["read"],
                      widths={"state": 80, "clause": 160, "indicator": 145, "observed": 120, "bound": 100, "of bound": 85,
                               "window": 125}, wrapped=["where", "window"],
                       fields={"of bound": {"unit": SHARE, "decimals": 0}, "observed": RIGHT, "bound": RIGHT},
                       links={"clause": clause}))]),
        (8, [(24, rows("Time in breach", "Of every promise over the time range, counted by the minute: unknown is "
                       "neither kept nor broken", TIME_IN_BREACH,
                       widths={"clause": 160, "fires": 195, "in breach": 95, "share of time": 120, "unknown": 90,
                               "greatest": 135, "bound": 120}, wrapped=["where"],
                       fields={"share of time": {"unit": SHARE, "decimals": 0}, "in breach": RIGHT, "unknown": RIGHT,
                               "greatest": RIGHT, "bound": RIGHT}, links={"clause": clause}))]),
        (12, [(24, lines("Admission waits", "95th and 99th percentile over the jobs admitted, of each queue; the longest "
                         "over its clusters", QUANTILES, SECONDS, zero=True, legend=360))]),
        (10, [(24, lines("Longest wait of a job that is not admitted", "The oldest pending job of each queue", OLDEST,
                         SECONDS, zero=True, legend=300))]),
        (10, [(24, lines("Jobs pending", "The last report of each queue, summed over clusters", DEPTH, JOBS, zero=True,
                         decimals=0, legend=300))]),
        (12, [(24, lines("GPUs running and asked for", "By the jobs of each queue", RUNNING, GPUS, zero=True, decimals=0,
                         legend=360))]),
    )  # fmt: skip
    return frame(
        "queues", "SLA & queues", "Waits and depths against the bound in force, and the time in breach", panels,
        variables=[queue, resolution()], concerning=that_read("queue"),
    )  # fmt: skip
