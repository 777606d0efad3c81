"""What was read and stays true while a ledger is open: who was silent when, who was frozen, what was charged.

Rows that come later count from later instants, so what was read of a range is not read again for the next question about
it.  What is remembered belongs to a transaction: after one that was rolled back, `forget`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.catalog import EventType
from pipeline.readings.frozen import Slots, Still, frozen_within
from pipeline.readings.reading import GRID, Steps
from pipeline.readings.silence import Silence, silence_of
from pipeline.readings.spec import Inquiry
from pipeline.readings.whereabouts import depart

if TYPE_CHECKING:
    from pipeline.readings.spec import ReadingSpec

#: Ranges whose silence is remembered: those of the groups of topics that one evaluation passes.
REMEMBERED = 16


class Spent(NamedTuple):
    """Good for instants after `t0` and before `until` (epoch seconds; None: no end in sight).

    `charges`: how many there were, the last `known_from` of any, and how many deliveries were closed.
    """

    charges: tuple[Any, ...]
    t0: int
    until: int | None
    steps: Steps

    def holds(self, charges: tuple[Any, ...], t0: int, t1: int) -> bool:
        """Whether it answers for `(t0, t1]`, while the charges are these."""
        return self.charges == charges and self.t0 <= t0 and (self.until is None or t1 < self.until)


@dataclass(slots=True)
class Memory:
    """One for each ledger."""

    silences: dict[tuple[str, int, int], Silence] = field(default_factory=dict)
    """By view and range."""
    spent: dict[ReadingSpec, Spent] = field(default_factory=dict)
    slots: Slots = field(default_factory=dict)

    def forget(self) -> None:
        """Drops everything remembered."""
        self.silences.clear()
        self.spent.clear()
        self.slots.clear()

    def silence(self, event_type: EventType, t0: int, t1: int) -> Inquiry[Silence]:
        """Who is silent at the instants `(t0, t1]`."""
        key = (event_type.view, t0, t1)
        if key not in self.silences:
            while len(self.silences) >= REMEMBERED:
                del self.silences[next(iter(self.silences))]
            silence = yield from silence_of(event_type, t0, t1)
            yield from depart(event_type, silence)
            self.silences[key] = silence
        return self.silences[key]

    def silence_at(self, event_type: EventType, t: int) -> Inquiry[Silence]:
        """Who is silent at the instant `t`: as it was read with the readings, where it was."""
        for (view, t0, t1), silence in self.silences.items():
            if view == event_type.view and t0 < t <= t1:
                return silence
        return (yield from self.silence(event_type, t - GRID, t))

    def frozen(self, event_type: EventType, t0: int, t1: int) -> Inquiry[list[Still]]:
        """Who is frozen at the instants `(t0, t1]`."""
        return (yield from frozen_within(event_type, t0, t1, self.slots))
