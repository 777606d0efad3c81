"""Whatever fails first ends the pipeline, and nothing that comes later hides it."""

from __future__ import annotations

import asyncio

import duckdb
import pytest

from pipeline.app.failure import FirstFailure
from pipeline.errors import LedgerError


def test_the_first_failure_is_raised_and_later_ones_are_not() -> None:
    async def main() -> None:
        failure, stop = FirstFailure(), asyncio.Event()
        waiting = asyncio.create_task(failure.until(stop))
        await failure.guard(_raises(BaseExceptionGroup("of a task group", [LedgerError("first")])))
        await failure.guard(_raises(ValueError("second")))
        assert str(failure.error) == "first"
        with pytest.raises(LedgerError, match="first"):
            await waiting

    asyncio.run(main())


def test_what_a_stop_cut_short_and_what_was_cancelled_are_no_failures() -> None:
    async def main() -> None:
        failure, stop = FirstFailure(), asyncio.Event()
        await failure.guard(_raises(duckdb.InterruptException("cut short")))
        with pytest.raises(asyncio.CancelledError):
            await failure.guard(_raises(asyncio.CancelledError()))
        stop.set()
        await failure.until(stop)
        assert failure.error is None

    asyncio.run(main())


def test_a_timer_does_nothing_more_once_something_has_failed() -> None:
    async def main() -> None:
        failure, done = FirstFailure(), []

        async def work() -> None:
            done.append(1)
            raise ValueError("the timer's")

        timer = failure.guarded(work)
        await timer()
        await timer()
        assert (done, str(failure.error)) == ([1], "the timer's")

    asyncio.run(main())


async def _raises(error: BaseException) -> None:
    raise error
