"""An alert change as the outbox carries it: one value, read from JSON, before any destination's wire form.

Only *firing* and *resolved* go out; a pending alert is nobody's business yet, and a body that says so is
refused when it is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from pipeline.errors import GigawatchError

Labels = Mapping[str, str]


class AlertChange(msgspec.Struct, frozen=True, kw_only=True):
    """One state change of one alert.

    `identity` is alertname, contract, clause and the `by` values: the same for every duplicate and every
    label set of the alert.  `active_at`, `fired_at` and `resolved_at` are event time, `changed_at` is the
    wall clock when it was decided; all in epoch seconds, UTC.  `previous_labels` is the label set that ends
    with this change (a severity or route that changes inside a named window); `ended_labels` are further ones
    that end with it, because the changes that ended them were superseded on their way (see `fold`).

    `kind` is what the alert's state machine called the change (`firing`, `updated`, `stale`, `fresh`,
    `resolved`; empty when not known): several of them leave the alert firing.
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


_decode = msgspec.json.Decoder(AlertChange, strict=False).decode
_encode = msgspec.json.Encoder(order="deterministic").encode


def from_json(body: str | bytes) -> AlertChange:
    """Read an outbox body.  Raises UnreadableChange with the path of the first fault."""
    try:
        return _decode(body)
    except (msgspec.DecodeError, UnicodeError) as fault:
        shown = body[:120] if isinstance(body, str) else body[:120].decode(errors="replace")
        raise UnreadableChange(
            f"outbox body is not an alert change: {fault}; found {shown!r}; it needs identity, alertname, "
            "labels, state (firing or resolved) and changed_at"
        ) from None


def to_json(change: AlertChange) -> str:
    """The body for the outbox; `from_json(to_json(c)) == c`, equal changes give equal text."""
    return _encode(change).decode()


def fold(changes: Sequence[AlertChange]) -> AlertChange:
    """The newest of several changes of one identity, oldest first, which also ends what the others began.

    Delivering the fold to a destination that keeps states leaves it as delivering each of them would.
    """
    newest = changes[-1]
    if len(changes) == 1:
        return newest
    earlier = [labels for c in changes[:-1] for labels in (*c.ending(), c.labels)]
    return msgspec.structs.replace(newest, ended_labels=(*newest.ended_labels, *earlier))


def annotate(change: AlertChange, notes: Mapping[str, str]) -> AlertChange:
    """The same change with the pipeline's own remarks added; they never replace one of the clause."""
    if not notes:
        return change
    return msgspec.structs.replace(change, annotations={**notes, **change.annotations})


PRESENT = ("now", "missing", "worst", "meters", "at_risk")
"""Annotations that say how an alert stands when it is told, not when it fired."""


def present(change: AlertChange, firing: AlertChange | None) -> AlertChange:
    """The same change with what the `firing` alert of its identity says of now, if there is one."""
    if firing is None or not change.firing:
        return change
    now = {name: firing.annotations[name] for name in PRESENT if name in firing.annotations}
    return msgspec.structs.replace(change, annotations={**change.annotations, **now})
