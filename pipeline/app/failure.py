"""The first failure of anything that runs: every one ends the pipeline, on one path."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import duckdb
import structlog

log = structlog.get_logger()


class FirstFailure:
    """To be made on the event loop that it is used on."""

    def __init__(self) -> None:
        self._first: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def error(self) -> BaseException | None:
        """What it was; None while nothing has failed."""
        return self._first.exception() if self._first.done() else None

    def fail(self, error: BaseException) -> None:
        """Something has failed; only the first counts."""
        if not self._first.done():
            log.error("the pipeline stops", error=str(error))
            self._first.set_exception(error if isinstance(error, Exception) else RuntimeError(repr(error)))

    async def guard(self, work: Awaitable[Any]) -> None:
        """Await `work`, whose failure counts as ours: a Faust agent that raises would go on by itself."""
        try:
            await work
        except asyncio.CancelledError:
            raise
        except duckdb.InterruptException:
            log.warning("the stop cut a statement short; it is rolled back, and nothing is lost")
        except BaseException as error:
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            self.fail(error)

    def guarded(self, work: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
        """`work`, guarded, and left out once something has failed."""

        async def guarded() -> None:
            if not self._first.done():
                await self.guard(work())

        return guarded

    def of_task(self, task: asyncio.Task[None]) -> None:
        """For `add_done_callback`: a task that failed."""
        if not task.cancelled() and (error := task.exception()):
            self.fail(error)

    async def until(self, stop: asyncio.Event) -> None:
        """Until `stop` is set.  Raises the first failure when that comes sooner."""
        stopping: asyncio.Future[Any] = asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait({stopping, self._first}, return_when=asyncio.FIRST_COMPLETED)
            if self._first.done():
                self._first.result()
        finally:
            stopping.cancel()
