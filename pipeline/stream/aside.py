"""Measures that are set aside, as rows: by the SQL of `formats/aside_sql.py` for a batch, or one by one by the slow path."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
from aiokafka.structs import ConsumerRecord

from pipeline.stream.inspect import Outcome

ASIDE = pa.schema(
    [
        ("row", pa.int32()),
        ("idx", pa.int32()),
        ("part", pa.int32()),
        ("record_offset", pa.int64()),
        ("record_time", pa.timestamp("us")),
        ("time", pa.timestamp("us")),
        ("source", pa.string()),
        ("id", pa.string()),
        ("field", pa.string()),
        ("reason", pa.string()),
        ("text", pa.string()),
    ]
)
"""One row for each measure that is set aside; `text` is its JSON."""


def with_offsets(found: pa.Table, records: Sequence[ConsumerRecord]) -> pa.Table:
    """Rows of `aside_sql` as `ASIDE`, with the offsets of their records."""
    offsets = pa.array([records[row].offset for row in found["row"].to_pylist()], pa.int64())
    return found.append_column("record_offset", offsets).select(ASIDE.names).cast(ASIDE)


def aside_of(position: int, record: ConsumerRecord, at: Any, outcome: Outcome) -> Iterable[dict[str, Any]]:
    """The same for one sample that the slow path took in; `at` is its record's time."""
    for one in outcome.aside:
        yield {
            "row": position,
            "idx": outcome.idx,
            "part": record.partition,
            "record_offset": record.offset,
            "record_time": at,
            "time": outcome.time,
            "source": outcome.source,
            "id": outcome.id,
            "field": one.field,
            "reason": one.reason,
            "text": json.dumps(one.value, ensure_ascii=True),
        }
