"""`kill -9` at any moment, and nothing is lost and nothing counted twice.

The truth is kept by the writer, of what the broker acknowledged; it is compared with what any tool can read
from the published Parquet after a clean stop.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipeline.simulate.cloud_events import Block
from pipeline.simulate.fleet import Fleet
from pipeline.simulate.fleet_spec import BillingSpec, FleetSpec, QueueSpec
from pipeline.simulate.writer import writer
from tests.patience import PATIENCE
from tests.records import records_of

ROOT = Path(__file__).parents[2]
GPUS = 4_032
STEP_MS = 2_000
STEPS_OF_A_CYCLE = 30_000 // STEP_MS
"""Every GPU reports once in a cycle of 30 s, in steps of event time."""
BAD_OF = 200
"""One record of so many is followed by one that cannot be understood or believed, and by a re-sent one."""
STEPS_A_SECOND = 18.0
FATES = ("aggregated", "duplicate", "quarantined", "dead_lettered")

CONTRACT = """\
metadata: {id: killed, version: "1"}
parties: {customer: Northline Mobile, supplier: Halcyon Compute}
term: {start: 2020-01-01, end: 2040-01-01}
currency: USD
timezone: UTC
capacity:
  - {id: too-few, text: More than there are., match: {region: region-0}, by: [region], committed_gpus: 5000, for: 5m}
  - {id: enough, text: As many as there are., match: {region: region-1}, by: [region], committed_gpus: 100, for: 10m}
"""


class _Sample(msgspec.Struct):
    cluster: str
    utilization_ratio: float
    power_watts: float
    energy_joules_total: float


class _Event(msgspec.Struct):
    data: _Sample


@dataclass
class Truth:
    """What was written: events by topic and fate; and of the good GPU samples, sums in whole quanta by key.

    `windows`: (cluster, start of the 10 s window in epoch s) → [samples, utilisation in 1e-6, power in mW,
    energy in mJ].
    """

    fates: Counter[tuple[str, str]] = field(default_factory=Counter)
    windows: dict[tuple[str, int], list[int]] = field(default_factory=dict)
    done: int = 0

    def by_topic(self) -> dict[str, int]:
        """Topic → events written."""
        found: Counter[str] = Counter()
        for (topic, _), n in self.fates.items():
            found[topic] += n
        return dict(found)

    def add(self, block: Block) -> None:
        self.fates[block.topic, "aggregated"] += len(block.values)
        if block.topic != "telemetry.gpu":
            return
        decode = msgspec.json.Decoder(_Event).decode
        for time_ms, value in zip(block.times_ms, block.values, strict=True):
            s = decode(value).data
            sums = self.windows.setdefault((s.cluster, time_ms // 10_000 * 10), [0, 0, 0, 0])
            sums[0] += 1
            sums[1] += round(s.utilization_ratio * 1_000_000)
            sums[2] += round(s.power_watts * 1000)
            sums[3] += round(s.energy_joules_total * 1000)


def _spoilt(block: Block, truth: Truth) -> Iterable[Block]:
    """A few of the block's records again: as they were, cut off, and with a time nobody believes."""
    chosen = range(0, len(block.values), BAD_OF)
    values = [block.values[i] for i in chosen]
    cut = [value[: len(value) // 2] for value in values]
    absurd = [value.replace(b'"time":"20', b'"time":"21') for value in values]
    for fate, bad in (("duplicate", values), ("dead_lettered", cut), ("quarantined", absurd)):
        truth.fates[block.topic, fate] += len(bad)
        yield Block(
            block.topic,
            [block.times_ms[i] for i in chosen],
            [block.keys[i] for i in chosen],
            bad,
            [1] * len(bad),
        )


async def _write(
    bootstrap: str, fleet: Fleet, start: int, steps: int, truth: Truth, allowed: Callable[[], float]
) -> None:
    """All steps of the fleet, evenly, but never more than the `allowed` share of them."""
    async with writer(bootstrap) as out:
        began, before = time.monotonic(), list[Block]()
        for step in range(steps):
            at = start * 1000 + step * STEP_MS
            blocks = fleet.step(at, at + STEP_MS)
            again = [
                bad for block in before if block.topic == "telemetry.gpu" for bad in _spoilt(block, truth)
            ]
            for block in blocks:
                truth.add(block)
            await out.write([*blocks, *again], at + STEP_MS)
            truth.done, before = step + 1, blocks
            while step / steps > allowed():
                await asyncio.sleep(0.02)
            await asyncio.sleep(max(0.0, began + step / STEPS_A_SECOND - time.monotonic()))


def _names(directory: Path) -> set[str]:
    try:
        return {entry.name for entry in directory.iterdir()}
    except FileNotFoundError:
        return set()


def _seen_on_disk(data: Path, what: str) -> Callable[[], bool]:
    """A question that comes true right after a durable step shows on the disk."""
    directory = {"staged": data / "staging", "segment": data / "segments", "sealed": data / "segments"}.get(
        what
    )
    if directory is not None:
        before = _names(directory)
        if what == "sealed":  # the segments' files go last
            return lambda: bool(before - _names(directory))
        return lambda: bool(_names(directory) - before)
    root = {"renamed": data / "history" / "telemetry.gpu", "published": data / "rollups"}[what]
    newest = _newest(root)
    return lambda: _newest(root) > newest


def _newest(root: Path) -> int:
    """When a directory below was last changed: a rename into it changes it."""
    found = [0]
    for path in [root, *root.glob("*"), *root.glob("*/*"), *root.glob("*/*/*")]:
        try:
            found.append(path.stat().st_mtime_ns)
        except FileNotFoundError:
            continue
    return max(found)


AIMED_WITHIN = 15.0
MOMENTS = ("any", "staged", "any", "segment", "any", "renamed", "any", "sealed", "any", "published")


def _kill(worker: Any, moment: str, rng: random.Random) -> bool:
    """Kill it at the moment, or some time after it began when that does not come; now and then a little later.

    Whether the moment came.  One that may be any may also be in the middle of the start.
    """
    came = False
    if moment == "any":
        time.sleep(rng.uniform(0.5, 5.0))
    else:
        worker.await_begun()
        seen, until = _seen_on_disk(worker.data, moment), time.monotonic() + AIMED_WITHIN
        while not (came := seen()) and time.monotonic() < until:
            time.sleep(0.002)
        time.sleep(rng.choice([0.0, 0.0, rng.uniform(0, 0.02)]))
    assert worker.running, worker.said()
    worker.kill()
    return came


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kills", "cycles"), [(len(MOMENTS), 62), pytest.param(4 * len(MOMENTS), 250, marks=pytest.mark.long)]
)
def test_kills_at_any_moment_lose_nothing_and_count_nothing_twice(
    kafka: Any,
    telemetry_topics: Any,
    worker_factory: Any,
    background: Any,
    tmp_path: Path,
    kills: int,
    cycles: int,
) -> None:
    telemetry_topics()
    contract = tmp_path / "contract.yaml"
    contract.write_text(CONTRACT)
    worker = worker_factory(kafka.bootstrap, contract=contract, seal_every=1, publish_every=1)
    steps = cycles * STEPS_OF_A_CYCLE
    start = (int(time.time()) - steps * STEP_MS // 1000 - 600) // 60 * 60
    truth, done, rng = Truth(), [0], random.Random(26)
    writing = background(
        _write(kafka.bootstrap, _fleet(start), start, steps, truth, lambda: (done[0] + 1) / (kills + 1))
    )
    report, met = tmp_path / "reader.json", 0
    reader = subprocess.Popen(
        [sys.executable, str(Path(__file__).parent / "reader.py"), worker.data, report],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    try:
        for number in range(kills):
            worker.start()
            met += _kill(worker, MOMENTS[number % len(MOMENTS)], rng)
            done[0] = number + 1
        worker.start()
        writing.result()
        worker.await_taken_in().await_published()
        assert worker.stop() == 0, worker.said()
        time.sleep(1.0)  # one more round of the reader, over what the stop published
    finally:
        reader.send_signal(signal.SIGTERM)
        assert reader.wait(PATIENCE) == 0
    _compare_fates(worker, truth)
    _compare_rollups(worker, truth)
    _compare_raw(worker, truth)
    _compare_dead_letters(kafka.bootstrap, truth)
    _alerts_once(worker)
    assert not _names(worker.data / "segments")
    assert not {name for name in _names(worker.data / "staging") if not name.startswith("old-")}
    found = json.loads(report.read_text())
    print(
        f"{met} of {kills} kills right after a step on disk; reader: {found['rounds']} rounds; {found['highest']}"
    )
    assert met >= kills // 4, "the kills hardly ever met a step on disk: this has not shown what it should"
    assert not found["faults"], found["faults"][:20]
    assert found["rounds"] > 10


def _fleet(start: int) -> Fleet:
    spec = FleetSpec.uniform(GPUS, clusters=6)
    queue = QueueSpec(
        queue="q",
        cluster="h100-0",
        workload_class="training",
        arrivals_per_minute=10,
        admissions_per_minute=20,
    )
    first = spec.regions[0].model_copy(update={"queues": [queue]})
    billing = BillingSpec(history=86_400, prices={"ND_H100_v5": 3.0})
    return Fleet(
        spec.model_copy(update={"regions": [first, *spec.regions[1:]], "billing": billing}), 26, start
    )


def _compare_fates(worker: Any, truth: Truth) -> None:
    found = dict(
        ((topic, fate), n)
        for topic, fate, n in worker.ask("SELECT topic, fate, sum(n)::BIGINT FROM fates GROUP BY ALL")
    )
    came = {(topic, "in"): n for topic, n in truth.by_topic().items()}
    assert found == came | {key: n for key, n in truth.fates.items() if n}
    said = worker.status()["by_topic"]
    assert all(s["in"] == sum(s[fate] for fate in FATES) for s in said.values()), said
    assert {topic: s["in"] for topic, s in said.items()} == truth.by_topic()


def _compare_rollups(worker: Any, truth: Truth) -> None:
    """The 10 s roll-ups key by key; the wider ones by what they add up to."""
    rows = worker.ask(
        "SELECT cluster, epoch(window_start)::BIGINT, samples, round(utilization_ratio_sum * 1e6)::BIGINT, "
        "round(power_watts_sum * 1e3)::BIGINT, round(energy_joules_total_sum * 1e3)::BIGINT FROM gpu_10s"
    )
    assert len(rows) == len(truth.windows)
    wrong = [row for row in rows if truth.windows.get((row[0], row[1])) != list(row[2:])]
    assert not wrong, (len(wrong), wrong[0], truth.windows.get(wrong[0][:2]))
    for width in ("1m", "15m", "1h", "1d"):
        found = worker.ask(f"SELECT cluster, sum(samples)::BIGINT FROM gpu_{width} GROUP BY ALL")
        assert dict(found) == _by_cluster(truth), width


def _by_cluster(truth: Truth) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for (cluster, _), sums in truth.windows.items():
        counts[cluster] += sums[0]
    return dict(counts)


def _compare_raw(worker: Any, truth: Truth) -> None:
    rows = worker.ask(
        "SELECT cluster, epoch(time_bucket(INTERVAL 10 SECOND, time))::BIGINT, count(*), "
        "sum(round(utilization_ratio * 1e6)::BIGINT)::BIGINT, sum(round(power_watts * 1e3)::BIGINT)::BIGINT, "
        "sum(round(energy_joules_total * 1e3)::BIGINT)::BIGINT FROM gpu GROUP BY ALL"
    )
    assert {(c, w): list(sums) for c, w, *sums in rows} == truth.windows
    for view in ("gpu", "queue", "energy", "billing"):
        rows, identities = worker.ask(f"SELECT count(*), count(DISTINCT (source, id, idx)) FROM {view}")[0]
        assert rows == identities == truth.fates[f"telemetry.{view}", "aggregated"], view
    assert worker.one("SELECT count(*) FROM quarantine") == truth.fates["telemetry.gpu", "quarantined"]


def _compare_dead_letters(bootstrap: str, truth: Truth) -> None:
    """Every one is there; a kill between the topic and the ledger may have written it twice."""
    keys = {record.key for record in records_of(bootstrap, "telemetry.deadletter")}
    assert len(keys) == truth.fates["telemetry.gpu", "dead_lettered"]


def _alerts_once(worker: Any) -> None:
    """State is kept over every kill: what fires fired once, and what is well never did."""
    fired = worker.ask(
        "SELECT clause, state, count(*) FROM alerts WHERE clause IN ('too-few', 'enough') GROUP BY ALL"
    )
    assert [row for row in fired if row[1] == "firing"] == [("too-few", "firing", 1)], fired
