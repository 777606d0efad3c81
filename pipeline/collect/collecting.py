"""`gigawatch collect` as a process: targets that change, Kafka, a page for whoever watches it, and an end in good order."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import structlog
from aiohttp import web
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError, KafkaError
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector as MetricSource

from pipeline.catalog import Catalog, EventType
from pipeline.collect.collector import Collector, Emit, SourceKind
from pipeline.collect.scrape import ScrapeOptions
from pipeline.collect.targets import Target, TargetFile
from pipeline.errors import BrokerUnreachable, GigawatchError, SettingsError
from pipeline.mappings.mapping_spec import Given

log = structlog.get_logger()

HEADERS = [("content-type", b"application/cloudevents+json")]
KEEP_TRYING_MS = 300_000
"""How long a message is tried again while no broker takes it."""


@dataclass(frozen=True, slots=True)
class CollectOptions:
    """`every`: seconds between two scrapes of a target; `listen`: HOST, PORT of the page, None for none."""

    kinds: Callable[[str], SourceKind]
    given: Given
    every: int
    scrape: ScrapeOptions
    fixed: Sequence[Target] = ()
    file: TargetFile | None = None
    listen: tuple[str, int] | None = None

    def targets(self) -> list[Target]:
        """Those that are named and those of the file, each once."""
        return list(dict.fromkeys((*self.fixed, *(self.file.targets if self.file else ()))))


class MessagesToKafka:
    """Messages to Kafka: how many the broker has, wait, or were lost."""

    def __init__(self, producer: AIOKafkaProducer) -> None:
        self._producer = producer
        self.messages: Counter[str] = Counter()
        self.waiting = self.lost = 0

    async def emit(self, event_type: EventType, event: dict[str, Any]) -> None:
        """Hand an event over; it is sent again until the broker has it, or for five minutes."""
        value, key = msgspec.json.encode(event), event["source"].encode()
        try:
            future = await self._producer.send(event_type.topic, value, key=key, headers=HEADERS)
        except KafkaError as error:
            self._lose(error)
            return
        self.waiting += 1
        future.add_done_callback(lambda done: self._done(event_type.topic, done))

    def _done(self, topic: str, future: asyncio.Future[Any]) -> None:
        self.waiting -= 1
        if future.cancelled() or future.exception():
            self._lose(None if future.cancelled() else future.exception())
        else:
            self.messages[topic] += 1

    def _lose(self, error: BaseException | None) -> None:
        self.lost += 1
        log.error("a message was not taken by Kafka and is lost", error=repr(error), lost=self.lost)


async def collect(
    options: CollectOptions, catalog: Catalog, bootstrap: str, client: Mapping[str, Any], once: bool
) -> Collector:
    """Scrape until SIGTERM or SIGINT, or once.  Raises BrokerUnreachable, SettingsError, MappingError at the start."""
    async with _producer(bootstrap, client, catalog) as producer:
        sent = MessagesToKafka(producer)
        async with _collector(options, catalog, sent.emit) as collector:
            if once:
                await collector.once(time.time())
                await producer.flush()
            else:
                await _until_stopped(options, collector, sent)
        return collector


async def dry_run(options: CollectOptions, catalog: Catalog, tell: Callable[[str], None]) -> Collector:
    """Scrape once and tell each event as a line of JSON; needs no Kafka."""

    async def emit(event_type: EventType, event: dict[str, Any]) -> None:
        tell(msgspec.json.encode(event).decode())

    async with _collector(options, catalog, emit) as collector:
        await collector.once(time.time())
        return collector


@contextlib.asynccontextmanager
async def _collector(options: CollectOptions, catalog: Catalog, emit: Emit) -> AsyncIterator[Collector]:
    if options.file:
        options.file.read()
    if not (targets := options.targets()):
        raise SettingsError("collect: found no target, expected --url or targets in the file of --targets")
    collector = Collector(catalog, options.kinds, options.given, options.every, options.scrape, emit)
    async with collector:
        collector.aim(targets)
        yield collector


@contextlib.asynccontextmanager
async def _producer(
    bootstrap: str, client: Mapping[str, Any], catalog: Catalog
) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap, enable_idempotence=True, compression_type="lz4", linger_ms=50,
        request_timeout_ms=KEEP_TRYING_MS, **client,
    )  # fmt: skip
    try:
        await producer.start()
    except KafkaConnectionError as error:
        await producer.stop()
        raise BrokerUnreachable.at(bootstrap) from error
    try:
        there = (await producer.client.fetch_all_metadata()).topics()
        if absent := [topic for topic in catalog.topics if topic not in there]:
            raise SettingsError(
                f"topic {', '.join(absent)} does not exist; make it with: gigawatch topics create"
            )
        yield producer
    finally:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(producer.stop(), 10)


async def _until_stopped(options: CollectOptions, collector: Collector, sent: MessagesToKafka) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    collector.keep_on()
    async with _page(options, collector, sent):
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), min(options.every, 5))
            _read_again(options, collector)


def _read_again(options: CollectOptions, collector: Collector) -> None:
    """Take over a file of targets that has changed; one that is wrong is told, and the old targets go on."""
    if options.file is None:
        return
    try:
        if options.file.read():
            collector.aim(options.targets())
            collector.keep_on()
            log.info("targets were read again", targets=len(collector.states))
    except GigawatchError as error:
        log.warning("the targets are as they were, for their file cannot be taken over", error=str(error))


@contextlib.asynccontextmanager
async def _page(options: CollectOptions, collector: Collector, sent: MessagesToKafka) -> AsyncIterator[None]:
    """`/healthz` and `/metrics`, where they are asked for."""
    if options.listen is None:
        yield
        return
    registry = CollectorRegistry()
    registry.register(Figures(collector, sent))
    started = time.monotonic()

    async def healthz(_: web.Request) -> web.Response:
        since = time.monotonic() - max(started, collector.round_at)
        well = since < 3 * options.every + options.scrape.seconds and not sent.lost
        words = (
            "scraping"
            if well
            else f"no scrape for {since:.0f} s"
            if not sent.lost
            else f"{sent.lost} messages lost"
        )
        return web.Response(text=f"{words}\n", status=200 if well else 503)

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(
            body=generate_latest(registry), headers={"Content-Type": "text/plain; version=0.0.4"}
        )

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/metrics", metrics)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, *options.listen).start()
        log.info("the collector's page is open", address=":".join(map(str, options.listen)))
        yield
    except OSError as error:
        raise SettingsError(
            f"--listen: {':'.join(map(str, options.listen))} cannot be opened ({error})"
        ) from error
    finally:
        await runner.cleanup()


class Figures(MetricSource):
    """How targets and messages do, for Prometheus."""

    def __init__(self, collector: Collector, sent: MessagesToKafka) -> None:
        self._collector, self._sent = collector, sent

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily(
            "gigawatch_target_up", "Whether the last scrape was read: 1 or 0", labels=["target", "mapping"]
        )
        took = GaugeMetricFamily(
            "gigawatch_target_scrape_seconds", "How long the last scrape took", labels=["target"]
        )
        counts = {
            "samples": CounterMetricFamily(
                "gigawatch_target_samples", "Samples that were sent", labels=["target"]
            ),
            "scrapes": CounterMetricFamily(
                "gigawatch_target_scrapes", "Scrapes, read or not", labels=["target"]
            ),
            "missed": CounterMetricFamily(
                "gigawatch_target_missed", "Instants at which it was not asked", labels=["target"]
            ),
            "lacking": CounterMetricFamily(
                "gigawatch_target_lacking",
                "Samples without a required field, which are not sent",
                labels=["target"],
            ),
        }
        failed = CounterMetricFamily(
            "gigawatch_target_failures", "Scrapes that failed, and why", labels=["target", "reason"]
        )
        for state in self._collector.states.values():
            url = state.target.url
            if state.up is not None:
                up.add_metric([url, state.kind.mapping.mapping], float(state.up))
                took.add_metric([url], state.seconds)
            for name, family in counts.items():
                family.add_metric([url], getattr(state, name))
            for reason, n in state.failures.items():
                failed.add_metric([url, reason], n)
        yield from (up, took, *counts.values(), failed)
        messages = CounterMetricFamily(
            "gigawatch_collect_messages", "Messages that Kafka has", labels=["topic"]
        )
        for topic, n in self._sent.messages.items():
            messages.add_metric([topic], n)
        yield messages
        yield GaugeMetricFamily(
            "gigawatch_collect_waiting", "Messages that wait for Kafka", value=self._sent.waiting
        )
        yield CounterMetricFamily(
            "gigawatch_collect_lost", "Messages that Kafka did not take", value=self._sent.lost
        )
