"""How long it took: from a record's append, and from an alert's due instant, to a destination's acceptance."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pipeline.ledger.store import Ledger
from pipeline.notify.ledger_outbox import LedgerOutbox
from pipeline.notify.outbox import OutboxRow

KEPT = 10_000


def _recent() -> deque[float]:
    return deque(maxlen=KEPT)


@dataclass(slots=True)
class Delays:
    """Seconds, of the last `KEPT` deliveries.

    *Freshness*: from the Kafka append of the record that moved the watermark past the instant.
    *Decision delay*: from `active_at + for`.  Both to the alert's acceptance by its destination.
    """

    freshness: deque[float] = field(default_factory=_recent)
    decision: deque[float] = field(default_factory=_recent)


def quantiles(values: Iterable[float]) -> dict[str, float | None]:
    """The values at rank ⌈q·n⌉ for the median and the 99th percentile, None where nothing was measured."""
    ordered = sorted(values)
    if not ordered:
        return {"p50": None, "p99": None}
    rank = {"p50": -(-50 * len(ordered) // 100), "p99": -(-99 * len(ordered) // 100)}
    return {name: round(ordered[at - 1], 3) for name, at in rank.items()}


class MeasuredOutbox(LedgerOutbox):
    """The ledger's outbox, which remembers of each row read what its delays are measured from."""

    def __init__(self, ledger: Ledger, delays: Delays) -> None:
        super().__init__(ledger)
        self._delays = delays
        self._since: dict[tuple[str, int], tuple[float | None, float | None]] = {}

    async def undelivered(self, destination: str, limit: int) -> Sequence[OutboxRow]:
        rows = await super().undelivered(destination, limit)
        for row in rows:
            body = json.loads(row.body)
            self._since[destination, row.seq] = (body.get("appended_at"), body.get("due_at"))
        while len(self._since) > KEPT:  # rows that were superseded or withheld are never accepted
            del self._since[next(iter(self._since))]
        return rows

    def accepted(self, seq: int, destination: str, at: float) -> None:
        """Told by the delivery: `destination` has accepted row `seq` at wall clock `at`."""
        appended, due = self._since.pop((destination, seq), (None, None))
        if appended is not None:
            self._delays.freshness.append(at - appended)
        if due is not None:
            self._delays.decision.append(at - due)
