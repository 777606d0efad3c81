"""Broken and hostile messages are refused in words, in bounded time and memory, whatever their format says."""

from __future__ import annotations

import contextlib
import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import MappingError
from pipeline.formats import entsoe, otlp_json, otlp_proto, telegraf, vector
from pipeline.formats.point import Undecodable
from pipeline.formats.point_format import PointFormat
from pipeline.formats.registry import format_named, point_formats

UNFOLDING = b'<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY lol "lol">]><lolz>&lol;</lolz>'
JUNK = [
    b"",
    b"\x00",
    b"\xff\xfe\xfd",
    b"\x1f\x8b\x08gzip",
    b"{",
    b"[1,2",
    b"null",
    b"[]",
    b"{}",
    b'"text"',
    b"[[[" * 2000,
    b'{"a":' * 5000,
    b'{"resourceMetrics": 3}',
    b'{"resourceMetrics": [3]}',
    b'{"resourceMetrics": [{"scopeMetrics": [{"metrics": [{"name": "a", "gauge": {"dataPoints": [{"asInt": "x"}]}}]}]}]}',
    b'{"name": 1, "tags": 2, "fields": 3}',
    b'{"name": "x", "fields": {"a": 1}, "tags": [1]}',
    b"<a>",
    UNFOLDING,
    b"NodeName=",
    b"a,b\n1\n",
    bytes(random.Random(7).randbytes(5000)),
]


@pytest.mark.parametrize("wire", point_formats(), ids=lambda f: f.name)
@pytest.mark.parametrize("raw", JUNK, ids=lambda raw: repr(raw[:24]))
def test_junk_is_refused_in_words_or_holds_no_point(wire: PointFormat, raw: bytes) -> None:
    try:
        assert len(list(wire.points(raw))) <= 3
    except Undecodable as error:
        assert error.reason and len(str(error)) < 400


@pytest.mark.parametrize("wire", point_formats(), ids=lambda f: f.name)
@given(raw=st.binary(max_size=200))
def test_no_bytes_end_a_decoder_with_anything_but_a_refusal(wire: PointFormat, raw: bytes) -> None:
    with contextlib.suppress(Undecodable):
        list(wire.points(raw))


DEEP = json.dumps({"resourceMetrics": []})[:-2] + "[" * 100_000


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(Undecodable):
        list(otlp_json.points(DEEP.encode()))


def test_a_protobuf_that_is_cut_off_is_refused() -> None:
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

    request = ExportMetricsServiceRequest()
    request.resource_metrics.add().scope_metrics.add().metrics.add(name="a").gauge.data_points.add(
        as_double=1.0
    )
    raw = request.SerializeToString()
    assert [p.value for p in otlp_proto.points(raw)] == [1.0]
    with pytest.raises(Undecodable, match="not_protobuf"):
        list(otlp_proto.points(raw[:-1]))


def test_a_histogram_whose_counts_and_bounds_do_not_belong_together_is_refused() -> None:
    point = {"bucketCounts": ["1", "2"], "explicitBounds": [1.0, 2.0], "timeUnixNano": "1795461960000000000"}
    metric = {"name": "h", "histogram": {"dataPoints": [point], "aggregationTemporality": 2}}
    raw = json.dumps({"resourceMetrics": [{"scopeMetrics": [{"metrics": [metric]}]}]}).encode()
    with pytest.raises(Undecodable, match="2 counts for 2 bounds"):
        list(otlp_json.points(raw))


def test_entities_that_unfold_into_a_billion_are_refused() -> None:
    with pytest.raises(Undecodable, match="a document type of its own"):
        list(entsoe.points(UNFOLDING))


def test_telegraf_lines_and_vector_values_say_what_is_wrong() -> None:
    with pytest.raises(Undecodable, match=r"line 1: .*expected field=value"):
        list(telegraf.points(b"cpu,host=a\n"))
    with pytest.raises(Undecodable, match="expected name, tags, timestamp"):
        list(vector.points(b'{"message": "a log line"}'))


def test_a_misspelt_format_is_refused_with_the_nearest() -> None:
    with pytest.raises(MappingError, match="did you mean 'prometheus'"):
        format_named("promethius")
