"""A supplier's fleet as it reports: the same spec, seed and start give the same bytes, whatever the steps.

    fleet = Fleet(spec, seed=7, start=1_795_000_000)
    for message in fleet.events(start, start + 60): ...

Steps are in milliseconds and divide the 30 s interval; event time ascends from step to step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import attrgetter

from pipeline.simulate.billing import Billing
from pipeline.simulate.cloud_events import Block, Message, Mode, as_block
from pipeline.simulate.fleet_spec import Effect, FleetSpec
from pipeline.simulate.gpu_cluster import INTERVAL_MS, GpuCluster
from pipeline.simulate.job_queues import JobQueue
from pipeline.simulate.site_feeds import Feed


class Fleet:
    """All sources of a fleet from `start` (epoch seconds, a multiple of 30 is not needed) on.

    `arrays`: one message for each reporter (8 or 72 samples) instead of one for each GPU.
    `effects`: what happens to it, in seconds since `start`.
    """

    def __init__(
        self, spec: FleetSpec, seed: int, start: int, *, effects: Sequence[Effect] = (),
        arrays: bool = False, mode: Mode = "structured",
    ) -> None:  # fmt: skip
        self.spec, self.seed, self.start_ms = spec, seed, start * 1000
        self.clusters: list[GpuCluster] = []
        self.queues: list[JobQueue] = []
        self.feeds: list[Feed] = []
        provider, first = spec.provider, 0
        for region in spec.regions:
            here = []
            for cluster in region.clusters:
                here.append(
                    GpuCluster(provider, region, cluster, effects, seed, first, self.start_ms, mode, arrays)
                )
                first += cluster.gpus
            self.clusters += here
            self.queues += [
                JobQueue(provider, region, queue, effects, seed, self.start_ms, mode)
                for queue in region.queues
            ]
            self.feeds += [
                Feed(provider, spec.currency, region, feed, here, seed, mode) for feed in region.feeds
            ]
        self.ledger = Billing(spec, seed, self.start_ms, mode)

    @property
    def gpus(self) -> int:
        return self.spec.gpus

    def step(self, t0_ms: int, t1_ms: int) -> list[Block]:
        """Everything that is reported in `[t0, t1)`, as blocks, each ordered by time.

        Call with ascending, adjoining steps; that after the first 10 s also gives the charges of the past.
        Raises ValueError unless the step divides 30 s and `t0` lies on it.
        """
        step = t1_ms - t0_ms
        if step <= 0 or INTERVAL_MS % step or t0_ms % step:
            raise ValueError(f"found a step of {step} ms at {t0_ms}, expected a grid that divides 30 s")
        blocks = self.gpu_blocks(t0_ms, t1_ms)
        small: tuple[Sequence[JobQueue | Feed | Billing], ...] = (self.queues, self.feeds, [self.ledger])
        for sources in small:
            messages = [m for source in sources for m in source.messages(t0_ms, t1_ms)]
            messages.sort(key=attrgetter("time_ms"))
            blocks += filter(None, [as_block(messages)])
        return blocks

    def gpu_blocks(self, t0_ms: int, t1_ms: int) -> list[Block]:
        """The GPU samples of one step only: the bulk path."""
        return [block for cluster in self.clusters for block in cluster.blocks(t0_ms, t1_ms)]

    def events(self, t0: int, t1: int, step_ms: int = 1000) -> Iterator[Message]:
        """The messages of `[t0, t1)` (epoch seconds) in the order of event time, but for past charges."""
        for at in range(t0 * 1000, t1 * 1000, step_ms):
            messages = [m for block in self.step(at, at + step_ms) for m in block.messages()]
            messages.sort(key=attrgetter("time_ms"))
            yield from messages
