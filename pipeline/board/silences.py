"""What Alertmanager says of our alerts: which are silenced, until when, by whom and why, and which are inhibited.

The verdict is Alertmanager's own (API v2: the status of each alert); nothing is matched here.  That it is away is
said on the board, and hides no alert.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from pipeline.board.text import PROSE, short
from pipeline.notify.post import checked_url, shown
from pipeline.notify.wire_text import fingerprint, wire_labels

TIMEOUT = 3.0
LIMIT = 20 * 2**20
"""Bytes of an answer; a receiver with more than that is not ours to read."""
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")


@dataclass(frozen=True, slots=True)
class AlertmanagerSilence:
    """One silence; `until` as RFC 3339."""

    until: str
    by: str
    why: str


@dataclass(frozen=True, slots=True)
class Muted:
    """How one alert stands there."""

    silences: tuple[AlertmanagerSilence, ...] = ()
    inhibited: bool = False

    @property
    def mute(self) -> bool:
        """Whether nobody is called for it."""
        return bool(self.silences) or self.inhibited


@dataclass(frozen=True, slots=True)
class Routing:
    """`address` is empty where no Alertmanager is named; `error` says why it could not be asked;
    `alerts`: those it has, by fingerprint."""

    address: str = ""
    error: str = ""
    alerts: Mapping[str, Muted] = field(default_factory=dict)

    def of(self, labels: Mapping[str, str], alertname: str) -> Muted | None:
        """How an alert with these labels stands; None when it is not there."""
        return self.alerts.get(fingerprint(wire_labels(labels, alertname)))


class AlertmanagerStatus:
    """One that is asked now and then.  Raises SettingsError when `url` is not an http(s) address."""

    def __init__(self, url: str) -> None:
        self._url = checked_url(url, "alertmanager")
        self.address = shown(self._url)
        self._client = httpx.Client(timeout=TIMEOUT, follow_redirects=False)

    def ask(self) -> Routing:
        """Never raises: what went wrong is in the answer."""
        try:
            alerts = self._get("/api/v2/alerts?active=true&silenced=true&inhibited=true&unprocessed=true")
            silences = self._get("/api/v2/silences")
            return Routing(self.address, alerts=muted(alerts, silences))
        except httpx.HTTPStatusError as error:
            return Routing(self.address, f"HTTP {error.response.status_code}")
        except httpx.TimeoutException:
            return Routing(self.address, f"no answer within {TIMEOUT:g} s")
        except (httpx.HTTPError, httpx.StreamError) as error:
            return Routing(self.address, short(f"{type(error).__name__}: {error}", PROSE))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            return Routing(self.address, short(f"its answer is not that of its API v2 ({error})", PROSE))

    def close(self) -> None:
        """Lets go of its connections."""
        self._client.close()

    def _get(self, path: str) -> Any:
        with self._client.stream("GET", f"{self._url}{path}") as answer:
            answer.raise_for_status()
            body = b""
            for piece in answer.iter_bytes():
                body += piece
                if len(body) > LIMIT:
                    raise ValueError(f"more than {LIMIT} bytes")
        return json.loads(body)


def muted(alerts: Sequence[Mapping[str, Any]], silences: Sequence[Mapping[str, Any]]) -> dict[str, Muted]:
    """How each alert stands, by fingerprint, from the two answers of the API."""
    by_id = {str(one["id"]): _silence(one) for one in silences}
    return {str(alert["fingerprint"]): _muted(alert["status"], by_id) for alert in alerts}


def _muted(status: Mapping[str, Any], by_id: Mapping[str, AlertmanagerSilence]) -> Muted:
    silenced = [
        by_id.get(str(one), AlertmanagerSilence("", "", "")) for one in status.get("silencedBy") or ()
    ]
    return Muted(tuple(silenced), bool(status.get("inhibitedBy")))


def _silence(one: Mapping[str, Any]) -> AlertmanagerSilence:
    found = _TIME.match(str(one["endsAt"]))
    return AlertmanagerSilence(
        f"{found[0]}Z" if found else "", short(one["createdBy"]), short(one["comment"], PROSE)
    )
