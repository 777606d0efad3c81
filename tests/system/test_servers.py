"""What opens beside a running pipeline: it is kept open, ends with the pipeline, and never ends it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from typing import Any

import httpx
import psutil
import pymysql
import pytest

from tests.patience import PATIENCE


def _server(status: dict[str, Any], command: str) -> dict[str, Any]:
    found: dict[str, Any] = (status["servers"] or {}).get(command) or {"address": None, "error": None}
    return found


def _rows(address: str, sql: str) -> Any:
    host, _, port = address.rpartition(":")
    connection = pymysql.connect(host=host, port=int(port), user="me", database="gigawatch")
    with connection, connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


def _rows_if_open(address: str, sql: str) -> Any:
    with contextlib.suppress(pymysql.err.OperationalError):
        return _rows(address, sql)


def _children(worker: Any, command: str) -> list[psutil.Process]:
    children = psutil.Process(worker.process.pid).children()
    alive = [child for child in children if child.status() != psutil.STATUS_ZOMBIE]
    return [child for child in alive if child.cmdline()[4:5] == [command]]


@pytest.fixture
def sent(kafka: Any, telemetry_topics: Any, send: Any, gpu_event: Any) -> Any:
    telemetry_topics()
    now = time.time() - 30
    send(kafka.bootstrap, "telemetry.gpu", [gpu_event(i, now + i / 10) for i in range(50)])
    return kafka.bootstrap


def test_a_running_pipeline_has_a_door_that_is_opened_again_when_it_is_killed_and_ends_with_it(
    sent: str, worker_factory: Any, eventually: Any
) -> None:
    worker = worker_factory(sent, door="127.0.0.1:0").start().await_begun().await_taken_in().await_published()
    worker.await_status("the door is open", lambda s: _server(s, "door")["address"])
    address = _server(worker.status(), "door")["address"]
    assert _rows(address, "SELECT count(*) FROM gpu") == ((50,),)
    [door] = _children(worker, "door")
    os.kill(door.pid, signal.SIGKILL)
    # The status is written once a second: it may still name the one that died, or none yet.
    rows = eventually("it answers again", lambda: _rows_if_open(address, "SELECT count(*) FROM gpu"))
    assert rows == ((50,),)
    worker.await_status("it is named again", lambda s: _server(s, "door")["address"] == address)
    [again] = _children(worker, "door")
    assert worker.stop() == 0, worker.said()
    _, alive = psutil.wait_procs([again], timeout=PATIENCE)
    assert not alive
    assert "Traceback" not in worker.said()


def test_a_pipeline_that_is_killed_takes_its_door_and_its_board_with_it(
    sent: str, worker_factory: Any
) -> None:
    worker = worker_factory(sent, door="127.0.0.1:0", board="127.0.0.1:0").start().await_begun()
    for each in ("door", "board"):
        worker.await_status(f"the {each} is open", lambda s, each=each: _server(s, each)["address"])
    servers = _children(worker, "door") + _children(worker, "board")
    assert len(servers) == 2
    worker.kill()
    _, alive = psutil.wait_procs(servers, timeout=PATIENCE)
    assert not alive


def test_a_running_pipeline_has_a_board_that_says_so(sent: str, worker_factory: Any, eventually: Any) -> None:
    worker = (
        worker_factory(sent, board="127.0.0.1:0").start().await_begun().await_taken_in().await_published()
    )
    worker.await_status("the board is open", lambda s: _server(s, "board")["address"])
    board = f"http://{_server(worker.status(), 'board')['address']}"
    ready = eventually(
        "the board is ready",
        lambda: (a := httpx.get(f"{board}/readyz", trust_env=False, timeout=PATIENCE)).is_success and a,
    )
    assert str(worker.data) in ready.text
    status = httpx.get(f"{board}/status.json", trust_env=False, timeout=PATIENCE).json()
    assert (status["pipeline"]["running"], status["events"]["in"]) == (True, 50)
    assert worker.stop() == 0, worker.said()


def test_a_port_that_is_taken_is_said_and_the_pipeline_goes_on(sent: str, worker_factory: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        worker = worker_factory(sent, door=f"127.0.0.1:{port}").start().await_begun()
        worker.await_status("the fault is told", lambda s: _server(s, "door")["error"])
        worker.await_taken_in().await_published()
        assert worker.one("SELECT count(*) FROM gpu") == 50
        assert f"--port {port}: the door cannot be opened" in worker.said()
    worker.await_status("it opens once the port is free", lambda s: _server(s, "door")["address"])
    assert _server(worker.status(), "door")["error"] is None
    assert worker.stop() == 0, worker.said()


def test_a_pipeline_opens_nothing_when_nothing_is_asked_for(sent: str, worker_factory: Any) -> None:
    worker = worker_factory(sent, door="").start().await_begun().await_taken_in()
    assert worker.status()["servers"] == {}
    assert not _children(worker, "door")
    assert worker.stop() == 0, worker.said()
