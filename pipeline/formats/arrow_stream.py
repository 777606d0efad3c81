"""Arrow IPC streams: many samples as columns, in a CloudEvent whose attributes are headers (binary mode).

The columns are the properties of the schema, `content-type: application/vnd.apache.arrow.stream`.
https://arrow.apache.org/docs/format/Columnar.html#ipc-streaming-format
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.formats.point import Undecodable

CONTENT_TYPE = b"application/vnd.apache.arrow.stream"
BEGINS = b"\xff\xff\xff\xff"
"""How every message of a stream begins."""
MAX_ROWS = 100_000
MAX_BYTES = 64 << 20
"""Bytes of all columns, once they are unpacked."""
_FRAMES = (b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18")
"""How a compressed buffer begins, after its length: zstd, LZ4."""


def rows(raw: bytes) -> list[dict[str, Any]]:
    """The samples of a stream, without what is null.  Raises Undecodable."""
    try:
        found = table(raw).to_pylist()
    except (pa.ArrowException, ValueError, OverflowError) as error:
        if isinstance(error, Undecodable):
            raise
        raise Undecodable("not_arrow") from error
    return [{name: _plain(value) for name, value in row.items() if value is not None} for row in found]


def _plain(value: Any) -> Any:
    """The value as JSON could say it: exact decimals as text, and of what JSON has no word for, its type."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    return {"arrow": type(value).__name__}


def table(raw: bytes) -> pa.Table:
    """The samples of a stream as columns.  Raises Undecodable."""
    if _unpacked(raw) > MAX_BYTES:
        raise Undecodable(
            "arrow_too_large", "", "buffers that unpack to more", f"at most {MAX_BYTES:,} bytes"
        )
    batches: list[pa.RecordBatch] = []
    count = 0
    try:
        with pa.ipc.open_stream(raw) as reader:
            for batch in reader:
                batch.validate(full=True)
                count += batch.num_rows
                if count > MAX_ROWS or batch.nbytes > MAX_BYTES:
                    raise Undecodable("arrow_too_large", "", "more rows", f"at most {MAX_ROWS:,}")
                batches.append(batch)
            return pa.Table.from_batches(batches, reader.schema)
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        if isinstance(error, Undecodable):
            raise
        raise Undecodable("not_arrow") from error


def _unpacked(raw: bytes) -> int:
    """What the compressed buffers say that they unpack to: a length of eight bytes stands before each frame."""
    if not any(frame in raw for frame in _FRAMES):
        return 0
    words = np.frombuffer(raw[: len(raw) // 8 * 8], "<u8")
    lengths, frames = words[:-1], words[1:] & np.uint64(0xFFFFFFFF)
    packed = np.logical_or.reduce([frames == int.from_bytes(frame, "little") for frame in _FRAMES])
    return int(lengths[packed & (lengths > 0) & (lengths < 1 << 40)].sum())
