"""A real door before a small data directory, as a process of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pymysql
import pytest

from pipeline.serve.child import Door


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
