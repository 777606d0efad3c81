"""What a schema file must be before an event type is made of it: every fault is refused where it stands.

Each message has the file, the property or annotation, what was found and what was expected, so that a new
event type fails when it is loaded, never in the middle of a stream.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from pipeline.catalog.expect import OwnWords, decimal, expect, kind_of, listed, matches, whole
from pipeline.catalog.names import KEYWORDS, NAME, OWN_COLUMNS, OWN_VIEWS, TOPIC, check_names
from pipeline.errors import SchemaError

ROLES = ("dimension", "entity", "measure", "label", "time")
MAX_QUANTA = 2**62
"""A value in quanta is a BIGINT; the sum of them a HUGEINT."""


def check(path: Path, schema: Any) -> None:
    """Raises SchemaError at the first thing that is not as an event type needs it."""
    expect(
        isinstance(schema, dict), path, "the file", kind_of(schema), "an object: the schema of an event type"
    )
    topic, view = schema.get("x-topic"), schema.get("x-view")
    expect(matches(TOPIC, topic), path, "x-topic", topic, "a Kafka topic's name such as 'telemetry.gpu'")
    expect(topic not in OWN_VIEWS, path, "x-topic", topic, f"none of {listed(OWN_VIEWS)}, which are our own")
    expect(matches(NAME, view), path, "x-view", view, "a plain name of letters, digits and _")
    expect(
        view.lower() not in OWN_VIEWS, path, "x-view", view, f"none of {listed(OWN_VIEWS)}, which are our own"
    )
    expect(
        whole(schema.get("x-interval"), 1),
        path,
        "x-interval",
        schema.get("x-interval"),
        "seconds, 1 or more",
    )
    expect(
        whole(schema.get("x-lateness"), 0),
        path,
        "x-lateness",
        schema.get("x-lateness"),
        "seconds, 0 or more",
    )
    identity = schema.get("x-identity", "window")
    known = identity in ("window", "retained", "delivery")
    expect(known, path, "x-identity", identity, "'window', 'retained' or 'delivery'")
    retained = identity != "window"
    properties = schema.get("properties")
    expect(
        isinstance(properties, dict) and properties,
        path,
        "properties",
        kind_of(properties),
        "an object of columns",
    )
    check_names(path, properties, [name for name, spec in properties.items() if _is_measure(spec)])
    for name, spec in properties.items():
        _check_property(path, f"property {name}", spec, retained)
    nulls = schema.get("x-null", [])
    expect(_texts(nulls), path, "x-null", nulls, 'a list of texts that stand for null, such as ["", "NULL"]')
    _check_aliases(path, properties)
    _check_roles(path, properties, retained)
    _check_delivery(path, schema, properties, identity)
    required = schema.get("required", [])
    expect(isinstance(required, list), path, "required", kind_of(required), "a list of properties")
    for name in required:
        expect(name in properties, path, "required", name, f"one of the properties: {listed(properties)}")
    _check_marks(path, schema.get("x-marks", {}), properties)
    _check_frozen(path, schema.get("x-frozen"), properties)
    _check_revision(path, schema, properties, retained)


def _check_revision(path: Path, schema: Any, properties: Mapping[str, Any], retained: bool) -> None:
    rule = schema.get("x-revision")
    if rule is None:
        return
    entities = [n for n, spec in properties.items() if spec["x-role"] == "entity"]
    plain = isinstance(rule, dict) and not retained and not entities
    expect(plain, path, "x-revision", rule, "an object, in a type without entity that is not retained")
    numbers = [n for n, spec in properties.items() if _is_measure(spec) and spec["type"] == "number"]
    of, status, issued = rule.get("of"), rule.get("status"), rule.get("issued")
    known = isinstance(of, list) and of and all(m in numbers for m in of)
    expect(known, path, "x-revision: of", of, f"some of the numbers: {listed(numbers)}")
    labels = {n: spec for n, spec in properties.items() if spec["x-role"] == "label"}
    worded = [n for n, spec in labels.items() if spec.get("enum")]
    expect(status in worded, path, "x-revision: status", status, f"a label with words: {listed(worded)}")
    timed = [n for n, spec in labels.items() if spec.get("format") == "date-time"]
    expect(issued in timed, path, "x-revision: issued", issued, f"a label that is a time: {listed(timed)}")


def _check_delivery(path: Path, schema: Any, properties: Mapping[str, Any], identity: str) -> None:
    name = schema.get("x-delivery")
    if name is None and identity != "delivery":
        return
    labels = [n for n, spec in properties.items() if spec["x-role"] == "label" and spec["type"] == "string"]
    named = identity != "window" and name in labels
    expect(named, path, "x-delivery", name, f"a label of a retained type: {listed(labels)}")


def _check_frozen(path: Path, rule: Any, properties: Mapping[str, Any]) -> None:
    if rule is None:
        return
    expect(isinstance(rule, dict), path, "x-frozen", kind_of(rule), "an object with counter and intervals")
    counter, intervals = rule.get("counter"), rule.get("intervals")
    numbers = [
        n for n, spec in properties.items() if _is_measure(spec) and spec["type"] in ("number", "integer")
    ]
    expect(counter in numbers, path, "x-frozen: counter", counter, f"one of the numbers: {listed(numbers)}")
    expect(whole(intervals, 2), path, "x-frozen: intervals", intervals, "a whole number, 2 or more")


def _check_aliases(path: Path, properties: Mapping[str, Any], place: str = "") -> None:
    """An alias belongs to one property; it may be another property too, whose value then serves both."""
    seen: dict[str, str] = {}
    for name, spec in properties.items():
        where, aliases = f"property {place}{name}: x-aliases", spec.get("x-aliases", [])
        expect(_texts(aliases), path, where, aliases, "a list of names that the value may come under")
        for alias in aliases:
            expect(matches(NAME, alias) and alias != name, path, where, alias, "another plain name")
            expect(
                seen.setdefault(alias, name) == name, path, where, alias, f"a name not of {seen[alias]!r} too"
            )
        if spec.get("type") == "object":
            _check_inside(path, f"{place}{name}", spec)


def _check_inside(path: Path, where: str, spec: Any) -> None:
    """What a label says of its JSON: objects of properties, or a list of items."""
    expect(
        isinstance(spec, dict), path, f"property {where}", kind_of(spec), "an object that says what is inside"
    )
    expect(
        spec.get("x-kind") in (None, "money"),
        path,
        f"property {where}: x-kind",
        spec.get("x-kind"),
        "'money', or none",
    )
    inner = spec.get("properties", {})
    expect(
        isinstance(inner, dict),
        path,
        f"property {where}: properties",
        kind_of(inner),
        "an object of properties",
    )
    for name, each in inner.items():
        _check_inside(path, f"{where}/{name}", each)
    _check_aliases(path, inner, f"{where}/")
    if "items" in spec:
        _check_inside(path, f"{where}/items", spec["items"])


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _is_measure(spec: Any) -> bool:
    return isinstance(spec, dict) and spec.get("x-role") == "measure"


def _check_property(path: Path, where: str, spec: Any, retained: bool) -> None:
    expect(isinstance(spec, dict), path, where, kind_of(spec), "an object with type and x-role")
    role = spec.get("x-role")
    expect(role in ROLES, path, f"{where}: x-role", role, f"one of {', '.join(ROLES)}")
    enum = spec.get("enum", [])
    expect(_texts(enum), path, f"{where}: enum", enum, "a list of texts")
    if role == "measure":
        _check_measure(path, where, spec, retained)
        return
    kind, timed = spec.get("type"), spec.get("format") == "date-time"
    kinds = ("string", "object") if role == "label" else ("string",)
    numbered = role == "label" and kind == ["string", "number"]  # a number that is a name
    expect(
        numbered or kind in kinds,
        path,
        f"{where}: type",
        kind,
        f"{' or '.join(map(repr, kinds))} for a {role}",
    )
    if role == "time":
        expect(
            timed and retained, path, where, spec, "format date-time, in a type with x-identity 'retained'"
        )
    elif role != "label":
        expect(not timed, path, f"{where}: format", "date-time", f"none: a {role} is a plain text")
    zone = spec.get("x-zone")
    known = zone is None or (zone == "UTC" and timed)
    expect(known, path, f"{where}: x-zone", zone, "'UTC', and of a property with format date-time, or none")
    for bound in ("minLength", "maxLength"):
        expect(
            whole(spec.get(bound, 0), 0), path, f"{where}: {bound}", spec.get(bound), "0 or more characters"
        )


def _check_measure(path: Path, where: str, spec: Mapping[str, Any], retained: bool) -> None:
    kind, money = spec.get("type"), spec.get("x-kind")
    expect(money in (None, "money"), path, f"{where}: x-kind", money, "'money', or none")
    quantum = decimal(spec.get("x-quantum", "1"))
    good = quantum is not None and quantum > 0
    expect(good, path, f"{where}: x-quantum", spec.get("x-quantum"), 'a step above 0 like "1e-3"')
    expect("x-absent" not in spec or kind in ("number", "integer", "array"), path, f"{where}: x-absent",
            spec.get("x-absent"), "none: only numbers have values that stand for nothing measured")  # fmt: skip
    if money:
        expect(
            retained,
            path,
            f"{where}: x-kind",
            money,
            "a number: money is for types with x-identity 'retained'",
        )
    elif kind == "string":
        expect(spec.get("enum"), path, f"{where}: enum", None, "the values that a text measure may have")
    elif kind in ("number", "integer"):
        assert quantum is not None
        _check_range(path, where, spec, quantum)
    else:
        expect(
            kind == "array", path, f"{where}: type", kind, "number, integer, string or array, or x-kind money"
        )
        items = spec.get("items")
        expect(not retained, path, where, OwnWords("an array"), "a number: a retained type has no histograms")
        numeric = isinstance(items, dict) and items.get("type") in ("number", "integer")
        expect(numeric, path, f"{where}: items", items, "number or integer with minimum and maximum")
        named = {"x-absent": spec["x-absent"]} if "x-absent" in spec else {}
        _check_range(path, f"{where}: items", {**(items or {}), **named}, Decimal("1e-6"))
        most = spec.get("maxItems", 1)
        expect(whole(most, 1), path, f"{where}: maxItems", most, "1 or more")


def _check_range(path: Path, where: str, spec: Mapping[str, Any], quantum: Decimal) -> None:
    low, high = (decimal(spec.get(bound)) for bound in ("minimum", "maximum"))
    found = {bound: spec.get(bound) for bound in ("minimum", "maximum")}
    if low is None or high is None or isinstance(spec["minimum"], str) or isinstance(spec["maximum"], str):
        raise SchemaError(f"{path}: {where}: found {found}; expected minimum and maximum, the physical range")
    expect(low <= high, path, where, found, "a minimum that is not above the maximum")
    small = max(abs(low), abs(high)) / quantum < MAX_QUANTA
    expect(small, path, where, found, f"a range within {MAX_QUANTA:.1e} steps of x-quantum {quantum}")
    absent = spec.get("x-absent", [])
    outside = isinstance(absent, list) and all(_is_outside(value, low, high) for value in absent)
    expect(outside, path, f"{where}: x-absent", absent, "a list of numbers outside minimum and maximum")


def _is_outside(value: Any, low: Decimal, high: Decimal) -> bool:
    number = None if isinstance(value, str) else decimal(value)
    return number is not None and not low <= number <= high


def _check_roles(path: Path, properties: Mapping[str, Any], retained: bool) -> None:
    by_role = {role: [n for n, spec in properties.items() if spec["x-role"] == role] for role in ROLES}
    for role in ("entity", "time"):
        found = by_role[role]
        expect(len(found) <= 1, path, f"x-role {role}", listed(found), "one property of this role at most")
    expect(
        by_role["dimension"],
        path,
        "x-role dimension",
        OwnWords("no property"),
        "one at least: what makes a series",
    )
    _check_within(path, properties, by_role["dimension"])
    for name in by_role["entity"]:
        form, otherwise = properties[name].get("x-form"), properties[name].get("x-otherwise", [])
        expect(form in (None, "gpu-uuid"), path, f"property {name}: x-form", form, "'gpu-uuid', or none")
        labels = isinstance(otherwise, list) and all(n in by_role["label"] for n in otherwise)
        fits = labels and len(otherwise) == (2 if form else 0)
        expect(
            fits, path, f"property {name}: x-otherwise", otherwise, "with x-form two labels: host and number"
        )
    if retained:
        expected = "one property: the time that decides a charge's window"
        expect(by_role["time"], path, "x-role time", OwnWords("no property"), expected)


def tests_of(rule: Any) -> list[Any]:
    """The tests of a mark, which may be one alone."""
    return rule if isinstance(rule, list) else [rule]


def codes(path: Path, name: str) -> tuple[int, ...]:
    """The whole numbers that are the keys of `codes` in the file `name`, relative to the schema `path`.

    Raises SchemaError.
    """
    beside = path.parent / name
    try:
        found = json.loads(beside.read_text("utf-8"))["codes"]
        numbers = tuple(sorted(int(code) for code in found))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SchemaError(
            f"{path}: x-marks: `in` names {name!r}, which cannot be read as codes ({error!r}); expected a JSON file "
            'like {"codes": {"79": …}}'
        ) from error
    expect(numbers, beside, "codes", OwnWords("none"), "one whole number at least")
    return numbers


def _check_within(path: Path, properties: Mapping[str, Any], dimensions: Sequence[str]) -> None:
    for name, spec in properties.items():
        within, where = spec.get("x-within", []), f"property {name}: x-within"
        expect(
            not within or spec["x-role"] == "entity",
            path,
            where,
            within,
            "x-role entity, whose name it limits",
        )
        expect(_texts(within), path, where, within, "a list of dimensions")
        for dimension in within:
            expect(
                dimension in dimensions,
                path,
                where,
                dimension,
                f"one of the dimensions: {listed(dimensions)}",
            )


def _check_marks(path: Path, marks: Any, properties: Mapping[str, Any]) -> None:
    expect(isinstance(marks, dict), path, "x-marks", kind_of(marks), "an object of marks")
    kinds = {n: spec.get("type") for n, spec in properties.items() if spec["x-role"] == "measure"}
    entity = any(spec["x-role"] == "entity" for spec in properties.values())
    taken = {name.lower() for name in properties} | OWN_COLUMNS | KEYWORDS
    for name, rule in marks.items():
        where = f"x-marks {name}"
        expect(entity, path, where, OwnWords("no entity"), "a property with x-role entity, whose mark it is")
        expect(
            matches(NAME, name) and name.lower() not in taken, path, where, name, "a plain name of its own"
        )
        expect(tests_of(rule), path, where, rule, "a test, or a list of tests")
        for test in tests_of(rule):
            _check_mark_test(path, where, test if isinstance(test, dict) else {}, kinds)


def _check_mark_test(path: Path, where: str, test: Mapping[str, Any], kinds: Mapping[str, Any]) -> None:
    of, values, above, without = test.get("of"), test.get("in"), test.get("above"), test.get("without", [])
    known = f"measures of this schema: {listed(kinds)}"
    expect(isinstance(of, list) and of and all(m in kinds for m in of), path, f"{where}: of", of, known)
    absent = isinstance(without, list) and all(m in kinds for m in without)
    expect(absent, path, f"{where}: without", without, known)
    expect((values is None) != (above is None), path, where, test, "either `in` or `above`")
    if isinstance(values, str):
        codes(path, values)
    texts = isinstance(values, list) and values and all(isinstance(v, str) for v in values)
    fits = {
        "string": texts,
        "number": above is not None and decimal(above) is not None,
        "integer": isinstance(values, str) or (above is not None and decimal(above) is not None),
    }
    expected = (
        "`in` with a list of values of text measures, `in` with the name of a file of codes and whole numbers, "
        "or `above` with a number and numbers"
    )
    expect(all(fits.get(kinds[m]) for m in of or []), path, where, test, expected)
