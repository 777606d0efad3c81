"""Parts of SQL that say what is known, and say it in words: amounts with their units, spans of time, states.

Units differ from row to row where clauses of all kinds stand together, and Grafana has one unit for a column.  So the
questions give texts there.
"""

from __future__ import annotations

from pipeline.dashboards.panel_sql import NOW

STALE_SECONDS = 180
"""Seconds behind the clock from which on the newest that was evaluated is not what is now."""
KNOWN = (
    f"(SELECT state = 'well' AND watermark > {NOW} - INTERVAL {STALE_SECONDS} SECOND FROM pipeline_health)"
)
"""Whether the newest of everything is that of now: not of a pipeline that is stalled, dead, or far behind."""
NOT_KNOWN = "not known"


def known(value: str) -> str:
    """The value while it is known, else NULL, which panels show in grey as not known."""
    return f"CASE WHEN {KNOWN} THEN {value} END"


def known_state() -> str:
    """A state as it is now, in words also when nobody knows."""
    return f"CASE WHEN {KNOWN} THEN state ELSE '{NOT_KNOWN}' END"


def span(seconds: str) -> str:
    """A number of seconds in words: 42s, 6m03s, 5h07m, 3d04h."""
    whole = f"floor({seconds})::BIGINT"
    return (
        f"CASE WHEN {seconds} < 60 THEN format('{{}}s', {whole}) "
        f"WHEN {seconds} < 3600 THEN format('{{}}m{{:02d}}s', {whole} // 60, {whole} % 60) "
        f"WHEN {seconds} < 86400 THEN format('{{}}h{{:02d}}m', {whole} // 3600, {whole} % 3600 // 60) "
        f"WHEN {seconds} IS NOT NULL THEN format('{{}}d{{:02d}}h', {whole} // 86400, {whole} % 86400 // 3600) END"
    )


def amount(value: str, unit: str) -> str:
    """A number in words with its unit, which differs from row to row: 1,280 GPUs, 0.871 MW, 6m03s, 9,739,130 USD.

    Both are SQL.  Whole numbers and large ones have no decimals, megawatts stay megawatts.
    """
    number = f"({value})::DOUBLE"
    return (
        f"CASE WHEN {value} IS NULL THEN NULL WHEN {unit} = 's' THEN {span(number)} "
        f"WHEN {unit} = 'MW' THEN format('{{:,.3f}} MW', {number}) "
        f"WHEN {number} = trunc({number}) OR abs({number}) >= 1000 "
        f"THEN rtrim(format('{{:,.0f}} {{}}', {number}, coalesce({unit}, ''))) "
        f"ELSE rtrim(format('{{:,.2f}} {{}}', {number}, coalesce({unit}, ''))) END"
    )


_SILENT = "(coalesce((facts ->> '$.silent')::DOUBLE, 0) + coalesce((facts ->> '$.lost')::DOUBLE, 0))"
UNREAD = f"(state = 'unknown' OR (observed = 0 AND {_SILENT} > 0))"
"""Whether nobody knows what a reading says, also where all that it is about is silent: that is not zero."""


def observed() -> str:
    """What a row of readings says, in words."""
    return (
        f"CASE WHEN {UNREAD} THEN CASE WHEN {_SILENT} > 0 THEN 'silent' ELSE '{NOT_KNOWN}' END "
        f"ELSE {amount('observed', 'unit')} END AS observed"
    )


def moment(time: str) -> str:
    """A time in words, UTC."""
    return f"strftime({time}, '%Y-%m-%d %H:%M:%S')"


UNIT_OF_SERIES = (
    "CASE WHEN unit = 's' THEN 's' WHEN unit IS NULL THEN 'short' "
    "WHEN regexp_full_match(unit, '[A-Z][A-Z][A-Z]') THEN concat('currency:', unit, ' ') ELSE concat('suffix:', unit) END"
)
"""Grafana's unit for series of a unit of ours: seconds in words, money by its currency, anything else as it stands."""


TRUTH = f"""
    SELECT CASE
            WHEN state = 'well' AND age <= {STALE_SECONDS}
            THEN concat('Well: everything is evaluated up to ', {moment("watermark")}, ' UTC, ', words, ' ago')
            WHEN state = 'well'
            THEN concat('BEHIND: everything is evaluated only up to ', {moment("watermark")}, ' UTC, ', words, ' ago')
            WHEN state = 'never' THEN concat('NO DATA YET: ', why)
            ELSE concat(upper(state), ' since ', {moment("since")}, ' UTC, ', lasted, ': ', why, '. What is below is of ',
                {moment("coalesce(watermark, published_at)")}, ' UTC') END AS pipeline
    FROM (SELECT *, {span("age")} AS words, {span("down")} AS lasted
          FROM (SELECT *, greatest(epoch({NOW}) - epoch(watermark), 0) AS age,
                    greatest(epoch({NOW}) - epoch(since), 0) AS down FROM pipeline_health))
"""
"""How the pipeline is, in one line: what heads every dashboard."""
