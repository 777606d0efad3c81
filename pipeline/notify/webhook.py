"""A generic webhook that speaks Alertmanager's body, version "4", so that its receivers work unchanged.

https://prometheus.io/docs/alerting/latest/configuration/#webhook_config
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from pipeline.notify.destination import Habits
from pipeline.notify.post import REQUEST_TIMEOUT, checked_url, origin, post_json
from pipeline.notify.wire_text import ZERO_TIME, fingerprint, rfc3339, wire_annotations, wire_labels, wire_url
from pipeline.rules.alert_message import AlertMessage, Labels

# Alerts of one group share these; the delivery never mixes groups in one request.
GROUP_BY = ("alertname", "contract")


def _item(labels: Labels, change: AlertMessage, firing: bool) -> dict[str, Any]:
    clean = wire_labels(labels, change.alertname)
    return {
        "status": "firing" if firing else "resolved",
        "labels": clean,
        "annotations": wire_annotations(change.annotations),
        "startsAt": rfc3339(min(change.started_at, change.happened_at)),
        "endsAt": ZERO_TIME if firing else rfc3339(change.happened_at),
        "generatorURL": wire_url(change.generator_url),
        "fingerprint": fingerprint(clean),
    }


def _items(change: AlertMessage) -> list[dict[str, Any]]:
    own = _item(change.labels, change, change.firing)
    ended = [_item(labels, change, False) for labels in change.ending()]
    return [*(item for item in ended if item["fingerprint"] != own["fingerprint"]), own]


def _shared(sets: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """The pairs that stand in every one of the sets."""
    return {k: v for k, v in sets[0].items() if all(other.get(k) == v for other in sets)}


def _quoted(labels: Mapping[str, str]) -> str:
    """A label set as Alertmanager prints it inside a group key: `{a="b", c="d"}`."""
    return (
        "{" + ", ".join(f"{k}={json.dumps(v, ensure_ascii=False)}" for k, v in sorted(labels.items())) + "}"
    )


def body_of(changes: Sequence[AlertMessage], receiver: str, external_url: str) -> dict[str, Any]:
    """The body for one request.  `truncatedAlerts` is always 0: nothing is left out, long lists are split."""
    items = [item for change in changes for item in _items(change)]
    common = _shared([item["labels"] for item in items])
    group = {name: common[name] for name in GROUP_BY if name in common}
    return {
        "receiver": receiver,
        "status": "firing" if any(item["status"] == "firing" for item in items) else "resolved",
        "alerts": items,
        "groupLabels": group,
        "commonLabels": common,
        "commonAnnotations": _shared([item["annotations"] for item in items]),
        "externalURL": external_url,
        "version": "4",
        "groupKey": f"{{}}:{_quoted(group)}",
        "truncatedAlerts": 0,
    }


def authorization(bearer_token: str | None) -> dict[str, str]:
    """The header for a bearer token, if there is one."""
    return {"authorization": f"Bearer {bearer_token.strip()}"} if bearer_token else {}


class Webhook:
    """A destination: one URL that receives every change, in order, grouped by alertname and contract.

    Raises SettingsError when `url` is not an http(s) address.
    """

    habits = Habits(grouped=True, refreshed=False, batch=64)

    def __init__(
        self,
        url: str,
        client: httpx.AsyncClient,
        *,
        name: str = "webhook",
        external_url: str = "",
        headers: dict[str, str] | None = None,
        timeout: float = REQUEST_TIMEOUT,
    ) -> None:
        checked_url(url, "webhook")
        self.name = name
        self._url = url
        self._client = client
        self._external_url = external_url
        self._headers = headers
        self._timeout = timeout

    async def send(self, changes: Sequence[AlertMessage], now: float) -> None:
        """One request for all of them."""
        body = json.dumps(body_of(changes, self.name, self._external_url), ensure_ascii=False).encode()
        await post_json(self._client, self._url, body, self._headers, self._timeout, origin(self._url))
