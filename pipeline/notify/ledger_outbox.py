"""The outbox and the firing set as the ledger keeps them, off the event loop, fenced like all its writing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import ParamSpec, TypeVar

import duckdb

from pipeline.ledger.evaluation import firing_messages
from pipeline.ledger.store import Ledger
from pipeline.ledger.transaction import transaction
from pipeline.notify.outbox import OutboxRow, OutboxUpdate
from pipeline.rules.alert_message import AlertMessage

# The condition that a row waits: neither delivered nor refused (`outbox.NEVER`).
WAITING = "delivered IS NULL AND (next_try IS NULL OR next_try < TIMESTAMP '9999-01-01')"
UNDELIVERED = f"""
    SELECT seq, epoch(created), body, attempts, last_error FROM outbox
    WHERE destination = ? AND {WAITING} ORDER BY seq LIMIT ?"""
RECORD = """
    UPDATE outbox SET attempts = mark.attempts, next_try = mark.next_try, delivered = mark.delivered,
                      last_error = mark.last_error
    FROM (SELECT unnest(?::BIGINT[]) AS seq, unnest(?::VARCHAR[]) AS destination,
                 unnest(?::INTEGER[]) AS attempts, unnest(?::TIMESTAMP[]) AS next_try,
                 unnest(?::TIMESTAMP[]) AS delivered, unnest(?::VARCHAR[]) AS last_error) AS mark
    WHERE outbox.seq = mark.seq AND outbox.destination = mark.destination"""
# Retention may be deleting old rows at the same moment: DuckDB then refuses the later transaction.
CONFLICTS = 5

P = ParamSpec("P")
R = TypeVar("R")


def _utc(at: float | None) -> datetime | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).replace(tzinfo=None)


class LedgerOutbox:
    """The outbox of the open ledger; every call takes a connection of its own, on a thread of its own.

    Raises StaleGeneration from `record` once another writer has the ledger, duckdb.Error on a broken one.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._threads = ThreadPoolExecutor(4, "outbox")

    async def undelivered(self, destination: str, limit: int) -> Sequence[OutboxRow]:
        """At most `limit` rows of the destination that are neither delivered nor refused, by `seq`."""
        return await self._off(self._undelivered, destination, limit)

    async def record(self, marks: Sequence[OutboxUpdate]) -> None:
        """Write the marks in one transaction."""
        await self._off(self._record, tuple(marks))

    async def firing(self) -> Sequence[AlertMessage]:
        """The alerts that fire now: what `Delivery` takes as `firing`."""
        return await self._off(self._firing)

    async def _off(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """On threads of its own: a ledger that does not answer must not use up those that others need."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: work(*args, **kwargs))

    def _undelivered(self, destination: str, limit: int) -> list[OutboxRow]:
        with self._ledger.cursor() as con:
            return [OutboxRow(*row) for row in con.execute(UNDELIVERED, [destination, limit]).fetchall()]

    def _record(self, marks: Sequence[OutboxUpdate]) -> None:
        columns = [
            [mark.seq for mark in marks],
            [mark.destination for mark in marks],
            [mark.attempts for mark in marks],
            [_utc(mark.next_try) for mark in marks],
            [_utc(mark.delivered) for mark in marks],
            [mark.last_error for mark in marks],
        ]
        for turn in range(CONFLICTS):
            try:
                with self._ledger.cursor() as con, transaction(con, self._ledger.fence):
                    con.execute(RECORD, columns)
                return
            except duckdb.TransactionException:
                if turn == CONFLICTS - 1:
                    raise
                time.sleep(0.02 * 2**turn)

    def _firing(self) -> list[AlertMessage]:
        with self._ledger.cursor() as con:
            return firing_messages(con, time.time())
