"""Whoever floods the board with connections, or sends it nonsense, keeps nobody out and fills no log."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import structlog

from pipeline.board.connections import MOST
from pipeline.serve.logs import Seldom, log_to_stderr
from tests.patience import PATIENCE

Open = Callable[..., Any]
HALF = b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: "
NONSENSE = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # a TLS hello to a port without TLS
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost : localhost\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"a: b\r\n" * 1000 + b"\r\n",
    b"POST /status.json HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4000000000\r\n\r\nabc",
    b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"\0" * 100,
)


@contextlib.contextmanager
def connections(board: Any, count: int, said: bytes) -> Iterator[list[socket.socket]]:
    """So many connections that all say the same and then nothing more."""
    host, _, port = board.address.rpartition(":")
    with contextlib.ExitStack() as stack:
        found = []
        for _ in range(count):
            one = stack.enter_context(socket.create_connection((host, int(port)), timeout=PATIENCE))
            with contextlib.suppress(OSError):
                one.sendall(said)
            found.append(one)
        yield found


def test_a_thousand_half_sent_requests_keep_nobody_out(stage: Any, open_board: Open) -> None:
    stage.publish()
    board = open_board(stage.data)
    with connections(board, 1_146, HALF):
        process = psutil.Process(board.process.pid)
        assert len(process.net_connections("tcp")) <= MOST + 50  # those that close are counted too
        for path in ("/", "/healthz", "/metrics", "/status.json"):
            assert httpx.get(f"{board.url}{path}", trust_env=False, timeout=PATIENCE).status_code == 200
    assert board.log.read_text() == ""
    assert board.stop() == 0


def test_those_that_never_speak_tls_keep_nobody_out_either(
    stage: Any, open_board: Open, certificate: tuple[Path, Path]
) -> None:
    stage.publish()
    cert, key = certificate
    board = open_board(stage.data, "--tls-cert", str(cert), "--tls-key", str(key))
    with connections(board, MOST + 100, b"\x16"):
        trust = ssl.create_default_context(cafile=str(cert))
        answer = httpx.get(
            f"https://{board.address}/healthz", verify=trust, trust_env=False, timeout=PATIENCE
        )
        assert answer.status_code == 200
    assert board.log.read_text() == ""


def test_nonsense_is_refused_and_is_a_line_in_the_log_not_a_traceback(stage: Any, open_board: Open) -> None:
    stage.publish()
    board = open_board(stage.data)
    for said in NONSENSE * 20:
        with connections(board, 1, said) as (one,):
            one.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):
                start = one.recv(4096)
                assert start == b"" or start.split()[1] in (b"400", b"404", b"405", b"413", b"421"), start
    assert httpx.get(f"{board.url}/healthz", trust_env=False, timeout=PATIENCE).status_code == 200
    lines = [json.loads(line) for line in board.log.read_text().splitlines()]
    assert len(lines) <= 2, lines
    assert lines[0]["event"].startswith("a request that is no HTTP, from 127.0.0.1: ")
    assert not any("exception" in line for line in lines)


def test_a_fault_of_a_server_of_ours_is_a_whole_line_each_time_it_is_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The count of repeats once became the message, which the renderer of lines cannot read: the fault itself was lost."""
    root, before = logging.getLogger(), structlog.get_config()
    handlers, level = root.handlers, root.level
    now = 0.0
    try:
        log_to_stderr("info")
        root.handlers[0].filters[:] = [Seldom(lambda: now)]
        for now in (0.0, 2.0, 3.0, 4.0, 61.0):
            structlog.get_logger("board").error("a look has failed", at=now)
            structlog.get_logger("board").error("something else", at=now)
    finally:
        root.handlers, root.level = handlers, level
        structlog.configure(**before)
    said = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["event"], line["at"]) for line in said] == [
        ("a look has failed", 0.0), ("something else", 0.0),
        ("a look has failed (and 3 times more before)", 61.0), ("something else (and 3 times more before)", 61.0),
    ]  # fmt: skip


def test_what_a_library_says_again_and_again_is_said_once_a_minute_and_counted() -> None:
    now = 0.0
    seldom, said = Seldom(lambda: now), []

    def say(name: str, line: int, text: str) -> None:
        record = logging.LogRecord(name, logging.WARNING, "client.py", line, "no broker: %s", (text,), None)
        if seldom.filter(record):
            said.append(record.getMessage())

    for n in range(100):
        say("aiokafka.client", 7, str(n))
        say("aiokafka.client", 8, "another place")
        say("pipeline.app.single", 7, "ours")
    now = 61.0
    say("aiokafka.client", 7, "still")
    assert said.count("no broker: ours") == 100
    assert [line for line in said if "ours" not in line] == [
        "no broker: 0",
        "no broker: another place",
        "no broker: still (and 99 times more before)",
    ]
