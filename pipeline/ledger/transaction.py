"""A ledger transaction that is fenced: it fails, changing nothing, once another writer has taken over."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import duckdb
from duckdb import DuckDBPyConnection

Fence = Callable[[DuckDBPyConnection], None]
"""Called first in every ledger transaction; raises StaleGeneration when another writer has taken over."""
Step = Callable[[str], None]
"""Told the name of each durable step when it is done: where tests kill the process."""


def no_fence(con: DuckDBPyConnection) -> None:
    """For a ledger that nobody else can have opened."""


def no_step(name: str) -> None:
    """The default listener: does nothing."""


@contextlib.contextmanager
def transaction(con: DuckDBPyConnection, fence: Fence = no_fence) -> Iterator[None]:
    """Everything inside is committed as one, or not at all."""
    con.execute("BEGIN")
    try:
        fence(con)
        yield
        con.execute("COMMIT")
    except BaseException:
        # A COMMIT that failed has rolled back by itself.
        with contextlib.suppress(duckdb.Error):
            con.execute("ROLLBACK")
        raise
