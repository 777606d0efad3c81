"""One spelling for the GPUs of a batch, as `formats/gpu_uuid.py` spells one."""

from __future__ import annotations

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.catalog import EventType
from pipeline.formats.gpu_uuid import FORM, PREFIX
from pipeline.ledger.registered import executed, registered


class Spelling:
    """Puts the entity of decoded rows into its one spelling.

    Nearly always all have it already, and to see that costs 10 ns a row: each begins with `GPU-`, and there are no
    other capitals.
    """

    def __init__(self, con: duckdb.DuckDBPyConnection, event: EventType) -> None:
        self._con = con
        self._name = event.entity.name if event.entity and event.entity.form else None

    def mend(self, parsed: pa.Table) -> pa.Table:
        """`parsed` with the entity spelt; NULL stays NULL."""
        if self._name is None or _is_spelt(parsed[self._name]):
            return parsed
        name = self._name
        spelling = f"CASE WHEN regexp_full_match({name}, '{FORM}', 'i') THEN '{PREFIX}' || lower({name}[-36:]) ELSE {name} END"
        with registered(self._con, "named", parsed):
            found = executed(self._con, f"SELECT * REPLACE ({spelling} AS {name}) FROM named")
        return found.cast(parsed.schema)


def _is_spelt(names: pa.ChunkedArray) -> bool:
    found = pc.starts_with(names, PREFIX)
    rows = len(names) - names.null_count
    return bool(pc.all(found, min_count=0).as_py()) and sum(map(_capitals, names.chunks)) == 3 * rows


def _capitals(names: pa.Array) -> int:
    """How many bytes of the texts are A to Z; those of rows that are NULL are counted too, and then all are looked at."""
    if not len(names):
        return 0
    wide = pa.types.is_large_string(names.type)
    offsets = pa.Array.from_buffers(
        pa.int64() if wide else pa.int32(), len(names) + 1, [None, names.buffers()[1]], offset=names.offset
    )
    low, high = offsets[0].as_py(), offsets[len(names)].as_py()
    letters = pa.Array.from_buffers(pa.uint8(), high - low, [None, names.buffers()[2]], offset=low)
    capital = pc.less(pc.subtract(letters, pa.scalar(65, pa.uint8())), pa.scalar(26, pa.uint8()))
    return pc.sum(capital).as_py() or 0
