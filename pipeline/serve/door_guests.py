"""Who is connected: those who have come in, so many for each user and address, and strangers, with places of their own.

A stranger who does not log in is cut off after ten seconds, or sooner when there are too many: the one who has waited
longest at the address that has most of them.  So nobody takes a place from those who know a password.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from pipeline.serve.door_connection import Connection
from pipeline.serve.door_errors import CONNECTIONS, USER_CONNECTIONS, Refused
from pipeline.serve.door_turns import Who
from pipeline.serve.door_users import PROBE


@dataclass(frozen=True, slots=True)
class Rooms:
    """Sessions in all, of one user, and from one address; and strangers who are not cut off yet."""

    sessions: int = 500
    user: int = 100
    address: int = 200
    strangers: int = 64


class Guests:
    """`here`: connections by number, oldest first."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms
        self.here: dict[int, Connection] = {}

    def arrive(self, number: int, connection: Connection) -> None:
        """A stranger comes, and another one may have to go."""
        strangers = [one for one in self.here.values() if one.who is None]
        if len(strangers) >= self._rooms.strangers:
            [(address, _)] = Counter(one.peer for one in strangers).most_common(1)
            next(one for one in strangers if one.peer == address).hang_up()
        self.here[number] = connection

    def room_for(self, number: int, who: Who) -> None:
        """Whether a connection may be that user's session.  Raises Refused."""
        others = [one.who for key, one in self.here.items() if key != number and one.who is not None]
        if who.user == PROBE:
            return
        if sum(one.user == who.user for one in others) >= self._rooms.user:
            raise Refused(
                USER_CONNECTIONS, f"{who.user!r} has {self._rooms.user} sessions already; close some"
            )
        if sum(one.address == who.address for one in others) >= self._rooms.address:
            raise Refused(CONNECTIONS, f"your address has {self._rooms.address} sessions already; close some")
        if len(others) >= self._rooms.sessions:
            raise Refused(CONNECTIONS, "Too many connections")
