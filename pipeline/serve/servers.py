"""Door and board beside a running pipeline: opened, opened again when they end, and closed with it.

They read what is published, so nothing that happens to them is a reason for the pipeline to end: what keeps one
from opening is logged, stands in `status`, and is tried again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import structlog

from pipeline.errors import GigawatchError
from pipeline.serve.child import Board, Child, Door
from pipeline.settings import Settings

log = structlog.get_logger()

LOOK_EVERY = 5.0
"""Seconds between two looks whether they are still there."""


def servers(settings: Settings) -> list[Child]:
    """What the settings ask for."""
    schemas = ["--schemas", str(settings.schemas)] if settings.schemas else []
    entrance = [
        *(["--users", str(settings.users)] if settings.users else []),
        *(["--tls-cert", str(settings.tls_cert)] if settings.tls_cert else []),
        *(["--tls-key", str(settings.tls_key)] if settings.tls_key else []),
    ]
    silences = ["--alertmanager", settings.alertmanager] if settings.alertmanager else []
    found: list[Child] = []
    if settings.board:
        found.append(Board(settings.data, None, [*_at(settings.board), *entrance, *schemas, *silences]))
    if settings.door:
        found.append(Door(settings.data, None, [*_at(settings.door), *entrance, *schemas]))
    return found


def split_address(address: str) -> tuple[str, int]:
    """Host and port of HOST:PORT, an IPv6 host without its brackets."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _at(address: str) -> list[str]:
    host, port = split_address(address)
    return ["--bind", host, "--port", str(port)]


class Servers:
    """Keeps `children` open from `start` to `stop`."""

    def __init__(self, children: Sequence[Child]) -> None:
        self._children = list(children)
        self._tasks: list[asyncio.Task[None]] = []
        self._errors: dict[str, str] = {}
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
        """By command: the address (None while it is not open) and what kept it from opening (None if nothing)."""
        return {
            child.command: {
                "address": (child.pid and child.address) or None,
                "error": self._errors.get(child.command),
            }
            for child in self._children
        }

    async def _close(self) -> None:
        await asyncio.gather(*(asyncio.to_thread(child.stop) for child in self._children))

    async def _keep(self, child: Child) -> None:
        while not self._stopping.is_set():
            if child.pid is None:
                await self._open(child)
            try:
                async with asyncio.timeout(LOOK_EVERY):
                    await self._stopping.wait()
            except TimeoutError:
                pass

    async def _open(self, child: Child) -> None:
        again = child.address != ""
        try:
            await asyncio.to_thread(child.stop)
            await asyncio.to_thread(child.start)
        except GigawatchError as error:
            if not self._stopping.is_set() and self._errors.get(child.command) != str(error):
                log.error(f"the {child.what} is not open; the pipeline goes on", error=str(error))
                self._errors[child.command] = str(error)
            return
        self._errors.pop(child.command, None)
        log.info(f"the {child.what} is open{' again' if again else ''}", address=child.address)
