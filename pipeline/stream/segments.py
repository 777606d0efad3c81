"""The raw rows of a delta as private Parquet files, each whole and on the disk before its record can be committed."""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.catalog import EventType
from pipeline.ledger import files
from pipeline.rollup.delta import Segment
from pipeline.rollup.grid import GRID
from pipeline.stream.inspect import INTERVAL


def raw_rows(event: EventType, samples: pa.Table, known_from: datetime) -> pa.Table:
    """The history's columns of `samples`, with the first instant at which each row counts.

    `known_from` is the first instant not yet evaluated (naive UTC): what is said of partial roll-ups in
    `ledger/append.py` holds for the rows that they are of.
    """
    names = [name for name, _ in event.columns()]
    known = pa.repeat(pa.scalar(known_from, pa.timestamp("us")), samples.num_rows)
    declared: tuple[str, ...] = ()
    if not event.retained:  # of these a window counts once it is over
        window = pc.floor_temporal(samples["time"], GRID, "second")
        after = pc.add(window, pa.scalar(timedelta(seconds=GRID), pa.duration("us")))
        known, declared = pc.max_element_wise(after, known), (INTERVAL,)
    return samples.select(["time", *names, "source", "id", "idx", *declared]).append_column(
        "known_from", known
    )


def write_raw(directory: Path, event: EventType, samples: pa.Table, known_from: datetime) -> Segment:
    """`write_segment` for the raw rows of at least one sample."""
    rows = raw_rows(event, samples, known_from)
    return write_segment(directory, event.view, event.topic, rows, rows["time"])


def write_segment(directory: Path, name: str, topic: str, rows: pa.Table, times: pa.ChunkedArray) -> Segment:
    """Write and fsync at least one row; `times` are those that say which hours the segment has.

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
    return Segment(path.name, topic, rows.num_rows, low, high)
