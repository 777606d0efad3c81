"""What a place that alerts can go to looks like from the delivery's side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline.errors import GigawatchError
from pipeline.rules.alert_message import AlertMessage


@dataclass(frozen=True)
class Habits:
    """How a destination wants to be fed.

    `keeps_state`: only the newest state of an identity matters to it, older undelivered ones are superseded.
    `pages`: people are called, so that changes older than `page_max_age` are not for it.
    `resends`: it forgets what it is not told again, so the firing set is sent every minute.
    `refreshed`: it is told when a firing alert only says something else (a reading gone stale, a new bound).
    `batch`: how many changes it takes in one `send`, each of another identity.
    `grouped`: one `send` holds changes of one alertname and contract only.
    `outage_note`: what other destinations should say on their alerts while this one fails ("" for nothing).
    """

    keeps_state: bool = False
    pages: bool = True
    resends: bool = False
    refreshed: bool = True
    batch: int = 64
    grouped: bool = False
    outage_note: str = ""


class Destination(Protocol):
    """A place that alert changes can go to."""

    @property
    def name(self) -> str:
        """As in the outbox's column `destination`."""

    @property
    def habits(self) -> Habits: ...

    async def send(self, changes: Sequence[AlertMessage], now: float) -> None:
        """Hand over changes (each of another identity); returns once all are accepted.

        `now` is the wall clock in epoch seconds.  Raises DeliveryRefused when these very changes can never be
        accepted; any other exception means: try again later.
        """


class DeliveryRefused(GigawatchError):
    """The destination will never accept these changes as they are."""


class NotAccepted(GigawatchError):
    """The destination did not accept this time; `retry_after` is how many seconds it asked us to wait."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
