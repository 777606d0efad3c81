"""Against Debian's Alertmanager: what it shows on its own API is what counts."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import SettingsError
from pipeline.notify.alertmanager import ENDS_AT_AHEAD, Alertmanager, alerts_of, bodies
from pipeline.notify.delivery import Delivery
from pipeline.notify.destination import DeliveryRefused
from pipeline.notify.links import anchor_of
from pipeline.notify.post import post_json
from pipeline.notify.wire_text import fingerprint, wire_labels
from pipeline.rules.alert_message import AlertMessage, to_json

Change = Callable[..., AlertMessage]


def epoch(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


async def send(am: Any, *changes: AlertMessage) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        await Alertmanager(am.url, client).send(changes, time.time())


def test_a_firing_alert_is_active_until_the_stated_end_and_carries_what_was_written(
    alertmanager, active, change
) -> None:
    run = uuid.uuid4().hex
    fired = change(
        run, annotations={"text": "a floor", "sql": "SELECT 1\n-- x"}, generator_url="https://noc.example/c/1"
    )
    before = time.time()
    asyncio.run(send(alertmanager, fired))
    (alert,) = active(alertmanager, identity=run)
    assert alert["status"]["state"] in ("active", "unprocessed")
    assert alert["annotations"] == {"text": "a floor", "sql": "SELECT 1\n-- x"}
    assert alert["generatorURL"] == "https://noc.example/c/1"
    assert epoch(alert["startsAt"]) == pytest.approx(fired.fired_at, abs=0.002)
    assert before + ENDS_AT_AHEAD - 1 < epoch(alert["endsAt"]) < time.time() + ENDS_AT_AHEAD + 1
    assert alert["fingerprint"] == fingerprint(wire_labels(fired.labels, fired.alertname))


def test_a_dead_senders_alert_stays_active_until_its_stated_end_and_no_longer(
    alertmanager, active, change, until
) -> None:
    """Sent as by a sender whose clock was such that the stated end is two seconds from now; then silence."""
    run = uuid.uuid4().hex

    async def scenario() -> None:
        async with httpx.AsyncClient(trust_env=False) as client:
            last_word = time.time() - ENDS_AT_AHEAD + 2
            await Alertmanager(alertmanager.url, client).send([change(run, at=last_word - 60)], last_word)
        (alert,) = active(alertmanager, identity=run)
        await until(lambda: not active(alertmanager, identity=run))
        assert time.time() >= epoch(alert["endsAt"])

    asyncio.run(scenario())


def test_a_resolve_is_seen(alertmanager, active, change) -> None:
    run = uuid.uuid4().hex
    asyncio.run(send(alertmanager, change(run)))
    assert active(alertmanager, identity=run)
    asyncio.run(send(alertmanager, change(run, "resolved")))
    assert not active(alertmanager, identity=run)


def test_a_severity_change_inside_a_window_ends_the_old_label_set_and_starts_the_new_in_one_request(
    alertmanager, active, change
) -> None:
    run = uuid.uuid4().hex
    ticket = change(run, labels={"severity": "ticket"})
    page = change(run, labels={"severity": "page"}, previous_labels=ticket.labels)
    asyncio.run(send(alertmanager, ticket))
    assert [a["labels"]["severity"] for a in active(alertmanager, identity=run)] == ["ticket"]
    assert len(list(bodies([page], time.time()))) == 1
    asyncio.run(send(alertmanager, page))
    assert [a["labels"]["severity"] for a in active(alertmanager, identity=run)] == ["page"]
    asyncio.run(send(alertmanager, change(run, "resolved", labels={"severity": "page"})))
    assert not active(alertmanager, identity=run)


def test_hostile_labels_are_accepted(alertmanager, active, change) -> None:
    run = uuid.uuid4().hex
    hostile = {
        "9 lives": "x", "a.b": "1", "a-b": "2", "": "nameless", "ümlaut": "\x00\x1b[2J\r\n", "sql": "'; DROP",
        "html": "<script>alert(1)</script>", "long": "y" * 100_000, "empty": "", "surrogate": "\udcff",
    }  # fmt: skip
    fired = change(run, labels=hostile, annotations={"e": "", "bad name": "\x07"}, generator_url="not a url")
    asyncio.run(send(alertmanager, fired))
    (alert,) = active(alertmanager, identity=run)
    assert alert["labels"]["html"] == "<script>alert(1)</script>"
    assert alert["fingerprint"] == fingerprint(wire_labels(fired.labels, fired.alertname))


def test_a_clock_that_is_wrong_does_not_make_an_alert_unacceptable(alertmanager, active, change) -> None:
    run = uuid.uuid4().hex
    future = time.time() + 3600
    asyncio.run(send(alertmanager, change(run, at=future)))
    assert active(alertmanager, identity=run)
    asyncio.run(
        send(alertmanager, change(run, "resolved", at=future - 10, fired_at=future, changed_at=future))
    )
    assert not active(alertmanager, identity=run)


def test_a_big_batch_goes_in_bodies_of_limited_size_and_arrives_whole(alertmanager, active, change) -> None:
    run = uuid.uuid4().hex
    many = [change(f"{run}-{n}", labels={"run": run}, annotations={"sql": "x" * 4000}) for n in range(400)]
    made = list(bodies(many, time.time()))
    assert len(made) > 1
    assert max(map(len, made)) <= 512 * 1024
    assert sum(len(json.loads(body)) for body in made) == 400
    asyncio.run(send(alertmanager, *many))
    assert len(active(alertmanager, run=run)) == 400


def test_what_belongs_to_one_change_is_never_torn_apart(change) -> None:
    pairs = [
        change(str(n), labels={"severity": "page"}, previous_labels={"severity": "ticket"}) for n in range(5)
    ]
    for body in bodies(pairs, time.time(), limit=10):
        old, new = json.loads(body)
        assert (old["labels"]["severity"], new["labels"]["severity"]) == ("ticket", "page")
        assert epoch(old["endsAt"]) <= time.time() < epoch(new["endsAt"])


def test_a_label_set_that_is_only_respelled_does_not_end(change) -> None:
    same = change(labels={"a.b": "1"}, previous_labels={**change().labels, "a-b": "1"})
    assert len(alerts_of(same, time.time())) == 1


def test_what_alertmanager_cannot_read_is_refused_not_retried(alertmanager) -> None:
    async def scenario() -> None:
        async with httpx.AsyncClient(trust_env=False) as client:
            await post_json(client, f"{alertmanager.url}/api/v2/alerts", b'[{"labels": {}}]')

    with pytest.raises(DeliveryRefused, match="HTTP 400"):
        asyncio.run(scenario())


@pytest.mark.parametrize("url", ["", "localhost:9093", "ftp://x", "http://"])
def test_an_address_that_is_none_is_refused_when_set(url: str) -> None:
    async def scenario() -> None:
        async with httpx.AsyncClient() as client:
            Alertmanager(url, client)

    with pytest.raises(SettingsError, match="expected an address"):
        asyncio.run(scenario())


def test_alertmanager_is_restarted_in_the_middle_and_knows_everything_again(
    alertmanager, active, change, outbox, quick, running, until
) -> None:
    """It forgets alerts when it restarts; what changed meanwhile, and what did not, is there soon after."""
    am, run = alertmanager, uuid.uuid4().hex
    ledger = outbox("alertmanager")

    def seen() -> set[str]:
        return {alert["labels"]["identity"] for alert in active(am, run=run)}

    # Longer than the test waits: what did not change comes back because the outage is over.
    patient = replace(quick, resend_every=3600.0)
    asked: list[list[AlertMessage]] = []

    async def firing() -> list[AlertMessage]:
        asked.append(await ledger.firing())
        return asked[-1]

    async def scenario() -> None:
        async with httpx.AsyncClient(trust_env=False) as client:
            delivery = Delivery(ledger, [Alertmanager(am.url, client)], policy=patient, firing=firing)
            async with running(delivery):
                await until(lambda: asked == [[]])
                ledger.write(*(change(name, labels={"run": run}) for name in ("stays", "ends")))
                delivery.nudge()
                await until(lambda: seen() == {"stays", "ends"})
                am.stop()
                ledger.write(
                    change("ends", "resolved", labels={"run": run}), change("begins", labels={"run": run})
                )
                delivery.nudge()
                await until(lambda: delivery.lanes[0].failing_since is not None)
                assert len(await ledger.undelivered("alertmanager", 10)) == 2
                assert "POST http://127.0.0.1" in (delivery.lanes[0].last_error or "")
                am.start()
                await until(lambda: seen() == {"stays", "begins"})
                await until(lambda: not any(row["delivered"] is None for row in ledger.rows("alertmanager")))

    asyncio.run(scenario())


def test_firing_alerts_are_sent_again_so_that_their_end_moves_on(
    alertmanager, active, change, outbox, quick, running, until
) -> None:
    run = uuid.uuid4().hex
    ledger = outbox("alertmanager")
    card = f"https://noc.example/gw/#{anchor_of('CapacityShortfall', change(run).labels)}"

    def ends() -> list[str]:
        found = active(alertmanager, identity=run)
        assert all(alert["generatorURL"] == card for alert in found), "each time it links to its card"
        return [alert["endsAt"] for alert in found]

    async def scenario() -> None:
        async with httpx.AsyncClient(trust_env=False) as client:
            delivery = Delivery(
                ledger, [Alertmanager(alertmanager.url, client)], policy=quick, firing=ledger.firing,
                public_url="https://noc.example/gw",
            )  # fmt: skip
            ledger.write(change(run))
            async with running(delivery):
                await until(lambda: len(ends()) == 1)
                first = ends()
                await until(lambda: ends() > first)

    asyncio.run(scenario())


def test_an_old_firing_waits_while_the_pipeline_catches_up_and_is_not_sent_again_either(
    alertmanager, active, change, outbox, quick, running, until
) -> None:
    """It may be over a moment later; what was told before the downtime is kept alive meanwhile."""
    run = uuid.uuid4().hex
    ledger = outbox("alertmanager")
    catching_up = [True]

    def seen() -> dict[str, str]:
        return {a["labels"]["identity"]: a["endsAt"] for a in active(alertmanager, run=run)}

    async def scenario() -> None:
        async with httpx.AsyncClient(trust_env=False) as client:
            delivery = Delivery(
                ledger,
                [Alertmanager(alertmanager.url, client)],
                policy=quick,
                firing=ledger.firing,
                catching_up=lambda: catching_up[0],
            )
            old = {"at": time.time() - 7200, "changed_at": time.time(), "labels": {"run": run}}
            ledger.write(change("known", labels={"run": run}), change("old", **old), change("over", **old))
            async with running(delivery):
                await until(lambda: "known" in seen())
                first = seen()["known"]
                await until(lambda: seen()["known"] > first)
                assert seen().keys() == {"known"}
                ledger.write(change("over", "resolved", **{**old, "at": time.time() - 3600}))
                catching_up[0] = False
                await until(lambda: seen().keys() == {"known", "old"})

    asyncio.run(scenario())
    assert "not paged" in ledger.rows("alertmanager")[2]["last_error"]


OPERATIONS = st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["toggle", "relabel"])), max_size=12)
FAULTS = st.lists(st.sampled_from([None, "before", "after", "hang"]), max_size=8)


def history_of(change: Change, run: str, operations: list[tuple[int, str]]) -> list[AlertMessage]:
    """A valid history: fires, changes severity while firing, resolves, fires again."""
    severity: dict[int, str | None] = {}
    changes: list[AlertMessage] = []
    start = time.time() - len(operations) - 1
    for turn, (who, what) in enumerate(operations):
        at, now = start + turn, severity.get(who)
        labels, old = {"run": run}, {"run": run, "severity": now or ""}
        if now is None:
            severity[who] = "ticket"
            changes.append(change(f"{who}", at=at, labels={**labels, "severity": "ticket"}))
        elif what == "toggle":
            severity[who] = None
            changes.append(change(f"{who}", "resolved", at=at, fired_at=at - 1, labels=old))
        else:
            severity[who] = new = "page" if now == "ticket" else "ticket"
            before = change(f"{who}", labels=old).labels
            changes.append(
                change(f"{who}", at=at, labels={**labels, "severity": new}, previous_labels=before)
            )
    return changes


def active_in_the_end(changes: list[AlertMessage]) -> list[tuple[str, str]]:
    newest = {change.identity: change for change in changes}
    return sorted((c.identity, c.labels["severity"]) for c in newest.values() if c.firing)


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(operations=OPERATIONS, faults=FAULTS, cuts=st.lists(st.integers(0, 12), max_size=3))
def test_whatever_fails_alertmanager_ends_with_the_newest_state_of_each_identity(
    alertmanager, active, change, outbox, quick, running, until, unreliable, operations, faults, cuts
) -> None:
    run = uuid.uuid4().hex
    ledger = outbox(run)
    changes = history_of(change, run, operations)

    async def scenario() -> None:
        async with httpx.AsyncClient(trust_env=False) as client:
            target = unreliable(Alertmanager(alertmanager.url, client, name=run), faults)
            delivery = Delivery(ledger, [target], policy=quick, firing=ledger.firing)
            async with running(delivery):
                start = 0
                for cut in [*sorted(cuts), len(changes)]:
                    ledger.write(*changes[start:cut])
                    start = max(start, cut)
                    delivery.nudge()
                    await asyncio.sleep(0.01)
                await until(lambda: not any(row["delivered"] is None for row in ledger.rows(run)))
                seen = [
                    (a["labels"]["identity"], a["labels"]["severity"]) for a in active(alertmanager, run=run)
                ]
                assert sorted(seen) == active_in_the_end(changes)

    asyncio.run(scenario())
    assert [row["body"] for row in ledger.rows(run)] == [to_json(c) for c in changes]
