"""All alerts that fire now: as the ledger says, and what of our own it does not know yet."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from pipeline.rules.alert_message import AlertMessage, message_of
from pipeline.rules.alerts import AlertChange, AlertState

log = structlog.get_logger()

READ_WITHIN = 3.0
"""Seconds that the ledger may take to say what fires, before what it said last is told again."""
ALIVE = "Watchdog"

States = Mapping[str, AlertState | None]


@dataclass(frozen=True, slots=True, eq=False)
class Noted:
    """What changed of our own alerts; `written` is set once the ledger has it."""

    states: States
    changes: Sequence[AlertChange]
    written: asyncio.Event = field(default_factory=asyncio.Event)


class FiringAlerts:
    """`recorded` gives what the ledger says that fires; `now`: epoch seconds.

    `hangs` says why the pipeline hangs, "" when it does not: then the Watchdog is not told again, for its silence is what
    an outside watcher waits for.
    """

    def __init__(
        self,
        recorded: Callable[[], Awaitable[Sequence[AlertMessage]]],
        hangs: Callable[[], str],
        now: Callable[[], float],
    ) -> None:
        self._recorded, self._hangs, self._now = recorded, hangs, now
        self._known: Sequence[AlertMessage] = ()
        self._unwritten: list[Noted] = []

    async def __call__(self) -> Sequence[AlertMessage]:
        """The firing change of each."""
        try:
            self._known = await asyncio.wait_for(self._recorded(), READ_WITHIN)
        except TimeoutError:
            log.warning("the ledger does not say what fires; what it said last is told again")
        found = {message.identity: message for message in self._known}
        for noted in self._unwritten:
            found |= {message.identity: message for message in self.messages(noted)}
        dead = bool(self._hangs())
        return [m for m in found.values() if m.firing and not (dead and m.alertname == ALIVE)]

    @property
    def unwritten(self) -> list[Noted]:
        """What the ledger does not have yet, in order."""
        return list(self._unwritten)

    def add(self, noted: Noted) -> None:
        """Something that the ledger does not have."""
        self._unwritten.append(noted)

    def written(self, noted: Noted) -> None:
        """Now it has it."""
        noted.written.set()
        self._unwritten.remove(noted)

    def messages(self, noted: Noted) -> list[AlertMessage]:
        """What people are told of it."""
        return [message_of(change, self._now()) for change in noted.changes if change.pages]
