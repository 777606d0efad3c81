"""A ledger that is older than the published files beside it is noticed: both count what was done to them.

Each transaction that goes with published files adds one to `changes` in `meta`, and as soon as it is committed, before any
file is put in place, the number stands in `DATA/changes` too, on the disk.  A ledger that knows of fewer changes than were
made has lost its write-ahead log, or is an old copy: taking records in again would put rows into the history twice.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from duckdb import DuckDBPyConnection

from pipeline.errors import LedgerError
from pipeline.ledger import files
from pipeline.ledger.transaction import Fence, no_fence, transaction

FILE = "changes"


@contextlib.contextmanager
def counted(con: DuckDBPyConnection, data: Path, fence: Fence = no_fence) -> Iterator[None]:
    """A transaction that goes with published files; `data/changes` is on the disk when it ends."""
    with transaction(con, fence):
        changes = made(con) + 1
        con.execute("DELETE FROM meta WHERE key = ?", [FILE])
        con.execute("INSERT INTO meta VALUES (?, ?)", [FILE, str(changes)])
        yield
    write(data, changes)


def made(con: DuckDBPyConnection) -> int:
    """How many changes the ledger knows of."""
    row = con.execute("SELECT value FROM meta WHERE key = ?", [FILE]).fetchone()
    return int(row[0]) if row else 0


def write(data: Path, changes: int) -> None:
    staged = files.staging(data) / files.token()
    with staged.open("w") as file:
        file.write(f"{changes}\n")
        file.flush()
        os.fsync(file.fileno())
    files.move(staged, data / FILE)
    files.fsync(data)


def check(con: DuckDBPyConnection, data: Path) -> None:
    """Raises LedgerError when the ledger is older than the published files; a directory of before has no number."""
    try:
        found = int((data / FILE).read_text("ascii"))
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise LedgerError(
            f"{data / FILE}: found no number of changes there ({error}), expected what the pipeline wrote; restore the "
            "whole data directory from one backup, or start on an empty one while Kafka still has the records"
        ) from error
    known = made(con)
    if known < found:
        raise LedgerError(
            f"{data / 'ledger.duckdb'}: older than the published files beside it: it knows of {known} changes to them, and "
            f"{found} were made, so {'ledger.duckdb.wal'} was taken away, or an old copy of the ledger put back; nothing was "
            "changed, for records would be in the history twice. Put the write-ahead log back, or restore the whole data "
            "directory from one backup, or start on an empty one while Kafka still has the records"
        )
