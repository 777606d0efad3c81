"""Plays a scenario into Kafka: event time runs at a multiple of the wall clock, and is never in its future.

play = plan(load("peak-season"), time.time(), duration=120)
play.write_contract(data / "contracts")
sent = await simulate("localhost:9092", play, progress=show)
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from pipeline.simulate.cloud_events import Block, Mode
from pipeline.simulate.fleet import Fleet
from pipeline.simulate.scenarios import Play
from pipeline.simulate.writer import Sent, writer

Progress = Callable[[Sent], None]


class StepWriter(Protocol):
    """Brings what a step has to Kafka: as it is, or by way of exporters that are scraped."""

    sent: Sent

    async def write(self, blocks: Iterable[Block], t1_ms: int) -> None:
        """All of a step, whose end is `t1_ms`; returns when the broker has it."""


Opens = Callable[[str], AbstractAsyncContextManager[StepWriter]]
"""Bootstrap → a writer."""
#: Steps of event time, in milliseconds: each divides 30 s.  The longest keeps partitions within a second.
_STEPS_MS = (100, 200, 500, 1000)
#: How far behind the wall clock the last sample of a real-time step may be written, in seconds.
_STEP_WALL = 0.1
REPORT_SECONDS = 0.2


class PlayPace:
    """When a step may be written: once the wall clock, `speed` times as slow, has passed its end."""

    def __init__(self, start_ms: int, speed: float, origin: float) -> None:
        self.start_ms, self.speed, self.origin = start_ms, speed, origin

    def wall(self, t_ms: int) -> float:
        """The wall clock (epoch seconds) at which event time `t_ms` is reached."""
        return self.origin + (t_ms - self.start_ms) / 1000 / self.speed

    async def until(self, t_ms: int) -> None:
        """Waits for `wall(t_ms)`; if that has passed, only lets others run."""
        await asyncio.sleep(max(0.0, self.wall(t_ms) - time.time()))


def step_ms(speed: float) -> int:
    """The step that takes about a tenth of a second of wall clock."""
    return max((s for s in _STEPS_MS if s <= _STEP_WALL * 1000 * speed), default=_STEPS_MS[0])


async def simulate(
    bootstrap: str, play: Play, *, arrays: bool = False, mode: Mode = "structured", linger: bool = False,
    progress: Progress | None = None, client_settings: Mapping[str, Any] | None = None, opens: Opens | None = None,
) -> Sent:  # fmt: skip
    """Writes a whole play; with `linger` it goes on in real time after its end, until it is cancelled.

    `arrays`: one message for each node or rack.  `progress` hears of what was sent, five times a second.  `opens`: the
    writer, where it is not one to Kafka.
    Raises BrokerUnreachable, ScenarioError (no such topic).
    """
    fleet = play.fleet(arrays=arrays, mode=mode)
    origin = float(play.start) if play.speed == 1 else time.time()
    pace = PlayPace(play.start * 1000, play.speed, origin)
    async with opens(bootstrap) if opens else writer(bootstrap, client_settings) as out:
        await run(fleet, out, play.start * 1000, play.end * 1000, pace, progress)
        if linger:
            tail = PlayPace(play.end * 1000, 1.0, max(time.time(), float(play.end)))
            await run(fleet, out, play.end * 1000, None, tail, progress)
        return out.sent


async def fill(
    bootstrap: str, fleet: Fleet, t0: int, t1: int, *, gpus_only: bool = False,
    progress: Progress | None = None, client_settings: Mapping[str, Any] | None = None,
) -> Sent:  # fmt: skip
    """Writes what `fleet` reports in `[t0, t1)` (epoch seconds, past) as fast as the broker takes it."""
    async with writer(bootstrap, client_settings) as out:
        await run(fleet, out, t0 * 1000, t1 * 1000, None, progress, gpus_only=gpus_only)
        return out.sent


async def run(
    fleet: Fleet, out: StepWriter, t0_ms: int, t1_ms: int | None, pace: PlayPace | None,
    progress: Progress | None = None, *, gpus_only: bool = False,
) -> None:  # fmt: skip
    """Steps of `fleet` from `t0_ms` to `t1_ms` (endless if None) at `pace` (unhindered if None).

    The next step is made while the broker takes the last one; it is sent only once that is acknowledged.
    """
    step = step_ms(pace.speed) if pace else _STEPS_MS[-1]
    make = fleet.gpu_blocks if gpus_only else fleet.step
    writing: asyncio.Task[None] | None = None
    at, told = t0_ms, time.monotonic()
    try:
        while t1_ms is None or at < t1_ms:
            blocks = make(at, at + step)
            if pace:
                await pace.until(at + step)
            if writing:
                await writing
            writing = asyncio.create_task(out.write(blocks, at + step))
            await asyncio.sleep(0)
            at += step
            if progress and time.monotonic() - told >= REPORT_SECONDS:
                told = time.monotonic()
                progress(out.sent)
        if writing:
            await writing
    finally:
        if writing and not writing.done():
            writing.cancel()
    if progress:
        progress(out.sent)
