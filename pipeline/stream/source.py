"""The batch source: fetches from every partition with aiokafka and hands on batches, with backpressure.

It assigns itself all partitions (new ones as they appear) and starts at the ledger's offsets; Kafka's group
offsets play no part.  A log that ends before, or begins after, the stored offset stops the pipeline.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from operator import attrgetter
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError
from aiokafka.structs import ConsumerRecord
from mode import Service

from pipeline.errors import GigawatchError, LogMoved
from pipeline.rollup.delta import Place
from pipeline.stream.batch import Batch
from pipeline.stream.clocks import Clocks
from pipeline.stream.header_names import replace_undecodable
from pipeline.stream.topic_admin import admin, clock_of, describe_topics, topic_ids

log = structlog.get_logger()

_VALUE_SIZE = attrgetter("serialized_value_size")
NOT_YET = 0.02
"""Seconds between two looks whether a batch is wanted now.  While the one before it is worked on it grows: what a
batch costs, whatever its size, is then shared by more records just when there are many."""
ENDS_EVERY = 0.4
"""Seconds between two questions where the logs end; an answer is believed for one second."""
MISSING_EVERY = 10.0
"""Seconds between two looks for a topic that does not exist yet."""
DISCOVER_EVERY = 3.0
"""Seconds between two looks for new partitions."""
ANSWERS_WITHIN = 2.0
"""A broker that answered so many seconds ago is worth a question; one that hangs would hold up a stop."""


class BatchSource(Service):
    """Feeds `put` with batches of the records of `topics`; `wanted` says whether it would take one at once.

    `positions` holds the ledger's next offsets and is moved on by what was handed over, `ids` the ids of the
    topics that they are of; `assigned`, `met` and `answered` tell of new partitions (place, position), of new
    topics (topic → id) and of the logs' ends; `clocks` is told of the broker's.  `guard` runs each task and
    hears of its failure; each topic of `apart` has batches of its own.  A Faust service:
    `connect` first, then whoever has it as a dependency starts it.
    """

    def __init__(
        self,
        bootstrap: str,
        client: Mapping[str, Any],
        topics: Iterable[str],
        positions: Mapping[Place, int],
        ids: Mapping[str, str],
        *,
        put: Callable[[Batch], Awaitable[None]],
        wanted: Callable[[], bool],
        guard: Callable[[Awaitable[None]], Awaitable[None]],
        assigned: Callable[[Place, int], None],
        met: Callable[[Mapping[str, str]], Awaitable[None]],
        answered: Callable[[Mapping[Place, int]], None],
        clocks: Clocks,
        max_records: int,
        max_bytes: int,
        linger: float,
        apart: Collection[str] = (),
    ) -> None:
        self._bootstrap, self._client = bootstrap, dict(client)
        self._topics = tuple(topics)
        self._positions, self._ids = dict(positions), dict(ids)
        super().__init__()
        self._put, self._wanted, self._guard = put, wanted, guard
        self._assigned, self._met, self._answered = assigned, met, answered
        self._clocks = clocks
        self._answered_at = 0.0
        self._absent: set[str] = set()
        self._apart = apart
        self._max_records, self._max_bytes, self._linger = max_records, max_bytes, linger
        self._record_bytes = 512.0
        self._paused = asyncio.Lock()
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=bootstrap,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
            metadata_max_age_ms=int(DISCOVER_EVERY * 1000),
            max_partition_fetch_bytes=4 * 2**20,
            fetch_max_bytes=32 * 2**20,
            fetch_max_wait_ms=100,
            request_timeout_ms=20_000,
            **client,
        )

    @property
    def absent(self) -> list[str]:
        """Topics that are wanted and not there."""
        return sorted(self._absent)

    async def connect(self) -> None:
        """Connect and take every partition; raises LogMoved."""
        try:
            await self._consumer.start()
            await self._discover()
        except BaseException:
            await self._disconnect()
            raise

    async def on_shutdown(self) -> None:
        await self._disconnect()

    async def _disconnect(self) -> None:
        # while no broker answers, aiokafka cancels a fetch that waits to try again, and is ended itself by awaiting it
        await asyncio.wait([asyncio.create_task(self._consumer.stop())])

    @Service.task
    async def _fetching(self) -> None:
        await self._guard(self._fetch())

    @Service.task
    async def _asking(self) -> None:
        await self._guard(self._ask_ends())

    @Service.task
    async def _looking(self) -> None:
        await self._guard(self._look_for_partitions())

    async def _fetch(self) -> None:
        while True:
            for batch in await self._collect():
                await self._put(batch)
            await asyncio.sleep(0)

    async def _collect(self) -> Iterable[Batch]:
        """Records of one linger, or of as long as nobody wants them, or as many as a batch holds.

        In several batches when they are far larger.
        """
        async with self._paused:
            records: dict[Place, list[ConsumerRecord[Any, Any]]] = {}
            lows: dict[Place, int] = {}
            count = size = 0
            until: float | None = None
            while count < self._max_records and size < self._max_bytes:
                wait = self._linger if until is None else until - time.monotonic()
                if wait <= 0:
                    if self._wanted():
                        break
                    wait = NOT_YET
                got = await self._getmany(wait, self._room(count, size))
                for tp, found in got.items():
                    place = (tp.topic, tp.partition)
                    lows.setdefault(place, self._positions[place])
                    records.setdefault(place, []).extend(found)
                    self._positions[place] = found[-1].offset + 1
                    count += len(found)
                    size += self._weigh(found)
                if until is None:
                    if not got:
                        break
                    until = time.monotonic() + self._linger
            await self._move_on(lows)
            if not lows:
                return ()
            ranges = {place: (low, self._positions[place]) for place, low in lows.items()}
            batch = Batch(records, ranges, self._clocks.bound())
            whole = (batch,) if size <= 2 * self._max_bytes else batch.pieces(self._max_bytes)
            return [one for each in whole for one in each.apart(self._apart)] if self._apart else whole

    async def _move_on(self, lows: dict[Place, int]) -> None:
        """Take over the consumer's positions; those that moved are put into `lows`, with where they were.

        They move without records past the marks of transactions, what was aborted, and what compaction has left of a
        log's end.  That is read as well: otherwise it would be lag for ever.
        """
        for tp in self._consumer.assignment():
            place = (tp.topic, tp.partition)
            position = await self._consumer.position(tp)
            if position > self._positions[place]:
                lows.setdefault(place, self._positions[place])
                self._positions[place] = position

    async def _getmany(
        self, wait: float, limit: int
    ) -> Mapping[TopicPartition, list[ConsumerRecord[Any, Any]]]:
        try:
            found = await self._consumer.getmany(timeout_ms=max(1, int(wait * 1000)), max_records=limit)
        except OffsetOutOfRangeError as error:
            raise _moved(error.args[0] if error.args else {}, self._positions) from error
        except UnicodeDecodeError:
            log.warning("a record names a header in bytes that are no UTF-8; they are replaced from now on")
            replace_undecodable()
            self._assign(self._consumer.assignment())
            return {}
        return {tp: records for tp, records in found.items() if records}

    def _room(self, count: int, size: int) -> int:
        """Records that still fit, by the mean size of those seen: an array of 72 weighs as much as 60 samples."""
        by_bytes = int((self._max_bytes - size) / self._record_bytes) + 1
        return max(1, min(self._max_records - count, by_bytes))

    def _weigh(self, records: list[ConsumerRecord[Any, Any]]) -> int:
        size: int = sum(map(_VALUE_SIZE, records))
        self._record_bytes = max(64.0, 0.8 * self._record_bytes + 0.2 * size / len(records))
        return size

    async def _ask_ends(self) -> None:
        """Only an end that the broker answered just now says that a partition has nothing more."""
        while True:
            before = dict(self._positions)
            try:
                async with asyncio.timeout(2.0):
                    ends = await self._consumer.end_offsets([TopicPartition(*place) for place in before])
            except (TimeoutError, KafkaError) as error:
                log.debug("the broker does not say where the logs end", error=str(error))
            else:
                found = {(tp.topic, tp.partition): end for tp, end in ends.items()}
                _check_ends(before, found)
                self._answered(found)
                self._answered_at = time.monotonic()
            await asyncio.sleep(ENDS_EVERY)

    async def _look_for_partitions(self) -> None:
        """The consumer's own metadata tells of new partitions; a topic that is still to come is asked for."""
        missing_since = 0.0
        while True:
            await asyncio.sleep(DISCOVER_EVERY)
            known = {(tp.topic, tp.partition) for tp in self._consumer.assignment()}
            seen = {(t, p) for t in self._topics for p in self._consumer.partitions_for_topic(t) or ()}
            missing = set(self._topics) - {topic for topic, _ in known}
            try:
                if seen - known or (missing and time.monotonic() - missing_since > MISSING_EVERY):
                    missing_since = time.monotonic()
                    await self._discover()
                elif time.monotonic() - self._answered_at < ANSWERS_WITHIN:
                    # A log made anew may already be longer than the old one was: its end tells nothing.
                    found = await asyncio.to_thread(self._ids_and_clock)
                    await self._recognise(found)
            except GigawatchError as error:
                if isinstance(error, LogMoved):
                    raise
                log.debug("no look at the partitions", error=str(error))

    def _ids_and_clock(self) -> dict[str, str]:
        with admin(self._bootstrap, self._client) as client:
            self._clocks.heard(clock_of(client))
            return topic_ids(client, self._topics)

    def _say_what_is_absent(self, there: set[str]) -> None:
        """Once for each topic: a pipeline that waits for topics nobody has made looks as if all were well."""
        absent = set(self._topics) - there
        if absent - self._absent:
            log.warning(
                "topics are not there; they are looked for again and again. `gigawatch topics create` makes them, "
                "unless they are a source's",
                topics=sorted(absent - self._absent),
            )
        self._absent = absent

    def _assign(self, partitions: Iterable[TopicPartition]) -> None:
        """Fetch from all of these, anew from where we stand."""
        chosen = list(partitions)
        self._consumer.assign(chosen)
        for tp in chosen:
            self._consumer.seek(tp, self._positions[tp.topic, tp.partition])

    async def _recognise(self, found: Mapping[str, str]) -> None:
        """Check that the topics are those that the offsets are of; one that nothing was read of yet is noted."""
        read = {topic for (topic, _), position in self._positions.items() if position}
        for topic in read & self._ids.keys() & found.keys():
            if found[topic] != self._ids[topic]:
                raise LogMoved(
                    f"{topic}: the ledger's offsets are of the topic with id {self._ids[topic]}, but that was deleted "
                    f"and made anew: this one has id {found[topic]}. Nothing is skipped or read twice in silence: if "
                    "that is intended, start with an empty data directory; otherwise restore the topic"
                )
        new = {topic: id_ for topic, id_ in found.items() if self._ids.get(topic) != id_}
        if new:
            await self._met(new)
            self._ids.update(new)

    async def _discover(self) -> None:
        """Assign every partition that exists; one that the ledger does not know begins at its first record."""
        states = await asyncio.to_thread(describe_topics, self._bootstrap, self._topics, self._client)
        await self._recognise({state.name: state.id for state in states})
        self._say_what_is_absent({state.name for state in states})
        logs = {(state.name, part): ends for state in states for part, ends in state.offsets.items()}
        known = {(tp.topic, tp.partition) for tp in self._consumer.assignment()}
        new = {
            place: _begin(place, self._positions.get(place), logs[place])
            for place in logs
            if place not in known
        }
        if not new:
            return
        async with self._paused:
            self._positions.update(new)
            self._assign([TopicPartition(*place) for place in (*known, *new)])
        for place, position in new.items():
            self._assigned(place, position)
        log.info("partitions assigned", new=len(new), all=len(known) + len(new))


def _begin(place: Place, stored: int | None, ends: tuple[int, int]) -> int:
    """Where to start: the ledger's offset, checked against the log, or the log's beginning."""
    first, end = ends
    if stored is None:
        return first
    if not first <= stored <= end:
        raise log_moved(place, stored, first, end)
    return stored


def log_moved(place: Place, stored: int, first: int, last: int) -> LogMoved:
    """The error for a log `[first, last)` that does not hold the stored offset."""
    what = (
        "was cut off or deleted and made anew" if stored > last else "has lost records that were never read"
    )
    return LogMoved(
        f"{place[0]} partition {place[1]}: the ledger would resume at offset {stored}, but the log holds "
        f"[{first}, {last}): it {what}. Nothing is skipped or read twice in silence: if that is intended, start "
        "with an empty data directory; otherwise restore the topic"
    )


def _check_ends(positions: Mapping[Place, int], ends: Mapping[Place, int]) -> None:
    for place, end in ends.items():
        if positions.get(place, 0) > end:
            raise log_moved(place, positions[place], 0, end)


def _moved(offsets: Mapping[TopicPartition, int], positions: Mapping[Place, int]) -> LogMoved:
    for tp in offsets:
        place = (tp.topic, tp.partition)
        return LogMoved(
            f"{place[0]} partition {place[1]}: the broker no longer has offset {positions.get(place)}: the log was cut "
            "off, or deleted and made anew. Nothing is skipped in silence: if that is intended, start with an empty "
            "data directory; otherwise restore the topic"
        )
    return LogMoved("a partition no longer has the offset that the ledger stands at; see the broker's log")
