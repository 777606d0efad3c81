"""The vectorised decoder of one event type, as SQL over a batch of Kafka records.

One lax `json_transform` per message yields every declared property as its own JSON text, so that a missing
value (NULL), a mistyped one (`"0.5"`, `true`) and a good one differ without a second parse.  A row that is
good beyond doubt gets `ok`; anything else is left to `inspect.inspect`, the slow path that names the fate.
The law that both agree is a test.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.catalog import EventType, Field, Measure
from pipeline.stream.inspect import ENVELOPE

MAX_CLOCK_AHEAD_SECONDS = 60
"""An event later than its record by more is quarantined: one bad clock must not make honest rows late."""


@dataclass(frozen=True, slots=True)
class DecodeSql:
    """SELECTs over the relation `records(row, part, record_time, value, <ce_ headers in binary mode>)`.

    Each yields `row, idx, ok, part, record_time, source, id, time`, then the columns of the event type.
    """

    structured_single: str
    structured_array: str
    binary_single: str
    binary_array: str


CARRIED = "row, part, record_time"
QUOTED = {name: f"e_{name}" for name in ENVELOPE}
"""Where the envelope's attributes stand, each as quoted JSON text, once they have been opened."""
LOOKS_ARRAY = "(contains(value, '[') AND (contains(value, '\"data\":[') OR contains(value, '\"data\": [')))"
"""A guess that may be wrong: the slow path then judges.  A one-byte search costs 0.05 µs, the longer ones
0.4 µs each, so those are asked for only where a bracket is."""
STARTS_ARRAY = "starts_with(ltrim(value), '[')"


def decode_sql(event: EventType) -> DecodeSql:
    """The SELECT of each content mode for `event`."""
    opened = {name: f"j.{name}" for name in ENVELOPE}
    headers = ", ".join(f"{_header(f'ce_{name}')} AS e_{name}" for name in ENVELOPE)
    lifted = ", ".join(f"{column} AS e_{name}" for name, column in opened.items())
    single = _text({**dict.fromkeys(ENVELOPE, "JSON"), "data": _structure(event)})
    array = _text({**dict.fromkeys(ENVELOPE, "JSON"), "data": ["JSON"]})
    sample = _text(_structure(event))
    structured_single = _records(
        f"value, 0 AS idx, json_transform(value, {single}) AS j", f"NOT {LOOKS_ARRAY}"
    )
    binary_single = _records(
        f"value, 0 AS idx, {headers}, json_transform(value, {sample}) AS j", f"NOT {STARTS_ARRAY}"
    )
    structured_list = (
        f"(SELECT {CARRIED}, {lifted}, j.data AS elements "
        f"FROM {_records(f'json_transform(value, {array}) AS j', LOOKS_ARRAY)})"
    )
    binary_list = _records(f"{headers}, json_transform(value, '[\"JSON\"]') AS elements", STARTS_ARRAY)
    return DecodeSql(
        structured_single=_select(event, opened, "j.data", structured_single),
        structured_array=_select(event, QUOTED, "j", _elements(structured_list, sample)),
        binary_single=_select(event, QUOTED, "j", binary_single),
        binary_array=_select(event, QUOTED, "j", _elements(binary_list, sample)),
    )


def _records(columns: str, where: str) -> str:
    """The records of one form, if they are JSON at all: a transform of anything else would raise."""
    return f"(SELECT {CARRIED}, {columns} FROM records WHERE {where} AND json_valid(value))"


def _elements(lists: str, sample: str) -> str:
    """A row for each element of the arrays in `lists(…, elements)`, each opened like a single sample."""
    attributes = ", ".join(QUOTED.values())
    unnested = (
        f"(SELECT {CARRIED}, {attributes}, unnest(elements)::VARCHAR AS element, "
        f"generate_subscripts(elements, 1) - 1 AS idx FROM {lists})"
    )
    opened = f"json_transform(element, {sample}) AS j"
    return f"(SELECT {CARRIED}, idx, {attributes}, element AS value, {opened} FROM {unnested})"


def _structure(event: EventType) -> dict[str, str]:
    """The `json_transform` structure of one sample: JSON text for all, exact decimals for money."""
    kinds = {m.name: "DECIMAL(38,10)" if m.kind == "money" else "JSON" for m in event.measures}
    return {**{f.name: "JSON" for f in event.fields}, **kinds}


def _text(structure: object) -> str:
    return "'" + json.dumps(structure) + "'"


def _header(name: str) -> str:
    """The header in quotes, as the structured form has it; NULL when it is no UTF-8."""
    return f"'\"' || try(decode({name})) || '\"'"


def _select(event: EventType, envelope: dict[str, str], data: str, source: str) -> str:
    """One SELECT: the conditions of `ok` and the typed columns.

    Column aliases prefixed `t_` are the unquoted or parsed values; `ok` refers to them so that each is
    computed once.
    """
    parsed: list[str] = [f"{_time(_unquote(envelope['time']))} AS t_time"]
    checks = [
        f"{envelope['specversion']} = '\"1.0\"'",
        f"{envelope['type']} = '\"{event.type}\"'",
        "NOT contains(value, '\\')",  # escapes are read by the slow path
        *(_attribute(envelope[name]) for name in ("id", "source")),
        f"t_time <= record_time + INTERVAL {MAX_CLOCK_AHEAD_SECONDS} SECOND",
    ]
    columns = []
    dimensions = ", ".join(f"{data}.{d.name}::VARCHAR" for d in event.dimensions)
    for field in event.fields[len(event.dimensions) :]:
        text = f"{data}.{field.name}"
        checks.append(_field_check(field, text))
        if field.kind == "time":
            parsed.append(f"{_time(_unquote(text))} AS t_{field.name}")
            columns.append(f"t_{field.name} AS {field.name}")
        elif field.kind == "json":
            columns.append(f"{text}::VARCHAR AS {field.name}")
        else:
            columns.append(f"{_unquote(text)} AS {field.name}")
    for measure in event.measures:
        text = f"{data}.{measure.name}"
        parsed.append(f"{_parse(measure, text)} AS t_{measure.name}")
        checks.append(_measure_check(measure, text))
        columns.append(f"t_{measure.name} AS {measure.name}")
    if any(m.kind == "money" for m in event.measures):
        checks += _money_checks(event, data, written_anew="AS element" in source)
    if event.retained:
        checks.append("NOT contains(value, '\"x_')")  # custom columns are gathered by the slow path
        columns.append("NULL::VARCHAR AS x_columns")
    ok = " AND ".join(checks)
    return (
        f"SELECT row, idx::INTEGER AS idx, coalesce({ok}, false) AS ok, part, record_time, "
        f"{_unquote(envelope['source'])} AS source, {_unquote(envelope['id'])} AS id, t_time AS time, "
        f"hash({dimensions}) AS quoted, "
        f"{', '.join(columns)} FROM (SELECT *, {', '.join(parsed)} FROM {source})"
    )


def _unquote(text: str) -> str:
    return f"substring({text}::VARCHAR, 2, length({text}::VARCHAR) - 2)"  # half the price of [2:-2]


def _attribute(text: str) -> str:
    """True for a string of 1 to 1024 bytes; `value` is not where an array's attributes stand, so escapes again."""
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
        good = "false"  # the slow path writes it anew: one text for one value
    elif field.enum:
        good = _one_of(text, field.enum)
    elif field.kind == "time":
        good = f"t_{field.name} IS NOT NULL"
    else:
        good = _plain_string(text, field.min_length, field.max_length or 1024)
    return f"({text} IS NULL OR {good})" if field.optional else good


def _one_of(text: str, values: Iterable[str]) -> str:
    return f"{text} IN ({', '.join(_literal(json.dumps(v)) for v in values)})"


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _parse(measure: Measure, text: str) -> str:
    if measure.kind == "text":
        return _unquote(text)
    if measure.kind == "money":
        return text
    if measure.kind == "histogram":
        return f"CASE WHEN {_numeric_list(text)} THEN from_json({text}, '[\"DOUBLE\"]') END"
    number = f"try_cast({text}::VARCHAR AS {measure.sql_type})"
    return number if measure.integer else f"{number} + 0.0"  # makes -0.0 what it equals


def _numeric_list(text: str) -> str:
    return f"regexp_full_match({text}, '\\[[-+0-9.eE, ]*\\]')"


def _measure_check(measure: Measure, text: str) -> str:
    if measure.kind == "money":
        return "true" if measure.optional else f"{text} IS NOT NULL"
    value = f"t_{measure.name}"
    if measure.kind == "text":
        good = _one_of(text, measure.enum)
    elif measure.kind == "histogram":
        low, high = _bounds(measure)
        good = (
            f"{value} IS NOT NULL AND (len({value}) = 0 OR (list_min({value}) >= {low} AND list_max({value}) <= {high})) "
            f"AND len({value}) <= {measure.max_items or 100000}"
        )
        if measure.integer:
            good += f" AND {_whole(text)}"
    else:
        low, high = _bounds(measure)
        good = f"{value} BETWEEN {low} AND {high}"
        if measure.integer:
            good += f" AND {_whole(text)}"
    return f"({text} IS NULL OR ({good}))" if measure.optional else f"({good})"


def _whole(text: str) -> str:
    """True for what is surely an integer: a cast would round 3.7 and 37e-1 to 4."""
    return f"NOT (contains({text}, '.') OR contains({text}, 'e') OR contains({text}, 'E'))"


def _bounds(measure: Measure) -> tuple[str, str]:
    cast = "::BIGINT" if measure.integer and measure.kind == "number" else "::DOUBLE"
    return f"{measure.minimum}{cast}", f"{measure.maximum}{cast}"


def _money_checks(event: EventType, data: str, written_anew: bool) -> list[str]:
    """Money is transformed straight to DECIMAL (exact), so its JSON types are asked for separately."""
    names = [m.name for m in event.measures if m.kind == "money"]
    prefix = "$.data." if data == "j.data" else "$."
    paths = ", ".join(f"'{prefix}{name}'" for name in names)
    kinds = f"json_type(value, [{paths}])"
    # the element of an array was written anew, and a fraction may have lost digits by that
    known = (
        "['UBIGINT', 'BIGINT', 'VARCHAR']" if written_anew else "['UBIGINT', 'BIGINT', 'DOUBLE', 'VARCHAR']"
    )
    present = " + ".join(f"({data}.{name} IS NOT NULL)::INTEGER" for name in names)
    return [
        f"len(list_filter({kinds}, lambda k: k IN {known})) = {present}",
        f"len(list_filter({kinds}, lambda k: k IS NOT NULL)) = {present}",
    ]


_CLOCK = "[12][0-9]{3}-[0-9]{2}-[0-9]{2}[T ]([01][0-9]|2[0-3]):[0-9]{2}:[0-9]{2}([.][0-9]{1,9})?"


def _time(text: str) -> str:
    """RFC 3339 with a zone as naive UTC; NULL for anything else (also for what only the slow path reads).

    A cast alone reads much more: 2026-1-1, 24:00:00, years BC, offsets of 99 minutes.
    """
    return (
        f"CASE WHEN ends_with({text}, 'Z') THEN "
        f"CASE WHEN regexp_full_match({text}, '{_CLOCK}Z') THEN try_cast({text} AS TIMESTAMP) END "
        f"WHEN regexp_full_match({text}, '{_CLOCK}[+-](0[0-9]|1[0-4]):[0-5][0-9]') "
        f"THEN try_cast({text} AS TIMESTAMPTZ) AT TIME ZONE 'UTC' END"
    )
