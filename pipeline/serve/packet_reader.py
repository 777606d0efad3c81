"""A packet of MySQL's protocol, read from its front: every read ends where the packet does."""

from __future__ import annotations

import struct
from typing import Any


class Short(ValueError):
    """A packet ends before what it announces."""


class PacketReader:
    """Reads a packet from its front.  Every method raises Short where the packet ends too early."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    @property
    def left(self) -> int:
        """Bytes that have not been read."""
        return len(self._data) - self._at

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        if count > self.left:
            raise Short(f"a packet ends {count - self.left:,} bytes before what it announces")
        self._at += count
        return self._data[self._at - count : self._at]

    def number(self, form: str) -> Any:
        """The next number, little endian, in a form of `struct`."""
        return struct.unpack("<" + form, self.take(struct.calcsize("<" + form)))[0]

    def sized(self) -> bytes:
        """The next bytes with their length in front."""
        first = self.number("B")
        size = {0xFC: "H", 0xFE: "Q"}.get(first)
        if first == 0xFD:
            return self.take(int.from_bytes(self.take(3), "little"))
        return self.take(self.number(size) if size else first)

    def to_zero(self) -> bytes:
        """The next bytes up to a zero, and past it."""
        end = self._data.find(b"\0", self._at)
        if end < 0:
            raise Short("a packet ends within a string, without the zero that ends it")
        found = self._data[self._at : end]
        self._at = end + 1
        return found
