"""Reading an event type from its JSON Schema (2020-12) with `x-` annotations.

Annotations of a schema: `x-topic` (Kafka topic), `x-view` (short name of tables and views), `x-interval`
(seconds between two reports of one source), `x-lateness` (seconds that the watermark stays behind),
`x-identity` (`window`: a re-send is recognised for two minutes; `retained`: for ever, and a later `time`
is a revision; `delivery`: as retained, and it closes a delivery of the retained type's rows), `x-delivery` (of those
two: the label that names the delivery), `x-marks` (named yes/no facts of an entity, kept as bit sets: a test or a list
of tests, each with `of`, the measures that it looks at, `above` or `in`, values or the name of a file of codes, and
perhaps `without`),
`x-frozen` (`counter` and `intervals`: an entity whose counter and numbers stand still for so long is no heartbeat),
`x-null` (texts that stand for null), `x-revision` (`of`: measures that are reported for a time more than once; `status`: the
label whose words say how final a report is, the last one most; `issued`: the label that says when it was issued).
Annotations of a property: `x-role` (dimension, entity, measure, label, time), `x-unit`, `x-quantum` (the
step that sums are counted in), `x-kind` (`money` for exact decimals), `x-zone` (`UTC`: a time without a zone is in it),
`x-form` (of an entity: `gpu-uuid`, one spelling for a UUID) with `x-otherwise` (the labels that stand for it, host and
number, where it is no identity), `x-absent` (numbers that stand for "not measured"; -1 unless told otherwise, where none
is below 0),
`x-aliases` (names under which the value is looked for where its own has none, in this order), `x-within` (of an entity:
the dimensions within which its name is one entity, whatever the others say).  A label of type object
may say with `properties` and `items` what is known of its inside: other spellings and money.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from pipeline.catalog.check import ROLES, check, codes, tests_of
from pipeline.catalog.names import check_together
from pipeline.errors import SchemaError

NUMBER_AGGREGATES = ("mean", "min", "max", "last", "sum")
HISTOGRAM_AGGREGATES = ("p50", "p95", "p99")
Kind = Literal["number", "text", "histogram", "money"]
MONEY_WHOLE_DIGITS, MONEY_DECIMALS = 22, 15
"""Digits of an amount before and after the point: what has more is refused, never rounded."""
MONEY = f"DECIMAL(38,{MONEY_DECIMALS})"
"""SQL type of money, with a digit to spare for sums."""


@dataclass(frozen=True, slots=True)
class Inside:
    """What is known of a JSON value: its other spellings, whether it is money, its properties or its items."""

    name: str = ""
    aliases: tuple[str, ...] = ()
    money: bool = False
    properties: tuple[Inside, ...] = ()
    items: Inside | None = None


@dataclass(frozen=True, slots=True)
class Field:
    """A column that is no measure: `kind` is text, time or json; `enum` empty when any text will do.

    `zone`: that of a time which names none (UTC); None where it must name one.  `aliases`: other names that its value
    may come under.  `inside`: of a json column.
    """

    name: str
    optional: bool
    sql_type: str
    description: str = ""
    enum: tuple[str, ...] = ()
    max_length: int | None = None
    kind: Literal["text", "time", "json"] = "text"
    min_length: int = 0
    zone: str | None = None
    aliases: tuple[str, ...] = ()
    inside: Inside | None = None
    whole: bool = False
    """Whether a whole number is taken for its digits."""
    form: str | None = None
    otherwise: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Measure:
    """A measured column.  `minimum` and `maximum` are the physical range, inclusive, in `unit`."""

    name: str
    kind: Kind
    unit: str
    quantum: Decimal
    minimum: float | None
    maximum: float | None
    integer: bool
    sql_type: str
    aggregates: tuple[str, ...]
    description: str = ""
    enum: tuple[str, ...] = ()
    max_items: int | None = None
    optional: bool = True
    aliases: tuple[str, ...] = ()
    absent: tuple[float, ...] = ()
    """Numbers that say that nothing was measured."""


@dataclass(frozen=True, slots=True)
class MarkTest:
    """True when any measure of `of` is in `values`, or is above `above`, and no measure of `without` is there."""

    of: tuple[str, ...]
    values: tuple[str, ...] | tuple[int, ...] = ()
    above: float | None = None
    without: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Mark:
    """A yes/no fact of an entity: a sample says so when it passes any of the tests."""

    name: str
    tests: tuple[MarkTest, ...]

    @property
    def of(self) -> tuple[str, ...]:
        """All measures that it looks at, each once."""
        return tuple(dict.fromkeys(name for test in self.tests for name in (*test.of, *test.without)))


@dataclass(frozen=True, slots=True)
class Frozen:
    """An entity is frozen when `counter` and all its other numbers stand still for `every` seconds while others move."""

    counter: str
    every: int


@dataclass(frozen=True, slots=True)
class Revision:
    """Measures that are reported for a time more than once, first estimated and then final.

    `status`: the label with one of `words`, of which a later one counts before an earlier; `issued`: the label with the
    time of the report, of which the newest counts.
    """

    of: tuple[str, ...]
    status: str
    words: tuple[str, ...]
    issued: str


@dataclass(frozen=True, slots=True)
class EventType:
    """One kind of event.  `interval` and `lateness` in seconds; columns in schema order; `nulls` stand for null."""

    type: str
    topic: str
    view: str
    title: str
    description: str
    interval: int
    lateness: int
    retained: bool
    dimensions: tuple[Field, ...]
    entity: Field | None
    labels: tuple[Field, ...]
    measures: tuple[Measure, ...]
    marks: tuple[Mark, ...]
    window_time: str | None
    """The column whose time decides the window; None for the event's own `time`."""
    within: tuple[str, ...] = ()
    """The dimensions within which an entity's name is one entity; none: everywhere."""
    nulls: tuple[str, ...] = ()
    frozen: Frozen | None = None
    delivery: str | None = None
    """The column that names the delivery of a bill; None where there are none."""
    closes: bool = False
    """Whether it closes a delivery, and is no charge itself."""
    revision: Revision | None = None

    @property
    def kept(self) -> str:
        """The ledger's table of a retained type's rows."""
        return self.view if self.closes else "charges"

    def measure(self, name: str) -> Measure:
        """The measure of that name (KeyError when there is none)."""
        return {m.name: m for m in self.measures}[name]

    @property
    def numbers(self) -> tuple[Measure, ...]:
        """Measures that roll up as count, sum, min, max and last."""
        return tuple(m for m in self.measures if m.kind == "number")

    @property
    def texts(self) -> tuple[Measure, ...]:
        """Categorical measures, which roll up as count and last."""
        return tuple(m for m in self.measures if m.kind == "text")

    @property
    def histograms(self) -> tuple[Measure, ...]:
        """Measures that are arrays of values and roll up as exponential histograms."""
        return tuple(m for m in self.measures if m.kind == "histogram")

    @property
    def fields(self) -> tuple[Field, ...]:
        """Dimensions, entity and labels, in the order of the history's columns."""
        return (*self.dimensions, *((self.entity,) if self.entity else ()), *self.labels)

    def columns(self) -> tuple[tuple[str, str], ...]:
        """(name, SQL type) of each column that comes from the event's data, in the order of the history.

        A retained type (billing) also keeps the custom columns `x_…` of its data, as JSON in `x_columns`.
        """
        named = [(f.name, f.sql_type) for f in self.fields] + [(m.name, m.sql_type) for m in self.measures]
        return (*named, ("x_columns", "VARCHAR")) if self.retained else tuple(named)


@dataclass(frozen=True, slots=True)
class Catalog:
    """Every event type that the pipeline knows, in the order of the schema files' names."""

    types: tuple[EventType, ...]

    @property
    def topics(self) -> tuple[str, ...]:
        return tuple(t.topic for t in self.types)

    def by_view(self, view: str) -> EventType:
        """The event type whose tables are called `view` (KeyError when there is none)."""
        return {t.view: t for t in self.types}[view]

    def by_topic(self, topic: str) -> EventType:
        """The event type that `topic` carries (KeyError when there is none)."""
        return {t.topic: t for t in self.types}[topic]


def schema_directory() -> Path:
    """Where the shipped schemas are: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "schemas"
    return installed if installed.is_dir() else package.parent / "schemas"


def load(directory: Path | None = None) -> Catalog:
    """Every `*.v<N>.json` of `directory` (the shipped schemas by default) as a catalog.

    Raises SchemaError that names file, property, what was found and what was expected.
    """
    directory = directory or schema_directory()
    paths = sorted(directory.glob("*.v*.json"))
    if not paths:
        raise SchemaError(f"{directory}: no event type found; expected files like gpu.utilization.v1.json")
    types = tuple(_event_type(path) for path in paths)
    check_together(directory, types)
    return Catalog(types)


def _event_type(path: Path) -> EventType:
    try:
        schema = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise SchemaError(f"{path}: cannot be read as JSON ({error}); mend the file") from error
    check(path, schema)
    required = set(schema.get("required", ()))
    properties: dict[str, Any] = schema["properties"]
    roles = {r: [n for n, spec in properties.items() if spec["x-role"] == r] for r in ROLES}
    fields = {
        n: _field(n, properties[n], n not in required) for r in ROLES if r != "measure" for n in roles[r]
    }
    measures = tuple(_measure(n, properties[n], n not in required) for n in roles["measure"])
    return EventType(
        type=path.name.removesuffix(".json"),
        topic=schema["x-topic"],
        view=schema["x-view"],
        title=schema.get("title", schema["x-view"]),
        description=schema.get("description", ""),
        interval=schema["x-interval"],
        lateness=schema["x-lateness"],
        retained=schema.get("x-identity", "window") != "window",
        dimensions=tuple(fields[n] for n in roles["dimension"]),
        entity=fields[roles["entity"][0]] if roles["entity"] else None,
        labels=tuple(fields[n] for n in properties if n in roles["label"] or n in roles["time"]),
        measures=measures,
        marks=_marks(path, schema.get("x-marks", {})),
        window_time=roles["time"][0] if roles["time"] else None,
        within=tuple(properties[roles["entity"][0]].get("x-within", ())) if roles["entity"] else (),
        nulls=tuple(schema.get("x-null", ())),
        frozen=_frozen(schema.get("x-frozen"), schema["x-interval"]),
        delivery=schema.get("x-delivery"),
        closes=schema.get("x-identity") == "delivery",
        revision=_revision(schema.get("x-revision"), properties),
    )


def _revision(rule: Mapping[str, Any] | None, properties: Mapping[str, Any]) -> Revision | None:
    if rule is None:
        return None
    status = rule["status"]
    return Revision(tuple(rule["of"]), status, tuple(properties[status]["enum"]), rule["issued"])


def _frozen(rule: Mapping[str, Any] | None, interval: int) -> Frozen | None:
    return Frozen(rule["counter"], rule["intervals"] * interval) if rule else None


def _field(name: str, spec: Mapping[str, Any], optional: bool) -> Field:
    kind: Literal["text", "time", "json"] = "text"
    if spec.get("type") == "object":
        kind = "json"
    elif spec.get("format") == "date-time":
        kind = "time"
    return Field(
        name=name,
        optional=optional,
        sql_type="TIMESTAMP" if kind == "time" else "VARCHAR",
        description=spec.get("description", ""),
        enum=tuple(spec.get("enum", ())),
        max_length=spec.get("maxLength"),
        kind=kind,
        min_length=spec.get("minLength", 0),
        zone=spec.get("x-zone"),
        aliases=tuple(spec.get("x-aliases", ())),
        inside=_inside(name, spec) if kind == "json" else None,
        whole=spec.get("type") == ["string", "number"],
        form=spec.get("x-form"),
        otherwise=tuple(spec.get("x-otherwise", ())),
    )


def _measure(name: str, spec: Mapping[str, Any], optional: bool) -> Measure:
    kind = _kind(spec)
    values = spec.get("items", {}) if kind == "histogram" else spec
    sql_types = {"number": "DOUBLE", "text": "VARCHAR", "histogram": "DOUBLE[]", "money": MONEY}
    integer = values.get("type") == "integer"
    return Measure(
        name=name,
        kind=kind,
        unit=spec.get("x-unit", ""),
        quantum=Decimal(str(spec.get("x-quantum", "1"))),
        minimum=values.get("minimum"),
        maximum=values.get("maximum"),
        integer=integer,
        sql_type="BIGINT" if integer and kind == "number" else sql_types[kind],
        aggregates=_aggregates(kind),
        description=spec.get("description", ""),
        enum=tuple(spec.get("enum", ())),
        max_items=spec.get("maxItems"),
        optional=optional,
        aliases=tuple(spec.get("x-aliases", ())),
        absent=_absent(kind, spec, values),
    )


def _inside(name: str, spec: Mapping[str, Any]) -> Inside:
    return Inside(
        name,
        tuple(spec.get("x-aliases", ())),
        spec.get("x-kind") == "money",
        tuple(_inside(inner, each) for inner, each in spec.get("properties", {}).items()),
        _inside("", spec["items"]) if "items" in spec else None,
    )


def _absent(kind: Kind, spec: Mapping[str, Any], values: Mapping[str, Any]) -> tuple[float, ...]:
    if kind not in ("number", "histogram"):
        return ()
    return tuple(spec.get("x-absent", (-1,) if values["minimum"] >= 0 else ()))


def _kind(spec: Mapping[str, Any]) -> Kind:
    kinds: dict[str, Kind] = {"number": "number", "integer": "number", "array": "histogram", "string": "text"}
    return "money" if spec.get("x-kind") == "money" else kinds[spec["type"]]


def _aggregates(kind: Kind) -> tuple[str, ...]:
    by_kind: dict[Kind, tuple[str, ...]] = {
        "number": NUMBER_AGGREGATES,
        "text": ("last",),
        "histogram": HISTOGRAM_AGGREGATES,
        "money": ("sum", "min", "max"),
    }
    return by_kind[kind]


def _marks(path: Path, spec: Mapping[str, Any]) -> tuple[Mark, ...]:
    return tuple(
        Mark(name, tuple(_mark_test(path, t) for t in tests_of(rule))) for name, rule in spec.items()
    )


def _mark_test(path: Path, spec: Mapping[str, Any]) -> MarkTest:
    values = spec.get("in", ())
    found = codes(path, values) if isinstance(values, str) else tuple(values)
    return MarkTest(tuple(spec["of"]), found, spec.get("above"), tuple(spec.get("without", ())))
