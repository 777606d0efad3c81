"""Job queues: jobs arrive at random, wait first in first out, are admitted if there is room, run, and leave.

Each 30 s of each queue is drawn from a generator seeded with (seed, queue, cycle since the start), so that a
queue gives the same jobs whatever the steps it is played in.
"""

from __future__ import annotations

import heapq
import zlib
from collections import deque
from collections.abc import Sequence

import numpy as np

from pipeline.simulate.cloud_events import Message, Mode, cloud_event
from pipeline.simulate.fleet_spec import INTERVAL, Effect, QueueSpec, RegionSpec

TOPIC, TYPE = "telemetry.queue", "queue.depth.v1"
_INTERVAL_MS = INTERVAL * 1000
#: Cycles played before the start, so that a queue begins in its steady state (5 min).
_WARM_UP = 10


class JobQueue:
    """One queue from `start_ms` on."""

    def __init__(
        self, provider: str, region: RegionSpec, spec: QueueSpec, effects: Sequence[Effect],
        seed: int, start_ms: int, mode: Mode = "structured",
    ) -> None:  # fmt: skip
        self.spec, self.start_ms, self.mode = spec, start_ms, mode
        self.dimensions = {
            "provider": provider, "region": region.region, "cluster": spec.cluster,
            "queue": spec.queue, "workload_class": spec.workload_class,
        }  # fmt: skip
        if spec.data_class:
            self.dimensions["data_class"] = spec.data_class
        self.effects = [e for e in effects if e.what == "queue" and e.concerns(self.dimensions)]
        # A fleet scaled down to a few GPUs must not starve its queues: they keep room for twice their load.
        load = round(2 * spec.arrivals_per_minute * spec.run / 60) * spec.gpus_per_job
        self._room = max([load, *(c.gpus for c in region.clusters if c.cluster == spec.cluster)])
        self.source = f"/gigawatch/sim/{region.region}/{spec.cluster}/queue/{spec.queue}"
        self._seed = (seed, zlib.crc32(self.source.encode()))
        self.phase_ms = self._seed[1] % _INTERVAL_MS
        self._pending: deque[float] = deque()
        self._ends: list[float] = []
        self._warm_up()

    def messages(self, t0_ms: int, t1_ms: int) -> list[Message]:
        """The report that falls into `[t0, t1)`, if any; call with ascending, adjoining steps."""
        at = t0_ms - t0_ms % _INTERVAL_MS + self.phase_ms
        return [self._report(at)] if t0_ms <= at < t1_ms else []

    def _warm_up(self) -> None:
        first = self.start_ms - self.start_ms % _INTERVAL_MS + self.phase_ms - _INTERVAL_MS * (_WARM_UP + 1)
        rng = np.random.default_rng((*self._seed, 0))
        running = rng.poisson(self.spec.arrivals_per_minute * self.spec.run / 60)
        self._ends = (first / 1000 + rng.exponential(self.spec.run, running)).tolist()
        heapq.heapify(self._ends)
        for cycle in range(_WARM_UP):
            self._play(first + cycle * _INTERVAL_MS)

    def _play(self, at_ms: int) -> list[float]:
        """What happened in the 30 s before `at_ms`; the waits of the jobs admitted."""
        begin = at_ms / 1000 - INTERVAL
        arrivals, admissions = self._rates(at_ms - _INTERVAL_MS // 2)
        # Counted from the start, so that a scenario has the same jobs on whatever day it is played.
        cycle = (at_ms - self.start_ms) // _INTERVAL_MS + _WARM_UP + 2
        rng = np.random.default_rng((*self._seed, cycle))
        new = np.sort(begin + rng.random(rng.poisson(arrivals / 60 * INTERVAL)) * INTERVAL).tolist()
        turns = np.sort(begin + rng.random(rng.poisson(admissions / 60 * INTERVAL)) * INTERVAL).tolist()
        lengths = rng.exponential(self.spec.run, len(turns)).tolist()
        self._pending.extend(new)
        waits = []
        for turn, length in zip(turns, lengths, strict=True):
            self._leave(turn)
            fits = (len(self._ends) + 1) * self.spec.gpus_per_job <= self._room
            if fits and self._pending and self._pending[0] <= turn:
                waits.append(round(turn - self._pending.popleft(), 3))
                heapq.heappush(self._ends, turn + length)
        self._leave(at_ms / 1000)
        return waits

    def _leave(self, now: float) -> None:
        while self._ends and self._ends[0] <= now:
            heapq.heappop(self._ends)

    def _rates(self, t_ms: int) -> tuple[float, float]:
        arrivals, admissions = self.spec.arrivals_per_minute, self.spec.admissions_per_minute
        for effect in self.effects:
            if effect.active((t_ms - self.start_ms) / 1000):
                arrivals, admissions = arrivals * effect.arrivals, admissions * effect.admissions
        return arrivals, admissions

    def _report(self, at_ms: int) -> Message:
        waits = self._play(at_ms)
        oldest = at_ms / 1000 - self._pending[0] if self._pending else 0.0
        data = {
            **self.dimensions,
            "pending_jobs": len(self._pending),
            "pending_gpus": len(self._pending) * self.spec.gpus_per_job,
            "running_gpus": len(self._ends) * self.spec.gpus_per_job,
            "oldest_wait_seconds": round(oldest, 3),
            "admission_wait_seconds": waits,
        }
        return cloud_event(TOPIC, TYPE, self.source, str(at_ms), at_ms, data, self.mode)
