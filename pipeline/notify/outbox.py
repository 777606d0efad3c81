"""Rows of the ledger's outbox: what is to be delivered, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass

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
