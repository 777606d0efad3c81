"""The embedded broker is a real one, keeps its data, and never stays behind."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from pipeline.broker.java import Jar, cache, class_path, locked
from pipeline.broker.kafka import EmbeddedKafka, free_port
from pipeline.errors import BrokerUnreachable, GigawatchError
from pipeline.stream.topic_admin import TopicSpec, cluster_id, create_topics, describe_topics
from tests.patience import PATIENCE

TOPIC = TopicSpec("words")


def produce(bootstrap: str, *words: bytes, compression: str | None = None) -> None:
    producer = KafkaProducer(bootstrap_servers=bootstrap, compression_type=compression)
    for word in words:
        producer.send(TOPIC.name, word).get(PATIENCE)
    producer.close()


def consume(bootstrap: str, count: int) -> list[bytes]:
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, consumer_timeout_ms=PATIENCE * 1000)
    consumer.assign([TopicPartition(TOPIC.name, 0)])
    consumer.seek_to_beginning()
    words = [record.value for _, record in zip(range(count), consumer, strict=False)]
    consumer.close()
    return words


def ended(pid: int, seconds: float = PATIENCE) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def test_what_is_produced_is_consumed_with_every_codec(kafka: EmbeddedKafka) -> None:
    create_topics(kafka.bootstrap, [TOPIC])
    codecs = (None, "gzip", "lz4", "snappy", "zstd")
    for codec in codecs:
        produce(kafka.bootstrap, str(codec).encode(), compression=codec)
    assert consume(kafka.bootstrap, len(codecs)) == [str(codec).encode() for codec in codecs]


def test_a_restart_keeps_data_port_and_cluster_id(fresh_kafka: EmbeddedKafka) -> None:
    cluster, bootstrap = cluster_id(fresh_kafka.bootstrap), fresh_kafka.bootstrap
    create_topics(bootstrap, [TOPIC])
    produce(bootstrap, b"before")
    fresh_kafka.stop()
    assert fresh_kafka.pid is None
    with pytest.raises(BrokerUnreachable):
        cluster_id(bootstrap, timeout=1)
    fresh_kafka.start()
    assert (cluster_id(fresh_kafka.bootstrap), fresh_kafka.bootstrap) == (cluster, bootstrap)
    produce(bootstrap, b"after")
    assert consume(bootstrap, 2) == [b"before", b"after"]


def test_a_killed_broker_comes_back_with_what_it_acknowledged(fresh_kafka: EmbeddedKafka) -> None:
    create_topics(fresh_kafka.bootstrap, [TOPIC])
    produce(fresh_kafka.bootstrap, b"acknowledged")
    fresh_kafka.kill()
    fresh_kafka.start()
    assert consume(fresh_kafka.bootstrap, 1) == [b"acknowledged"]


def test_another_object_over_the_same_folder_finds_the_same_cluster(tmp_path: Path) -> None:
    with EmbeddedKafka(tmp_path) as first:
        cluster = cluster_id(first.bootstrap)
    with EmbeddedKafka(tmp_path) as second:
        assert cluster_id(second.bootstrap) == cluster


def test_a_paused_broker_goes_on_where_it_was(fresh_kafka: EmbeddedKafka) -> None:
    create_topics(fresh_kafka.bootstrap, [TOPIC])
    fresh_kafka.pause()
    assert fresh_kafka.pid is not None
    with pytest.raises(BrokerUnreachable):
        cluster_id(fresh_kafka.bootstrap, timeout=1)
    fresh_kafka.resume()
    produce(fresh_kafka.bootstrap, b"later")
    assert consume(fresh_kafka.bootstrap, 1) == [b"later"]


def test_a_paused_broker_can_be_stopped(fresh_kafka: EmbeddedKafka) -> None:
    pid = fresh_kafka.pid
    assert pid is not None
    fresh_kafka.pause()
    fresh_kafka.stop()
    assert ended(pid)


def test_it_listens_on_the_loopback_only(kafka: EmbeddedKafka) -> None:
    listeners = listening_addresses(kafka.pid)
    assert len(listeners) >= 2  # broker and controller
    assert listeners == {address for address in listeners if address.startswith("127.0.0.1:")}


def listening_addresses(pid: int | None) -> set[str]:
    found = psutil.Process(pid).net_connections(kind="inet")
    addresses = {c.laddr for c in found if c.status == psutil.CONN_LISTEN}
    return {f"{a.ip.removeprefix('::ffff:')}:{a.port}" for a in addresses}


def test_topics_are_not_made_by_asking_for_them(kafka: EmbeddedKafka) -> None:
    consumer = KafkaConsumer(bootstrap_servers=kafka.bootstrap)
    consumer.partitions_for_topic("telemetry.typo")
    consumer.close()
    assert describe_topics(kafka.bootstrap, ["telemetry.typo"]) == []


def test_settings_of_the_caller_win(tmp_path: Path) -> None:
    with EmbeddedKafka(tmp_path, heap="256m", config={"num.partitions": "7"}) as broker:
        create_topics(broker.bootstrap, [TopicSpec("wide", partitions=-1)])
        [wide] = describe_topics(broker.bootstrap, ["wide"])
    assert wide.partitions == 7


def test_a_taken_port_is_refused_by_number(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(GigawatchError, match=f"port {port} of 127.0.0.1 is in use"):
            EmbeddedKafka(tmp_path, port=port).start()


def test_a_broker_that_does_not_come_up_says_why_and_is_gone(tmp_path: Path) -> None:
    broker = EmbeddedKafka(tmp_path, config={"num.network.threads": "-3"})
    with pytest.raises(GigawatchError, match=r"num\.network\.threads"):
        broker.start()
    assert broker.pid is None


def test_a_heap_that_java_cannot_have_is_told_in_javas_words(tmp_path: Path) -> None:
    with pytest.raises(GigawatchError, match="Invalid maximum heap size"):
        EmbeddedKafka(tmp_path, heap="plenty").start()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(GigawatchError, match="cannot write to"):
        EmbeddedKafka(tmp_path / "file" / "kafka").start()


def test_pausing_what_does_not_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(GigawatchError, match="is not running"):
        EmbeddedKafka(tmp_path).pause()


OWNER = """
import sys, threading, time
from pathlib import Path
from pipeline.broker.kafka import EmbeddedKafka

broker = EmbeddedKafka(Path(sys.argv[1]), heap="256m")
starter = threading.Thread(target=broker.start)
starter.start()
starter.join()
time.sleep(1)
print(broker.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's death")
@pytest.mark.parametrize("paused", [False, True], ids=["running", "paused"])
def test_a_broker_dies_with_its_owner_but_not_with_the_thread_that_started_it(
    tmp_path: Path, paused: bool
) -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER, str(tmp_path)], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())  # printed a second after the starting thread has ended
        os.kill(pid, signal.SIGSTOP if paused else 0)
        owner.kill()
    assert ended(pid)


def test_the_port_is_outside_the_range_of_outgoing_connections() -> None:
    assert all(free_port() < 32_768 for _ in range(100))


def test_the_jars_are_whole_and_the_locked_ones() -> None:
    files = class_path()
    assert len(files) == len(set(files)) == len(locked()) > 40
    assert any(jar.coordinate.startswith("org.apache.kafka:kafka_2.13:4.1.") for jar in locked())


def test_a_jar_that_is_not_the_locked_one_is_refused_and_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jar = next(jar for jar in locked() if ":pcollections:" in jar.coordinate)
    other = Jar(jar.coordinate, "0" * 64)
    monkeypatch.setattr("pipeline.broker.java.locked", lambda: (other,))
    with pytest.raises(GigawatchError, match=f"expects {other.sha256}"):
        class_path(folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_jar_that_was_changed_in_the_cache_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jar = next(jar for jar in locked() if ":pcollections:" in jar.coordinate)
    monkeypatch.setattr("pipeline.broker.java.locked", lambda: (jar,))
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{free_port()}")  # a network that refuses
    copy = tmp_path / jar.file
    shutil.copy(cache() / jar.file, copy)
    assert class_path(folder=tmp_path) == [copy]
    with copy.open("ab") as file:
        file.write(b"more")
    with pytest.raises(GigawatchError, match="needs the network once"):
        class_path(folder=tmp_path)


def test_without_network_and_jars_the_message_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{free_port()}")  # a network that refuses
    with pytest.raises(GigawatchError, match="needs the network once") as caught:
        class_path(folder=tmp_path)
    assert "org.apache.kafka" in str(caught.value)
    assert list(tmp_path.iterdir()) == []
