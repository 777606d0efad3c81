"""What a schema file must be before an event type is made of it: every fault is refused where it stands.

Each message has the file, the property or annotation, what was found and what was expected, so that a new
event type fails when it is loaded, never in the middle of a stream.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Protocol

from pipeline.errors import SchemaError

ROLES = ("dimension", "entity", "measure", "label", "time")
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
TOPIC = re.compile(r"[A-Za-z0-9._-]{1,200}")
MAX_QUANTA = 2**62
"""A value in quanta is a BIGINT; the sum of them a HUGEINT."""

OWN_COLUMNS = frozenset(
    """
    block bucket content date entity_idx filename gpus headers id identity idx interval known_from last_time measure n
    observed ok part quoted rank record_time row samples series source time value window_start x_columns
    """.split()  # noqa: SIM905 - a line for each word would bury the rest
)
"""Columns of samples, partial roll-ups, bit sets and views, which share a relation with the schema's."""
OWN_VIEWS = frozenset(
    """
    alerts alerts_now alerts_open bills capacity charges clauses data_age energy_mix fates gpu_hours health power
    quarantine queue_wait readings set_aside spend standing windows
    """.split()  # noqa: SIM905 - a line for each word would bury the rest
)
AGGREGATES = frozenset(("count", "last", "max", "mean", "min", "p50", "p95", "p99", "sum", "time"))
KEYWORDS = frozenset(
    """
    all analyse analyze and anti any array as asc asof asymmetric at authorization binary both by case cast
    check collate collation column columns concurrently constraint create cross default deferrable desc
    describe distinct do else end except false fetch for foreign freeze from full generated glob group
    having ilike in initially inner intersect into is isnull join lambda lateral leading left like limit map
    natural not notnull null offset on only or order outer overlaps pivot pivot_longer pivot_wider placing
    positional primary qualify references returning right select semi show similar some struct summarize
    symmetric table tablesample then to trailing true try_cast tuple union unique unpack unpivot using
    variadic verbose when where window with
    """.split()  # noqa: SIM905 - a line for each word would bury the rest
)
"""What DuckDB does not take for a column's name without quotes: its keywords reserved, and of types and functions."""


class Named(Protocol):
    """What must differ between two event types."""

    @property
    def topic(self) -> str: ...
    @property
    def view(self) -> str: ...
    @property
    def retained(self) -> bool: ...
    @property
    def closes(self) -> bool: ...
    @property
    def delivery(self) -> str | None: ...


def check(path: Path, schema: Any) -> None:
    """Raises SchemaError at the first thing that is not as an event type needs it."""
    _expect(
        isinstance(schema, dict), path, "the file", _kind(schema), "an object: the schema of an event type"
    )
    topic, view = schema.get("x-topic"), schema.get("x-view")
    _expect(_matches(TOPIC, topic), path, "x-topic", topic, "a Kafka topic's name such as 'telemetry.gpu'")
    _expect(topic not in OWN_VIEWS, path, "x-topic", topic, f"none of {_list(OWN_VIEWS)}, which are our own")
    _expect(_matches(NAME, view), path, "x-view", view, "a plain name of letters, digits and _")
    _expect(
        view.lower() not in OWN_VIEWS, path, "x-view", view, f"none of {_list(OWN_VIEWS)}, which are our own"
    )
    _expect(
        _whole(schema.get("x-interval"), 1),
        path,
        "x-interval",
        schema.get("x-interval"),
        "seconds, 1 or more",
    )
    _expect(
        _whole(schema.get("x-lateness"), 0),
        path,
        "x-lateness",
        schema.get("x-lateness"),
        "seconds, 0 or more",
    )
    identity = schema.get("x-identity", "window")
    known = identity in ("window", "retained", "delivery")
    _expect(known, path, "x-identity", identity, "'window', 'retained' or 'delivery'")
    retained = identity != "window"
    properties = schema.get("properties")
    _expect(
        isinstance(properties, dict) and properties,
        path,
        "properties",
        _kind(properties),
        "an object of columns",
    )
    _check_names(path, properties)
    for name, spec in properties.items():
        _check_property(path, f"property {name}", spec, retained)
    nulls = schema.get("x-null", [])
    _expect(_texts(nulls), path, "x-null", nulls, 'a list of texts that stand for null, such as ["", "NULL"]')
    _check_aliases(path, properties)
    _check_roles(path, properties, retained)
    _check_delivery(path, schema, properties, identity)
    required = schema.get("required", [])
    _expect(isinstance(required, list), path, "required", _kind(required), "a list of properties")
    for name in required:
        _expect(name in properties, path, "required", name, f"one of the properties: {_list(properties)}")
    _check_marks(path, schema.get("x-marks", {}), properties)
    _check_frozen(path, schema.get("x-frozen"), properties)


def _check_delivery(path: Path, schema: Any, properties: Mapping[str, Any], identity: str) -> None:
    name = schema.get("x-delivery")
    if name is None and identity != "delivery":
        return
    labels = [n for n, spec in properties.items() if spec["x-role"] == "label" and spec["type"] == "string"]
    named = identity != "window" and name in labels
    _expect(named, path, "x-delivery", name, f"a label of a retained type: {_list(labels)}")


def _check_frozen(path: Path, rule: Any, properties: Mapping[str, Any]) -> None:
    if rule is None:
        return
    _expect(isinstance(rule, dict), path, "x-frozen", _kind(rule), "an object with counter and intervals")
    counter, intervals = rule.get("counter"), rule.get("intervals")
    numbers = [
        n for n, spec in properties.items() if _is_measure(spec) and spec["type"] in ("number", "integer")
    ]
    _expect(counter in numbers, path, "x-frozen: counter", counter, f"one of the numbers: {_list(numbers)}")
    _expect(_whole(intervals, 2), path, "x-frozen: intervals", intervals, "a whole number, 2 or more")


def check_together(directory: Path, types: Sequence[Named]) -> None:
    """Raises SchemaError when two event types would write the same topic, tables or views."""
    for attribute in ("topic", "view"):
        values = [getattr(t, attribute).lower() for t in types]
        for value in sorted(values):
            if values.count(value) > 1:
                raise SchemaError(
                    f"{directory}: two schema files share the {attribute} {value!r}; give each its own"
                )
    views = {t.view.lower() for t in types}
    for view in sorted(views):
        base, _, width = view.rpartition("_")
        if base in views and width in ("10s", "1m", "15m", "1h", "1d"):
            raise SchemaError(
                f"{directory}: x-view: found {view!r}; expected another name: it is a roll-up of {base!r}"
            )
    for identity, closes in (("retained", False), ("delivery", True)):
        found = [t.topic for t in types if t.retained and t.closes == closes]
        if len(found) > 1:
            raise SchemaError(
                f"{directory}: x-identity: found {identity!r} for {_list(found)}; expected one such type at most, "
                "for the ledger keeps one bill"
            )
    names = {t.closes: t.delivery for t in types if t.delivery}
    if names.get(True) != names.get(False):
        raise SchemaError(
            f"{directory}: x-delivery: found {names.get(False)!r} of the charges and {names.get(True)!r} of what closes a "
            "delivery; expected the same name of both, or neither"
        )


def _check_names(path: Path, properties: Mapping[str, Any]) -> None:
    seen: dict[str, str] = {}
    for name in properties:
        expected = "a plain name of letters, digits and _, at most 63 long"
        _expect(_matches(NAME, name), path, "a property's name", name, expected)
        own = name.lower() not in OWN_COLUMNS and name.lower() not in KEYWORDS
        _expect(own, path, "a property's name", name, "another name: this one is SQL's or our own")
        other = seen.setdefault(name.lower(), name)
        _expect(
            other == name, path, "a property's name", name, f"a name that is not {other!r} in another case"
        )
    for name in properties:
        measured, _, aggregate = name.lower().rpartition("_")
        clash = aggregate in AGGREGATES and measured in seen and _is_measure(properties[seen[measured]])
        expected = "another name: roll-ups call an aggregate so"
        _expect(not clash, path, "a property's name", name, expected)


def _check_aliases(path: Path, properties: Mapping[str, Any], place: str = "") -> None:
    """An alias belongs to one property; it may be another property too, whose value then serves both."""
    seen: dict[str, str] = {}
    for name, spec in properties.items():
        where, aliases = f"property {place}{name}: x-aliases", spec.get("x-aliases", [])
        _expect(_texts(aliases), path, where, aliases, "a list of names that the value may come under")
        for alias in aliases:
            _expect(_matches(NAME, alias) and alias != name, path, where, alias, "another plain name")
            _expect(
                seen.setdefault(alias, name) == name, path, where, alias, f"a name not of {seen[alias]!r} too"
            )
        if spec.get("type") == "object":
            _check_inside(path, f"{place}{name}", spec)


def _check_inside(path: Path, where: str, spec: Any) -> None:
    """What a label says of its JSON: objects of properties, or a list of items."""
    _expect(
        isinstance(spec, dict), path, f"property {where}", _kind(spec), "an object that says what is inside"
    )
    _expect(
        spec.get("x-kind") in (None, "money"),
        path,
        f"property {where}: x-kind",
        spec.get("x-kind"),
        "'money', or none",
    )
    inner = spec.get("properties", {})
    _expect(
        isinstance(inner, dict),
        path,
        f"property {where}: properties",
        _kind(inner),
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
    _expect(isinstance(spec, dict), path, where, _kind(spec), "an object with type and x-role")
    role = spec.get("x-role")
    _expect(role in ROLES, path, f"{where}: x-role", role, f"one of {', '.join(ROLES)}")
    enum = spec.get("enum", [])
    _expect(_texts(enum), path, f"{where}: enum", enum, "a list of texts")
    if role == "measure":
        _check_measure(path, where, spec, retained)
        return
    kind, timed = spec.get("type"), spec.get("format") == "date-time"
    kinds = ("string", "object") if role == "label" else ("string",)
    numbered = role == "label" and kind == ["string", "number"]  # a number that is a name
    _expect(
        numbered or kind in kinds,
        path,
        f"{where}: type",
        kind,
        f"{' or '.join(map(repr, kinds))} for a {role}",
    )
    if role == "time":
        _expect(
            timed and retained, path, where, spec, "format date-time, in a type with x-identity 'retained'"
        )
    elif role != "label":
        _expect(not timed, path, f"{where}: format", "date-time", f"none: a {role} is a plain text")
    zone = spec.get("x-zone")
    known = zone is None or (zone == "UTC" and timed)
    _expect(known, path, f"{where}: x-zone", zone, "'UTC', and of a property with format date-time, or none")
    for bound in ("minLength", "maxLength"):
        _expect(
            _whole(spec.get(bound, 0), 0), path, f"{where}: {bound}", spec.get(bound), "0 or more characters"
        )


def _check_measure(path: Path, where: str, spec: Mapping[str, Any], retained: bool) -> None:
    kind, money = spec.get("type"), spec.get("x-kind")
    _expect(money in (None, "money"), path, f"{where}: x-kind", money, "'money', or none")
    quantum = _decimal(spec.get("x-quantum", "1"))
    good = quantum is not None and quantum > 0
    _expect(good, path, f"{where}: x-quantum", spec.get("x-quantum"), 'a step above 0 like "1e-3"')
    _expect("x-absent" not in spec or kind in ("number", "integer", "array"), path, f"{where}: x-absent",
            spec.get("x-absent"), "none: only numbers have values that stand for nothing measured")  # fmt: skip
    if money:
        _expect(
            retained,
            path,
            f"{where}: x-kind",
            money,
            "a number: money is for types with x-identity 'retained'",
        )
    elif kind == "string":
        _expect(spec.get("enum"), path, f"{where}: enum", None, "the values that a text measure may have")
    elif kind in ("number", "integer"):
        assert quantum is not None
        _check_range(path, where, spec, quantum)
    else:
        _expect(
            kind == "array", path, f"{where}: type", kind, "number, integer, string or array, or x-kind money"
        )
        items = spec.get("items")
        _expect(not retained, path, where, _Words("an array"), "a number: a retained type has no histograms")
        numeric = isinstance(items, dict) and items.get("type") in ("number", "integer")
        _expect(numeric, path, f"{where}: items", items, "number or integer with minimum and maximum")
        named = {"x-absent": spec["x-absent"]} if "x-absent" in spec else {}
        _check_range(path, f"{where}: items", {**(items or {}), **named}, Decimal("1e-6"))
        most = spec.get("maxItems", 1)
        _expect(_whole(most, 1), path, f"{where}: maxItems", most, "1 or more")


def _check_range(path: Path, where: str, spec: Mapping[str, Any], quantum: Decimal) -> None:
    low, high = (_decimal(spec.get(bound)) for bound in ("minimum", "maximum"))
    found = {bound: spec.get(bound) for bound in ("minimum", "maximum")}
    if low is None or high is None or isinstance(spec["minimum"], str) or isinstance(spec["maximum"], str):
        raise SchemaError(f"{path}: {where}: found {found}; expected minimum and maximum, the physical range")
    _expect(low <= high, path, where, found, "a minimum that is not above the maximum")
    small = max(abs(low), abs(high)) / quantum < MAX_QUANTA
    _expect(small, path, where, found, f"a range within {MAX_QUANTA:.1e} steps of x-quantum {quantum}")
    absent = spec.get("x-absent", [])
    outside = isinstance(absent, list) and all(_is_outside(value, low, high) for value in absent)
    _expect(outside, path, f"{where}: x-absent", absent, "a list of numbers outside minimum and maximum")


def _is_outside(value: Any, low: Decimal, high: Decimal) -> bool:
    number = None if isinstance(value, str) else _decimal(value)
    return number is not None and not low <= number <= high


def _check_roles(path: Path, properties: Mapping[str, Any], retained: bool) -> None:
    by_role = {role: [n for n, spec in properties.items() if spec["x-role"] == role] for role in ROLES}
    for role in ("entity", "time"):
        found = by_role[role]
        _expect(len(found) <= 1, path, f"x-role {role}", _list(found), "one property of this role at most")
    _expect(
        by_role["dimension"],
        path,
        "x-role dimension",
        _Words("no property"),
        "one at least: what makes a series",
    )
    _check_within(path, properties, by_role["dimension"])
    for name in by_role["entity"]:
        form, otherwise = properties[name].get("x-form"), properties[name].get("x-otherwise", [])
        _expect(form in (None, "gpu-uuid"), path, f"property {name}: x-form", form, "'gpu-uuid', or none")
        labels = isinstance(otherwise, list) and all(n in by_role["label"] for n in otherwise)
        fits = labels and len(otherwise) == (2 if form else 0)
        _expect(
            fits, path, f"property {name}: x-otherwise", otherwise, "with x-form two labels: host and number"
        )
    if retained:
        expected = "one property: the time that decides a charge's window"
        _expect(by_role["time"], path, "x-role time", _Words("no property"), expected)


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
    _expect(numbers, beside, "codes", _Words("none"), "one whole number at least")
    return numbers


def _check_within(path: Path, properties: Mapping[str, Any], dimensions: Sequence[str]) -> None:
    for name, spec in properties.items():
        within, where = spec.get("x-within", []), f"property {name}: x-within"
        _expect(
            not within or spec["x-role"] == "entity",
            path,
            where,
            within,
            "x-role entity, whose name it limits",
        )
        _expect(_texts(within), path, where, within, "a list of dimensions")
        for dimension in within:
            _expect(
                dimension in dimensions, path, where, dimension, f"one of the dimensions: {_list(dimensions)}"
            )


def _check_marks(path: Path, marks: Any, properties: Mapping[str, Any]) -> None:
    _expect(isinstance(marks, dict), path, "x-marks", _kind(marks), "an object of marks")
    kinds = {n: spec.get("type") for n, spec in properties.items() if spec["x-role"] == "measure"}
    entity = any(spec["x-role"] == "entity" for spec in properties.values())
    taken = {name.lower() for name in properties} | OWN_COLUMNS | KEYWORDS
    for name, rule in marks.items():
        where = f"x-marks {name}"
        _expect(entity, path, where, _Words("no entity"), "a property with x-role entity, whose mark it is")
        _expect(
            _matches(NAME, name) and name.lower() not in taken, path, where, name, "a plain name of its own"
        )
        _expect(tests_of(rule), path, where, rule, "a test, or a list of tests")
        for test in tests_of(rule):
            _check_mark_test(path, where, test if isinstance(test, dict) else {}, kinds)


def _check_mark_test(path: Path, where: str, test: Mapping[str, Any], kinds: Mapping[str, Any]) -> None:
    of, values, above, without = test.get("of"), test.get("in"), test.get("above"), test.get("without", [])
    known = f"measures of this schema: {_list(kinds)}"
    _expect(isinstance(of, list) and of and all(m in kinds for m in of), path, f"{where}: of", of, known)
    absent = isinstance(without, list) and all(m in kinds for m in without)
    _expect(absent, path, f"{where}: without", without, known)
    _expect((values is None) != (above is None), path, where, test, "either `in` or `above`")
    if isinstance(values, str):
        codes(path, values)
    listed = isinstance(values, list) and values and all(isinstance(v, str) for v in values)
    fits = {
        "string": listed,
        "number": above is not None and _decimal(above) is not None,
        "integer": isinstance(values, str) or (above is not None and _decimal(above) is not None),
    }
    expected = (
        "`in` with a list of values of text measures, `in` with the name of a file of codes and whole numbers, "
        "or `above` with a number and numbers"
    )
    _expect(all(fits.get(kinds[m]) for m in of or []), path, where, test, expected)


def _expect(good: Any, path: Path, where: str, found: object, expected: str) -> None:
    if not good:
        shown = found if isinstance(found, _Words) else repr(found)
        raise SchemaError(f"{path}: {where}: found {shown}; expected {expected}")


class _Words(str):
    """Our own words for what was found, where the value itself says less."""


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _decimal(value: object) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = Decimal(str(value))
    except InvalidOperation:
        return None
    return found if found.is_finite() else None


def _kind(value: object) -> _Words:
    names = {dict: "an object", list: "an array", str: "a text", type(None): "nothing"}
    return _Words(names.get(type(value), f"the value {value!r}"))


def _list(names: Iterable[str]) -> _Words:
    return _Words(", ".join(sorted(names)) or "none")
