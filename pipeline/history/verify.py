"""Whether the published files are those that the ledger knows: their names, sizes and, in turns or all, checksums.

Nobody but the housekeeping writes where readers look, so a file that is missing, has changed or is there twice was put or
taken by another hand, or by a disk.  It is named, with the rows that it concerns, and left as it is; only what follows
from the ledger alone, all but the raw history, is marked to be written anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow.parquet as pq
from duckdb import DuckDBPyConnection
from pyarrow import ArrowException

from pipeline.catalog import Catalog
from pipeline.ledger.transaction import Fence, no_fence, transaction
from pipeline.views.published import (
    ALERTS_NOW_TABLE,
    OWN_TABLES,
    WIDTHS,
    minutes_table,
    published_tables,
    rollup_table,
)

ADOPT = "adopt_published"
"""Key in `meta`: what an older Gigawatch published is there without a record, and is taken as it stands."""
TOLD = 20
"""Files that are named one by one in a status."""
LOOK_SECONDS = 1.0
"""Wall clock that one look spends on checksums: on those of such files, and again on comparing; at a gigabyte a second."""


@dataclass(frozen=True, slots=True)
class Tampered:
    """A published file (relative to DATA) that is not as it was published; `rows` of it are concerned, None: unknown."""

    path: str
    what: Literal["missing", "changed", "unknown", "copy"]
    rows: int | None
    of: str = ""

    def __str__(self) -> str:
        rows = "its rows" if self.rows is None else f"{self.rows:,} row{'' if self.rows == 1 else 's'}"
        told = {
            "missing": f"is missing: {rows} are not in the answers",
            "changed": f"has changed since it was published: {rows} are in doubt",
            "unknown": f"was not published by this pipeline: {rows} are in the answers, and should not be",
            "copy": f"is a copy of {self.of}: {rows} are in the answers twice",
        }
        return f"{self.path} {told[self.what]}"


class ChecksumRotation:
    """Whose checksum a look compares: each file's once before any is compared again, the most recently written first.

    Whoever tampers with a file does so after it was published, so the first look after a start sees it.
    """

    def __init__(self) -> None:
        self._done: set[str] = set()

    def take(self, files: Mapping[str, Path]) -> Iterator[str]:
        """The names whose turn it is, for `LOOK_SECONDS`; one at least."""
        left = files.keys() - self._done
        if not left:
            self._done, left = set(), set(files)
        deadline = time.monotonic() + LOOK_SECONDS
        for name in sorted(left, key=lambda name: (-_written(files[name]), name)):
            self._done.add(name)
            yield name
            if time.monotonic() > deadline:
                return

    def again(self, name: str) -> None:
        """What was found changed is compared at the next look, too."""
        self._done.discard(name)


def _written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def told(found: Sequence[Tampered]) -> list[str]:
    """The first of them in words, and how many more there are."""
    more = [f"and {len(found) - TOLD} more files"] if len(found) > TOLD else []
    return [*map(str, found[:TOLD]), *more]


def sound(con: DuckDBPyConnection, data: Path, paths: Sequence[str]) -> bool:
    """Whether these raw files (relative to DATA) are as they were published, checksums and all."""
    known = _known(con)
    for path in paths:
        _, size, digest = known[path]
        if size is not None and ((data / path).stat().st_size != size or checksum(data / path) != digest):
            return False
    return True


def checksum(path: Path) -> str:
    """128 bits of BLAKE2b over a file; it reads about a gigabyte a second."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def note_published(con: DuckDBPyConnection, published: Iterable[tuple[str, str, int, int, Path]]) -> None:
    """Record what is published, in that transaction: (path, view and minute of its mark, rows, the written file)."""
    for path, view, minute, rows, written in published:
        con.execute("DELETE FROM published WHERE path = ?", [path])
        con.execute(
            "INSERT INTO published VALUES (?, ?, make_timestamp(?::BIGINT * 1000000), ?, ?, ?)",
            [path, view, minute, rows, written.stat().st_size, checksum(written)],
        )


def tampered(
    con: DuckDBPyConnection,
    data: Path,
    catalog: Catalog,
    turns: ChecksumRotation | None = None,
    marked: bool = False,
) -> list[Tampered]:
    """Every published file that is not as the ledger knows it, by path; all checksums are compared, or those of `turns`.

    Files that a mark says are out of date are judged only if `marked`, right after publishing on its thread: otherwise a
    kill may have come between a file and its record.
    """
    known = _known(con)
    there = {
        str(p.relative_to(data)): p
        for t in published_tables(catalog)
        for p in (data / t.root).rglob("*.parquet")
    }
    unjudged = () if marked else _marked(con, catalog)
    found = [Tampered(path, "missing", known[path][0]) for path in known.keys() - there.keys()]
    whole: dict[str, Path] = {}
    for path in there.keys() & known.keys():
        rows, size, digest = known[path]
        with contextlib.suppress(FileNotFoundError):
            if size is not None and there[path].stat().st_size != size:
                found.append(Tampered(path, "changed", rows))
            elif digest is not None:
                whole[path] = there[path]
    for path in turns.take(whole) if turns else whole:
        with contextlib.suppress(FileNotFoundError):
            if checksum(whole[path]) != known[path][2]:
                found.append(Tampered(path, "changed", known[path][0]))
                if turns:
                    turns.again(path)
    origins = {digest: path for path, (_, _, digest) in known.items() if digest is not None}
    for path in there.keys() - known.keys():
        origin = origins.get(checksum(there[path]), "")
        found.append(Tampered(path, "copy" if origin else "unknown", _rows(there[path]), origin))
    return sorted((one for one in found if not one.path.startswith(unjudged)), key=lambda one: one.path)


def look(
    con: DuckDBPyConnection, data: Path, catalog: Catalog, turns: ChecksumRotation, fence: Fence = no_fence
) -> list[Tampered]:
    """`tampered` for the housekeeping, right after publishing: what can be written anew is marked to be.

    Files that an older Gigawatch published are recorded first, and given checksums little by little.
    """
    _adopt(con, data, catalog, fence)
    found = tampered(con, data, catalog, turns, marked=True)
    gone = [one.path for one in found if one.what in ("missing", "changed")]
    if gone:
        with transaction(con, fence):
            con.execute(
                'INSERT INTO dirty SELECT "view", minute FROM published '
                "WHERE minute IS NOT NULL AND path IN (SELECT unnest(?::VARCHAR[]))",
                [gone],
            )
    _fill(con, data, fence)
    return found


def _known(con: DuckDBPyConnection) -> dict[str, tuple[int | None, int | None, str | None]]:
    """Path → rows, bytes, checksum of every file that readers should see."""
    rows = con.execute(
        "SELECT path, rows, bytes, checksum FROM files WHERE state = 'published' UNION ALL "
        "SELECT path, rows, bytes, checksum FROM published"
    ).fetchall()
    return {path: (count, size, digest) for path, count, size, digest in rows}


def _marked(con: DuckDBPyConnection, catalog: Catalog) -> tuple[str, ...]:
    """The directories of the tables that any mark is about, or all that follow from the ledger, before they are recorded."""
    views = {view for (view,) in con.execute('SELECT DISTINCT "view" FROM dirty').fetchall()}
    adopting = con.execute("SELECT 1 FROM meta WHERE key = ?", [ADOPT]).fetchone() is not None
    return tuple(f"{root}/" for root, view in _derived(catalog) if adopting or view in views)


def _derived(catalog: Catalog) -> Iterator[tuple[str, str]]:
    """(root, view of its marks) of each table that follows from the ledger's."""
    for event_type in catalog.types:
        widths = () if event_type.closes else WIDTHS
        yield from ((rollup_table(event_type, width).root, event_type.view) for width in widths)
        if table := minutes_table(event_type):
            yield from ((table.root, view) for view in (event_type.view, table.view))
    yield from ((t.root, "alerts" if t is ALERTS_NOW_TABLE else t.view) for t in OWN_TABLES)


def _adopt(con: DuckDBPyConnection, data: Path, catalog: Catalog, fence: Fence) -> None:
    if con.execute("SELECT 1 FROM meta WHERE key = ?", [ADOPT]).fetchone() is None:
        return
    known = _known(con)
    found = []
    for root, view in _derived(catalog):
        for path in (data / root).rglob("*.parquet"):
            if (name := str(path.relative_to(data))) not in known:
                found.append([name, view, _rows(path), path.stat().st_size])
    with transaction(con, fence):
        for one in found:
            con.execute("INSERT INTO published VALUES (?, ?, NULL, ?, ?, NULL)", one)
        con.execute("DELETE FROM meta WHERE key = ?", [ADOPT])


def _fill(con: DuckDBPyConnection, data: Path, fence: Fence) -> None:
    """Sizes and checksums of raw files that were published without, as they stand now."""
    names = con.execute("SELECT path FROM files WHERE state = 'published' AND checksum IS NULL").fetchall()
    deadline = time.monotonic() + LOOK_SECONDS
    found: list[Sequence[object]] = []
    for (name,) in names:
        with contextlib.suppress(FileNotFoundError):
            found.append([(data / name).stat().st_size, checksum(data / name), name])
        if time.monotonic() > deadline:
            break
    if found:
        with transaction(con, fence):
            con.executemany("UPDATE files SET bytes = ?, checksum = ? WHERE path = ?", found)


def _rows(path: Path) -> int | None:
    try:
        return int(pq.read_metadata(path).num_rows)
    except (OSError, ArrowException):
        return None
