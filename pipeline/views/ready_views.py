"""Views that answer the questions people come with, over the published ones: no table of their own.

Each is a SELECT over the views of `views.py` and has a comment for itself and for every column, as those have.
Clauses of any kind stand in `readings`, `standing`, `alerts_open` and `clauses`; the view of a kind, which stands with
it in `pipeline.clauses`, only adds names for its numbers.
"""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.catalog import Catalog
from pipeline.clauses import KINDS
from pipeline.rules.ready_view import ABOUT, DATED, NOW, ReadyView
from pipeline.views.bill_views import BILLS, charges_view
from pipeline.views.money_views import GPU_HOURS, SINCE_YESTERDAY

_BESIDE = ", ".join(
    f"coalesce(s.facts ->> '$.{name}', a.annotations ->> '$.{name}') AS {name}"
    for name in ("missing", "worst", "meters", "at_risk")
)
"""What is known now, else what was when it changed."""

ENERGY_MIX = ReadyView(
    "energy_mix",
    "Power, PUE, carbon and renewable share of each site as metered: a row for each quarter of an hour",
    {
        "time": "Start of the quarter of an hour, UTC",
        "provider": "Supplier",
        "region": "Region",
        "site": "Site",
        "it_megawatts": "Mean IT power of its feeds, summed",
        "facility_megawatts": "Mean power of the whole site",
        "pue": "facility ÷ IT",
        "megawatt_hours": "Energy of the whole site at that mean, over the whole quarter of an hour",
        "renewable_ratio": "Share of it from renewable sources",
        "carbon_gco2e_per_kwh": "Carbon intensity, weighted by power",
        "carbon_kg": "Carbon of that energy",
        **DATED,
    },
    """SELECT window_start AS "time", provider, region, site, sum(it_power_watts_mean) / 1e6 AS it_megawatts,
        sum(facility_power_watts_mean) / 1e6 AS facility_megawatts,
        sum(facility_power_watts_mean) / nullif(sum(it_power_watts_mean), 0) AS pue,
        sum(facility_power_watts_mean) / 1e6 / 4 AS megawatt_hours,
        sum(renewable_ratio_mean * facility_power_watts_mean)
            / nullif(sum(facility_power_watts_mean) FILTER (renewable_ratio_mean IS NOT NULL), 0) AS renewable_ratio,
        sum(carbon_gco2e_per_kwh_mean * facility_power_watts_mean)
            / nullif(sum(facility_power_watts_mean) FILTER (carbon_gco2e_per_kwh_mean IS NOT NULL), 0)
            AS carbon_gco2e_per_kwh,
        sum(carbon_gco2e_per_kwh_mean * facility_power_watts_mean) / 4e6 AS carbon_kg, date
    FROM energy_15m GROUP BY ALL""",
    frozenset(("energy",)),
)

ALERTS_OPEN = ReadyView(
    "alerts_open",
    "Every alert that is pending or fires now, whatever its clause",
    {
        "severity": "critical, warning, ticket or info",
        "urgency": "The severity as a number to sort by: 0 is critical",
        "state": "firing or pending",
        "alertname": "What is wrong",
        "contract": "Contract, by its id",
        "clause": "Clause, by its id",
        "labels": "All labels, as a JSON object",
        "about": "The values that it is split by, in words",
        "active_at": "First instant of the unbroken run of breaches, UTC",
        "fired_at": "When it fired; NULL while pending",
        "observed": "What was read when it fired, or when it last changed",
        "now": "What is read now",
        "now_at": "Instant of that reading, UTC",
        "bound": "What is allowed or promised",
        "unit": "Unit of all three",
        "window": "Business-critical window that the bound comes from",
        "summary": "In one line",
        "text": "The clause in words",
        "missing": "Which GPUs are not delivered: failed, gone or silent, how many, since when",
        "worst": "The racks and nodes that most of them are in",
        "meters": "What the meters of the sites that fell silent show, and what that probably means",
        "at_risk": "Money, GPUs or megawatts at risk, in words",
        "blinds": "Clauses that cannot be vouched for because of it",
        "opens": "When the window opens that it is about, as text",
        "risk_per_hour": "What an hour of breach is said to cost, in the contract's currency",
        "stale": "It fires, but its last reading could not vouch for it",
        "runbook": "What to do",
        "contact": "Whom to call",
        "sql": "The query that gives the number",
        "rows_sql": "The query that lists what is missing, row by row",
    },
    f"""SELECT a.severity, list_position(['critical', 'warning', 'ticket', 'info'], a.severity) - 1 AS urgency,
        CASE WHEN a.fired_at IS NULL THEN 'pending' ELSE 'firing' END AS state, a.alertname, a.contract, a.clause,
        a.labels, {ABOUT.replace("labels", "a.labels")} AS about, a.active_at, a.fired_at, a.observed, s.observed AS now,
        s."time" AS now_at, a.bound, a.unit, a."window", a.annotations ->> '$.summary' AS summary,
        a.annotations ->> '$.text' AS "text", {_BESIDE},
        a.annotations ->> '$.blinds' AS blinds, a.annotations ->> '$.opens' AS opens,
        c.risk_per_hour, a.state = 'stale' AS stale,
        a.annotations ->> '$.runbook' AS runbook, a.annotations ->> '$.contact' AS contact,
        a.annotations ->> '$.sql' AS "sql", a.annotations ->> '$.rows_sql' AS rows_sql
    FROM alerts_now a LEFT JOIN clauses c ON c.contract = a.contract AND c.clause = a.clause
    LEFT JOIN standing s ON s.alertname = a.alertname AND s.contract = a.contract AND s.clause = a.clause
        AND s.labels = a.labels""",
)

DATA_AGE = ReadyView(
    "data_age",
    "How old what you see is: the newest of each topic, and when the pipeline last published",
    {
        "topic": "Topic",
        "watermark": "Event time up to which everything is taken in, UTC",
        "age_seconds": "Seconds from then until now",
        "published_at": "When the pipeline last said so, UTC",
        "silent_seconds": "Seconds since it did: above a minute the pipeline is down, or does not publish",
        "lag": "Records that wait in Kafka",
    },
    f"""SELECT topic, arg_max(watermark, "time") AS watermark,
        epoch({NOW}) - epoch(arg_max(watermark, "time")) AS age_seconds, max("time") AS published_at,
        epoch({NOW}) - epoch(max("time")) AS silent_seconds, arg_max(lag, "time") AS lag
    FROM health GROUP BY topic""",
)

QUIET_SECONDS = 60
"""Without a word for so long a pipeline, which publishes every ten seconds, is dead, or as good as."""
_AGO = f"epoch({NOW}) - epoch(last)"
PIPELINE_HEALTH = ReadyView(
    "pipeline_health",
    "Whether the pipeline lives, in one row: what is seen is of now only while its state is well",
    {
        "state": "well; stalled: it runs and nothing progresses; stopped: in good order; silent: it has not published for a "
        "minute, so it is dead or hangs; never: it has not published yet",
        "since": "Since when it is not well, UTC; NULL while it is well",
        "why": "Why it is not well, in words; NULL while it is well",
        "published_at": "When it last published, UTC",
        "watermark": "Event time up to which every topic was evaluated then, UTC",
    },
    f"""SELECT CASE WHEN last IS NULL THEN 'never' WHEN state <> 'stopped' AND {_AGO} > {QUIET_SECONDS} THEN 'silent'
            ELSE state END AS state,
        CASE WHEN state <> 'stopped' AND {_AGO} > {QUIET_SECONDS} THEN coalesce(since, last) ELSE since END AS since,
        CASE WHEN last IS NULL THEN 'nothing has been published yet'
            WHEN state <> 'stopped' AND {_AGO} > {QUIET_SECONDS}
            THEN concat('it has published nothing since ', strftime(last, '%Y-%m-%d %H:%M:%S'), ' UTC: it is dead, or hangs',
                '; its last word: ' || why)
            ELSE why END AS why,
        last AS published_at, watermark
    FROM (SELECT max("time") AS last, coalesce(arg_min(state, urgency) FILTER (newest), 'well') AS state,
            min(since) FILTER (newest) AS since, arg_min(why, since) FILTER (newest) AS why,
            min(watermark) FILTER (newest) AS watermark
          FROM (SELECT *, "time" = max("time") OVER () AS newest,
                  list_position(['stopped', 'stalled', 'well'], state) AS urgency FROM health
                WHERE date >= (SELECT max(date) FROM health)))""",
)

ALL = (
    *(kind.view for kind in KINDS if kind.view is not None),
    BILLS, GPU_HOURS, SINCE_YESTERDAY, ENERGY_MIX, ALERTS_OPEN, DATA_AGE, PIPELINE_HEALTH,
)  # fmt: skip


def ready_views(catalog: Catalog) -> Iterator[ReadyView]:
    """Those whose event types the catalog has."""
    known = {event.view for event in catalog.types}
    billed = (charges_view(event) for event in catalog.types if event.delivery and not event.closes)
    return (view for view in (*ALL, *billed) if view.needs <= known)
