"""One sample a message or 72, structured or binary: the same telemetry, so the same roll-ups."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from pipeline.simulate.fleet import Fleet
from pipeline.simulate.fleet_spec import ClusterSpec, FleetSpec, QueueSpec, RegionSpec
from pipeline.simulate.simulator import fill

SPEC = FleetSpec(
    provider="halcyon",
    regions=[
        RegionSpec(
            region="eu-central",
            site="fra-03",
            clusters=[
                ClusterSpec(cluster="fra-g1", sku="ND_GB300_v6", gpus=720, nvlink_domains=True, data_class="eu"),
                ClusterSpec(cluster="fra-h1", sku="ND_H100_v5", gpus=240, utilization=0.6),
            ],
            queues=[
                QueueSpec(
                    queue="spot", cluster="fra-g1", workload_class="training", arrivals_per_minute=30,
                    admissions_per_minute=60,
                )
            ],
        )
    ],
)  # fmt: skip
MINUTES = 8
VIEWS = tuple(
    f"{view}_{width}" for view in ("gpu", "queue", "energy") for width in ("10s", "1m", "15m", "1h", "1d")
)


def test_arrays_of_72_and_binary_mode_give_the_same_rollups_as_one_structured_sample_a_message(
    kafka: Any, telemetry_topics: Any, worker_factory: Any
) -> None:
    start = int(time.time()) // 60 * 60 - 60 * (MINUTES + 1)

    def rollups(**form: Any) -> dict[str, list[tuple[Any, ...]]]:
        telemetry_topics(partitions=3)
        fleet = Fleet(SPEC, 72, start, **form)
        sent = asyncio.run(fill(kafka.bootstrap, fleet, start, start + 60 * MINUTES))
        assert sent.samples["telemetry.gpu"] == 960 * 2 * MINUTES
        worker = worker_factory(kafka.bootstrap).start().await_begun().await_taken_in().await_published()
        assert worker.stop() == 0, worker.said()
        assert worker.one("SELECT sum(n) FROM fates WHERE fate NOT IN ('in', 'aggregated')") is None
        assert worker.one("SELECT count(*) FROM gpu") == sent.samples["telemetry.gpu"]
        return {view: worker.ask(f"SELECT * FROM {view} ORDER BY ALL") for view in VIEWS}

    plain = rollups()
    assert all(plain.values())
    for form in ({"arrays": True}, {"mode": "binary"}, {"arrays": True, "mode": "binary"}):
        found = rollups(**form)
        for view in VIEWS:
            assert found[view] == plain[view], (form, view)
