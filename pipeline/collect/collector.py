"""Scraping targets in turn: endpoint → points (format) → samples (mapping) → one event for each target and type.

A target is asked at instants that follow from its URL and the clock alone, and its samples have that instant as their
time, where it says none of its own.  So two collectors of the same targets send the same events, which count once.  A
target that does not answer is down, and says why; nothing is sent in its place.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import structlog
from msgspec import structs

from pipeline.catalog import Catalog, EventType
from pipeline.collect.scrape import Down, ScrapeOptions, fetch, session
from pipeline.collect.targets import Target
from pipeline.formats.histograms import Differences
from pipeline.formats.point import Point, Undecodable, time_text
from pipeline.formats.point_format import PointFormat
from pipeline.mappings.gather import Gathered, MappedSample, report_mark
from pipeline.mappings.mapping_spec import Given, SourceMapping
from pipeline.mappings.plans import PlannedGatherer

log = structlog.get_logger()

AT_ONCE = 64
"""Targets that are asked at the same moment, at most."""
SAMPLES_IN_MESSAGE = 1_000
Event = tuple[EventType, dict[str, Any]]
Emit = Callable[[EventType, dict[str, Any]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class SourceKind:
    """How the answers of targets are read."""

    wire: PointFormat
    mapping: SourceMapping


@dataclass(slots=True)
class TargetState:
    """How a target did: `why` it is down, counts since the start; `seconds` that its last scrape took."""

    target: Target
    kind: SourceKind
    gatherer: PlannedGatherer
    differences: Differences
    up: bool | None = None
    why: str = ""
    seconds: float = 0.0
    samples: int = 0
    lacking: int = 0
    scrapes: int = 0
    missed: int = 0
    failures: Counter[str] = field(default_factory=Counter)

    def ended(self, seconds: float, reason: str = "", why: str = "") -> bool:
        """A scrape has ended, well if there is no `reason`; whether the target is up or down since just now."""
        before, self.up, self.why = self.up, not reason, why
        self.seconds, self.scrapes = seconds, self.scrapes + 1
        if reason:
            self.failures[reason] += 1
        return before is not self.up

    def count(self, whole: int, lacking: int) -> None:
        """So many samples were sent, and so many were not, for they lack a required field."""
        self.samples, self.lacking = self.samples + whole, self.lacking + lacking

    def miss(self, instants: int) -> None:
        """It was not asked at so many of its instants, for the scrape before took too long."""
        self.missed += instants


class Collector:
    """Scrapes targets and hands their events to `emit`.

    `kinds`: the name of a mapping → how it is read, "" for targets that name none.  Use it inside `async with`.
    """

    def __init__(
        self,
        catalog: Catalog,
        kinds: Callable[[str], SourceKind],
        given: Given,
        every: int,
        options: ScrapeOptions,
        emit: Emit,
    ) -> None:
        self._catalog, self._kinds, self._given = catalog, kinds, given
        self._every, self._options, self._emit = every, options, emit
        self.states: dict[Target, TargetState] = {}
        self._tasks: dict[Target, asyncio.Task[None]] = {}
        self._client: aiohttp.ClientSession | None = None
        self._room = asyncio.Semaphore(AT_ONCE)
        # On a thread of its own: a large answer takes seconds to read, and meanwhile the others must not run out of time.
        self._reader = ThreadPoolExecutor(1, "answers")
        self.round_at = 0.0
        """When a scrape last ended, whatever came of it; monotonic seconds."""

    async def __aenter__(self) -> Collector:
        self._client = session(self._options, AT_ONCE)
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        if self._client is not None:
            await self._client.close()
        self._reader.shutdown(cancel_futures=True)

    def aim(self, targets: Sequence[Target]) -> None:
        """Scrape these targets and no others.  Raises MappingError for one with an unknown mapping, and changes nothing."""
        new = {target: self._state(target) for target in targets if target not in self.states}
        for gone in self.states.keys() - set(targets):
            del self.states[gone]
            if task := self._tasks.pop(gone, None):
                task.cancel()
        self.states |= new

    def keep_on(self) -> None:
        """Begin to scrape every target that is aimed at, at its own instants."""
        for target in self.states.keys() - self._tasks.keys():
            self._tasks[target] = asyncio.create_task(self._keep_on(self.states[target]))

    async def once(self, now: float) -> None:
        """Scrape every target once, as of `now` (epoch seconds)."""
        await asyncio.gather(*(self.scrape(state, round(now)) for state in self.states.values()))

    async def scrape(self, state: TargetState, instant: int) -> None:
        """Scrape a target as of an instant (epoch seconds), and hand on what came."""
        async with self._room:
            found = await self._ask(state, instant)
        whole = [sample for sample in found.samples if not sample.lacks]
        state.count(len(whole), len(found.samples) - len(whole))
        for event_type, event in events_of(self._catalog, state, whole, instant, self._every):
            await self._emit(event_type, event)

    async def _ask(self, state: TargetState, instant: int) -> Gathered:
        """What a target answers, nothing when it is down; that this has changed is logged."""
        assert self._client is not None
        begun, found, reason, why = time.monotonic(), Gathered(), "", ""
        try:
            raw = await fetch(self._client, state.target, self._options.most)
            found = await asyncio.get_running_loop().run_in_executor(self._reader, _read, state, raw, instant)
        except Down as error:
            reason, why = error.reason, str(error)
        except Undecodable as error:
            reason, why = error.reason, f"{error}; is it of the format {state.kind.wire.name}?"
        self.round_at = time.monotonic()
        if state.ended(self.round_at - begun, reason, why):
            tell = log.warning if reason else log.info
            tell("target is down" if reason else "target is up", target=state.target.url, why=why or None)
        return found

    def _state(self, target: Target) -> TargetState:
        kind = self._kinds(target.mapping or "")
        differences = Differences()
        gatherer = PlannedGatherer(kind.mapping, self._catalog, self._given, differences)
        return TargetState(target, kind, gatherer, differences)

    async def _keep_on(self, state: TargetState) -> None:
        offset = zlib.crc32(state.target.url.encode()) % (self._every * 1000) / 1000
        last = 0
        while True:
            now = time.time()
            slot = int((now - offset) // self._every) + 1
            slot += slot == last  # a sleep may end a moment too early
            await asyncio.sleep(slot * self._every + offset - now)
            state.miss(max(0, slot - last - 1) if last else 0)
            last = slot
            try:
                await self.scrape(state, round(slot * self._every + offset))
            except Exception as error:  # a fault of ours must not silence one target for ever
                state.failures["own_fault"] += 1
                log.error("a scrape failed by our own fault", target=state.target.url, error=repr(error))


def _read(state: TargetState, raw: bytes, instant: int) -> Gathered:
    """The samples of an answer, which came at `instant` (epoch seconds).  Raises Undecodable."""
    state.differences.hear(instant * 1_000_000)
    found = state.gatherer.gather(list(_labelled(state.kind.wire.points(raw), state.target)))
    state.differences.changed()  # nothing is saved here; what was not heard for a day is forgotten
    return found


def _labelled(points: Any, target: Target) -> Iterator[Point]:
    """The points with the target's labels.

    A label of the same name that the endpoint gave is `exported_…`, as Prometheus has it.
    """
    added = dict(target.labels)
    for point in points:
        kept = {(f"exported_{name}" if name in added else name): text for name, text in point.labels.items()}
        yield structs.replace(point, labels={**kept, **added})


def events_of(
    catalog: Catalog, state: TargetState, samples: Sequence[MappedSample], instant: int, every: int
) -> Iterator[Event]:
    """The events of a target's samples: an array for each type, time, interval and report; mostly that is one.

    Their ids hold the URL's checksum: one host may answer for many devices or zones, each at a path or query of its own.
    """
    asked = f"{zlib.crc32(state.target.url.encode()):08x}"
    groups: dict[tuple[str, int, int | None, str], list[Mapping[str, Any]]] = {}
    for sample in samples:
        event_type = catalog.by_topic(sample.topic)
        interval = sample.interval or (every if every != event_type.interval else None)
        at = instant * 1_000_000 if sample.time is None else sample.time
        key = (sample.topic, at, interval, report_mark(event_type, sample.data))
        groups.setdefault(key, []).append(sample.data)
    for (topic, at, interval, mark), data in groups.items():
        event_type = catalog.by_topic(topic)
        for low in range(0, len(data), SAMPLES_IN_MESSAGE):
            event = {
                "specversion": "1.0",
                "id": f"{at}/{interval or 0}/{low}/{asked}{mark}",
                "source": f"/collect/{state.kind.mapping.mapping}/{state.target.instance}"[:250],
                "type": event_type.type,
                "time": time_text(at),
                "datacontenttype": "application/json",
                "data": data[low : low + SAMPLES_IN_MESSAGE],
            }
            yield event_type, event if interval is None else {**event, "interval": interval}
