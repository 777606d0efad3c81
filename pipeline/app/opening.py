"""What is looked at and opened before anything runs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import pyarrow as pa
import structlog

from pipeline.app.contract_watch import ContractWatch
from pipeline.clauses import plan_of
from pipeline.history.recover import recover
from pipeline.ledger.store import Applied, Ledger
from pipeline.notify.delivery import Delivery
from pipeline.notify.own_alerts import take_over
from pipeline.settings import Settings
from pipeline.stream.clocks import Clocks
from pipeline.stream.own_topics import make_own
from pipeline.stream.topic_admin import cluster_and_clock
from pipeline.stream.watermark import Watermarks

log = structlog.get_logger()


def choose_allocator() -> None:
    """Arrow takes its memory from jemalloc where it has one, unless the environment names another.

    Its default, mimalloc, gives pages back between batches; to fault them in again costs 0.3 µs of CPU a sample.
    """
    if "ARROW_DEFAULT_MEMORY_POOL" not in os.environ and "jemalloc" in pa.supported_memory_backends():
        pa.set_memory_pool(pa.jemalloc_memory_pool())


def look_at_broker(settings: Settings, clocks: Clocks) -> str:
    """The cluster's id; its clock is noted, and the topics that are ours are made where they are missing."""
    client = settings.kafka_client()
    cluster, clock = cluster_and_clock(settings.bootstrap, client)
    clocks.heard(clock)
    for wrong in make_own(settings.bootstrap, settings.deadletter_topic, settings.alerts_topic, client):
        log.warning("a topic of our own cannot be written; what has to go there will wait", why=wrong)
    return cluster


def opened_ledger(
    settings: Settings, contracts: ContractWatch, cluster: str, clocks: Clocks, destinations: Sequence[str]
) -> Ledger:
    """The ledger with what a crash left half done completed, of this cluster, judging by these contracts."""
    ledger = Ledger(
        settings.data, contracts.catalog, memory_limit=settings.memory_limit, threads=settings.threads,
        destinations=destinations,
    )  # fmt: skip
    try:
        recover(ledger.cursor(), settings.data, ledger.fence)
        ledger.bind_cluster(cluster)
        take_over(ledger, clocks.bound())
        ledger.use(contracts.current, plan_of(contracts.current, contracts.catalog), clocks.bound())
    except BaseException:
        ledger.close()
        raise
    return ledger


def watermarks_of(ledger: Ledger, clocks: Clocks, fed: Mapping[str, frozenset[str]]) -> Watermarks:
    """The watermarks as the ledger left them; how long each partition has been quiet is told by the clocks."""
    marks = Watermarks(ledger.catalog, fed)
    since = ledger.progress_since()
    for place, offset in ledger.offsets().items():
        reached, at = (_epoch(found) for found in since.get(place, (None, None)))
        gone = None if at is None else max(0.0, clocks.least() - at)
        marks.assign(place, offset, reached, None if gone is None else clocks.steady() - gone)
    return marks


def told(delivery: Delivery, applied: Applied) -> None:
    """A transaction is committed: its alerts are logged, and go out."""
    for change in applied.changes:
        if change.pages:
            log.info(
                "alert", alertname=change.state.alertname, kind=change.kind, clause=change.state.clause,
                by=dict(change.state.by),
            )  # fmt: skip
    if applied.changes:
        delivery.nudge()


def _epoch(at: datetime | None) -> float | None:
    return None if at is None else at.replace(tzinfo=UTC).timestamp()
