"""Door and board beside a running pipeline: opened, opened again when they end or do not answer, and closed with it.

Each is asked for something every few seconds, as a client would: a process that lives may have stopped to answer.
They read what is published, so nothing that happens to them is a reason for the pipeline to end: what keeps one
from opening is logged, stands in `status`, and is tried again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog

from pipeline.errors import GigawatchError
from pipeline.serve.child import Board, Child, Door
from pipeline.settings import Settings

log = structlog.get_logger()


def servers(settings: Settings) -> list[Child]:
    """What the settings ask for."""
    schemas = ["--schemas", str(settings.schemas)] if settings.schemas else []
    entrance = [
        *(["--users", str(settings.users)] if settings.users else []),
        *(["--tls-cert", str(settings.tls_cert)] if settings.tls_cert else []),
        *(["--tls-key", str(settings.tls_key)] if settings.tls_key else []),
    ]
    others = ("alertmanager", "alertmanager_external_url", "grafana_url")
    addresses = {name: url for name in others if (url := getattr(settings, name))}
    limits = [
        *("--idle-timeout", str(settings.door_idle_timeout)), *("--user-sessions", str(settings.door_user_sessions))
    ]  # fmt: skip
    found: list[Child] = []
    if settings.board:
        found.append(Board(settings.data, None, [*_at(settings.board), *entrance, *schemas], addresses))
    if settings.door:
        found.append(Door(settings.data, None, [*_at(settings.door), *entrance, *schemas, *limits]))
    return found


def split_address(address: str) -> tuple[str, int]:
    """Host and port of HOST:PORT, an IPv6 host without its brackets."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _at(address: str) -> list[str]:
    host, port = split_address(address)
    return ["--bind", host, "--port", str(port)]


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds: between two requests to a server, for each answer, and between two looks whether it is there."""

    every: float = 5.0
    answer: float = 30.0
    look: float = 0.5


class Servers:
    """Keeps `children` open from `start` to `stop`: what ends or does not answer is opened again."""

    def __init__(self, children: Sequence[Child], patience: Patience | None = None) -> None:
        self._children = list(children)
        self._patience = patience or Patience()
        self._tasks: list[asyncio.Task[None]] = []
        self._errors: dict[str, str] = {}
        self._again: dict[str, dict[str, Any]] = {}
        self._stopping = asyncio.Event()

    def start(self) -> None:
        """Begin to open them; returns at once."""
        self._tasks = [asyncio.create_task(self._keep(child), name=child.what) for child in self._children]

    async def stop(self) -> None:
        """Close them all, also one that is just opening."""
        self._stopping.set()
        await self._close()
        await asyncio.gather(*self._tasks)
        await self._close()

    def status(self) -> dict[str, dict[str, Any]]:
        """By command: the address (None while it is not open), what kept it from opening, and why it was opened again.

        `again`: how many `times` since the start, the last `at` (UTC), and `why`; None if never.
        """
        return {
            child.command: {
                "address": (child.pid and child.address) or None,
                "error": self._errors.get(child.command),
                "again": self._again.get(child.command),
            }
            for child in self._children
        }

    async def _close(self) -> None:
        await asyncio.gather(*(asyncio.to_thread(child.stop) for child in self._children))

    async def _keep(self, child: Child) -> None:
        while not self._stopping.is_set():
            if fault := await self._fault(child):
                self._note(child, fault)
                await asyncio.to_thread(child.stop, 1.0)  # what does not answer does not hear either
            if child.pid is None and not self._stopping.is_set():
                await self._open(child)
            await self._pause(child)

    async def _fault(self, child: Child) -> str | None:
        """What is wrong with a child that was open; None also for one that has not opened yet."""
        if not child.address or self._stopping.is_set():
            return None
        fault = child.ending or await asyncio.to_thread(child.fault, self._patience.answer)
        return None if self._stopping.is_set() else child.ending or fault

    def _note(self, child: Child, fault: str) -> None:
        log.error(f"the {child.what} is opened again", why=fault)
        times = self._again.get(child.command, {}).get("times", 0) + 1
        at = datetime.now(UTC).isoformat(timespec="seconds")
        self._again[child.command] = {"times": times, "at": at, "why": fault}

    async def _pause(self, child: Child) -> None:
        """Until the next request is due, or the child has ended, or all shall."""
        for _ in range(max(1, round(self._patience.every / self._patience.look))):
            if self._stopping.is_set() or child.ending:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._patience.look):
                    await self._stopping.wait()

    async def _open(self, child: Child) -> None:
        try:
            await asyncio.to_thread(child.stop)
            await asyncio.to_thread(child.start)
        except GigawatchError as error:
            if not self._stopping.is_set() and self._errors.get(child.command) != str(error):
                log.error(f"the {child.what} is not open; the pipeline goes on", error=str(error))
                self._errors[child.command] = str(error)
            return
        self._errors.pop(child.command, None)
        log.info(f"the {child.what} is open", address=child.address)
