"""Door and board beside a pipeline: asked as a client asks, and opened again when no answer comes."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pymysql
import pytest

from pipeline.serve.child import Board, Child, Door
from pipeline.serve.probe import board_fault, door_fault
from pipeline.serve.status_report import _open_servers
from pipeline.serve.supervisor import Patience, Servers, servers
from pipeline.serve.users import PROBE, Authenticator, nonce, proof
from pipeline.settings import load_settings

SOON = Patience(every=0.2, answer=2.0, look=0.1)


def run(children: list[Child], then: Callable[[Servers], Awaitable[None]]) -> None:
    async def main() -> None:
        servers = Servers(children, SOON)
        servers.start()
        try:
            await then(servers)
        finally:
            await servers.stop()

    asyncio.run(main())


async def until(holds: Callable[[], Any]) -> None:
    async with asyncio.timeout(90):
        while not holds():
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("kind", [Door, Board])
@pytest.mark.parametrize(
    ("number", "why"),
    [(signal.SIGSTOP, "did not answer within 2 s"), (signal.SIGKILL, "ended by itself (signal 9)")],
)
def test_what_does_not_answer_or_ends_is_opened_again_and_that_is_said(
    published: Path, tmp_path: Path, kind: type[Child], number: signal.Signals, why: str
) -> None:
    child = kind(published, tmp_path / "log", ["--port", "0"])

    async def then(servers: Servers) -> None:
        await until(lambda: servers.status()[child.command]["address"])
        before, pid = child.address, child.pid
        assert pid is not None
        assert servers.status()[child.command]["again"] is None
        os.kill(pid, number)
        await until(lambda: servers.status()[child.command]["again"])
        await until(lambda: servers.status()[child.command]["address"])
        assert (child.address, child.pid == pid) == (before, False)
        assert child.fault(30) is None
        said = servers.status()
        assert said[child.command]["again"]["times"] == 1
        [line] = _open_servers(said)
        assert f"{before}; opened again at " in line and why in line

    run([child], then)


def test_a_door_beyond_the_loopback_with_users_and_tls_answers_run_and_nobody_else(
    published: Path, tmp_path: Path, users: Any, certificate: tuple[Path, Path]
) -> None:
    file, _ = users
    tls = ["--tls-cert", str(certificate[0]), "--tls-key", str(certificate[1])]
    with Door(
        published, tmp_path / "log", ["--port", "0", "--bind", "0.0.0.0", "--users", str(file), *tls]
    ) as door:
        assert door.fault(30) is None
        assert "refused" not in (tmp_path / "log").read_text()
        host, port = "127.0.0.1", int(door.address.rpartition(":")[2])
        with pytest.raises(pymysql.MySQLError, match="Access denied"):
            pymysql.connect(host=host, port=port, user=PROBE, password="guess", ssl_disabled=True)
    with Board(published, tmp_path / "board", ["--port", "0", *tls]) as board:
        assert board.fault(30) is None


def test_the_name_that_run_asks_by_lets_nobody_in_without_its_word() -> None:
    authenticator, challenge = Authenticator(None), nonce()
    assert authenticator.admits("anybody", b"", challenge, "127.0.0.1")
    assert not authenticator.admits(PROBE, b"", challenge, "127.0.0.1")
    authenticator.use_probe_word(b"word")
    assert not authenticator.admits(PROBE, b"", challenge, "127.0.0.1")
    assert not authenticator.admits(PROBE, proof(b"guess", challenge), challenge, "127.0.0.1")
    assert authenticator.admits(PROBE, proof(b"word", challenge), challenge, "127.0.0.1")


def test_a_listener_that_says_nothing_or_has_gone_is_a_fault_in_words() -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        assert door_fault(address, "word", 0.2) == "it did not answer within 0 s"
        assert board_fault(address, False, 0.2) == "it did not answer within 0 s"
    assert "refused" in str(door_fault(address, "word", 5))
    assert "refused" in str(board_fault(address, False, 5))


def test_the_board_beside_run_leads_where_the_settings_say_and_no_command_line_says_it() -> None:
    given = {"alertmanager": "http://me:secret@am:9093", "grafana_url": "https://grafana.example"}
    (board,) = servers(load_settings(**given, alertmanager_external_url="https://am.example", door=""))
    assert board._variables == {
        "GIGAWATCH_ALERTMANAGER": given["alertmanager"], "GIGAWATCH_GRAFANA_URL": given["grafana_url"],
        "GIGAWATCH_ALERTMANAGER_EXTERNAL_URL": "https://am.example",
    }  # fmt: skip
    assert not [word for word in board._command if "://" in word]
