"""The life of a wired pipeline: begin, what happens at intervals, and an end in order, however it comes."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import Awaitable, Callable
from functools import partial

import structlog

from pipeline.app.parts import Parts
from pipeline.clauses import plan_of
from pipeline.errors import GigawatchError, StaleGeneration, Stalled
from pipeline.secret import hidden
from pipeline.serve.last_resort import end_within

log = structlog.get_logger()

SWITCH_INTERVAL = 0.0005
"""Seconds after which a busy thread hands the interpreter on.  Python's own 5 ms would make the ledger's thread
wait that long for the fetching one after each of the dozens of statements of a batch."""
YOUNG_OBJECTS = 1_000_000
"""Objects made before Python looks for cycles among them.  Every record is three, and they die with their batch: as
many as two batches hold must not count, or all are walked through again and again, at Python's own number at half the
price of reading (4.5 against 2.5 µs a record)."""
CONTRACT_EVERY = STATUS_EVERY = 2.0
LOOK_EVERY = 1.0
END_WITHIN, STOP_WITHIN = 10.0, 60.0
"""Seconds that an orderly end may take: after a failure, and after a stop was asked for, when there is work to finish."""


async def until_signal(run: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """`run(stop)`, where `stop` is set by SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await run(stop)


async def run_until(parts: Parts, stop: asyncio.Event) -> None:
    """Run until `stop` is set: then finish the batch, seal and publish.  Raises what went wrong first."""
    sys.setswitchinterval(SWITCH_INTERVAL)
    gc.set_threshold(YOUNG_OBJECTS, 20, 50)
    await parts.source.connect()
    await parts.own.note(*parts.health.begin(parts.contracts.alerts, parts.clocks.bound()))
    _add_timers(parts)
    await parts.flow.start()
    await parts.source.start()
    delivering = asyncio.create_task(parts.failure.guard(parts.delivery.run()), name="delivery")
    parts.servers.start()
    try:
        await parts.failure.until(stop)
    finally:
        _end_at_last(parts)
        await _last_word(parts)
        closing = asyncio.create_task(parts.servers.stop())
        parts.own.stop()
        await parts.intake.stop()
        await parts.source.stop()
        await parts.flow.stop()
        await _finish(parts)
        parts.delivery.stop()
        await asyncio.gather(delivering, closing, return_exceptions=True)


def _add_timers(parts: Parts) -> None:
    """What happens at intervals."""
    every = parts.flow.every
    every(parts.settings.tick, "tick", parts.intake.tick)
    every(LOOK_EVERY, "health", partial(_look_at_health, parts))
    every(parts.settings.publish_every, "housekeeping", parts.housekeeper.keep)
    every(CONTRACT_EVERY, "contracts", partial(_look_at_contracts, parts))
    every(STATUS_EVERY, "status", parts.status.write)


async def _look_at_health(parts: Parts) -> None:
    """What goes by the clock; it waits for nothing that it watches."""
    clocks, health, alerts = parts.clocks, parts.health, parts.contracts.alerts
    found = (
        health.look(
            alerts, parts.intake.work(), clocks.steady(), clocks.bound(), clocks.skews(parts.ledger.reached)
        ),
        health.look_at_growth(alerts, parts.intake.growth(), clocks.steady(), clocks.bound()),
        health.look_at_clauses(alerts, parts.housekeeper.unmatched, clocks.bound()),
    )
    states = {identity: state for states, _ in found for identity, state in states.items()}
    if changes := [change for _, changes in found for change in changes]:
        parts.own.note(states, changes).add_done_callback(parts.failure.of_task)


async def _look_at_contracts(parts: Parts) -> None:
    """Take over a changed contract."""
    contracts = parts.contracts
    if (found := await asyncio.to_thread(contracts.look)) is not None:
        plan = plan_of(found, contracts.catalog)
        await parts.intake.with_ledger(parts.ledger.use, found, plan, parts.clocks.bound())
        contracts.take(found)


async def _last_word(parts: Parts) -> None:
    """After a failure the alert says what the exit message says.

    Not of a stall, which was told long before, nor of a writer that was taken over: it has no say any more.
    """
    error = parts.failure.error
    if error is not None and not isinstance(error, Stalled | StaleGeneration):
        words = hidden(str(error))
        await parts.own.last_word(*parts.health.end(parts.contracts.alerts, words, parts.clocks.bound()))


def _end_at_last(parts: Parts) -> None:
    """Should a thread hang that an orderly end waits for, the process ends all the same, and says why."""
    error = parts.failure.error
    words = str(error or f"the stop did not come to its end; the ledger is at: {parts.intake.work()}")
    code = error.exit_code if isinstance(error, GigawatchError) else Stalled.exit_code
    end_within(END_WITHIN if error else STOP_WITHIN, code, words, partial(parts.status_file.fail, words))


async def _finish(parts: Parts) -> None:
    """Seal and publish the last; after a failure only say what it was."""
    if error := parts.failure.error:
        parts.housekeeper.close()
        parts.status_file.fail(str(error))
    else:
        await parts.housekeeper.finish(parts.status.end)
