"""A bill's events to Kafka: every charge first, and what closes the deliveries only when the broker has them all.

The producer is idempotent, so a broken connection leaves no row twice.  An import that is killed leaves a delivery that
nothing closes, and that counts nothing; the same file again sends the same events, of which the pipeline drops those it
has.  No transaction: one that is open for a minute would hold back everything behind it in its partitions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError, KafkaError

from pipeline.collect.bill_import import Bill, OnProgress
from pipeline.errors import BillError, BrokerUnreachable

HEADERS = [("content-type", b"application/cloudevents+json")]
BATCH_BYTES = 900_000
"""Of one produce batch; brokers refuse more than 1 MiB unless told otherwise."""
UNDER_WAY = 16
"""Messages that wait for the broker's answer at most."""

Outgoing = tuple[str, bytes, bytes, int]


def send(
    bill: Bill, bootstrap: str, client: Mapping[str, Any], issued: datetime | None, progress: OnProgress
) -> None:
    """Send the bill's deliveries; returns when the broker has all of them.

    Raises BrokerUnreachable, or BillError when a topic is not there; what was sent by then counts nothing.
    """
    asyncio.run(_send(bill, bootstrap, client, issued or datetime.now(UTC), progress))


async def _send(
    bill: Bill, bootstrap: str, client: Mapping[str, Any], time: datetime, progress: OnProgress
) -> None:
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap, enable_idempotence=True, compression_type="lz4", max_batch_size=BATCH_BYTES,
        max_request_size=8 * BATCH_BYTES, **client,
    )  # fmt: skip
    try:
        await producer.start()
        await _refuse_absent(producer, (bill.charge.topic, bill.closes.topic))
        await _produce(producer, bill, time, progress)
    except KafkaConnectionError as error:
        raise BrokerUnreachable.at(bootstrap) from error
    except KafkaError as error:
        raise BrokerUnreachable(
            f"writing to Kafka failed: {error!r}; nothing of this bill counts yet: mend it, and import the same files again"
        ) from error
    finally:
        await producer.stop()


async def _refuse_absent(producer: AIOKafkaProducer, topics: tuple[str, ...]) -> None:
    there = (await producer.client.fetch_all_metadata()).topics()
    if absent := [topic for topic in topics if topic not in there]:
        raise BillError(f"topic {', '.join(absent)} does not exist; make it with: gigawatch topics create")


async def _produce(producer: AIOKafkaProducer, bill: Bill, time: datetime, progress: OnProgress) -> None:
    rows = sum(delivery.rows for delivery in bill.report.deliveries)
    done, waiting, messages = 0, set[asyncio.Future[Any]](), bill.messages(time)
    progress("rows", 0, rows)
    while (message := await asyncio.to_thread(_next, messages)) is not None:
        topic, key, value, count = message
        if not count and waiting:  # the first that closes a delivery: by now all its rows must be there
            await asyncio.gather(*waiting)
            waiting.clear()
        waiting.add(await producer.send(topic, value, key=key, headers=HEADERS))
        if len(waiting) >= UNDER_WAY:
            finished, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for each in finished:
                each.result()
        done += count
        progress("rows", done, rows)
    await asyncio.gather(*waiting)


def _next(messages: Iterator[Outgoing]) -> Outgoing | None:
    return next(messages, None)
