"""Arrow IPC streams: many samples as columns, in a CloudEvent whose attributes are headers (binary mode).

The columns are the properties of the schema, `content-type: application/vnd.apache.arrow.stream`.
https://arrow.apache.org/docs/format/Columnar.html#ipc-streaming-format
"""

from __future__ import annotations

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
_FRAMES = (0xFD2FB528, 0x184D2204)
"""How a compressed buffer begins, after its length: zstd, LZ4."""


def rows(raw: bytes) -> list[dict[str, Any]]:
    """The samples of a stream, without what is null.  Raises Undecodable."""
    if _unpacked(raw) > MAX_BYTES:
        raise Undecodable(
            "arrow_too_large", "", "buffers that unpack to more", f"at most {MAX_BYTES:,} bytes"
        )
    found: list[dict[str, Any]] = []
    try:
        with pa.ipc.open_stream(raw) as reader:
            for batch in reader:
                batch.validate(full=True)
                if len(found) + batch.num_rows > MAX_ROWS or batch.nbytes > MAX_BYTES:
                    raise Undecodable("arrow_too_large", "", "more rows", f"at most {MAX_ROWS:,}")
                found += [
                    {name: value for name, value in row.items() if value is not None}
                    for row in batch.to_pylist()
                ]
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        if isinstance(error, Undecodable):
            raise
        raise Undecodable("not_arrow") from error
    return found


def _unpacked(raw: bytes) -> int:
    """What the compressed buffers say that they unpack to: a length of eight bytes stands before each frame."""
    words = np.frombuffer(raw[: len(raw) // 8 * 8], "<u8")
    lengths, frames = words[:-1], words[1:] & np.uint64(0xFFFFFFFF)
    packed = np.isin(frames, np.array(_FRAMES, np.uint64)) & (lengths > 0) & (lengths < 1 << 40)
    return int(lengths[packed].sum())
