"""Who is connected: sessions, so many for each user and address, and clients that have not logged in, counted apart.

A client that does not log in is cut off after ten seconds, or sooner when there are too many: the one that has waited
longest at the address that has most of them.  So nobody takes a place from those who know a password.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from pipeline.door.connection import Connection
from pipeline.door.fair_queue import Who
from pipeline.door.mysql_errors import CONNECTIONS, USER_CONNECTIONS, ClientError
from pipeline.serve.users import PROBE


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Sessions in all, of one user, and from one address; and clients that have not logged in yet."""

    sessions: int = 500
    user: int = 100
    address: int = 200
    unauthenticated: int = 64


class Connections:
    """`here`: connections by number, oldest first."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self._limits = limits
        self.here: dict[int, Connection] = {}

    def arrive(self, number: int, connection: Connection) -> None:
        """A new connection, which has not logged in; where there are too many of these, another one is cut off."""
        waiting = [one for one in self.here.values() if one.who is None]
        if len(waiting) >= self._limits.unauthenticated:
            [(address, _)] = Counter(one.peer for one in waiting).most_common(1)
            next(one for one in waiting if one.peer == address).hang_up()
        self.here[number] = connection

    def room_for(self, number: int, who: Who) -> None:
        """Whether a connection may be that user's session.  Raises ClientError."""
        others = [one.who for key, one in self.here.items() if key != number and one.who is not None]
        if who.user == PROBE:
            return
        if sum(one.user == who.user for one in others) >= self._limits.user:
            raise ClientError(
                USER_CONNECTIONS, f"{who.user!r} has {self._limits.user} sessions already; close some"
            )
        if sum(one.address == who.address for one in others) >= self._limits.address:
            raise ClientError(
                CONNECTIONS, f"your address has {self._limits.address} sessions already; close some"
            )
        if len(others) >= self._limits.sessions:
            raise ClientError(CONNECTIONS, "Too many connections")
