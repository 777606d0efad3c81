"""`collect`: a hundred nodes of eight GPUs, scraped by a process of its own; what it costs in processor time."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from parts import Bench, Figures

NODES, GPUS, EVERY = 100, 8, 5
"""Scraped every five seconds, so that a minute has twelve rounds; the figure is for every thirty."""
METRICS = {
    "DCGM_FI_DEV_SM_CLOCK": "1980", "DCGM_FI_DEV_MEM_CLOCK": "2619", "DCGM_FI_DEV_MEMORY_TEMP": "61",
    "DCGM_FI_DEV_GPU_TEMP": "58", "DCGM_FI_DEV_POWER_USAGE": "634.512000", "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": "88410233125",
    "DCGM_FI_DEV_PCIE_REPLAY_COUNTER": "0", "DCGM_FI_DEV_GPU_UTIL": "81", "DCGM_FI_DEV_MEM_COPY_UTIL": "34",
    "DCGM_FI_DEV_ENC_UTIL": "0", "DCGM_FI_DEV_DEC_UTIL": "0", "DCGM_FI_DEV_XID_ERRORS": "0", "DCGM_FI_DEV_FB_FREE": "40110",
    "DCGM_FI_DEV_FB_USED": "40960", "DCGM_FI_DEV_FB_RESERVED": "489", "DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL": "0",
    "DCGM_FI_DEV_VGPU_LICENSE_STATUS": "0", "DCGM_FI_PROF_GR_ENGINE_ACTIVE": "0.780000", "DCGM_FI_PROF_DRAM_ACTIVE": "0.340000",
    "DCGM_FI_PROF_PCIE_TX_BYTES": "1093310", "DCGM_FI_PROF_PCIE_RX_BYTES": "908340",
}  # fmt: skip
"""What dcgm-exporter shows of a GPU with its default counters."""


def exporter(node: int) -> bytes:
    """dcgm-exporter 4.8 of a node, as it answers."""
    lines = []
    for metric, value in METRICS.items():
        lines += [f"# HELP {metric} What it counts.", f"# TYPE {metric} gauge"]
        for gpu in range(GPUS):
            uuid = f"GPU-{node:08x}-0c43-4e0a-8a6e-61d9f0a2c{gpu:03x}"
            lines.append(
                f'{metric}{{gpu="{gpu}",UUID="{uuid}",pci_bus_id="00000000:{gpu:02x}:00.0",device="nvidia{gpu}",'
                f'modelName="NVIDIA H100 80GB HBM3",Hostname="node-{node:04d}",DCGM_FI_DRIVER_VERSION="575.57.08",'
                f'container="trainer",namespace="planning",pod="trainer-{node}-{gpu}"}} {value}'
            )
    return ("\n".join(lines) + "\n").encode()


@contextmanager
def nodes() -> Iterator[str]:
    """A server that is `NODES` exporters, each at a path of its own; its address."""
    answers = {f"/{node}/metrics": exporter(node) for node in range(NODES)}

    class Exporter(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            data = answers[self.path]
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Exporter)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def figures(bench: Bench) -> Figures:
    """Processor time of the collector over its rounds, after the first."""
    seconds = bench.sizes.scrape_seconds
    with bench.broker("collect") as kafka, nodes() as address:
        targets = bench.scratch / "targets.json"
        groups = [
            {
                "targets": [address],
                "labels": {"__metrics_path__": f"/{n}/metrics", "instance": f"node-{n}:9400"},
            }
            for n in range(NODES)
        ]
        targets.write_text(json.dumps(groups))
        constants = ("provider=halcyon", "region=eu-west", "site=ams-02", "cluster=ams-h1", "sku=ND_H100_v5")
        command = [
            *(
                "-m",
                "pipeline.cli",
                "collect",
                "--targets",
                str(targets),
                "--mapping",
                "dcgm",
                "--every",
                f"{EVERY}s",
            ),
            *(
                "--listen",
                "",
                "--bootstrap",
                kafka.bootstrap,
                *(w for c in constants for w in ("--constant", c)),
            ),
        ]
        with bench.process(command, "collect.log") as process:
            watched = psutil.Process(process.pid)
            time.sleep(2 * EVERY + 3)
            began, before = time.monotonic(), watched.cpu_times()
            time.sleep(seconds)
            after, took = watched.cpu_times(), time.monotonic() - began
            memory = watched.memory_info().rss / 2**20
    cpu = after.user + after.system - before.user - before.system
    scrapes = took / EVERY * NODES
    bench.say(f"collect: {cpu / scrapes * 1000:.1f} ms a scrape of {GPUS} GPUs, {memory:,.0f} MB")
    return {
        "collect_cpu_ms_per_scrape": cpu / scrapes * 1000,
        "collect_cpu_cores_every_30s": cpu / took * EVERY / 30,
        "collect_rss_mb": memory,
    }
