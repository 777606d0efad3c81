"""`gigawatch simulate`: a scenario or a recording into Kafka, with its progress on a terminal's stderr."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any

from pipeline.settings import Settings
from pipeline.simulate.cloud_events import Mode
from pipeline.simulate.recording import Recording
from pipeline.simulate.replay import replay
from pipeline.simulate.scenarios import Play
from pipeline.simulate.simulator import Progress, simulate
from pipeline.simulate.writer import Sent


def play_scenario(settings: Settings, play: Play, *, arrays: bool, mode: Mode) -> Sent | None:
    """Write a whole play; None when it was interrupted.  Raises BrokerUnreachable, ScenarioError."""
    return _interruptible(
        simulate(
            settings.bootstrap, play, arrays=arrays, mode=mode, progress=_counter(),
            client_settings=settings.kafka_client(),
        )
    )  # fmt: skip


def play_recording(settings: Settings, recording: Recording, speed: float | None, mode: Mode) -> Sent | None:
    """Write a recording; None when it was interrupted.  Raises BrokerUnreachable, ScenarioError."""
    return _interruptible(
        replay(
            settings.bootstrap, recording, speed=speed, mode=mode, progress=_counter(),
            client_settings=settings.kafka_client(),
        )
    )  # fmt: skip


def in_words(sent: Sent) -> str:
    """How much was written, where to, and how fast."""
    by_topic = ", ".join(f"{n:,} to {topic}" for topic, n in sorted(sent.samples.items()))
    return f"{sent.samples.total():,} events in {sent.seconds:.1f} s: {by_topic}"


def _interruptible(work: Coroutine[Any, Any, Sent]) -> Sent | None:
    """Run `work`; SIGINT and SIGTERM end it early, and that is no error."""

    async def run() -> Sent | None:
        task = asyncio.ensure_future(work)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, task.cancel)
        try:
            return await task
        except asyncio.CancelledError:
            return None
        finally:
            if sys.stderr.isatty():
                print(file=sys.stderr)

    return asyncio.run(run())


def _counter() -> Progress | None:
    """On a terminal, one line that is written over."""

    def show(sent: Sent) -> None:
        at = datetime.fromtimestamp(sent.event_time_ms / 1000, UTC)
        words = f"{sent.samples.total():,} events, {sent.rate:,.0f}/s, event time {at:%F %T} UTC"
        print(f"\r{words} ", end="", file=sys.stderr, flush=True)

    return show if sys.stderr.isatty() else None
