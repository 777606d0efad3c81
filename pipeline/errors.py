"""The named facts that can go wrong.

Every message says where, what was found, what was expected and how to mend it; the command line prints it
as it is and ends with `exit_code`.  This module imports no room, so that any can raise any of them.
"""

from __future__ import annotations

from typing import Self


class GigawatchError(Exception):
    """A fact that a user can act on; `exit_code` is what the process ends with."""

    exit_code = 2


class SettingsError(GigawatchError):
    """A setting is missing, mistyped or contradicts another."""


class SchemaError(GigawatchError):
    """A file in `schemas/` does not describe an event type that can be rolled up."""


class ContractError(GigawatchError):
    """A contract file is refused as a whole; the message lists every fault with its place."""


class ScenarioError(GigawatchError):
    """A scenario or trace cannot be played as described."""


class MappingError(GigawatchError):
    """A mapping is refused, or a message is not of the format that was said; the message lists every fault."""


class BrokerUnreachable(GigawatchError):
    """No Kafka broker answers at the bootstrap address."""

    exit_code = 3

    @classmethod
    def at(cls, bootstrap: str) -> Self:
        """For a producer that was to start; `bootstrap`: HOST:PORT, or several with commas between."""
        return cls(
            f"no Kafka broker answers at {bootstrap}; start one with: gigawatch kafka, or name another"
        )


class ForeignCluster(GigawatchError):
    """The ledger was written from another Kafka cluster than the one that answers."""

    exit_code = 4


class LogMoved(GigawatchError):
    """The log of a partition ends before, or begins after, the offset that the ledger would resume at."""

    exit_code = 4


class DataDirectoryInUse(GigawatchError):
    """Another process holds the lock of the data directory."""

    exit_code = 5


class LedgerError(GigawatchError):
    """The ledger cannot be opened, is newer than this program, or a write to it failed."""

    exit_code = 5


class StaleGeneration(LedgerError):
    """Another writer has taken the ledger over since this one opened it."""


class DiskFull(LedgerError):
    """No space is left for the ledger, a segment or a published file."""


class Stalled(GigawatchError):
    """Records wait, yet nothing has progressed: the process ends so that its supervisor restarts it."""

    exit_code = 6


class QueryError(GigawatchError):
    """A query over the published history failed."""


class BillError(GigawatchError):
    """A bill cannot be read: its files, their columns or the rates for it are not as expected."""
