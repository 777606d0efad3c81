"""The fast path of formats whose samples are JSON objects, as SQL over a batch of Kafka records of one event type.

One lax `json_transform` per message yields every declared property as its own JSON text, so that a missing
value (NULL), a mistyped one (`"0.5"`, `true`) and a good one differ without a second parse.  A row that is
good beyond doubt gets `ok`, but for measures that may be set aside: where one is not good, `doubt` has the texts of
all (`aside_sql.py`).  Anything else is left to the slow path, which names the fate.

A format says where its attributes and its samples stand; `envelope`: attribute → where, as quoted JSON text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import timedelta

from pipeline.catalog import EventType, Field, Measure
from pipeline.formats.amounts import LOSSY_NUMBER, amount_sql
from pipeline.formats.aside_sql import bounds_sql, doubted_sql, interval_sql, mendable
from pipeline.formats.event_format import INTERVAL, MAX_CLOCK_AHEAD
from pipeline.formats.gpu_uuid import identifies_sql
from pipeline.formats.inside import names_of, plain_object_sql, settled_sql
from pipeline.formats.times import time_sql
from pipeline.rollup.quoting import literal


def transformed_sql(structure: object) -> str:
    """The column `j`: the JSON texts of a message that has this structure."""
    return f"json_transform(value, '{json.dumps(structure)}') AS j"


def records_sql(columns: str) -> str:
    """The records, with what a format makes of their headers and value."""
    return f"(SELECT row, part, record_time, value, {columns} FROM {{records}})"


def single_sql(event: EventType, envelope: Mapping[str, str], data: str, records: str) -> str:
    """SELECT of the samples of messages that hold one each, `data`."""
    opened = envelope_sql(event, envelope, f"{data} AS s, 0 AS idx, value", records)
    return _select(event, opened)


def array_sql(event: EventType, envelope: Mapping[str, str], data: str, records: str) -> str:
    """SELECT of the samples of messages that hold a list of them, `data`.

    What the samples of a message have in common is looked at once, before they are told apart.
    """
    opened = envelope_sql(event, envelope, f"{data} AS elements", records)
    one = "* EXCLUDE (elements), unnest(elements) AS s, generate_subscripts(elements, 1) - 1 AS idx"
    return _select(event, f"(SELECT {one} FROM {opened})")


def envelope_sql(event: EventType, envelope: Mapping[str, str], data: str, records: str) -> str:
    """The message's own columns, and `sound`: whether nothing about it is in doubt but its samples."""
    checks = [
        f"{envelope['specversion']} = '\"1.0\"'",
        f"{envelope['type']} = '\"{event.type}\"'",
        "NOT contains(value, '\\')",  # escapes are read by the slow path
        *(_attribute(envelope[name]) for name in ("id", "source")),
        f"time <= record_time + INTERVAL {MAX_CLOCK_AHEAD // timedelta(seconds=1)} SECOND",
    ]
    if event.retained:
        checks.append("NOT contains(value, '\"x_')")  # custom columns are gathered by the slow path
        checks.append(f"NOT regexp_matches(value, '{LOSSY_NUMBER}')")
    texts = ", ".join(f"{_unquote(envelope[name])} AS {name}" for name in ("source", "id"))
    return (
        f"(SELECT row, part, record_time, {data}, source, id, time, "
        f"{interval_sql(envelope[INTERVAL])} AS interval, {envelope[INTERVAL]} AS said, {' AND '.join(checks)} AS sound "
        f"FROM (SELECT *, {texts}, {time_sql(_unquote(envelope['time']))} AS time FROM {records}))"
    )


def sample_structure(event: EventType) -> dict[str, str]:
    """The `json_transform` structure of one sample: the JSON text of every name that is looked for."""
    return dict.fromkeys(names_of((*event.fields, *event.measures)), "JSON")


def _select(event: EventType, opened: str) -> str:
    """One SELECT: the conditions of `ok` and the typed columns of `opened(…, sound, s, idx)`; `s` is the sample.

    Column aliases prefixed `t_` are the unquoted or parsed values; `ok` refers to them so that each is
    computed once.
    """
    settled = settled_sql(event, (*event.fields, *event.measures), "s")
    if settled != "s":
        opened = f"(SELECT * REPLACE ({settled} AS s) FROM {opened})"
    parsed: list[str] = []
    checks, fine = ["sound"], ["(said IS NULL OR interval IS NOT NULL)"]
    columns, mended = [], mendable(event)
    for field in event.fields[len(event.dimensions) :]:
        text = f"s.{field.name}"
        checks.append(_field_check(field, text))
        if field.kind == "time":
            parsed.append(f"{time_sql(_unquote(text), field.zone)} AS t_{field.name}")
            columns.append(f"t_{field.name} AS {field.name}")
        elif field.kind == "json":
            columns.append(f"{text}::VARCHAR AS {field.name}")
        else:
            columns.append(f"{_name(field, text)} AS {field.name}")
    for measure in event.measures:
        text = f"s.{measure.name}"
        parsed.append(f"{_parse(measure, text)} AS t_{measure.name}")
        (fine if measure in mended else checks).append(_measure_check(measure, text))
        columns.append(f"t_{measure.name} AS {measure.name}")
    if event.retained:
        columns.append("NULL::VARCHAR AS x_columns")
    return (
        f"SELECT row, idx::INTEGER AS idx, coalesce({' AND '.join(checks)}, false) AS ok, "
        f"CASE WHEN {' AND '.join(fine)} THEN NULL ELSE [{', '.join(doubted_sql(event))}] END AS doubt, "
        "part, record_time, "
        f"source, id, time, interval, {_quoted(event)} AS quoted, "
        f"{', '.join(columns)} FROM (SELECT *, {', '.join(parsed)} FROM {opened})"
    )


def names_sql(event: EventType, data: str) -> str:
    """The dimensions of single samples, looked up where they stand; `good` where they are surely what they seem."""
    structure = json.dumps(dict.fromkeys(names_of(event.dimensions), "JSON"))
    one = f"coalesce(json_extract(value, '{data}[' || idx || ']'), json_extract(value, '{data}'))"
    checks = [_field_check(d, f"s.{d.name}") for d in event.dimensions]
    checks.append(f"{_quoted(event)} = quoted")
    texts = ", ".join(f"{_unquote(f's.{d.name}')} AS {d.name}" for d in event.dimensions)
    return (
        f"SELECT quoted, coalesce({' AND '.join(checks)}, false) AS good, {texts} FROM (SELECT quoted, "
        f"{settled_sql(event, event.dimensions, 's')} AS s FROM (SELECT quoted, "
        f"json_transform({one}, '{structure}') AS s FROM {{records}} JOIN wanted USING (row)))"
    )


def _quoted(event: EventType) -> str:
    """What stands for the dimensions of the sample `s` until their series is known."""
    return f"hash({', '.join(f's.{d.name}::VARCHAR' for d in event.dimensions)})"


def _unquote(text: str) -> str:
    return f"substring({text}::VARCHAR, 2, length({text}::VARCHAR) - 2)"  # half the price of [2:-2]


def _attribute(text: str) -> str:
    """True for a string of 1 to 1024 bytes; `value` is not where headers stand, so escapes again."""
    unescaped = "" if text.startswith("j.") else f" AND NOT contains({text}, '\\')"
    return f"({_plain_string(text, 1, 1024)}{unescaped})"


def _plain_string(text: str, shortest: int, longest: int) -> str:
    """True for a JSON string whose length in characters is surely within the bounds.

    Bytes are never fewer than characters; four of them may be one.
    """
    fewest = shortest if shortest <= 1 else shortest * 4
    return f"(starts_with({text}, '\"') AND strlen({text}) BETWEEN {fewest + 2} AND {longest + 2})"


def _field_check(field: Field, text: str) -> str:
    if field.kind == "json":
        # One text for one value: json_transform takes out the blanks, anything else is written anew by the slow path.
        read = field.inside is not None and field.inside.properties
        good = "false" if read else plain_object_sql(f"{text}::VARCHAR")
    elif field.enum:
        good = _one_of(text, field.enum)
    elif field.kind == "time":
        good = f"t_{field.name} IS NOT NULL"
    else:
        good = _plain_string(text, field.min_length, field.max_length or 1024)
    if field.whole:
        good = f"({good} OR regexp_full_match({text}, '[0-9]{{1,9}}'))"
    if field.form:
        good = f"({good} AND {identifies_sql(text)})"
    return f"({text} IS NULL OR {good})" if field.optional else good


def _name(field: Field, text: str) -> str:
    return (
        f"CASE WHEN starts_with({text}, '\"') THEN {_unquote(text)} ELSE {text}::VARCHAR END"
        if field.whole
        else _unquote(text)
    )


def _one_of(text: str, values: Iterable[str]) -> str:
    return f"{text} IN ({', '.join(literal(json.dumps(v)) for v in values)})"


def _parse(measure: Measure, text: str) -> str:
    if measure.kind == "text":
        cases = " ".join(f"WHEN {literal(json.dumps(v))} THEN {literal(v)}" for v in measure.enum)
        return f"CASE {text}::VARCHAR {cases} END"
    if measure.kind == "money":
        return amount_sql(text)
    if measure.kind == "histogram":
        return f"CASE WHEN {_numeric_list(text)} THEN from_json({text}, '[\"DOUBLE\"]') END"
    number = f"try_cast({text}::VARCHAR AS {measure.sql_type})"
    return number if measure.integer else f"{number} + 0.0"  # makes -0.0 what it equals


def _numeric_list(text: str) -> str:
    return f"regexp_full_match({text}, '\\[[-+0-9.eE, ]*\\]')"


def _measure_check(measure: Measure, text: str) -> str:
    value = f"t_{measure.name}"
    if measure.kind in ("money", "text"):
        good = f"{value} IS NOT NULL"
    elif measure.kind == "histogram":
        low, high = bounds_sql(measure)
        good = (
            f"{value} IS NOT NULL AND (len({value}) = 0 OR (list_min({value}) >= {low} AND list_max({value}) <= {high})) "
            f"AND len({value}) <= {measure.max_items or 100000}"
        )
        if measure.integer:
            good += f" AND {_whole(text)}"
    else:
        low, high = bounds_sql(measure)
        good = f"{value} BETWEEN {low} AND {high}"
        if measure.integer:  # a cast would round 3.7 and 37e-1 to 4
            good += f" AND {value}::VARCHAR = {text}::VARCHAR"
    return f"({text} IS NULL OR ({good}))" if measure.optional else f"({good})"


def _whole(text: str) -> str:
    """True for what is surely an integer: a cast would round 3.7 and 37e-1 to 4."""
    return f"NOT (contains({text}, '.') OR contains({text}, 'e') OR contains({text}, 'E'))"
