"""How a question runs: so many at once, each with a deadline, each stopped when nobody wants its answer any more.

`interrupt` is said until the thread has ended: said once, between two steps, it would be lost.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from pipeline.errors import QueryError
from pipeline.serve.door_engine import Engine, Question

T = TypeVar("T")
AGAIN = 0.05
PATIENCE = 30.0
"""So long a question may take to end when it is told to; then it is left alone, and keeps its place until it does."""

LOST, INTERRUPTED, TIMED_OUT = 0, 1317, 3024


class Stopped(Exception):
    """A question was ended before its answer was whole; `code` is MySQL's number for why."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code, self.text = code, text


@dataclass(frozen=True, slots=True)
class Limits:
    """`timeout` in seconds, from the moment of asking to the last row; `running` questions at once."""

    timeout: float = 60.0
    rows: int = 100_000
    running: int = 4


class Asking:
    """A question that runs or waits for its turn, from the event loop's side."""

    def __init__(self, question: Question, pool: ThreadPoolExecutor, deadline: float) -> None:
        self.question, self.deadline = question, deadline
        self._pool = pool
        self._loop = asyncio.get_running_loop()
        self._stop: asyncio.Future[Stopped] = self._loop.create_future()
        self._busy: asyncio.Future[Any] | None = None

    def stop(self, code: int, text: str) -> None:
        """End it, for this reason; the first reason counts."""
        if not self._stop.done():
            self._stop.set_result(Stopped(code, text))

    async def turn(self, places: asyncio.Semaphore) -> None:
        """Wait for a place among those that run.  Raises Stopped."""
        place = asyncio.ensure_future(places.acquire())
        try:
            await self._first(place)
        except BaseException:
            if not place.cancel():
                places.release()
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

    def over(self, then: Callable[[], None]) -> None:
        """Call `then` once no thread works on it any more: now, or when it gives up at last."""

        def end(_: object = None) -> None:
            self.question.close()
            then()

        if self._busy is None or self._busy.done():
            end()
        else:
            self._busy.add_done_callback(end)


class Desk:
    """Takes questions from every connection."""

    def __init__(self, engine: Engine, limits: Limits, fenced: Callable[[], object]) -> None:
        """`fenced`: what each thread that questions run on does first."""
        self.limits = limits
        self._engine = engine
        self._places = asyncio.Semaphore(limits.running)
        self._pool = ThreadPoolExecutor(limits.running, "question", fenced)

    def asking(self, timeout: float | None = None) -> Asking:
        """A question that has no place yet.  `timeout`: seconds, if less than the limit's."""
        seconds = min(timeout or self.limits.timeout, self.limits.timeout)
        return Asking(self._engine.question(), self._pool, asyncio.get_running_loop().time() + seconds)

    @contextlib.asynccontextmanager
    async def place(self, asking: Asking) -> AsyncIterator[None]:
        """A place among those that run, given back when the question's thread has ended."""
        try:
            await asking.turn(self._places)
        except BaseException:
            asking.over(lambda: None)
            raise
        try:
            yield
        finally:
            asking.over(self._places.release)

    def close(self) -> None:
        """No more questions."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def too_many_rows(limit: int) -> QueryError:
    """What is said where an answer would have more rows than are served."""
    return QueryError(
        f"the answer has more than {limit:,} rows; ask for less with WHERE or LIMIT, or for a roll-up"
    )
