"""The engine behind the door: a DuckDB that can do nothing but read the views.

Its database file has views, comments and macros, no data, and is opened read-only.  Settings come in an order, are
read back, and what does not read back as it should is a reason not to serve.  The process has a hard limit of
memory, because DuckDB's own does not count everything: `repeat('x', 2e9)` took 3.9 GB past a limit of 300 MB.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import re
import resource
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb

from pipeline.catalog import Catalog
from pipeline.door import query_check
from pipeline.door.mysql_catalog import DATABASE, names_sql
from pipeline.door.resultset import Column, Row, column
from pipeline.errors import QueryError, SettingsError
from pipeline.history.query import ask, nothing_yet
from pipeline.rollup.quoting import literal
from pipeline.views.all_views import names, views_sql
from pipeline.views.published import pattern, published_tables

BATCH = 1000
BESIDE_DUCKDB = 768 * 2**20
"""Bytes of address space beyond what is in use at the start and DuckDB's own limit: threads, rows under way."""
FULL = 0.25
"""The part of its memory that an engine which nobody asks may keep."""
NOT_MYSQLS = (duckdb.ParserException, duckdb.BinderException, duckdb.CatalogException)
"""What DuckDB says of a text that may be MySQL's."""


class Engine:
    """One locked DuckDB for every question; `folder` is ours alone, and emptied by its owner."""

    def __init__(
        self, data: Path, catalog: Catalog, folder: Path, *, memory_limit: str, temp_limit: str, threads: int
    ) -> None:
        if not data.is_dir():
            raise QueryError(f"{data}: no such data directory; give the --data of a pipeline")
        data, folder = data.resolve(), folder.resolve()
        self._waits: tuple[Path, Catalog] | None = (data, catalog)
        file = folder / f"{DATABASE}.duckdb"
        with duckdb.connect(str(file)) as con:
            con.begin()  # each of the 1,400 statements would otherwise be synced to the disk
            con.execute(views_sql(data, catalog))
            con.execute(names_sql())
            con.commit()
        file.chmod(0o400)
        temp = folder / "temp"
        self._limit = size_of("--memory-limit", memory_limit)
        self._con = duckdb.connect(str(file), read_only=True)
        self._lock = threading.Lock()
        _lock_down(self._con, _directories(data, catalog), temp, memory_limit, temp_limit, threads)

    def question(self) -> EngineQuery:
        """A question of its own: several can run at once."""
        with self._lock:
            return EngineQuery(self, self._con.cursor(), self._nothing_yet)

    def is_over(self) -> bool:
        """Whether it answers nothing any more."""
        try:
            self._con.cursor().execute("SELECT 1").fetchone()
        except duckdb.Error:
            return True
        return False

    def is_full(self) -> bool:
        """Whether more than `FULL` of its memory is in use, or a small question finds none."""
        try:
            con = self._con.cursor()
            row = con.execute("SELECT coalesce(sum(memory_usage_bytes), 0) FROM duckdb_memory()").fetchone()
            con.execute("SELECT count(DISTINCT hash(i)) FROM range(100000) t(i)").fetchone()
        except (duckdb.Error, MemoryError):
            return True
        return row is None or int(row[0]) > FULL * self._limit

    def _nothing_yet(self, sql: str) -> str | None:
        """Why a question that names one of our tables has no answer yet; once anything is published, none is looked at."""
        why = nothing_yet(*self._waits) if self._waits is not None else None
        if self._waits is None or why is None:
            self._waits = None
            return None
        asked = set(re.findall(r"\w+", sql.lower()))
        return why if asked & set(names(self._waits[1])) else None

    def close(self) -> None:
        """Close the database; a question that has not ended in time keeps it open until the process ends."""
        with contextlib.suppress(duckdb.Error):
            self._con.close()


class EngineQuery:
    """One question on a cursor of its own.  All but `interrupt` is called from one thread at a time."""

    def __init__(
        self,
        engine: Engine,
        con: duckdb.DuckDBPyConnection,
        nothing: Callable[[str], str | None] = lambda sql: None,
    ) -> None:
        self.engine, self._con, self._nothing = engine, con, nothing
        self._rows: Iterator[Row] = iter(())

    def check(self, sql: str) -> int:
        """Passes one SELECT and gives the number of its parameters.  Raises QueryError; its cause is DuckDB's error."""
        try:
            query_check.check(self._con, sql)
        except duckdb.Error as error:
            raise QueryError(str(error)) from error
        return len(self._con.extract_statements(sql)[0].named_parameters)

    def begin(self, sql: str, parameters: Sequence[Any] = ()) -> list[Column]:
        """Checks and starts one SELECT; its columns.  Raises QueryError; its cause is DuckDB's own error."""
        try:
            query_check.check(self._con, sql)
        except duckdb.ParserException:
            pass  # `ask` says the same, with names that come nearest
        except duckdb.Error as error:  # such as no memory: what is not checked does not run
            raise QueryError(str(error)) from error
        if (why := self._nothing(sql)) is not None:
            raise QueryError(why)
        with _in_words():
            result = ask(self._con, sql, parameters)
        self._rows = result.rows
        return [column(str(name), str(kind)) for name, kind, *_ in self._con.description or ()]

    def more(self) -> list[Row]:
        """The next rows, at most BATCH; none when there are no more.  Raises QueryError."""
        with _in_words():
            return list(itertools.islice(self._rows, BATCH))

    def interrupt(self) -> None:
        """Ends what runs, from any thread.  Said between two steps it is not heard: say it until it has ended."""
        self._con.interrupt()

    def close(self) -> None:
        """Give everything back."""
        self._rows = iter(())
        self._con.close()


@contextlib.contextmanager
def _in_words() -> Iterator[None]:
    """Python has no such interval, or no such text: DuckDB's errors about odd bytes end in the midst of a letter."""
    try:
        yield
    except (OverflowError, ValueError) as error:
        raise QueryError(f"a value cannot be handed on ({error}); cast it to a text, or to BLOB") from error


def limit_memory(memory_limit: str) -> None:
    """A hard limit for the address space of this process, over what it has now; and no core dumps of it.

    One heap for all threads: glibc reserves 64 MB for each otherwise, which would count.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).mallopt(-8, 2)
        in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        limit = in_use + size_of("--memory-limit", memory_limit) + BESIDE_DUCKDB
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def size_of(option: str, size: str) -> int:
    """`512MB` as bytes, by DuckDB's own reading.  Raises SettingsError."""
    try:
        with duckdb.connect() as con:
            con.execute(f"SET memory_limit = {literal(size)}")
            row = con.execute("SELECT max(memory_limit) FROM pragma_database_size()").fetchone()
            scale = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
            number, _, unit = str(row[0] if row else "").partition(" ")
            return int(float(number) * scale[unit])
    except (duckdb.Error, KeyError, ValueError) as error:
        raise SettingsError(f"{option}: found {size!r}, expected a size such as 512MB") from error


def _directories(data: Path, catalog: Catalog) -> list[str]:
    """Roots of the published files, also as a glob writes them when a name has glob characters."""
    roots = sorted({table.root.partition("/")[0] for table in published_tables(catalog)})
    # Through links, as DuckDB itself goes: a history may lie on another disk.
    plain = [f"{os.path.realpath(data / root)}/" for root in roots]
    return sorted({*plain, *(f"{os.path.realpath(pattern(data, root))}/" for root in roots)})


def _lock_down(
    con: duckdb.DuckDBPyConnection,
    directories: list[str],
    temp: Path,
    memory: str,
    temp_limit: str,
    threads: int,
) -> None:
    """The settings in their order: after `enable_external_access` no path can be allowed, after the lock nothing set."""
    wanted: list[tuple[str, str, Callable[[Any], bool]]] = [
        ("autoinstall_known_extensions", "false", _is(False)),
        ("autoload_known_extensions", "false", _is(False)),
        ("allow_community_extensions", "false", _is(False)),
        ("python_enable_replacements", "false", _is(False)),  # FROM name reads Python's variables otherwise
        ("python_scan_all_frames", "false", _is(False)),
        ("TimeZone", "'UTC'", _is("UTC")),
        ("enable_progress_bar", "false", _is(False)),
        ("errors_as_json", "false", _is(False)),
        ("parquet_metadata_cache", "true", _is(True)),  # checked by time and size of the file; counts as memory used
        ("threads", str(threads), _is(threads)),
        ("memory_limit", literal(memory), bool),
        ("temp_directory", literal(str(temp)), _is(str(temp))),
        ("max_temp_directory_size", literal(temp_limit), bool),
        ("allowed_directories", f"[{', '.join(map(literal, directories))}]", lambda v: set(directories) <= set(v)
         and {str(one).rstrip("/") for one in v} <= {d.rstrip("/") for d in directories} | {str(temp)}),
        ("enable_external_access", "false", _is(False)),
        ("lock_configuration", "true", _is(True)),
    ]  # fmt: skip
    for name, value, _ in wanted:
        con.execute(f"SET {name} = {value}")
    for name, value, holds in wanted:
        row = con.execute(f"SELECT current_setting({literal(name)})").fetchone()
        if row is None or not holds(row[0]):
            raise SettingsError(
                f"DuckDB's {name} reads back as {row and row[0]!r}, expected {value}; the door stays shut"
            )
    _try_to_break_out(con, temp)


def _is(expected: Any) -> Callable[[Any], bool]:
    return lambda value: bool(value == expected)


def _try_to_break_out(con: duckdb.DuckDBPyConnection, temp: Path) -> None:
    """What the settings are for, tried once: a DuckDB that lets one of these pass is not served."""
    for attempt in (
        "SELECT * FROM read_text('/etc/hosts')",
        f"COPY (SELECT 1) TO {literal(str(temp.parent / 'out.csv'))}",
        "SET threads = 1",
        "CREATE TABLE main.t AS SELECT 1",
    ):
        try:
            con.execute(attempt)
        except duckdb.Error:
            continue
        raise SettingsError(f"the locked DuckDB still did this: {attempt}; the door stays shut")
