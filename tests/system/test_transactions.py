"""Offsets that hold no record for us: marks of transactions, and what was aborted, are no lag."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from aiokafka import AIOKafkaProducer

from pipeline.broker.kafka import EmbeddedKafka
from pipeline.simulate.cloud_events import STRUCTURED
from pipeline.stream.topic_admin import describe_topics

GPU = "telemetry.gpu"


async def _transact(bootstrap: str, values: list[bytes], *, commit: bool) -> None:
    """The values in one transaction, into partition 0."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id="test")
    await producer.start()
    try:
        await producer.begin_transaction()
        for value in values:
            await producer.send_and_wait(GPU, value, partition=0, headers=STRUCTURED)
        await (producer.commit_transaction() if commit else producer.abort_transaction())
    finally:
        await producer.stop()


def test_a_log_that_ends_in_aborted_transactions_is_read_to_its_end(
    kafka: EmbeddedKafka, telemetry_topics: Any, worker_factory: Any, gpu_event: Callable[..., bytes]
) -> None:
    telemetry_topics(1)
    now = time.time()
    events = [gpu_event(n, now - 30 + n) for n in range(12)]
    asyncio.run(_transact(kafka.bootstrap, events[:4], commit=True))
    asyncio.run(_transact(kafka.bootstrap, events[4:8], commit=False))
    worker = worker_factory(kafka.bootstrap, stalled_after=3).start()
    end = describe_topics(kafka.bootstrap, [GPU])[0].offsets[0][1]
    assert end == 10, "eight records and two marks"

    def read(status: dict[str, Any]) -> bool:
        return status["offsets"].get(GPU) == {"0": end} and status["lag"].get(GPU) == {"0": 0}

    worker.await_status("all offsets are read", read)
    assert worker.status()["events"]["aggregated"] == 4
    # nothing waits: the topic is idle, and its watermark goes on by the clock
    mark = worker.status()["watermarks"][GPU]
    worker.await_status("the watermark goes on", lambda s: s["watermarks"][GPU] > mark)
    # what comes next begins where the ledger stands, also after a restart
    assert worker.stop() == 0
    asyncio.run(_transact(kafka.bootstrap, events[8:10], commit=False))
    worker.start()
    worker.await_status("the aborted is passed", lambda s: s["offsets"][GPU] == {"0": end + 3})
    asyncio.run(_transact(kafka.bootstrap, events[10:], commit=True))
    worker.await_status("the rest is in", lambda s: s["events"]["aggregated"] == 6)
    assert worker.stop() == 0
    assert worker.one("SELECT count(*) FROM alerts WHERE alertname = 'PipelineStalled'") == 0
