"""What the running pipeline writes of itself into `status.json`: it waits for nobody.

What the ledger says is read on a thread of its own.  While the ledger does not answer, what it said before is written
again, with the time at which it said it; what the process itself knows is always of now.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import duckdb

from pipeline.ledger import status
from pipeline.ledger.store import Ledger

NOTHING_LEFT = {"evaluated_to": None, "evaluated_share": None}
READ_WITHIN = 2.0
"""Seconds that the ledger may take to answer."""


class OwnStatus:
    """Writes `file`; `live` gives what the process itself knows now, `now` the wall clock (epoch seconds)."""

    def __init__(
        self,
        ledger: Ledger,
        file: status.StatusFile,
        live: Callable[[], Mapping[str, Any]],
        now: Callable[[], float],
    ) -> None:
        self._ledger, self._file, self._live, self._now = ledger, file, live, now
        self._threads = ThreadPoolExecutor(2, "status")
        self._reading: asyncio.Future[dict[str, Any]] | None = None
        self._known: dict[str, Any] | None = None

    async def write(self) -> None:
        """Say how the running pipeline does."""
        loop = asyncio.get_running_loop()
        if self._reading is None:
            self._reading = loop.run_in_executor(self._threads, self._read)
        done, _ = await asyncio.wait({self._reading}, timeout=READ_WITHIN)
        if done:
            reading, self._reading = self._reading, None
            self._known = reading.result()
        if self._known is not None:
            document = {**self._head("running"), **self._known, **self._live()}
            await loop.run_in_executor(self._threads, self._file.write, document)

    def end(self, con: duckdb.DuckDBPyConnection) -> None:
        """Say how it was when it stopped; `con` is a connection of the caller's."""
        self._file.end({**self._head("stopped"), **self._of_ledger(con), **self._live(), "servers": {}})

    def _head(self, state: str) -> dict[str, Any]:
        return {"state": state, "written_at": self._stamp(), "pid": os.getpid()}

    def _read(self) -> dict[str, Any]:
        with self._ledger.cursor() as con:
            return self._of_ledger(con)

    def _of_ledger(self, con: duckdb.DuckDBPyConnection) -> dict[str, Any]:
        plan, behind = self._ledger.plan, self._ledger.behind
        return {
            **status.snapshot(con),
            **NOTHING_LEFT,
            **(status.evaluation(con, plan.groups) if plan and behind else {}),
            "ledger_read_at": self._stamp(),
        }

    def _stamp(self) -> str:
        return datetime.fromtimestamp(self._now(), UTC).isoformat().replace("+00:00", "Z")
