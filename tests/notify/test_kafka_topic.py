"""Against the embedded Apache Kafka."""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from aiokafka import AIOKafkaProducer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.notify.delivery import Delivery
from pipeline.notify.destination import DeliveryRefused
from pipeline.notify.kafka_topic import AlertTopic
from pipeline.notify.links import anchor_of
from pipeline.notify.webhook import Webhook
from pipeline.rules.alert_message import from_json
from pipeline.stream.topic_admin import TopicSpec, create_topics
from tests.records import records_of


@contextlib.asynccontextmanager
async def producing(bootstrap: str, **more: Any) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True, **more)
    await producer.start()
    try:
        yield producer
    finally:
        # With the broker down, what waits in the client is never flushed: a failed test must still end.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(producer.stop(), 10)


def new_topic(bootstrap: str) -> str:
    name = f"alerts-{uuid.uuid4().hex}"
    create_topics(bootstrap, [TopicSpec(name, config={"cleanup.policy": "compact"})])
    return name


def told_in(bootstrap: str, topic: str) -> list[tuple[str, dict[str, Any]]]:
    """(key, value) of every record of the topic, in order."""
    return [(record.key.decode(), json.loads(record.value)) for record in records_of(bootstrap, topic)]


def test_a_change_is_a_record_under_its_identity(kafka, change) -> None:
    topic = new_topic(kafka.bootstrap)
    sent = change('["CapacityShortfall", "ü"]', annotations={"sql": "SELECT 1"})

    async def scenario() -> None:
        async with producing(kafka.bootstrap) as producer:
            await AlertTopic(producer, topic=topic).send([sent], 0.0)

    asyncio.run(scenario())
    ((key, value),) = told_in(kafka.bootstrap, topic)
    assert key == sent.identity
    assert from_json(json.dumps(value)) == sent


def test_a_change_that_is_too_large_is_refused_and_its_neighbours_arrive(
    kafka, outbox, quick, running, until, change
) -> None:
    topic = new_topic(kafka.bootstrap)
    ledger = outbox("kafka")
    ledger.write(change("a"), change("big", annotations={"sql": "x" * 30_000}), change("b"))

    async def scenario() -> None:
        async with producing(kafka.bootstrap, max_request_size=20_000) as producer:
            with pytest.raises(DeliveryRefused, match=topic):
                await AlertTopic(producer, topic=topic).send([change(annotations={"s": "x" * 30_000})], 0.0)
            delivery = Delivery(
                ledger, [AlertTopic(producer, topic=topic)], policy=replace(quick, send_timeout=30),
                public_url="https://noc.example",
            )  # fmt: skip
            async with running(delivery):
                await until(lambda: sum(row["delivered"] is None for row in ledger.rows("kafka")) == 1)
                await until(lambda: delivery.lanes[0].refused == 1)

    asyncio.run(scenario())
    assert {key: value["generator_url"] for key, value in told_in(kafka.bootstrap, topic)} == {
        name: f"https://noc.example/#{anchor_of('CapacityShortfall', change(name).labels)}" for name in "ab"
    }, "and each links to its card on the board"


def test_when_kafka_is_down_alerts_still_go_out_and_say_so_and_the_topic_is_whole_in_the_end(
    fresh_kafka, receiver, outbox, quick, running, until, change
) -> None:
    topic = new_topic(fresh_kafka.bootstrap)
    ledger = outbox("kafka", "webhook")
    policy = replace(quick, send_timeout=30)

    async def scenario() -> None:
        async with (
            receiver() as hook,
            httpx.AsyncClient(trust_env=False) as client,
            producing(fresh_kafka.bootstrap, request_timeout_ms=2000) as producer,
        ):
            destinations = [AlertTopic(producer, topic=topic, timeout=0.5), Webhook(hook.url, client)]
            async with running(Delivery(ledger, destinations, policy=policy)) as delivery:
                ledger.write(change("a"))
                delivery.nudge()
                await until(lambda: all(row["delivered"] for row in ledger.rows("kafka")))
                await asyncio.to_thread(fresh_kafka.stop)
                ledger.write(change("a", "resolved"), change("b"))
                delivery.nudge()
                await until(lambda: delivery.lanes[0].failing_since is not None)
                await until(lambda: ("b", "firing") in hook.told())
                ledger.write(change("c"))
                delivery.nudge()
                await until(lambda: ("c", "firing") in hook.told())
                noted = hook.accepted[-1]["alerts"][0]["annotations"]
                assert "Kafka takes no writes" in noted["kafka_outage"]
                await asyncio.to_thread(fresh_kafka.start)
                await until(lambda: all(row["delivered"] for row in ledger.rows("kafka")))

    asyncio.run(scenario())
    found = told_in(fresh_kafka.bootstrap, topic)
    assert next(value["state"] for key, value in found if key == "a") == "firing"
    assert {key: value["state"] for key, value in found} == {"a": "resolved", "b": "firing", "c": "firing"}


HISTORY = st.lists(st.integers(0, 3), max_size=14)
FAULTS = st.lists(st.sampled_from([None, "before", "after"]), max_size=8)


@settings(max_examples=15, suppress_health_check=list(HealthCheck))
@given(history=HISTORY, faults=FAULTS)
def test_whatever_fails_the_topic_has_every_change_of_an_identity_in_order(
    kafka, outbox, quick, running, until, change, unreliable, history, faults
) -> None:
    topic = new_topic(kafka.bootstrap)
    ledger = outbox(topic)
    fires: dict[int, bool] = {}
    changes = []
    for who in history:
        fires[who] = not fires.get(who, False)
        changes.append(change(str(who), "firing" if fires[who] else "resolved", at=float(len(changes))))

    async def scenario() -> None:
        async with producing(kafka.bootstrap) as producer:
            target = unreliable(AlertTopic(producer, topic=topic, name=topic), faults)
            async with running(Delivery(ledger, [target], policy=replace(quick, send_timeout=30))):
                ledger.write(*changes)
                await until(lambda: all(row["delivered"] for row in ledger.rows(topic)))

    asyncio.run(scenario())
    found = told_in(kafka.bootstrap, topic)
    for who in set(history):
        told = [value["fired_at"] for key, value in found if key == str(who)]
        without_repeats = [at for n, at in enumerate(told) if n == 0 or told[n - 1] != at]
        assert without_repeats == [c.fired_at for c in changes if c.identity == str(who)]
