"""A real data directory with a little of everything, and a real door before it, as a process of its own."""

from __future__ import annotations

import hashlib
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pymysql
import pytest

from pipeline.catalog import load
from pipeline.serve.child import Door

ROOT = Path(__file__).resolve().parents[2]
T = 1_767_225_600  # 2026-01-01T00:00:00Z
ROWS = 240


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DATA with 240 samples of two GPUs over four minutes, a queue and three charges, sealed and published."""
    ledgers = runpy.run_path(str(ROOT / "tests" / "ledger" / "conftest.py"))
    data: Path = tmp_path_factory.mktemp("door") / "data"
    small = ledgers["SmallLedger"](data, load())
    gpu, queue, charge = ledgers["gpu_row"], ledgers["queue_row"], ledgers["charge_row"]
    small.add(
        "gpu", [gpu(T + 2 * n, g, power_watts=700.5 + n, health="ok") for n in range(120) for g in range(2)]
    )
    small.add("queue", [queue(T + 10 * n, 1.5, 20.0, queue='it\'s \\ "quoted"') for n in range(3)])
    small.add("billing", [charge(T, T + 7200 + n, f"{n}.1234567891", f"c{n}") for n in range(3)])
    small.watermark(T + 7200)
    small.seal()
    small.publish()
    small.close()
    (data / "secret.txt").write_text("do not read me")
    return data


@pytest.fixture(scope="session")
def checksums(published: Path) -> Callable[[], dict[str, str]]:
    """A function that gives the SHA-256 of every file under DATA, by its path."""

    def now() -> dict[str, str]:
        files = sorted(path for path in published.rglob("*") if path.is_file())
        return {str(f.relative_to(published)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}

    return now


@pytest.fixture(scope="session")
def open_door(tmp_path_factory: pytest.TempPathFactory, published: Path) -> Iterator[Callable[..., Door]]:
    """A function that opens a door before DATA with these arguments, on a free port."""
    opened: list[Door] = []

    def make(*arguments: str) -> Door:
        log = tmp_path_factory.mktemp("log") / "door.log"
        opened.append(Door(published, log, ["--port", "0", *arguments]))
        opened[-1].start()
        return opened[-1]

    yield make
    for one in opened:
        one.stop()


@pytest.fixture(scope="session")
def door(open_door: Callable[..., Door]) -> Door:
    """The door that most tests share."""
    return open_door("--memory-limit", "300MB")


def connect(door: Door, **how: Any) -> pymysql.Connection:
    host, _, port = door.address.rpartition(":")
    return pymysql.connect(host=host, port=int(port), **{"user": "tester", **how})


@pytest.fixture(scope="session")
def call() -> Callable[..., pymysql.Connection]:
    """`call(door, **how)`: a new connection."""
    return connect


@pytest.fixture
def client(door: Door) -> Iterator[pymysql.Connection]:
    """A connection to the shared door."""
    connection = connect(door)
    yield connection
    connection.close()


@pytest.fixture
def ask(client: pymysql.Connection) -> Callable[..., list[tuple[Any, ...]]]:
    """`ask(sql, parameters=None)`: all rows of an answer."""

    def asked(sql: str, parameters: Any = None) -> list[tuple[Any, ...]]:
        with client.cursor() as cursor:
            cursor.execute(sql, parameters)
            return list(cursor.fetchall())

    return asked


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 and its key, made by openssl."""
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", "-keyout", str(key), "-out", str(cert)],
        check=True, capture_output=True,
    )  # fmt: skip
    return cert, key


@pytest.fixture(scope="session")
def users(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A users file with alice and bob, and their passwords, made by the command."""
    file, passwords = tmp_path_factory.mktemp("users") / "users", {}
    for name in ("alice", "bob"):
        done = subprocess.run(
            [sys.executable, "-P", "-m", "pipeline.cli", "door", "--users", str(file), "--new-user", name],
            cwd=ROOT, check=True, capture_output=True, text=True,
        )  # fmt: skip
        passwords[name] = done.stdout.split(": ")[1].strip()
    return file, passwords
