"""What a simulated fleet is: values read from a scenario file, checked, never changed.

Times inside a scenario are seconds since its start.  GPUs are counted whole; a cluster holds whole
reporters (a node of 8, an NVL72 rack of 72, or one of its trays), because a reporter reports all its GPUs at once.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from pipeline.contract.checked_parts import Duration

#: Seconds between two reports of one source (`x-interval` of the GPU, queue and energy schemas).
INTERVAL = 30

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]*")


class Machine(NamedTuple):
    """One SKU: GPUs that report together, GPUs in one host, watts and bytes of one GPU."""

    gpus_per_reporter: int
    gpus_per_node: int
    idle_watts: float
    max_watts: float
    memory_bytes: int


#: H100 SXM: 80 GB, 700 W, 8 in a host.  GB300 NVL72: 288 GB, 1,400 W, 4 in a tray, 72 in a rack
#: (the vendors' data sheets; idle draw as field reports have it).
SKUS: dict[str, Machine] = {
    "ND_H100_v5": Machine(8, 8, 70.0, 700.0, 80 << 30),
    "ND_GB300_v6": Machine(72, 4, 180.0, 1400.0, 288 << 30),
}


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise ValueError(f"found {text!r}, expected a name of letters, digits and _ . : -")
    return text


Name = Annotated[str, AfterValidator(_name)]
Ratio = Annotated[float, Field(ge=0, le=1)]


class Spec(BaseModel):
    """A part of a scenario file: unknown keys are refused, values never change."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ClusterSpec(Spec):
    """GPUs of one SKU in one scheduling domain; `utilization` is the mean over the day of `shape`.

    `by_node`: each node reports for itself, as exporters do; otherwise a rack reports as one.
    """

    cluster: Name
    sku: Name
    gpus: Annotated[int, Field(gt=0)]
    utilization: Ratio = 0.8
    allocated: Ratio = 0.97
    shape: Literal["training", "inference", "replanning"] = "training"
    nvlink_domains: bool = False
    by_node: bool = False
    data_class: Name | None = None

    @model_validator(mode="after")
    def _whole_reporters(self) -> ClusterSpec:
        if self.sku not in SKUS:
            raise ValueError(f"sku: found {self.sku!r}, expected one of {', '.join(SKUS)}")
        if self.gpus % self.gpus_per_reporter:
            raise ValueError(
                f"gpus: found {self.gpus}, expected a multiple of {self.gpus_per_reporter} (reporters are whole)"
            )
        return self

    @property
    def gpus_per_reporter(self) -> int:
        machine = SKUS[self.sku]
        return machine.gpus_per_node if self.by_node else machine.gpus_per_reporter

    def scaled(self, scale: float) -> ClusterSpec:
        unit = self.gpus_per_reporter
        return self.model_copy(update={"gpus": max(1, round(self.gpus * scale / unit)) * unit})


class QueueSpec(Spec):
    """A first-in-first-out queue: Poisson arrivals, Poisson admissions, exponential run times."""

    queue: Name
    cluster: Name
    workload_class: Name
    arrivals_per_minute: Annotated[float, Field(gt=0, le=600)]
    admissions_per_minute: Annotated[float, Field(gt=0, le=1200)]
    gpus_per_job: Annotated[int, Field(gt=0)] = 8
    run: Duration = 300
    data_class: Name | None = None

    def scaled(self, scale: float) -> QueueSpec:
        """As many jobs, each of `scale` times the GPUs."""
        return self.model_copy(update={"gpus_per_job": max(1, round(self.gpus_per_job * scale))})


class RegionSpec(Spec):
    """One site of the supplier, its feeds, clusters and queues."""

    region: Name
    site: Name
    utc_offset: Annotated[int, Field(ge=-12, le=14)] = 0
    feeds: Annotated[list[Name], Field(min_length=1)] = ["feed-a", "feed-b"]
    pue: Annotated[float, Field(ge=1, le=3)] = 1.2
    other_it_ratio: Ratio = 0.14
    carbon_gco2e_per_kwh: Annotated[float, Field(ge=0)] = 250.0
    renewable_ratio: Ratio = 0.5
    price_per_mwh: float = 80.0
    clusters: Annotated[list[ClusterSpec], Field(min_length=1)]
    queues: list[QueueSpec] = []


class BillingSpec(Spec):
    """Hourly charges for each region and SKU: `prices` is per GPU-hour; `history` is issued at the start."""

    history: Duration = 0
    prices: dict[str, Annotated[float, Field(gt=0)]] = {}
    list_markup: Annotated[float, Field(ge=0)] = 0.4
    tax_rate: Ratio = 0.0


class FleetSpec(Spec):
    """A supplier's fleet."""

    provider: Name
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] = "USD"
    regions: Annotated[list[RegionSpec], Field(min_length=1)]
    billing: BillingSpec = BillingSpec()

    @property
    def gpus(self) -> int:
        return sum(cluster.gpus for region in self.regions for cluster in region.clusters)

    def scaled(self, scale: float) -> FleetSpec:
        """The same fleet with about `scale` times the GPUs, still in whole reporters."""
        regions = [
            region.model_copy(
                update={
                    "clusters": [cluster.scaled(scale) for cluster in region.clusters],
                    "queues": [queue.scaled(scale) for queue in region.queues],
                }
            )
            for region in self.regions
        ]
        return self.model_copy(update={"regions": regions})

    def by_node(self) -> FleetSpec:
        """The same fleet with a reporter for each node."""
        regions = [
            region.model_copy(
                update={"clusters": [c.model_copy(update={"by_node": True}) for c in region.clusters]}
            )
            for region in self.regions
        ]
        return self.model_copy(update={"regions": regions})

    @staticmethod
    def uniform(gpus: int, *, clusters: int = 10) -> FleetSpec:
        """A plain fleet for measurements: `gpus` H100s over `clusters` clusters, each in its own region."""
        nodes = max(1, round(gpus / 8 / clusters))
        regions = [
            RegionSpec(
                region=f"region-{i}", site=f"site-{i}",
                clusters=[ClusterSpec(cluster=f"h100-{i}", sku="ND_H100_v5", gpus=nodes * 8)],
            )
            for i in range(clusters)
        ]  # fmt: skip
        return FleetSpec(provider="halcyon", regions=regions)


class Effect(Spec):
    """Something that happens to all that `match`, from `from` until `to` (the end, if absent).

    `fail`: `gpus` of them report health `failed` with `xid`; `vanish`: `gpus` of them report no more;
    `silence`: nothing is reported at all, though all runs on; `load`: utilisation goes to `utilization`
    over `ramp`; `queue`: arrivals and admissions are multiplied.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    what: Literal["fail", "vanish", "silence", "load", "queue"]
    match: dict[str, str] = {}
    start: Annotated[Duration, Field(alias="from")] = 0
    end: Annotated[Duration | None, Field(alias="to")] = None
    gpus: Annotated[int, Field(gt=0)] | None = None
    xid: Annotated[int, Field(ge=0, le=1023)] = 79
    utilization: Ratio | None = None
    ramp: Duration = 0
    arrivals: Annotated[float, Field(ge=0)] = 1.0
    admissions: Annotated[float, Field(ge=0)] = 1.0
    text: str = ""

    @model_validator(mode="after")
    def _complete(self) -> Effect:
        if self.what in ("fail", "vanish") and self.gpus is None:
            raise ValueError(f"gpus: missing, expected how many GPUs {self.what}")
        if self.what == "load" and self.utilization is None:
            raise ValueError("utilization: missing, expected the ratio that the load goes to")
        if self.end is not None and self.end <= self.start:
            raise ValueError(f"to: found {self.end}s, expected an instant after from ({self.start}s)")
        return self

    def active(self, second: float) -> bool:
        """Whether it holds `second` seconds into the scenario."""
        return self.start <= second and (self.end is None or second < self.end)

    def concerns(self, dimensions: dict[str, str]) -> bool:
        return all(dimensions.get(name) == value for name, value in self.match.items())

    def scaled(self, scale: float) -> Effect:
        if self.gpus is None:
            return self
        return self.model_copy(update={"gpus": max(1, round(self.gpus * scale))})
