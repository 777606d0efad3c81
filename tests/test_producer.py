"""The producer for telemetry of one's own: what it writes is good on both paths, and the same again is the same event."""

from __future__ import annotations

import ast
import contextlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline import catalog, producer
from pipeline.formats import arrow_stream
from pipeline.formats.point import Undecodable
from pipeline.producer import TOPICS, KafkaMessage, Producer, arrow_message, message
from pipeline.stream.inspect import inspect

AT = datetime(2026, 11, 23, 19, 26, 0, 250_000, UTC)
GPU = {
    "provider": "halcyon",
    "region": "eu-west",
    "site": "ams-02",
    "cluster": "ams-h1",
    "sku": "H100",
    "gpu": "GPU-1",
    "node": "node-0042",
    "power_watts": 634.5,
}


@pytest.mark.parametrize("samples", [[GPU], [GPU, {**GPU, "gpu": "GPU-2"}]])
def test_what_it_writes_is_taken_in(samples: list[dict[str, Any]]) -> None:
    found = message("gpu.utilization.v1", "/agents/node-0042", samples, AT, interval=15)
    event = catalog.load().by_topic(found.topic)
    outcomes = list(inspect(event, found.value, found.headers, AT.replace(tzinfo=None), 1 << 20))
    assert [(o.fate, o.row["power_watts"], o.row["interval"]) for o in outcomes] == [
        ("aggregated", 634.5, 15)
    ] * len(samples)
    assert found.key == b"/agents/node-0042"


def test_the_same_again_has_the_same_id_and_another_time_or_value_has_not() -> None:
    def id_of(sample: dict[str, Any], at: datetime) -> str:
        return str(json.loads(message("gpu.utilization.v1", "/a", [sample], at).value)["id"])

    assert id_of(GPU, AT) == id_of(dict(reversed(GPU.items())), AT)
    assert (
        len({id_of(GPU, AT), id_of({**GPU, "power_watts": 1.0}, AT), id_of(GPU, AT.replace(second=1))}) == 3
    )


@pytest.mark.parametrize(
    ("type_", "samples", "at", "says"),
    [
        ("gpu.v1", [GPU], AT, "found 'gpu.v1', expected one of gpu.utilization.v1"),
        ("gpu.utilization.v1", [], AT, "expected at least one"),
        ("gpu.utilization.v1", [GPU], AT.replace(tzinfo=None), "expected one with a zone"),
        ("gpu.utilization.v1", [{**GPU, "power_watts": float("nan")}], AT, "JSON"),
    ],
)
def test_what_would_be_refused_is_not_made(type_: str, samples: Any, at: datetime, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        message(type_, "/a", samples, at)


def test_an_arrow_batch_becomes_the_same_rows_as_json() -> None:
    samples = [GPU, {**GPU, "gpu": "GPU-2", "xid": 79, "health": "failed"}]
    event = catalog.load().by_topic("telemetry.gpu")

    def taken(found: KafkaMessage) -> list[Any]:
        at = AT.replace(tzinfo=None)
        return [
            (o.fate, o.id, o.time, o.row) for o in inspect(event, found.value, found.headers, at, 1 << 20)
        ]

    as_json = taken(message("gpu.utilization.v1", "/a", samples, AT, interval=15))
    assert taken(arrow_message("gpu.utilization.v1", "/a", samples, AT, interval=15)) == as_json
    assert [fate for fate, *_ in as_json] == ["aggregated", "aggregated"]


def test_of_a_large_batch_only_what_is_in_doubt_is_opened_one_by_one() -> None:
    samples = [{**GPU, "gpu": f"GPU-{n}"} for n in range(1000)]
    samples[700] = {**GPU, "gpu": "GPU-700", "power_watts": -5.0}
    event, at = catalog.load().by_topic("telemetry.gpu"), AT.replace(tzinfo=None)
    found = arrow_message("gpu.utilization.v1", "/a", samples, AT)
    certain = set(range(1000)) - {700}
    (opened,) = inspect(event, found.value, found.headers, at, 1 << 20, certain=certain)
    assert (opened.idx, opened.fate, opened.row["gpu"]) == (700, "aggregated", "GPU-700")
    assert [each.field for each in opened.aside] == ["power_watts"]


def test_an_arrow_value_that_python_does_not_have_is_of_another_type_and_its_neighbours_live() -> None:
    event, at = catalog.load().by_topic("telemetry.gpu"), AT.replace(tzinfo=None)
    found = arrow_message("gpu.utilization.v1", "/a", [{**GPU, "gpu": f"GPU-{n}"} for n in range(100)], AT)
    years = pa.array([0] * 41 + [2**62] + [0] * 58, pa.timestamp("us"))
    for column, fates in (("made_at", set()), ("data_class", {(41, "dead_lettered", "data_class_mistyped")})):
        table = arrow_stream.table(found.value).append_column(column, years)
        if fates:
            texts = pc.if_else(pc.equal(years, years[0]), None, years)
            table = table.set_column(table.num_columns - 1, column, texts)
        out = pa.BufferOutputStream()
        with pa.ipc.new_stream(out, table.schema) as stream:
            stream.write_table(table)
        outcomes = list(inspect(event, out.getvalue().to_pybytes(), found.headers, at, 1 << 20))
        refused = {(o.idx, o.fate, o.reason) for o in outcomes if o.fate != "aggregated"}
        assert refused == fates and len(outcomes) == 100


@pytest.mark.parametrize("codec", ["zstd", "lz4"])
@pytest.mark.parametrize("padding", [0, 1, 4])
def test_an_arrow_bomb_is_refused_before_it_is_unpacked_wherever_its_body_begins(
    codec: str, padding: int
) -> None:
    table = pa.table({"gpu": pa.array(["x" * 1000] * 90_000)})
    out = pa.BufferOutputStream()
    with pa.ipc.new_stream(out, table.schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as stream:
        stream.write_table(table)
    raw = out.getvalue().to_pybytes()
    # a message: ff ff ff ff, the length of its metadata, the metadata, the body; the first is the schema
    rows = 8 + int.from_bytes(raw[4:8], "little")
    length = int.from_bytes(raw[rows + 4 : rows + 8], "little")
    body = rows + 8 + length
    told = (length + padding).to_bytes(4, "little")
    padded = raw[: rows + 4] + told + raw[rows + 8 : body] + bytes(padding) + raw[body:]
    with pytest.raises(Undecodable, match="at most 67,108,864 bytes"):
        arrow_stream.table(padded)


@given(st.binary(max_size=300), st.integers(0, 400))
@example(b"\x80", 284)  # the name of a column is no text
def test_a_broken_arrow_stream_is_refused_in_words(junk: bytes, cut: int) -> None:
    good = arrow_message("gpu.utilization.v1", "/a", [GPU], AT).value
    for raw in (b"\xff\xff\xff\xff" + junk, good[:cut], good[:cut] + junk + good[cut + len(junk) :]):
        with contextlib.suppress(Undecodable):
            list(arrow_stream.Rows(arrow_stream.table(raw)))


def test_it_knows_the_topic_of_every_type() -> None:
    types = {event.type: event.topic for event in catalog.load().types}
    assert TOPICS.items() <= types.items()


def test_it_needs_nothing_of_the_pipeline() -> None:
    tree = ast.parse(Path(producer.__file__).read_text("utf-8"))
    names = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert not [name for name in names if name and name.startswith("pipeline")]


def test_it_sends_to_a_real_broker(kafka: Any, telemetry_topics: Any) -> None:
    from kafka import KafkaConsumer, TopicPartition

    telemetry_topics(partitions=1)
    with Producer(kafka.bootstrap, source="/agents/node-0042") as out:
        out.send("gpu.utilization.v1", [GPU, {**GPU, "gpu": "GPU-2"}], AT)
        out.send("gpu.utilization.v1", [GPU])
    consumer = KafkaConsumer(bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest")
    try:
        consumer.assign([TopicPartition("telemetry.gpu", 0)])
        consumer.seek_to_beginning()
        found: list[Any] = []
        while len(found) < 2:
            found += [r for records in consumer.poll(timeout_ms=1000).values() for r in records]
    finally:
        consumer.close()
    first = message("gpu.utilization.v1", "/agents/node-0042", [GPU, {**GPU, "gpu": "GPU-2"}], AT)
    assert (found[0].key, found[0].value, tuple(found[0].headers)) == (first.key, first.value, first.headers)
