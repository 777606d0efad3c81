"""How a question runs: in its turn, with a deadline, and stopped when nobody wants its answer any more.

`interrupt` is said until the thread has ended: said once, between two steps, it would be lost.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import duckdb
import structlog

from pipeline.door.engine import EngineQuery
from pipeline.door.failover import Engines
from pipeline.door.fair_queue import FairQueue, Places, Who
from pipeline.errors import QueryError
from pipeline.serve.users import PROBE

log = structlog.get_logger("door")

T = TypeVar("T")
AGAIN = 0.05
PATIENCE = 30.0
"""So long a question may take to end when it is told to; then it is left alone, and its place is another's."""
STUCK = 4
"""So many that were left alone, and the door gives up: a process that is begun anew has none."""
DEADLY = (duckdb.FatalException, duckdb.InternalException, duckdb.OutOfMemoryException)
"""What is said of an engine that may have died or be full."""

LOST, INTERRUPTED, TIMED_OUT = 0, 1317, 3024


class Stopped(Exception):
    """A question was ended before its answer was whole; `code` is MySQL's number for why."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code, self.text = code, text


class EngineRestarted(QueryError):
    """The engine had died of somebody else's question; there is a new one, which may be asked."""


@dataclass(frozen=True, slots=True)
class QueryLimits:
    """`timeout` in seconds, from the moment of asking to the last row, and `idle` until a session that asks nothing is closed.

    `places` for questions that run at once.
    """

    timeout: float = 60.0
    rows: int = 100_000
    idle: float = 3600.0
    places: Places = field(default_factory=Places)


class RunningQuery:
    """A question that runs or waits for its turn, from the event loop's side."""

    def __init__(self, who: Who, question: EngineQuery, pool: ThreadPoolExecutor, deadline: float) -> None:
        self.who, self.question, self.deadline = who, question, deadline
        self._pool = pool
        self._loop = asyncio.get_running_loop()
        self._stop: asyncio.Future[Stopped] = self._loop.create_future()
        self._busy: asyncio.Future[Any] | None = None

    def stop(self, code: int, text: str) -> None:
        """End it, for this reason; the first reason counts."""
        if not self._stop.done():
            self._stop.set_result(Stopped(code, text))

    async def turn(self, turns: FairQueue) -> None:
        """Wait for a place among those that run.  Raises Stopped."""
        place = asyncio.ensure_future(turns.enter(self.who))
        try:
            await self._first(place)
        except BaseException:
            if not place.cancel():
                turns.leave(self.who)
            raise

    async def step(self, work: Callable[[], T]) -> T:
        """`work` in a thread, until it is done.  Raises Stopped, after the thread has ended, and what `work` raises."""
        future = self._loop.run_in_executor(self._pool, work)
        self._busy = future
        try:
            await self._first(future)
        except BaseException:
            await asyncio.shield(self._ended(future))
            raise
        if self._stop.done():
            raise self._stop.result()
        return future.result()

    async def within(self, work: Coroutine[Any, Any, None]) -> None:
        """Something of the event loop's, such as sending, no longer than the question may take.  Raises Stopped."""
        task = asyncio.ensure_future(work)
        try:
            await self._first(task)
        except BaseException:
            task.cancel()
            await asyncio.wait({task})
            raise
        task.result()

    async def _first(self, future: asyncio.Future[T]) -> None:
        """Until `future` is done.  Raises Stopped when a stop or the deadline comes first."""
        left = max(0.0, self.deadline - self._loop.time())
        either: set[asyncio.Future[Any]] = {future, self._stop}
        await asyncio.wait(either, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        if future.done():
            return
        self.stop(
            TIMED_OUT, "the question ran into its time limit and was ended; ask for less, or for roll-ups"
        )
        raise self._stop.result()

    async def _ended(self, future: asyncio.Future[T]) -> None:
        for _ in range(int(PATIENCE / AGAIN)):
            if future.done():
                break
            self.question.interrupt()
            await asyncio.wait({future}, timeout=AGAIN)
        if future.done() and not future.cancelled():
            future.exception()  # it was interrupted: that it says so is no news

    @property
    def stuck(self) -> bool:
        """Whether its thread still works on it."""
        return self._busy is not None and not self._busy.done()

    def over(self, then: Callable[[], None]) -> None:
        """Call `then` once no thread works on it any more: now, or when it gives up at last."""
        if self._busy is None or self._busy.done():
            then()
        else:
            self._busy.add_done_callback(lambda _: then())


class QueryScheduler:
    """Takes questions from every connection."""

    def __init__(
        self,
        engines: Engines,
        limits: QueryLimits,
        fenced: Callable[[], object],
        give_up: Callable[[str], None],
    ) -> None:
        """`fenced`: what each thread that questions run on does first; `give_up`: called when it can go on no more."""
        self.limits = limits
        self._engines, self._give_up = engines, give_up
        self._turns = FairQueue(limits.places, PROBE)
        self._stuck = 0
        self._pool = ThreadPoolExecutor(limits.places.most + 1 + STUCK, "question", fenced)

    def query(self, who: Who, timeout: float | None = None) -> RunningQuery:
        """A question that has no place yet.  `timeout`: seconds, if less than the limit's."""
        seconds = min(timeout or self.limits.timeout, self.limits.timeout)
        deadline = asyncio.get_running_loop().time() + seconds
        return RunningQuery(who, self._engines.question(), self._pool, deadline)

    @contextlib.asynccontextmanager
    async def place(self, running: RunningQuery) -> AsyncIterator[None]:
        """A place among those that run, given back when the question's thread has ended.  Raises Stopped, EngineRestarted."""
        try:
            await running.turn(self._turns)
        except BaseException:
            self._engines.over(running.question)
            raise
        try:
            yield
        except QueryError as error:
            if isinstance(error.__cause__, DEADLY) and await self._look(running.question, error.__cause__):
                raise EngineRestarted(str(error)) from error.__cause__
            raise
        finally:
            self._turns.leave(running.who)
            if running.stuck:
                self._count_stuck()
            running.over(lambda: self._engines.over(running.question))

    @property
    def stuck(self) -> bool:
        """Whether there is a question that does not end."""
        return self._stuck > 0

    def close(self) -> None:
        """No more questions."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _look(self, question: EngineQuery, error: duckdb.Error) -> bool:
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._pool, self._engines.look, question, error)
        except (QueryError, duckdb.Error, MemoryError, OSError) as fault:
            self._give_up(f"the engine cannot be made anew ({fault})")
            return False

    def _count_stuck(self) -> None:
        self._stuck += 1
        log.error("a question does not end; it is left alone", left_alone=self._stuck)
        if self._stuck >= STUCK:
            self._give_up(f"{self._stuck} questions do not end")


def too_many_rows(limit: int) -> QueryError:
    """What is said where an answer would have more rows than are served."""
    return QueryError(
        f"the answer has more than {limit:,} rows; ask for less with WHERE or LIMIT, or for a roll-up"
    )
