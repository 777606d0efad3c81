"""From a decision of the rules, through the real ledger, to a receiver."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from pipeline.catalog import load
from pipeline.errors import StaleGeneration
from pipeline.ledger.store import Ledger
from pipeline.notify.alertmanager import Alertmanager
from pipeline.notify.delivery import Delivery
from pipeline.notify.ledger_outbox import WAITING, LedgerOutbox
from pipeline.notify.outbox import NEVER, OutboxUpdate
from pipeline.notify.webhook import Webhook
from pipeline.rules.alerts import AlertChange, AlertState

TICKET = (
    ("alertname", "CapacityShortfall"),
    ("contract", "azure"),
    ("identity", "x"),
    ("severity", "ticket"),
)
PAGE = (*TICKET[:-1], ("severity", "page"))


def firing_state() -> AlertState:
    now = int(time.time()) - 10
    return AlertState(
        alertname="CapacityShortfall", contract="azure", clause="floor",
        by=(("region", "westeurope"),), labels=TICKET,
        phase="firing", active_at=now - 60, fired_at=now, severity="ticket", bound=8.0, unit="gpus",
        annotations={"text": "a floor"},
    )  # fmt: skip


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(tmp_path / "data", load(), destinations=["alertmanager", "webhook"])
    yield opened
    opened.close()


def write(ledger: Ledger, *changes: AlertChange) -> None:
    """What a transaction of the ledger does with the changes that it decides."""
    after = {c.state.identity: None if c.kind == "resolved" else c.state for c in changes}
    ledger.record_own(after, changes, time.time())


def test_what_the_rules_decide_reaches_alertmanager_and_webhook(
    ledger, alertmanager, active, receiver, quick, running, until
) -> None:
    state, outbox = firing_state(), LedgerOutbox(ledger)
    urgent = replace(state, labels=PAGE, severity="page")
    over = replace(urgent, phase="resolved", resolved_at=int(time.time()))

    def seen() -> list[str]:
        return [alert["labels"]["severity"] for alert in active(alertmanager, identity="x")]

    async def scenario() -> None:
        async with receiver() as hook, httpx.AsyncClient(trust_env=False) as client:
            places = [Alertmanager(alertmanager.url, client), Webhook(hook.url, client)]
            async with running(Delivery(outbox, places, policy=quick, firing=outbox.firing)) as delivery:
                for change, expected in (
                    (AlertChange("firing", state.fired_at, state), ["ticket"]),
                    (AlertChange("updated", state.fired_at + 10, urgent, TICKET), ["page"]),
                    (AlertChange("resolved", over.resolved_at, over), []),
                ):
                    await asyncio.to_thread(write, ledger, change)
                    delivery.nudge()
                    await until(lambda expected=expected: seen() == expected)
                await until(lambda: len(hook.told()) == 4)
            told = [(a["labels"]["severity"], a["status"]) for body in hook.accepted for a in body["alerts"]]
        assert told == [
            ("ticket", "firing"),
            ("ticket", "resolved"),
            ("page", "firing"),
            ("page", "resolved"),
        ]
        assert not await outbox.firing()

    asyncio.run(scenario())
    left = ledger.cursor().execute(f"SELECT count(*) FROM outbox WHERE {WAITING}").fetchone()
    assert left == (0,)


def test_a_mark_is_in_the_row_and_a_refused_row_is_not_given_again(ledger) -> None:
    state, outbox = firing_state(), LedgerOutbox(ledger)
    write(ledger, AlertChange("firing", state.fired_at, state))
    (row,) = asyncio.run(outbox.undelivered("webhook", 10))
    assert (row.attempts, row.last_error) == (0, None)
    asyncio.run(outbox.record([OutboxUpdate(row.seq, "webhook", 1, next_try=1e9, last_error="HTTP 503")]))
    (again,) = asyncio.run(outbox.undelivered("webhook", 10))
    assert (again.attempts, again.last_error) == (1, "HTTP 503")
    asyncio.run(
        outbox.record([OutboxUpdate(row.seq, "webhook", 2, next_try=NEVER, last_error="refused: HTTP 400")])
    )
    assert asyncio.run(outbox.undelivered("webhook", 10)) == []
    assert len(asyncio.run(outbox.undelivered("alertmanager", 10))) == 1
    (kept,) = (
        ledger.cursor().execute("SELECT last_error FROM outbox WHERE destination = 'webhook'").fetchall()
    )
    assert kept == ("refused: HTTP 400",)


def test_only_what_fires_is_sent_again(ledger) -> None:
    state = firing_state()
    pending = replace(state, by=(("region", "uksouth"),), phase="pending", fired_at=None)
    write(
        ledger, AlertChange("firing", state.fired_at, state), AlertChange("pending", state.active_at, pending)
    )
    (again,) = asyncio.run(LedgerOutbox(ledger).firing())
    assert (again.identity, again.state, again.labels) == (state.identity, "firing", dict(TICKET))
    assert again.started_at == state.fired_at


def test_marks_are_written_beside_a_ledger_that_goes_on_writing(ledger) -> None:
    """Deliveries mark rows while transactions append new ones: neither loses anything."""
    state, outbox = firing_state(), LedgerOutbox(ledger)
    appending = threading.Thread(
        target=lambda: [write(ledger, AlertChange("firing", state.fired_at, state)) for _ in range(30)]
    )
    appending.start()
    marked = 0
    while appending.is_alive() or asyncio.run(outbox.undelivered("webhook", 10)):
        rows = asyncio.run(outbox.undelivered("webhook", 10))
        asyncio.run(
            outbox.record([OutboxUpdate(row.seq, "webhook", 1, delivered=time.time()) for row in rows])
        )
        marked += len(rows)
    appending.join()
    assert marked == 30
    assert len(asyncio.run(outbox.undelivered("alertmanager", 100))) == 30


def test_a_writer_that_was_taken_over_marks_nothing(ledger) -> None:
    state, outbox = firing_state(), LedgerOutbox(ledger)
    write(ledger, AlertChange("firing", state.fired_at, state))
    ledger.con.execute("UPDATE meta SET value = '99' WHERE key = 'generation'")
    (row,) = asyncio.run(outbox.undelivered("webhook", 10))
    with pytest.raises(StaleGeneration):
        asyncio.run(outbox.record([OutboxUpdate(row.seq, "webhook", 1, delivered=time.time())]))
    assert asyncio.run(outbox.undelivered("webhook", 10)) == [row]
