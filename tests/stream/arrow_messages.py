"""Arrow streams, good and broken, as Hypothesis draws them for the law of the formats."""

from __future__ import annotations

from decimal import Decimal

import pyarrow as pa
from hypothesis import strategies as st

from pipeline.catalog import EventType, Field, Measure
from pipeline.formats import arrow_stream
from tests.stream.json_messages import ATTRIBUTES, INTERVALS, QUIET, Header

TEXT_TYPES = (pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string()))
ODD_TEXTS = (
    None,
    "",
    "c2",
    "x" * 257,
    "😀" * 65,
    'a"b',
    "a\\b",
    "a\x00b",
    "GPU-00000000-0000-0000-0000-000000000000",
)
ODD_NUMBERS = (None, 0.0, -0.0, -1.0, 0.5, 3.7, 1e-400, 4294967295.0, 1e300, float("nan"), float("inf"))
NUMBER_TYPES = (pa.float64(), pa.float32(), pa.int64(), pa.int8(), pa.uint64(), pa.float16())
ODD_COLUMNS = (
    pa.array([True, False]), pa.array(["0.5", "N/A"]), pa.array([1, 2**63 - 1]), pa.array([None, None]),
    pa.array([[0.5], [float("nan"), 600.0]]), pa.array([2**64 - 1, 1], pa.uint64()), pa.array([b"c1", b"\xff"]),
    pa.array([{"a": b"1"}, {"a": b"2"}]), pa.array([0, 1], pa.timestamp("us")), pa.array([Decimal("0.5"), None]),
    pa.array([7, 999_999_999]), pa.array([-7, 10**9]),
)  # fmt: skip
"""Columns of types that the schema does not have, cut or repeated to the length that is needed."""


@st.composite
def columns(draw: st.DrawFn, column: Field | Measure, count: int) -> pa.Array:
    """One column of `count` samples, most often a good one."""
    if draw(st.integers(0, 24)) == 0:
        odd = draw(st.sampled_from(ODD_COLUMNS))
        return odd.take(pa.array([n % 2 for n in range(count)], pa.int8()))
    spoilt = st.lists(st.integers(0, 11), min_size=count, max_size=count).map(
        lambda found: [n == 0 for n in found]
    )
    bad = draw(spoilt)
    if isinstance(column, Measure) and column.kind == "number":
        low, high = max(float(column.minimum or 0), -100.0), min(float(column.maximum or 0), 100.0)
        kind = draw(st.sampled_from(NUMBER_TYPES))
        values = [
            draw(st.sampled_from(ODD_NUMBERS)) if b else draw(st.floats(low, high, width=16)) for b in bad
        ]
        if column.integer or pa.types.is_integer(kind):
            values = [v if v is None or v != v or v in (3.7, float("inf")) else float(int(v)) for v in values]
        try:
            return pa.array(values, pa.float64()).cast(kind)
        except pa.ArrowException:
            return pa.array(values, pa.float64())
    if isinstance(column, Measure) and column.kind == "histogram":
        return pa.array([[0.5, 30.0]] * count, pa.list_(pa.float64()))
    good = column.enum or ("c1", "GPU-1", "São Paulo")
    texts = [draw(st.sampled_from(ODD_TEXTS)) if b else draw(st.sampled_from(good)) for b in bad]
    return pa.array(texts, pa.string()).cast(draw(st.sampled_from(TEXT_TYPES)))


@st.composite
def streams(draw: st.DrawFn, event: EventType) -> tuple[bytes, tuple[Header, ...]]:
    """(value, headers) of a message in binary mode that holds an Arrow stream."""
    count = draw(st.integers(0, 5))
    own = [c for c in (*event.fields, *event.measures) if not c.optional or draw(st.booleans())]
    if draw(st.integers(0, 14)) == 0:
        own = own[1:]
    table = pa.table({c.name: draw(columns(c, count)) for c in own} | {"undeclared": pa.nulls(count)})
    out = pa.BufferOutputStream()
    with pa.ipc.new_stream(out, table.schema) as stream:
        stream.write_table(table)
    value = out.getvalue().to_pybytes()
    if draw(st.integers(0, 19)) == 0:
        value = value[: draw(st.integers(0, len(value)))]
    odd = draw(st.sampled_from([False] * 4 + [True]))
    attributes = {**ATTRIBUTES, **({} if odd else QUIET), "type": st.just(event.type)}
    headers: list[Header] = [(f"ce_{name}", draw(values).encode()) for name, values in attributes.items()]
    headers += [("ce_interval", text.encode()) for text in draw(st.lists(INTERVALS, max_size=1))]
    said = st.sampled_from([arrow_stream.CONTENT_TYPE] * 9 + [b"application/json"])
    return value, (*headers, ("content-type", draw(said)))
