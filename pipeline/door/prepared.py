"""The prepared statements of one connection: their texts, their parameters' types, and what was sent ahead of time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.door import parameters
from pipeline.door.framing import Malformed
from pipeline.door.mysql_errors import NO_STATEMENT, TOO_MANY_STATEMENTS, ClientError
from pipeline.door.query_check import MAX_LENGTH

STATEMENTS = 1000
TEXTS = 2 * 2**20
"""So many may be open at once, and so many characters may they have."""
PIECE = 16
"""What a piece of a parameter counts beyond its bytes: pieces of nothing take memory, too."""


@dataclass(slots=True)
class Prepared:
    """One of them; `count` parameters."""

    number: int
    sql: str
    count: int
    kinds: Sequence[parameters.Kind] = ()
    long_data: dict[int, bytes] = field(default_factory=dict)
    ahead: int = 0
    """What `long_data` counts."""

    def values(self, data: bytes, codec: str) -> list[Any]:
        """The parameters of one execution; what was sent ahead is used up, and the types are kept for the next one."""
        long_data = self.take()
        if not self.count:
            return []
        values, self.kinds = parameters.read(data, self.count, self.kinds, long_data, codec)
        return values

    def keep(self, number: int, piece: bytes) -> None:
        """A piece of a parameter, ahead of time."""
        self.long_data[number] = self.long_data.get(number, b"") + piece
        self.ahead += len(piece) + PIECE

    def take(self) -> dict[int, bytes]:
        """What was sent ahead, which is forgotten."""
        long_data, self.long_data, self.ahead = self.long_data, {}, 0
        return long_data


class PreparedStatements:
    """All of them, by the number that the client knows them by; the first four bytes of its packets."""

    def __init__(self) -> None:
        self._open: dict[int, Prepared] = {}
        self._last = 0

    def refuse_more(self, sql: str) -> None:
        """Raises ClientError when no further one may be opened, or not with so long a text."""
        characters = sum(len(one.sql) for one in self._open.values()) + len(sql)
        if len(self._open) >= STATEMENTS or characters > TEXTS:
            raise ClientError(
                TOO_MANY_STATEMENTS, f"{len(self._open)} statements are prepared already; close some"
            )

    def add(self, sql: str, count: int) -> Prepared:
        """Opens one."""
        self._last += 1
        self._open[self._last] = Prepared(self._last, sql, count)
        return self._open[self._last]

    def found(self, data: bytes) -> Prepared:
        """The one that a packet is about.  Raises ClientError."""
        number = int.from_bytes(data[:4], "little")
        if (statement := self._open.get(number)) is None:
            raise ClientError(NO_STATEMENT, f"no statement {number} is prepared here")
        return statement

    def values(self, data: bytes, codec: str) -> tuple[str, list[Any]]:
        """(text, parameters) of a COM_STMT_EXECUTE.  Raises ClientError, QueryError."""
        statement = self.found(data)
        return statement.sql, statement.values(data[9:], codec)

    def keep_long_data(self, data: bytes) -> None:
        """A piece of a parameter.  No answer is due, not even to say what is wrong.  Raises Malformed."""
        statement = self._open.get(int.from_bytes(data[:4], "little"))
        number = int.from_bytes(data[4:6], "little")
        if statement is None or number >= statement.count:
            return
        statement.keep(number, data[6:])
        if sum(one.ahead for one in self._open.values()) > MAX_LENGTH:
            raise Malformed(f"parameters of more than {MAX_LENGTH:,} bytes")

    def reset(self, data: bytes) -> None:
        """Forgets the pieces of one.  Raises ClientError."""
        self.found(data).take()

    def close(self, data: bytes) -> None:
        """Forgets one."""
        self._open.pop(int.from_bytes(data[:4], "little"), None)
