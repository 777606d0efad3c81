"""What the delivery needs of the ledger's outbox: rows to deliver, a place to write what became of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

# 9999-12-31: the `next_try` of a row that was refused.  It stays in the outbox, undelivered and visible, with
# the destination's reason in `last_error`; to have it tried again, set its `next_try` to NULL.
NEVER = 253402214400.0


@dataclass(frozen=True)
class OutboxRow:
    """One change for one destination; `created` is wall clock, epoch seconds."""

    seq: int
    created: float
    body: str
    attempts: int = 0
    last_error: str | None = None


@dataclass(frozen=True)
class OutboxUpdate:
    """The columns of the row (`seq`, `destination`) as they are from now on; times are epoch seconds.

    delivered set, no error: accepted.  Delivered set, with an error: settled without being sent, and why
    (superseded, or too old to page).  Not delivered: to be tried again, or refused when `next_try` is NEVER.
    """

    seq: int
    destination: str
    attempts: int
    next_try: float | None = None
    delivered: float | None = None
    last_error: str | None = None


class Outbox(Protocol):
    """The ledger's outbox.  Both methods may be slow (a transaction) and must not block the event loop."""

    async def undelivered(self, destination: str, limit: int) -> Sequence[OutboxRow]:
        """At most `limit` rows of the destination that are neither delivered nor refused, by `seq`:
        `delivered IS NULL AND (next_try IS NULL OR next_try < TIMESTAMP '9999-01-01')`."""

    async def record(self, marks: Sequence[OutboxUpdate]) -> None:
        """Write the marks in one transaction."""
