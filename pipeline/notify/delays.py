"""How long it took: from a record's append, and from an alert's due instant, to a destination's acceptance."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from pipeline.rules.alert_message import AlertMessage

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

    def note(self, message: AlertMessage, at: float) -> None:
        """A destination has accepted it at the wall clock `at`."""
        for known, since in ((self.freshness, message.appended_at), (self.decision, message.due_at)):
            if isinstance(since, float | int):
                known.append(at - since)


def quantiles(values: Iterable[float]) -> dict[str, float | None]:
    """The values at rank ⌈q·n⌉ for the median and the 99th percentile, None where nothing was measured."""
    ordered = sorted(values)
    if not ordered:
        return {"p50": None, "p99": None}
    rank = {"p50": -(-50 * len(ordered) // 100), "p99": -(-99 * len(ordered) // 100)}
    return {name: round(ordered[at - 1], 3) for name, at in rank.items()}
