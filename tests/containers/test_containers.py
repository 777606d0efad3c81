"""The pipeline against Kafka in a container, and our own image built and run as docker-compose.yml runs it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from testcontainers.core.container import DockerContainer

from pipeline.ledger import status
from pipeline.stream.topic_admin import describe_topics
from tests.patience import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


def ended(container: DockerContainer) -> str:
    """What a container said that has ended in good order."""
    code = container.wait()
    output = b"".join(container.get_logs()).decode()
    assert code == 0, output
    return output


def said_events(output: str) -> int:
    [count] = re.findall(r"^([\d,]+) events in", output, re.MULTILINE)
    return int(count.replace(",", ""))


def run_inside(container: DockerContainer, *command: str) -> tuple[int, str]:
    done = container.exec(list(command))
    return done.exit_code, done.output.decode()


def status_of(container: DockerContainer) -> dict[str, Any]:
    code, output = run_inside(container, "gigawatch", "status", "--json")
    return dict(json.loads(output)) if code == 0 else {}


def test_the_pipeline_takes_everything_in_from_kafka_in_a_container(
    broker: Any, eventually: Any, tmp_path: Path
) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIGAWATCH_")}
    environment |= {
        "GIGAWATCH_BOOTSTRAP": broker.outside,
        "GIGAWATCH_DATA": str(tmp_path / "data"),
        "GIGAWATCH_DOOR": "",
        "GIGAWATCH_BOARD": "",
    }

    def gigawatch(*command: str) -> str:
        return subprocess.run(
            [sys.executable, "-m", "pipeline.cli", *command], check=True, text=True, cwd=ROOT, env=environment,
            stdout=subprocess.PIPE, timeout=PATIENCE,
        ).stdout  # fmt: skip

    gigawatch("topics", "create", "--partitions", "2")
    before = sum(
        state.records for state in describe_topics(broker.outside) if state.name.startswith("telemetry.")
    )
    sent = said_events(gigawatch("simulate", "--scenario", "steady", "--speed", "600"))
    process = subprocess.Popen([sys.executable, "-m", "pipeline.cli", "run"], cwd=ROOT, env=environment)
    try:

        def taken_in() -> dict[str, Any]:
            assert process.poll() is None, "the pipeline has ended"
            found = status.read(tmp_path / "data")
            return found if found and found["events"]["in"] >= before + sent else {}

        events = eventually("all is taken in", taken_in)["events"]
        assert events["in"] == before + sent
        assert events["aggregated"] == events["in"], "every event of the steady fleet is a good one"
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def test_our_image_is_healthy_counts_every_event_and_stops_in_good_order(
    broker: Any, ours: Any, eventually: Any
) -> None:
    ended(ours("topics", "create", "--partitions", "2"))
    pipeline = ours("run", contract=True)
    held = sum(
        state.records for state in describe_topics(broker.outside) if state.name.startswith("telemetry.")
    )
    sent = said_events(ended(ours("simulate", "--scenario", "steady", "--speed", "600")))
    found = eventually(
        "all is taken in", lambda: (s := status_of(pipeline)) and s["events"]["in"] >= held + sent and s
    )
    assert found["events"]["in"] == held + sent
    assert [c["id"] for c in found["contracts"]] == ["northline-halcyon"]
    wrapped = pipeline.get_wrapped_container()

    def health() -> str:
        wrapped.reload()
        return str(wrapped.attrs["State"]["Health"]["Status"])

    assert eventually("Docker's own health check", lambda: health() == "healthy")
    code, output = run_inside(pipeline, "gigawatch", "doctor", "--json")
    failed = [check for check in json.loads(output)["checks"] if check["verdict"] == "fail"]
    assert (code, failed) == (0, []), output
    wrapped.stop(timeout=60)
    wrapped.reload()
    assert wrapped.attrs["State"]["ExitCode"] == 0, b"".join(pipeline.get_logs()).decode()[-3000:]


WRITES = """
import os, pathlib
print(os.getuid(), os.getgid())
for place in ("/var/lib/gigawatch", "/tmp", "/", "/opt/gigawatch", "/etc", "/usr/local"):
    try:
        pathlib.Path(place, "written").write_text("x")
        print(place)
    except OSError:
        pass
"""


def test_our_image_is_not_root_and_can_write_to_its_data_and_nowhere_else(image: str) -> None:
    asked = DockerContainer(image, command=["-c", WRITES]).with_tmpfs_mount("/tmp", "size=16m,mode=1777")
    asked.with_kwargs(entrypoint=["python3"], read_only=True, cap_drop=["ALL"])
    with asked:
        assert ended(asked).split() == ["10001", "10001", "/var/lib/gigawatch", "/tmp"]


def test_without_a_pipeline_the_health_check_says_so(ours: Any) -> None:
    alone = ours("status", "--check")
    assert alone.wait() == 1
    assert "no pipeline runs on it" in b"".join(alone.get_logs()).decode()
