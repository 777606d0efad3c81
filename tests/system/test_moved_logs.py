"""Logs that grow, shrink, vanish or belong to somebody else: read on, or stop and say so; never guess."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest
from kafka import TopicPartition

from pipeline.stream.topic_admin import admin

GPU = "telemetry.gpu"


def _offsets(data: Path) -> list[tuple[Any, ...]]:
    """What the ledger stands at; only when no pipeline runs."""
    with duckdb.connect(str(data / "ledger.duckdb"), read_only=True) as con:
        return con.execute("SELECT topic, part, next_offset, progress FROM offsets ORDER BY ALL").fetchall()


def _published(data: Path) -> dict[str, int]:
    return {str(p.relative_to(data)): p.stat().st_size for p in data.glob("*/**/*.parquet")}


@pytest.fixture
def ran(
    kafka: Any, telemetry_topics: Any, worker_factory: Any, send: Any, gpu_event: Any
) -> Callable[..., Any]:
    """A pipeline that took in 50 events of partition 0 and has been stopped, or runs on."""

    def make(running: bool) -> Any:
        telemetry_topics(partitions=2)
        now = time.time() - 60
        send(kafka.bootstrap, GPU, [gpu_event(i, now + i / 10) for i in range(50)])
        worker = worker_factory(kafka.bootstrap).start().await_begun().await_taken_in()
        if not running:
            worker.await_published()
            assert worker.stop() == 0, worker.said()
        return worker

    return make


def _refuses(worker: Any, code: int, *words: str) -> None:
    """It ends by itself with this exit code, saying why, in one message and without a traceback."""
    assert worker.wait() == code, worker.said()
    said = worker.said()
    assert all(word in said for word in words), said
    assert "Traceback" not in said and "Unclosed" not in said, said


def test_records_of_added_partitions_are_taken_in_from_the_first_one(
    kafka: Any, telemetry_topics: Any, worker_factory: Any, send: Any, gpu_event: Any
) -> None:
    telemetry_topics(partitions=2)
    now = time.time() - 60
    send(kafka.bootstrap, GPU, [gpu_event(f"old-{i}", now + i / 10) for i in range(50)])
    worker = worker_factory(kafka.bootstrap).start().await_begun().await_taken_in()
    with admin(kafka.bootstrap) as client:
        client.create_partitions({GPU: 5})
    for part in (4, 3, 2):
        send(
            kafka.bootstrap, GPU, [gpu_event(f"{part}-{i}", now + i / 10) for i in range(30)], partition=part
        )
    send(kafka.bootstrap, GPU, [gpu_event(f"new-{i}", now + 5 + i / 10) for i in range(20)])
    worker.await_taken_in().await_published()
    assert worker.stop() == 0, worker.said()
    assert worker.one("SELECT count(DISTINCT id) FROM gpu") == worker.one("SELECT count(*) FROM gpu") == 160
    parts = dict(worker.ask("SELECT part, sum(n)::BIGINT FROM fates WHERE fate = 'aggregated' GROUP BY ALL"))
    assert parts == {0: 70, 2: 30, 3: 30, 4: 30}


@pytest.mark.parametrize("records", [10, 200])
def test_a_topic_made_anew_while_nobody_looked_stops_the_start(
    kafka: Any, ran: Any, telemetry_topics: Any, send: Any, gpu_event: Any, records: int
) -> None:
    worker = ran(running=False)
    before, files = _offsets(worker.data), _published(worker.data)
    telemetry_topics(partitions=2)
    send(kafka.bootstrap, GPU, [gpu_event(f"other-{i}", time.time() - 30) for i in range(records)])
    worker.start()
    _refuses(worker, 4, GPU, "made anew", "empty data directory")
    assert (_offsets(worker.data), _published(worker.data)) == (before, files)


@pytest.mark.parametrize("records", [200])
def test_a_topic_made_anew_while_it_runs_stops_it(
    kafka: Any, ran: Any, telemetry_topics: Any, send: Any, gpu_event: Any, records: int
) -> None:
    worker = ran(running=True)
    telemetry_topics(partitions=2)
    send(kafka.bootstrap, GPU, [gpu_event(f"other-{i}", time.time() - 30) for i in range(records)])
    _refuses(worker, 4, GPU, "made anew", "empty data directory")
    assert dict(((t, p), n) for t, p, n, _ in _offsets(worker.data))[GPU, 0] == 50


def test_records_that_were_cut_off_before_they_were_read_stop_the_start(
    kafka: Any, ran: Any, send: Any, gpu_event: Any
) -> None:
    worker = ran(running=False)
    before, files = _offsets(worker.data), _published(worker.data)
    send(kafka.bootstrap, GPU, [gpu_event(f"unread-{i}", time.time() - 30) for i in range(50)])
    with admin(kafka.bootstrap) as client:
        client.delete_records({TopicPartition(GPU, 0): 80})
    worker.start()
    _refuses(worker, 4, GPU, "partition 0", "50", "80", "never read")
    assert (_offsets(worker.data), _published(worker.data)) == (before, files)


def test_the_ledger_of_another_cluster_is_left_alone(
    ran: Any, fresh_kafka: Any, telemetry_topics: Any, worker_factory: Any
) -> None:
    worker = ran(running=False)
    before, files = _offsets(worker.data), _published(worker.data)
    telemetry_topics(partitions=2, bootstrap=fresh_kafka.bootstrap)
    other = worker_factory(fresh_kafka.bootstrap, data=worker.data).start()
    _refuses(other, 4, "cluster", "--bootstrap", "empty data directory")
    assert (_offsets(worker.data), _published(worker.data)) == (before, files)


def test_a_broker_that_is_not_there_is_named_and_nothing_is_made(worker_factory: Any) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        bootstrap = f"127.0.0.1:{nobody.getsockname()[1]}"
    began = time.monotonic()
    worker = worker_factory(bootstrap).start()
    _refuses(worker, 3, bootstrap, "no broker there", "GIGAWATCH_BOOTSTRAP")
    print(f"refused after {time.monotonic() - began:.1f} s")
    assert not worker.data.exists()


def test_a_port_that_says_nothing_is_no_broker(worker_factory: Any) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(64)
        bootstrap = f"127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        worker = worker_factory(bootstrap).start()
        _refuses(worker, 3, bootstrap, "no Kafka broker answers")
        print(f"refused after {time.monotonic() - began:.1f} s")
    assert not worker.data.exists()


def test_a_data_directory_in_use_is_left_to_its_user(kafka: Any, ran: Any, worker_factory: Any) -> None:
    worker = ran(running=True)
    second = worker_factory(kafka.bootstrap, data=worker.data).start()
    _refuses(second, 5, str(worker.data), "in use by process", str(worker.process.pid))
    assert worker.running
    assert worker.stop() == 0, worker.said()
    assert worker.one("SELECT count(*) FROM gpu") == 50
