"""Pipeline health: can the numbers be vouched for: fates, lag, freshness, watermark, silent sources."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard

from pipeline.dashboards.frame import PREFIX, frame, variable
from pipeline.dashboards.panel_series import with_gaps
from pipeline.dashboards.panel_sql import NOW, at_last, chosen, in_time, to_clause
from pipeline.dashboards.panels import (
    BLUE,
    EVENTS,
    GREEN,
    NONE_IS_GOOD,
    ORANGE,
    RED,
    RIGHT,
    SECONDS,
    counts,
    lay_out,
    lines,
    none_is_good,
    rows,
    stat,
)  # fmt: skip
from pipeline.dashboards.sql_words import known, span
from pipeline.rules.telemetry import OWN

TOPIC = chosen("topic", "topic")
EVENTS_A_SECOND = "suffix:events/s"
STEP = 'time_bucket(to_milliseconds($__interval_ms), "{}")'
AT = STEP.format("time")
TOPICS = "SELECT DISTINCT topic FROM data_age ORDER BY 1"
FATE_COLOURS = {"aggregated": GREEN, "duplicate": BLUE, "quarantined": ORANGE, "dead_lettered": RED}

NOW_LAG = f"""
    SELECT {known("format('{:,} records', sum(lag))")} AS "waiting in Kafka",
        {span("max(silent_seconds)")} || ' ago' AS "last published" FROM data_age WHERE {TOPIC}
"""
UNDELIVERED = f"""
    SELECT {known("format('{:,}', max(undelivered))")} AS undelivered, {known(span("max(freshness_p99_seconds)"))} AS freshness,
        {known(span("max(decision_delay_p99_seconds)"))} AS "decision delay"
    FROM (SELECT * FROM health WHERE {at_last("15 MINUTE")}
          QUALIFY row_number() OVER (PARTITION BY topic ORDER BY "time" DESC) = 1)
"""
COUNTED = f"""
    SELECT format('{{:,.0f}}', coalesce(sum(n) FILTER (fate = 'in'), 0)::DOUBLE) AS "events in",
        format('{{:,.0f}}', coalesce(sum(n) FILTER (fate = 'in'), 0)::DOUBLE - coalesce(sum(n) FILTER (fate <> 'in'), 0)::DOUBLE)
            AS "without a fate"
    FROM fates WHERE {in_time("minute")} AND {TOPIC}
"""
FATES = f"""
    SELECT {STEP.format("minute")} AS "time", fate AS metric, sum(n)::DOUBLE AS value
    FROM fates WHERE {in_time("minute")} AND minute < date_trunc('minute', {NOW}) AND fate <> 'in' AND {TOPIC}
    GROUP BY ALL ORDER BY 1
"""
REASONS = f"""
    SELECT topic, fate, reason, sum(n)::DOUBLE AS events, max(minute) AS "last seen"
    FROM fates WHERE {in_time("minute")} AND fate NOT IN ('in', 'aggregated') AND {TOPIC}
    GROUP BY ALL ORDER BY events DESC, topic, fate, reason LIMIT 100
"""
BALANCE = f"""
    SELECT topic, part AS "#", coalesce(sum(n) FILTER (fate = 'in'), 0)::DOUBLE AS "in",
        coalesce(sum(n) FILTER (fate = 'aggregated'), 0)::DOUBLE AS aggregated,
        coalesce(sum(n) FILTER (fate = 'duplicate'), 0)::DOUBLE AS duplicate,
        coalesce(sum(n) FILTER (fate = 'quarantined'), 0)::DOUBLE AS quarantined,
        coalesce(sum(n) FILTER (fate = 'dead_lettered'), 0)::DOUBLE AS "dead-lettered",
        "in" - coalesce(sum(n) FILTER (fate <> 'in'), 0)::DOUBLE AS "without a fate"
    FROM fates WHERE {in_time("minute")} AND {TOPIC} GROUP BY ALL ORDER BY abs("without a fate") DESC, topic, part LIMIT 200
"""
AGES = f"""
    SELECT topic, watermark, {span("greatest(age_seconds, 0)")} AS age, lag, published_at AS "published",
        {span("silent_seconds")} AS ago
    FROM data_age WHERE {TOPIC} ORDER BY age_seconds DESC NULLS LAST
"""


def by_topic(value: str) -> str:
    """A series for each topic."""
    return with_gaps(f"""
        SELECT {AT} AS "time", topic AS metric, {value} AS value
        FROM health WHERE {in_time()} AND {TOPIC} GROUP BY ALL
    """)


BEHIND = by_topic('max(epoch("time") - epoch(watermark))')
LAG = by_topic("max(lag)::DOUBLE")
DELAYS = with_gaps(f"""
        SELECT moment AS "time", what AS metric, value
        FROM (
            SELECT moment, unnest(['freshness p99', 'decision delay p99']) AS what, unnest([freshness, decision]) AS value
            FROM (
                SELECT {AT} AS moment, max(freshness_p99_seconds) AS freshness, max(decision_delay_p99_seconds) AS decision
                FROM health WHERE {in_time()} GROUP BY ALL))
    """)
PACE = with_gaps(f"""
        SELECT {AT} AS "time", 'events taken in' AS metric, max(events_per_second) AS value
        FROM health WHERE {in_time()} GROUP BY ALL
    """)
WAITING = with_gaps(f"""
        SELECT {AT} AS "time", 'undelivered' AS metric, max(undelivered)::DOUBLE AS value
        FROM health WHERE {in_time()} GROUP BY ALL
    """)
OURS = f"""
    SELECT severity, alerts_open.state AS state, alertname AS what, active_at AS since,
        {span(f"date_diff('second', active_at, {NOW})")} AS "for", summary, {to_clause(since="active_at")}
    FROM alerts_open WHERE contract = '{OWN}' ORDER BY severity = 'info', urgency, active_at LIMIT 100
"""
PAST = f"""
    SELECT "time", severity, state, alertname AS what, annotations ->> '$.summary' AS summary
    FROM alerts WHERE {in_time()} AND contract = '{OWN}' AND severity <> 'info'
    ORDER BY "time" DESC LIMIT 200
"""


def health() -> dashboard.Dashboard:
    """Gigawatch itself."""
    topics = variable("topic", "Topic", TOPICS, "Topics that the pipeline reads")
    fates = {name: {"color": {"mode": "fixed", "fixedColor": to}} for name, to in FATE_COLOURS.items()}
    panels = lay_out(
        (4, [
            (8, stat("Taken in", "Records that wait, and how long ago the pipeline last published: above a minute it is "
                     "down, or does not publish", NOW_LAG, size=22)),
            (9, stat("Alerts on their way", "Changes that no destination has accepted; delays are 99th percentiles: from "
                     "Kafka to acceptance, and from when an alert was due", UNDELIVERED, size=24,
                     fields={"undelivered": {"mappings": NONE_IS_GOOD}})),
            (7, stat("Nothing is lost", "Events of the time range, and those whose fate is unknown: that must be 0",
                     COUNTED, fields={"without a fate": {"mappings": NONE_IS_GOOD}}, size=24)),
        ]),
        (7, [
            (24, rows("What we cannot vouch for", "Our own open alerts: silent sources, lost events, a stalled pipeline; the "
                      "Watchdog always fires", OURS, times=["since"],
                      widths={"severity": 75, "state": 80, "what": 185, "for": 90}, wrapped=["summary"], fields={"for": RIGHT},
                      links={"what": f"{PREFIX}clause"}, keep_time=False)),
        ]),
        (7, [
            (24, rows("Age of the data", "Of each topic: up to which event time everything is taken in", AGES,
                      times=["watermark", "published"], widths={"age": 110, "lag": 110, "ago": 110},
                      fields={"age": RIGHT, "ago": RIGHT, **counts("lag")})),
        ]),
        (9, [(24, lines("Watermark behind the clock", "How far each topic's watermark was behind when it was noted", BEHIND,
                        SECONDS, zero=True))]),
        (9, [(24, lines("Lag", "Records that wait in Kafka", LAG, "suffix:records", zero=True, decimals=0))]),
        (9, [(24, lines("Fates", "What became of the events that came in", FATES, EVENTS, bars=True, fields=fates,
                        decimals=0))]),
        (9, [(24, lines("Delays of alerts", "99th percentiles: freshness, from Kafka to acceptance; decision delay, from when "
                        "an alert was due to its acceptance", DELAYS, SECONDS, zero=True))]),
        (8, [
            (12, lines("Events taken in", "All topics", PACE, EVENTS_A_SECOND, zero=True, decimals=0, legend=300)),
            (12, lines("Alert changes undelivered", "That no destination has accepted yet", WAITING, "suffix:changes",
                       zero=True, decimals=0, legend=300)),
        ]),
        (8, [(24, rows("Why events are not aggregated", "Duplicates, quarantined and dead-lettered events, by reason",
                       REASONS, times=["last seen"], widths={"fate": 130, "events": 110}, wrapped=["reason"],
                       fields=counts("events")))]),
        (9, [(24, rows("Balance of each partition", "in = aggregated + duplicate + quarantined + dead-lettered; what is over "
                       "has no fate", BALANCE,
                       widths={"#": 60, "in": 120, "aggregated": 120, "duplicate": 110, "quarantined": 120,
                               "dead-lettered": 125, "without a fate": 130}, fields={
                           **counts("#", "in", "aggregated", "duplicate", "quarantined", "dead-lettered"),
                           **none_is_good("without a fate")}))]),
        (9, [(24, rows("Our own alerts of this time range", "Each change of state, the newest first", PAST,
                       times=["time"], widths={"severity": 75, "state": 80, "what": 185}, wrapped=["summary"]))]),
    )  # fmt: skip
    return frame(
        "pipeline", "Pipeline health", "Whether the numbers can be vouched for: fates, lag, freshness, silent sources",
        panels, variables=[topics], concerning=f"contract = '{OWN}'",
    )  # fmt: skip
