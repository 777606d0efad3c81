"""An alert change as it is told: one value from the verdict to the wire, and its JSON in outbox and topic.

Only *firing* and *resolved* go out; a pending alert is nobody's business yet, and a body that says so is
refused when it is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from pipeline.errors import GigawatchError
from pipeline.rules.alerts import AlertChange

Labels = Mapping[str, str]


class AlertMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One state change of one alert.

    `identity` is alertname, contract, clause and the `by` values: the same for every duplicate and every
    label set of the alert.  `active_at`, `fired_at` and `resolved_at` are event time, `changed_at` is the
    wall clock when it was decided; all in epoch seconds, UTC.  `previous_labels` is the label set that ends
    with this change (a severity or route that changes inside a named window); `ended_labels` are further ones
    that end with it, because the changes that ended them were superseded on their way (see `fold`).

    `kind` is what the alert's state machine called the change (`firing`, `updated`, `stale`, `fresh`,
    `resolved`; empty when not known): several of them leave the alert firing.

    What delays are measured from is for the outbox alone: `appended_at`, when Kafka took the record that moved the
    watermark past the instant, and `due_at`, when the alert had been active for as long as its clause asks.
    """

    identity: str
    alertname: str
    labels: dict[str, str]
    state: Literal["firing", "resolved"]
    annotations: dict[str, str] = {}
    active_at: float | None = None
    fired_at: float | None = None
    resolved_at: float | None = None
    previous_labels: dict[str, str] | None = None
    ended_labels: tuple[dict[str, str], ...] = ()
    generator_url: str = ""
    changed_at: float
    kind: str = ""
    appended_at: float | UnsetType | None = UNSET
    due_at: float | UnsetType | None = UNSET

    @property
    def firing(self) -> bool:
        return self.state == "firing"

    @property
    def begins(self) -> bool:
        """Whether nobody can have heard of the alert before this change."""
        return self.kind == "firing" and not self.ending()

    @property
    def refreshes(self) -> bool:
        """Whether it only says more of an alert that fires on: a reading gone stale, another bound."""
        return self.kind in ("updated", "stale", "fresh") and self.firing and not self.ending()

    @property
    def started_at(self) -> float:
        """When it fired, or the nearest instant known: never later than it was decided or resolved."""
        known = [at for at in (self.fired_at, self.active_at, self.changed_at) if at is not None]
        latest = self.changed_at if self.resolved_at is None else min(self.changed_at, self.resolved_at)
        return min(known[0], latest)

    @property
    def happened_at(self) -> float:
        """The instant in the world that this change is news of; never later than `changed_at`.

        Replaying what was missed during a downtime decides today what happened last night: the age of a
        change counts from last night.  A label change happens when it is decided.
        """
        at = self.resolved_at if not self.firing else None if self.previous_labels else self.fired_at
        return self.changed_at if at is None else min(at, self.changed_at)

    def ending(self) -> tuple[Labels, ...]:
        """The label sets, other than its own, that must no longer be active once this change is delivered."""
        before = (*self.ended_labels, *((self.previous_labels,) if self.previous_labels else ()))
        distinct = {tuple(sorted(labels.items())): labels for labels in before if labels != self.labels}
        return tuple(distinct.values())


class UnreadableChange(GigawatchError):
    """A body in the outbox is not an alert change that may go out."""


_decode = msgspec.json.Decoder(AlertMessage, strict=False).decode
_encode = msgspec.json.Encoder(order="deterministic").encode


def message_of(
    change: AlertChange, now: float, appended_at: float | None = None, notes: Mapping[str, str] | None = None
) -> AlertMessage:
    """What is said of a change that was decided at the wall clock `now`; `notes` say how a firing alert stands now."""
    s = change.state
    known = dict(notes or {}) if s.phase == "firing" else {}
    return AlertMessage(
        identity=s.identity,
        alertname=s.alertname,
        kind=change.kind,
        labels=dict(s.labels),
        state="resolved" if change.kind == "resolved" else "firing",
        annotations={**s.annotations, **known},
        active_at=s.active_at,
        fired_at=s.fired_at,
        resolved_at=s.resolved_at,
        previous_labels=dict(change.old_labels) if change.old_labels and change.relabelled else None,
        changed_at=now,
        appended_at=appended_at,
        due_at=s.active_at + s.hold if change.kind == "firing" else None,
    )


def from_json(body: str | bytes) -> AlertMessage:
    """Read an outbox body.  Raises UnreadableChange with the path of the first fault."""
    try:
        return _decode(body)
    except (msgspec.DecodeError, UnicodeError) as fault:
        shown = body[:120] if isinstance(body, str) else body[:120].decode(errors="replace")
        raise UnreadableChange(
            f"outbox body is not an alert change: {fault}; found {shown!r}; it needs identity, alertname, "
            "labels, state (firing or resolved) and changed_at"
        ) from None


def to_json(change: AlertMessage) -> str:
    """The body for the outbox; `from_json(to_json(c)) == c`, equal changes give equal text."""
    return _encode(change).decode()
