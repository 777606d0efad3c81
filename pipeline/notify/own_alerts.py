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
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import structlog

from pipeline.ledger.store import Ledger
from pipeline.notify.delivery import Delivery
from pipeline.notify.firing_alerts import FiringAlerts, Noted, States
from pipeline.rules.alerts import AlertChange, AlertState

log = structlog.get_logger()

RECORDED_WITHIN = 1.0
LAST_WORD_WITHIN = 3.0
"""Seconds that destinations have for it: the end of a process that failed has ten."""
FILE = "own-alerts.json"
"""What was told and is not in the ledger yet, in the data directory."""

Record = Callable[[States, Sequence[AlertChange]], Awaitable[None]]


def take_over(ledger: Ledger, now: float) -> None:
    """Write into the ledger what was told before the last end and could not be written; `now`: epoch seconds."""
    file = ledger.data / FILE
    try:
        rows = json.loads(file.read_text("utf-8"))
        changes = [AlertChange(kind, t, AlertState.from_json(state)) for kind, t, state in rows]
    except FileNotFoundError:
        return
    except (ValueError, KeyError, TypeError):
        log.warning("what was told of the pipeline itself before its end cannot be read", file=str(file))
        changes = []
    states = {c.state.identity: None if c.kind == "resolved" else c.state for c in changes}
    ledger.record_own(states, changes, now)
    file.unlink()


class OwnAlerts:
    """Takes changes of our own alerts to the ledger (`record`), and past it, to `delivery`, if need be."""

    def __init__(self, record: Record, firing: FiringAlerts, delivery: Delivery, data: Path) -> None:
        self._file = data / FILE
        self._record, self._firing, self._delivery = record, firing, delivery
        self._tasks: set[asyncio.Task[None]] = set()
        self._writing = asyncio.Lock()

    def note(self, states: States, changes: Sequence[AlertChange]) -> asyncio.Task[None]:
        """Something changed; returns at once.  The task that writes it ends with what writing raised."""
        noted = Noted(states, changes)
        self._firing.add(noted)
        self._begin(self._past_the_ledger(noted))
        return self._begin(self._write(noted))

    async def last_word(self, states: States, changes: Sequence[AlertChange]) -> None:
        """Something changed, and the process ends: it is told past the ledger, and written at the next start.

        Where even the file for that cannot be written, the receivers believe it until it runs out.
        """
        noted = Noted(states, changes)
        self._firing.add(noted)
        with contextlib.suppress(OSError):
            await asyncio.to_thread(self._keep, self._firing.unwritten)
        if messages := self._firing.messages(noted):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._delivery.tell(messages, noted.written), LAST_WORD_WITHIN)

    async def _write(self, noted: Noted) -> None:
        async with self._writing:  # in their order
            await self._record(noted.states, noted.changes)
        self._firing.written(noted)
        self._forget()
        self._delivery.nudge()

    async def _past_the_ledger(self, noted: Noted) -> None:
        try:
            await asyncio.wait_for(noted.written.wait(), RECORDED_WITHIN)
        except TimeoutError:
            if messages := self._firing.messages(noted):
                log.warning(
                    "the ledger is busy: alerts go out past it", alerts=[m.alertname for m in messages]
                )
                keeping = asyncio.create_task(asyncio.to_thread(self._keep, self._firing.unwritten))
                await self._delivery.tell(messages, noted.written)
                await keeping
                self._forget()

    def _keep(self, noted: Sequence[Noted]) -> None:
        kept = [[c.kind, c.t, c.state.to_json()] for one in noted for c in one.changes]
        staged = self._file.with_suffix(".tmp")
        staged.write_text(json.dumps(kept), "utf-8")
        staged.replace(self._file)

    def _forget(self) -> None:
        """The file is for what is not written."""
        if not self._firing.unwritten:
            self._file.unlink(missing_ok=True)

    def _begin(self, work: Awaitable[None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def stop(self) -> None:
        """Whatever is under way is given up: the ledger closes."""
        for task in self._tasks:
            task.cancel()
