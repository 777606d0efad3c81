"""The scenarios from Kafka to the people: exactly what they promise fires, and every receiver comes to know it."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

import httpx
import pytest

from pipeline.catalog import load
from pipeline.ledger.status import least_watermark
from pipeline.rollup.grid import GRID
from pipeline.simulate import scenarios
from pipeline.simulate.scenarios import Play
from pipeline.simulate.simulator import simulate
from pipeline.views.ready_views import ready_views
from tests.patience import PATIENCE

SPEED = 20.0
"""As the demo plays them: much faster, and an answer of the broker's is older in event time than it may be."""
SETTLED_WITHIN = 20

Identity = tuple[str, str]
"""Alertname and clause: a scenario uses a clause for one place only."""


class Receiver:
    """A webhook that accepts, fails or hangs; `heard` is every alert of every accepted request, in order."""

    def __init__(self) -> None:
        self.mode: Literal["accept", "fail", "hang"] = "accept"
        self.heard: list[dict[str, Any]] = []
        self.turned_away = 0
        self._released = threading.Event()
        receiver = self

        class Request(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if receiver.mode == "hang":
                    receiver.turned_away += 1
                    receiver._released.wait()
                elif receiver.mode == "fail":
                    receiver.turned_away += 1
                    self.send_error(503)
                else:
                    receiver.heard += json.loads(body)["alerts"]
                    self.send_response(200)
                    self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Request)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._released.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    one = Receiver()
    yield one
    one.close()


async def _play(bootstrap: str, play: Play, over: threading.Event) -> None:
    """The whole play, and on in real time until it is over: a fleet that stops reporting would be silent."""
    playing = asyncio.create_task(simulate(bootstrap, play, linger=True))
    while not over.is_set() and not playing.done():
        await asyncio.sleep(0.1)
    if playing.done():
        playing.result()
    playing.cancel()


def _settled(play: Play) -> Callable[[dict[str, Any]], bool]:
    def settled(status: dict[str, Any]) -> bool:
        # The watermark does not wait for the evaluation, and a busy machine is behind.
        evaluated = least_watermark(status) or 0.0
        return (
            len(status["watermarks"]) == len(load().topics) and evaluated >= play.end - SETTLED_WITHIN - GRID
        )

    return settled


def _epoch(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _fires(status: dict[str, Any]) -> dict[Identity, float]:
    """What fires by the pipeline's own account, and since when."""
    return {
        (a["alertname"], a["clause"]): _epoch(a["fired_at"])
        for a in status["alerts"]
        if a["state"] == "firing"
    }


def _active(alertmanager: Any) -> dict[Identity, float]:
    """What Alertmanager believes to be firing, and since when."""
    answer = httpx.get(
        f"{alertmanager.url}/api/v2/alerts", params={"active": "true"}, trust_env=False, timeout=PATIENCE
    )
    alerts = answer.raise_for_status().json()
    return {(a["labels"]["alertname"], a["labels"].get("clause", "")): _epoch(a["startsAt"]) for a in alerts}


@pytest.mark.slow
def test_while_all_is_well_only_the_watchdog_is_heard(
    kafka: Any,
    telemetry_topics: Any,
    worker_factory: Any,
    background: Any,
    alertmanager: Any,
    eventually: Any,
) -> None:
    telemetry_topics()
    quarter = scenarios.load("steady").model_copy(update={"length": 900})
    play = scenarios.plan(quarter, time.time(), speed=SPEED)
    worker = worker_factory(
        kafka.bootstrap, contract=_contract(play, worker_factory, kafka), alertmanager=alertmanager.url
    )
    worker.start().await_begun()
    over = threading.Event()
    playing = background(_play(kafka.bootstrap, play, over))
    eventually("Watchdog is there", lambda: _active(alertmanager))
    heard: set[Identity] = set()

    def ended(status: dict[str, Any]) -> bool:
        heard.update(_active(alertmanager))
        time.sleep(0.5)
        return _settled(play)(status)

    worker.await_status("the end of the scenario", ended)
    assert worker.stop() == 0, worker.said()
    over.set()
    playing.result()
    assert {name for name, _ in heard} == {"Watchdog"}
    found = play.compare(worker.status()["alerts"])
    assert found.agrees, found


def _contract(play: Play, worker_factory: Any, kafka: Any) -> Any:
    return play.write_contract(worker_factory(kafka.bootstrap).data.parent / "contract")


@pytest.mark.slow
def test_the_peak_season_is_told_exactly_through_restarts_and_outages_of_its_receivers(
    kafka: Any,
    telemetry_topics: Any,
    worker_factory: Any,
    background: Any,
    alertmanager: Any,
    receiver: Receiver,
    eventually: Any,
) -> None:
    telemetry_topics()
    play = scenarios.plan(scenarios.load("peak-season"), time.time(), speed=SPEED)
    worker = worker_factory(
        kafka.bootstrap,
        contract=_contract(play, worker_factory, kafka),
        alertmanager=alertmanager.url,
        webhook=receiver.url,
    )
    worker.start().await_begun()
    over = threading.Event()
    playing = background(_play(kafka.bootstrap, play, over))

    def at(minutes: int) -> Callable[[dict[str, Any]], bool]:
        return lambda s: (
            _epoch(s["watermarks"].get("telemetry.gpu", "1970-01-01T00:00:00Z")) >= play.start + 60 * minutes
        )

    worker.await_status("the first ten minutes", at(10))
    receiver.mode = "fail"
    worker.await_status("two alerts fire", at(18))
    alertmanager.restart()
    receiver.mode = "hang"
    worker.await_status(
        "Alertmanager is told again", lambda s: _active(alertmanager).keys() >= _fires(s).keys()
    )
    worker.await_status("all fire", at(28))
    receiver.mode = "accept"
    worker.await_status("the end of the scenario", _settled(play))
    worker.await_status("everybody knows", lambda s: _active(alertmanager) == _fires(s))
    worker.await_status("all is delivered", lambda s: not s["undelivered"])
    worker.await_status("all is published", lambda s: _open(worker) == _fires(s).keys())
    status = worker.status()
    assert worker.stop() == 0, worker.said()
    over.set()
    playing.result()
    found = play.compare(worker.status()["alerts"])
    assert found.agrees, found
    assert receiver.turned_away
    _heard_of_all(receiver, status)
    _answered_ready_made(worker)


def _answered_ready_made(worker: Any) -> None:
    """Each ready view has something to say of the season, and it agrees with what was alerted."""
    for view in ready_views(load()):
        if view.name == "bills":
            continue  # the season's charges come without deliveries
        assert worker.one(f'SELECT count(*) FROM "{view.name}"') > 0, view.name
    assert _open(worker) == _fires(worker.status()).keys()
    fired, observed = worker.ask(
        "SELECT fired_at, observed FROM alerts WHERE alertname = 'CapacityShortfall' AND state = 'firing' ORDER BY ALL"
    )[0]
    rows = worker.ask(
        f"SELECT delivered, state, healthy <= observed FROM capacity WHERE \"time\" = TIMESTAMP '{fired}' "
        "AND clause = 'eu-west-floor'"
    )
    # The history has every full minute and every change of state; this alert fires on a full minute or between two.
    assert rows in ([], [(observed, "breach", True)])
    assert worker.one("SELECT count(*) FROM capacity WHERE clause = 'eu-west-floor' AND headroom < 0") > 0


def _open(worker: Any) -> set[Identity]:
    """What fires by the published history."""
    return set(worker.ask("SELECT alertname, clause FROM alerts_open WHERE state = 'firing'"))


def _heard_of_all(receiver: Receiver, status: dict[str, Any]) -> None:
    """The webhook knows of everything that fired, and the last it heard of each is how it stands."""
    last = {(a["labels"]["alertname"], a["labels"].get("clause", "")): a["status"] for a in receiver.heard}
    assert last == {(a["alertname"], a["clause"]): a["state"] for a in status["alerts"]}
