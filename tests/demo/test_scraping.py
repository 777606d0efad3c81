"""A fleet behind exporters: what is scraped is what the fleet measures, in either set of names."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from pipeline.catalog import load
from pipeline.collect.targets import TargetFile
from pipeline.demo.scraping import scraped
from pipeline.simulate import scenarios
from pipeline.simulate.cloud_events import Block
from pipeline.simulate.dcgm_exporter import PAGES
from pipeline.simulate.scenarios import Play
from pipeline.simulate.writer import Sent

#: Measures, and how much the exporters' digits may take from them.
ROUNDED = {
    "utilization_ratio": 0.0051, "engine_active_ratio": 0.0006, "memory_used_bytes": 2**20, "power_watts": 0.051,
    "energy_joules_total": 1, "temperature_celsius": 0.51,
}  # fmt: skip
SAID = ("provider", "region", "site", "cluster", "sku", "nvlink_domain", "data_class", "xid")


class Kept:
    """A writer that keeps what it is given."""

    def __init__(self) -> None:
        self.sent = Sent()
        self.blocks: list[Block] = []

    async def write(self, blocks: Iterable[Block], t1_ms: int) -> None:
        self.blocks += blocks

    def gpus(self) -> dict[str, tuple[int, dict[str, Any]]]:
        """GPU → the second and the data of its last sample."""
        found = {}
        for message in (
            m for block in self.blocks if block.topic == "telemetry.gpu" for m in block.messages()
        ):
            data = json.loads(message.value)["data"]
            for sample in data if isinstance(data, list) else [data]:
                found[sample["gpu"].lower()] = message.time_ms // 1000, sample
        return found


def played(play: Play, targets: Path, since: int, seconds: int) -> Kept:
    """What the collector makes of a time of the play, in seconds since its start."""
    kept, fleet = Kept(), play.fleet(mode="scraped")

    async def run() -> None:
        async with scraped(play, load(), targets, kept) as out:
            for at in range(play.start + since, play.start + since + seconds):
                await out.write(fleet.step(at * 1000, at * 1000 + 1000), at * 1000 + 1000)

    asyncio.run(run())
    return kept


def told(play: Play, since: int, seconds: int) -> Kept:
    """The same time as the fleet's own events have it."""
    kept, fleet = Kept(), play.fleet()
    for at in range(play.start + since, play.start + since + seconds):
        kept.blocks += fleet.step(at * 1000, at * 1000 + 1000)
    return kept


@pytest.fixture(scope="module")
def play() -> Play:
    return scenarios.plan(scenarios.load("dcgm"), time.time(), duration=120)


@pytest.mark.parametrize("minute", [2, 17, 25])
def test_what_is_scraped_is_what_the_fleet_measures(tmp_path: Path, play: Play, minute: int) -> None:
    """In quiet times, when GPUs have failed and others are gone, and when a region is dark."""
    kept = played(play, tmp_path / "targets.json", minute * 60, 30)
    found, wanted = kept.gpus(), told(play, minute * 60, 30).gpus()
    assert found.keys() == wanted.keys() and len(found) > 400
    for gpu, (second, sample) in wanted.items():
        at, data = found[gpu]
        assert at == second and "health" not in data, "dcgm-exporter knows nothing of it"
        assert [data.get(name) for name in SAID] == [sample.get(name) for name in SAID]
        for name, most in ROUNDED.items():
            assert data[name] == pytest.approx(sample[name], abs=most), (name, data, sample)
    assert all(block.topic != PAGES for block in kept.blocks)
    assert {block.topic for block in kept.blocks} >= {"telemetry.gpu", "telemetry.queue", "telemetry.energy"}


def test_the_targets_are_a_file_as_prometheus_has_it(tmp_path: Path, play: Play) -> None:
    targets = tmp_path / "targets.json"
    played(play, targets, 0, 1)
    file = TargetFile(targets)
    assert file.read() and len(file.targets) == len({target.instance for target in file.targets}) == 123
    labels = dict(next(t for t in file.targets if t.instance.startswith("ams-g1-")).labels)
    assert labels["nvlink_domain"].startswith("ams-g1-r") and labels["data_class"] == "eu-personal"


def test_nodes_of_both_versions_are_there(play: Play) -> None:
    fleet, pages = play.fleet(mode="scraped"), list[bytes]()
    for at in range(play.start, play.start + 30):
        pages += [
            page for b in fleet.step(at * 1000, at * 1000 + 1000) if b.topic == PAGES for page in b.values
        ]
    new = [page for page in pages if b"DCGM_FI_DEV_FB_USED_BYTES{" in page]
    old = [page for page in pages if b"DCGM_FI_DEV_FB_USED{" in page]
    assert len(old) > len(new) > 20 and not set(old) & set(new)
