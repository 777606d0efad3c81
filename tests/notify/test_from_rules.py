from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.notify.from_rules import firing_set, outbox_bodies, outgoing
from pipeline.notify.message import from_json
from pipeline.rules.alerts import AlertChange, AlertState

TICKET = (("alertname", "CapacityShortfall"), ("severity", "ticket"))
PAGE = (("alertname", "CapacityShortfall"), ("severity", "page"))
FIRING = AlertState(
    alertname="CapacityShortfall",
    contract="azure",
    clause="floor",
    by=(("region", "westeurope"),),
    phase="firing",
    active_at=1000,
    fired_at=1060,
    labels=TICKET,
    severity="ticket",
    bound=8.0,
    unit="gpus",
    annotations={"text": "a floor"},
)


def test_a_firing_alert_goes_out_with_all_that_it_knows() -> None:
    sent = outgoing(AlertChange("firing", 1060, FIRING), 1075.5, lambda state: f"http://noc/{state.clause}")
    assert sent is not None
    assert sent.identity == FIRING.identity
    assert sent.labels == {"alertname": "CapacityShortfall", "severity": "ticket"}
    assert sent.annotations == {"text": "a floor"}
    assert (sent.state, sent.active_at, sent.fired_at, sent.changed_at) == ("firing", 1000, 1060, 1075.5)
    assert sent.generator_url == "http://noc/floor"


def test_a_severity_change_says_which_label_set_it_ends() -> None:
    sent = outgoing(
        AlertChange("updated", 1100, replace(FIRING, labels=PAGE, severity="page"), TICKET), 1101.0
    )
    assert sent is not None
    assert (sent.state, sent.labels["severity"]) == ("firing", "page")
    assert sent.previous_labels == dict(TICKET)


def test_a_resolve_carries_its_instant() -> None:
    over = replace(FIRING, phase="resolved", resolved_at=1200)
    sent = outgoing(AlertChange("resolved", 1200, over), 1201.0)
    assert sent is not None
    assert (sent.state, sent.resolved_at, sent.happened_at) == ("resolved", 1200, 1200)


@pytest.mark.parametrize(
    "change",
    [
        AlertChange("pending", 1000, replace(FIRING, phase="pending", fired_at=None)),
        AlertChange("inactive", 1010, replace(FIRING, phase="inactive", fired_at=None)),
        AlertChange("stale", 1100, replace(FIRING, stale=True)),
        AlertChange("fresh", 1110, FIRING),
        AlertChange("updated", 1100, replace(FIRING, bound=9.0), TICKET),
    ],
    ids=lambda change: change.kind,
)
def test_what_calls_nobody_is_not_in_the_outbox(change: AlertChange) -> None:
    assert outbox_bodies([change], 1200.0) == []


def test_bodies_are_read_back_as_they_were_decided() -> None:
    (body,) = outbox_bodies([AlertChange("firing", 1060, FIRING)], 1075.0)
    assert from_json(body) == outgoing(AlertChange("firing", 1060, FIRING), 1075.0)


def test_only_what_fires_is_sent_again() -> None:
    (again,) = firing_set([FIRING, replace(FIRING, phase="pending", fired_at=None)])
    assert (again.identity, again.state, again.started_at) == (FIRING.identity, "firing", 1060)
