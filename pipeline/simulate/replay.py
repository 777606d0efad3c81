"""Plays a recording into Kafka: shifted so that it ends at or before now, at any speed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from collections.abc import Mapping as Dict
from itertools import groupby
from typing import Any

from pipeline.simulate.cloud_events import Block, Message, Mode, as_block, cloud_event
from pipeline.simulate.recording import Recording
from pipeline.simulate.simulator import REPORT_SECONDS, PlayPace, Progress
from pipeline.simulate.writer import Sent, writer

#: Event time that is written at once: partitions never differ by more than this.
_STEP_MS = 1000
#: Times are shifted by whole minutes, so that what lay on a window's edge still does.
_GRID_MS = 60_000


def shift_ms(recording: Recording, now: float, speed: float | None = None) -> int:
    """What is added to (scaled) recorded times, in ms: no event is later than the clock that sends it."""
    arrivals = [event.arrived_ms * recording.time_scale for event in recording.events]
    first, length = min(arrivals), max(arrivals) - min(arrivals)
    # Slower than real time the first event is the tightest, faster the last one.
    begin = now * 1000 + min(0.0, (length / speed if speed else 0.0) - length)
    return int((begin - first) // _GRID_MS * _GRID_MS)


def steps(recording: Recording, shift: int, mode: Mode = "structured") -> Iterator[tuple[int, list[Block]]]:
    """`(end of the step in ms, its messages)` in the order of arrival; steps without events are left out."""
    scale = recording.time_scale

    def step_of(event: Any) -> int:
        return int(event.arrived_ms * scale + shift) // _STEP_MS

    for step, events in groupby(recording.events, key=step_of):
        by_topic: dict[str, list[Message]] = {}
        for event in events:
            moment = int(event.time_ms * scale) + shift
            message = cloud_event(event.topic, event.type, event.source, event.id, moment, event.data, mode)
            by_topic.setdefault(event.topic, []).append(message)
        yield (step + 1) * _STEP_MS, [b for messages in by_topic.values() if (b := as_block(messages))]


async def replay(
    bootstrap: str, recording: Recording, *, speed: float | None = None, mode: Mode = "structured",
    progress: Progress | None = None, client_settings: Dict[str, Any] | None = None,
) -> Sent:  # fmt: skip
    """Writes a recording at `speed` (event seconds a second), or as fast as the broker takes it (None).

    Raises BrokerUnreachable, ScenarioError (no such topic).
    """
    now = time.time()
    shift = shift_ms(recording, now, speed)
    start = int(recording.events[0].arrived_ms * recording.time_scale) + shift
    pace = PlayPace(start, speed, now) if speed else None
    told = time.monotonic()
    async with writer(bootstrap, client_settings) as out:
        for end_ms, blocks in steps(recording, shift, mode):
            if pace:
                await pace.until(end_ms)
            await out.write(blocks, end_ms)
            if progress and time.monotonic() - told >= REPORT_SECONDS:
                told = time.monotonic()
                progress(out.sent)
        if progress:
            progress(out.sent)
        return out.sent
