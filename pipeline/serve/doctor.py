"""`gigawatch doctor`: everything that a new user stumbles over, looked at once, and what to do about it.

Nothing is changed, nothing is written to Kafka, nobody is paged.  What looks is beside it: `doctor_machine.py`
(versions, ports, disk, contract, data directory), `doctor_kafka.py` (broker, topics, clock),
`doctor_receivers.py` (who is called, who watches).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from pipeline import catalog
from pipeline.errors import GigawatchError
from pipeline.ledger import status
from pipeline.serve import doctor_kafka, doctor_machine, doctor_receivers
from pipeline.serve.findings import Finding, fail
from pipeline.serve.servers import split_address
from pipeline.settings import Settings

Check = Callable[[], Iterable[Finding]]


def checks(settings: Settings, grafana: str | None = None) -> Iterator[tuple[str, Check]]:
    """Every check under its name, in the order in which a start would meet the faults."""
    running = status.writer_of(settings.data) is not None
    yield "versions", doctor_machine.versions
    for what, address in (("the board", settings.board), ("the SQL door", settings.door)):
        if address:
            yield "ports", partial(doctor_machine.port, what, *split_address(address), running)
    yield "disk", partial(doctor_machine.disk, settings.data)
    yield "contract", lambda: doctor_machine.contract(settings.contract, settings.schemas, time.time())
    yield "data", lambda: doctor_machine.directory(settings.data, time.time(), settings.schemas)
    yield (
        "contract",
        lambda: doctor_machine.matches(settings.data, settings.contract, settings.schemas, time.time()),
    )
    yield "broker", lambda: _broker(settings)
    yield (
        "receivers",
        partial(doctor_receivers.called, settings.alertmanager, settings.webhook, settings.alerts_topic),
    )
    if settings.alertmanager:
        yield "alertmanager", partial(doctor_receivers.alertmanager, settings.alertmanager)
    if settings.webhook:
        yield "webhook", partial(doctor_receivers.webhook, settings.webhook, settings.webhook_token_file)
    if grafana:
        yield "grafana", partial(doctor_receivers.grafana, grafana)


def _broker(settings: Settings) -> Iterator[Finding]:
    return doctor_kafka.broker(
        settings.bootstrap, settings.kafka_client(), catalog.load(settings.schemas).topics,
        settings.deadletter_topic, settings.alerts_topic, settings.max_message_bytes,
        written_from=doctor_machine.ledger_cluster(settings.data), now=time.time(),
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
