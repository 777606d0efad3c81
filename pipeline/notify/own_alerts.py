"""The pipeline's alerts about itself: they go out whether or not the ledger can be written.

Like every alert they belong into the ledger and its outbox.  But what they tell of may be the ledger itself: when a
change is not written within `RECORDED_WITHIN`, it is handed to the destinations directly, and written later, with the
same identity: should the process end before, at the next start, from a file of its own.  So it may come twice, never not
at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from pipeline.ledger.evaluation import bodies
from pipeline.ledger.store import Ledger
from pipeline.notify.delivery import Delivery
from pipeline.notify.message import AlertChange, from_json
from pipeline.rules.alerts import AlertChange as Change
from pipeline.rules.alerts import AlertState

log = structlog.get_logger()

RECORDED_WITHIN = 1.0
READ_WITHIN = 3.0
"""Seconds that the ledger may take to say what fires, before what it said last is told again."""
LAST_WORD_WITHIN = 3.0
"""Seconds that destinations have for it: the end of a process that failed has ten."""
ALIVE = "Watchdog"
FILE = "own-alerts.json"
"""What was told and is not in the ledger yet, in the data directory."""

States = Mapping[str, AlertState | None]
Record = Callable[[States, Sequence[Change]], Awaitable[None]]


@dataclass(slots=True)
class _Noted:
    states: States
    changes: Sequence[Change]
    written: asyncio.Event = field(default_factory=asyncio.Event)


def take_over(ledger: Ledger, now: float) -> None:
    """Write into the ledger what was told before the last end and could not be written; `now`: epoch seconds."""
    file = ledger.data / FILE
    try:
        rows = json.loads(file.read_text("utf-8"))
        changes = [Change(kind, t, AlertState.from_json(state)) for kind, t, state in rows]
    except FileNotFoundError:
        return
    except (ValueError, KeyError, TypeError):
        log.warning("what was told of the pipeline itself before its end cannot be read", file=str(file))
        changes = []
    states = {c.state.identity: None if c.kind == "resolved" else c.state for c in changes}
    ledger.record_own(states, changes, now)
    file.unlink()


class OwnAlerts:
    """Takes changes of our own alerts to the ledger (`record`), and past it if need be.

    `firing` gives what the ledger says that fires; `hangs` says why the pipeline hangs, "" when it does not: then the
    Watchdog is not sent again, for its silence is what an outside watcher waits for.  `now`: epoch seconds.
    """

    def __init__(
        self,
        record: Record,
        firing: Callable[[], Awaitable[Sequence[AlertChange]]],
        hangs: Callable[[], str],
        now: Callable[[], float],
        data: Path,
    ) -> None:
        self._file = data / FILE
        self._record, self._firing, self._hangs, self._now = record, firing, hangs, now
        self._noted: list[_Noted] = []
        self._known: Sequence[AlertChange] = ()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writing = asyncio.Lock()
        self.delivery: Delivery | None = None
        """Set once it is there: it asks for `firing`."""

    def note(self, states: States, changes: Sequence[Change]) -> asyncio.Task[None]:
        """Something changed; returns at once.  The task that writes it ends with what writing raised."""
        noted = _Noted(states, changes)
        self._noted.append(noted)
        self._begin(self._past_the_ledger(noted))
        return self._begin(self._write(noted))

    async def firing(self) -> Sequence[AlertChange]:
        """All that fires now: as the ledger says, and what it does not know yet of our own."""
        try:
            self._known = await asyncio.wait_for(self._firing(), READ_WITHIN)
        except TimeoutError:
            log.warning("the ledger does not say what fires; what it said last is told again")
        found = {change.identity: change for change in self._known}
        for noted in self._noted:
            for change in self._bodies(noted):
                found[change.identity] = change
        dead = bool(self._hangs())
        return [c for c in found.values() if c.firing and not (dead and c.alertname == ALIVE)]

    async def last_word(self, states: States, changes: Sequence[Change]) -> None:
        """Something changed, and the process ends: it is told past the ledger, and written at the next start.

        Where even the file for that cannot be written, the receivers believe it until it runs out.
        """
        noted = _Noted(states, changes)
        self._noted.append(noted)
        with contextlib.suppress(OSError):
            await asyncio.to_thread(self._keep, list(self._noted))
        if self.delivery and (bodies := self._bodies(noted)):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.delivery.tell(bodies, noted.written), LAST_WORD_WITHIN)

    async def _write(self, noted: _Noted) -> None:
        async with self._writing:  # in their order
            await self._record(noted.states, noted.changes)
        noted.written.set()
        self._noted.remove(noted)
        if not self._noted:
            self._file.unlink(missing_ok=True)
        if self.delivery:
            self.delivery.nudge()

    async def _past_the_ledger(self, noted: _Noted) -> None:
        try:
            await asyncio.wait_for(noted.written.wait(), RECORDED_WITHIN)
        except TimeoutError:
            if self.delivery and (changes := self._bodies(noted)):
                log.warning(
                    "the ledger is busy: alerts go out past it", alerts=[c.alertname for c in changes]
                )
                keeping = asyncio.create_task(asyncio.to_thread(self._keep, list(self._noted)))
                await self.delivery.tell(changes, noted.written)
                await keeping
                if not self._noted:
                    self._file.unlink(missing_ok=True)

    def _keep(self, noted: Sequence[_Noted]) -> None:
        kept = [[c.kind, c.t, c.state.to_json()] for one in noted for c in one.changes]
        staged = self._file.with_suffix(".tmp")
        staged.write_text(json.dumps(kept), "utf-8")
        staged.replace(self._file)

    def _bodies(self, noted: _Noted) -> list[AlertChange]:
        told = [change for change in noted.changes if change.pages]
        return [from_json(body) for body in bodies(told, self._now())]

    def _begin(self, work: Awaitable[None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def stop(self) -> None:
        """Whatever is under way is given up: the ledger closes."""
        for task in self._tasks:
            task.cancel()
