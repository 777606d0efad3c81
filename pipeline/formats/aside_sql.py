"""Measures that are set aside: the sample lives without them, and what they said is kept apart.

The fast path takes every sample whose identity, time and dimensions are beyond doubt.  Where one of its measures is not
what the schema says, `doubt` has the texts of all; `mend_sql` makes NULL of the bad ones and names the reasons, as
the slow path does.  Both steps are for the whole batch: a fleet that sends "N/A" in every sample is no slower to take in,
but for this.
"""

from __future__ import annotations

from pipeline.catalog import EventType, Measure
from pipeline.formats.event_format import INTERVAL, MAX_INTERVAL


def mendable(event: EventType) -> tuple[Measure, ...]:
    """The measures that can be set aside without a look at the whole message."""
    return tuple(m for m in event.measures if m.optional and m.kind in ("number", "text"))


def doubted_sql(event: EventType) -> tuple[str, ...]:
    """The texts of which `doubt` has one each, over `s`, the sample, and `said`, the interval as it came."""
    return (*(f"s.{m.name}::VARCHAR" for m in mendable(event)), "said::VARCHAR")


def mend_sql(event: EventType) -> str:
    """SELECT of the rows of `doubted` with NULL for each bad measure, and `reasons`, for each text of `doubt` or NULL."""
    values, reasons = [], []
    for place, measure in enumerate(mendable(event), 1):
        value, reason = _judged(measure, f"doubt[{place}]")
        reasons.append(f"CASE {reason} END")
        if measure.kind == "number":  # a word that is not of the schema is NULL already
            values.append(f"{value} AS {measure.name}")
    reasons.append(f"CASE {_interval_reason(f'doubt[{len(reasons) + 1}]')} END")
    replaced = f" REPLACE ({', '.join(values)})" if values else ""
    return f"SELECT *{replaced}, [{', '.join(reasons)}] AS reasons FROM doubted"


def aside_sql(event: EventType) -> str:
    """SELECT of what was set aside, a row for each measure, from `mended`."""
    fields = ", ".join(f"'{name}'" for name in (*(m.name for m in mendable(event)), INTERVAL))
    return (
        "SELECT * FROM (SELECT row, idx, part, record_time, time, source, id, "
        f"unnest([{fields}]) AS field, unnest(reasons) AS reason, unnest(doubt) AS text FROM mended) "
        "WHERE reason IS NOT NULL"
    )


def bounds_sql(measure: Measure) -> tuple[str, str]:
    """The physical range as SQL numbers of the measure's type."""
    cast = "::BIGINT" if measure.integer and measure.kind == "number" else "::DOUBLE"
    return f"{measure.minimum}{cast}", f"{measure.maximum}{cast}"


def _judged(measure: Measure, text: str) -> tuple[str, str]:
    """(the value that counts, WHEN … THEN … for the reason why it does not)."""
    name = measure.name
    if measure.kind == "text":
        known = f"WHEN {text} IS NULL OR {name} IS NOT NULL THEN NULL"
        return (
            name,
            f"{known} WHEN starts_with({text}, '\"') THEN '{name}_not_in_enum' ELSE '{name}_mistyped'",
        )
    number = f"try_cast({text} AS DOUBLE)" if measure.integer else name
    value = name
    if measure.integer:  # 37.0 and 37e-0 are whole; a cast alone would round 3.7
        value = (
            f"CASE WHEN {name}::VARCHAR = {text} THEN {name} "
            f"WHEN {number} = trunc({number}) THEN try_cast({number} AS BIGINT) END"
        )
    low, high = bounds_sql(measure)
    inside = f"({value}) BETWEEN {low} AND {high}"
    absent = "".join(f" OR ({value}) = {nothing}" for nothing in measure.absent)
    reason = (
        f"WHEN {text} IS NULL OR {inside}{absent} THEN NULL WHEN {number} IS NULL THEN '{name}_mistyped' "
    )
    reason += f"WHEN isnan({number}) THEN '{name}_nan' "
    if measure.integer:
        reason += f"WHEN isfinite({number}) AND {number} <> trunc({number}) THEN '{name}_mistyped' "
    if measure.minimum is not None and measure.minimum >= 0:
        reason += f"WHEN {number} < 0 THEN '{name}_negative' "
    return f"CASE WHEN {inside} THEN {value} END", f"{reason}ELSE '{name}_out_of_range'"


def interval_sql(text: str) -> str:
    """The seconds that a source declares, a JSON number or string, as INTEGER; NULL where it says nothing sensible."""
    seconds = f"try_cast(trim({text}::VARCHAR, '\"') AS INTEGER)"
    whole = f"regexp_full_match({text}, '[0-9]{{1,5}}|\"[0-9]{{1,5}}\"')"
    return f"CASE WHEN {whole} AND {seconds} BETWEEN 1 AND {MAX_INTERVAL} THEN {seconds} END"


def _interval_reason(text: str) -> str:
    whole = f"regexp_full_match({text}, '-?[0-9]+|\"-?[0-9]+\"')"
    return (
        f"WHEN {text} IS NULL OR {INTERVAL} IS NOT NULL THEN NULL "
        f"WHEN {whole} THEN '{INTERVAL}_out_of_range' ELSE '{INTERVAL}_mistyped'"
    )
