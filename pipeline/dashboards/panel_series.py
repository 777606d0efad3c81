"""Parts of SQL for series over time: their gaps, their ends, the lanes of states."""

from __future__ import annotations

from pipeline.dashboards.panel_sql import BUCKET, where
from pipeline.rules.telemetry import OWN

STEP = "to_milliseconds($__interval_ms)"


def with_gaps(sql: str, step: str = STEP) -> str:
    """Series with an end and gaps where they have: otherwise a line is drawn on to the next value, or to the edge.

    `sql` gives `time`, `metric` and `value` in steps of `step`, each series whole; what has no value at all is left out.
    """
    return f"""
    WITH told AS (
        SELECT "time", metric, value, lead("time") OVER (PARTITION BY metric ORDER BY "time") AS next
        FROM ({sql})
        QUALIFY count(value) OVER (PARTITION BY metric) > 0)
    SELECT "time", metric, value FROM told
    UNION ALL
    SELECT "time" + {step}, metric, NULL FROM told WHERE next IS NULL OR next > "time" + 3 * {step}
    ORDER BY 1
"""


LANE = f"""CASE WHEN contract = '{OWN}'
            THEN concat_ws(' / ', alertname, by_values ->> '$.topic', by_values ->> '$.region')
            ELSE concat_ws(' / ', clause, alertname, nullif({where()}, '')) END"""
"""What a lane is called; our own are one for each topic and region, for there may be hundreds of silent sources."""


def lanes(readings: str) -> str:
    """States over time of readings, worst first: of those that are broken now, the longest broken; twelve at most.

    Fewer than a panel has rows, so that none lies on another.
    """
    return with_gaps(f"""
        WITH seen AS (
            SELECT {LANE} AS lane, {BUCKET} AS moment, max(CASE state WHEN 'ok' THEN 0 WHEN 'unknown' THEN 1 ELSE 2 END) AS worst
            FROM {readings} GROUP BY ALL),
        ranked AS (
            SELECT lane, row_number() OVER (ORDER BY arg_max(worst, moment) DESC, count(*) FILTER (worst = 2) DESC,
                count(*) FILTER (worst = 1) DESC, lane) AS rank
            FROM seen GROUP BY lane)
        SELECT moment AS "time", format('{{:02d}} {{}}', rank, lane) AS metric, worst::DOUBLE AS value
        FROM seen JOIN ranked USING (lane) WHERE rank <= 12
    """)


def complete(topic: str, width_ms: str) -> str:
    """Roll-ups of windows that are over: the newest is still being filled, and would look like a fall."""
    return (
        f"window_start + to_milliseconds({width_ms}) <= "
        f"(SELECT min(watermark) FROM data_age WHERE topic = '{topic}')"
    )
