"""`gigawatch doctor`: everything that a new user stumbles over, looked at once, and what to do about it.

Nothing is changed, nothing is written to Kafka, nobody is paged.  What looks is beside it: `machine_checks.py`
(versions, ports, disk, contract, data directory), `kafka_checks.py` (broker, topics, clock),
`receiver_checks.py` (who is called, who watches).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from pipeline import catalog
from pipeline.doctor import kafka_checks, machine_checks, receiver_checks
from pipeline.doctor.findings import Finding, fail, ok
from pipeline.errors import GigawatchError
from pipeline.ledger import status
from pipeline.serve.supervisor import split_address
from pipeline.settings import Settings
from pipeline.stream.source_topics import source_topics

Check = Callable[[], Iterable[Finding]]


def checks(settings: Settings, grafana: str | None = None) -> Iterator[tuple[str, Check]]:
    """Every check under its name, in the order in which a start would meet the faults."""
    running = status.writer_of(settings.data) is not None
    yield "versions", machine_checks.versions
    for what, address in (("the board", settings.board), ("the SQL door", settings.door)):
        if address:
            yield "ports", partial(machine_checks.port, what, *split_address(address), running)
    yield "disk", partial(machine_checks.disk, settings.data)
    yield "contract", lambda: machine_checks.contract(settings.contract, settings.schemas, time.time())
    yield "data", lambda: machine_checks.directory(settings.data, time.time(), settings.schemas)
    yield (
        "contract",
        lambda: machine_checks.matches(settings.data, settings.contract, settings.schemas, time.time()),
    )
    if settings.sources:
        yield "sources", lambda: _sources(settings)
    yield "broker", lambda: _broker(settings)
    yield (
        "receivers",
        partial(receiver_checks.called, settings.alertmanager, settings.webhook, settings.alerts_topic),
    )
    if settings.alertmanager:
        yield "alertmanager", partial(receiver_checks.alertmanager, settings.alertmanager)
    if settings.webhook:
        yield "webhook", partial(receiver_checks.webhook, settings.webhook, settings.webhook_token_file)
    if grafana:
        yield "grafana", partial(receiver_checks.grafana, grafana)


def _sources(settings: Settings) -> Iterator[Finding]:
    """How each source is read.  Raises SettingsError and MappingError."""
    for source in source_topics(settings.sources, catalog.load(settings.schemas)):
        becomes = ", ".join(event.topic for event in source.events)
        yield ok("sources", f"{source.topic}: {source.format} becomes {becomes}")


def _broker(settings: Settings) -> Iterator[Finding]:
    return kafka_checks.broker(
        settings.bootstrap, settings.kafka_client(), catalog.load(settings.schemas).topics,
        settings.deadletter_topic, settings.alerts_topic, settings.max_message_bytes,
        sources=[source.topic for source in settings.sources],
        written_from=machine_checks.ledger_cluster(settings.data), now=time.time(),
    )  # fmt: skip


def examine(wanted: Iterable[tuple[str, Check]]) -> Iterator[Finding]:
    """The findings of every check, in order; an error that one raises is its finding.

    The errors of this project end with how to mend it, after a semicolon.
    """
    for name, look in wanted:
        try:
            yield from look()
        except GigawatchError as error:
            found, mended, remedy = str(error).rpartition("; ")
            yield fail(name, found, remedy) if mended else fail(name, remedy, "mend what it names")
