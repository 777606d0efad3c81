"""Alertmanager, by `POST /api/v2/alerts`.

An alert there *is* its label set, and lives until the `endsAt` of its last post.  So a firing alert is posted
again at least every minute with an `endsAt` a few minutes ahead, a resolved one with an `endsAt` in the past,
and a changed label set as two alerts in one request: the old one ended, the new one started.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import httpx

from pipeline.notify.destination import Habits
from pipeline.notify.post import REQUEST_TIMEOUT, checked_url, post_json
from pipeline.notify.wire_text import rfc3339, wire_annotations, wire_labels, wire_url
from pipeline.rules.alert_message import AlertMessage, Labels

# How far ahead a firing alert's `endsAt` lies: four times the longest re-send interval of 60 s, as in
# Prometheus (rules/manager.go: ValidUntil = ts + 4 * delta).  Three re-sends may be lost before a living
# alert looks resolved; and a dead sender looks like recovery after four minutes, not sooner.
ENDS_AT_AHEAD = 240.0
# Half of the 1 MiB that nginx, the proxy most often put before Alertmanager, takes by default.
MAX_BODY_BYTES = 512 * 1024

WireAlert = dict[str, Any]


def _alert(labels: Labels, change: AlertMessage, ends_at: float, now: float) -> WireAlert:
    """Alertmanager refuses an `endsAt` before its `startsAt`, so a start never lies after now or the end."""
    starts_at = min(change.started_at, now, ends_at)
    alert: WireAlert = {
        "labels": wire_labels(labels, change.alertname),
        "annotations": wire_annotations(change.annotations),
        "startsAt": rfc3339(starts_at),
        "endsAt": rfc3339(ends_at),
    }
    if url := wire_url(change.generator_url):
        alert["generatorURL"] = url
    return alert


def alerts_of(change: AlertMessage, now: float) -> list[WireAlert]:
    """What must stand in one request for a change: the ended label sets first, then its own.

    A label set ends when the change happened, or now if that is sooner (an `endsAt` in the future is still
    active).  One that was only respelled by `wire_labels` is the same alert and does not end.
    """
    past = min(change.happened_at, now)
    own = _alert(change.labels, change, now + ENDS_AT_AHEAD if change.firing else past, now)
    ended = [_alert(labels, change, past, now) for labels in change.ending()]
    return [*(alert for alert in ended if alert["labels"] != own["labels"]), own]


def bodies(changes: Sequence[AlertMessage], now: float, limit: int = MAX_BODY_BYTES) -> Iterator[bytes]:
    """Request bodies of at most `limit` bytes; what belongs to one change is never torn apart.

    (A single change larger than `limit` is a body of its own; `wire` bounds every value, so it stays small.)
    """
    waiting: list[bytes] = []
    size = 2
    for change in changes:
        part = b",".join(json.dumps(alert, ensure_ascii=False).encode() for alert in alerts_of(change, now))
        if waiting and size + len(part) + 1 > limit:
            yield b"[" + b",".join(waiting) + b"]"
            waiting, size = [], 2
        waiting.append(part)
        size += len(part) + 1
    if waiting:
        yield b"[" + b",".join(waiting) + b"]"


class Alertmanager:
    """A destination: one Alertmanager, or one member of a cluster of them (each gets every alert).

    `url` is its root, without `/api/v2`.  Raises SettingsError when that is not an http(s) address.
    """

    habits = Habits(keeps_state=True, resends=True, batch=512)

    def __init__(
        self,
        url: str,
        client: httpx.AsyncClient,
        *,
        name: str = "alertmanager",
        timeout: float = REQUEST_TIMEOUT,
    ) -> None:
        self.name = name
        self._url = f"{checked_url(url, 'alertmanager')}/api/v2/alerts"
        self._client = client
        self._timeout = timeout

    async def send(self, changes: Sequence[AlertMessage], now: float) -> None:
        """Post them all; a failure leaves earlier bodies accepted, and posting those again does no harm."""
        for body in bodies(changes, now):
            await post_json(self._client, self._url, body, timeout=self._timeout)
