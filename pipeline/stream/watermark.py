"""How far event time has surely come, for each topic.

*Progress* of a partition is the greatest min(event time, record time) taken into the ledger.  A topic's
watermark is the least progress of its partitions that are not idle, less the lateness its schema allows.
Time is an argument; nothing here talks to Kafka.  `now` is a clock that never steps, for durations; `clock` the least of
the broker's clock and ours (epoch seconds), which no watermark passes: whichever of them is wrong, what it says of the
future is not believed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.catalog import Catalog, EventType
from pipeline.rollup.delta import Place

ANSWER_HOLDS = 1.0
"""Seconds for which an end offset that the broker answered is believed."""
WAITING = 0.0
"""Watermark of a topic whose first records wait to be read: clauses that read it wait for them."""
QUIET_FOR = 2.0
"""Seconds without news after which a partition at its end is idle."""
HOLDS_BACK = 30.0
"""Seconds of event time that a partition at its end, but far behind the others, holds them back at most."""

AFTER_OUTAGE = 15.0
"""Seconds from the first answer after an outage in which no partition is idle: clients wait up to 10 s between
two attempts (librdkafka's reconnect.backoff.max.ms), and only then send what they kept."""


@dataclass(slots=True)
class _Partition:
    position: int
    progress: float | None = None
    progress_at: float | None = None
    news_at: float = -math.inf
    end: int | None = None
    answered_at: float = -math.inf
    caught_up: bool = False

    def answered(self, end: int | None, now: float, after_silence: bool) -> None:
        """The broker said where the log ends (None: not of this one); after a silence it has to catch up first."""
        if after_silence:
            self.caught_up = False
        if end is not None:
            self.end, self.answered_at = end, now
            self.caught_up = self.caught_up or self.position >= end

    def applied(self, hi: int, now: float) -> None:
        """What lies before `hi` is taken in."""
        self.position, self.news_at = hi, now
        if self.end is not None and hi >= self.end and now - self.answered_at <= QUIET_FOR:
            self.caught_up = True

    def reached(self, progress: float, now: float) -> None:
        """Event time has come so far."""
        if self.progress is None or progress > self.progress:
            self.progress, self.progress_at = progress, now

    def at_end(self, now: float) -> bool:
        fresh = now - self.answered_at <= ANSWER_HOLDS
        return fresh and self.end is not None and self.position >= self.end


class Watermarks:
    """Positions, ends and progress of every partition, and the watermarks that follow."""

    def __init__(self, catalog: Catalog, fed_by: Mapping[str, frozenset[str]] | None = None) -> None:
        """`fed_by`: topic of an event type → the topics from which its events come; its own where nothing is said."""
        self._catalog = catalog
        self._fed_by = fed_by or {topic: frozenset({topic}) for topic in catalog.topics}
        self._partitions: dict[Place, _Partition] = {}
        self._back_at = -AFTER_OUTAGE

    def assign(
        self, place: Place, position: int, progress: float | None = None, progress_at: float | None = None
    ) -> None:
        """Begin to watch a partition; `progress_at` says when `progress` was reached, by the clock of `now`."""
        self._partitions.setdefault(place, _Partition(position, progress, progress_at))

    def answered(self, ends: Mapping[Place, int], now: float) -> None:
        """The broker said where the logs end.  After a silence no partition is idle until all caught up."""
        silent = [p for p in self._partitions.values() if now - p.answered_at > QUIET_FOR + ANSWER_HOLDS]
        if any(
            p.answered_at > -math.inf for p in silent
        ):  # one that was never asked is new, and no sign of an outage
            self._back_at = now
        for place, partition in self._partitions.items():
            partition.answered(ends.get(place), now, bool(silent))

    def applied(
        self, ranges: Mapping[Place, tuple[int, int]], progress: Mapping[Place, float], now: float
    ) -> None:
        """A delta is in the ledger (or is about to be, in the same transaction)."""
        for place, (_, hi) in ranges.items():
            self._partitions[place].applied(hi, now)
        for place, reached in progress.items():
            self._partitions[place].reached(reached, now)

    def lag(self) -> dict[Place, int]:
        """Records between the position and the last known end."""
        return {k: max(0, (p.end or p.position) - p.position) for k, p in self._partitions.items()}

    def lags(self) -> dict[str, dict[str, int]]:
        """The same by topic, then by partition."""
        found: dict[str, dict[str, int]] = {}
        for (topic, part), n in sorted(self.lag().items()):
            found.setdefault(topic, {})[str(part)] = n
        return found

    def positions(self) -> dict[Place, int]:
        """The next offset of each partition that is not yet in the ledger."""
        return {place: p.position for place, p in self._partitions.items()}

    def last_answer(self) -> float:
        """When the oldest answer among the partitions came; in the infinite past before the first."""
        return min((p.answered_at for p in self._partitions.values()), default=-math.inf)

    def current(self, now: float, clock: float = math.inf) -> dict[str, float]:
        """Topic → watermark in epoch seconds, never beyond `clock`, WAITING where nothing came yet but something will; the ledger
        holds on to what a topic had reached before.

        A topic that is empty, or from which nothing good came, is left out: nobody waits for it.
        """
        found = {
            e.topic: mark
            for e in self._catalog.types
            if not e.retained and (mark := self._of_telemetry(e, now, clock)) is not None
        }
        waits = WAITING in found.values()
        newest = max(found.values(), default=None)
        for event in self._catalog.types:
            if event.retained:
                mark = WAITING if waits else self._of_retained(event, newest, now, clock)
                if mark is not None:
                    found[event.topic] = mark
        return found

    def _of_telemetry(self, event: EventType, now: float, clock: float) -> float | None:
        mark = self._of(event, now, clock)
        waits = any(not p.caught_up for p in self._feeding(event))
        return WAITING if mark is None and waits else mark

    def _of(self, event: EventType, now: float, clock: float) -> float | None:
        partitions = self._feeding(event)
        reached = [p.progress for p in partitions if p.progress is not None]
        if not reached:
            return None
        newest = max(reached)
        active = [p for p in partitions if not self._idle(p, now)]
        if not active:
            return min(self._by_the_clock(partitions, newest, now), clock) - event.lateness
        held = [self._held_at(p, newest, now) for p in active]
        known = [at for at in held if at is not None]
        return min(*known, clock) - event.lateness if len(known) == len(held) else None

    def _feeding(self, event: EventType) -> list[_Partition]:
        return [p for (topic, _), p in self._partitions.items() if topic in self._fed_by[event.topic]]

    def _held_at(self, partition: _Partition, newest: float, now: float) -> float | None:
        """Where an active partition holds its topic; None when nothing is known of it yet."""
        if partition.at_end(now) and not (partition.progress and self._recovering(now)):
            return max(partition.progress or newest - HOLDS_BACK, newest - HOLDS_BACK)
        return partition.progress

    def _idle(self, partition: _Partition, now: float) -> bool:
        everyone = all(p.caught_up for p in self._partitions.values())
        quiet = now - partition.news_at >= QUIET_FOR and not self._recovering(now)
        return everyone and partition.at_end(now) and quiet

    def _recovering(self, now: float) -> bool:
        """Whether an outage ended so recently that more of it may still come."""
        return 0 <= now - self._back_at < AFTER_OUTAGE

    @staticmethod
    def _by_the_clock(partitions: list[_Partition], newest: float, now: float) -> float:
        """All is quiet: event time goes on at the clock's pace from the newest event."""
        since = min(
            (p.progress_at for p in partitions if p.progress == newest and p.progress_at is not None),
            default=now,
        )
        return newest + max(0.0, now - since)

    def _of_retained(self, event: EventType, newest: float | None, now: float, clock: float) -> float | None:
        """Late by nature, it holds nobody back; only its own backlog holds back its own clauses."""
        partitions = self._feeding(event)
        if not partitions:
            return None
        if newest is None:
            return self._of(event, now, clock)
        behind = [p.progress for p in partitions if not p.caught_up]
        if any(at is None for at in behind):
            return None
        return min([newest, *(at for at in behind if at is not None)])
