"""A wrong schema file is refused when it is loaded, with file, place, what was found and what was expected."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import duckdb
import pytest

from pipeline.catalog import load
from pipeline.catalog.names import KEYWORDS
from pipeline.errors import SchemaError

GOOD: dict[str, Any] = {
    "x-topic": "telemetry.cooling",
    "x-view": "cooling",
    "x-interval": 30,
    "x-lateness": 5,
    "x-marks": {"open": {"of": ["valve"], "in": ["open"]}},
    "type": "object",
    "required": ["site", "loop"],
    "properties": {
        "site": {"type": "string", "x-role": "dimension"},
        "loop": {"type": "string", "x-role": "entity"},
        "rack": {"type": "string", "x-role": "label"},
        "flow": {"type": "number", "minimum": 0, "maximum": 500, "x-role": "measure", "x-quantum": "1e-3"},
        "valve": {"type": "string", "enum": ["open", "shut"], "x-role": "measure"},
        "delays": {
            "type": "array",
            "items": {"type": "number", "minimum": 0, "maximum": 60},
            "x-role": "measure",
        },
    },
}
RETAINED = {
    "x-topic": "telemetry.rent",
    "x-view": "rent",
    "x-interval": 3600,
    "x-lateness": 0,
    "x-identity": "retained",
    "properties": {
        "site": {"type": "string", "x-role": "dimension"},
        "start": {"type": "string", "format": "date-time", "x-role": "time"},
        "cost": {"type": ["number", "string"], "x-kind": "money", "x-role": "measure"},
    },
}


def write(folder: Path, schema: Any, name: str = "cooling.v1.json") -> Path:
    path = folder / name
    path.write_text(schema if isinstance(schema, str) else json.dumps(schema))
    return path


def changed(place: str, value: Any, base: dict[str, Any] = GOOD) -> dict[str, Any]:
    """The good schema with another value at `a/b/c`; `...` removes it."""
    schema = deepcopy(base)
    *way, last = place.split("/")
    inner = schema
    for step in way:
        inner = inner[step]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return schema


def refusal(folder: Path, schema: Any) -> str:
    path = write(folder, schema)
    with pytest.raises(SchemaError) as refused:
        load(folder)
    assert str(path) in str(refused.value), "the file is named"
    return str(refused.value)


REVISED = {
    "x-topic": "telemetry.wind",
    "x-view": "wind",
    "x-interval": 3600,
    "x-lateness": 0,
    "x-revision": {"of": ["speed"], "status": "state", "issued": "told"},
    "properties": {
        "site": {"type": "string", "x-role": "dimension"},
        "state": {"type": "string", "enum": ["guess", "sure"], "x-role": "label"},
        "told": {"type": "string", "format": "date-time", "x-role": "label"},
        "speed": {"type": "number", "minimum": 0, "maximum": 90, "x-role": "measure"},
    },
}


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("x-revision", [], "x-revision: found []; expected an object, in a type without entity"),
        ("properties/vane", {"type": "string", "x-role": "entity"}, "x-revision: found {'of': ['speed']"),
        ("x-revision/of", ["state"], "x-revision: of: found ['state']; expected some of the numbers: speed"),
        ("x-revision/of", [], "x-revision: of: found []"),
        ("x-revision/status", "told", "x-revision: status: found 'told'; expected a label with words: state"),
        ("x-revision/issued", ..., "x-revision: issued: found None; expected a label that is a time: told"),
    ],
)
def test_what_is_revised_is_checked_when_the_schema_is_loaded(
    tmp_path: Path, place: str, value: Any, said: str
) -> None:
    assert said in refusal(tmp_path, changed(place, value, REVISED))


def test_the_good_schemas_of_these_tests_are_good(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    write(tmp_path, RETAINED, "rent.v1.json")
    write(tmp_path, REVISED, "wind.v1.json")
    assert load(tmp_path).topics == ("telemetry.cooling", "telemetry.rent", "telemetry.wind")


P = "properties"
MISTAKES: list[tuple[str, Any, str]] = [
    ("x-topic", ..., "x-topic: found None; expected a Kafka topic's name"),
    ("x-topic", "../etc", "x-topic: found '../etc'; expected a Kafka topic's name"),
    ("x-topic", "quarantine", "x-topic: found 'quarantine'; expected none of alerts, alerts_now, alerts_open, bills, capacity, "),
    ("x-view", "1st", "x-view: found '1st'; expected a plain name"),
    ("x-view", "Alerts", "x-view: found 'Alerts'; expected none of alerts"),
    ("x-interval", "30", "x-interval: found '30'; expected seconds, 1 or more"),
    ("x-interval", 0, "x-interval: found 0; expected seconds"),
    ("x-interval", True, "x-interval: found True; expected seconds"),
    ("x-lateness", -1, "x-lateness: found -1; expected seconds, 0 or more"),
    ("x-identity", "for ever", "x-identity: found 'for ever'; expected 'window', 'retained' or 'delivery'"),
    (P, [], "properties: found an array; expected an object of columns"),
    (P, {}, "properties: found an object; expected an object of columns"),
    ("required", "site", "required: found a text; expected a list"),
    ("required", ["sites"], "required: found 'sites'; expected one of the properties: delays, flow"),
    (f"{P}/site", "string", "property site: found a text; expected an object with type and x-role"),
    (f"{P}/site/x-role", "dimensions", "property site: x-role: found 'dimensions'; expected one of dimension"),
    (f"{P}/site/type", "number", "property site: type: found 'number'; expected 'string' for a dimension"),
    (f"{P}/site/type", ["string", "null"], "property site: type: found ['string', 'null']; expected 'string'"),
    (f"{P}/site/format", "date-time", "property site: format: found 'date-time'; expected none: a dimension is"),
    (f"{P}/site/maxLength", -1, "property site: maxLength: found -1; expected 0 or more"),
    (f"{P}/site/enum", [1], "property site: enum: found [1]; expected a list of texts"),
    (f"{P}/rack/type", "array", "property rack: type: found 'array'; expected 'string' or 'object' for a label"),
    (f"{P}/rack/x-role", "entity", "x-role entity: found loop, rack; expected one property of this role at most"),
    (f"{P}/rack/x-role", "time", "property rack: found {"),
    (f"{P}/site/x-role", "label", "x-role dimension: found no property; expected one at least"),
    (f"{P}/two words", {}, "a property's name: found 'two words'; expected a plain name of letters"),
    (f"{P}/Site", {"type": "string", "x-role": "label"}, "a property's name: found 'Site'; expected a name that is not 'site'"),
    (f"{P}/known_from", {"type": "string", "x-role": "label"}, "found 'known_from'; expected another name: this one is SQL's"),
    (f"{P}/Order", {"type": "string", "x-role": "label"}, "found 'Order'; expected another name: this one is SQL's or our own"),
    (f"{P}/flow_sum", {"type": "string", "x-role": "label"}, "found 'flow_sum'; expected another name: roll-ups call"),
    (f"{P}/flow/type", "boolean", "property flow: type: found 'boolean'; expected number, integer, string or array"),
    (f"{P}/flow/maximum", ..., "property flow: found {'minimum': 0, 'maximum': None}; expected minimum and maximum"),
    (f"{P}/flow/minimum", "0", "property flow: found {'minimum': '0', 'maximum': 500}; expected minimum and maximum"),
    (f"{P}/flow/minimum", 501, "expected a minimum that is not above the maximum"),
    (f"{P}/flow/x-quantum", "0", "property flow: x-quantum: found '0'; expected a step above 0"),
    (f"{P}/flow/x-quantum", "milli", "property flow: x-quantum: found 'milli'; expected a step above 0"),
    (f"{P}/flow/x-quantum", "1e-18", "expected a range within 4.6e+18 steps of x-quantum 1E-18"),
    (f"{P}/flow/x-kind", "money", "property flow: x-kind: found 'money'; expected a number"),
    (f"{P}/flow/x-kind", "gauge", "property flow: x-kind: found 'gauge'; expected 'money', or none"),
    (f"{P}/valve/enum", ..., "property valve: enum: found None; expected the values that a text measure may have"),
    (f"{P}/delays/items", ..., "property delays: items: found None; expected number or integer with minimum"),
    (f"{P}/delays/items/maximum", ..., "property delays: items: found {'minimum': 0, 'maximum': None}"),
    (f"{P}/delays/maxItems", 0, "property delays: maxItems: found 0; expected 1 or more"),
    ("properties/loop/x-within", ["lop"], "property loop: x-within: found 'lop'; expected one of the dimensions: "),
    ("properties/flow/x-within", ["site"], "property flow: x-within: found ['site']; expected x-role entity"),
    ("x-null", "NULL", "x-null: found 'NULL'; expected a list of texts that stand for null"),
    (f"{P}/site/x-aliases", "Site", "property site: x-aliases: found 'Site'; expected a list of names"),
    (f"{P}/site/x-aliases", ["a b"], "property site: x-aliases: found 'a b'; expected another plain name"),
    (f"{P}/site/x-aliases", ["site"], "property site: x-aliases: found 'site'; expected another plain name"),
    (f"{P}/site/x-zone", "UTC", "property site: x-zone: found 'UTC'; expected 'UTC', and of a property with format"),
    (f"{P}/rack", {"type": "object", "x-role": "label", "properties": {"u": 1}}, "property rack/u: found the value 1;"),
    (
        f"{P}/rack",
        {"type": "object", "x-role": "label", "items": {"x-kind": "cash"}},
        "property rack/items: x-kind: found 'cash'; expected 'money', or none",
    ),
    ("x-marks", [], "x-marks: found an array; expected an object of marks"),
    ("x-marks/open", {}, "x-marks open: of: found None; expected measures of this schema: delays, flow, valve"),
    ("x-marks/open/of", ["valves"], "x-marks open: of: found ['valves']; expected measures of this schema"),
    ("x-marks/open/above", 1, "x-marks open: found {"),
    ("x-marks/open/in", [1], "x-marks open: found {"),
    ("x-marks/open/without", ["cock"], "x-marks open: without: found ['cock']; expected measures of this schema"),
    ("x-marks/open", [], "x-marks open: found []; expected a test, or a list of tests"),
    ("x-marks/open", [{"of": ["valve"], "in": ["open"]}, 1], "x-marks open: of: found None"),
    ("x-marks/open/in", "codes.json", "x-marks: `in` names 'codes.json', which cannot be read as codes"),
    ("x-marks/observed", {"of": ["flow"], "above": 1}, "x-marks observed: found 'observed'; expected a plain name of its own"),
    ("x-marks/fast", {"of": ["valve"], "above": 1}, "x-marks fast: found {"),
    (f"{P}/loop/x-role", "label", "x-marks open: found no entity; expected a property with x-role entity"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("place", "value", "message"), MISTAKES, ids=[f"{m[0]}={m[1]}"[:40] for m in MISTAKES]
)
def test_a_mistake_is_named_with_what_was_found_and_expected(
    tmp_path: Path, place: str, value: Any, message: str
) -> None:
    assert message in refusal(tmp_path, changed(place, value))


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (f"{P}/start", ..., "x-role time: found no property; expected one property: the time that decides"),
        (f"{P}/start/format", ..., "property start: found {"),
        (
            f"{P}/waits",
            {"type": "array", "x-role": "measure"},
            "property waits: found an array; expected a number",
        ),
    ],
)
def test_a_type_that_is_retained_needs_its_time_and_has_no_histograms(
    tmp_path: Path, place: str, value: Any, message: str
) -> None:
    assert message in refusal(tmp_path, changed(place, value, RETAINED))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "the file: found an array; expected an object"),
        ("null", "the file: found nothing; expected an object"),
    ],
)
def test_a_file_that_is_no_schema_is_refused(tmp_path: Path, text: str, message: str) -> None:
    assert message in refusal(tmp_path, text)


def test_a_directory_without_schemas_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match="no event type found; expected files like gpu"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: changed("x-view", "Cooling", s), "share the topic 'telemetry.cooling'"),
        (lambda s: changed("x-topic", "other", s), "share the view 'cooling'"),
        (lambda s: {**s, "x-topic": "other", "x-view": "cooling_1h"}, "expected another name: it is a roll-up of 'cooling'"),
    ],
)  # fmt: skip
def test_two_types_that_would_write_the_same_place_are_refused(
    tmp_path: Path, change: Callable[[Any], Any], message: str
) -> None:
    write(tmp_path, GOOD)
    write(tmp_path, change(GOOD), "cooling.v2.json")
    with pytest.raises(SchemaError, match=message):
        load(tmp_path)


def test_two_retained_types_are_refused(tmp_path: Path) -> None:
    write(tmp_path, RETAINED)
    write(tmp_path, {**RETAINED, "x-topic": "other", "x-view": "other"}, "other.v1.json")
    with pytest.raises(SchemaError, match="expected one such type at most"):
        load(tmp_path)


def test_the_words_of_the_engine_are_all_known() -> None:
    found = duckdb.sql(
        "SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category IN ('reserved', 'type_function')"
    ).fetchall()
    assert {word for (word,) in found} <= KEYWORDS
