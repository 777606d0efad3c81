"""Where the demo's alerts go: a webhook on the loopback that speaks Alertmanager's body, version "4".

It is a receiver like a pager's: the pipeline, a process of its own, posts to it as it would to any other.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

HOST = "127.0.0.1"
BODY_LIMIT = 16 * 2**20


@dataclass(frozen=True, slots=True)
class ReceivedAlert:
    """One alert of one request; `received_at` is wall clock, `happened_at` when it fired or resolved, in event
    time; both epoch seconds."""

    received_at: float
    status: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    happened_at: float

    @property
    def alertname(self) -> str:
        return self.labels.get("alertname", "")

    def is_of(self, labels: Mapping[str, str]) -> bool:
        """Whether it is about the alert with these labels, whatever its severity at the time."""
        return _without_severity(self.labels) == _without_severity(labels)


def _without_severity(labels: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in labels.items() if name != "severity"}


class Receiver:
    """Listens while the `with` lasts; `deliveries` grows as alerts arrive, `heard` is told of each."""

    def __init__(self, heard: Callable[[ReceivedAlert], None] | None = None) -> None:
        self.deliveries: list[ReceivedAlert] = []
        self._heard = heard
        self._server = ThreadingHTTPServer((HOST, 0), self._request_class())
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.2}, name="receiver", daemon=True
        )

    @property
    def url(self) -> str:
        """Where to post."""
        return f"http://{HOST}:{self._server.server_address[1]}/alerts"

    def __enter__(self) -> Receiver:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def take(self, body: Mapping[str, Any]) -> None:
        """Note every alert of a body."""
        now = time.time()
        for alert in body["alerts"]:
            at = datetime.fromisoformat(alert["startsAt" if alert["status"] == "firing" else "endsAt"])
            found = ReceivedAlert(now, alert["status"], alert["labels"], alert["annotations"], at.timestamp())
            self.deliveries.append(found)
            if self._heard:
                self._heard(found)

    def _request_class(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Request(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.send_response(self._taken())
                self.send_header("content-length", "0")
                self.end_headers()

            def _taken(self) -> int:
                length = int(self.headers.get("content-length") or 0)
                if length > BODY_LIMIT:
                    return 413
                try:
                    receiver.take(json.loads(self.rfile.read(length)))
                except (ValueError, KeyError, TypeError):
                    return 400
                return 200

            def log_message(self, format: str, *args: object) -> None:
                """Silent: the screen belongs to the demo."""

        return Request
