"""One destination's own queue and worker: whatever happens to it, the other destinations do not notice.

A round of the worker:
1. read the rows that are not delivered, and plan them (`plan.py`);
2. settle what is withheld, and put aside what cannot be read;
3. for each batch: write down the attempt, send, write down the outcome.  The attempt is written first, so
   that after a crash in between it is known that the destination may have been told;
4. for a destination that forgets: send the whole firing set again when that is due;
5. wait for a nudge, or after a failure for the backoff.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import structlog

from pipeline.notify.destination import DeliveryRefused, Destination, NotAccepted
from pipeline.notify.ledger_outbox import LedgerOutbox
from pipeline.notify.links import linked
from pipeline.notify.message import annotate, present
from pipeline.notify.outbox import NEVER, OutboxRow, OutboxUpdate
from pipeline.notify.plan import Moment, Step, identities, plan
from pipeline.notify.policy import Policy, Timing
from pipeline.notify.wire_text import label_value
from pipeline.rules.alert_message import AlertMessage
from pipeline.secret import hidden

log = structlog.get_logger(__name__)

# Of a destination's error, so many characters are kept in the outbox.
ERROR_LENGTH = 500


@dataclass(frozen=True)
class Surroundings:
    """What every lane is given.

    `firing`: the alerts that fire now; `catching_up`: whether the pipeline still works off a downtime;
    `notes`: annotations to add for the destination of that name; `accepted`: told (change, at);
    `public_url`: where people open the board, empty when alerts lead nowhere; `outage`: when the broker was away last.
    """

    outbox: LedgerOutbox
    policy: Policy
    timing: Timing
    firing: Callable[[], Awaitable[Sequence[AlertMessage]]]
    catching_up: Callable[[], bool]
    notes: Callable[[str], Mapping[str, str]]
    accepted: Callable[[AlertMessage, float], None]
    public_url: str = ""
    outage: Callable[[], tuple[float, float] | None] = lambda: None


class _Failed(Exception):
    """Something was not accepted; wait so many seconds before the next try."""

    def __init__(self, wait: float) -> None:
        super().__init__(wait)
        self.wait = wait


class Lane:
    """The queue of one destination; `failing_since`, `last_error` and `refused` are its health."""

    def __init__(self, destination: Destination, around: Surroundings) -> None:
        self.destination = destination
        self.name = destination.name
        self.failing_since: float | None = None
        self.last_error: str | None = None
        self.refused = 0
        self._around = around
        self._outbox, self._policy, self._timing = around.outbox, around.policy, around.timing
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._failures = 0
        self._batch = destination.habits.batch
        self._rank: dict[str, int] = {}
        self._resend_at = self._timing.monotonic()

    # Life.

    def nudge(self) -> None:
        """There may be new rows."""
        self._wake.set()

    def stop(self) -> None:
        """End after the send under way."""
        self._stopping.set()

    async def work(self) -> None:
        """Rounds until `stop`.  An outbox that cannot be read is retried like a destination that fails."""
        while not self._stopping.is_set():
            self._wake.clear()
            try:
                wait, wakeable = await self._round(), True
            except _Failed as failed:
                wait, wakeable = failed.wait, False
            except Exception as fault:
                log.exception("delivery round failed", destination=self.name)
                wait, wakeable = self._note_failure(fault), False
            if wait > 0:
                await self._wait(wait, wakeable)

    async def _wait(self, seconds: float, wakeable: bool) -> None:
        """A nudge does not cut a backoff short: rows come every few seconds, and would make it none."""
        ends: list[Awaitable[object]] = [self._timing.sleep(seconds), self._stopping.wait()]
        ends += [self._wake.wait()] if wakeable else []
        tasks = [asyncio.ensure_future(end) for end in ends]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()

    # One round.

    async def _round(self) -> float:
        """Returns how long to wait for a nudge; raises _Failed after a failure."""
        failed: _Failed | None = None
        more = False
        try:
            more = await self._deliver()
        except _Failed as failure:
            # The firing set goes out all the same: it may be a single change that is not accepted.
            failed = failure
        if self._resend_due() and not self._stopping.is_set():
            await self._resend()
        if failed:
            raise failed
        return 0.0 if more else self._idle()

    def _idle(self) -> float:
        if not self.destination.habits.resends:
            return self._policy.idle_poll
        return max(0.0, min(self._policy.idle_poll, self._resend_at - self._timing.monotonic()))

    async def _deliver(self) -> bool:
        """Send what is in the outbox; returns whether there is more to do at once."""
        rows = await self._outbox.undelivered(self.name, self._policy.read_limit)
        decided = plan(rows, self.destination.habits, self._moment(), self._batch, self._rank_of)
        await self._set_aside(decided.withheld, decided.unreadable)
        for batch in decided.batches:
            size = self._batch
            await self._attempt(batch)
            if self._stopping.is_set() or self._batch != size:
                return True
        return len(rows) >= self._policy.read_limit and decided.held < len(rows)

    def _moment(self) -> Moment:
        now = self._timing.clock()
        around, policy = self._around, self._policy
        return Moment(now, policy.page_max_age, around.catching_up(), policy.hold, around.outage())

    def _rank_of(self, identity: str) -> int:
        return self._rank.get(identity, 0)

    async def _set_aside(
        self, withheld: Sequence[tuple[OutboxRow, str]], unreadable: Sequence[tuple[OutboxRow, str]]
    ) -> None:
        now = self._timing.clock()
        marks = [self._mark(row, delivered=now, last_error=why) for row, why in withheld]
        marks += [self._mark(row, next_try=NEVER, last_error=f"refused: {why}") for row, why in unreadable]
        self.refused += len(unreadable)
        if marks:
            await self._outbox.record(marks)

    # One batch.

    async def _attempt(self, steps: Sequence[Step]) -> None:
        steps = [replace(s, rows=tuple(replace(r, attempts=r.attempts + 1) for r in s.rows)) for s in steps]
        await self._outbox.record([self._mark(r, last_error=r.last_error) for s in steps for r in s.rows])
        try:
            await self._send(await self._as_it_stands(steps))
        except DeliveryRefused as refusal:
            await self._refused(steps, refusal)
        except Exception as fault:
            await self._failed(steps, fault)
        else:
            await self._delivered(steps)

    async def _as_it_stands(self, steps: Sequence[Step]) -> list[AlertMessage]:
        """The changes; one that was tried before says beside it how its alert stands by now."""
        again = any(step.change.firing and step.rows[-1].attempts > 1 for step in steps)
        firing = {c.identity: c for c in await self._around.firing()} if again else {}
        return [present(step.change, firing.get(step.change.identity)) for step in steps]

    async def _send(self, changes: Sequence[AlertMessage]) -> None:
        notes, board = self._around.notes(self.name), self._around.public_url
        told = [linked(annotate(change, notes), board) for change in changes]
        async with asyncio.timeout(self._policy.send_timeout):
            await self.destination.send(told, self._timing.clock())

    async def _delivered(self, steps: Sequence[Step]) -> None:
        at = self._timing.clock()
        self._note_success(step.change.identity for step in steps)
        marks = [self._mark(step.rows[-1], delivered=at) for step in steps]
        for step in steps:
            why = f"superseded by {step.rows[-1].seq}"
            marks += [self._mark(row, delivered=at, last_error=why) for row in step.rows[:-1]]
        await self._outbox.record(marks)
        for step in steps:
            self._around.accepted(step.change, at)

    async def _refused(self, steps: Sequence[Step], refusal: DeliveryRefused) -> None:
        """Find the changes that are at fault by halving; the others are delivered."""
        if len(steps) > 1:
            middle = len(steps) // 2
            await self._attempt(steps[:middle])
            await self._attempt(steps[middle:])
            return
        self.refused += 1
        self.last_error = _text(f"refused: {refusal}")
        log.error(
            "alert refused", destination=self.name, identity=steps[0].change.identity, why=self.last_error
        )
        await self._outbox.record(
            [self._mark(row, next_try=NEVER, last_error=self.last_error) for row in steps[0].rows]
        )

    async def _failed(self, steps: Sequence[Step], fault: Exception) -> None:
        """Write the failure down; next time others go first, in smaller batches: it may be one of these."""
        wait = self._note_failure(fault)
        self._batch = max(1, len(steps) // 2)
        self._rank.update({step.change.identity: self._failures for step in steps})
        next_try = self._timing.clock() + wait
        rows = [row for step in steps for row in step.rows]
        await self._outbox.record(
            [self._mark(row, next_try=next_try, last_error=self.last_error) for row in rows]
        )
        raise _Failed(wait) from fault

    # Again and again.

    def _resend_due(self) -> bool:
        return self.destination.habits.resends and self._timing.monotonic() >= self._resend_at

    async def _resend(self) -> None:
        """Send all that fires, but what has a change of its own under way: that one comes first.

        The firing set is read before the outbox.  What is resolved in between is left out because of its row;
        what is resolved later is ended by its own delivery, which this same worker makes after this.
        """
        firing = await self._around.firing()
        rows = await self._outbox.undelivered(self.name, self._policy.read_limit)
        if len(rows) >= self._policy.read_limit:
            # A resolve may lie beyond what was read: the backlog comes first.
            self._resend_at = self._timing.monotonic() + self._policy.idle_poll
            return
        under_way = identities(rows)
        changes = [change for change in firing if change.identity not in under_way]
        size = self.destination.habits.batch
        for start in range(0, len(changes), size):
            await self._send_again(changes[start : start + size])
        self._resend_at = self._timing.monotonic() + self._policy.until_resend(self._timing.rng)

    async def _send_again(self, changes: Sequence[AlertMessage]) -> None:
        try:
            await self._send(changes)
        except DeliveryRefused as refusal:
            if len(changes) > 1:
                middle = len(changes) // 2
                await self._send_again(changes[:middle])
                await self._send_again(changes[middle:])
            else:
                self.last_error = _text(f"refused: {refusal}")
        except Exception as fault:
            raise _Failed(self._note_failure(fault)) from fault
        else:
            self._note_success(())

    async def tell(self, changes: Sequence[AlertMessage], until: asyncio.Event) -> None:
        """Send changes that the outbox does not have, again and again, until they are accepted or `until` is set."""
        failures = 0
        while not (self._stopping.is_set() or until.is_set()):
            try:
                return await self._send(changes)
            except DeliveryRefused as refusal:
                log.error("alert refused", destination=self.name, why=_text(f"refused: {refusal}"))
                return
            except Exception as fault:
                failures += 1
                log.warning(
                    "destination does not accept", destination=self.name, why=_text(_described(fault))
                )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(until.wait(), self._policy.backoff(failures, self._timing.rng))

    # Marks and health.

    def _mark(
        self,
        row: OutboxRow,
        *,
        next_try: float | None = None,
        delivered: float | None = None,
        last_error: str | None = None,
    ) -> OutboxUpdate:
        return OutboxUpdate(row.seq, self.name, row.attempts, next_try, delivered, last_error)

    def _note_failure(self, fault: Exception) -> float:
        """Returns the seconds to wait."""
        self._failures += 1
        self.last_error = _text(_described(fault))
        if self.failing_since is None:
            self.failing_since = self._timing.clock()
            log.warning("destination does not accept", destination=self.name, why=self.last_error)
        asked = fault.retry_after if isinstance(fault, NotAccepted) else None
        return self._policy.backoff(self._failures, self._timing.rng, asked)

    def _note_success(self, delivered: Iterable[str]) -> None:
        """After an outage the firing set goes out at once: a destination that forgets may have restarted."""
        if self.failing_since is not None:
            log.info("destination accepts again", destination=self.name)
            self._resend_at = self._timing.monotonic()
        self.failing_since, self.last_error, self._failures = None, None, 0
        self._batch = min(self.destination.habits.batch, self._batch * 2)
        for identity in delivered:
            self._rank.pop(identity, None)


def _described(fault: Exception) -> str:
    if isinstance(fault, NotAccepted):
        return str(fault)
    return f"{type(fault).__name__}: {fault}" if str(fault) else type(fault).__name__


def _text(error: str) -> str:
    """An error as it may stand in the outbox and on a terminal: what a receiver answers is not ours, and may be our secret."""
    return label_value(hidden(error))[:ERROR_LENGTH]
