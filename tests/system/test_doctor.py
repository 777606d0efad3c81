"""`gigawatch doctor` against a real Kafka, a real Alertmanager and a running pipeline."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType

from pipeline.broker.kafka import EmbeddedKafka, free_port
from pipeline.stream.topic_admin import admin, describe_topics
from tests.patience import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "schemas" / "example-contract.yaml"
WHOLE = """\
route: {{receiver: people, routes: [{{receiver: people, matchers: [alertname=Watchdog]}}]}}
receivers: [{{name: people, webhook_configs: [{{url: "http://127.0.0.1:{port}"}}]}}]
"""
Checks = dict[str, list[dict[str, str]]]


@pytest.fixture
def doctor(tmp_path: Path) -> Callable[..., tuple[int, Checks]]:
    """`doctor("--option", value, …)`: the exit code, and the findings by the name of their check."""

    def ask(*arguments: object) -> tuple[int, Checks]:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("GIGAWATCH_")}
        done = subprocess.run(
            [sys.executable, "-m", "pipeline.cli", "doctor", "--json", *map(str, arguments)],
            capture_output=True, text=True, cwd=tmp_path, env=environment | {"PYTHONPATH": str(ROOT)}, timeout=PATIENCE,
        )  # fmt: skip
        assert done.stdout and "Traceback" not in done.stderr, done.stderr
        by_check: Checks = {}
        for finding in json.loads(done.stdout)["checks"]:
            by_check.setdefault(finding["check"], []).append(finding)
        return done.returncode, by_check

    return ask


def worst(found: list[dict[str, str]]) -> str:
    return min((finding["verdict"] for finding in found), key=("fail", "warn", "ok").index)


def text(found: list[dict[str, str]]) -> str:
    return "\n".join(f"{finding['found']} -> {finding['remedy']}" for finding in found)


def configure(bootstrap: str, topic: str, **config: str) -> None:
    changed = {name.replace("_", "."): value for name, value in config.items()}
    with admin(bootstrap) as client:
        client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, changed)])


def test_a_whole_installation_is_in_order_and_nothing_is_changed_by_looking(
    kafka: EmbeddedKafka,
    telemetry_topics: Any,
    alertmanager_factory: Any,
    worker_factory: Any,
    live: Any,
    doctor: Any,
) -> None:
    telemetry_topics()
    am = alertmanager_factory(WHOLE.format(port=free_port()))
    feed = live(kafka.bootstrap, 6)
    worker = (
        worker_factory(kafka.bootstrap, contract=feed.contract, alertmanager=am.url).start().await_begun()
    )
    feed.writing.result()
    worker.await_taken_in()
    before = {state.name: state.records for state in describe_topics(kafka.bootstrap)}
    code, found = doctor(
        "--bootstrap",
        kafka.bootstrap,
        "--contract",
        feed.contract,
        "--data",
        worker.data,
        "--alertmanager",
        am.url,
    )
    after = {state.name: state.records for state in describe_topics(kafka.bootstrap)}
    wrong = [f for checks in found.values() for f in checks if f["verdict"] == "fail"]
    assert (code, wrong) == (0, []), found
    for check in ("versions", "contract", "data", "broker", "topics", "clock", "alertmanager"):
        assert worst(found[check]) == "ok", found[check]
    assert f"process {worker.process.pid} runs" in text(found["data"])
    assert "ready, version 0." in text(found["alertmanager"])
    telemetry = {name for name in before if name.startswith("telemetry.")}
    assert {name: after[name] for name in telemetry} == {name: before[name] for name in telemetry}
    assert worker.stop() == 0


def test_topics_that_are_missing_or_not_as_they_should_be_are_told_with_what_to_do(
    fresh_kafka: EmbeddedKafka, doctor: Any
) -> None:
    bootstrap = fresh_kafka.bootstrap
    code, found = doctor("--bootstrap", bootstrap, "--contract", EXAMPLE)
    assert code == 1
    [missing] = found["topics"]
    assert "telemetry.gpu" in missing["found"] and "telemetry.deadletter" in missing["found"]
    remedy = missing["remedy"].split()
    assert remedy[:3] == ["gigawatch", "topics", "create"]
    subprocess.run(
        [sys.executable, "-m", "pipeline.cli", *remedy[1:]], check=True, capture_output=True, cwd=ROOT
    )
    code, found = doctor("--bootstrap", bootstrap, "--contract", EXAMPLE)
    assert code == 0, found
    assert [f["found"] for f in found["topics"] if f["verdict"] != "ok"] == ["no event has ever come"]
    configure(bootstrap, "telemetry.gpu", message_timestamp_type="CreateTime")
    configure(bootstrap, "telemetry.queue", message_timestamp_type="LogAppendTime", max_message_bytes="1000")
    configure(bootstrap, "telemetry.deadletter", max_message_bytes="100000")
    configure(bootstrap, "gigawatch.alerts", cleanup_policy="delete")
    code, found = doctor("--bootstrap", bootstrap, "--contract", EXAMPLE)
    said = text([f for f in found["topics"] if f["verdict"] == "warn"])
    for name in ("telemetry.gpu", "telemetry.queue", "telemetry.deadletter", "gigawatch.alerts"):
        assert f"{name}: " in said
    assert "LogAppendTime" in said and "max.message.bytes" in said and "cleanup.policy=compact" in said
    assert code == 0, "it works like that, though not well"


def test_the_newest_record_shows_the_brokers_clock(
    kafka: EmbeddedKafka, telemetry_topics: Any, doctor: Any
) -> None:
    telemetry_topics()
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap)
    producer.send("telemetry.gpu", b"{}", timestamp_ms=1_000_000_000_000).get(PATIENCE)
    producer.close()
    _, found = doctor("--bootstrap", kafka.bootstrap)
    [clock] = found["clock"]
    assert clock["verdict"] == "ok" and "that of the broker" in clock["found"]


def test_everything_that_is_not_there_fails_at_once_each_with_its_remedy(tmp_path: Path, doctor: Any) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    code, found = doctor(
        "--bootstrap", nowhere, "--contract", tmp_path / "none.yaml", "--alertmanager", f"http://{nowhere}",
        "--webhook", "pager", "--grafana", f"http://{nowhere}",
    )  # fmt: skip
    assert code == 1
    for check in ("broker", "contract", "alertmanager", "webhook", "grafana"):
        assert worst(found[check]) == "fail", check
        assert all(f["remedy"] for f in found[check])
    assert nowhere in text(found["broker"]) and "gigawatch kafka" in text(found["broker"])
    assert "topics" not in found


def test_an_alertmanager_that_tells_nobody_is_to_look_at(alertmanager: Any, doctor: Any) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    _, found = doctor("--bootstrap", nowhere, "--alertmanager", alertmanager.url)
    assert worst(found["alertmanager"]) == "warn"
    assert "dead man's switch" in text(found["alertmanager"])
    assert "nobody: no destination" in text(found["alertmanager"])
    assert worst(found["clock"]) == "ok"
    _, found = doctor("--bootstrap", nowhere, "--grafana", alertmanager.url)
    assert worst(found["grafana"]) == "fail", "an Alertmanager is no Grafana"


def test_a_pipeline_is_well_while_it_lives_and_says_so(
    kafka: EmbeddedKafka, telemetry_topics: Any, worker_factory: Any
) -> None:
    telemetry_topics()
    worker = worker_factory(kafka.bootstrap)

    def check() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pipeline.cli", "status", "--check", "--data", str(worker.data)]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE)

    assert (check().returncode, "no pipeline runs" in check().stderr) == (1, True)
    worker.start().await_begun()
    well = check()
    assert (well.returncode, f"process {worker.process.pid}, running" in well.stdout) == (0, True), well
    assert worker.stop() == 0
    assert check().returncode == 1
