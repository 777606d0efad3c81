"""A source's topic that carries our own events already, CloudEvents or Arrow batches: they are only told apart by type."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from aiokafka.structs import ConsumerRecord
from numpy.typing import NDArray

from pipeline.catalog import EventType
from pipeline.formats.event_format import Headers, content_types
from pipeline.formats.histograms import Differences
from pipeline.formats.lenient_json import read_json
from pipeline.formats.registry import formats_declared
from pipeline.stream.batch import Records, topic_records
from pipeline.stream.decode import Decoder
from pipeline.stream.decoded import Decoded


class EventTopicDecoder:
    """Decodes the records of one topic, batch by batch, in their order; `events`: the types that they may be of."""

    def __init__(self, events: Sequence[EventType], decoders: Mapping[str, Decoder], max_bytes: int) -> None:
        self._events, self._decoders, self._max_bytes = events, decoders, max_bytes
        self._numbers = {event.type: number for number, event in enumerate(events)}
        self.differences = Differences()
        self.ignored: Counter[str] = Counter()

    def decode(self, parts: Sequence[tuple[int, Records]], clock: float) -> list[Decoded]:
        """The records decoded, for each event type that has any.

        One that names no type of ours is handed to the first, which refuses it.
        """
        numbers = self._types(list(chain.from_iterable(records for _, records in parts)))
        found = []
        for number in np.unique(numbers).tolist():
            event = self._events[number]
            mine = parts if (numbers == number).all() else _only(parts, numbers == number)
            decoder = self._decoders[event.topic]
            found.append(decoder.decode(topic_records(mine, self._max_bytes, clock)))
        return found

    def _types(self, records: Records) -> NDArray[np.int64]:
        """The number of each record's type.

        A value in structured mode mostly has the name of one type in it, which costs no parse to see; it is opened where it
        has several, or none.
        """
        values = pa.array([record.value for record in records], pa.large_binary())
        named = [pc.match_substring(values, f'"{event.type}"').fill_null(False) for event in self._events]
        table = np.stack([column.to_numpy(zero_copy_only=False) for column in named])
        numbers: NDArray[np.int64] = table.argmax(axis=0)
        doubted = table.sum(axis=0) != 1
        headers = [record.headers for record in records]
        inside: dict[tuple[bytes, ...], bool] = {}
        alike = _inside(headers[0], inside) and headers.count(headers[0]) == len(headers)
        for place in np.flatnonzero(doubted).tolist() if alike else range(len(records)):
            record = records[place]
            if not _inside(record.headers, inside):
                numbers[place] = self._of_headers(record)
            elif doubted[place]:
                numbers[place] = self._of_value(record)
        return numbers

    def _of_headers(self, record: ConsumerRecord) -> int:
        said = {name.lower(): content for name, content in record.headers}
        return self._numbers.get((said.get("ce_type") or b"").decode("utf-8", "replace"), 0)

    def _of_value(self, record: ConsumerRecord) -> int:
        if record.value is None or len(record.value) > self._max_bytes:
            return 0
        try:
            found = read_json(record.value.decode("utf-8"))
        except ValueError:
            return 0
        said = found.get("type") if isinstance(found, dict) else None
        return self._numbers.get(said, 0) if isinstance(said, str) else 0


def _inside(headers: Headers, known: dict[tuple[bytes, ...], bool]) -> bool:
    """Whether a record with these headers has its type in its value; `known`: content types → the same."""
    types = content_types(headers)
    if types not in known:
        known[types] = not formats_declared(headers)[0].attributes_in_headers
    return known[types]


def _only(parts: Sequence[tuple[int, Records]], chosen: NDArray[np.bool_]) -> list[tuple[int, Records]]:
    """The chosen records of each partition, of all in their order."""
    kept: list[tuple[int, Records]] = []
    at = 0
    for part, records in parts:
        mine = [records[n] for n in np.flatnonzero(chosen[at : at + len(records)]).tolist()]
        at += len(records)
        if mine:
            kept.append((part, mine))
    return kept
