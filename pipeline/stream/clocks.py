"""What time it is: by our own clock, by the broker's, and by one that never steps.

Clocks are set wrong and are set right again while records wait.  So durations go by the steady clock (of this process,
seconds), record times are held against the broker's clock, and a watermark passes neither the broker's nor ours.  A
KRaft cluster tells its clock (`topics.clock_of`); while it has not, ours stands in for it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pipeline.formats.event_format import MAX_CLOCK_AHEAD
from pipeline.rollup.grid import DAY
from pipeline.stream.topic_admin import ClockReading

CLOCKS_DIFFER = MAX_CLOCK_AHEAD.total_seconds()
"""Seconds that a record may be later than the broker's clock, and that two clocks may differ before somebody is told."""
AHEAD_HOLDS = 300.0
"""Seconds for which records from the future are spoken of after the last of them."""
LOOKS_APART = 5.0
"""Seconds that at most count between two looks: longer, and it was we who were stopped."""


@dataclass(frozen=True, slots=True)
class Ahead:
    """Records of a topic that are later than the broker's clock: how many, and the latest, by `seconds`, of `source`."""

    records: int
    seconds: float
    source: str


@dataclass(frozen=True, slots=True)
class Skew:
    """A clock that is wrong: `clock` names it, `seconds` is how far it is ahead (behind, if negative); `words` say it."""

    clock: str
    seconds: float
    words: str


class Clocks:
    """The clocks of one pipeline.  All times are epoch seconds, but `steady`."""

    def __init__(
        self, wall: Callable[[], float] = time.time, steady: Callable[[], float] = time.monotonic
    ) -> None:
        self.own, self.steady = wall, steady
        self._began = wall() - steady()
        self._broker: float | None = None
        self._ahead: dict[str, tuple[float, Ahead]] = {}

    def heard(self, reading: ClockReading | None) -> None:
        """What the broker's clock said; None when it did not tell: then what it said before holds."""
        if reading is not None and reading.within < CLOCKS_DIFFER / 2:
            self._broker = reading.at - reading.steady

    def broker(self) -> float | None:
        """The broker's clock now; None when it never told."""
        return None if self._broker is None else self._broker + self.steady()

    def least(self) -> float:
        """What no watermark passes."""
        broker = self.broker()
        return self.own() if broker is None else min(self.own(), broker)

    def bound(self) -> float:
        """What record times are held against: the broker's clock.

        While it is not known, ours, as it is or as it was at the start, whichever is later: set back while records wait,
        it does not make them all records of the future.
        """
        broker = self.broker()
        return max(self.own(), self._began + self.steady()) if broker is None else broker

    def met(self, ahead: Mapping[str, Ahead]) -> None:
        """Records came that are later than `bound`, by topic."""
        for topic, found in ahead.items():
            self._ahead[topic] = (self.steady(), found)

    def skews(self, watermarks: Mapping[str, float]) -> list[Skew]:
        """Every clock that is wrong by more than CLOCKS_DIFFER; `watermarks`: topic → as the ledger has it."""
        found = [self._skew_of_ours()] if abs(self._off()) > CLOCKS_DIFFER else []
        recent = {t: a for t, (at, a) in self._ahead.items() if self.steady() - at <= AHEAD_HOLDS}
        found += [_of_records(topic, ahead) for topic, ahead in sorted(recent.items())]
        for topic, mark in sorted(watermarks.items()):
            if mark - self.bound() > CLOCKS_DIFFER and topic not in recent:
                found.append(_of_watermark(topic, mark - self.bound()))
        return found

    def _off(self) -> float:
        """How far ours is ahead of the broker's; while that is not known, of what it was at the start."""
        broker = self.broker()
        return self.own() - (self._began + self.steady() if broker is None else broker)

    def _skew_of_ours(self) -> Skew:
        off, stepped = self._off(), self.own() - self.steady() - self._began
        way = "ahead of" if off > 0 else "behind"
        other = "where it stood, by the time gone by" if self._broker is None else "that of the broker"
        words = f"our own clock is {_duration(off)} {way} {other}"
        if abs(stepped) > CLOCKS_DIFFER:
            words += (
                f"; it was set {'forward' if stepped > 0 else 'back'} by {_duration(stepped)} while we ran"
            )
        elif self._broker is not None:
            words += "; it has not moved since the start, so it may be the broker's that is wrong"
        return Skew("own", off, words)


class Stopwatch:
    """Seconds that went by while somebody looked: a process that was suspended was not watching."""

    def __init__(self, steady: float) -> None:
        self._at, self.seconds = steady, 0.0

    def look(self, steady: float) -> float:
        """The seconds since the last look that count."""
        passed = min(max(0.0, steady - self._at), LOOKS_APART)
        self._at = steady
        self.seconds += passed
        return passed


def _of_records(topic: str, ahead: Ahead) -> Skew:
    words = (
        f"records of {topic} are later than the broker's clock, by {_duration(ahead.seconds)} at most, of source "
        f"{ahead.source}; they are in quarantine (record_time_in_future) and move no watermark"
    )
    return Skew(topic, ahead.seconds, words)


def _of_watermark(topic: str, seconds: float) -> Skew:
    words = (
        f"the watermark of {topic} is {_duration(seconds)} ahead of the clocks: a clock was wrong when it got there. What "
        "comes meanwhile counts in roll-ups and history, but nothing is judged until the clocks have reached it"
    )
    return Skew(topic, seconds, words)


def _duration(seconds: float) -> str:
    whole = round(abs(seconds))
    days, rest = divmod(whole, DAY)
    hours, minutes, left = rest // 3600, rest // 60 % 60, rest % 60
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (left, "s")]
    kept = [f"{n} {unit}" for n, unit in parts if n]
    return " ".join(kept[:2]) or "0 s"


NO_CLOCK = math.inf
"""In place of a clock, where record times are not held against one: a replay of what was accepted once."""
