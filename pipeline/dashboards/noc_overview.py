"""NOC overview: is anything wrong, where, since when, how bad; and what comes next, and whether we are ready for it.

It reads the views that have clauses of any kind, so a new kind of clause appears here by itself.
"""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard

from pipeline.dashboards.frame import PREFIX, frame
from pipeline.dashboards.panel_series import lanes
from pipeline.dashboards.panel_sql import (
    BY_REGION,
    CHANGES,
    LABELS_REGION,
    NOW,
    WORST_FIRST,
    carried,
    in_time,
    of_contract,
    of_region,
    to_clause,
    view_of,
    where,
)
from pipeline.dashboards.panels import (
    BLUE,
    COUNT,
    GREEN,
    NONE_IS_GOOD,
    ORANGE,
    PLAIN,
    RED,
    RIGHT,
    SHARE,
    UNKNOWN,
    Properties,
    coloured,
    lay_out,
    like,
    none_is_good,
    rows,
    stat,
    tallies,
    timeline,
)  # fmt: skip
from pipeline.dashboards.sql_words import (
    KNOWN,
    NOT_KNOWN,
    UNREAD,
    amount,
    known,
    known_state,
    observed,
    span,
)

CLAUSE = f"{PREFIX}clause"
HERE = f"{of_contract()} AND {of_region(LABELS_REGION)}"
OPEN = f"severity <> 'info' AND {HERE}"
"""Alerts of the chosen contracts and regions; the Watchdog, which always fires, is of severity info."""
STANDING = f"{of_contract()} AND {of_region(BY_REGION)}"

FIRING = f"""
    SELECT {known("count(*) FILTER (severity = 'critical')")} AS critical,
        {known("count(*) FILTER (severity = 'warning')")} AS warning,
        {known("count(*) FILTER (severity NOT IN ('critical', 'warning'))")} AS ticket
    FROM alerts_open WHERE state = 'firing' AND {OPEN}
"""
SINCE = f"""
    SELECT {known(f"coalesce(strftime(since, '%H:%M') || ' UTC, ' || {span('lasted')}, 'nothing is wrong')")} AS since
    FROM (SELECT min(active_at) AS since, epoch({NOW}) - epoch(min(active_at)) AS lasted
          FROM alerts_open WHERE state = 'firing' AND {OPEN})
"""
AT_RISK = f"""
    SELECT {known("coalesce(string_agg(format('{:,.0f} {}', risk, currency), ' + ' ORDER BY risk DESC), 'none')")} AS "an hour"
    FROM (
        SELECT coalesce(currency, '') AS currency, sum(risk_per_hour)::DOUBLE AS risk
        FROM alerts_open LEFT JOIN (SELECT DISTINCT contract, currency FROM clauses) USING (contract)
        WHERE state = 'firing' AND risk_per_hour > 0 AND {OPEN} GROUP BY 1)
"""
BEYOND = f"""
    SELECT {known("format('{:,.0f} GPUs', coalesce(sum(beyond) FILTER (unit = 'GPUs'), 0))")} AS "capacity",
        {known("format('{:,.3f} MW', coalesce(sum(beyond) FILTER (unit = 'MW'), 0))")} AS "power"
    FROM (SELECT contract, clause, about, unit, max(abs(observed - bound))::DOUBLE AS beyond
          FROM alerts_open WHERE state = 'firing' AND {OPEN} GROUP BY ALL)
"""
WRONG = f"""
    SELECT severity, {known_state()} AS state, active_at AS since, alertname AS what, about AS "where", clause,
        {amount("observed", "unit")} AS observed, {amount("bound", "unit")} AS bound, at_risk AS "at risk",
        {to_clause(LABELS_REGION, "active_at", events=view_of('"sql"'))}
    FROM alerts_open WHERE {OPEN}
    ORDER BY urgency, alerts_open.state, active_at LIMIT 100
"""
REGIONS = f"""
    SELECT coalesce({BY_REGION}, 'all') AS region, {known("count(*) FILTER (state = 'breach')")} AS broken,
        {known("count(*) FILTER (state = 'unknown')")} AS unknown, {known("count(*) FILTER (state = 'ok')")} AS kept,
        min(since) FILTER (state = 'breach') AS "broken since",
        concat('var-region=', coalesce(url_encode(any_value({BY_REGION})), '$__all'), {carried("contract")}) AS link
    FROM standing WHERE {STANDING}
    GROUP BY 1 ORDER BY broken DESC, unknown DESC, 5, region
"""
COMING = f"""
    WITH coming AS (
        SELECT contract, "window", starts, ends, starts <= {NOW} AS now FROM windows
        WHERE ends > {NOW} AND {of_contract()} ORDER BY starts, "window" LIMIT 20),
    asked AS (
        SELECT contract, "window", starts, count(*) AS promises, count(*) FILTER (state = 'breach') AS missing,
            count(*) FILTER (state = 'unknown') AS unknown
        FROM standing JOIN coming USING (contract, "window")
        WHERE facts ->> '$.window_starts' IS NOT NULL OR now GROUP BY ALL)
    SELECT "window", CASE WHEN now THEN 'open' ELSE concat('in ', {span(f"(epoch(starts) - epoch({NOW}))")}) END AS opens,
        strftime(starts, '%Y-%m-%d %H:%M') AS starts, strftime(ends, '%Y-%m-%d %H:%M') AS ends,
        CASE WHEN promises IS NULL THEN 'not due for a check' WHEN NOT {KNOWN} THEN '{NOT_KNOWN}'
            WHEN missing > 0 THEN concat('not ready: ', missing, ' of ', promises)
            WHEN unknown > 0 THEN 'unknown' WHEN now THEN 'kept' ELSE 'ready' END AS ready
    FROM coming LEFT JOIN asked USING (contract, "window", starts) ORDER BY coming.starts, "window"
"""
LANES = lanes(f"readings WHERE {in_time()} AND {STANDING}")
PROMISES = f"""
    SELECT {known_state()} AS state, since, clause, alertname AS "fires", {where()} AS "where",
        {observed()}, {amount("bound", "unit")} AS bound,
        CASE WHEN NOT {UNREAD} THEN standing.observed / nullif(standing.bound, 0) END AS "of bound", "window",
        {to_clause(BY_REGION)}
    FROM standing WHERE {STANDING}
    ORDER BY {WORST_FIRST.replace("state", "standing.state")}, since, clause LIMIT 500
"""
LASTED = span(f"date_diff('second', active_at, coalesce(max(resolved_at), least({NOW}, $__timeTo())))")
PAST = f"""
    SELECT arg_max(severity, "time") AS severity, alertname AS what, clause, active_at AS since,
        max(resolved_at) AS resolved, {LASTED} AS lasted, arg_max(annotations ->> '$.summary', "time") AS summary,
        {to_clause(f"any_value({LABELS_REGION})", "active_at", "max(resolved_at)")}
    FROM {CHANGES}
    WHERE severity <> 'info' AND active_at <= $__timeTo() AND {HERE}
    GROUP BY alertname, contract, clause, json_merge_patch(labels, '{{"severity": null}}'), active_at
    HAVING count(fired_at) > 0 AND coalesce(max(resolved_at), {NOW}) >= $__timeFrom()
    ORDER BY active_at DESC LIMIT 200
"""
READY = [
    *coloured({"ready": GREEN, "kept": GREEN, "unknown": ORANGE}),
    like("^not ready.*", RED),
    like("^not due.*", PLAIN),
]
READINESS: Properties = {"mappings": READY, "custom.cellOptions": {"type": "color-text"}}


def noc() -> dashboard.Dashboard:
    """The first page of the NOC: what is above the fold answers without scrolling."""
    severities = {
        name: {"thresholds": {"mode": "absolute", "steps": [{"value": None, "color": GREEN}, {"value": 1, "color": to}]}}
        for name, to in (("critical", RED), ("warning", ORANGE), ("ticket", BLUE))
    }  # fmt: skip
    panels = lay_out(
        (4, [
            (8, stat("Alerts firing", "Alerts that fire now, by severity. All zero: nothing is wrong that we know of.",
                     FIRING, COUNT, fields=severities, size=20)),
            (5, stat("Wrong since", "Since when the oldest firing alert is out of bounds", SINCE,
                     mappings=[*UNKNOWN, like("^nothing.*", GREEN)], size=20)),
            (5, stat("At risk an hour", "Money that an hour of the firing breaches is said to cost by the contract",
                     AT_RISK, mappings=NONE_IS_GOOD, size=24)),
            (6, stat("Beyond bounds", "GPUs and megawatts by which firing alerts are beyond what was promised", BEYOND,
                     mappings=[*UNKNOWN, like("^0[.0]* .*", GREEN), like(".+", RED)], size=22)),
        ]),
        (8, [
            (24, rows("What is wrong, worst first", "Every open alert; its clause leads to readings and raw events", WRONG,
                      times=["since"], widths={"severity": 75, "state": 80, "what": 185, "clause": 165,
                              "observed": 120, "bound": 120, "at risk": 155},
                      wrapped=["where", "at risk"], fields={"observed": RIGHT, "bound": RIGHT},
                      links={"clause": CLAUSE, "what": CLAUSE}, keep_time=False)),
        ]),
        (6, [
            (11, rows("Where", "Promises of each region as they stand now: broken, unknown, kept", REGIONS,
                      times=["broken since"], widths={"region": 115, "broken": 80, "unknown": 80, "kept": 80},
                      fields={**none_is_good("broken"), **tallies("unknown", "kept")}, links={"region": f"{PREFIX}noc"})),
            (13, rows("Business-critical windows", "Those that are open or come next, and whether what is promised inside "
                      "each stands: checked from each clause's lead on", COMING,
                      widths={"window": 130, "opens": 95, "starts": 135, "ends": 135},
                      wrapped=["ready", "window"], fields={"ready": READINESS})),
        ]),
        (12, [(24, timeline("Since when", "The state of promises over time: those broken now first, the longest broken of "
                            "them foremost; twelve at most", LANES))]),
        (10, [(24, rows("Every promise, worst first", "How each clause stands now, of any kind", PROMISES,
                        times=["since"], widths={"state": 80, "clause": 165, "fires": 195, "observed": 135,
                                "bound": 120, "of bound": 90, "window": 125}, wrapped=["where", "window"],
                        fields={"of bound": {"unit": SHARE, "decimals": 0}, "observed": RIGHT, "bound": RIGHT},
                        links={"clause": CLAUSE}))]),
        (9, [(24, rows("Alerts of this time range", "What fired, for how long, the newest first", PAST,
                       times=["since", "resolved"],
                      widths={"severity": 75, "what": 195, "clause": 165, "lasted": 90},
                      wrapped=["summary"], fields={"lasted": RIGHT}, links={"clause": CLAUSE},
                       keep_time=False))]),
    )  # fmt: skip
    return frame(
        "noc", "NOC overview",
        "Is anything wrong, where, since when, how bad; what comes next, and are we ready for it?", panels,
    )  # fmt: skip
