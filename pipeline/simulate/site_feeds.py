"""Feeds of a site: IT power is that of its GPUs and of the rest of the IT, facility power adds overhead.

The meters see every GPU that is powered, whether its telemetry arrives or not.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import numpy as np

from pipeline.simulate.cloud_events import Message, Mode, cloud_event
from pipeline.simulate.fleet_spec import INTERVAL, RegionSpec
from pipeline.simulate.gpu_cluster import GpuCluster
from pipeline.simulate.noise import uniform

TOPIC, TYPE = "telemetry.energy", "energy.reading.v1"
_INTERVAL_MS = INTERVAL * 1000


class Feed:
    """One of the `of` feeds of a site, which share its load evenly."""

    def __init__(
        self, provider: str, currency: str, region: RegionSpec, feed: str, clusters: Sequence[GpuCluster],
        seed: int, mode: Mode = "structured",
    ) -> None:  # fmt: skip
        self.region, self.currency, self.clusters = region, currency, clusters
        self.seed, self.mode = seed, mode
        self.share = 1 / len(region.feeds)
        self.dimensions = {
            "provider": provider, "region": region.region, "site": region.site, "feed": feed,
        }  # fmt: skip
        self.source = f"/gigawatch/sim/{region.region}/{region.site}/{feed}"
        self._number = np.array([zlib.crc32(self.source.encode())], np.uint64)
        self.phase_ms = int(self._number[0]) % _INTERVAL_MS

    def messages(self, t0_ms: int, t1_ms: int) -> list[Message]:
        """The reading that falls into `[t0, t1)`, if any."""
        at = t0_ms - t0_ms % _INTERVAL_MS + self.phase_ms
        return [self._reading(at)] if t0_ms <= at < t1_ms else []

    def _reading(self, at_ms: int) -> Message:
        region = self.region
        gpus = sum(cluster.watts for cluster in self.clusters)
        noise = [float(uniform(self._number, self.seed, n, at_ms)[0]) - 0.5 for n in range(20, 23)]
        it = gpus * self.share * (1 + region.other_it_ratio) * (1 + 0.01 * noise[0])
        # Warm afternoons cost more cooling; sun and demand move carbon and price in opposite ways.
        warm = math.cos((at_ms / 3_600_000 + region.utc_offset - 15) / 24 * 2 * math.pi)
        overhead = (region.pue - 1) * (1 + 0.15 * warm + 0.04 * noise[1])
        data = {
            **self.dimensions,
            "it_power_watts": round(it, 3),
            "facility_power_watts": round(it * (1 + overhead), 3),
            "carbon_gco2e_per_kwh": round(region.carbon_gco2e_per_kwh * (1 - 0.18 * warm), 3),
            "renewable_ratio": round(min(1.0, region.renewable_ratio * (1 + 0.15 * warm)), 6),
            "price_per_mwh": round(region.price_per_mwh * (1 - 0.25 * warm + 0.05 * noise[2]), 2),
            "currency": self.currency,
        }
        return cloud_event(TOPIC, TYPE, self.source, str(at_ms), at_ms, data, self.mode)
