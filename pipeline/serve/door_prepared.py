"""The prepared statements of one connection: their texts, their parameters' types, and what was sent ahead of time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.serve import door_parameters
from pipeline.serve.door_check import MAX_LENGTH
from pipeline.serve.door_errors import NO_STATEMENT, TOO_MANY_STATEMENTS, Refused
from pipeline.serve.door_wire import Malformed

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
    kinds: Sequence[door_parameters.Kind] = ()
    long_data: dict[int, bytes] = field(default_factory=dict)
    ahead: int = 0
    """What `long_data` counts."""


class PreparedStatements:
    """All of them, by the number that the client knows them by; the first four bytes of its packets."""

    def __init__(self) -> None:
        self._open: dict[int, Prepared] = {}
        self._last = 0

    def refuse_more(self, sql: str) -> None:
        """Raises Refused when no further one may be opened, or not with so long a text."""
        characters = sum(len(one.sql) for one in self._open.values()) + len(sql)
        if len(self._open) >= STATEMENTS or characters > TEXTS:
            raise Refused(
                TOO_MANY_STATEMENTS, f"{len(self._open)} statements are prepared already; close some"
            )

    def add(self, sql: str, count: int) -> Prepared:
        """Opens one."""
        self._last += 1
        self._open[self._last] = Prepared(self._last, sql, count)
        return self._open[self._last]

    def found(self, data: bytes) -> Prepared:
        """The one that a packet is about.  Raises Refused."""
        number = int.from_bytes(data[:4], "little")
        if (statement := self._open.get(number)) is None:
            raise Refused(NO_STATEMENT, f"no statement {number} is prepared here")
        return statement

    def values(self, data: bytes, codec: str) -> tuple[str, list[Any]]:
        """(text, parameters) of a COM_STMT_EXECUTE.  Raises Refused, QueryError."""
        statement = self.found(data)
        long_data = self._taken(statement)
        if not statement.count:
            return statement.sql, []
        values, statement.kinds = door_parameters.read(
            data[9:], statement.count, statement.kinds, long_data, codec
        )
        return statement.sql, values

    def keep_long_data(self, data: bytes) -> None:
        """A piece of a parameter.  No answer is due, not even to say what is wrong.  Raises Malformed."""
        statement = self._open.get(int.from_bytes(data[:4], "little"))
        number = int.from_bytes(data[4:6], "little")
        if statement is None or number >= statement.count:
            return
        statement.long_data[number] = statement.long_data.get(number, b"") + data[6:]
        statement.ahead += len(data) - 6 + PIECE
        if sum(one.ahead for one in self._open.values()) > MAX_LENGTH:
            raise Malformed(f"parameters of more than {MAX_LENGTH:,} bytes")

    def reset(self, data: bytes) -> None:
        """Forgets the pieces of one.  Raises Refused."""
        self._taken(self.found(data))

    def close(self, data: bytes) -> None:
        """Forgets one."""
        self._open.pop(int.from_bytes(data[:4], "little"), None)

    def _taken(self, statement: Prepared) -> dict[int, bytes]:
        long_data, statement.long_data, statement.ahead = statement.long_data, {}, 0
        return long_data
