"""The delivery as a whole, over a real outbox in DuckDB and real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.notify.delivery import Delivery
from pipeline.notify.policy import Policy
from pipeline.notify.webhook import Webhook
from pipeline.rules.alert_message import AlertMessage, from_json
from tests.patience import PATIENCE

Change = Callable[..., AlertMessage]


@contextlib.asynccontextmanager
async def hooks(receiver, *names: str, timeout: float = 0.3):
    """Receivers by these names, and the destinations that post to them."""
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(httpx.AsyncClient(trust_env=False))
        found = [await stack.enter_async_context(receiver()) for _ in names]
        yield (
            found,
            [Webhook(r.url, client, name=n, timeout=timeout) for n, r in zip(names, found, strict=True)],
        )


def settled(ledger: Any, name: str) -> Callable[[], bool]:
    return lambda: all(row["delivered"] is not None for row in ledger.rows(name))


def test_every_alert_links_to_its_card_on_the_board_whatever_its_severity_becomes(
    receiver, outbox, quick, running, until, change
) -> None:
    ledger = outbox("webhook")
    relabelled = change(
        "a", kind="updated", labels={"severity": "critical"}, previous_labels=change("a").labels
    )

    async def scenario() -> None:
        async with receiver() as hook, httpx.AsyncClient(trust_env=False) as client:
            board = "https://noc.example"
            there = Webhook(hook.url, client, external_url=board)
            async with running(Delivery(ledger, [there], policy=quick, public_url=board)) as delivery:
                ledger.write(change("a"), relabelled, change("a", "resolved"))
                delivery.nudge()
                await until(settled(ledger, "webhook"))
        assert {body["externalURL"] for body in hook.accepted} == {board}
        alerts = [alert for body in hook.accepted for alert in body["alerts"]]
        assert {alert["labels"]["severity"] for alert in alerts} == {"page", "critical"}
        (card,) = {alert["generatorURL"] for alert in alerts}
        assert re.fullmatch(r"https://noc\.example/#alert-[0-9a-f]{12}", card)

    asyncio.run(scenario())


def test_a_change_is_delivered_once_and_its_acceptance_is_told(
    receiver, outbox, quick, running, until, change
) -> None:
    ledger = outbox("webhook")
    accepted: list[tuple[AlertMessage, float]] = []

    async def scenario() -> None:
        async with hooks(receiver, "webhook") as ([hook], destinations):
            delivery = Delivery(
                ledger, destinations, policy=quick, accepted=lambda *told: accepted.append(told)
            )
            async with running(delivery):
                before = time.time()
                ledger.write(change("a"), change("b"))
                delivery.nudge()
                await until(settled(ledger, "webhook"))
                await asyncio.sleep(3 * quick.idle_poll)
        assert hook.told() == [("a", "firing"), ("b", "firing")]
        assert [told.identity for told, _ in accepted] == ["a", "b"]
        assert all(before <= at <= time.time() for _, at in accepted)

    asyncio.run(scenario())


def test_a_receiver_that_fails_in_every_way_and_comes_back_gets_everything_in_order(
    receiver, outbox, quick, running, until, change
) -> None:
    ledger = outbox("webhook")

    async def scenario() -> None:
        async with hooks(receiver, "webhook") as ([hook], destinations):
            hook.script = ["500", "hang", "reset", "garbage", "drip", "stream", "429", "404", "301"]
            async with running(Delivery(ledger, destinations, policy=quick)):
                ledger.write(change("a"), change("b"))
                ledger.write(change("a", "resolved"))
                await until(settled(ledger, "webhook"))
        assert hook.told().count(("a", "firing")) == hook.told().count(("a", "resolved")) == 1
        assert hook.told().index(("a", "firing")) < hook.told().index(("a", "resolved"))
        assert ("b", "firing") in hook.told()

    asyncio.run(scenario())
    assert ledger.rows("webhook")[0]["attempts"] > 1


def test_a_destination_that_hangs_does_not_hold_up_another(
    receiver, outbox, quick, running, until, change
) -> None:
    ledger = outbox("dead", "alive")
    patient = replace(quick, send_timeout=3600.0)

    async def scenario() -> None:
        async with hooks(receiver, "dead", "alive", timeout=3600.0) as ([dead, alive], destinations):
            dead.otherwise = "hang"
            async with running(Delivery(ledger, destinations, policy=patient)) as delivery:
                for turn in range(5):
                    ledger.write(change(str(turn)))
                    delivery.nudge()
                    await until(lambda turn=turn: (str(turn), "firing") in alive.told())
                await until(settled(ledger, "alive"))
                assert len(await ledger.undelivered("alive", 10)) == 0
                assert len(await ledger.undelivered("dead", 10)) == 5

    asyncio.run(scenario())


def test_what_was_never_delivered_is_visible_with_the_reason(
    receiver, outbox, quick, running, until, change
) -> None:
    ledger = outbox("webhook")

    async def scenario() -> None:
        async with hooks(receiver, "webhook") as ([hook], destinations):
            hook.otherwise = "503"
            async with running(Delivery(ledger, destinations, policy=quick)) as delivery:
                ledger.write(change("a"))
                await until(lambda: hook.requests > 2)
                (lane,) = delivery.lanes
                assert len(await ledger.undelivered("webhook", 10)) == 1
                assert "HTTP 503: such\\x1b[1m" in (lane.last_error or "")
                assert lane.failing_since is not None

    asyncio.run(scenario())
    (row,) = ledger.rows("webhook")
    assert row["attempts"] >= 2
    assert row["delivered"] is None
    assert "HTTP 503" in row["last_error"]


def test_a_change_that_is_refused_is_kept_with_the_reason_and_blocks_nobody(
    receiver, outbox, quick, running, until, change
) -> None:
    ledger = outbox("webhook")

    async def scenario() -> None:
        async with hooks(receiver, "webhook") as ([hook], destinations):
            hook.choke = lambda body: "422" if "poison" in str(body) else None
            async with running(Delivery(ledger, destinations, policy=quick)) as delivery:
                ledger.write(*(change(name) for name in ("a", "b", "poison", "c", "d")))
                ledger.write(change("a", "resolved"))
                await until(lambda: ("a", "resolved") in hook.told())
                await until(lambda: delivery.lanes[0].refused == 1)
        assert sorted(hook.told()) == sorted([(n, "firing") for n in "abcd"] + [("a", "resolved")])

    asyncio.run(scenario())
    refused = [row for row in ledger.rows("webhook") if row["delivered"] is None]
    assert [row["seq"] for row in refused] == [3]
    assert refused[0]["last_error"].startswith("refused: POST")
    assert refused[0]["next_try"].year == 9999


def test_a_change_that_a_receiver_chokes_on_does_not_stand_before_the_others(
    receiver, outbox, quick, running, until, change
) -> None:
    """A 500 may be better tomorrow, so it is tried for ever; but not the whole batch with it."""
    ledger = outbox("webhook")

    async def scenario() -> None:
        async with hooks(receiver, "webhook") as ([hook], destinations):
            hook.choke = lambda body: "500" if "poison" in str(body) else None
            async with running(Delivery(ledger, destinations, policy=quick)):
                ledger.write(*(change(name) for name in ("poison", "a", "b", "c", "d", "e")))
                await until(lambda: {name for name, _ in hook.told()} == set("abcde"))
                hook.choke = lambda body: None
                await until(settled(ledger, "webhook"))

    asyncio.run(scenario())


def test_an_outbox_row_that_cannot_be_read_is_put_aside(
    receiver, outbox, quick, running, until, change
) -> None:
    ledger = outbox("webhook")
    ledger.write_body("webhook", '{"identity": "a", "state": "pending"}')

    async def scenario() -> None:
        async with (
            hooks(receiver, "webhook") as ([hook], destinations),
            running(Delivery(ledger, destinations, policy=quick)),
        ):
            ledger.write(change("b"))
            await until(lambda: hook.told() == [("b", "firing")])

    asyncio.run(scenario())
    assert "is not an alert change" in ledger.rows("webhook")[0]["last_error"]


def test_an_answer_that_is_lost_makes_a_duplicate_of_the_same_identity_not_a_loss(
    receiver, outbox, quick, running, until, change
) -> None:
    ledger = outbox("webhook")

    async def scenario() -> None:
        async with hooks(receiver, "webhook") as ([hook], destinations):
            hook.script = ["lost"]
            async with running(Delivery(ledger, destinations, policy=quick)):
                ledger.write(change("a"))
                await until(settled(ledger, "webhook"))
        first, second = (body["alerts"][0] for body in hook.accepted)
        assert first == second

    asyncio.run(scenario())


def test_nothing_is_lost_when_the_process_dies_between_acceptance_and_mark(
    receiver, outbox, quick, running, until, change
) -> None:
    """The mark is never written; a new process delivers again, and knows that it was tried before."""
    ledger = outbox("webhook")

    class Dying:
        undelivered, firing = ledger.undelivered, ledger.firing

        async def record(self, marks: Any) -> None:
            if any(mark.delivered for mark in marks):
                await asyncio.sleep(3600)
            await ledger.record(marks)

    async def scenario() -> None:
        async with hooks(receiver, "webhook") as ([hook], destinations):
            ledger.write(change("a", at=time.time() - 7200))
            first = asyncio.create_task(Delivery(Dying(), destinations, policy=quick).run())
            await until(lambda: len(hook.accepted) == 1)
            first.cancel()
            await asyncio.wait([first])
            assert ledger.rows("webhook")[0]["attempts"] == 1
            ledger.write(change("a", "resolved", at=time.time() - 3600))
            async with running(Delivery(ledger, destinations, policy=quick)):
                await until(settled(ledger, "webhook"))
        assert hook.told() == [("a", "firing"), ("a", "resolved")]

    asyncio.run(scenario())


def test_after_a_downtime_only_what_still_fires_pages(
    receiver, outbox, quick, running, until, change
) -> None:
    ledger = outbox("webhook")
    long_ago = time.time() - 7200
    ledger.write(change("over", at=long_ago), change("over", "resolved", at=long_ago + 60))
    ledger.write(change("still", at=long_ago))

    async def scenario() -> None:
        async with hooks(receiver, "webhook") as ([hook], destinations):
            delivery = Delivery(ledger, destinations, policy=quick)
            async with running(delivery):
                await until(settled(ledger, "webhook"))
            assert hook.told() == [("still", "firing")]

    asyncio.run(scenario())
    assert "not paged" in ledger.rows("webhook")[0]["last_error"]


def test_the_remarks_of_the_pipeline_stand_on_every_alert(
    receiver, outbox, quick, running, until, change
) -> None:
    ledger = outbox("webhook")

    async def scenario() -> None:
        async with hooks(receiver, "webhook") as ([hook], destinations):
            notes = {"kafka": "the broker does not answer"}
            async with running(Delivery(ledger, destinations, policy=quick, notes=lambda: notes)):
                ledger.write(change("a"))
                await until(settled(ledger, "webhook"))
        assert hook.accepted[0]["alerts"][0]["annotations"] == notes

    asyncio.run(scenario())


def test_a_receiver_that_is_told_at_the_second_try_is_told_the_present_value_beside_the_one_at_firing(
    receiver, outbox, quick, running, until, change
) -> None:
    ledger = outbox("webhook")

    async def scenario() -> None:
        async with hooks(receiver, "webhook") as ([hook], destinations):
            hook.script = ["500"]
            fired = replace_notes(change("a"), observed="1,208")
            ledger.write(fired)
            ledger.live[fired.identity] = replace_notes(fired, observed="1,208", now="1,100 GPUs at 10:00")
            async with running(Delivery(ledger, destinations, policy=quick, firing=ledger.firing)):
                await until(settled(ledger, "webhook"))
        (told,) = hook.accepted
        assert told["alerts"][0]["annotations"] == {"observed": "1,208", "now": "1,100 GPUs at 10:00"}

    asyncio.run(scenario())


def replace_notes(change: AlertMessage, **notes: str) -> AlertMessage:
    return msgspec.structs.replace(change, annotations=notes)


def test_a_stop_does_not_wait_for_a_destination_that_hangs_and_loses_nothing(
    receiver, outbox, quick, until, change
) -> None:
    ledger = outbox("webhook")
    policy = replace(quick, send_timeout=3600.0, stop_grace=0.1)

    async def scenario() -> None:
        async with hooks(receiver, "webhook", timeout=3600.0) as ([hook], destinations):
            hook.otherwise = "hang"
            ledger.write(change("a"))
            delivery = Delivery(ledger, destinations, policy=policy)
            task = asyncio.create_task(delivery.run())
            await until(lambda: hook.requests == 1)
            delivery.stop()
            await asyncio.wait_for(task, PATIENCE)
            assert len(asyncio.all_tasks()) <= 2 + hook.requests

    asyncio.run(scenario())
    assert ledger.rows("webhook")[0]["delivered"] is None


def test_a_stop_while_idle_ends_every_wait(receiver, outbox, until) -> None:
    async def scenario() -> None:
        async with hooks(receiver, "a", "b") as (_, destinations):
            delivery = Delivery(
                outbox("a", "b"), destinations, policy=Policy(idle_poll=3600.0, stop_grace=3600.0)
            )
            task = asyncio.create_task(delivery.run())
            await asyncio.sleep(0.05)
            delivery.stop()
            await asyncio.wait_for(task, PATIENCE)

    asyncio.run(scenario())


def test_two_destinations_need_two_names(outbox, receiver) -> None:
    async def scenario() -> None:
        async with hooks(receiver, "same", "same") as (_, destinations):
            Delivery(outbox("same"), destinations)

    with pytest.raises(ValueError, match="names of their own"):
        asyncio.run(scenario())


HISTORY = st.lists(st.integers(0, 3), max_size=14)
WORDS = st.lists(st.sampled_from(["ok", "500", "reset", "garbage", "lost", "hang", "429"]), max_size=10)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(history=HISTORY, left=WORDS, right=WORDS)
def test_whatever_fails_each_receiver_is_told_every_change_of_an_identity_in_order(
    receiver, outbox, quick, running, until, change, tmp_path, history, left, right
) -> None:
    """Repeats of what was just told are allowed (an answer was lost); gaps and overtaking are not."""
    suffix = f"{time.monotonic_ns()}"
    names = [f"left{suffix}", f"right{suffix}"]
    ledger = outbox(*names)
    fires: dict[int, bool] = {}
    changes = []
    for who in history:
        fires[who] = not fires.get(who, False)
        changes.append(change(str(who), "firing" if fires[who] else "resolved"))

    async def scenario() -> None:
        async with hooks(receiver, *names, timeout=0.15) as (found, destinations):
            found[0].script, found[1].script = list(left), list(right)
            async with running(Delivery(ledger, destinations, policy=quick)) as delivery:
                for one in changes:
                    ledger.write(one)
                    delivery.nudge()
                    await asyncio.sleep(0.001)
                for name in names:
                    await until(settled(ledger, name))
            for hook in found:
                for who in set(history):
                    told = [status for identity, status in hook.told() if identity == str(who)]
                    without_repeats = [s for n, s in enumerate(told) if n == 0 or told[n - 1] != s]
                    assert without_repeats == [c.state for c in changes if c.identity == str(who)]

    asyncio.run(scenario())
    assert [from_json(row["body"]) for row in ledger.rows(names[0])] == changes
