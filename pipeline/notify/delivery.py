"""The delivery of the outbox: one lane for each destination, each with its own worker, queue and patience.

At least once, in order for each identity, never lost: the truth is the outbox in the ledger, and a row is
marked only after its destination has accepted it.  Whoever writes rows calls `nudge()` after the commit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from pipeline.notify.destination import Destination
from pipeline.notify.lane import Lane, Surroundings
from pipeline.notify.ledger_outbox import LedgerOutbox
from pipeline.notify.policy import Policy, Timing
from pipeline.notify.wire_text import rfc3339
from pipeline.rules.alert_message import AlertMessage


async def _nothing_fires() -> Sequence[AlertMessage]:
    return ()


def _nobody_asks(change: AlertMessage, at: float) -> None:
    """The default for `accepted`."""


class Delivery:
    """Delivers every row of the outbox to its destination.

    `firing` gives the alerts that fire now (for destinations that must be told again every minute), each as
    its firing change.  `accepted(change, at)` is called with the wall clock of each acceptance,
    from which freshness and decision delay follow.  `catching_up` says whether the pipeline still works off
    a downtime.  `notes` are annotations to put on every alert, such as that the broker does not answer;
    outages of the destinations themselves are noted without it.  `public_url` is where people open the board: every
    alert links to its card there.  `outage`: when the broker was away last, and when it answered again (epoch seconds).
    """

    def __init__(
        self,
        outbox: LedgerOutbox,
        destinations: Sequence[Destination],
        *,
        policy: Policy | None = None,
        timing: Timing | None = None,
        firing: Callable[[], Awaitable[Sequence[AlertMessage]]] = _nothing_fires,
        accepted: Callable[[AlertMessage, float], None] = _nobody_asks,
        catching_up: Callable[[], bool] = lambda: False,
        notes: Callable[[], Mapping[str, str]] = dict,
        public_url: str = "",
        outage: Callable[[], tuple[float, float] | None] = lambda: None,
    ) -> None:
        self._policy = policy or Policy()
        self._extra_notes = notes
        around = Surroundings(
            outbox, self._policy, timing or Timing(), firing, catching_up, self._notes, accepted, public_url,
            outage,
        )  # fmt: skip
        self.lanes = tuple(Lane(destination, around) for destination in destinations)
        if len({lane.name for lane in self.lanes}) < len(self.lanes):
            raise ValueError(f"destinations need names of their own: {[lane.name for lane in self.lanes]}")
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Deliver until `stop()` or cancellation; either way all workers have ended when it returns."""
        workers = [asyncio.create_task(lane.work(), name=f"notify {lane.name}") for lane in self.lanes]
        try:
            await self._stopping.wait()
            if workers:
                await asyncio.wait(workers, timeout=self._policy.stop_grace)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    def stop(self) -> None:
        """Ask `run` to return: waits end at once, a send under way within `Policy.stop_grace`."""
        self._stopping.set()
        for lane in self.lanes:
            lane.stop()

    def nudge(self) -> None:
        """The ledger has new rows.  From another thread: `loop.call_soon_threadsafe(delivery.nudge)`."""
        for lane in self.lanes:
            lane.nudge()

    async def tell(self, changes: Sequence[AlertMessage], until: asyncio.Event) -> None:
        """Hand changes to every destination, past the outbox; given up when `until` is set: then they stand there."""
        await asyncio.gather(*(lane.tell(changes, until) for lane in self.lanes))

    def _notes(self, name: str) -> dict[str, str]:
        """Annotations for one lane: the outages of others, where the others say that theirs matters."""
        notes = dict(self._extra_notes())
        for lane in self.lanes:
            meaning = lane.destination.habits.outage_note
            if meaning and lane.failing_since is not None and lane.name != name:
                notes[f"{lane.name}_outage"] = f"{meaning} (since {rfc3339(lane.failing_since)})"
        return notes
