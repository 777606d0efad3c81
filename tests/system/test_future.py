"""One record far in the future, on a topic whose timestamps are the producers': nothing stops, and somebody is told."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kafka import KafkaProducer
from kafka.admin import ACL, ACLOperation, ACLPermissionType, ResourcePattern, ResourceType

from pipeline.broker.kafka import EmbeddedKafka
from pipeline.simulate.cloud_events import STRUCTURED
from pipeline.stream.own_topics import mend_letters, shut
from pipeline.stream.topic_admin import DEADLETTER, TopicSpec, admin, clock_of, create_topics
from tests.patience import PATIENCE

GPU = "telemetry.gpu"
YEARS_72 = 72 * 365 * 86_400


def test_one_record_of_2098_stops_nothing(
    fresh_kafka: EmbeddedKafka, worker_factory: Any, gpu_event: Callable[..., bytes]
) -> None:
    far = {"message.timestamp.type": "CreateTime", "message.timestamp.after.max.ms": str(2**62)}
    create_topics(fresh_kafka.bootstrap, [TopicSpec(GPU, config=far)])
    producer = KafkaProducer(bootstrap_servers=fresh_kafka.bootstrap, acks="all")

    def send(name: str, at: float) -> None:
        producer.send(
            GPU, gpu_event(name, at), headers=list(STRUCTURED), timestamp_ms=int(at * 1000), partition=0
        ).get(PATIENCE)

    worker = worker_factory(fresh_kafka.bootstrap).start()
    send("before", time.time() - 1)
    send("2098", time.time() + YEARS_72)
    send("55min", time.time() + 55 * 60)
    send("after", time.time())
    producer.close()

    def judged(status: dict[str, Any]) -> bool:
        counts = status["by_topic"].get(GPU, {"in": 0})
        return counts["in"] == 4 and counts["aggregated"] == 2 and counts["quarantined"] == 2

    worker.await_status("two are taken in, two are not", judged)
    worker.await_status("the watermark goes on", lambda s: s["watermarks"][GPU] > s["written_at"][:17])
    assert worker.status()["watermarks"][GPU] <= worker.status()["written_at"]
    skew = worker.await_status(
        "it is told", lambda s: [a for a in s["alerts"] if a["alertname"] == "ClockSkew"]
    )
    assert [a["labels"]["clock"] for a in skew] == [GPU]
    assert "later than the broker's clock" in skew[0]["annotations"]["description"]
    began = time.monotonic()
    assert worker.stop() == 0
    print(f"stopped in {time.monotonic() - began:.1f} s")
    assert worker.ask("SELECT DISTINCT reason FROM quarantine") == [("record_time_in_future",)]


def test_the_broker_tells_its_clock_and_what_keeps_a_topic_shut(tmp_path: Path, eventually: Any) -> None:
    before = time.time()
    rights = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": "true",
    }
    with (
        EmbeddedKafka(tmp_path / "kafka", heap="256m", config=rights) as broker,
        admin(broker.bootstrap) as client,
    ):
        reading = clock_of(client)
        assert reading is not None and before - 0.01 <= reading.at <= time.time()
        assert shut(broker.bootstrap, DEADLETTER, 1_000_000) == "is missing: gigawatch topics create"
        create_topics(broker.bootstrap, [TopicSpec(DEADLETTER, config={"max.message.bytes": "5000"})])
        assert "takes 5,000 bytes" in shut(broker.bootstrap, DEADLETTER, 1_000_000)
        assert shut(broker.bootstrap, DEADLETTER, 4_000) == ""
        # A topic that somebody has rights on is closed to everybody else.
        closed = "is closed to us: grant us WRITE and DESCRIBE on it"
        for who, what in (("User:somebody", ACLOperation.WRITE), ("User:ANONYMOUS", ACLOperation.DESCRIBE)):
            client.create_acls(
                [
                    ACL(
                        who,
                        "*",
                        what,
                        ACLPermissionType.ALLOW,
                        ResourcePattern(ResourceType.TOPIC, DEADLETTER),
                    )
                ]
            )
            eventually("closed", lambda: shut(broker.bootstrap, DEADLETTER, 4_000) == closed)
        assert mend_letters(broker.bootstrap, DEADLETTER) == f"the dead-letter topic {DEADLETTER} {closed}"
