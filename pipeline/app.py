"""The wiring: settings → parts → a Faust app.  Everything that runs is named here, once.

Faust owns the life cycle: the source and the delivery are its services, batches flow through a bounded
channel into an agent, and the clockwork (tick, publish, seal, health, contract) are its timers.  No topic is
subscribed through Faust, so it joins no consumer group; offsets are the ledger's.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from typing import Any, cast

import faust
import httpx
import structlog
from aiokafka import AIOKafkaProducer
from faust.app.base import BootStrategy

from pipeline import catalog
from pipeline.contract.loader import dimensions_of, load_all
from pipeline.contract.model import Contract, pipeline_alerts
from pipeline.errors import ContractError
from pipeline.ledger import files, status
from pipeline.ledger.evaluation import load_states
from pipeline.ledger.health import Pulse
from pipeline.ledger.housekeeping import Housekeeper
from pipeline.ledger.store import Applied, Ledger
from pipeline.notify.alertmanager import Alertmanager
from pipeline.notify.delays import Delays, MeasuredOutbox, quantiles
from pipeline.notify.delivery import Delivery
from pipeline.notify.destination import Destination
from pipeline.notify.kafka_topic import AlertTopic
from pipeline.notify.policy import Policy
from pipeline.notify.webhook import Webhook, authorization
from pipeline.rules.evaluate import Plan, plan_of
from pipeline.serve.servers import Servers, servers
from pipeline.settings import Settings, read_secret
from pipeline.stream.batch import Batch
from pipeline.stream.deadletter import DeadLetters
from pipeline.stream.health import Health
from pipeline.stream.intake import Intake
from pipeline.stream.process import DecodedBatch, Processor
from pipeline.stream.source import BatchSource
from pipeline.stream.topics import cluster_id
from pipeline.stream.watermark import Watermarks

log = structlog.get_logger()

SWITCH_INTERVAL = 0.0005
"""Seconds after which a busy thread hands the interpreter on.  Python's own 5 ms would make the ledger's thread
wait that long for the fetching one after each of the dozens of statements of a batch."""
YOUNG_OBJECTS = 1_000_000
"""Objects made before Python looks for cycles among them.  Every record is three, and they die with their batch: as
many as two batches hold must not count, or all are walked through again and again, at Python's own number at half the
price of reading (4.5 against 2.5 µs a record)."""
CONTRACT_EVERY = 2.0
STATUS_EVERY = 2.0


class _Boot(BootStrategy):
    """The agents, and our own source after them; no Kafka client of Faust's, no tables, no web server."""

    enable_kafka = False
    enable_web = False
    enable_sensors = False

    def server(self) -> Iterable[Any]:
        return [*self.agents(), cast(_App, self.app).source]


class _App(faust.App):
    BootStrategy = _Boot
    source: BatchSource


class Gigawatch:
    """The pipeline against one Kafka cluster: open it, `run` it until `stop` is set or something fails.

    Raises (from `open`) BrokerUnreachable, ContractError, DataDirectoryInUse, ForeignCluster, LedgerError,
    LogMoved; nothing is changed then.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.catalog = catalog.load(settings.schemas)
        self.contracts = self._load_contracts()
        self.contract_error: str | None = None
        self.delays = Delays()
        self.status_file = status.StatusFile(settings.data)
        self.started = time.time()
        self._failure: asyncio.Future[None] | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set: then finish the batch, seal, publish and close.  Raises what went wrong."""
        sys.setswitchinterval(SWITCH_INTERVAL)
        gc.set_threshold(YOUNG_OBJECTS, 20, 50)
        settings = self.settings
        cluster = await asyncio.to_thread(cluster_id, settings.bootstrap, settings.kafka_client())
        try:
            destinations = await self._destinations()
            await self._with_ledger(cluster, destinations, stop)
        finally:
            await self._close_clients()

    async def _with_ledger(self, cluster: str, destinations: list[Destination], stop: asyncio.Event) -> None:
        settings = self.settings
        self.ledger = await asyncio.to_thread(
            Ledger, settings.data, self.catalog, memory_limit=settings.memory_limit, threads=settings.threads,
            destinations=[d.name for d in destinations],
        )  # fmt: skip
        self.housekeeper = Housekeeper(self.ledger, settings.seal_every, self._pulse)
        try:
            self.ledger.bind_cluster(cluster)
            self.ledger.use(self.contracts, plan_of(self.contracts, self.catalog), time.time())
            await self._run(destinations, stop)
        finally:
            await asyncio.to_thread(self.ledger.close)

    async def _run(self, destinations: list[Destination], stop: asyncio.Event) -> None:
        self._failure = asyncio.get_running_loop().create_future()
        app = await self._wired(destinations)
        await app.source.connect()
        own, changes = self.health.begin(pipeline_alerts(self.contracts), time.time())
        await self.intake.with_ledger(self.ledger.record_own, own, changes, time.time())
        app.flow_control.resume()  # Faust resumes its channels at a rebalance, which we never have
        await app.start()
        delivering = asyncio.create_task(self._guard(self.delivery.run()), name="delivery")
        self.servers.start()
        try:
            await self._until(stop)
        finally:
            closing = asyncio.create_task(self.servers.stop())
            await self.intake.stop()
            await app.stop()
            await self._finish()
            self.delivery.stop()
            await asyncio.gather(delivering, closing, return_exceptions=True)

    async def _wired(self, destinations: list[Destination]) -> _App:
        """All parts, from the source to the destinations, in a Faust app that is not started yet."""
        settings = self.settings
        app = _App(
            "gigawatch", broker=f"kafka://{settings.bootstrap}", autodiscover=False, web_enabled=False,
            datadir=str(settings.data / "faust"),
        )  # fmt: skip
        fetched, decoded = app.channel(maxsize=1), app.channel(maxsize=1)
        # one batch is gathered, one decoded and one taken in: memory stays bounded.  One more may wait for the
        # ledger, so that the decoder need not: without its records it is small
        decoder_free, ledger_free = asyncio.Semaphore(1), asyncio.Semaphore(2)

        async def hand_on(batch: Batch) -> None:
            await decoder_free.acquire()
            await fetched.put(batch)  # type: ignore[arg-type]  # Faust says EventT, and means anything

        async def decode(batch: Batch) -> None:
            found = await self.intake.decode(batch)
            if found is not None:
                await ledger_free.acquire()
                await decoded.put(found)  # type: ignore[arg-type]

        @app.agent(fetched)
        async def decode_each(stream: faust.StreamT[Batch]) -> None:
            async for batch in stream:
                await self._guard(decode(batch))
                decoder_free.release()

        @app.agent(decoded)
        async def take_in(stream: faust.StreamT[DecodedBatch]) -> None:
            async for batch in stream:
                await self._guard(self.intake.take(batch))
                ledger_free.release()

        self.watermarks = self._watermarks()
        outbox = MeasuredOutbox(self.ledger, self.delays)
        self.delivery = Delivery(
            outbox, destinations, policy=Policy(page_max_age=settings.page_max_age), firing=outbox.firing,
            accepted=outbox.accepted, catching_up=self._catching_up, notes=self._notes,
        )  # fmt: skip
        processor = Processor(self.ledger.con, self.catalog, settings.data, settings.max_message_bytes)
        await asyncio.to_thread(self._remember, processor)
        letters = DeadLetters(self.producer, settings.deadletter_topic)
        self.intake = Intake(self.ledger, processor, self.watermarks, letters, self._told)
        app.source = BatchSource(
            settings.bootstrap, settings.kafka_client(), self.catalog.topics, self.ledger.offsets(),
            self.ledger.topic_ids(), put=hand_on, wanted=lambda: not decoder_free.locked(),
            assigned=self.watermarks.assign, met=lambda ids: self.intake.with_ledger(self.ledger.bind_topics, ids),
            answered=lambda ends: self.watermarks.answered(ends, time.time()),
            guard=self._guard, max_records=settings.batch_records, max_bytes=settings.batch_bytes, linger=settings.batch_linger,
        )  # fmt: skip
        self.health = Health(
            self.catalog.topics, self.watermarks, load_states(self.ledger.con), stalled_after=settings.stalled_after,
            give_up_after=settings.give_up_after, now=time.time(),
        )  # fmt: skip
        self.servers = Servers(servers(settings))
        self._start_clock(app)
        return app

    def _start_clock(self, app: _App) -> None:
        """What happens at intervals, as timers of the app."""
        for every, work in (
            (self.settings.tick, self._tick),
            (self.settings.publish_every, self.housekeeper.keep),
            (CONTRACT_EVERY, self._look_at_contracts),
            (STATUS_EVERY, self._write_status),
        ):
            app.timer(interval=every)(self._guarded(work))

    async def _finish(self) -> None:
        """Seal and publish the last; after a failure only say what it was."""
        assert self._failure is not None
        if self._failure.done():
            self.housekeeper.close()
            self.status_file.fail(str(self._failure.exception()))
        else:
            await self.housekeeper.finish(lambda con: self.status_file.end(self._status(con, "stopped")))

    async def _until(self, stop: asyncio.Event) -> None:
        assert self._failure is not None
        stopping: asyncio.Future[Any] = asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait({stopping, self._failure}, return_when=asyncio.FIRST_COMPLETED)
            if self._failure.done():
                self._failure.result()
        finally:
            stopping.cancel()

    async def _guard(self, work: Awaitable[Any]) -> None:
        """Every failure ends the pipeline on one path: a Faust agent that raises would go on by itself."""
        try:
            await work
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            if self._failure is not None and not self._failure.done():
                log.error("the pipeline stops", error=str(error))
                self._failure.set_exception(
                    error if isinstance(error, Exception) else RuntimeError(repr(error))
                )

    def _guarded(self, work: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
        async def guarded() -> None:
            if self._failure is not None and not self._failure.done():
                await self._guard(work())

        guarded.__name__, guarded.__qualname__ = work.__name__, work.__qualname__  # what Faust's log says
        return guarded

    def _watermarks(self) -> Watermarks:
        marks = Watermarks(self.catalog)
        since = self.ledger.progress_since()
        for place, offset in self.ledger.offsets().items():
            reached, at = since.get(place, (None, None))
            marks.assign(place, offset, _epoch(reached), _epoch(at))
        return marks

    def _remember(self, processor: Processor) -> None:
        """The identities of the last minutes, so that a re-send after a restart is known."""
        progress = self.ledger.progress()
        for event in self.catalog.types:
            reached = {part: at for (topic, part), at in progress.items() if topic == event.topic}
            processor.seen[event.topic].rebuild(self.settings.data, reached)

    async def _destinations(self) -> list[Destination]:
        settings = self.settings
        self.http = httpx.AsyncClient()
        self.producer = AIOKafkaProducer(
            bootstrap_servers=settings.bootstrap, enable_idempotence=True, compression_type="lz4",
            max_request_size=2 * 2**20, max_batch_size=2**18, linger_ms=5, **settings.kafka_client(),
        )  # fmt: skip
        found: list[Destination] = []
        if settings.alertmanager:
            found.append(Alertmanager(settings.alertmanager, self.http))
        if settings.webhook:
            token = read_secret(settings.webhook_token_file) if settings.webhook_token_file else None
            found.append(Webhook(settings.webhook, self.http, headers=authorization(token)))
        if settings.alerts_topic:
            found.append(AlertTopic(self.producer, topic=settings.alerts_topic))
        await self.producer.start()
        return found

    async def _close_clients(self) -> None:
        try:
            async with asyncio.timeout(3):
                await self.producer.stop()
                await self.http.aclose()
        except TimeoutError:
            log.warning(
                "the broker did not take the last writes within 3 s; what was not accepted stays in the outbox"
            )

    def _catching_up(self) -> bool:
        return sum(self.watermarks.lag().values()) > self.settings.batch_records

    def _notes(self) -> dict[str, str]:
        return {} if self.contract_error is None else {"contract_refused": self.contract_error}

    def _told(self, applied: Applied) -> None:
        if applied.changes:
            for change in applied.changes:
                if change.pages:
                    log.info(
                        "alert",
                        alertname=change.state.alertname,
                        kind=change.kind,
                        clause=change.state.clause,
                        by=dict(change.state.by),
                    )
            self.delivery.nudge()

    async def _tick(self) -> None:
        await self.intake.tick()
        positions = dict(self.watermarks.positions())
        states, changes = self.health.look(pipeline_alerts(self.contracts), positions, time.time())
        if changes:
            await self.intake.with_ledger(self.ledger.record_own, states, changes, time.time())
            self.delivery.nudge()

    def _load_contracts(self) -> tuple[Contract, ...]:
        """The contracts that the settings name; none when none is named.  Raises ContractError."""
        where = self.settings.contract
        return load_all(where, dimensions_of(self.catalog)) if where else ()

    async def _look_at_contracts(self) -> None:
        """Take over a changed contract; a wrong one is refused, and the old one goes on."""
        try:
            found = await asyncio.to_thread(self._load_contracts)
        except ContractError as error:
            if str(error) != self.contract_error:
                log.error("the new contract is refused, the old one goes on", error=str(error))
            self.contract_error = str(error)
            return
        self.contract_error = None
        if [c.digest for c in found] != [c.digest for c in self.contracts]:
            plan = plan_of(found, self.catalog)
            await self.intake.with_ledger(self._use, found, plan)
            log.info("contract taken over", contracts=[f"{c.id} {c.version}" for c in found])

    def _use(self, contracts: tuple[Contract, ...], plan: Plan) -> None:
        self.ledger.use(contracts, plan, time.time())
        self.contracts = contracts

    async def _write_status(self) -> None:
        await asyncio.to_thread(self._status_file)

    def _status_file(self) -> None:
        with self.ledger.cursor() as con:
            self.status_file.write(self._status(con, "running"))

    def _pulse(self) -> Pulse:
        lag: dict[str, int] = {}
        for (topic, _), n in self.watermarks.lag().items():
            lag[topic] = lag.get(topic, 0) + n
        fresh, decided = quantiles(self.delays.freshness), quantiles(self.delays.decision)
        return Pulse(lag, self.intake.tally.rate(time.time()), fresh["p99"], decided["p99"])

    def _status(self, con: Any, state: str) -> dict[str, Any]:
        now = time.time()
        lag: dict[str, dict[str, int]] = {}
        for (topic, part), n in sorted(self.watermarks.lag().items()):
            lag.setdefault(topic, {})[str(part)] = n
        return {
            "state": state,
            "written_at": datetime.fromtimestamp(now, UTC).isoformat().replace("+00:00", "Z"),
            "pid": os.getpid(),
            "bootstrap": self.settings.bootstrap,
            "contracts": [{"id": c.id, "version": c.version, "digest": c.digest} for c in self.contracts],
            "contract_error": self.contract_error,
            "servers": self.servers.status() if state == "running" else {},
            **status.snapshot(con),
            **self._evaluation(con),
            "lag": lag,
            "rate_events_per_s": round(self.intake.tally.rate(now), 1),
            "freshness_s": quantiles(self.delays.freshness),
            "decision_delay_s": quantiles(self.delays.decision),
        }

    def _evaluation(self, con: Any) -> dict[str, Any]:
        """How far instants that the watermark has passed are evaluated, where there are some left."""
        plan = self.ledger.plan
        left = plan is not None and self.ledger.behind
        found = status.evaluation(con, plan.groups) if plan is not None and left else {}
        return {"evaluated_to": None, "evaluated_share": None, **found}


def _epoch(at: datetime | None) -> float | None:
    return None if at is None else at.replace(tzinfo=UTC).timestamp()


def run(settings: Settings) -> None:
    """Run the pipeline until SIGTERM or SIGINT.  Raises GigawatchError."""
    files.private_from_now_on()
    if settings.security_protocol == "SASL_PLAINTEXT":
        log.warning(
            "SASL without TLS: whoever listens on the way reads the records, and the password of mechanism PLAIN; "
            "security_protocol SASL_SSL protects both"
        )
    # Contracts are read before there is a loop: until then a signal ends us at once, as nothing is open yet.
    asyncio.run(_until_signal(Gigawatch(settings)))


async def _until_signal(gigawatch: Gigawatch) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stop.set)
    await gigawatch.run(stop)
