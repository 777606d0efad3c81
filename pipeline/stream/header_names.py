"""Reading on where a record names a header in bytes that are no UTF-8.

Kafka's own clients put replacement characters there.  aiokafka raises, at every start anew, for the record
stays in the log.  Its compiled reader cannot be taught otherwise, its Python one can; it is several times
slower, so it is used only once such a record was met, and then for the life of the process.
"""

from __future__ import annotations

from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import _MemoryRecordsPy


class _Piece(bytes):
    """A slice of a record: its key, its value, or a header's name, which alone is decoded."""

    def decode(self, encoding: str = "utf-8", errors: str = "replace") -> str:
        return super().decode(encoding, "replace")


class _Buffer(bytearray):
    def __getitem__(self, at: Any) -> Any:
        found = super().__getitem__(at)
        return _Piece(found) if isinstance(at, slice) else found


class _Batch(_DefaultRecordBatchPy):  # type: ignore[misc]  # it is final, in a library that offers no other way
    _buffer: Any

    def __iter__(self) -> Any:
        super().__iter__()  # decompresses
        self._buffer = _Buffer(self._buffer)
        return self


class _Records(_MemoryRecordsPy):  # type: ignore[misc]  # as above
    def next_batch(self) -> Any:
        part = self._next_slice
        if part is None or len(part) <= self.MAGIC_OFFSET or part[self.MAGIC_OFFSET] < 2:
            return super().next_batch()
        self._cache_next()
        return _Batch(part)


def replace_undecodable() -> None:
    """From now on every consumer of this process reads header names with replacement characters."""
    fetcher.MemoryRecords = _Records
