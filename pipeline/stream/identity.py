"""One spelling for one GPU: UUIDs come with `GPU-` and without, in upper and in lower case, or as no identity at all.

`spelt` is the specification; `Spelling` does the same for a batch.  Names that are no UUID stay as they are.
"""

from __future__ import annotations

import re

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.catalog import EventType

_FORM = "(GPU-)?[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_UUID = re.compile(_FORM, re.ASCII | re.IGNORECASE)
_NONE = re.compile(r"(GPU-)?0{8}-?0{4}-?0{4}-?0{4}-?0{12}", re.ASCII | re.IGNORECASE)
PREFIX = "GPU-"


def spelt(name: str) -> str | None:
    """The name in its one spelling; None when it identifies nothing: a UUID of zeros.

    >>> spelt("0001F2C3-0C43-4E0A-8A6E-61D9F0A2C001"), spelt("GPU-b-1"), spelt("GPU-00000000-0000-0000-0000-000000000000")
    ('GPU-0001f2c3-0c43-4e0a-8a6e-61d9f0a2c001', 'GPU-b-1', None)
    """
    if _NONE.fullmatch(name):
        return None
    return PREFIX + name[-36:].lower() if _UUID.fullmatch(name) else name


def stands_for(name: str | None, host: str | None, number: str | None, place: int | None) -> str | None:
    """The name in its one spelling, else host and number; `place` in the array stands for the number, if there is one."""
    if name and (one := spelt(name)):
        return one
    number = str(place) if number is None and place is not None else number
    return None if host is None or number is None else f"{host}/{number}"


def identifies_sql(text: str) -> str:
    """True for the JSON text of a name that surely identifies something."""
    return f"""NOT ends_with({text}, '000000000000"')"""


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
        spelling = f"CASE WHEN regexp_full_match({name}, '{_FORM}', 'i') THEN '{PREFIX}' || lower({name}[-36:]) ELSE {name} END"
        self._con.register("named", parsed)
        try:
            found = self._con.sql(f"SELECT * REPLACE ({spelling} AS {name}) FROM named").to_arrow_table()
        finally:
            self._con.unregister("named")
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
