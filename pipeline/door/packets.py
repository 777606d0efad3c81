"""What clients send, read with a bound: every read ends where the packet does.

`mysql-mimic` writes our packets, but does not read theirs: its reader looks for the zero that ends a string, and where
there is none it never ends.  One such greeting, before any password, stopped the door for everybody.
"""

from __future__ import annotations

from dataclasses import dataclass

from mysql_mimic.charset import CharacterSet, Collation
from mysql_mimic.types import Capabilities

from pipeline.serve.packet_reader import PacketReader


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
    reader = PacketReader(data)
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
    reader = PacketReader(data)
    user = _text(reader.to_zero(), charset)
    secure = Capabilities.CLIENT_SECURE_CONNECTION in capabilities
    answer = reader.take(reader.number("B")) if secure else reader.to_zero()
    database = _text(reader.to_zero(), charset)
    if reader.left and Capabilities.CLIENT_PROTOCOL_41 in capabilities:
        charset = _charset(reader.number("H"))
    return Greeting(capabilities, charset, user, answer, database)


def field_list(data: bytes, charset: CharacterSet) -> str:
    """The table that COM_FIELD_LIST is about.  Raises ValueError."""
    return _text(PacketReader(data).to_zero(), charset)


def _charset(collation: int) -> CharacterSet:
    charset: CharacterSet = Collation(collation).charset
    "".encode(charset.codec)  # LookupError: MySQL has some that Python has not
    return charset


def _text(data: bytes, charset: CharacterSet) -> str:
    return data.decode(charset.codec)
