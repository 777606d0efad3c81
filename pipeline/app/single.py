"""The wiring of one process: settings → parts.  Everything that runs is named here, once.

Faust owns the life cycle: batches flow through two bounded channels into agents, and the clockwork (tick, publish, seal,
health, contract) are timers.  No topic is subscribed through Faust, so it joins no consumer group; offsets are the
ledger's.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from functools import partial
from typing import Any

import duckdb
import faust
import structlog
from faust.app.base import BootStrategy

from pipeline import catalog
from pipeline.app import self_report
from pipeline.app.contract_watch import ContractWatch
from pipeline.app.failure import FirstFailure
from pipeline.app.lifecycle import run_until, until_signal
from pipeline.app.opening import choose_allocator, look_at_broker, opened_ledger, told, watermarks_of
from pipeline.app.parts import Parts
from pipeline.history.housekeeping import Housekeeper
from pipeline.history.retention import Keep
from pipeline.ledger import files
from pipeline.ledger.evaluation import load_states
from pipeline.ledger.status import StatusFile
from pipeline.notify.clients import Clients
from pipeline.notify.delays import Delays
from pipeline.notify.delivery import Delivery
from pipeline.notify.firing_alerts import FiringAlerts
from pipeline.notify.ledger_outbox import LedgerOutbox
from pipeline.notify.own_alerts import OwnAlerts
from pipeline.notify.policy import Policy, Timing
from pipeline.rollup.grid import DAY
from pipeline.serve.own_status import OwnStatus
from pipeline.serve.supervisor import Servers, servers
from pipeline.settings import Settings
from pipeline.stream.batch import Batch
from pipeline.stream.clocks import Clocks
from pipeline.stream.deadletter_writer import DeadLetters
from pipeline.stream.health import Health
from pipeline.stream.intake import Intake
from pipeline.stream.own_topics import mend_letters
from pipeline.stream.process import DecodedBatch, Processor
from pipeline.stream.source import BatchSource
from pipeline.stream.source_topics import fed_by, source_topics

log = structlog.get_logger()


class _OnlyAgents(BootStrategy):
    """No Kafka client of Faust's, no tables, no web server."""

    enable_kafka = False
    enable_web = False
    enable_sensors = False

    def server(self) -> Iterable[Any]:
        return self.agents()


class Flow(faust.App):
    """Hands batches on: fetched → decoded → taken in.

    One batch is gathered, one decoded and one taken in: memory stays bounded.  One more may wait for the ledger, so that
    the decoder need not: without its records it is small.
    """

    BootStrategy = _OnlyAgents

    def __init__(self, settings: Settings, intake: Intake, failure: FirstFailure) -> None:
        super().__init__(
            "gigawatch", broker=f"kafka://{settings.bootstrap}", autodiscover=False, web_enabled=False,
            datadir=str(settings.data / "faust"),
        )  # fmt: skip
        self._intake, self._failure = intake, failure
        self._decoder_free, self._ledger_free = asyncio.Semaphore(1), asyncio.Semaphore(2)
        self._fetched, self._decoded = self.channel(maxsize=1), self.channel(maxsize=1)
        self.agent(self._fetched, name="decode")(self._decode_each)
        self.agent(self._decoded, name="take_in")(self._take_each)
        self.flow_control.resume()  # Faust resumes its channels at a rebalance, which we never have

    def every(self, seconds: float, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Do `work` at this interval while batches flow."""
        self.timer(interval=seconds, name=name)(self._failure.guarded(work))

    async def put(self, batch: Batch) -> None:
        """Hand a batch on; waits until there is room for it."""
        await self._decoder_free.acquire()
        await self._fetched.put(batch)  # type: ignore[arg-type]  # Faust says EventT, and means anything

    def wanted(self) -> bool:
        """Whether a batch would be taken at once."""
        return not self._decoder_free.locked()

    async def _decode_each(self, stream: faust.StreamT[Batch]) -> None:
        async for batch in stream:
            await self._failure.guard(self._decode(batch))
            self._decoder_free.release()

    async def _decode(self, batch: Batch) -> None:
        if (decoded := await self._intake.decode(batch)) is not None:
            await self._ledger_free.acquire()
            await self._decoded.put(decoded)  # type: ignore[arg-type]

    async def _take_each(self, stream: faust.StreamT[DecodedBatch]) -> None:
        async for batch in stream:
            await self._failure.guard(self._intake.take(batch))
            self._ledger_free.release()


@contextlib.asynccontextmanager
async def wire(settings: Settings, contracts: ContractWatch) -> AsyncIterator[Parts]:
    """All parts, made and not started yet; what they hold open is closed at the end.

    Raises BrokerUnreachable, DataDirectoryInUse, ForeignCluster, LedgerError; nothing is changed then.
    """
    choose_allocator()
    async with contextlib.AsyncExitStack() as closing:
        types, clocks, delays, failure = contracts.catalog, Clocks(), Delays(), FirstFailure()
        kafka = settings.kafka_client()
        sources = source_topics(settings.sources, types)
        topics = (*types.topics, *(source.topic for source in sources))
        cluster = await asyncio.to_thread(look_at_broker, settings, clocks)
        clients = Clients(settings)
        closing.push_async_callback(clients.close)
        destinations = await clients.open()
        ledger = await asyncio.to_thread(
            opened_ledger, settings, contracts, cluster, clocks, [d.name for d in destinations]
        )
        closing.push_async_callback(asyncio.to_thread, ledger.close)

        watermarks = watermarks_of(ledger, clocks, fed_by(sources, types))
        health = Health(
            topics, watermarks, load_states(ledger.con), stalled_after=settings.stalled_after,
            give_up_after=settings.give_up_after, steady=clocks.steady(), unmatched_after=settings.unmatched_after,
        )  # fmt: skip
        outbox = LedgerOutbox(ledger)
        firing = FiringAlerts(outbox.firing, lambda: health.hangs, clocks.bound)
        delivery = Delivery(
            outbox, destinations, policy=Policy(page_max_age=settings.page_max_age), firing=firing,
            timing=Timing(clock=clocks.bound), accepted=delays.note,
            catching_up=lambda: sum(watermarks.lag().values()) > settings.batch_records,
            notes=lambda: self_report.notes(contracts, health), outage=lambda: health.outage,
            public_url=settings.public_url or "",
        )  # fmt: skip
        processor = Processor(
            ledger.con, types, settings.data, settings.max_message_bytes, settings.max_series, settings.max_entities,
            sources,
        )  # fmt: skip
        await asyncio.to_thread(processor.remember, ledger.progress(), ledger.reported())
        mend = partial(mend_letters, settings.bootstrap, settings.deadletter_topic, kafka)
        letters = DeadLetters(clients.producer, settings.deadletter_topic, mend)
        intake = Intake(ledger, processor, watermarks, letters, partial(told, delivery), clocks)
        flow = Flow(settings, intake, failure)
        source = BatchSource(
            settings.bootstrap, kafka, topics, ledger.offsets(), ledger.topic_ids(), put=flow.put,
            wanted=flow.wanted, assigned=watermarks.assign,
            met=lambda ids: intake.with_ledger(ledger.bind_topics, ids),
            answered=lambda ends: watermarks.answered(ends, clocks.steady()), guard=failure.guard, clocks=clocks,
            max_records=settings.batch_records, max_bytes=settings.batch_bytes, linger=settings.batch_linger,
            apart=[source.topic for source in sources],
        )  # fmt: skip
        own = OwnAlerts(
            lambda states, changes: intake.with_ledger(ledger.record_own, states, changes, clocks.bound()),
            firing, delivery, settings.data,
        )  # fmt: skip
        housekeeper = Housekeeper(
            ledger, settings.seal_every, lambda: self_report.pulse(watermarks, intake, delays, health),
            Keep(raw=settings.keep_raw_days * DAY), settings.publish_every,
        )  # fmt: skip
        beside, status_file = Servers(servers(settings)), StatusFile(settings.data)
        live = partial(
            self_report.live_status, settings.bootstrap, contracts, clocks, source, watermarks, intake, ledger, delays,
            health, housekeeper, beside,
        )  # fmt: skip
        yield Parts(
            settings=settings, contracts=contracts, clocks=clocks, failure=failure, source=source, flow=flow,
            intake=intake, ledger=ledger, delivery=delivery, delays=delays, health=health, own=own,
            housekeeper=housekeeper, status=OwnStatus(ledger, status_file, live, clocks.own), status_file=status_file,
            servers=beside,
        )  # fmt: skip


def run(settings: Settings) -> None:
    """Run the pipeline until SIGTERM or SIGINT.  Raises GigawatchError."""
    files.private_from_now_on()
    if settings.security_protocol == "SASL_PLAINTEXT":
        log.warning(
            "SASL without TLS: whoever listens on the way reads the records, and the password of mechanism PLAIN; "
            "security_protocol SASL_SSL protects both"
        )
    # Contracts are read before there is a loop: until then a signal ends us at once, as nothing is open yet.
    contracts = ContractWatch(settings.contract, catalog.load(settings.schemas))
    asyncio.run(until_signal(partial(run_wired, settings, contracts)))


async def run_wired(settings: Settings, contracts: ContractWatch, stop: asyncio.Event) -> None:
    """Run until `stop` is set: then finish the batch, seal, publish and close.  Raises what went wrong."""
    try:
        async with wire(settings, contracts) as parts:
            await run_until(parts, stop)
    except duckdb.Error as error:
        raise files.damaged(settings.data, error) from error
