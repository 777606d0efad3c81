"""A law: the fast way to samples agrees with the specification, for every format and mapping, met before or not."""

from __future__ import annotations

import json
import runpy
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import catalog
from pipeline.formats import otlp_json, telegraf
from pipeline.formats.point import Point, Undecodable, bounded
from pipeline.formats.registry import format_named
from pipeline.mappings.gather import Gathered, Gatherer
from pipeline.mappings.mapping_file import load_source_mapping
from pipeline.mappings.mapping_spec import Given
from pipeline.mappings.plans import PlannedGatherer

CATALOG = catalog.load()
FORMS = runpy.run_path(str(Path(__file__).parent / "test_forms_agree.py"))
CASES = Path(__file__).parent / "cases"
DCGM = load_source_mapping("dcgm", CATALOG)
values = st.integers(-5, 2**33) | st.floats(0, 1e9) | st.sampled_from([4294967295, 0.5, 1, 140737488355328.0])
RATIO = (
    "DCGM_FI_DEV_GPU_UTIL_RATIO",
    {"UUID": "GPU-1", "gpu": "0", "DCGM_FI_SYSTEM_DRIVER_VERSION": "580"},
)


def said(found: Gathered) -> Any:
    samples = [(s.topic, dict(s.data), s.time, s.interval, list(s.lacks)) for s in found.samples]
    return samples, dict(found.ignored)


@given(st.lists(FORMS["series"], min_size=1, max_size=4), st.sampled_from(sorted(FORMS["FORMS"])))
def test_what_is_remembered_of_a_series_changes_nothing(batches: list[Any], form: str) -> None:
    planned, specification = PlannedGatherer(DCGM, CATALOG), Gatherer(DCGM, CATALOG)
    for found in [*batches, *batches]:
        for message in FORMS["FORMS"][form](found):
            points = list(format_named(form.strip()).points(message))
            assert said(planned.gather(points)) == said(specification.gather(points))


@given(st.lists(st.lists(values, min_size=3, max_size=3), min_size=2, max_size=6))
def test_a_plan_holds_for_other_numbers_of_the_same_series(reports: list[list[float]]) -> None:
    labels = {"UUID": "GPU-7", "gpu": "0", "Hostname": "n"}
    given_ = Given(constants={"region": "eu"})
    planned, specification = PlannedGatherer(DCGM, CATALOG, given_), Gatherer(DCGM, CATALOG, given_)
    for time, (power, used, ratio) in enumerate(reports):
        points = [
            Point("DCGM_FI_DEV_POWER_USAGE", labels, power, time),
            Point("DCGM_FI_DEV_FB_USED", labels, used, time),
            Point(*RATIO, ratio, time),
        ]
        assert said(planned.gather(points)) == said(specification.gather(points))


@pytest.mark.parametrize("path", sorted(CASES.glob("*/expected.json")), ids=lambda p: p.parent.name)
def test_it_agrees_on_every_case(path: Path) -> None:
    for one in json.loads(path.read_text()):
        mapping, wire = load_source_mapping(one["mapping"], CATALOG), format_named(one["format"])
        given_ = Given(constants=one.get("constants", {}))
        planned, specification = PlannedGatherer(mapping, CATALOG, given_), Gatherer(mapping, CATALOG, given_)
        for name in one["files"] * 2:
            for message in wire.messages((path.parent / name).read_bytes()):
                points = list(wire.points(message))
                assert said(planned.gather(points)) == said(specification.gather(points))


def both(fast: Any, slow: Any, raw: bytes) -> tuple[Any, Any]:
    def of(read: Any) -> Any:
        try:
            return [
                (p.name, dict(p.labels), p.value, p.time, p.kind, p.digits, p.cumulative) for p in read(raw)
            ]
        except Undecodable as error:
            return error.reason

    return of(fast), of(slow)


def slowly(raw: bytes) -> Iterable[Point]:
    return bounded(otlp_json._points(otlp_json.json_object(raw)))


CHANGES = st.sampled_from(
    [
        (b'"asDouble"', b'"asInt"'),
        (b"1.5", b'"NaN"'),
        (b"1.5", b'"7"'),
        (b"1.5", b"null"),
        (b"1.5", b"true"),
        (b"1.5", b"[]"),
        (b'"timeUnixNano": "1', b'"timeUnixNano": "x1'),
        (b'"flags": 0', b'"flags": 1'),
        (b'"flags": 0', b'"flags": "1"'),
        (b'"gauge"', b'"sum"'),
        (b'"gauge"', b'"histogram"'),
        (b'"gauge"', b'"summary"'),
        (b'"stringValue"', b'"intValue"'),
        (b'"attributes"', b'"attribute"'),
        (b'"resource"', b'"resauce"'),
        (b"}", b"]"),
        (b'{"name"', b'{"nome"'),
    ]
)


@given(st.lists(CHANGES, max_size=3))
def test_the_fast_reader_of_otlp_agrees_with_the_slow_one(changes: list[tuple[bytes, bytes]]) -> None:
    point = {
        "attributes": [{"key": "UUID", "value": {"stringValue": "GPU-1"}}],
        "timeUnixNano": "1795461960250000000",
        "asDouble": 1.5,
        "flags": 0,
    }
    metric = {"name": "m", "gauge": {"dataPoints": [point, {**point, "asDouble": 2}]}}
    resource = {"attributes": [{"key": "k8s.node.name", "value": {"stringValue": "n"}}]}
    raw = json.dumps(
        {"resourceMetrics": [{"resource": resource, "scopeMetrics": [{"metrics": [metric]}]}]}
    ).encode()
    for old, new in changes:
        raw = raw.replace(old, new, 1)
    fast, slow = both(otlp_json.points, slowly, raw)
    assert fast == slow


@given(
    st.lists(
        st.sampled_from(
            [
                (b"81", b'"81"'),
                (b"81", b"null"),
                (b"81", b"true"),
                (b"81", b"[1]"),
                (b"81", b"NaN"),
                (b'"host"', b'"le"'),
                (b'"a"', b"3"),
                (b'"tags"', b'"tag"'),
                (b'"timestamp"', b'"time"'),
                (b"1795461960", b'"1795461960"'),
                (b"}", b""),
            ]
        ),
        max_size=3,
    )
)
def test_the_fast_reader_of_telegraf_agrees_with_the_slow_one(changes: list[tuple[bytes, bytes]]) -> None:
    raw = (
        b'{"name": "cpu", "tags": {"host": "a"}, "fields": {"gauge": 81, "x": 1.5}, "timestamp": 1795461960}'
    )
    for old, new in changes:
        raw = raw.replace(old, new, 1)
    fast, slow = both(telegraf.points, lambda value: bounded(telegraf._points(value)), raw)
    assert fast == slow
