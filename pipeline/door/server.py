"""`gigawatch door`: SQL over MySQL's wire, for Grafana, BI tools and notebooks.

A client's statement is read (`connection`), understood (`dialect`), checked (`query_check`) and run
(`execution`, `engine`) in that order.  This file opens the door and closes it.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from pipeline import catalog
from pipeline.door.connection import LOGIN_BYTES, Connection
from pipeline.door.connection_limits import ConnectionLimits, Connections
from pipeline.door.engine import Engine, limit_memory, size_of
from pipeline.door.execution import LOST, QueryLimits, QueryScheduler
from pipeline.door.failover import Engines
from pipeline.door.framing import Wire
from pipeline.door.landlock import fence
from pipeline.door.login import LoginPolicy
from pipeline.door.scratch import scratch
from pipeline.door.translator import Translator
from pipeline.errors import GigawatchError, SettingsError
from pipeline.serve.child import ready
from pipeline.serve.listening import Listening, await_end_of_input, opens_beyond, spelled, tls_context
from pipeline.serve.users import Authenticator, read_users

log = structlog.get_logger("door")


CLOSING = 5.0
"""Seconds that the questions that run have to end when the door closes."""


@dataclass(frozen=True, slots=True)
class DoorOptions(Listening):
    """What a door is opened with; sizes as DuckDB writes them."""

    port: int = 3306
    memory_limit: str = "512MB"
    temp_limit: str = "1GB"
    threads: int = 2
    connections: ConnectionLimits = field(default_factory=ConnectionLimits)
    limits: QueryLimits = field(default_factory=QueryLimits)


def run_door(options: DoorOptions, child: bool = False) -> None:
    """Serves until SIGINT or SIGTERM, and as a `child` until its standard input ends.  Raises SettingsError, QueryError."""
    policy = _login_policy(options)
    size_of("--memory-limit", options.memory_limit)
    size_of("--temp-limit", options.temp_limit)
    with scratch("gigawatch-door-") as folder:
        engines = _fenced_engines(options, folder)
        try:
            asyncio.run((door := _Door(options, policy, engines, folder)).serve(child))
        finally:
            engines.close()
        door.leave(folder)


def _fenced_engines(options: DoorOptions, folder: Path) -> Engines:
    """The engine, made by a thread that may write below `folder` only; so are DuckDB's own threads."""
    types = catalog.load(options.schemas)

    def make(place: Path) -> Engine:
        return Engine(
            options.data, types, place, memory_limit=options.memory_limit, temp_limit=options.temp_limit,
            threads=options.threads,
        )  # fmt: skip

    def first() -> Engines:
        if not fence(folder):
            log.warning(
                "this system has no Landlock: the published files are kept by the check and DuckDB's settings"
            )
        return Engines(make, folder)

    with ThreadPoolExecutor(1) as one:
        return one.submit(first).result()


class _Door:
    def __init__(self, options: DoorOptions, policy: LoginPolicy, engines: Engines, folder: Path) -> None:
        self._options, self._policy = options, policy
        self._scheduler = QueryScheduler(engines, options.limits, lambda: fence(folder), self._give_up)
        self._translator = Translator()
        self._connections = Connections(options.connections)
        self._numbers = itertools.count(1)
        self._stop = asyncio.Event()
        self._fault: str | None = None

    async def serve(self, child: bool) -> None:
        stop, loop = self._stop, asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        if child:
            threading.Thread(
                target=await_end_of_input,
                args=(loop, stop, self._policy.authenticator.use_probe_word),
                daemon=True,
            ).start()
        server = await self._listen()
        try:
            await self._translator.start()
            limit_memory(self._options.memory_limit)
            print(f"{ready('door')}{_address(server)}", flush=True)
            await stop.wait()
        finally:
            server.close()
            for connection in list(self._connections.here.values()):
                connection.hang_up()
            await self._empty()
            await self._translator.close()
            self._scheduler.close()

    def _give_up(self, why: str) -> None:
        log.error("the door ends; whoever keeps it open begins it anew", why=why)
        self._fault = why
        self._stop.set()

    def leave(self, folder: Path) -> None:
        """After `serve`.  Raises GigawatchError when it has ended for a fault.

        Python would wait for a thread whose question does not end.
        """
        if self._scheduler.stuck:
            shutil.rmtree(folder, ignore_errors=True)
            os._exit(1 if self._fault else 0)
        if self._fault:
            raise GigawatchError(f"the SQL door has ended: {self._fault}")

    async def _empty(self) -> None:
        """Wait until the questions have ended, but not for ever."""
        for _ in range(int(CLOSING / 0.05)):
            if not self._connections.here:
                return
            await asyncio.sleep(0.05)

    async def _listen(self) -> asyncio.Server:
        options = self._options
        try:
            return await asyncio.start_server(self._arrived, options.bind, options.port, limit=64 * 1024)
        except OSError as error:
            raise SettingsError(
                f"--port {options.port}: the door cannot be opened at {options.bind} ({error.strerror}); "
                "another one may be open there: name a free port, with --door HOST:PORT where it opens beside `run`"
            ) from error

    async def _arrived(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = Wire(reader, writer, LOGIN_BYTES)
        number, connections = next(self._numbers), self._connections
        connection = Connection(
            wire,
            number,
            self._policy,
            self._scheduler,
            self._translator,
            connections.here,
            connections.room_for,
        )
        connections.arrive(number, connection)
        try:
            await connection.serve()
        except asyncio.CancelledError:
            connection.stop(LOST, "the door closes")
        except Exception:
            log.exception("a connection failed", peer=wire.peer)
        finally:
            del connections.here[number]
            wire.close()


def _address(server: asyncio.Server) -> str:
    return spelled(*server.sockets[0].getsockname()[:2])


def _login_policy(options: DoorOptions) -> LoginPolicy:
    """TLS and users as they are asked for.  Raises SettingsError; beyond the loopback both are required."""
    beyond = opens_beyond("door", options.bind, options.users, options.tls_cert, options.tls_key)
    users = read_users(options.users) if options.users else None
    return LoginPolicy(Authenticator(users), tls_context(options.tls_cert, options.tls_key), insist=beyond)
