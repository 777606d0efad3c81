"""What the rules decided, as the change that goes out: the one place where the two rooms' types meet."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from pipeline.notify.message import AlertChange, to_json
from pipeline.rules import alerts

# What an alert's `generatorURL` can point to depends on where Gigawatch is served: the caller knows.
LinkTo = Callable[[alerts.AlertState], str]


def no_link(state: alerts.AlertState) -> str:
    """For a pipeline that nobody serves."""
    return ""


def _change(state: alerts.AlertState, changed_at: float, link: LinkTo) -> AlertChange:
    return AlertChange(
        identity=state.identity,
        alertname=state.alertname,
        labels=dict(state.labels),
        annotations=dict(state.annotations),
        state="resolved" if state.phase == "resolved" else "firing",
        active_at=state.active_at,
        fired_at=state.fired_at,
        resolved_at=state.resolved_at,
        generator_url=link(state),
        changed_at=changed_at,
    )


def outgoing(change: alerts.AlertChange, changed_at: float, link: LinkTo = no_link) -> AlertChange | None:
    """The change for the outbox, decided at wall clock `changed_at`; None for what calls for no message.

    That is: pending and what came of it, and a firing alert that only became stale, fresh or measured by
    another bound with the same labels.  Those new annotations reach Alertmanager with the next re-send; a
    webhook is not called for them.
    """
    if change.state.phase not in ("firing", "resolved"):
        return None
    if change.kind in ("firing", "resolved"):
        return _change(change.state, changed_at, link)
    if not change.relabelled:
        return None
    before = dict(change.old_labels or ())
    return msgspec.structs.replace(_change(change.state, changed_at, link), previous_labels=before)


def outbox_bodies(
    changes: Iterable[alerts.AlertChange], changed_at: float, link: LinkTo = no_link
) -> list[str]:
    """The bodies to write, for each destination, in the transaction that decided the changes."""
    decided = (outgoing(change, changed_at, link) for change in changes)
    return [to_json(change) for change in decided if change is not None]


def firing_set(states: Iterable[alerts.AlertState], link: LinkTo = no_link) -> list[AlertChange]:
    """Of the saved alert states those that fire, as the re-send takes them."""
    return [_change(s, float(s.fired_at or s.active_at), link) for s in states if s.phase == "firing"]
