"""At start: every committed step with files is completed, everything uncommitted is deleted."""

from __future__ import annotations

from pathlib import Path

from duckdb import DuckDBPyConnection

from pipeline.errors import LedgerError
from pipeline.history.compact import abandon_merge, finish_merge
from pipeline.history.seal import mark_published, publish_staged
from pipeline.ledger import files
from pipeline.ledger.transaction import Fence, no_fence


def recover(con: DuckDBPyConnection, data: Path, fence: Fence = no_fence) -> None:
    """Makes DATA agree with the ledger; to be called before anything else touches DATA.

    LedgerError when a committed file is in neither of its two places: the directory was tampered with.
    """
    with files.disk_errors(data):
        _complete_renames(con, data, fence)
        _complete_merges(con, data, fence)
        _delete_uncommitted_segments(con, data)
        files.sweep_all(data)


def _complete_renames(con: DuckDBPyConnection, data: Path, fence: Fence) -> None:
    for path, staged in con.execute("SELECT path, staged FROM files WHERE state = 'renaming'").fetchall():
        if (data / staged).exists():
            publish_staged(data, staged, path)
        elif not (data / path).exists():
            raise LedgerError(
                f"{data / path}: recorded in the ledger but neither there nor in staging/; "
                "restore the file from a backup, or start on an empty data directory"
            )
        mark_published(con, [path], fence)


def _complete_merges(con: DuckDBPyConnection, data: Path, fence: Fence) -> None:
    for (path,) in con.execute("SELECT path FROM files WHERE state = 'merging'").fetchall():
        if (data / path).exists():
            finish_merge(con, data, path, fence)
        else:
            abandon_merge(con, path, fence)


def _delete_uncommitted_segments(con: DuckDBPyConnection, data: Path) -> None:
    committed = {segment for (segment,) in con.execute("SELECT segment FROM segments").fetchall()}
    directory = data / "segments"
    for path in directory.iterdir() if directory.is_dir() else ():
        if path.name not in committed:
            files.discard(path)
