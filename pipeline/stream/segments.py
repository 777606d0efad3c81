"""The raw rows of a delta as private Parquet files, each whole and on the disk before its record can be committed."""

from __future__ import annotations

import secrets
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.catalog import EventType
from pipeline.formats.event_format import INTERVAL
from pipeline.ledger import files
from pipeline.rollup.delta import Segment


def raw_rows(event: EventType, samples: pa.Table) -> pa.Table:
    """The history's columns of `samples`; from which instant they count is decided when their delta is applied."""
    names = [name for name, _ in event.columns()]
    declared = () if event.retained else (INTERVAL,)
    return samples.select(["time", *names, "source", "id", "idx", *declared])


def write_raw(directory: Path, event: EventType, samples: pa.Table) -> Segment:
    """`write_segment` for the raw rows of at least one sample."""
    rows = raw_rows(event, samples)
    return write_segment(directory, event, event.view, event.topic, rows, rows["time"])


def write_segment(
    directory: Path, event: EventType, name: str, topic: str, rows: pa.Table, times: pa.ChunkedArray
) -> Segment:
    """Write and fsync at least one row of the records of `event`; `times` are those that say which hours the segment has.

    A file that lives for seconds is written fast: only what repeats itself is looked up in a dictionary, and only the
    time, which readers filter by, has statistics.
    Raises DiskFull.
    """
    path = directory / f"{name}-{secrets.token_hex(8)}.parquet"
    repeated = [f.name for f in rows.schema if pa.types.is_dictionary(f.type)]
    with files.disk_errors(path):
        pq.write_table(
            rows,
            path,
            compression="lz4",
            use_dictionary=[*repeated, "source"],
            write_statistics=["time"],
            store_schema=False,
        )
        files.fsync(path)
    low, high = pc.min_max(times).as_py().values()
    return Segment(path.name, topic, rows.num_rows, low, high, event.topic)
