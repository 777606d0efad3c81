"""The wiring: settings → parts → a Faust app.  Everything that runs is named here, once.

Faust owns the life cycle: the source and the delivery are its services, batches flow through a bounded
channel into an agent, and the clockwork (tick, publish, seal, health, contract) are its timers.  No topic is
subscribed through Faust, so it joins no consumer group; offsets are the ledger's.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, cast

import duckdb
import faust
import structlog
from faust.app.base import BootStrategy

from pipeline import catalog
from pipeline.contract.loader import dimensions_of, load_all
from pipeline.contract.model import Contract, pipeline_alerts
from pipeline.errors import ContractError, GigawatchError, StaleGeneration, Stalled
from pipeline.ledger import files, status, verify
from pipeline.ledger.evaluation import load_states
from pipeline.ledger.health import Pulse
from pipeline.ledger.housekeeping import Housekeeper
from pipeline.ledger.retention import Keep
from pipeline.ledger.store import Applied, Ledger
from pipeline.ledger.views import DAY
from pipeline.notify.clients import Clients
from pipeline.notify.delays import Delays, MeasuredOutbox, quantiles
from pipeline.notify.delivery import Delivery
from pipeline.notify.destination import Destination
from pipeline.notify.own_alerts import OwnAlerts, take_over
from pipeline.notify.policy import Policy, Timing
from pipeline.rules.alerts import AlertChange, AlertState
from pipeline.rules.evaluate import plan_of
from pipeline.secret import hidden
from pipeline.serve.last_resort import end_within
from pipeline.serve.own_status import OwnStatus
from pipeline.serve.servers import Servers, servers
from pipeline.settings import Settings
from pipeline.stream.batch import Batch
from pipeline.stream.clocks import Clocks
from pipeline.stream.deadletter import DeadLetters
from pipeline.stream.health import Health
from pipeline.stream.intake import Intake
from pipeline.stream.own_topics import make_own, mend_letters
from pipeline.stream.process import DecodedBatch, Processor
from pipeline.stream.source import BatchSource
from pipeline.stream.source_topics import fed_by, source_topics
from pipeline.stream.topics import cluster_and_clock
from pipeline.stream.watermark import Watermarks

log = structlog.get_logger()

SWITCH_INTERVAL = 0.0005
"""Seconds after which a busy thread hands the interpreter on.  Python's own 5 ms would make the ledger's thread
wait that long for the fetching one after each of the dozens of statements of a batch."""
YOUNG_OBJECTS = 1_000_000
"""Objects made before Python looks for cycles among them.  Every record is three, and they die with their batch: as
many as two batches hold must not count, or all are walked through again and again, at Python's own number at half the
price of reading (4.5 against 2.5 µs a record)."""
CONTRACT_EVERY = STATUS_EVERY = 2.0
LOOK_EVERY = 1.0
END_WITHIN, STOP_WITHIN = 10.0, 60.0
"""Seconds that an orderly end may take: after a failure, and after a stop was asked for, when there is work to finish."""


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
        self.sources = source_topics(settings.sources, self.catalog)
        self._topics = (*self.catalog.topics, *(source.topic for source in self.sources))
        self.contracts = self._load_contracts()
        self.contract_error: str | None = None
        self.delays = Delays()
        self.status_file = status.StatusFile(settings.data)
        self.clocks = Clocks()
        self._stopping = False
        self._failure: asyncio.Future[None] | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set: then finish the batch, seal, publish and close.  Raises what went wrong."""
        sys.setswitchinterval(SWITCH_INTERVAL)
        gc.set_threshold(YOUNG_OBJECTS, 20, 50)
        cluster = await asyncio.to_thread(self._look_at_broker)
        self.clients = Clients(self.settings)
        try:
            await self._with_ledger(cluster, await self.clients.open(), stop)
        except duckdb.Error as error:
            raise files.damaged(self.settings.data, error) from error
        finally:
            await self.clients.close()

    def _look_at_broker(self) -> str:
        """The cluster's id; its clock is noted, and the topics that are ours are made where they are missing."""
        settings, client = self.settings, self.settings.kafka_client()
        cluster, clock = cluster_and_clock(settings.bootstrap, client)
        self.clocks.heard(clock)
        for wrong in make_own(settings.bootstrap, settings.deadletter_topic, settings.alerts_topic, client):
            log.warning("a topic of our own cannot be written; what has to go there will wait", why=wrong)
        return cluster

    async def _with_ledger(self, cluster: str, destinations: list[Destination], stop: asyncio.Event) -> None:
        settings = self.settings
        self.ledger = await asyncio.to_thread(
            Ledger, settings.data, self.catalog, memory_limit=settings.memory_limit, threads=settings.threads,
            destinations=[d.name for d in destinations],
        )  # fmt: skip
        self.housekeeper = Housekeeper(
            self.ledger, settings.seal_every, self._pulse, Keep(raw=settings.keep_raw_days * DAY),
            settings.publish_every,
        )  # fmt: skip
        try:
            self.ledger.bind_cluster(cluster)
            take_over(self.ledger, self.clocks.bound())
            self.ledger.use(self.contracts, plan_of(self.contracts, self.catalog), self.clocks.bound())
            await self._run(destinations, stop)
        finally:
            await asyncio.to_thread(self.ledger.close)

    async def _run(self, destinations: list[Destination], stop: asyncio.Event) -> None:
        self._failure = asyncio.get_running_loop().create_future()
        app = await self._wired(destinations)
        await app.source.connect()
        await self.own.note(*self.health.begin(pipeline_alerts(self.contracts), self.clocks.bound()))
        app.flow_control.resume()  # Faust resumes its channels at a rebalance, which we never have
        await app.start()
        delivering = asyncio.create_task(self._guard(self.delivery.run()), name="delivery")
        self.servers.start()
        try:
            await self._until(stop)
        finally:
            self._end_at_last()
            await self._last_word()
            closing = asyncio.create_task(self.servers.stop())
            self.own.stop()
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
        self.own = OwnAlerts(
            self._record_own, outbox.firing, lambda: self.health.hangs, self.clocks.bound, settings.data
        )
        self.delivery = self.own.delivery = Delivery(
            outbox, destinations, policy=Policy(page_max_age=settings.page_max_age), firing=self.own.firing,
            timing=Timing(clock=self.clocks.bound), accepted=outbox.accepted, catching_up=self._catching_up,
            notes=self._notes, outage=lambda: self.health.outage, public_url=settings.public_url or "",
        )  # fmt: skip
        processor = Processor(
            self.ledger.con, self.catalog, settings.data, settings.max_message_bytes, settings.max_series,
            settings.max_entities, self.sources,
        )  # fmt: skip
        await asyncio.to_thread(processor.remember, self.ledger.progress())
        mend = partial(mend_letters, settings.bootstrap, settings.deadletter_topic, settings.kafka_client())
        letters = DeadLetters(self.clients.producer, settings.deadletter_topic, mend)
        self.intake = Intake(self.ledger, processor, self.watermarks, letters, self._told, self.clocks)
        app.source = self.source = BatchSource(
            settings.bootstrap, settings.kafka_client(), self._topics, self.ledger.offsets(),
            self.ledger.topic_ids(), put=hand_on, wanted=lambda: not decoder_free.locked(),
            assigned=self.watermarks.assign, met=lambda ids: self.intake.with_ledger(self.ledger.bind_topics, ids),
            answered=lambda ends: self.watermarks.answered(ends, self.clocks.steady()),
            guard=self._guard, clocks=self.clocks, max_records=settings.batch_records, max_bytes=settings.batch_bytes,
            linger=settings.batch_linger, apart=[s.topic for s in self.sources],
        )  # fmt: skip
        self.health = Health(
            self._topics, self.watermarks, load_states(self.ledger.con), stalled_after=settings.stalled_after,
            give_up_after=settings.give_up_after, steady=self.clocks.steady(), unmatched_after=settings.unmatched_after,
        )  # fmt: skip
        self.status = OwnStatus(self.ledger, self.status_file, self._live_status, self.clocks.own)
        self.servers = Servers(servers(settings))
        self._start_clock(app)
        return app

    def _start_clock(self, app: _App) -> None:
        """What happens at intervals, as timers of the app."""
        for every, work in (
            (self.settings.tick, self.intake.tick),
            (LOOK_EVERY, self._look_at_health),
            (self.settings.publish_every, self.housekeeper.keep),
            (CONTRACT_EVERY, self._look_at_contracts),
            (STATUS_EVERY, self.status.write),
        ):
            app.timer(interval=every)(self._guarded(work))

    async def _finish(self) -> None:
        """Seal and publish the last; after a failure only say what it was."""
        assert self._failure is not None
        if self._failure.done():
            self.housekeeper.close()
            self.status_file.fail(str(self._failure.exception()))
        else:
            self._stopping = True
            await self.housekeeper.finish(self.status.end)

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
        except duckdb.InterruptException:
            log.warning("the stop cut a statement short; it is rolled back, and nothing is lost")
        except BaseException as error:
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            if self._failure is not None and not self._failure.done():
                self._fail(error)

    def _fail(self, error: BaseException) -> None:
        if self._failure is not None and not self._failure.done():
            log.error("the pipeline stops", error=str(error))
            self._failure.set_exception(error if isinstance(error, Exception) else RuntimeError(repr(error)))

    def _guarded(self, work: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
        async def guarded() -> None:
            if self._failure is not None and not self._failure.done():
                await self._guard(work())

        guarded.__name__, guarded.__qualname__ = work.__name__, work.__qualname__  # what Faust's log says
        return guarded

    def _watermarks(self) -> Watermarks:
        marks = Watermarks(self.catalog, fed_by(self.sources, self.catalog))
        since, clocks = self.ledger.progress_since(), self.clocks
        for place, offset in self.ledger.offsets().items():
            reached, at = (_epoch(found) for found in since.get(place, (None, None)))
            gone = None if at is None else max(0.0, clocks.least() - at)
            marks.assign(place, offset, reached, None if gone is None else clocks.steady() - gone)
        return marks

    def _catching_up(self) -> bool:
        return sum(self.watermarks.lag().values()) > self.settings.batch_records

    def _notes(self) -> dict[str, str]:
        found = {
            "contract_refused": self.contract_error or "",
            "pipeline_stalled": str(self.health.stall or ""),
        }
        return {name: words for name, words in found.items() if words}

    def _told(self, applied: Applied) -> None:
        if applied.changes:
            for change in applied.changes:
                if change.pages:
                    log.info(
                        "alert", alertname=change.state.alertname, kind=change.kind, clause=change.state.clause,
                        by=dict(change.state.by),
                    )  # fmt: skip
            self.delivery.nudge()

    async def _look_at_health(self) -> None:
        """What goes by the clock; it waits for nothing that it watches."""
        clocks = self.clocks
        skews = clocks.skews(self.ledger.reached)
        states, changes = self.health.look(
            pipeline_alerts(self.contracts), self.intake.work(), clocks.steady(), clocks.bound(), skews
        )
        grown, more = self.health.look_at_growth(
            pipeline_alerts(self.contracts), self.intake.growth(), clocks.steady(), clocks.bound()
        )
        strange, told = self.health.look_at_clauses(
            pipeline_alerts(self.contracts), self.housekeeper.unmatched, clocks.bound()
        )
        states, changes = states | grown | strange, [*changes, *more, *told]
        if changes:
            self.own.note(states, changes).add_done_callback(self._heard)

    def _heard(self, task: asyncio.Task[None]) -> None:
        """A write that failed ends the pipeline, as every failure does."""
        if not task.cancelled() and (error := task.exception()):
            self._fail(error)

    async def _record_own(
        self, states: Mapping[str, AlertState | None], changes: Sequence[AlertChange]
    ) -> None:
        await self.intake.with_ledger(self.ledger.record_own, states, changes, self.clocks.bound())

    async def _last_word(self) -> None:
        """After a failure the alert says what the exit message says; a writer that was taken over has no say any more."""
        assert self._failure is not None
        error = self._failure.exception() if self._failure.done() else None
        if error is not None and not isinstance(
            error, Stalled | StaleGeneration
        ):  # the first was told long before
            alerts = pipeline_alerts(self.contracts)
            await self.own.last_word(*self.health.end(alerts, hidden(str(error)), self.clocks.bound()))

    def _end_at_last(self) -> None:
        """Should a thread hang that an orderly end waits for, the process ends all the same, and says why."""
        assert self._failure is not None
        error = self._failure.exception() if self._failure.done() else None
        words = str(error or f"the stop did not come to its end; the ledger is at: {self.intake.work()}")
        code = error.exit_code if isinstance(error, GigawatchError) else Stalled.exit_code
        end_within(END_WITHIN if error else STOP_WITHIN, code, words, partial(self.status_file.fail, words))

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
            await self.intake.with_ledger(self.ledger.use, found, plan, self.clocks.bound())
            self.contracts = found
            log.info("contract taken over", contracts=[f"{c.id} {c.version}" for c in found])

    def _pulse(self) -> Pulse:
        lag = {topic: sum(parts.values()) for topic, parts in self.watermarks.lags().items()}
        fresh, decided = quantiles(self.delays.freshness), quantiles(self.delays.decision)
        rate, stall = self.intake.tally.rate(self.clocks.steady()), self.health.stall
        return Pulse(lag, rate, fresh["p99"], decided["p99"], stall, self._stopping)

    def _live_status(self) -> dict[str, Any]:
        """What only the running process knows."""
        return {
            "bootstrap": self.settings.bootstrap,
            "contracts": [{"id": c.id, "version": c.version, "digest": c.digest} for c in self.contracts],
            "contract_error": self.contract_error,
            "servers": self.servers.status(),
            "unmatched": [str(one) for one in self.housekeeper.unmatched or ()],
            "absent_topics": self.source.absent,
            "ignored": self.intake.ignored(),
            "tampered": verify.told(self.housekeeper.tampered),
            "stalled": str(self.health.stall or ""),
            "clocks": [skew.words for skew in self.clocks.skews(self.ledger.reached)],
            "lag": self.watermarks.lags(),
            "rate_events_per_s": round(self.intake.tally.rate(self.clocks.steady()), 1),
            "freshness_s": quantiles(self.delays.freshness),
            "decision_delay_s": quantiles(self.delays.decision),
        }


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
