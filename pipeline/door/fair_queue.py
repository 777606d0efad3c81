"""Whose turn it is: a few questions run at once, and nobody's many keep another's one from running.

What is free goes to the user with the fewest that run, among equals to whoever came first.  A user with none running
gets a place beyond the few, up to a bound for all and one for each address: eight questions without end are then one
user's affair.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple


class Who(NamedTuple):
    """Who asks, and from where."""

    user: str
    address: str


@dataclass(frozen=True, slots=True)
class Places:
    """`usual`: questions that run at once; `most`: with those of users who have no other; `address`: of one address."""

    usual: int = 4
    most: int = 12
    address: int = 10


class FairQueue:
    """Gives the places; `first` is a user who never waits.  For one event loop."""

    def __init__(self, places: Places, first: str) -> None:
        self._places, self._first = places, first
        self._users: Counter[str] = Counter()
        self._addresses: Counter[str] = Counter()
        self._waiting: list[tuple[Who, asyncio.Future[None]]] = []

    async def enter(self, who: Who) -> None:
        """Wait for a place; `leave` gives it back.  Cancelled, it has none."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((who, turn))
        self._call()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave(who)
            else:
                self._waiting = [one for one in self._waiting if one[1] is not turn]
            raise

    def leave(self, who: Who) -> None:
        """Give a place back."""
        for counter, key in ((self._users, who.user), (self._addresses, who.address)):
            counter[key] -= 1
            if not counter[key]:
                del counter[key]
        self._call()

    def _call(self) -> None:
        """Let in whoever may, the one with the fewest places first."""
        while ready := [one for one in self._waiting if self._may(one[0])]:
            who, turn = chosen = min(ready, key=lambda one: self._users[one[0].user])
            self._waiting.remove(chosen)
            if not turn.done():
                self._users[who.user] += 1
                self._addresses[who.address] += 1
                turn.set_result(None)

    def _may(self, who: Who) -> bool:
        if who.user == self._first:
            return True
        running = self._users.total() - self._users[self._first]
        if running >= self._places.most or self._addresses[who.address] >= self._places.address:
            return False
        return running < self._places.usual or not self._users[who.user]
