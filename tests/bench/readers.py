"""What the pipeline is compared with, each as a process of its own that reads the bench's topic.

    python readers.py faust worker -l error      a plain Faust agent: one event at a time, and no work
    python readers.py getmany                    aiokafka's `getmany` with the pipeline's fetch settings

What to read comes from BENCH_BOOTSTRAP, BENCH_EVENTS (messages to read at most), BENCH_SECONDS (time box) and
BENCH_OUT: the file for the result.  The clock starts with the first events, which do not count themselves.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from load import PARTITIONS, TOPIC

BOOTSTRAP = os.environ.get("BENCH_BOOTSTRAP", "")
EVENTS = int(os.environ.get("BENCH_EVENTS", "0"))
SECONDS = float(os.environ.get("BENCH_SECONDS", "20"))
OUT = Path(os.environ.get("BENCH_OUT", "bench-reader.json"))


class Count:
    """Events seen since the first, and what they took."""

    def __init__(self) -> None:
        self.first = self.seen = 0
        self.began = self.cpu = 0.0

    def add(self, n: int) -> bool:
        """Note `n` events more; True when that is all."""
        if not self.began:
            self.first, self.began, self.cpu = n, time.monotonic(), time.process_time()
        self.seen += n
        return self.seen >= EVENTS or time.monotonic() - self.began >= SECONDS

    def write(self) -> None:
        events, seconds = self.seen - self.first, time.monotonic() - self.began
        cpu = time.process_time() - self.cpu
        OUT.write_text(json.dumps({"events": events, "seconds": seconds, "cpu_seconds": cpu}))


def faust_app() -> Any:
    """An app with one agent that reads the topic, as its documentation shows it; a consumer group of its own."""
    import faust

    app = faust.App(
        f"bench-{os.getpid()}", broker=f"kafka://{BOOTSTRAP}", store="memory://", web_enabled=False,
        datadir=str(OUT.with_suffix(".faust")), consumer_auto_offset_reset="earliest",
    )  # fmt: skip
    topic = app.topic(TOPIC, value_type=bytes, value_serializer="raw", key_type=bytes, key_serializer="raw")
    count = Count()

    @app.agent(topic)
    async def read(stream: Any) -> None:
        n = 0
        async for _ in stream:
            n += 1
            if n % 100 == 0 and count.add(100):
                count.write()
                os.kill(os.getpid(), signal.SIGTERM)
                await asyncio.sleep(60)

    return app


async def getmany() -> None:
    """Read every partition as the batch source does, and only count."""
    from aiokafka import AIOKafkaConsumer, TopicPartition

    # What pipeline.stream.source fetches with, and its default batch and linger.
    consumer = AIOKafkaConsumer(
        bootstrap_servers=BOOTSTRAP, enable_auto_commit=False, auto_offset_reset="earliest",
        isolation_level="read_committed", max_partition_fetch_bytes=4 * 2**20, fetch_max_bytes=32 * 2**20,
        fetch_max_wait_ms=100, request_timeout_ms=20_000,
    )  # fmt: skip
    await consumer.start()
    consumer.assign([TopicPartition(TOPIC, part) for part in range(PARTITIONS)])
    count = Count()
    done = False
    while not done:
        found = await consumer.getmany(timeout_ms=250, max_records=100_000)
        got = sum(map(len, found.values()))
        done = bool(got) and count.add(got)
    count.write()
    await consumer.stop()


if __name__ == "__main__":
    if sys.argv[1] == "faust":
        sys.argv = [sys.argv[0], *sys.argv[2:]]
        faust_app().main()
    else:
        asyncio.run(getmany())
