"""The law of the formats: of every message, good or broken, the fast path and the careful one make the same.

It runs over all event formats of `FORMATS` that have a fast path; those of points are in
`tests/formats/test_fast_points_law.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.catalog import EventType, load
from pipeline.formats import arrow_stream, registry
from pipeline.formats.registry import event_formats
from pipeline.ledger.registered import registered
from pipeline.stream.batch import stamp_of, topic_records
from pipeline.stream.decode import Decoder
from pipeline.stream.decoded import Decoded, met_series, receive
from pipeline.stream.inspect import inspect
from tests.stream import arrow_messages, json_messages, toy_events

CATALOG = load()
LIMIT = 20_000
MESSAGES: dict[str, Callable[[EventType], st.SearchStrategy[Any]]] = {
    "cloudevents_structured": json_messages.structured,
    "cloudevents_binary": json_messages.binary,
    "arrow": arrow_messages.streams,
}
"""Format → messages of an event type."""
FAST = [
    (wire.name, event.topic)
    for wire in event_formats()
    for event in CATALOG.types
    if wire.decode(event) is not None
]


def known_series(con: duckdb.DuckDBPyConnection, event: EventType, decoded: Decoded) -> str:
    """The table of all series that a connection's decoder has met so far."""
    name = f"known_series_{event.view}"
    with registered(con, "met", met_series(decoded)):
        con.execute(f"CREATE TEMP TABLE IF NOT EXISTS {name} AS FROM met LIMIT 0")
        con.execute(f"INSERT INTO {name} FROM met EXCEPT FROM {name}")
    return name


def fast(decoder: Decoder, con: duckdb.DuckDBPyConnection, event: EventType, parts: Any, limit: int) -> Any:
    """Rows and refusals of the decoder over one batch."""
    decoded = decoder.decode(topic_records(parts, limit))
    receive(con, event, decoded.samples)
    known = known_series(con, event, decoded)
    names = ", ".join(f'"{name}"' for name, _ in event.columns())
    rows = con.execute(
        f"SELECT row, idx, part, record_time, source, id, time, interval, {names} FROM batch_{event.view} "
        f"JOIN {known} USING (series) ORDER BY row, idx"
    ).fetchall()
    refusals = sorted((r.position, r.outcome.idx, r.outcome.fate, r.outcome.reason) for r in decoded.refusals)
    aside = decoded.aside.select(["row", "idx", "record_offset", "time", "source", "id", "field", "reason"])
    return [repr(row) for row in rows], refusals, sorted(map(repr, aside.to_pylist()))


def slow(event: EventType, records: list[Any], limit: int) -> Any:
    """The same by `inspect` alone."""
    rows, refusals, aside = [], [], []
    for position, one in enumerate(records):
        for o in inspect(event, one.value, one.headers, stamp_of(one.timestamp), limit):
            if o.fate == "aggregated":
                own = [o.row.get(name) for name, _ in event.columns()]
                head = (position, o.idx, one.partition, stamp_of(one.timestamp), o.source, o.id, o.time)
                rows.append(repr((*head, o.row["interval"], *own)))
                of = {"row": position, "idx": o.idx, "record_offset": one.offset, "time": o.time}
                of |= {"source": o.source, "id": o.id}
                aside += [repr({**of, "field": a.field, "reason": a.reason}) for a in o.aside]
            else:
                refusals.append((position, o.idx, o.fate, o.reason))
    return rows, refusals, sorted(aside)


def agrees(make: Any, event: EventType, found: list[tuple[bytes, Any]]) -> None:
    """Both paths make the same of a batch of these messages, and once more when their series are known."""
    records = [
        make.record(value, headers, topic=event.topic, offset=n) for n, (value, headers) in enumerate(found)
    ]
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        decoder = Decoder(con.cursor(), event, LIMIT)
        expected = slow(event, records, LIMIT)
        assert fast(decoder, con, event, [(0, records)], LIMIT) == expected
        assert fast(decoder, con, event, [(0, records)], LIMIT) == expected, "once the series are known"


@pytest.mark.parametrize(("wire", "topic"), FAST)
@settings(max_examples=15, suppress_health_check=list(HealthCheck))
@given(draw=st.data())
def test_the_fast_path_and_the_careful_one_agree_on_every_message(
    make: Any, wire: str, topic: str, draw: st.DataObject
) -> None:
    """A batch is mostly of one format, with others between."""
    event = CATALOG.by_topic(topic)
    others = st.one_of(*(of(event) for name, of in MESSAGES.items() if name != wire))
    messages = st.one_of(*[MESSAGES[wire](event)] * 5, others)
    agrees(make, event, draw.draw(st.lists(messages, min_size=1, max_size=30)))


def test_a_record_is_of_the_first_format_that_recognises_it(make: Any) -> None:
    arrow = ("content-type", b"application/vnd.apache.arrow.stream")
    cases = [
        (b"{}", [("Content-Type", b"Application/CloudEvents+json; charset=utf-8")], "cloudevents_structured"),
        (b"{}", [("content-type", b"a"), ("content-type", b"application/cloudevents")], "cloudevents_structured"),
        (arrow_stream.BEGINS, [arrow, ("ce_id", b"1")], "arrow"),
        (b"{}", [arrow], "cloudevents_binary"),
        (b"{}", [("content-type", b"application/json")], "cloudevents_binary"),
        (b"{}", [("content-type", None)], "cloudevents_binary"),
        (b"{}", [], "cloudevents_binary"),
    ]  # fmt: skip
    assert [registry.format_of(headers, value).name for value, headers, _ in cases] == [
        name for _, _, name in cases
    ]
    records = [make.record(value, headers, offset=n) for n, (value, headers, _) in enumerate(cases)]
    found = topic_records([(0, records)], LIMIT).tables
    assert {row: name for name, table in found.items() for row in table["row"].to_pylist()} == {
        n: name for n, (_, _, name) in enumerate(cases)
    }


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line in the registry; the file is `toy_events.py`."""
    monkeypatch.setattr(registry, "FORMATS", (toy_events.FORMAT, *registry.FORMATS))


def test_a_new_event_format_is_one_file_and_one_line(
    toy: None, pipeline: Any, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = [make.record(*toy_events.message(make.GPU, f"{n}"), offset=n) for n in range(3)]
    broken = make.record(b'["gpu.utilization.v1"]', toy_events.HEADERS, offset=3)
    pipeline.take(*good, broken)
    assert pipeline.sql("SELECT sum(samples)::INTEGER, max(power_watts_max) FROM partials_gpu_10s") == [
        (3, 700.5)
    ]
    assert pipeline.fates()["dead_lettered", "not_a_toy"] == 1
    monkeypatch.setattr("pipeline.stream.decode.inspect", None)  # the fast path alone
    pipeline.take(*[make.record(*toy_events.message(make.GPU, f"{n}"), offset=n) for n in range(4, 6)])
    assert pipeline.sql("SELECT sum(samples)::INTEGER FROM partials_gpu_10s") == [(5,)]


@settings(max_examples=15, suppress_health_check=list(HealthCheck))
@given(draw=st.data())
def test_the_law_holds_for_the_new_format(toy: None, make: Any, draw: st.DataObject) -> None:
    event = CATALOG.by_topic("telemetry.gpu")
    messages = st.one_of(*[toy_events.messages(event)] * 5, json_messages.structured(event))
    agrees(make, event, draw.draw(st.lists(messages, min_size=1, max_size=30)))


def test_good_columns_do_not_become_python_objects(monkeypatch: pytest.MonkeyPatch, make: Any) -> None:
    event = CATALOG.by_topic("telemetry.gpu")
    gpu = {"provider": "p", "region": "r", "site": "s", "cluster": "c", "sku": "k", "node": "n", "xid": 0}
    table = pa.Table.from_pylist([{**gpu, "gpu": f"GPU-{n}", "power_watts": 600.0 + n} for n in range(50)])
    out = pa.BufferOutputStream()
    with pa.ipc.new_stream(out, table.schema) as stream:
        stream.write_table(table)
    headers = [(f"ce_{name}", text.encode()) for name, text in {
        "specversion": "1.0", "type": event.type, "source": "/s", "id": "1", "time": "2026-09-21T13:33:20.123Z",
    }.items()]  # fmt: skip
    record = make.record(
        out.getvalue().to_pybytes(),
        (*headers, ("content-type", arrow_stream.CONTENT_TYPE)),
        topic=event.topic,
    )
    expected = slow(event, [record], LIMIT)
    assert len(expected[0]) == 50
    monkeypatch.setattr("pipeline.stream.decode.inspect", None)  # nothing of it is asked
    con = duckdb.connect()
    con.execute("SET TimeZone = 'UTC'")
    assert fast(Decoder(con.cursor(), event, LIMIT), con, event, [(0, [record])], LIMIT) == expected


def test_a_column_of_another_type_is_left_to_the_careful_path() -> None:
    event = CATALOG.by_topic("telemetry.gpu")
    table = pa.table({"gpu": ["GPU-1"], "power_watts": ["600"]})
    out = pa.BufferOutputStream()
    with pa.ipc.new_stream(out, table.schema) as stream:
        stream.write_table(table)
    assert arrow_stream.ArrowColumns(event).samples([0], [out.getvalue().to_pybytes()]) is None
