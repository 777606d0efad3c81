"""A fleet that is scraped: the exporters of its nodes, which answer on the loopback, and the collector, which asks them.

    pages of a step → exporters ← HTTP ← the collector of `gigawatch collect` → events → Kafka

Event time may run faster than the clock, so each target is asked as of its own instant of event time, when that has come.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
from aiohttp import web

from pipeline.broker.kafka import HOST, port_or_free
from pipeline.catalog import Catalog, EventType
from pipeline.collect.collecting import HEADERS
from pipeline.collect.collector import Collector, SourceKind
from pipeline.collect.scrape import ScrapeOptions
from pipeline.collect.targets import TargetFile
from pipeline.formats.registry import format_named
from pipeline.mappings.mapping_file import load_source_mapping
from pipeline.mappings.trial import given_of
from pipeline.simulate.cloud_events import Block, Message, as_block
from pipeline.simulate.dcgm_exporter import PAGES
from pipeline.simulate.fleet_spec import INTERVAL
from pipeline.simulate.gpu_cluster import GpuCluster
from pipeline.simulate.scenarios import Play
from pipeline.simulate.simulator import Opens, StepWriter
from pipeline.simulate.writer import writer

PORT = 9400
"""dcgm-exporter's own; where it is taken, a free one serves."""
FROM_TARGETS = ("region", "site", "cluster", "sku", "nvlink_domain", "data_class")
"""What no exporter knows of its node, and the labels of its target say."""


class Exporters:
    """What the exporter of each node answers at http://…/NODE/metrics; one without a page hangs up, as if it were gone."""

    def __init__(self) -> None:
        self._pages: dict[str, bytes] = {}
        self.address = f"{HOST}:{port_or_free(PORT)}"

    def show(self, node: str, page: bytes) -> None:
        """From now on a node answers this; nothing at all where it is empty."""
        self._pages[node] = page

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Answer while the `async with` lasts."""
        app = web.Application()
        app.add_routes([web.get("/{node}/metrics", self._answer)])
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            host, port = self.address.split(":")
            await web.TCPSite(runner, host, int(port)).start()
            yield
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        page = self._pages.get(request.match_info["node"], b"")
        if not page and request.transport is not None:
            request.transport.abort()
        return web.Response(body=page, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})


def write_targets(play: Play, address: str, path: Path) -> None:
    """The nodes of a play as Prometheus's file_sd_configs has them."""
    groups = [group for cluster in play.fleet().clusters for group in _groups(cluster, address)]
    path.write_text(json.dumps(groups, indent=1), "utf-8")


def _groups(cluster: GpuCluster, address: str) -> Iterator[dict[str, Any]]:
    spec = cluster.spec
    said = {name: text for name, text in cluster.dimensions.items() if name in FROM_TARGETS}
    if spec.data_class:
        said["data_class"] = spec.data_class
    for name, domain in zip(cluster.names, cluster.domains, strict=True):
        node = cluster.target(name)
        where = {"instance": f"{node}:{PORT}", "__metrics_path__": f"/{node}/metrics"}
        mine = {"nvlink_domain": domain} if spec.nvlink_domains else {}
        yield {"targets": [address], "labels": {**where, **said, **mine}}


class Collected:
    """The events of a collector as messages, until those of a step are taken."""

    def __init__(self) -> None:
        self._messages: list[Message] = []

    async def emit(self, event_type: EventType, event: dict[str, Any]) -> None:
        """Keep an event."""
        time_ms = round(datetime.fromisoformat(event["time"]).timestamp() * 1000)
        key, value = event["source"].encode(), msgspec.json.encode(event)
        self._messages.append(Message(event_type.topic, time_ms, key, HEADERS, value, len(event["data"])))

    def take(self) -> list[Block]:
        """What was kept, as one block, or none."""
        found, self._messages = self._messages, []
        return list(filter(None, [as_block(found)]))


class ScrapedWriter:
    """Writes steps in which GPUs are pages of exporters; the rest goes to Kafka as it is.

    The targets of `collector` are those of `exporters`, and what it finds comes to `collected`.
    """

    def __init__(
        self, out: StepWriter, exporters: Exporters, collector: Collector, collected: Collected
    ) -> None:
        self.sent = out.sent
        self._out, self._exporters = out, exporters
        self._collector, self._collected = collector, collected
        self._targets = {urlsplit(target.url).path: state for target, state in collector.states.items()}

    @property
    def says(self) -> str:
        """Who is asked, and the first of them for whoever wants to see it."""
        first = next(iter(self._collector.states)).url
        return f"{len(self._targets)} exporters such as {first} are scraped every {INTERVAL} s of event time"

    async def write(self, blocks: Iterable[Block], t1_ms: int) -> None:
        """Show what a step's nodes have to say, scrape them, and write everything."""
        rest, asked = [], []
        for block in blocks:
            if block.topic != PAGES:
                rest.append(block)
                continue
            for time_ms, key, page in zip(block.times_ms, block.keys, block.values, strict=True):
                self._exporters.show(key.decode(), page)
                state = self._targets[f"/{key.decode()}/metrics"]
                asked.append(self._collector.scrape(state, time_ms // 1000))
        await asyncio.gather(*asked)
        await self._out.write([*rest, *self._collected.take()], t1_ms)


def scraping(play: Play, catalog: Catalog, targets: Path, tell: Callable[[str], None]) -> Opens:
    """What opens writers for a play whose GPUs are behind exporters; `targets`: the file that will name them."""

    @asynccontextmanager
    async def opens(bootstrap: str) -> AsyncIterator[ScrapedWriter]:
        async with writer(bootstrap) as out, scraped(play, catalog, targets, out) as writes:
            tell(f"{writes.says}, as {targets} says")
            yield writes

    return opens


@asynccontextmanager
async def scraped(
    play: Play, catalog: Catalog, targets: Path, out: StepWriter
) -> AsyncIterator[ScrapedWriter]:
    """The exporters of a play and their collector, while the `async with` lasts; what is collected goes to `out`."""
    exporters, collected = Exporters(), Collected()
    write_targets(play, exporters.address, targets)
    file = TargetFile(targets)
    file.read()
    kind = SourceKind(format_named("prometheus"), load_source_mapping(str(play.scenario.exporters), catalog))
    given = given_of([f"provider={play.scenario.fleet.provider}"], [f"{n}={n}" for n in FROM_TARGETS])
    collector = Collector(catalog, lambda _: kind, given, INTERVAL, ScrapeOptions(), collected.emit)
    with _untold():
        async with exporters.open(), collector:
            collector.aim(file.targets)
            yield ScrapedWriter(out, exporters, collector, collected)


@contextmanager
def _untold() -> Iterator[None]:
    """That nodes do not answer is the story, which the screen tells; the collector would log each of them."""
    collector = logging.getLogger("pipeline.collect.collector")
    before = collector.level
    collector.setLevel(logging.ERROR)
    try:
        yield
    finally:
        collector.setLevel(before)
