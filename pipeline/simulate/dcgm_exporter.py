"""dcgm-exporter on every node of a cluster: the text that each answers to a scrape.

Nodes are upgraded one by one, so a third of them is at 4.9 already, with other names and units for the same things.
https://github.com/NVIDIA/dcgm-exporter/releases/tag/4.9.0
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.simulate.byte_matrix import Ints
from pipeline.simulate.cloud_events import Block
from pipeline.simulate.fleet_spec import Machine
from pipeline.simulate.gpu_samples import Samples

PAGES = "dcgm-exporter"
"""In place of a topic: the block's keys are nodes, its values what their exporters answer, empty where none does."""
UPGRADED_OF = 3
_MIB = 1 << 20
_RESERVED_SHARE = 0.0075
_BUS = (0x1B, 0x2B, 0x3B, 0x4B, 0x9B, 0xAB, 0xBB, 0xCB)
_MODELS = {80 << 30: "NVIDIA H100 80GB HBM3", 288 << 30: "NVIDIA GB300"}


class _MeasuredGpu(NamedTuple):
    """What one GPU measures: ratios, bytes, watts, millijoules, degrees Celsius."""

    utilization: float
    engine: float
    memory: int
    total: int
    watts: float
    energy_mj: int
    heat: float
    xid: int

    @property
    def reserved(self) -> int:
        return int(self.total * _RESERVED_SHARE) // _MIB * _MIB

    @property
    def free(self) -> int:
        return self.total - self.reserved - self.memory


class _DcgmField(NamedTuple):
    name: str
    kind: str
    says: str
    value: Callable[[_MeasuredGpu], str]


OLD = (
    _DcgmField("DCGM_FI_DEV_GPU_TEMP", "gauge", "GPU temperature (in C).", lambda g: f"{g.heat:.0f}"),
    _DcgmField("DCGM_FI_DEV_POWER_USAGE", "gauge", "Power draw (in W).", lambda g: f"{g.watts:.6f}"),
    _DcgmField(
        "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "counter", "Total energy consumption since boot (in mJ).",
        lambda g: f"{g.energy_mj}",
    ),
    _DcgmField("DCGM_FI_DEV_GPU_UTIL", "gauge", "GPU utilization (in %).", lambda g: f"{g.utilization * 100:.0f}"),
    _DcgmField("DCGM_FI_DEV_XID_ERRORS", "gauge", "Value of the last XID error encountered.", lambda g: f"{g.xid}"),
    _DcgmField("DCGM_FI_DEV_FB_FREE", "gauge", "Framebuffer memory free (in MiB).", lambda g: f"{g.free // _MIB}"),
    _DcgmField("DCGM_FI_DEV_FB_USED", "gauge", "Framebuffer memory used (in MiB).", lambda g: f"{g.memory // _MIB}"),
    _DcgmField(
        "DCGM_FI_DEV_FB_RESERVED", "gauge", "Framebuffer memory reserved (in MiB).",
        lambda g: f"{g.reserved // _MIB}",
    ),
    _DcgmField(
        "DCGM_FI_PROF_GR_ENGINE_ACTIVE", "gauge", "Ratio of time the graphics engine is active.",
        lambda g: f"{g.engine:.6f}",
    ),
)  # fmt: skip
NEW = (
    _DcgmField("DCGM_FI_DEV_GPU_TEMP_CELSIUS", "gauge", "GPU temperature in degrees Celsius.", lambda g: f"{g.heat:.0f}"),
    _DcgmField("DCGM_FI_DEV_BOARD_POWER_WATTS", "gauge", "Board power in watts.", lambda g: f"{g.watts:.6f}"),
    _DcgmField(
        "DCGM_FI_DEV_GPU_ENERGY_JOULES_TOTAL", "counter", "GPU energy in joules.",
        lambda g: f"{g.energy_mj // 1000}",
    ),
    _DcgmField("DCGM_FI_DEV_GPU_UTIL_RATIO", "gauge", "GPU utilization ratio.", lambda g: f"{g.utilization:.6f}"),
    _DcgmField("DCGM_FI_DEV_XID_ERROR", "gauge", "Value of the last XID error.", lambda g: f"{g.xid}"),
    _DcgmField("DCGM_FI_DEV_FB_CAPACITY_BYTES", "gauge", "Framebuffer capacity in bytes.", lambda g: f"{g.total}"),
    _DcgmField("DCGM_FI_DEV_FB_USED_BYTES", "gauge", "Framebuffer used in bytes.", lambda g: f"{g.memory}"),
    _DcgmField(
        "DCGM_FI_PROF_GR_ENGINE_UTIL_RATIO", "gauge", "Graphics engine utilization ratio.",
        lambda g: f"{g.engine:.6f}",
    ),
)  # fmt: skip


class DcgmExporters:
    """The exporters of `nodes`, each with as many of the GPUs `uuids` as the others."""

    def __init__(self, nodes: Sequence[str], uuids: Sequence[str], machine: Machine) -> None:
        self._nodes, self._machine = nodes, machine
        self._per = len(uuids) // len(nodes)
        self._new = [place % UPGRADED_OF == 0 for place in range(len(nodes))]
        self._labels = [self._labelled(*divmod(place, self._per), uuid) for place, uuid in enumerate(uuids)]

    def _labelled(self, place: int, gpu: int, uuid: str) -> str:
        host, driver = (
            ("hostname", 'DCGM_FI_SYSTEM_DRIVER_VERSION="580.95.05"')
            if self._new[place]
            else ("Hostname", 'DCGM_FI_DRIVER_VERSION="550.144.03"')
        )
        return (
            f'{{gpu="{gpu}",UUID="{uuid}",pci_bus_id="00000000:{_BUS[gpu]:02X}:00.0",device="nvidia{gpu}",'
            f'modelName="{_MODELS[self._machine.memory_bytes]}",{host}="{self._nodes[place]}",{driver}}}'
        )

    def answers(
        self, times_ms: list[int], rows: slice, seen: Samples, energy_mj: Ints, keep: NDArray[np.bool_]
    ) -> Block:  # fmt: skip
        """What the exporters of a slice answer at their times: nothing where all GPUs of a node are gone."""
        first = rows.start // self._per
        columns = (
            seen.utilization.tolist(), seen.engine.tolist(), seen.memory.astype("int64").tolist(),
            [self._machine.memory_bytes] * len(keep), seen.power.tolist(), energy_mj.tolist(),
            seen.heat.tolist(), seen.xid.tolist(),
        )  # fmt: skip
        gpus = [_MeasuredGpu(*values) for values in zip(*columns, strict=True)]
        there = keep.tolist()
        pages, counts = [], []
        for place in range(len(times_ms)):
            at = range(place * self._per, (place + 1) * self._per)
            lines = [(self._labels[rows.start + n], gpus[n]) for n in at if there[n]]
            pages.append(_page(NEW if self._new[first + place] else OLD, lines))
            counts.append(len(lines))
        keys = [node.encode() for node in self._nodes[first : first + len(times_ms)]]
        return Block(PAGES, times_ms, keys, pages, counts)


def _page(metrics: Sequence[_DcgmField], gpus: Sequence[tuple[str, _MeasuredGpu]]) -> bytes:
    lines: list[str] = []
    for name, kind, says, value in metrics if gpus else ():
        lines += (f"# HELP {name} {says}", f"# TYPE {name} {kind}")
        lines += [f"{name}{labels} {value(gpu)}" for labels, gpu in gpus]
    return "\n".join([*lines, ""]).encode()
