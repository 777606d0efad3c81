"""Pipeline health: can the numbers be vouched for: fates, lag, freshness, watermark, silent sources."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard

from pipeline.rules.telemetry import OWN
from pipeline.serve.dashboards_frame import PREFIX, frame, variable
from pipeline.serve.dashboards_panels import (
    BLUE,
    COUNT,
    GREEN,
    ORANGE,
    RED,
    SECONDS,
    data_age,
    lay_out,
    lines,
    rows,
    stat,
)  # fmt: skip
from pipeline.serve.dashboards_sql import NOW, at_last, chosen, in_time, to_clause

TOPIC = chosen("topic", "topic")
EVENTS_A_SECOND = "suffix: events/s"
STEP = 'time_bucket(to_milliseconds($__interval_ms), "{}")'
AT = STEP.format("time")
TOPICS = "SELECT DISTINCT topic FROM data_age ORDER BY 1"
FATE_COLOURS = {"aggregated": GREEN, "duplicate": BLUE, "quarantined": ORANGE, "dead_lettered": RED}

NOW_LAG = f'SELECT sum(lag) AS lag, max(silent_seconds) AS "published" FROM data_age WHERE {TOPIC}'
UNDELIVERED = f"""
    SELECT max(undelivered) AS undelivered, max(freshness_p99_seconds) AS freshness,
        max(decision_delay_p99_seconds) AS "decision delay"
    FROM (SELECT * FROM health WHERE {at_last("15 MINUTE")}
          QUALIFY row_number() OVER (PARTITION BY topic ORDER BY "time" DESC) = 1)
"""
COUNTED = f"""
    SELECT coalesce(sum(n) FILTER (fate = 'in'), 0)::DOUBLE AS "in",
        coalesce(sum(n) FILTER (fate = 'in'), 0)::DOUBLE - coalesce(sum(n) FILTER (fate <> 'in'), 0)::DOUBLE
            AS "without a fate"
    FROM fates WHERE {in_time("minute")} AND {TOPIC}
"""
FATES = f"""
    SELECT {STEP.format("minute")} AS "time", fate AS metric, sum(n)::DOUBLE AS value
    FROM fates WHERE {in_time("minute")} AND fate <> 'in' AND {TOPIC} GROUP BY ALL ORDER BY 1
"""
REASONS = f"""
    SELECT topic, fate, reason, sum(n)::DOUBLE AS events, max(minute) AS "last seen"
    FROM fates WHERE {in_time("minute")} AND fate NOT IN ('in', 'aggregated') AND {TOPIC}
    GROUP BY ALL ORDER BY events DESC, topic, fate, reason LIMIT 100
"""
BALANCE = f"""
    SELECT topic, part AS partition, coalesce(sum(n) FILTER (fate = 'in'), 0)::DOUBLE AS "in",
        coalesce(sum(n) FILTER (fate = 'aggregated'), 0)::DOUBLE AS aggregated,
        coalesce(sum(n) FILTER (fate = 'duplicate'), 0)::DOUBLE AS duplicate,
        coalesce(sum(n) FILTER (fate = 'quarantined'), 0)::DOUBLE AS quarantined,
        coalesce(sum(n) FILTER (fate = 'dead_lettered'), 0)::DOUBLE AS "dead-lettered",
        "in" - coalesce(sum(n) FILTER (fate <> 'in'), 0)::DOUBLE AS "without a fate"
    FROM fates WHERE {in_time("minute")} AND {TOPIC} GROUP BY ALL ORDER BY abs("without a fate") DESC, topic, part LIMIT 200
"""
AGES = f"""
    SELECT topic, watermark, age_seconds AS age, lag, published_at AS "published", silent_seconds AS "published ago"
    FROM data_age WHERE {TOPIC} ORDER BY age DESC NULLS LAST
"""


def by_topic(value: str) -> str:
    """A series for each topic."""
    return f"""
        SELECT {AT} AS "time", topic AS metric, {value} AS value
        FROM health WHERE {in_time()} AND {TOPIC} GROUP BY ALL ORDER BY 1
    """


BEHIND = by_topic('max(epoch("time") - epoch(watermark))')
LAG = by_topic("max(lag)::DOUBLE")
DELAYS = f"""
    SELECT moment AS "time", what AS metric, value
    FROM (
        SELECT moment, unnest(['freshness p99', 'decision delay p99']) AS what, unnest([freshness, decision]) AS value
        FROM (
            SELECT {AT} AS moment, max(freshness_p99_seconds) AS freshness, max(decision_delay_p99_seconds) AS decision
            FROM health WHERE {in_time()} GROUP BY ALL))
    WHERE value IS NOT NULL ORDER BY 1
"""
PACE = f"""
    SELECT {AT} AS "time", 'events taken in' AS metric, max(events_per_second) AS value
    FROM health WHERE {in_time()} GROUP BY ALL ORDER BY 1
"""
WAITING = f"""
    SELECT {AT} AS "time", 'alert changes undelivered' AS metric, max(undelivered)::DOUBLE AS value
    FROM health WHERE {in_time()} GROUP BY ALL ORDER BY 1
"""
OURS = f"""
    SELECT severity, state, alertname AS what, about AS "where", active_at AS since,
        date_diff('second', active_at, {NOW}) AS "for", summary, text, clause, contract, {to_clause(at="active_at")}
    FROM alerts_open WHERE contract = '{OWN}' ORDER BY severity = 'info', urgency, active_at LIMIT 100
"""
PAST = f"""
    SELECT "time", state, alertname AS what, labels ->> '$.topic' AS topic, active_at AS since,
        annotations ->> '$.summary' AS summary
    FROM alerts WHERE {in_time()} AND contract = '{OWN}' AND severity <> 'info'
    ORDER BY "time" DESC LIMIT 200
"""


def health() -> dashboard.Dashboard:
    """Gigawatch itself."""
    topics = variable("topic", "Topic", TOPICS, "Topics that the pipeline reads")
    nothing_lost = {
        "thresholds": {
            "mode": "absolute",
            "steps": [{"value": None, "color": GREEN}, {"value": 1, "color": RED}],
        },
        "decimals": 0,
    }
    fates = {name: {"color": {"mode": "fixed", "fixedColor": to}} for name, to in FATE_COLOURS.items()}
    panels = lay_out(
        (4, [
            (3, data_age()),
            (6, stat("Waiting in Kafka", "Records that wait, and seconds since the pipeline last published: above a minute "
                     "it is down, or does not publish", NOW_LAG, COUNT, fields={"published": {"unit": SECONDS}},
                     decimals=0)),
            (9, stat("Alerts on their way", "Changes that no destination has accepted; delays are 99th percentiles: from "
                     "Kafka to acceptance, and from when an alert was due", UNDELIVERED, SECONDS, decimals=1,
                     fields={"undelivered": {"unit": COUNT, "decimals": 0}})),
            (6, stat("Nothing is lost", "Events of the time range, and those whose fate is unknown: that must be 0",
                     COUNTED, COUNT, fields={"without a fate": nothing_lost})),
        ]),
        (8, [
            (12, rows("What we cannot vouch for", "Our own open alerts: silent sources, lost events, a stalled pipeline; the "
                      "Watchdog always fires", OURS, fields={"for": {"unit": SECONDS}},
                      links={"what": f"{PREFIX}noc"})),
            (12, rows("Age of the data", "Of each topic: up to which event time everything is taken in", AGES, fields={
                "age": {"unit": SECONDS, "decimals": 0}, "published ago": {"unit": SECONDS, "decimals": 0},
                "lag": {"unit": COUNT}})),
        ]),
        (8, [
            (12, lines("Watermark behind the clock", "Seconds that each topic's watermark was behind when it was noted", BEHIND,
                       SECONDS, zero=True)),
            (12, lines("Lag", "Records that wait in Kafka", LAG, COUNT, zero=True, decimals=0)),
        ]),
        (8, [
            (12, lines("Fates", "What became of the events that came in", FATES, COUNT, bars=True, fields=fates,
                       decimals=0)),
            (12, lines("Delays of alerts", "99th percentiles: freshness, from Kafka to acceptance; decision delay, from when "
                       "an alert was due to its acceptance", DELAYS, SECONDS, zero=True)),
        ]),
        (8, [
            (12, lines("Events taken in", "All topics", PACE, EVENTS_A_SECOND, zero=True)),
            (12, lines("Alert changes undelivered", "That no destination has accepted yet", WAITING, COUNT, zero=True)),
        ]),
        (8, [
            (12, rows("Why events are not aggregated", "Duplicates, quarantined and dead-lettered events, by reason",
                      REASONS, unit=COUNT)),
            (12, rows("Balance of each partition", "in = aggregated + duplicate + quarantined + dead-lettered; what is over "
                      "has no fate", BALANCE, unit=COUNT)),
        ]),
        (8, [(24, rows("Our own alerts of this time range", "Each change of state, the newest first", PAST))]),
    )  # fmt: skip
    return frame(
        "pipeline", "Pipeline health", "Whether the numbers can be vouched for: fates, lag, freshness, silent sources",
        panels, variables=[topics], back="now-6h",
    )  # fmt: skip
