"""The shipped schemas: they load, they are valid JSON Schema, and what they allow is what is aggregated."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, FormatChecker

from pipeline.catalog import Catalog, EventType, MarkTest, load, schema_directory
from pipeline.simulate.fleet import Fleet
from pipeline.simulate.scenarios import load as load_scenario
from pipeline.simulate.scenarios import names
from pipeline.stream.inspect import inspect

CATALOG = load()
SCHEMAS = {e.topic: json.loads((schema_directory() / f"{e.type}.json").read_text()) for e in CATALOG.types}
NOW = datetime(2026, 9, 21, 13, 33, 20)
HEADERS = [("content-type", b"application/cloudevents+json")]


def test_the_five_event_types_of_the_domain_are_there() -> None:
    found = {(e.topic, e.type, e.view, e.interval) for e in CATALOG.types}
    assert found == {
        ("telemetry.gpu", "gpu.utilization.v1", "gpu", 30),
        ("telemetry.queue", "queue.depth.v1", "queue", 30),
        ("telemetry.energy", "energy.reading.v1", "energy", 30),
        ("telemetry.billing", "billing.charge.v1", "billing", 3600),
        ("telemetry.deliveries", "billing.delivery.v1", "deliveries", 86_400),
    }


@pytest.mark.parametrize("path", sorted(schema_directory().glob("*.json")), ids=lambda p: p.name)
def test_every_schema_is_valid_json_schema_2020_12(path: Any) -> None:
    schema = json.loads(path.read_text())
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == path.name.replace(".frame.", ".")  # the frame becomes the schema of contracts
    Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("event", CATALOG.types, ids=lambda e: e.view)
def test_every_column_is_explained_and_every_number_has_its_unit(event: EventType) -> None:
    assert event.title and event.description
    assert all(column.description for column in (*event.fields, *event.measures))
    assert all(m.unit for m in event.measures if m.kind != "text")


def test_the_gpu_type_has_the_dimensions_and_marks_of_the_domain() -> None:
    gpu = CATALOG.by_view("gpu")
    assert [d.name for d in gpu.dimensions if not d.optional] == [
        "provider",
        "region",
        "site",
        "cluster",
        "sku",
    ]
    assert [d.name for d in gpu.dimensions if d.optional] == ["nvlink_domain", "data_class"]
    assert gpu.entity is not None and gpu.entity.name == "gpu"
    (health, xid), (activity,) = (mark.tests for mark in gpu.marks)
    assert [mark.name for mark in gpu.marks] == ["unhealthy", "in_use"]
    assert health == MarkTest(("health",), ("degraded", "failed"))
    assert xid.of == ("xid",) and xid.without == ("health",)
    assert activity == MarkTest(("engine_active_ratio", "utilization_ratio"), above=0.05)


def test_an_xid_is_fatal_where_nvidia_says_to_reset_the_gpu_and_not_where_an_application_failed() -> None:
    (_, xid), _ = (mark.tests for mark in CATALOG.by_view("gpu").marks)
    assert {48, 62, 64, 74, 79, 95, 119, 120, 140, 143} <= set(xid.values)
    assert not {0, 8, 13, 31, 32, 43, 45, 63, 69, 94, 137, 154} & set(xid.values)


def test_a_catalog_finds_types_by_view_and_by_topic() -> None:
    assert CATALOG.by_view("queue") is CATALOG.by_topic("telemetry.queue")
    for unknown in (CATALOG.by_view, CATALOG.by_topic):
        with pytest.raises(KeyError):
            unknown("nothing")


def value_of(spec: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values that a property's schema allows, its bounds included."""
    kind = spec["type"]
    if "enum" in spec:
        return st.sampled_from(spec["enum"])
    if spec.get("format") == "date-time":
        return st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31)).map(lambda t: t.isoformat() + "Z")
    if kind == "string":
        longest = spec.get("maxLength", 1000)
        text = st.text(min_size=spec.get("minLength", 0), max_size=min(20, longest))
        return text | st.sampled_from(["\U0001f525" * longest, "x" * longest])
    if kind == "object":
        return st.dictionaries(st.text(), st.text() | st.lists(st.integers()), max_size=3)
    if kind == "array":
        return st.lists(value_of(spec["items"]), max_size=4)
    if isinstance(kind, list):  # money
        return st.decimals(-(10**20), 10**20, places=10).flatmap(
            lambda d: st.sampled_from([str(d), float(d)])
        )
    low, high = spec["minimum"], spec["maximum"]
    whole = st.integers(int(low), int(high))
    return whole | st.sampled_from([low, high]) if kind == "integer" else whole | st.floats(low, high)


def sample_of(schema: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    specs = {name: value_of(spec) for name, spec in schema["properties"].items()}
    needed = {name: values for name, values in specs.items() if name in schema["required"]}
    spare = {name: values for name, values in specs.items() if name not in needed}
    return st.fixed_dictionaries(needed, optional=spare)


@pytest.mark.parametrize("topic", SCHEMAS)
@settings(max_examples=60)
@given(data=st.data())
def test_whatever_a_schema_allows_is_aggregated(topic: str, data: st.DataObject) -> None:
    schema, event = SCHEMAS[topic], CATALOG.by_topic(topic)
    sample = data.draw(sample_of(schema))
    Draft202012Validator(schema).validate(sample)
    message = {
        "specversion": "1.0",
        "id": "1",
        "source": "/s",
        "type": event.type,
        "time": "2026-09-21T13:33:20Z",
    }
    value = json.dumps({**message, "data": sample}).encode()
    (outcome,) = inspect(event, value, HEADERS, NOW, 10_000_000)
    assert (outcome.fate, outcome.reason) == ("aggregated", "")


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("arrays", [False, True])
def test_the_events_of_the_simulator_are_valid_and_aggregated(
    catalog: Catalog, name: str, arrays: bool
) -> None:
    scenario = load_scenario(name)
    start = int(datetime(2026, 9, 21, 13, tzinfo=UTC).timestamp())
    fleet = Fleet(scenario.fleet, scenario.seed, start, effects=tuple(scenario.effects), arrays=arrays)
    checkers = {
        topic: Draft202012Validator(schema, format_checker=FormatChecker())
        for topic, schema in SCHEMAS.items()
    }
    seen: set[str] = set()
    messages = list(fleet.events(start, start + 40))
    for message in messages[::7] + [m for m in messages if m.topic != "telemetry.gpu"][:300]:
        event = catalog.by_topic(message.topic)
        appended = datetime.fromtimestamp(message.time_ms / 1000, UTC).replace(tzinfo=None)
        for outcome in inspect(event, message.value, message.headers, appended, 1_000_000):
            assert outcome.fate == "aggregated", outcome
            checkers[message.topic].validate(outcome.sample)
        seen.add(message.topic)
    assert seen >= {"telemetry.gpu", "telemetry.queue", "telemetry.energy"}


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return CATALOG
