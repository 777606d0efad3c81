"""What people already have, read as it is: dcgm-exporter's metrics as OTLP and as Telegraf write them, and Arrow batches.

A *point* is one value of one series.  A GPU has as many as dcgm-exporter shows with its default counters, and becomes one
sample; that the mapping reads a part of them only changes nothing of what there is to read.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from load import PARTITIONS, TOPIC
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from scrapes import GPUS, METRICS

from pipeline.simulate.cloud_events import Block, rfc3339
from pipeline.simulate.writer import writer
from pipeline.stream.topic_admin import create_topics, default_specs

if TYPE_CHECKING:
    from parts import Bench, Figures

NODES = 3_000
EVERY_MS = 30_000
STEP_NODES = 100
"""Nodes that report in the same second: all of them in thirty."""
CONSTANTS = {
    "provider": "halcyon", "region": "eu-west", "site": "ams-02", "cluster": "ams-h1", "sku": "ND_H100_v5",
}  # fmt: skip
COUNTERS = ("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "DCGM_FI_DEV_PCIE_REPLAY_COUNTER")
ARROW_ROWS = 1_000
"""Samples of one Arrow message."""


def labels(node: int, gpu: int) -> dict[str, str]:
    """A GPU's labels in dcgm-exporter."""
    return {
        "gpu": str(gpu), "UUID": f"GPU-{node:08x}-0c43-4e0a-8a6e-61d9f0a2c{gpu:03x}", "pci_bus_id": f"00000000:{gpu:02x}:00.0",
        "device": f"nvidia{gpu}", "modelName": "NVIDIA H100 80GB HBM3", "Hostname": f"node-{node:04d}",
        "DCGM_FI_DRIVER_VERSION": "575.57.08", "container": "trainer", "namespace": "planning", "pod": f"trainer-{node}-{gpu}",
    }  # fmt: skip


def value(metric: str, at_ms: int) -> float:
    """What a GPU says at a time: counters rise."""
    own = float(METRICS[metric])
    return own + at_ms // 1000 if metric in COUNTERS else own


def otlp(node: int, at_ms: int) -> dict[str, Any]:
    """A node's scrape as the OpenTelemetry Collector's Prometheus receiver hands it on, in OTLP's JSON mapping."""
    stamp = str(at_ms * 1_000_000)
    attributes = [[_attribute(*pair) for pair in labels(node, gpu).items()] for gpu in range(GPUS)]
    metrics = []
    for metric in METRICS:
        points = [
            {"attributes": own, "timeUnixNano": stamp, "asDouble": value(metric, at_ms)} for own in attributes
        ]
        of = {"dataPoints": points}
        counted = {"sum": {**of, "aggregationTemporality": 2, "isMonotonic": True}}
        metrics.append({"name": metric, **(counted if metric in COUNTERS else {"gauge": of})})
    resource = {
        "attributes": [
            _attribute("service.name", "dcgm"),
            _attribute("service.instance.id", f"node-{node:04d}:9400"),
        ]
    }
    return {"resourceMetrics": [{"resource": resource, "scopeMetrics": [{"metrics": metrics}]}]}


def _attribute(key: str, text: str) -> dict[str, Any]:
    return {"key": key, "value": {"stringValue": text}}


def otlp_json(node: int, at_ms: int) -> Iterator[tuple[bytes, int]]:
    yield json.dumps(otlp(node, at_ms), separators=(",", ":")).encode(), GPUS


def otlp_proto(node: int, at_ms: int) -> Iterator[tuple[bytes, int]]:
    request = ExportMetricsServiceRequest()
    of_resource = request.resource_metrics.add()
    (told,) = otlp(node, at_ms)["resourceMetrics"]
    _fill(of_resource.resource.attributes, told["resource"]["attributes"])
    scope = of_resource.scope_metrics.add()
    for metric in told["scopeMetrics"][0]["metrics"]:
        made = scope.metrics.add()
        made.name = metric["name"]
        data = made.sum if "sum" in metric else made.gauge
        if "sum" in metric:
            data.aggregation_temporality, data.is_monotonic = 2, True
        for point in (metric.get("sum") or metric["gauge"])["dataPoints"]:
            one = data.data_points.add()
            one.time_unix_nano, one.as_double = int(point["timeUnixNano"]), point["asDouble"]
            _fill(one.attributes, point["attributes"])
    yield request.SerializeToString(), GPUS


def _fill(attributes: Any, told: Iterable[dict[str, Any]]) -> None:
    for each in told:
        one = attributes.add()
        one.key, one.value.string_value = each["key"], each["value"]["stringValue"]


def telegraf(node: int, at_ms: int) -> Iterator[tuple[bytes, int]]:
    """A message for each GPU: `outputs.kafka` in JSON behind `inputs.prometheus` with `metric_version = 2`."""
    for gpu in range(GPUS):
        fields = {metric: value(metric, at_ms) for metric in METRICS}
        metric = {
            "fields": fields,
            "name": "prometheus",
            "tags": labels(node, gpu),
            "timestamp": at_ms // 1000,
        }
        yield json.dumps(metric, separators=(",", ":")).encode(), 1


FORMS = {"otlp_json": otlp_json, "telegraf": telegraf, "otlp_proto": otlp_proto}


async def fill(bootstrap: str, form: str, points: int) -> tuple[int, int]:
    """Write at least so many points; (messages, samples) of what was written."""
    steps = -(-points // (STEP_NODES * GPUS * len(METRICS)))
    start = int(time.time()) * 1000 - steps * 1000 - 60_000
    messages = samples = 0
    async with writer(bootstrap) as out:
        for step in range(steps):
            at = start + step * 1000
            first = step * STEP_NODES % NODES
            rows = [
                (f"node-{n}".encode(), *made)
                for n in range(first, first + STEP_NODES)
                for made in FORMS[form](n, at)
            ]
            keys, values, counts = (list(column) for column in zip(*rows, strict=True))
            await out.write([Block(form, [at] * len(rows), keys, values, counts, [[]] * len(rows))], at)
            messages, samples = messages + len(rows), samples + sum(counts)
    return messages, samples


async def fill_arrow(bootstrap: str, samples: int, fleet: int) -> int:
    """Write full GPU events of `fleet` GPUs that report once a second, `ARROW_ROWS` to a message; how many samples."""
    start = int(time.time()) * 1000 - samples // fleet * 1000 - 60_000
    agents = [agent(n) for n in range(fleet // ARROW_ROWS)]
    random, written = np.random.default_rng(1), 0
    async with writer(bootstrap) as out:
        for second in itertools.count():
            at = start + second * 1000
            for first in range(0, len(agents), 100):
                some = enumerate(agents[first : first + 100], first)
                rows = [arrow_message(n, names, at, random) for n, names in some]
                keys, headers, values = (list(column) for column in zip(*rows, strict=True))
                block = Block(TOPIC, [at] * len(rows), keys, values, [ARROW_ROWS] * len(rows), headers)
                await out.write([block], at)
                written += ARROW_ROWS * len(rows)
            if written >= samples:
                return written
    raise AssertionError("time ended")


def agent(n: int) -> dict[str, pa.Array]:
    """What does not change of the GPUs that one agent reports: 1,000 of a cluster, eight to a node."""
    gpus = [f"GPU-{n:08x}-0c43-4e0a-8a6e-{i + 1:012x}" for i in range(ARROW_ROWS)]
    constant = {**CONSTANTS, "cluster": f"ams-h{n % 20}"}
    return {
        **{name: pa.array([text] * ARROW_ROWS) for name, text in constant.items()},
        "gpu": pa.array(gpus),
        "node": pa.array([f"node-{n:04d}-{i // 8:03d}" for i in range(ARROW_ROWS)]),
    }


def arrow_message(
    n: int, names: dict[str, pa.Array], at: int, random: Any
) -> tuple[bytes, list[tuple[str, bytes]], bytes]:
    """(key, headers, value) of one agent's second."""
    ratios = random.random((3, ARROW_ROWS))
    table = pa.table(
        {
            **names,
            "utilization_ratio": ratios[0],
            "engine_active_ratio": ratios[1],
            "memory_used_bytes": (ratios[2] * 8e10).astype("int64"),
            "memory_total_bytes": np.full(ARROW_ROWS, 80 * 2**30, "int64"),
            "power_watts": 300 + 400 * ratios[0],
            "temperature_celsius": 30 + 40 * ratios[1],
            "energy_joules_total": at / 1000 * 500 + np.arange(ARROW_ROWS),
        }
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    told = {
        "specversion": "1.0",
        "id": f"{at}",
        "source": f"/agents/{n}",
        "type": "gpu.utilization.v1",
        "time": rfc3339(at),
    }
    headers = [(f"ce_{name}", text.encode()) for name, text in told.items()]
    headers.append(("content-type", b"application/vnd.apache.arrow.stream"))
    return f"/agents/{n}".encode(), headers, sink.getvalue().to_pybytes()


def figures(bench: Bench) -> Figures:
    """Points a second that the pipeline takes in of each form, and Arrow samples with all housekeeping."""
    found: Figures = {}
    for form in FORMS:
        with bench.broker(form) as kafka:
            create_topics(kafka.bootstrap, default_specs([form], PARTITIONS))
            messages, samples = asyncio.run(fill(kafka.bootstrap, form, bench.sizes.points))
            source = {"topic": form, "format": form, "mapping": "dcgm", "constants": CONSTANTS}
            with bench.data(form) as data:
                run = bench.catch_up(
                    kafka.bootstrap, samples, data, housekeeping=True,
                    sources=[source], batch_records=bench.sizes.source_batch,
                )  # fmt: skip
        found[f"{form}_points_per_s"] = run["events_per_s"] * len(METRICS)
        found[f"{form}_cpu_us_per_point"] = run["cpu_us_per_event"] / len(METRICS)
        bench.say(f"{form}: {messages:,} messages, {found[f'{form}_points_per_s']:,.0f} points/s")
    with bench.broker("arrow") as kafka:
        samples = asyncio.run(fill_arrow(kafka.bootstrap, bench.sizes.arrow_samples, 600_000))
        with bench.data("arrow") as data:
            run = bench.catch_up(kafka.bootstrap, samples, data, housekeeping=True)
    found["arrow_samples_per_s"] = run["events_per_s"]
    found["arrow_cpu_us_per_sample"] = run["cpu_us_per_event"]
    found["arrow_peak_rss_mb"] = run["peak_rss_mb"]
    bench.say(f"arrow: {samples:,} samples, {found['arrow_samples_per_s']:,.0f} samples/s")
    return found
