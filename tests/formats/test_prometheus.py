"""Prometheus text: the parser agrees with prometheus_client's, and refuses with the line what is none."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from pipeline.formats import prometheus
from pipeline.formats.histograms import assembled
from pipeline.formats.point import MAX_LABELS, Buckets, Undecodable

NAMES = st.from_regex(r"[a-zA-Z_:][a-zA-Z0-9_:]{0,20}", fullmatch=True)
LABELS = st.dictionaries(
    st.from_regex(r"[a-zA-Z][a-zA-Z0-9_]{0,10}", fullmatch=True),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)
    | st.sampled_from(['a"b', "a\\b", "a\nb", "a,b", "a}b"]),
    max_size=4,
)
VALUES = st.floats(allow_nan=False) | st.integers(-(10**9), 10**9)


def escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


@given(st.lists(st.tuples(NAMES, LABELS, VALUES), max_size=8))
def test_it_reads_what_prometheus_client_reads(series: list[tuple[str, dict[str, str], float]]) -> None:
    lines = []
    for name, labels, value in series:
        inside = ",".join(f'{k}="{escaped(v)}"' for k, v in labels.items())
        number = {math.inf: "+Inf", -math.inf: "-Inf"}.get(value, repr(value))
        lines.append(f"{name}{{{inside}}} {number}")
    text = "\n".join(lines) + "\n"
    ours = [
        (p.name, dict(p.labels), float(p.value))
        for p in prometheus.points(text.encode())
        if p.value is not None
    ]  # type: ignore[arg-type]
    theirs = [
        (s.name, s.labels, float(s.value)) for f in text_string_to_metric_families(text) for s in f.samples
    ]
    assert sorted(map(repr, ours)) == sorted(map(repr, theirs))


def test_it_reads_what_a_real_client_writes() -> None:
    registry = CollectorRegistry()
    Gauge("temperature", 'Of "the" room', ["room"], registry=registry).labels('a"\\\n').set(21.5)
    Counter("jobs", "Done", registry=registry).inc(3)
    wait = Histogram("wait_seconds", "Waits", buckets=(1, 5), registry=registry)
    for seconds in (0.5, 3, 4, 60):
        wait.observe(seconds)
    points = {p.name: p for p in assembled(prometheus.points(generate_latest(registry)))}
    assert points["temperature"].labels == {"room": 'a"\\\n'} and points["temperature"].value == 21.5
    assert (points["jobs_total"].value, points["jobs_total"].kind) == (3, "counter")
    assert points["wait_seconds"].value == Buckets((1.0, 5.0), (1, 2, 1))


def test_what_is_gone_has_no_value_and_infinity_is_one() -> None:
    points = list(prometheus.points(b"a NaN\nb +Inf\nc -Inf\n"))
    assert [p.value for p in points] == [None, math.inf, -math.inf]


def test_times_are_milliseconds_and_in_openmetrics_seconds() -> None:
    [point] = prometheus.points(b"up 1 1795461960250\n")
    assert point.time == 1_795_461_960_250_000
    [point] = prometheus.points(b"up 1 1795461960.25\n# EOF\n")
    assert point.time == 1_795_461_960_250_000


def test_digits_are_kept_as_they_were_printed() -> None:
    assert [p.digits for p in prometheus.points(b"a 1\nb 1.000000\n")] == ["1", "1.000000"]
    assert [p.value for p in prometheus.points(b"a 9223372036854775807\n")] == [9223372036854775807]


def test_names_in_quotes_are_read_as_prometheus_3_writes_them() -> None:
    [point] = prometheus.points(b'{"vllm:num.requests", "model.name"="m"} 3\n')
    assert (point.name, point.labels) == ("vllm:num.requests", {"model.name": "m"})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("up\n", "line 1: found '', expected a number after the name"),
        ("a 1\nup{a=} 1\n", "line 2: found 'a=} 1', expected a label"),
        ('up{a="b" 1\n', "expected a label"),
        ("up one\n", "line 1: found 'one', expected a number"),
        ("up 1_0\n", "found '1_0', expected a number"),
        ("<html>\n", "expected a number"),
    ],
)
def test_what_is_no_metric_is_refused_with_its_line(text: str, says: str) -> None:
    with pytest.raises(Undecodable) as refused:
        list(prometheus.points(text.encode()))
    assert says in str(refused.value)
    assert refused.value.reason == "not_prometheus_text"


def test_a_point_with_endless_labels_is_refused() -> None:
    labels = ",".join(f'l{i}="x"' for i in range(MAX_LABELS + 1))
    with pytest.raises(Undecodable, match="labels, expected at most"):
        list(prometheus.points(f"up{{{labels}}} 1\n".encode()))
    with pytest.raises(Undecodable, match="at most 4,096 characters"):
        list(prometheus.points(b'up{a="' + b"x" * 5000 + b'"} 1\n'))
