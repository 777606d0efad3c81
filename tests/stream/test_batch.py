"""A batch's records as columns: every one of them once, in its place, however they are cut into chunks."""

from __future__ import annotations

from aiokafka.structs import ConsumerRecord
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pytest import MonkeyPatch

from pipeline.stream import batch

CHUNK, MOST = 64, 300
HEADERS = (("content-type", b"application/cloudevents+json"),)
VALUES = st.lists(
    st.none() | st.binary(max_size=4) | st.text("aé", max_size=MOST).map(str.encode), min_size=1, max_size=400
)


def record(offset: int, value: bytes | None) -> ConsumerRecord:
    size = -1 if value is None else len(value)
    return ConsumerRecord("t", 0, offset, offset, 0, None, value, None, 0, size, HEADERS)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(values=VALUES)
def test_every_value_that_is_text_of_a_size_that_is_taken_comes_out_in_its_place(
    monkeypatch: MonkeyPatch, values: list[bytes | None]
) -> None:
    monkeypatch.setattr(batch, "CHUNK_BYTES", CHUNK)
    found = batch.topic_records([(0, [record(n, v) for n, v in enumerate(values)])], MOST)
    taken = [(n, v) for n, v in enumerate(values) if v is not None and len(v) <= MOST]
    expected = [(n, v.decode()) for n, v in taken if v.decode(errors="ignore").encode() == v]
    assert set(found.tables) <= {"cloudevents_structured"}
    rows = [row for table in found.tables.values() for row in table.select(["row", "value"]).to_pylist()]
    assert [(r["row"], r["value"]) for r in rows] == expected
