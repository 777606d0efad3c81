"""How connections come in to the board: so many at once, so long for each to say what it wants, faults in one line.

aiohttp takes as many as come.  A thousand half-sent requests used up the process's files, after which asyncio wrote a
traceback for every one that it could not take, 156 MB in two minutes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Coroutine
from typing import Any

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.log import server_logger

log = structlog.get_logger()

MOST = 200
"""Connections at once.  One more closes the oldest: a browser opens it again, and who asks is answered within
milliseconds, so those that say nothing never keep anybody out."""
HANDSHAKE_SECONDS = 5.0
REQUEST_SECONDS, BODY_SECONDS = 15.0, 2.0
"""What a connection may take until its next request is there as a whole, and the body that nobody asked for."""
TAKE_AGAIN = 1.0
"""Seconds until connections are taken again when the system has none to give."""


class ConnectionListener:
    """Listens for `server`, over TLS with a context, from `open` to `close`."""

    def __init__(self, server: web.Server, tls: ssl.SSLContext | None) -> None:
        self._server, self._tls = server, tls
        self._listeners: list[socket.socket] = []
        self._open: list[socket.socket] = []  # oldest first
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, host: str, port: int) -> tuple[str, int]:
        """Listen at every address that `host` stands for; the first of them.  Raises OSError."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, address in dict.fromkeys((each[0], each[4]) for each in found):
            listener = socket.create_server(address, family=family, backlog=128)
            listener.setblocking(False)
            self._listeners.append(listener)
        for listener in self._listeners:
            self._keep(self._take(listener))
        first: tuple[str, int] = self._listeners[0].getsockname()[:2]
        return first

    async def close(self) -> None:
        """Take no more; those that are open are the server's to end."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for listener in self._listeners:
            listener.close()

    async def _take(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                found, _ = await loop.sock_accept(listener)
            except OSError as error:
                log.warning("the board takes no connections for a moment", why=error.strerror)
                await asyncio.sleep(TAKE_AGAIN)
                continue
            self._make_room()
            self._open.append(found)
            self._keep(self._connect(found))
            await asyncio.sleep(
                0
            )  # a connection that waits already is taken without: the others have their turn

    def _make_room(self) -> None:
        self._open = [each for each in self._open if each.fileno() != -1]
        while len(self._open) >= MOST:
            with contextlib.suppress(OSError):  # its transport sees the end, and closes it
                self._open.pop(0).shutdown(socket.SHUT_RDWR)

    async def _connect(self, found: socket.socket) -> None:
        loop, seconds = asyncio.get_running_loop(), HANDSHAKE_SECONDS if self._tls else None
        try:
            await loop.connect_accepted_socket(
                self._server, found, ssl=self._tls, ssl_handshake_timeout=seconds
            )
        except OSError:  # it has gone, or speaks no TLS
            found.close()

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class OneLine(logging.Filter):
    """What is no HTTP is said in a line: who sent it and what is wrong, without the traceback of the parser."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError):
            why = " ".join(error.message.split())[:100]
            record.msg, record.args = f"a request that is no HTTP, from %s: {type(error).__name__}: %r", (
                *(record.args if isinstance(record.args, tuple) else ("?",)), why,
            )  # fmt: skip
            record.levelno, record.levelname, record.exc_info = logging.WARNING, "WARNING", None
        return True


def quieten() -> None:
    """Have aiohttp's own logger say what is no HTTP in one line."""
    if not any(isinstance(each, OneLine) for each in server_logger.filters):
        server_logger.addFilter(OneLine())
