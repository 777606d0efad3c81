"""Messages into Kafka, a step at a time: all partitions of a step are written before the next one begins.

So the event times at the ends of two partitions never differ by more than a step, and a reader's watermark
is held back by its own pace only.  aiokafka's batch calls are used, one batch for each partition:
`send` for each message reached a tenth of the rate.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError, KafkaError
from aiokafka.partitioner import murmur2

from pipeline.errors import BrokerUnreachable, ScenarioError
from pipeline.simulate.cloud_events import STRUCTURED, Block

#: Bytes of one batch before compression; brokers refuse more than 1 MB in one unless told otherwise.
BATCH_BYTES = 700_000


@dataclass
class Sent:
    """What has been written so far; `samples` counts events as the pipeline does."""

    messages: Counter[str] = field(default_factory=Counter)
    samples: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)
    began: float = field(default_factory=time.monotonic)
    event_time_ms: int = 0

    def reached(self, time_ms: int) -> None:
        """Everything up to this event time is written."""
        self.event_time_ms = time_ms

    @property
    def seconds(self) -> float:
        """Since the first step, wall clock."""
        return time.monotonic() - self.began

    @property
    def rate(self) -> float:
        """Samples a second since the first step."""
        return self.samples.total() / max(self.seconds, 1e-9)


class LockStepWriter:
    """Writes blocks to their topics; the partition follows from the key as in Kafka's own clients."""

    def __init__(self, producer: AIOKafkaProducer) -> None:
        self.sent = Sent()
        self._producer = producer
        self._partitions: dict[str, int] = {}
        self._chosen: dict[tuple[str, bytes], int] = {}

    async def write(self, blocks: Iterable[Block], t1_ms: int) -> None:
        """All of `blocks` (one step, whose end is `t1_ms`); returns when the broker has them all.

        Raises ScenarioError when a topic does not exist, BrokerUnreachable when the broker goes away.
        """
        waiting: list[Any] = []
        by_topic: dict[str, list[Block]] = {}
        for block in blocks:
            by_topic.setdefault(block.topic, []).append(block)
        try:
            for topic, parts in by_topic.items():
                waiting += await self._send(topic, parts)
            if waiting:
                await asyncio.gather(*waiting)
        except KafkaError as error:
            raise BrokerUnreachable(
                f"writing to Kafka failed: {error!r}; check that the broker runs, then start again"
            ) from error
        self.sent.reached(t1_ms)

    async def _send(self, topic: str, blocks: list[Block]) -> list[Any]:
        """Hands over a batch or more for each partition, by event time; gives their acknowledgements."""
        partitions = self._partitions.get(topic) or await self._count(topic)
        batches: dict[int, Any] = {}
        waiting, size, samples, count = [], 0, 0, 0
        rows = [row for block in blocks for row in _rows(block)]
        if len(blocks) > 1:
            rows.sort(key=itemgetter(0))
        for time_ms, key, headers, value in rows:
            partition = self._chosen.get((topic, key))
            if partition is None:
                partition = self._choose(topic, key, partitions)
            batch = batches.get(partition)
            if batch is None:
                batch = batches[partition] = self._producer.create_batch()
            if batch.append(timestamp=time_ms, key=key, value=value, headers=headers) is None:
                waiting.append(await self._producer.send_batch(batch, topic, partition=partition))
                batch = batches[partition] = self._producer.create_batch()
                batch.append(timestamp=time_ms, key=key, value=value, headers=headers)
            size += len(value)
        for partition, batch in batches.items():
            batch.close()
            waiting.append(await self._producer.send_batch(batch, topic, partition=partition))
        samples = sum(sum(block.samples) for block in blocks)
        count = len(rows)
        self.sent.messages[topic] += count
        self.sent.samples[topic] += samples
        self.sent.bytes[topic] += size
        return waiting

    async def _count(self, topic: str) -> int:
        # `partitions_for` would ask for a missing topic again and again, until its timeout of 40 s.  All topics are
        # learned at once: charges come every few minutes, and a broker that stands still just then is waited for.
        cluster = await self._producer.client.fetch_all_metadata()
        self._partitions |= {name: len(cluster.partitions_for_topic(name) or ()) for name in cluster.topics()}
        if not self._partitions.get(topic):
            raise ScenarioError(f"topic {topic} does not exist; make it with: gigawatch topics create")
        return self._partitions[topic]

    def _choose(self, topic: str, key: bytes, partitions: int) -> int:
        hashed: int = murmur2(key)
        self._chosen[topic, key] = partition = (hashed & 0x7FFFFFFF) % partitions
        return partition


def _rows(block: Block) -> Iterable[tuple[int, bytes, Any, bytes]]:
    headers = block.headers or [STRUCTURED] * len(block.values)
    return zip(block.times_ms, block.keys, headers, block.values, strict=True)


@asynccontextmanager
async def writer(
    bootstrap: str, client_settings: Mapping[str, Any] | None = None
) -> AsyncIterator[LockStepWriter]:
    """A writer on a started producer.  `client_settings`: aiokafka's own names (SASL, TLS).

    Raises BrokerUnreachable when no broker answers.
    """
    settings: dict[str, Any] = {"compression_type": "lz4", "acks": "all", **(client_settings or {})}
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap, max_batch_size=BATCH_BYTES, max_request_size=8 * BATCH_BYTES, **settings
    )
    try:
        await producer.start()
    except KafkaConnectionError as error:
        await producer.stop()
        raise BrokerUnreachable.at(bootstrap) from error
    try:
        yield LockStepWriter(producer)
    finally:
        await producer.stop()
