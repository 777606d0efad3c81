"""Topics on a real broker."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from pipeline.broker.kafka import EmbeddedKafka, free_port
from pipeline.errors import BrokerUnreachable, GigawatchError
from pipeline.stream.topic_admin import (
    ALERTS,
    DEADLETTER,
    TopicDone,
    TopicSpec,
    cluster_id,
    create_topics,
    default_specs,
    describe_topics,
)
from tests.patience import PATIENCE

LONG_AGO_MS = 1_000_000_000_000


def test_the_brokers_clock_stamps_every_record_of_a_telemetry_topic(
    kafka: EmbeddedKafka, telemetry_topics: Callable[..., tuple[str, ...]]
) -> None:
    gpu = telemetry_topics(partitions=1)[0]
    before = int(time.time() * 1000) - 1000
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap)
    producer.send(gpu, b"{}", timestamp_ms=LONG_AGO_MS).get(PATIENCE)
    producer.close()
    consumer = KafkaConsumer(bootstrap_servers=kafka.bootstrap, consumer_timeout_ms=PATIENCE * 1000)
    consumer.assign([TopicPartition(gpu, 0)])
    consumer.seek_to_beginning()
    record = next(consumer)
    consumer.close()
    assert record.timestamp >= before
    assert record.timestamp_type == 1  # LogAppendTime


def test_our_own_topics_come_with_the_telemetry(
    kafka: EmbeddedKafka, telemetry_topics: Callable[..., tuple[str, ...]]
) -> None:
    names = telemetry_topics(partitions=3)
    states = {topic.name: topic for topic in describe_topics(kafka.bootstrap)}
    assert {states[name].partitions for name in names} == {3}
    assert {states[name].config["message.timestamp.type"] for name in names} == {"LogAppendTime"}
    assert states[ALERTS].config == {"cleanup.policy": "compact"}
    assert int(states[DEADLETTER].config["max.message.bytes"]) > 4 * 1024 * 1024


def test_the_largest_record_that_a_topic_takes_fits_into_the_dead_letters(
    kafka: EmbeddedKafka, telemetry_topics: Callable[..., tuple[str, ...]]
) -> None:
    gpu = telemetry_topics(partitions=1)[0]
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap, max_request_size=6 * 1024 * 1024)
    body = b"x" * (4 * 1024 * 1024 - 200)
    producer.send(gpu, body).get(PATIENCE)
    producer.send(DEADLETTER, body, headers=[("reason", b"r" * 1000)]).get(PATIENCE)
    producer.close()
    [letters] = describe_topics(kafka.bootstrap, [DEADLETTER])
    assert (letters.offsets, letters.records) == ({0: (0, 1)}, 1)


def test_creating_twice_changes_nothing_and_says_what_differs(fresh_kafka: EmbeddedKafka) -> None:
    first = create_topics(fresh_kafka.bootstrap, default_specs(["telemetry.gpu"], partitions=2))
    assert {topic.what for topic in first} == {"created"}
    before = describe_topics(fresh_kafka.bootstrap)
    again = create_topics(fresh_kafka.bootstrap, default_specs(["telemetry.gpu"], partitions=2))
    assert all(topic == TopicDone(topic.name, "existed") for topic in again)
    wider = TopicSpec("telemetry.gpu", 5, config={"message.timestamp.type": "CreateTime"})
    [differing] = create_topics(fresh_kafka.bootstrap, [wider])
    assert differing.differs == (
        "partitions is 2, not 5",
        "message.timestamp.type is LogAppendTime, not CreateTime",
    )
    assert describe_topics(fresh_kafka.bootstrap) == before


def test_a_topic_that_the_cluster_refuses_is_named(kafka: EmbeddedKafka) -> None:
    with pytest.raises(GigawatchError, match="kafka topic no spaces please: the cluster refuses"):
        create_topics(kafka.bootstrap, [TopicSpec("no spaces please")])
    with pytest.raises(GigawatchError, match=r"kafka topic telemetry\.many: the cluster refuses"):
        create_topics(kafka.bootstrap, [TopicSpec("telemetry.many", replication=3)])


def test_an_unknown_topic_is_left_out_of_the_description(kafka: EmbeddedKafka) -> None:
    assert describe_topics(kafka.bootstrap, ["telemetry.unheard-of"]) == []


def test_a_cluster_has_the_same_id_whenever_it_is_asked(kafka: EmbeddedKafka) -> None:
    assert cluster_id(kafka.bootstrap) == cluster_id(kafka.bootstrap) != ""


def test_a_port_that_nobody_listens_on_is_named_with_what_to_do() -> None:
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(BrokerUnreachable, match="Connection refused") as caught:
        cluster_id(address, timeout=2)
    message = str(caught.value)
    assert address in message
    assert "gigawatch kafka" in message
    assert "--bootstrap" in message


def test_one_live_address_of_several_is_enough(kafka: EmbeddedKafka) -> None:
    assert cluster_id(f"127.0.0.1:{free_port()},{kafka.bootstrap}") == cluster_id(kafka.bootstrap)


def test_a_port_that_is_not_kafkas_is_told_from_one_that_is_closed() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(BrokerUnreachable, match="the port is open, but no Kafka broker answers"):
            cluster_id(f"127.0.0.1:{silent.getsockname()[1]}", timeout=1)


def test_a_paused_broker_does_not_count_as_reachable(fresh_kafka: EmbeddedKafka) -> None:
    fresh_kafka.pause()
    with pytest.raises(BrokerUnreachable):
        cluster_id(fresh_kafka.bootstrap, timeout=1)
    fresh_kafka.resume()
    cluster_id(fresh_kafka.bootstrap)


def test_a_failed_probe_leaves_no_thread_behind() -> None:
    # kafka-python's own client does, and its thread tries to connect and complains for ever.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    before = threading.active_count()
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        for _ in range(3):
            with pytest.raises(BrokerUnreachable):
                cluster_id(f"127.0.0.1:{silent.getsockname()[1]}", timeout=0.3)
    deadline = time.monotonic() + PATIENCE
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert threading.active_count() <= before


@pytest.mark.parametrize("address", ["localhost:http", "localhost:", "[::1]:kafka"])
def test_an_address_without_a_port_number_is_refused_by_name(address: str) -> None:
    with pytest.raises(BrokerUnreachable, match="is not a port number; expected HOST:PORT"):
        cluster_id(address, timeout=1)
