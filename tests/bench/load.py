"""What the benchmark puts into Kafka: full GPU events of a fleet of 1 GW, as the simulator makes them.

600,000 GPUs report once in 30 s each: 20,000 samples a second.  All machines are NVL72 racks, so that the
same fleet can report one sample a message and, as an array, a rack of 72 a message; a part of them name
their NVLink domain, as the steady scenario has it, and so are a series for each rack.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from pipeline import catalog
from pipeline.simulate import scenarios
from pipeline.simulate.cloud_events import Block
from pipeline.simulate.fleet import Fleet
from pipeline.simulate.fleet_spec import ClusterSpec, Effect, FleetSpec, QueueSpec, RegionSpec
from pipeline.simulate.writer import writer
from pipeline.stream.topic_admin import create_topics, default_specs

TOPIC = "telemetry.gpu"
PARTITIONS = 4
RATE = 20_000
"""Samples a second of 1 GW: 600,000 GPUs of 1.4 to 1.7 kW with their share of the site, each every 30 s."""
RACK = "ND_GB300_v6"
SEED = 1
_STEP_MS = 1000
_QUEUE_PERIOD, _QUEUES_PER_REGION, _REGIONS = 60, 2, 20
_FLOOR_MISSED_BY = 40


class Filled(NamedTuple):
    """What stands in the topic."""

    messages: int
    samples: int


def make_topics(bootstrap: str) -> None:
    """The telemetry topics with `PARTITIONS` each, dead letters and alerts."""
    create_topics(bootstrap, default_specs(catalog.load().topics, PARTITIONS))


def fleet(start: int, *, arrays: bool = False) -> Fleet:
    """The steady scenario's fleet, grown to `RATE` and all of racks, from `start` (epoch s) on."""
    spec = scenarios.plan(scenarios.load("steady"), start, rate=RATE).scenario.fleet
    regions = [
        region.model_copy(update={"clusters": [_racks(c) for c in region.clusters]})
        for region in spec.regions
    ]
    return Fleet(spec.model_copy(update={"regions": regions}), SEED, start, arrays=arrays)


def _racks(cluster: ClusterSpec) -> ClusterSpec:
    return cluster.model_copy(update={"sku": RACK, "gpus": max(1, round(cluster.gpus / 72)) * 72})


def write_steady_contract(directory: Path, now: float) -> Path:
    """The contract of the steady scenario at the fleet's size."""
    return scenarios.plan(scenarios.load("steady"), now, rate=RATE).write_contract(directory)


async def fill(bootstrap: str, fleet: Fleet, start: int, events: int, *, bad_every: int = 0) -> Filled:
    """Write at least `events` samples from `start` (epoch s, past) on as fast as the broker takes them.

    Every `bad_every`-th message is spoilt.
    """
    messages = samples = 0
    async with writer(bootstrap) as out:
        for at in itertools.count(start * 1000, _STEP_MS):
            blocks = fleet.gpu_blocks(at, at + _STEP_MS)
            if bad_every:
                blocks = [spoil(block, bad_every) for block in blocks]
            await out.write(blocks, at + _STEP_MS)
            messages += sum(len(block.values) for block in blocks)
            samples += sum(sum(block.samples) for block in blocks)
            if samples >= events:
                return Filled(messages, samples)
    raise AssertionError("time ended")


def spoil(block: Block, every: int) -> Block:
    """Every `every`-th message of a block made bad, each in another way; the others as they were."""
    values = list(block.values)
    for at, way in zip(range(every - 1, len(values), every), itertools.cycle(_WAYS), strict=False):
        values[at] = _bad(values[at], way)
    return replace(block, values=values)


_WAYS: Sequence[tuple[bytes, bytes]] = (
    (b'"utilization_ratio":', b'"utilization_ratio":4294967295,"x":'),  # set aside
    (b'{"specversion"', b'specversion"'),  # not JSON
    (b'"gpu":"GPU-', b'"gpx":"GPU-'),  # a required field missing
    (b'"power_watts":', b'"power_watts":true,"x":'),  # set aside
    (b'"source":"/', b'"origin":"/'),  # not a CloudEvent
    (b'"temperature_celsius":', b'"temperature_celsius":"0.5","x":'),  # set aside
    (b"gpu.utilization.v1", b"gpu.utilization.v9"),  # an unknown type
)


def _bad(value: bytes, way: tuple[bytes, bytes]) -> bytes:
    found = value.replace(*way, 1)
    assert found != value, (value, way)
    return found


def restless_fleet(start: int, seconds: int) -> Fleet:
    """As large a fleet in twenty regions, of which something is always going wrong or right again.

    In each, two queues fill and drain in turn, and a few GPUs fail for half a minute, a little later than in
    the region before: `write_restless_contract` has a clause for each of them.
    """
    spec = FleetSpec.uniform(RATE * 30, clusters=_REGIONS)
    regions = [r.model_copy(update={"queues": list(_queues(r))}) for r in spec.regions]
    return Fleet(
        spec.model_copy(update={"regions": regions}), SEED, start, effects=list(_effects(regions, seconds))
    )


def _queues(region: RegionSpec) -> Iterator[QueueSpec]:
    for name in "ab"[:_QUEUES_PER_REGION]:
        yield QueueSpec(
            queue=f"{region.region}-{name}", cluster=region.clusters[0].cluster, workload_class="training",
            arrivals_per_minute=60, admissions_per_minute=120, gpus_per_job=8, run=60,
        )  # fmt: skip


def _effects(regions: Sequence[RegionSpec], seconds: int) -> Iterator[Effect]:
    queues = [q.queue for region in regions for q in region.queues]
    for i, queue in enumerate(queues):
        first = _QUEUE_PERIOD * i // len(queues)
        for at in range(first, seconds, _QUEUE_PERIOD):
            end = at + _QUEUE_PERIOD // 2
            yield Effect.model_validate(
                {"what": "queue", "match": {"queue": queue}, "from": at, "to": end, "admissions": 0}
            )
    for i, region in enumerate(regions):
        at = 10 + max(1, seconds - 40) * i // len(regions)
        yield Effect.model_validate(
            {
                "what": "fail",
                "match": {"region": region.region},
                "from": at,
                "to": at + 30,
                "gpus": 2 * _FLOOR_MISSED_BY,
            }
        )


def write_restless_contract(directory: Path, fleet: FleetSpec, now: float) -> Path:
    """A clause for each queue and each region's GPUs, with bounds that what happens there crosses."""
    capacity = [
        f"  - {{id: floor-{r.region}, text: enough GPUs in {r.region}, match: {{region: {r.region}}}, by: [region], "
        f"committed_gpus: {sum(c.gpus for c in r.clusters) - _FLOOR_MISSED_BY}, span: 40s, for: 0s, severity: warning}}"
        for r in fleet.regions
    ]
    queues = [
        f"  - {{id: backlog-{q.queue}, text: a short queue, match: {{queue: {q.queue}}}, by: [queue], "
        "indicator: pending_jobs, bound: 10, for: 0s, severity: warning}"
        for r in fleet.regions
        for q in r.queues
    ]
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "restless.yaml"
    lines = [
        *("metadata: {id: restless, version: '1'}", "parties: {customer: bench, supplier: halcyon}"),
        *("term: {start: 2020-01-01, end: 2099-01-01}", "currency: USD", "timezone: UTC"),
        *("capacity:", *capacity, "service_levels:", *queues),
    ]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path
