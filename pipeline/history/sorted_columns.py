"""The rows of an hour's segments as sorted columns.

DuckDB's sort moves every row with all its texts.  Here a text that repeats itself is a number, its place in a dictionary,
and sealing takes little more than half the time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.catalog import EventType
from pipeline.catalog.arrow_types import ARROW_TYPES, arrow_schema
from pipeline.ledger import files
from pipeline.ledger.stamped import Stamped
from pipeline.rollup.grid import GRID
from pipeline.views.published import PublishedTable

ROW_GROUP = 122_880
QUICK, DENSE = 1, 3
"""Levels of zstd.  Sealing keeps up with the intake: the quick one takes a tenth less of its time, for a hundredth more
bytes.  What is merged later is written once."""
FEW = 10_000
"""Texts of one column that are put into their order; of more, as of GPUs, it matters only that equal ones are neighbours."""


def columns_writer(
    segments: Sequence[Stamped], event: EventType, table: PublishedTable
) -> Callable[[Path], None] | None:
    """What writes and fsyncs the rows of `segments` with the columns of `table`, sorted by dimensions and entity, then as
    they came in.

    None where DuckDB is to do it: it reads segments of earlier versions, which have other columns, and says what is wrong
    with a file that cannot be read.
    """
    rows = _read(segments, event, table)
    if rows is None:
        return None
    place = _place(
        rows, [*(d.name for d in event.dimensions), *([event.entity.name] if event.entity else ())]
    )
    return None if place is None else partial(_write, rows, pc.sort_indices(place), event)


def _read(segments: Sequence[Stamped], event: EventType, table: PublishedTable) -> pa.Table | None:
    """The rows as they came in, each column in one piece; None as `columns_writer` says."""
    names = [name for name, _ in table.columns]
    own = arrow_schema((name, kind) for name, kind in table.columns if name != "known_from")
    repeated = [*(d.name for d in event.dimensions), "source"]
    for name in repeated:
        own = own.set(own.get_field_index(name), pa.field(name, pa.dictionary(pa.int32(), pa.string())))
    found = []
    try:
        for path, known_from in segments:
            rows = pq.read_table(path, read_dictionary=repeated)
            if rows.schema != own:
                return None
            found.append(_stamped(rows, known_from))
    except (OSError, pa.ArrowException):
        return None
    return pa.concat_tables(found).select(names).unify_dictionaries().combine_chunks()


def _write(rows: pa.Table, order: pa.Array, event: EventType, target: Path) -> None:
    """A row group at a time: all rows twice would be the most memory that sealing needs."""
    texts = [f.name for f in rows.schema if f.type == pa.string() or pa.types.is_dictionary(f.type)]
    with pq.ParquetWriter(
        target,
        rows.schema,
        compression="zstd",
        compression_level=QUICK,
        use_dictionary=[name for name in texts if event.entity is None or name != event.entity.name],
        store_schema=False,
    ) as out:
        for start in range(0, len(order), ROW_GROUP):
            out.write_table(rows.take(order.slice(start, ROW_GROUP)), ROW_GROUP)
    files.fsync(target)


def _stamped(rows: pa.Table, known_from: datetime | None) -> pa.Table:
    """With the instant from which each row counts, as `stamped_rows` has it."""
    grid = pa.scalar(GRID * 1_000_000, pa.duration("us"))
    ends = pc.add(pc.floor_temporal(rows["time"], GRID, "second"), grid)
    first = pa.scalar(known_from, ARROW_TYPES["TIMESTAMP"])
    return rows.append_column("known_from", pc.max_element_wise(ends, first))


def _place(rows: pa.Table, key: Sequence[str]) -> pa.Array | None:
    """A number for each row by which they are sorted; None where 63 bits do not suffice."""
    place, size = np.zeros(rows.num_rows, np.int64), 1
    for name in key:
        column = rows[name].combine_chunks()
        if not pa.types.is_dictionary(column.type):
            column = column.dictionary_encode()
        codes, count = column.indices, len(column.dictionary)
        if count <= FEW:
            ranks = np.empty(count, np.int64)
            ranks[pc.sort_indices(column.dictionary).to_numpy()] = np.arange(count)
            codes = pa.array(ranks).take(codes)
        size *= count + 1
        if size >= 2**63:
            return None
        place = place * (count + 1) + pc.fill_null(codes.cast(pa.int64()), count).to_numpy()
    return pa.array(place)
