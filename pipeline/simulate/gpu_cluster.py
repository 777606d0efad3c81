"""The GPUs of one cluster: what each of them measures, and the events that say so.

A reporter (a node of 8 GPUs, an NVL72 rack of 72 or one of its trays) reports all its GPUs once in 30 s, at a phase of its own,
so that every 10 s window sees a third of the cluster.  Reporters are kept in the order of their phases: what
falls into a step is then one slice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from pipeline.simulate.byte_matrix import (
    Ints,
    Matrix,
    Template,
    decimal,
    digits,
    integer,
    rfc3339_chars,
    text_chars,
)
from pipeline.simulate.cloud_events import Block, Headers, Mode, binary_headers, rfc3339
from pipeline.simulate.dcgm_exporter import DcgmExporters
from pipeline.simulate.fleet_spec import INTERVAL, SKUS, ClusterSpec, Effect, RegionSpec
from pipeline.simulate.gpu_samples import Samples
from pipeline.simulate.noise import Words, drift, mix, uniform

TOPIC, TYPE = "telemetry.gpu", "gpu.utilization.v1"
INTERVAL_MS = INTERVAL * 1000

#: Utilisation by local hour, relative to the mean over the day.
SHAPES: dict[str, tuple[float, ...]] = {
    "training": (
        1.0, 1.01, 1.02, 1.02, 1.01, 1.0, 0.99, 0.98, 0.97, 0.97, 0.98, 0.99,
        0.99, 0.98, 0.98, 0.99, 1.0, 1.01, 1.02, 1.02, 1.02, 1.02, 1.01, 1.01,
    ),
    "inference": (
        0.62, 0.55, 0.50, 0.48, 0.50, 0.58, 0.72, 0.90, 1.08, 1.20, 1.28, 1.32,
        1.30, 1.30, 1.32, 1.32, 1.30, 1.26, 1.22, 1.20, 1.16, 1.06, 0.92, 0.76,
    ),
    "replanning": (
        1.30, 1.36, 1.40, 1.40, 1.36, 1.24, 1.02, 0.86, 0.78, 0.74, 0.74, 0.76,
        0.78, 0.80, 0.82, 0.84, 0.86, 0.88, 0.92, 0.98, 1.04, 1.12, 1.20, 1.25,
    ),
}  # fmt: skip
_HEALTH: Matrix = np.array([b'"ok"', b'"degraded"', b'"failed"'], "S10").view(np.uint8).reshape(3, 10)
_HEALTH[_HEALTH == 0] = 32
_OK, _FAILED = 0, 2
_PHASE, _NODE, _WORK, _UTIL, _ENGINE, _MEMORY, _HEAT, _UPTIME, _UUID, _ORDER = range(10)


class GpuCluster:
    """A cluster of `spec.gpus` GPUs from `start_ms` on; `first` is the number of its first GPU.

    Stateful in one thing only: the energy counters, which grow with each report.
    """

    def __init__(
        self, provider: str, region: RegionSpec, spec: ClusterSpec, effects: Sequence[Effect],
        seed: int, first: int, start_ms: int, mode: Mode = "structured", arrays: bool = False,
    ) -> None:  # fmt: skip
        self.spec, self.region, self.seed, self.start_ms = spec, region, seed, start_ms
        self.machine = SKUS[spec.sku]
        self.dimensions = {
            "provider": provider, "region": region.region, "site": region.site,
            "cluster": spec.cluster, "sku": spec.sku,
        }  # fmt: skip
        self.effects = [effect for effect in effects if effect.concerns(self.dimensions)]
        self.mode, self.arrays = mode, arrays
        self._lay_out(first)
        self._name()
        self._write_templates()
        self.power = self._measure(0, spec.gpus, start_ms).power
        self._exporters = self._exported() if mode == "scraped" else None
        self._energy_mj = (uniform(self.numbers, seed, _UPTIME) * 1.5e7 * self.power * 1000).astype(np.int64)

    @property
    def watts(self) -> float:
        """Power of all its GPUs, reported or not."""
        return float(self.power.sum())

    def blocks(self, t0_ms: int, t1_ms: int) -> list[Block]:
        """The messages of `[t0, t1)`, in the order of time; call with ascending, adjoining steps."""
        cycle, offset = divmod(t0_ms, INTERVAL_MS)
        low, high = np.searchsorted(self.phases_ms, (offset, offset + t1_ms - t0_ms))
        if low == high:
            return []
        seen = self._measure(low * self.per, high * self.per, t0_ms)
        rows = slice(low * self.per, high * self.per)
        self.power[rows] = seen.power
        self._energy_mj[rows] += (seen.power * (INTERVAL * 1000)).astype(np.int64)
        keep = self._reported(rows, t0_ms)
        times = cycle * INTERVAL_MS + self.phases_ms[low:high]
        if self._exporters:
            return [self._exporters.answers(times.tolist(), rows, seen, self._energy_mj[rows], keep)]
        if not keep.any():
            return []
        return [self._block(int(low), int(high), times, self._columns(rows, seen), keep)]

    # -- who is there

    def _lay_out(self, first: int) -> None:
        self.per = self.spec.gpus_per_reporter
        self.reporters = self.spec.gpus // self.per
        index = np.arange(self.reporters, dtype=np.uint64) + np.uint64(first)
        jitter = uniform(index, self.seed, _PHASE)
        self.phases_ms: Ints = ((np.arange(self.reporters) + jitter) * (INTERVAL_MS / self.reporters)).astype(
            np.int64
        )
        self.nodes: Ints = np.argsort(uniform(index, self.seed, _ORDER), kind="stable").astype(np.int64)
        slot = np.tile(np.arange(self.per), self.reporters)
        self.ranks: Ints = np.repeat(self.nodes, self.per) * self.per + slot
        self.numbers: Words = self.ranks.astype(np.uint64) + np.uint64(first)
        self.hosts: Words = self.numbers // np.uint64(self.machine.gpus_per_node)

    def _name(self) -> None:
        kind = "r" if self.per > self.machine.gpus_per_node else "n"
        width = max(4, len(str(self.reporters)))
        self.names = [f"{kind}{node:0{width}d}" for node in self.nodes.tolist()]
        self._name_chars = text_chars(self.names)
        racks = self.nodes // (self.machine.gpus_per_reporter // self.per)
        joined = "r" if self.machine.gpus_per_reporter > self.machine.gpus_per_node else "n"
        self._racks = [f"{joined}{rack:0{width}d}" for rack in racks.tolist()]
        base = f"/gigawatch/sim/{self.region.region}/{self.spec.cluster}/"
        self.keys = [(base + name).encode() for name in self.names]
        self._slots = digits(np.tile(np.arange(self.per), self.reporters), 2)
        salt = hashlib.sha256(f"{self.seed}/{base}".encode()).digest()
        self._uuids = _uuid_chars(self.numbers, int.from_bytes(salt[:4], "big"))

    def _write_templates(self) -> None:
        name = f"<name:{self._name_chars.shape[1]}>"
        host, domain, extra = name, "", ""
        if self.per > self.machine.gpus_per_node:
            host = name + "-t<tray:2>"
        if self.spec.nvlink_domains:
            domain = f'"nvlink_domain":"{self.spec.cluster}-{name.replace("name", "domain")}",'
        if self.spec.data_class:
            extra = f'"data_class":"{self.spec.data_class}",'
        dims = ",".join(f'"{key}":"{value}"' for key, value in self.dimensions.items())
        sample = (
            f'{{{dims},{domain}{extra}"node":"{host.replace("name", "host")}","gpu":"GPU-<uuid:36>",'
            '"utilization_ratio":<utilization:5>,"engine_active_ratio":<engine:5>,'
            f'"memory_used_bytes":<memory:12>,"memory_total_bytes":{self.machine.memory_bytes},'
            '"power_watts":<power:6>,"energy_joules_total":<energy:12>,"temperature_celsius":<heat:4>,'
            '"xid":<xid:4>,"health":<health:10>}'
        )
        id_ = "<cycle:8>" if self.arrays else "<cycle:8>-<slot:2>"
        source = f"/gigawatch/sim/{self.region.region}/{self.spec.cluster}/{name}"
        head = (
            f'{{"specversion":"1.0","id":"{id_}","source":"{source}","type":"{TYPE}",'
            '"time":"<time:24>","datacontenttype":"application/json","data":'
        )
        whole = not self.arrays and self.mode == "structured"
        self._sample = Template(head + sample + "}" if whole else sample)
        self._head = Template(head) if self.arrays and self.mode == "structured" else None

    def _exported(self) -> DcgmExporters:
        uuids = self._uuids.tobytes().decode("ascii")
        return DcgmExporters(
            [self.target(name) for name in self.names],
            [f"GPU-{uuids[at : at + 36]}" for at in range(0, len(uuids), 36)],
            self.machine,
        )

    @property
    def domains(self) -> list[str]:
        """The NVLink domain of each reporter."""
        return [self.target(rack) for rack in self._racks]

    def target(self, name: str) -> str:
        """What a node or a rack is called outside of its cluster."""
        return f"{self.spec.cluster}-{name}"

    # -- what they measure

    def _measure(self, low: int, high: int, t_ms: int) -> Samples:
        rows, second = slice(low, high), t_ms / 1000
        tick = t_ms // INTERVAL_MS
        numbers, hosts, machine = self.numbers[rows], self.hosts[rows], self.machine
        failed, xid, gone = self._broken(rows, t_ms)
        busy = (drift(hosts, self.seed, _WORK, second, 1800) < self.spec.allocated) & ~failed & ~gone
        level = self._level(t_ms) + 0.16 * (drift(hosts, self.seed, _NODE, second, 600) - 0.5)
        level += 0.06 * (uniform(numbers, self.seed, _UTIL, tick) - 0.5)
        utilization = np.where(busy, np.clip(level, 0.02, 1.0), 0.0)
        engine = utilization * (0.9 + 0.08 * uniform(numbers, self.seed, _ENGINE, tick))
        power = machine.idle_watts + (machine.max_watts - machine.idle_watts) * utilization**0.8
        power = np.where(gone, 0.0, power * (0.98 + 0.04 * uniform(numbers, self.seed, _HEAT, tick)))
        share = np.where(busy, 0.6 + 0.35 * drift(hosts, self.seed, _MEMORY, second, 1200), 0.01)
        heat = 30.0 + 38.0 * power / machine.max_watts + 3 * uniform(hosts, self.seed, _HEAT)
        return Samples(utilization, engine, share * machine.memory_bytes, power, heat, failed, xid)

    def _level(self, t_ms: int) -> float:
        """Mean utilisation at this hour of the day, or what a `load` effect makes of it."""
        hour = (t_ms / 3_600_000 + self.region.utc_offset) % 24
        shape = SHAPES[self.spec.shape]
        here, there = shape[int(hour)], shape[(int(hour) + 1) % 24]
        level = min(1.0, self.spec.utilization * (here + (there - here) * (hour % 1)))
        second = (t_ms - self.start_ms) / 1000
        for effect in self.effects:
            if effect.what == "load" and effect.utilization is not None and effect.active(second):
                share = min(1.0, (second - effect.start) / effect.ramp) if effect.ramp else 1.0
                level += (effect.utilization - level) * share
        return level

    def _broken(self, rows: slice, t_ms: int) -> tuple[NDArray[np.bool_], Ints, NDArray[np.bool_]]:
        """Who has failed, with which XID, and who is gone.  Those of the lowest ranks go first."""
        ranks, second = self.ranks[rows], (t_ms - self.start_ms) / 1000
        failed, gone = np.zeros(len(ranks), np.bool_), np.zeros(len(ranks), np.bool_)
        xid, taken = np.zeros(len(ranks), np.int64), 0
        for effect in self.effects:
            if effect.gpus is None:
                continue
            hit = (ranks >= taken) & (ranks < taken + effect.gpus)
            taken += effect.gpus
            if effect.active(second) and effect.what == "fail":
                failed |= hit
                xid[hit] = effect.xid
            elif effect.active(second):
                gone |= hit
        return failed, xid, gone

    def _reported(self, rows: slice, t_ms: int) -> NDArray[np.bool_]:
        second = (t_ms - self.start_ms) / 1000
        if any(effect.what == "silence" and effect.active(second) for effect in self.effects):
            return np.zeros(rows.stop - rows.start, np.bool_)
        return ~self._broken(rows, t_ms)[2]

    # -- how they say it

    def _columns(self, rows: slice, seen: Samples) -> dict[str, Matrix]:
        names = np.repeat(self._name_chars[rows.start // self.per : rows.stop // self.per], self.per, axis=0)
        columns = {
            "host": names,
            "uuid": self._uuids[rows],
            "utilization": decimal(np.round(seen.utilization * 1000).astype(np.int64), 5, 3),
            "engine": decimal(np.round(seen.engine * 1000).astype(np.int64), 5, 3),
            "memory": integer(seen.memory.astype(np.int64), 12),
            "power": decimal(np.round(seen.power * 10).astype(np.int64), 6, 1),
            "energy": integer(self._energy_mj[rows] // 1000, 12),
            "heat": decimal(np.round(seen.heat * 10).astype(np.int64), 4, 1),
            "xid": integer(seen.xid, 4),
            "health": _HEALTH[np.where(seen.failed, _FAILED, _OK)],
        }
        if self.per > self.machine.gpus_per_node:
            columns["tray"] = digits(np.tile(np.arange(self.per), self.reporters)[rows] // 4, 2)
        if self.spec.nvlink_domains:
            racks = text_chars(self._racks[rows.start // self.per : rows.stop // self.per])
            columns["domain"] = np.repeat(racks, self.per, axis=0)
        return columns

    def _block(
        self, low: int, high: int, times: Ints, columns: dict[str, Matrix], keep: NDArray[np.bool_]
    ) -> Block:
        if self.arrays:
            return self._array_block(low, high, times, self._sample.rows(columns), keep)
        if self.mode == "structured":
            stamps = np.repeat(times, self.per)
            columns |= {
                "time": rfc3339_chars(stamps), "cycle": digits(stamps // INTERVAL_MS, 8),
                "slot": self._slots[low * self.per : high * self.per], "name": columns["host"],
            }  # fmt: skip
        values, stay = self._sample.rows(columns), keep.tolist()
        each = [at for at in range(low, high) for _ in range(self.per)]
        owners = each if keep.all() else list(compress(each, stay))
        moments = times.tolist()
        return Block(
            TOPIC,
            [moments[at - low] for at in owners],
            [self.keys[at] for at in owners],
            values if keep.all() else list(compress(values, stay)),
            [1] * len(owners),
            self._sample_headers(low, moments, stay) if self.mode == "binary" else None,
        )

    def _sample_headers(self, low: int, moments: list[int], stay: list[bool]) -> list[Headers]:
        out = []
        for row in compress(range(len(stay)), stay):
            at, slot = divmod(row, self.per)
            moment, source = moments[at], self.keys[low + at].decode()
            out.append(binary_headers(f"{moment // INTERVAL_MS}-{slot:02d}", source, TYPE, rfc3339(moment)))
        return out

    def _array_block(
        self, low: int, high: int, times: Ints, samples: list[bytes], keep: NDArray[np.bool_]
    ) -> Block:
        stay, moments = keep.tolist(), times.tolist()
        bodies = []
        for start in range(0, len(samples), self.per):
            kept = compress(samples[start : start + self.per], stay[start : start + self.per])
            bodies.append(b"[" + b",".join(kept) + b"]")
        counts = keep.reshape(-1, self.per).sum(axis=1).tolist()
        full = [at for at, count in enumerate(counts) if count]
        if self._head is not None:
            columns = {
                "time": rfc3339_chars(times),
                "cycle": digits(times // INTERVAL_MS, 8),
                "name": self._name_chars[low:high],
            }
            bodies = [head + body + b"}" for head, body in zip(self._head.rows(columns), bodies, strict=True)]
        return Block(
            TOPIC,
            [moments[at] for at in full],
            [self.keys[low + at] for at in full],
            [bodies[at] for at in full],
            [counts[at] for at in full],
            None if self._head is not None else [self._array_headers(low + at, moments[at]) for at in full],
        )

    def _array_headers(self, at: int, moment: int) -> Headers:
        return binary_headers(str(moment // INTERVAL_MS), self.keys[at].decode(), TYPE, rfc3339(moment))


def _uuid_chars(numbers: Words, salt: int) -> Matrix:
    """`xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` for each GPU: shape (GPUs, 36)."""
    halves = (mix(numbers + np.uint64(salt)), mix(numbers * np.uint64(31) + np.uint64(salt + 1)))
    hexes = np.frombuffer(b"0123456789abcdef", np.uint8)
    nibbles = np.empty((len(numbers), 32), np.uint8)
    for column in range(32):
        shift = np.uint64(4 * (column % 16))
        nibbles[:, column] = hexes[((halves[column // 16] >> shift) & np.uint64(15)).astype(np.intp)]
    out = np.full((len(numbers), 36), ord("-"), np.uint8)
    at = 0
    for start, width in ((0, 8), (9, 4), (14, 4), (19, 4), (24, 12)):
        out[:, start : start + width] = nibbles[:, at : at + width]
        at += width
    return out
