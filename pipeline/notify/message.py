"""What a destination is told of an alert, when several changes of it wait, or when it stands otherwise by now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from pipeline.rules.alert_message import AlertMessage


def fold(changes: Sequence[AlertMessage]) -> AlertMessage:
    """The newest of several changes of one identity, oldest first, which also ends what the others began.

    Delivering the fold to a destination that keeps states leaves it as delivering each of them would.
    """
    newest = changes[-1]
    if len(changes) == 1:
        return newest
    earlier = [labels for c in changes[:-1] for labels in (*c.ending(), c.labels)]
    return msgspec.structs.replace(newest, ended_labels=(*newest.ended_labels, *earlier))


def annotate(change: AlertMessage, notes: Mapping[str, str]) -> AlertMessage:
    """The same change with the pipeline's own remarks added; they never replace one of the clause."""
    if not notes:
        return change
    return msgspec.structs.replace(change, annotations={**notes, **change.annotations})


PRESENT = ("now", "missing", "worst", "meters", "at_risk")
"""Annotations that say how an alert stands when it is told, not when it fired."""


def present(change: AlertMessage, firing: AlertMessage | None) -> AlertMessage:
    """The same change with what the `firing` alert of its identity says of now, if there is one."""
    if firing is None or not change.firing:
        return change
    now = {name: firing.annotations[name] for name in PRESENT if name in firing.annotations}
    return msgspec.structs.replace(change, annotations={**change.annotations, **now})
