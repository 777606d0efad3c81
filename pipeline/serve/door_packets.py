"""What clients send, read with a bound: every read ends where the packet does.

`mysql-mimic` writes our packets, but does not read theirs: its reader looks for the zero that ends a string, and where
there is none it never ends.  One such greeting, before any password, stopped the door for everybody.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from mysql_mimic.charset import CharacterSet, Collation
from mysql_mimic.types import Capabilities


class Short(ValueError):
    """A packet ends before what it announces."""


class Reader:
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


@dataclass(frozen=True, slots=True)
class Greeting:
    """A client's first packet, or its wish to be another user; `plugin`: how it would prove its password."""

    capabilities: Capabilities
    charset: CharacterSet
    user: str
    answer: bytes
    database: str = ""
    plugin: str = ""


def wants_tls(data: bytes) -> bool:
    """Whether a first packet is but the head of one, which asks for TLS."""
    return len(data) == _HEAD


_HEAD = 32
"""Capabilities, the client's own limit, its collation, and 23 zeros."""


def greeting(data: bytes, offered: Capabilities) -> Greeting:
    """The answer to our handshake, of a client that is offered these capabilities.  Raises ValueError, LookupError."""
    reader = Reader(data)
    capabilities = offered & Capabilities(reader.number("I"))
    reader.take(4)
    charset = _charset(reader.number("B"))
    reader.take(23)
    user = _text(reader.to_zero(), charset)
    sized = Capabilities.CLIENT_PLUGIN_AUTH_LENENC_CLIENT_DATA in capabilities
    answer = reader.sized() if sized else reader.take(reader.number("B"))
    database = reader.to_zero() if Capabilities.CLIENT_CONNECT_WITH_DB in capabilities else b""
    plugin = reader.to_zero() if Capabilities.CLIENT_PLUGIN_AUTH in capabilities else b""
    return Greeting(capabilities, charset, user, answer, _text(database, charset), _text(plugin, charset))


def change_of_user(data: bytes, capabilities: Capabilities, charset: CharacterSet) -> Greeting:
    """COM_CHANGE_USER of a client that spoke so until now.  Raises ValueError, LookupError."""
    reader = Reader(data)
    user = _text(reader.to_zero(), charset)
    secure = Capabilities.CLIENT_SECURE_CONNECTION in capabilities
    answer = reader.take(reader.number("B")) if secure else reader.to_zero()
    database = _text(reader.to_zero(), charset)
    if reader.left and Capabilities.CLIENT_PROTOCOL_41 in capabilities:
        charset = _charset(reader.number("H"))
    return Greeting(capabilities, charset, user, answer, database)


def field_list(data: bytes, charset: CharacterSet) -> str:
    """The table that COM_FIELD_LIST is about.  Raises ValueError."""
    return _text(Reader(data).to_zero(), charset)


def _charset(collation: int) -> CharacterSet:
    charset: CharacterSet = Collation(collation).charset
    "".encode(charset.codec)  # LookupError: MySQL has some that Python has not
    return charset


def _text(data: bytes, charset: CharacterSet) -> str:
    return data.decode(charset.codec)
