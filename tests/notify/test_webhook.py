from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime

import httpx
import pytest

from pipeline.notify.alertmanager import Alertmanager
from pipeline.notify.destination import DeliveryRefused, NotAccepted
from pipeline.notify.webhook import Webhook, authorization, body_of
from pipeline.notify.wire_text import ZERO_TIME, fingerprint
from pipeline.rules.alert_message import AlertMessage

Change = Callable[..., AlertMessage]


def test_the_body_is_alertmanagers_version_4(change: Change) -> None:
    firing = change("a", at=1000.0, annotations={"runbook": "r", "text": "a"}, generator_url="http://noc/1")
    resolved = change("b", "resolved", at=2000.0, fired_at=1500.0, annotations={"runbook": "r", "text": "b"})
    body = body_of([firing, resolved], "webhook", "http://noc")
    first, second = body.pop("alerts")
    assert body == {
        "receiver": "webhook",
        "status": "firing",
        "groupLabels": {"alertname": "CapacityShortfall", "contract": "azure"},
        "commonLabels": {
            "alertname": "CapacityShortfall", "contract": "azure", "clause": "floor", "severity": "page",
        },
        "commonAnnotations": {"runbook": "r"},
        "externalURL": "http://noc",
        "version": "4",
        "groupKey": '{}:{alertname="CapacityShortfall", contract="azure"}',
        "truncatedAlerts": 0,
    }  # fmt: skip
    assert first == {
        "status": "firing",
        "labels": {**firing.labels, "alertname": "CapacityShortfall"},
        "annotations": {"runbook": "r", "text": "a"},
        "startsAt": "1970-01-01T00:16:40.000Z",
        "endsAt": ZERO_TIME,
        "generatorURL": "http://noc/1",
        "fingerprint": fingerprint({**firing.labels, "alertname": "CapacityShortfall"}),
    }
    assert (second["status"], second["startsAt"], second["endsAt"]) == (
        "resolved", "1970-01-01T00:25:00.000Z", "1970-01-01T00:33:20.000Z",
    )  # fmt: skip


def test_the_body_agrees_with_the_one_that_alertmanager_itself_sends(
    alertmanager_factory, receiver, change, until
) -> None:
    """A real Alertmanager is pointed at the receiver, and given the alert that we render."""

    async def scenario() -> None:
        async with receiver() as hook, httpx.AsyncClient(trust_env=False) as client:
            am = alertmanager_factory(
                "route: {receiver: hook, group_by: [alertname, contract], group_wait: 0s}\n"
                f"receivers: [{{name: hook, webhook_configs: [{{url: '{hook.url}'}}]}}]\n"
            )
            fired = change("a", annotations={"text": "a"}, generator_url="http://noc/1")
            await Alertmanager(am.url, client).send([fired], fired.changed_at + 1)
            await until(lambda: len(hook.accepted) > 0)
            theirs = hook.accepted[0]
        ours = body_of([fired], "hook", theirs["externalURL"])
        assert datetime.fromisoformat(theirs["alerts"][0]["startsAt"]) == datetime.fromisoformat(
            ours["alerts"][0]["startsAt"]
        )
        theirs["alerts"][0]["startsAt"] = ours["alerts"][0]["startsAt"]
        assert theirs == ours

    asyncio.run(scenario())


def test_a_changed_label_set_is_one_resolved_and_one_firing_alert(change: Change) -> None:
    body = body_of(
        [change(labels={"severity": "page"}, previous_labels={"severity": "ticket"})], "webhook", ""
    )
    assert [(a["labels"]["severity"], a["status"]) for a in body["alerts"]] == [
        ("ticket", "resolved"),
        ("page", "firing"),
    ]


def test_an_all_clear_is_resolved(change: Change) -> None:
    assert body_of([change(state="resolved")], "webhook", "")["status"] == "resolved"


def posted(receiver, word: str, change: Change, **more: object) -> object:
    async def scenario() -> object:
        async with receiver() as hook, httpx.AsyncClient(trust_env=False) as client:
            hook.otherwise = word
            destination = Webhook(f"{hook.url}?token=secret", client, timeout=0.3, **more)
            await destination.send([change()], 0.0)
            return hook.headers[0]

    return asyncio.run(scenario())


@pytest.mark.parametrize(
    "word", ["500", "503", "429", "401", "404", "301", "hang", "reset", "garbage", "drip", "stream", "lost"]
)
def test_an_answer_that_may_be_better_tomorrow_is_to_be_tried_again(
    receiver, change: Change, word: str
) -> None:
    with pytest.raises(NotAccepted) as caught:
        posted(receiver, word, change)
    assert "secret" not in str(caught.value)
    assert "POST http://127.0.0.1" in str(caught.value)


@pytest.mark.parametrize("word", ["400", "413", "422"])
def test_an_answer_about_the_body_itself_is_a_refusal(receiver, change: Change, word: str) -> None:
    with pytest.raises(DeliveryRefused, match=f"HTTP {word}"):
        posted(receiver, word, change)


def test_nobody_listening_is_to_be_tried_again(change: Change) -> None:
    async def scenario() -> None:
        async with httpx.AsyncClient(trust_env=False) as client:
            await Webhook("http://127.0.0.1:9/hook", client).send([change()], 0.0)

    with pytest.raises(NotAccepted, match="ConnectError"):
        asyncio.run(scenario())


def test_a_bearer_token_goes_along(receiver, change: Change) -> None:
    sent = posted(receiver, "ok", change, headers=authorization("token\n"))
    assert sent["authorization"] == "Bearer token"
    assert authorization(None) == {}
