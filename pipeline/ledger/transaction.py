"""A ledger transaction that is fenced: it fails, changing nothing, once another writer has taken over."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import duckdb
from duckdb import DuckDBPyConnection

Fence = Callable[[DuckDBPyConnection], None]
"""Called first in every ledger transaction; raises StaleGeneration when another writer has taken over."""


def no_fence(con: DuckDBPyConnection) -> None:
    """For a ledger that nobody else can have opened."""


def nothing(*_: str) -> None:
    """Nobody is told, and nothing waits."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """What long work with files calls on its way.

    `fence`: first in every transaction.  `step`: the name of each durable step when it is done, where tests kill the
    process.  `between`: between two steps, outside any transaction: what must not wait for the end is done there.
    """

    fence: Fence = no_fence
    step: Callable[[str], None] = nothing
    between: Callable[[], None] = nothing


NO_HOOKS = Hooks()


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
