"""The one way in: a batch is processed, its dead letters are written, its delta applied.

    batch → Processor.decode → Processor.take, DeadLetters.write → Watermarks.applied → Ledger.apply → told

Everything that touches the ledger's connection runs on one thread, one thing at a time; decoding, which does not,
has another.  Dead letters are written while the rest of their batch is worked on.  While a batch is taken in no
tick moves the frontier, but what goes by the wall clock is written: dead letters may have to wait for the broker,
and somebody must hear of that.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import ParamSpec, TypeVar

import duckdb

from pipeline.errors import LedgerError
from pipeline.ledger.evaluation import AT_ONCE
from pipeline.ledger.instants import utc
from pipeline.ledger.store import Applied, Ledger
from pipeline.rollup.delta import Delta
from pipeline.stream.admission import Growth
from pipeline.stream.batch import Batch
from pipeline.stream.clocks import Clocks
from pipeline.stream.deadletter_writer import DeadLetters
from pipeline.stream.health import IntakeState
from pipeline.stream.process import DecodedBatch, Processor
from pipeline.stream.watermark import Watermarks

LETTERS_WITHIN = 2.0
"""Seconds that a stop waits for dead letters to be taken: the whole stop has ten."""

HEARS_WITHIN = 3.0
INTERRUPT_EVERY = 0.1
"""Seconds: after the first a stop interrupts the statement under way, again and again."""
RATE_OVER = 10.0
"""Seconds that the rate of events is taken over."""
STEP = 1.0
"""Seconds that the evaluation of a stretch of instants may take: if it takes longer, the next stretch is shorter."""

Advance = Callable[[Mapping[str, datetime], float, int], Applied]
P = ParamSpec("P")
R = TypeVar("R")


@dataclass(slots=True)
class IntakeCounts:
    """What this process took in: events by (topic, fate), and recent (steady clock, events) for the rate."""

    fates: Counter[tuple[str, str]] = field(default_factory=Counter)
    recent: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=512))
    batches: int = 0
    steps: int = 0
    """Stretches of instants that were evaluated."""

    def note(self, now: float, delta: Delta) -> None:
        """A batch is taken in."""
        self.batches += 1
        self.recent.append((now, delta.events))
        for fate in delta.fates:
            self.fates[fate.topic, fate.fate] += fate.n

    def step(self) -> None:
        """A stretch of instants is evaluated."""
        self.steps += 1

    def rate(self, now: float) -> float:
        """Events per second over the last ten seconds."""
        return sum(n for at, n in self.recent if now - at <= RATE_OVER) / RATE_OVER


class Intake:
    """Takes batches into the ledger; `told` hears of every transaction."""

    def __init__(
        self,
        ledger: Ledger,
        processor: Processor,
        watermarks: Watermarks,
        dead_letters: DeadLetters,
        told: Callable[[Applied], None],
        clocks: Clocks | None = None,
    ) -> None:
        self._ledger, self._processor, self._watermarks = ledger, processor, watermarks
        self._dead_letters, self._told = dead_letters, told
        self._clocks = clocks or Clocks()
        self._at_work: tuple[float, str] | None = None
        self._thread, self._decoder = ThreadPoolExecutor(1, "ledger"), ThreadPoolExecutor(1, "decoder")
        self._decoding, self._taking, self._one_at_a_time = asyncio.Lock(), asyncio.Lock(), asyncio.Lock()
        self._stopped = False
        self._stopping = asyncio.Event()
        self._instants = AT_ONCE
        self.counts = IntakeCounts()

    async def decode(self, batch: Batch) -> DecodedBatch | None:
        """Open one batch, while the one before it is taken in; None once there is no use in it."""
        async with self._decoding:
            if self._stopping.is_set():
                return None  # fetched, but not taken in: it is fetched again at the next start
            with _within_memory(len(batch)):
                return await self._on_thread(self._decoder, lambda: self._processor.decode(batch))

    async def take(self, batch: DecodedBatch) -> None:
        """Take one batch in; returns when it is committed."""
        async with self._taking:
            with self._interruptible():
                await self._take(batch)

    async def _take(self, batch: DecodedBatch) -> None:
        self._clocks.met(batch.ahead)
        if self._stopping.is_set():
            return
        writing = asyncio.ensure_future(self._dead_letters.write(batch.letters)) if batch.letters else None
        try:
            delta = await self.with_ledger(self._process, batch)
            if writing and not await self._written(writing):
                self._stopped = True
                return
        finally:
            if writing:
                writing.cancel()
        progress = {place: at.replace(tzinfo=UTC).timestamp() for place, at in delta.progress.items()}
        self._watermarks.applied(delta.ranges, progress, self._clocks.steady())
        self.counts.note(self._clocks.steady(), delta)
        await self._advance(partial(self._ledger.apply, delta))

    async def tick(self) -> None:
        """Let the watermark move without rows, unless a batch is just being taken in."""
        if self._stopped or self._taking.locked():
            return
        async with self._taking:
            with self._interruptible():
                await self._advance(self._ledger.tick)

    async def _advance(self, first: Advance) -> None:
        """Run `first`, and go on until every instant that the watermark has passed is evaluated, or a stop is asked for.

        A watermark may pass a month at once.  A step takes about a second at most, so that a stop is heard between two;
        what is left then is evaluated after the next start.
        """
        advance = first
        while True:
            began = self._clocks.steady()
            applied = await self.with_ledger(advance, self._marks(), self._clocks.bound(), self._instants)
            took = self._clocks.steady() - began
            self._instants = min(AT_ONCE, 2 * self._instants) if took < STEP / 4 else self._instants
            self._instants = max(1, self._instants // 2) if took > STEP else self._instants
            if applied.due or applied.behind:
                self.counts.step()
            self._told(applied)
            if not applied.behind or self._stopping.is_set():
                return
            advance = self._ledger.tick

    async def with_ledger(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run something else that writes through the ledger's own connection."""
        async with self._one_at_a_time:
            return await self._on_thread(self._thread, lambda: self._timed(work, *args, **kwargs))

    def _timed(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        self._at_work = self._clocks.steady(), name_of(work)
        try:
            return work(*args, **kwargs)
        finally:
            self._at_work = None

    def work(self) -> IntakeState:
        """What was done so far, and what the ledger's thread is at."""
        since, what = self._at_work or (self._clocks.steady(), "")
        busy = self._clocks.steady() - since
        positions = self._watermarks.positions()
        return IntakeState(positions, self.counts.steps, busy, what, self._dead_letters.held_up)

    def rate(self) -> float:
        """Events per second over the last seconds."""
        return self.counts.rate(self._clocks.steady())

    def ignored(self) -> dict[str, dict[str, int]]:
        """Topic of a source → metric → points that no mapping of it reads, since the start."""
        return {topic: dict(names) for topic, names in self._processor.ignored().items()}

    def growth(self) -> dict[str, Growth]:
        """What of each topic was beyond its limits, since the start."""
        return dict(self._processor.growth)

    async def stop(self, within: float = HEARS_WITHIN) -> None:
        """Wait for the batch under way; whatever waits behind it is not taken in any more.

        A statement that takes longer than `within` seconds is interrupted: its transaction is rolled back, and the batch
        is fetched again at the next start.
        """
        self._stopping.set()
        interrupting = asyncio.create_task(self._interrupt(within))
        try:
            # the threads, too: whoever awaited one may be cancelled, and the ledger cannot close under a call
            async with self._taking, self._one_at_a_time:
                self._stopped = True
                await asyncio.to_thread(self._thread.shutdown)
            async with self._decoding:
                await asyncio.to_thread(self._decoder.shutdown)
        finally:
            interrupting.cancel()

    async def _interrupt(self, after: float) -> None:
        await asyncio.sleep(after)
        while True:
            self._ledger.con.interrupt()
            await asyncio.sleep(INTERRUPT_EVERY)

    @contextlib.contextmanager
    def _interruptible(self) -> Iterator[None]:
        """A statement that a stop has interrupted is no fault."""
        try:
            yield
        except duckdb.InterruptException:
            if not self._stopping.is_set():
                raise

    async def _written(self, writing: asyncio.Task[None]) -> bool:
        """Whether the broker has the letters; False when it does not take them and we are stopping.

        Then the batch is not taken in either: it is fetched again at the next start.
        """
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({writing, stopping}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({writing}, timeout=LETTERS_WITHIN)
            if writing.done():
                writing.result()
            return writing.done()
        finally:
            stopping.cancel()

    def _process(self, batch: DecodedBatch) -> Delta:
        with _within_memory(len(batch)):
            return self._processor.take(batch, self._ledger.known_from(), self._ledger.progress())

    def _marks(self) -> dict[str, datetime]:
        marks = self._watermarks.current(self._clocks.steady(), self._clocks.least())
        return {topic: utc(mark) for topic, mark in marks.items()}

    @staticmethod
    async def _on_thread(thread: ThreadPoolExecutor, work: Callable[[], R]) -> R:
        return await asyncio.get_running_loop().run_in_executor(thread, work)


def name_of(work: Callable[..., object]) -> str:
    """What a piece of work is called in the code, for those who have to find it."""
    inner = work.func if isinstance(work, partial) else work
    return str(getattr(inner, "__name__", inner)).lstrip("_")


@contextlib.contextmanager
def _within_memory(records: int) -> Iterator[None]:
    """Raises LedgerError when DuckDB's memory does not suffice for a batch of so many records."""
    try:
        yield
    except duckdb.OutOfMemoryException as error:
        raise LedgerError(
            f"a batch of {records:,} records needs more memory than DuckDB may use "
            f"({str(error).splitlines()[0]}); raise memory_limit or lower batch_bytes, then start again: nothing "
            "is lost"
        ) from error
