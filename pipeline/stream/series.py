"""The series that a decoder has met: found by what stands for their dimensions, told with their names."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.catalog import EventType

NO_SERIES = 0
"""In place of a series: these dimensions are not what the schema says."""


class MetSeries:
    """`quoted` (64 bits of the dimensions as they stand in a message) → series and dimensions, as Arrow columns.

    A batch names its series by their places in these columns, so a dimension costs four bytes a sample however
    long its name is.
    """

    def __init__(self, event: EventType, most: int = 200_000) -> None:
        self._most = most
        names = [d.name for d in event.dimensions]
        self._met = pa.schema(
            [("quoted", pa.uint64()), ("series", pa.uint64()), *((name, pa.string()) for name in names)]
        ).empty_table()
        self._dimensions: dict[str, pa.DictionaryArray] = {}
        self.add(self._met)

    def add(self, met: pa.Table) -> None:
        """Remember `met(quoted, series, <dimensions>)`, of which none was met before."""
        self._met = pa.concat_tables([self._met, met.cast(self._met.schema)]).combine_chunks()
        self._dimensions = {
            name: pc.dictionary_encode(self._met[name].combine_chunks())
            for name in self._met.column_names[2:]
        }

    def make_room(self) -> None:
        """Before a batch: a stream of ever new series must not fill the memory, so beyond `most` all are met again."""
        if self._met.num_rows > self._most:
            self._met = self._met.slice(0, 0)
            self.add(self._met)

    def places(self, quoted: pa.ChunkedArray) -> pa.Int32Array:
        """Where each is; null for what was not met."""
        return pc.index_in(quoted, value_set=self._met["quoted"]).combine_chunks()

    def series(self, places: pa.Int32Array) -> pa.ChunkedArray:
        return self._met["series"].take(places)

    def dimensions(self, places: pa.Int32Array) -> dict[str, pa.DictionaryArray]:
        return {
            name: pa.DictionaryArray.from_arrays(of.indices.take(places), of.dictionary)
            for name, of in self._dimensions.items()
        }
