"""NOC overview: is anything wrong, where, since when, how bad; and what comes next, and whether we are ready for it.

It reads the views that have clauses of any kind, so a new kind of clause appears here by itself.
"""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard

from pipeline.serve.dashboards_frame import PREFIX, frame
from pipeline.serve.dashboards_panels import (
    AGO,
    BLUE,
    COUNT,
    GREEN,
    MEGAWATTS,
    NUMBER,
    ORANGE,
    RED,
    coloured,
    data_age,
    lay_out,
    rows,
    stat,
    timeline,
)  # fmt: skip
from pipeline.serve.dashboards_sql import (
    BUCKET,
    BY_REGION,
    CHANGES,
    LABELS_REGION,
    NOW,
    in_time,
    of_contract,
    of_region,
    to_clause,
    view_of,
    where,
)  # fmt: skip

CLAUSE = f"{PREFIX}clause"
HERE = f"{of_contract()} AND {of_region(LABELS_REGION)}"
OPEN = f"severity <> 'info' AND {HERE}"
"""Alerts of the chosen contracts and regions; the Watchdog, which always fires, is of severity info."""
STANDING = f"{of_contract()} AND {of_region(BY_REGION)}"

FIRING = f"""
    SELECT count(*) FILTER (severity = 'critical') AS critical, count(*) FILTER (severity = 'warning') AS warning,
        count(*) FILTER (severity NOT IN ('critical', 'warning')) AS ticket
    FROM alerts_open WHERE state = 'firing' AND {OPEN}
"""
SINCE = f"SELECT epoch_ms(min(active_at)) AS since FROM alerts_open WHERE state = 'firing' AND {OPEN}"
AT_RISK = f"""
    SELECT coalesce(currency, '') AS currency, sum(risk_per_hour)::DOUBLE AS "an hour"
    FROM alerts_open LEFT JOIN (SELECT DISTINCT contract, currency FROM clauses) USING (contract)
    WHERE state = 'firing' AND risk_per_hour > 0 AND {OPEN}
    GROUP BY 1 ORDER BY 2 DESC
"""
BEYOND = f"""
    SELECT coalesce(sum(beyond) FILTER (unit = 'GPUs'), 0) AS "GPUs", coalesce(sum(beyond) FILTER (unit = 'MW'), 0) AS "MW"
    FROM (SELECT contract, clause, about, unit, max(abs(observed - bound)) AS beyond
          FROM alerts_open WHERE state = 'firing' AND {OPEN} GROUP BY ALL)
"""
NEXT_WINDOW = f"""
    WITH next AS (
        SELECT contract, "window", starts, ends FROM windows WHERE ends > {NOW} AND {of_contract()}
        ORDER BY starts, "window" LIMIT 1),
    asked AS (
        SELECT count(*) AS promises, count(*) FILTER (state = 'breach') AS missing,
            count(*) FILTER (state = 'unknown') AS unknown
        FROM standing JOIN next USING (contract, "window")
        WHERE facts ->> '$.window_starts' IS NOT NULL OR starts <= {NOW})
    SELECT "window", CASE WHEN starts <= {NOW} THEN 'open now, until' ELSE 'opens' END AS phase,
        epoch_ms(CASE WHEN starts <= {NOW} THEN ends ELSE starts END) AS "at",
        CASE WHEN missing > 0 THEN concat('not ready: ', missing, ' of ', promises, ' promises')
            WHEN promises = 0 THEN 'not due for a check' WHEN unknown > 0 THEN 'unknown'
            WHEN starts <= {NOW} THEN 'kept' ELSE 'ready' END AS ready
    FROM next, asked
"""
WRONG = f"""
    SELECT severity, state, active_at AS since, alertname AS what, about AS "where", clause, observed, bound, unit,
        at_risk AS "at risk", "window", text, stale, contract, runbook, contact,
        {to_clause(LABELS_REGION, "active_at", view_of('"sql"'))}
    FROM alerts_open WHERE {OPEN}
    ORDER BY urgency, state, active_at LIMIT 100
"""
REGIONS = f"""
    SELECT coalesce(by_values ->> '$.region', 'all') AS region, count(*) FILTER (state = 'breach') AS broken,
        count(*) FILTER (state = 'unknown') AS unknown, count(*) FILTER (state = 'ok') AS kept,
        min(since) FILTER (state = 'breach') AS since,
        concat('var-region=', coalesce(url_encode(any_value({BY_REGION})), '$__all'), '&from=${{__from}}&to=${{__to}}') AS link
    FROM standing WHERE {STANDING}
    GROUP BY 1 ORDER BY broken DESC, unknown DESC, since, region
"""
LANES = f"""
    WITH lanes AS (
        SELECT contract, clause, alertname, by_values, {BUCKET} AS moment,
            max(CASE state WHEN 'ok' THEN 0 WHEN 'unknown' THEN 1 ELSE 2 END) AS worst
        FROM readings WHERE {in_time()} AND {STANDING}
        GROUP BY ALL),
    shown AS (
        SELECT contract, clause, alertname, by_values FROM lanes
        GROUP BY ALL ORDER BY count(*) FILTER (worst = 2) DESC,
            count(*) FILTER (worst = 1) DESC, clause, alertname, by_values LIMIT 20)
    SELECT moment AS "time", concat_ws(' / ', clause, alertname, nullif({where()}, '')) AS metric, worst::DOUBLE AS value
    FROM lanes JOIN shown USING (contract, clause, alertname, by_values) ORDER BY 1
"""
PROMISES = f"""
    SELECT state, since, clause, alertname AS "fires", {where()} AS "where", observed, bound, unit,
        observed / nullif(bound, 0) AS "of bound", "window", "time" AS "read", samples, kind, text, contract,
        {to_clause(BY_REGION)}
    FROM standing LEFT JOIN (SELECT contract, clause, kind, text FROM clauses) USING (contract, clause)
    WHERE {STANDING}
    ORDER BY CASE state WHEN 'breach' THEN 0 WHEN 'unknown' THEN 1 ELSE 2 END, since, clause LIMIT 500
"""
PAST = f"""
    SELECT arg_max(severity, "time") AS severity, alertname AS what, clause, active_at AS since, max(resolved_at) AS resolved,
        date_diff('second', active_at, coalesce(max(resolved_at), least({NOW}, $__timeTo()))) AS lasted,
        arg_max(annotations ->> '$.summary', "time") AS summary, contract,
        {to_clause(f"any_value({LABELS_REGION})", "active_at")}
    FROM {CHANGES}
    WHERE severity <> 'info' AND active_at <= $__timeTo() AND {HERE}
    GROUP BY alertname, contract, clause, json_merge_patch(labels, '{{"severity": null}}'), active_at
    HAVING count(fired_at) > 0 AND coalesce(max(resolved_at), {NOW}) >= $__timeFrom()
    ORDER BY active_at DESC LIMIT 200
"""
COMING = f"""
    SELECT "window", starts, ends, date_diff('second', {NOW}, starts) AS "starts in", text, contract
    FROM windows WHERE ends > {NOW} AND {of_contract()} ORDER BY starts LIMIT 50
"""
READY = [
    dashboard.RegexMap(
        dashboard.DashboardRegexMapOptions("not ready.*", dashboard.ValueMappingResult(color=RED, index=0))
    ),
    *coloured({"ready": GREEN, "kept": GREEN, "unknown": ORANGE}),
]


def noc() -> dashboard.Dashboard:
    """The first page of the NOC: what is above the fold answers without scrolling."""
    severities = {
        name: {"thresholds": {"mode": "absolute", "steps": [{"value": None, "color": GREEN}, {"value": 1, "color": to}]}}
        for name, to in (("critical", RED), ("warning", ORANGE), ("ticket", BLUE))
    }  # fmt: skip
    numbers = {"observed": {"unit": COUNT, "decimals": 2}, "bound": {"unit": COUNT, "decimals": 2}}
    panels = lay_out(
        (4, [
            (5, stat("Alerts firing", "Alerts that fire now, by severity. All zero: nothing is wrong that we know of.",
                     FIRING, COUNT, fields=severities)),
            (3, stat("Wrong since", "Since when the oldest firing alert is out of bounds", SINCE, AGO,
                     nothing="nothing is wrong")),
            (3, stat("At risk an hour", "Money that an hour of the firing breaches is said to cost by the contract",
                     AT_RISK, COUNT, rows=True, nothing="0", decimals=0)),
            (3, stat("Beyond bounds", "GPUs and megawatts by which firing alerts are beyond what was promised", BEYOND,
                     COUNT, fields={"MW": {"unit": MEGAWATTS, "decimals": 2}})),
            (8, stat("Next business-critical window", "The window that is open or comes next, and whether what is "
                     "promised inside it stands: checked from each clause's lead on", NEXT_WINDOW, NUMBER,
                     fields={"at": {"unit": AGO}, "ready": {"mappings": READY}}, nothing="no window to come")),
            (2, data_age()),
        ]),
        (8, [
            (18, rows("What is wrong, worst first", "Every open alert; its clause leads to readings and raw events",
                      WRONG, fields={**numbers, "what": {"custom.width": 190}}, links={"clause": CLAUSE, "what": CLAUSE})),
            (6, rows("Where", "Promises of each region as they stand now: broken, unknown, kept", REGIONS,
                     fields={"broken": {"color": {"mode": "fixed", "fixedColor": RED},
                                        "custom.cellOptions": {"type": "color-text"}}},
                     links={"region": f"{PREFIX}noc"})),
        ]),
        (8, [(24, timeline("Since when", "The state of promises over time, the longest broken first: 20 lanes at most",
                           LANES))]),
        (9, [(24, rows("Every promise, worst first", "How each clause stands now, of any kind", PROMISES,
                       fields={**numbers, "of bound": {"unit": "percentunit"}}, links={"clause": CLAUSE}))]),
        (8, [
            (14, rows("Alerts of this time range", "What fired, for how long, the newest first", PAST,
                      fields={"lasted": {"unit": "s"}}, links={"clause": CLAUSE})),
            (10, rows("Windows to come", "Business-critical windows, the next first", COMING,
                      fields={"starts in": {"unit": "s"}})),
        ]),
    )  # fmt: skip
    return frame(
        "noc", "NOC overview",
        "Is anything wrong, where, since when, how bad; what comes next, and are we ready for it?",
        panels, back="now-6h",
    )  # fmt: skip
