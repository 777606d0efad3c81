"""A disk that is full: one clear message, and nothing is lost once there is room."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipeline.simulate.fleet import Fleet
from pipeline.simulate.fleet_spec import FleetSpec
from pipeline.simulate.simulator import fill
from tests.patience import PATIENCE

MINUTES = 12


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[Path, Callable[[int], None]]]:
    """A disk of its own, and a function that leaves so many free bytes on it."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a small disk")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1g", "none", place], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"needs a machine that lets us mount a small disk: {done.stderr.strip()}")

    def leave(room: int) -> None:
        at = os.statvfs(place)
        size = (at.f_blocks - at.f_bfree) * at.f_frsize + room
        subprocess.run(["mount", "-o", f"remount,size={size}", place], check=True)

    yield place, leave
    subprocess.run(["umount", "--lazy", place], check=True)


def test_a_full_disk_is_said_and_nothing_is_lost_once_there_is_room(
    kafka: Any, telemetry_topics: Any, worker_factory: Any, background: Any, disk: Any, alertmanager: Any
) -> None:
    place, leave = disk
    telemetry_topics()
    start = int(time.time()) // 60 * 60 - 60 * (MINUTES + 1)
    fleet = Fleet(FleetSpec.uniform(8_000, clusters=8), 5, start)
    worker = worker_factory(
        kafka.bootstrap, data=place / "data", batch_records=20_000, alertmanager=alertmanager.url
    ).start().await_begun()  # fmt: skip
    # How much the ledger, segments and files of a flow take together depends on how it was cut into batches;
    # the history alone of these 192,000 events takes three times this room.
    leave(2**20)
    writing = background(fill(kafka.bootstrap, fleet, start, start + 60 * MINUTES, gpus_only=True))
    assert worker.wait() == 5, worker.said()
    said = worker.said()
    assert "no space left on the disk" in said and "free space" in said and str(place) in said, said
    assert "Traceback" not in said, said
    (stalled,) = [a for a in _alerts(alertmanager.url) if a["labels"]["alertname"] == "PipelineStalled"]
    assert stalled["annotations"]["why"] in said, "alert, message and status say the same"
    why = stalled["annotations"]["why"]
    # Where the disk has no room for the status either, the log has it.
    assert worker.status().get("error") == why or why in worker.said(100_000)
    sent = writing.result()
    leave(2**30)
    worker.start().await_begun().await_taken_in().await_published()
    assert worker.stop() == 0, worker.said()
    over = [a["labels"]["alertname"] for a in _alerts(alertmanager.url)]
    assert "PipelineStalled" not in over, "it was kept, and ended at the next start"
    rows, identities = worker.ask("SELECT count(*), count(DISTINCT (source, id, idx)) FROM gpu")[0]
    assert (
        rows == identities == sent.samples["telemetry.gpu"] == worker.one("SELECT sum(samples) FROM gpu_10s")
    )


def _alerts(url: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = httpx.get(f"{url}/api/v2/alerts", trust_env=False, timeout=PATIENCE).json()
    return found
