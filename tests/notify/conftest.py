"""The other ends of a delivery, all real: the outbox table in DuckDB, an HTTP receiver, Alertmanager."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import httpx
import pytest

from pipeline.notify.delivery import Delivery
from pipeline.notify.destination import Destination, Habits
from pipeline.notify.outbox import OutboxRow, OutboxUpdate
from pipeline.notify.policy import Policy
from pipeline.rules.alert_message import AlertMessage, to_json
from tests.patience import PATIENCE

OUTBOX = """CREATE TABLE outbox(seq BIGINT, created TIMESTAMP, destination VARCHAR, body VARCHAR,
            attempts INTEGER, next_try TIMESTAMP, delivered TIMESTAMP, last_error VARCHAR)"""
UNDELIVERED = """SELECT seq, epoch(created), body, attempts, last_error FROM outbox
                 WHERE destination = ? AND delivered IS NULL
                   AND (next_try IS NULL OR next_try < TIMESTAMP '9999-01-01') ORDER BY seq LIMIT ?"""
RECORD = """UPDATE outbox SET attempts = ?, next_try = to_timestamp(?)::TIMESTAMP,
            delivered = to_timestamp(?)::TIMESTAMP, last_error = ? WHERE seq = ? AND destination = ?"""


class DuckOutbox:
    """The ledger's outbox table; one row for each change and destination.  Also keeps the firing set."""

    def __init__(self, path: Path, destinations: Sequence[str]) -> None:
        self.destinations = list(destinations)
        self._ledger = duckdb.connect(str(path))
        self._ledger.execute("SET TimeZone = 'UTC'")
        self._ledger.execute(OUTBOX.replace("TABLE", "TABLE IF NOT EXISTS"))
        self.live: dict[str, AlertMessage] = {}
        self._seq = 0

    def write(self, *changes: AlertMessage) -> list[int]:
        """What the apply transaction does; returns the sequence numbers."""
        given = []
        with self._ledger.cursor() as cursor:
            cursor.begin()
            for change in changes:
                self._seq += 1
                for name in self.destinations:
                    self._insert(cursor, name, to_json(change), change.changed_at)
                if change.firing:
                    self.live[change.identity] = change
                else:
                    self.live.pop(change.identity, None)
                given.append(self._seq)
            cursor.commit()
        return given

    def _insert(self, cursor: duckdb.DuckDBPyConnection, name: str, body: str, created: float) -> None:
        values = [self._seq, created, name, body]
        cursor.execute(
            "INSERT INTO outbox VALUES (?, to_timestamp(?)::TIMESTAMP, ?, ?, 0, NULL, NULL, NULL)", values
        )

    def write_body(self, name: str, body: str) -> int:
        self._seq += 1
        with self._ledger.cursor() as cursor:
            self._insert(cursor, name, body, time.time())
        return self._seq

    async def undelivered(self, destination: str, limit: int) -> list[OutboxRow]:
        with self._ledger.cursor() as cursor:
            return [OutboxRow(*row) for row in cursor.execute(UNDELIVERED, [destination, limit]).fetchall()]

    async def record(self, marks: Sequence[OutboxUpdate]) -> None:
        with self._ledger.cursor() as cursor:
            cursor.begin()
            for m in marks:
                values = [m.attempts, m.next_try, m.delivered, m.last_error, m.seq, m.destination]
                cursor.execute(RECORD, values)
            cursor.commit()

    async def firing(self) -> list[AlertMessage]:
        return list(self.live.values())

    def rows(self, destination: str) -> list[dict[str, Any]]:
        with self._ledger.cursor() as cursor:
            found = cursor.execute("SELECT * FROM outbox WHERE destination = ? ORDER BY seq", [destination])
            names = [column[0] for column in found.description]
            return [dict(zip(names, row, strict=True)) for row in found.fetchall()]

    def close(self) -> None:
        self._ledger.close()


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Callable[..., DuckOutbox]]:
    opened: list[DuckOutbox] = []

    def open_outbox(*destinations: str) -> DuckOutbox:
        opened.append(DuckOutbox(tmp_path / "ledger.duckdb", destinations))
        return opened[-1]

    yield open_outbox
    for one in opened:
        one.close()


# Answers that begin like this and then go on a byte at a time, for ever.
ENDLESS = {"drip": b"HTTP/1.1 500 Slow", "stream": b"HTTP/1.1 500 Slow\r\ncontent-length: 1000000\r\n\r\n"}


class Receiver:
    """An HTTP server on loopback that does to each request what `script` says next, then `otherwise`.

    A word of the script: `ok`, a status such as `503`, `hang`, `reset`, `garbage`, `drip` and `stream` (a
    byte at a time, for ever), `lost` (takes the request, then resets: accepted, but the sender never knows).
    """

    def __init__(self) -> None:
        self.script: list[str] = []
        self.otherwise = "ok"
        self.accepted: list[Any] = []
        self.headers: list[dict[str, str]] = []
        self.requests = 0
        self.choke: Callable[[Any], str | None] = lambda body: None
        self.port = 0
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await self._answer(reader, writer)
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        headers = {k.lower(): v for k, v in (x.split(": ", 1) for x in head.split("\r\n")[1:] if x)}
        body = json.loads(await reader.readexactly(int(headers["content-length"])))
        self.requests += 1
        word = self.choke(body) or (self.script.pop(0) if self.script else self.otherwise)
        if word in ("ok", "lost"):
            self.accepted.append(body)
            self.headers.append(headers)
        if word in ("reset", "lost"):
            writer.transport.abort()
        elif word == "hang":
            await reader.read()
        elif word == "garbage":
            writer.write(b"\x16\x03\x01 this is not HTTP\r\n\r\n")
        elif word in ENDLESS:
            await self._endless(writer, ENDLESS[word])
        else:
            status = "200 OK" if word == "ok" else f"{word} Because"
            writer.write(
                f"HTTP/1.1 {status}\r\ncontent-length: 8\r\nretry-after: 0\r\n\r\nsuch\x1b[1m".encode()
            )
        await writer.drain()

    async def _endless(self, writer: asyncio.StreamWriter, begin: bytes) -> None:
        writer.write(begin)
        while True:
            writer.write(b".")
            await writer.drain()
            await asyncio.sleep(0.02)

    def told(self) -> list[tuple[str, str]]:
        """(identity, status) of every alert accepted, in order; the tests put the identity in a label."""
        return [(a["labels"]["identity"], a["status"]) for body in self.accepted for a in body["alerts"]]


@contextlib.asynccontextmanager
async def _receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    await receiver.start()
    try:
        yield receiver
    finally:
        await receiver.stop()


@pytest.fixture
def receiver() -> Callable[[], contextlib.AbstractAsyncContextManager[Receiver]]:
    return _receiver


class Unreliable:
    """A real destination behind a bad line: each `send` meets the next fault of the list, then none.

    `before`: it never arrived; `after`: it was accepted, and the answer lost; `hang`: nothing comes back.
    """

    def __init__(self, destination: Destination, faults: Sequence[str]) -> None:
        self._destination = destination
        self.faults = list(faults)

    @property
    def name(self) -> str:
        return self._destination.name

    @property
    def habits(self) -> Habits:
        return self._destination.habits

    async def send(self, changes: Sequence[AlertMessage], now: float) -> None:
        fault = self.faults.pop(0) if self.faults else None
        if fault == "before":
            raise ConnectionError("the line is down")
        if fault == "hang":
            await asyncio.sleep(3600)
        await self._destination.send(changes, now)
        if fault == "after":
            raise ConnectionError("the answer was lost")


@pytest.fixture
def unreliable() -> type[Unreliable]:
    return Unreliable


@pytest.fixture
def active() -> Callable[..., list[dict[str, Any]]]:
    """The alerts that an Alertmanager holds for active, of those with these labels."""

    def ask(am: Any, **labels: str) -> list[dict[str, Any]]:
        only = [("filter", f'{name}="{value}"') for name, value in labels.items()]
        answer = httpx.get(f"{am.url}/api/v2/alerts", params=only, trust_env=False, timeout=PATIENCE)
        found: list[dict[str, Any]] = answer.raise_for_status().json()
        return found

    return ask


def make_change(
    identity: str = "one", state: str = "firing", at: float | None = None, **more: Any
) -> AlertMessage:
    """A change that happened at `at` (default: a moment ago) and was decided at once."""
    at = time.time() - 1 if at is None else at
    labels = {"contract": "azure", "clause": "floor", "severity": "page", "identity": identity}
    labels |= more.pop("labels", {})
    ending = {} if state == "firing" else {"resolved_at": at}
    known: dict[str, Any] = {
        "active_at": at - 60,
        "fired_at": at,
        "changed_at": at,
        "kind": state,
        **ending,
        **more,
    }
    return AlertMessage(
        identity=identity,
        alertname="CapacityShortfall",
        labels=labels,
        state=state,
        **known,
    )


@pytest.fixture
def change() -> Callable[..., AlertMessage]:
    return make_change


# Real time, made short: a test waits for events, and these only bound how long a retry takes.
QUICK = Policy(backoff_first=0.01, backoff_cap=0.05, idle_poll=0.2, send_timeout=0.5, resend_every=0.3)


@pytest.fixture
def quick() -> Policy:
    return QUICK


@contextlib.asynccontextmanager
async def _running(delivery: Delivery) -> AsyncIterator[Delivery]:
    running = asyncio.create_task(delivery.run())
    try:
        yield delivery
    finally:
        delivery.stop()
        await running


@pytest.fixture
def running() -> Callable[[Delivery], contextlib.AbstractAsyncContextManager[Delivery]]:
    return _running


async def _until(true: Callable[[], bool] | Callable[[], Awaitable[bool]], seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while True:
        seen = true()
        if seen if isinstance(seen, bool) else await seen:
            return
        assert time.monotonic() < deadline, "it never came true"
        await asyncio.sleep(0.01)


@pytest.fixture
def until() -> Callable[..., Coroutine[Any, Any, None]]:
    return _until
