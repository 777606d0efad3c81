"""Compaction: many small files of a settled time become one, many ledger rows of one key become one.

Published files are merged without any reader seeing a row twice or missing one: the merged file is written
in a sibling directory under `DATA/staging/`, and the two directories exchange their names in one step.  A
query that listed the old names and has not opened them yet fails with a missing file and is to be repeated
(query.py does); it never reads a mixture.

    raw history                                          roll-ups and fates
    1. write and fsync the merged file                   1. the same
    2. record it in the ledger as `merging`              2. exchange: the directory itself tells what it holds
    3. exchange the directories
    4. record it as `published`, forget the old names

A kill before 3 leaves the old directory, one after it the new; `recover` makes the ledger agree.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import structlog
from duckdb import DuckDBPyConnection, OutOfMemoryException

from pipeline.catalog import Catalog, EventType
from pipeline.history.publish import WHOLE, settled
from pipeline.history.retention import directories, partial_tables
from pipeline.history.rollup_select import bounds, merge_select
from pipeline.history.seal import ROWS_AT_ONCE, history_table, in_groups, write_sorted
from pipeline.history.verify import checksum, sound
from pipeline.ledger import files
from pipeline.ledger.counter import counted
from pipeline.ledger.frontier import newest_watermark
from pipeline.ledger.transaction import NO_HOOKS, Fence, Hooks, no_fence, transaction
from pipeline.rollup.grid import DAY, HOUR
from pipeline.rollup.quoting import literal, quoted
from pipeline.views.published import (
    FATES_TABLE,
    HEALTH_TABLE,
    QUARANTINE,
    READINGS_TABLE,
    SET_ASIDE_TABLE,
    WIDTHS,
    PublishedTable,
    minutes_table,
    pattern,
    rollup_table,
    scan,
)

log = structlog.get_logger()

SETTLED_AFTER = HOUR
"""Raw hours are merged when the watermark is this far past them (seconds): late rows are rare by then."""
LARGE_FILE = ROWS_AT_ONCE // 2
"""A file of so many rows is read at full speed as it is: it stays, and only smaller ones are merged."""
PARTIALS_CLOSED_AFTER = 60
MERGE_SECONDS = 2.0
"""Wall clock after which merging partials leaves the rest to the next call: publishing must not wait."""
OPEN_DELTAS = 32
"""A slice of partials that is still filling is merged after this many deltas."""

_said: set[Path] = set()
"""Directories of which it was said that they cannot be merged: `DATA`, or an hour."""


def possible(data: Path) -> bool:
    """Whether files under `data` can be merged; says once that they cannot."""
    if files.can_exchange(data):
        return True
    if data not in _said:
        _said.add(data)
        log.warning(
            "files are not merged: this system or file system cannot exchange two directories in one step; "
            "queries over long times stay slower",
            data=str(data),
        )
    return False


def compact_history(
    con: DuckDBPyConnection,
    data: Path,
    catalog: Catalog,
    hooks: Hooks = NO_HOOKS,
) -> int:
    """Merges the raw files of each settled hour, as many at once as can be sorted; returns how many hours were."""
    files.sweep(data)
    chosen = list(_settled_hours(con))
    if not chosen or not possible(data):
        return 0
    merged = 0
    for topic, directory, rows in chosen:
        if data / directory in _said:
            continue
        if {p.name for p in (data / directory).glob("*")} != {Path(p).name for p in rows}:
            continue  # Somebody put a file there by hand: it would vanish with the exchange.
        if not sound(con, data, list(rows)):
            continue  # what was changed by another hand stays where it is seen, and is named (verify.py)
        with files.disk_errors(data / directory):
            table = history_table(catalog, topic)
            try:
                # an hour of a large fleet is tens of millions of rows, more than DuckDB can sort in its memory
                small = ((path, count) for path, count in rows.items() if count < LARGE_FILE)
                groups = [paths for paths in in_groups(small, ROWS_AT_ONCE) if len(paths) > 1]
                done = [_merge(con, data, table, topic, directory, paths, hooks) for paths in groups]
            except OutOfMemoryException as error:
                _said.add(data / directory)
                log.warning(
                    "an hour is not merged: to sort it needs more memory than DuckDB may use; queries over it stay slower; "
                    "raise memory_limit, then start again",
                    directory=str(data / directory), reason=str(error).splitlines()[0],
                )  # fmt: skip
                continue
        merged += any(done)
        hooks.between()
    return merged


def _settled_hours(con: DuckDBPyConnection) -> Iterator[tuple[str, str, dict[str, int]]]:
    """(topic, directory, its files and their rows) of each hour with several small files that is long behind the watermark."""
    watermarks = dict(con.execute("SELECT topic, epoch(watermark)::BIGINT FROM frontier").fetchall())
    newest = newest_watermark(con)
    hours = con.execute(
        "SELECT topic, regexp_extract(path, '^(.*)/', 1) AS directory, list(path ORDER BY path), list(rows ORDER BY path) "
        "FROM files WHERE state = 'published' GROUP BY ALL HAVING count(*) FILTER (rows < ?) > 1 ORDER BY ALL",
        [LARGE_FILE],
    ).fetchall()
    for topic, directory, paths, rows in hours:
        watermark = newest if topic == QUARANTINE else watermarks.get(topic)
        start = datetime.strptime(directory[-len("date=2026-01-01/hour=00") :], "date=%Y-%m-%d/hour=%H")
        end = int(start.replace(tzinfo=UTC).timestamp()) + HOUR
        if watermark is not None and end + SETTLED_AFTER <= watermark:
            yield topic, directory, dict(zip(paths, rows, strict=True))


def _merge(
    con: DuckDBPyConnection,
    data: Path,
    table: PublishedTable,
    topic: str,
    directory: str,
    paths: list[str],
    hooks: Hooks,
) -> bool:
    """One file in the place of `paths`; the others of the directory stay."""
    staged, name = f"staging/{files.token()}", f"{files.token()}.parquet"
    (data / staged).mkdir()
    for other in (data / directory).iterdir():
        if f"{directory}/{other.name}" not in paths:
            os.link(other, data / staged / other.name)
    merged = data / staged / name
    try:
        write_sorted(con, merged, topic, table, scan([pattern(data, p) for p in paths], table.columns))
    except OutOfMemoryException:
        files.discard(data / staged)
        raise
    files.fsync(data / staged)
    hooks.step("merge.written")
    path = f"{directory}/{name}"
    with counted(con, data, hooks.fence):
        con.execute(
            "INSERT INTO files SELECT topic, ?, sum(rows), min(min_time), max(max_time), 'merging', ?, ?, ? "
            "FROM files WHERE path IN (SELECT unnest(?)) GROUP BY topic",
            [path, staged, merged.stat().st_size, checksum(merged), paths],
        )
    hooks.step("merge.committed")
    if not files.exchange(data / directory, data / staged):
        abandon_merge(con, path, hooks.fence)
        files.discard(data / staged)
        return False
    hooks.step("merge.exchanged")
    finish_merge(con, data, path, hooks.fence)
    hooks.step("merge.published")
    files.retire(data, data / staged)
    return True


def finish_merge(con: DuckDBPyConnection, data: Path, path: str, fence: Fence = no_fence) -> None:
    """The directories have been exchanged: the merged file `path` is there, and what it replaces is where it was staged."""
    directory = Path(path).parent
    [(staged,)] = con.execute("SELECT staged FROM files WHERE path = ?", [path]).fetchall()
    kept, before = ({p.name for p in (data / place).iterdir()} for place in (directory, staged))
    with transaction(con, fence):
        con.execute(
            "DELETE FROM files WHERE path IN (SELECT unnest(?))",
            [[str(directory / name) for name in before - kept]],
        )
        con.execute("UPDATE files SET state = 'published', staged = NULL WHERE path = ?", [path])


def abandon_merge(con: DuckDBPyConnection, path: str, fence: Fence = no_fence) -> None:
    """The directories were not exchanged: the old files stay."""
    with transaction(con, fence):
        con.execute("DELETE FROM files WHERE path = ? AND state = 'merging'", [path])


def settle_rollups(
    con: DuckDBPyConnection,
    data: Path,
    catalog: Catalog,
    hooks: Hooks = NO_HOOKS,
) -> int:
    """Puts one file in the place of the slices of each settled directory; returns how many directories.

    Call it between two `publish`: it reads the slices' files, and the next one writes the whole file anew and records it.
    """
    newest = newest_watermark(con)
    if newest is None:
        return 0
    rolled = (rollup_table(t, w) for t in catalog.types if not t.closes for w in WIDTHS)
    tables = [table for table in rolled if table.slice != table.directory]
    minutes = [table for t in catalog.types if (table := minutes_table(t))]
    chosen = [
        (table, directory)
        for table in (*tables, *minutes, FATES_TABLE, SET_ASIDE_TABLE, READINGS_TABLE, HEALTH_TABLE)
        for directory, start in directories(data, table)
        if settled(start + (table.directory or DAY), newest) and not (directory / WHOLE).exists()
    ]
    if not chosen or not possible(data):
        return 0
    for table, directory in chosen:
        with files.disk_errors(directory):
            _mark_whole(con, data, directory, hooks.fence)
            _settle(con, data, table, directory, hooks)
        hooks.between()
    return len(chosen)


def _mark_whole(con: DuckDBPyConnection, data: Path, directory: Path, fence: Fence) -> None:
    """Before slices become one file: the marks that have it written by the next `publish`, which records it."""
    slices = f"{directory.relative_to(data)}/"
    with transaction(con, fence):
        con.execute(
            'INSERT INTO dirty SELECT "view", min(minute) FROM published WHERE starts_with(path, ?) GROUP BY "view"',
            [slices],
        )
        con.execute("DELETE FROM published WHERE starts_with(path, ?)", [slices])


def _settle(
    con: DuckDBPyConnection, data: Path, table: PublishedTable, directory: Path, hooks: Hooks
) -> None:
    # The first columns of a roll-up are its key (window and dimensions), of fates all but the last.
    slices = sorted(pattern(directory, path.name) for path in directory.glob("*.parquet"))
    names = ", ".join(quoted(name) for name, _ in table.columns)
    staged = files.staging(data) / files.token()
    staged.mkdir()
    con.execute(
        f"COPY (SELECT {names} FROM {scan(slices, table.columns)} ORDER BY ALL) "
        f"TO {literal(str(staged / WHOLE))} (FORMAT parquet, COMPRESSION zstd)"
    )
    files.fsync(staged / WHOLE)
    files.fsync(staged)
    hooks.step("settle.written")
    files.exchange(directory, staged)
    hooks.step("settle.exchanged")
    files.retire(data, staged)


def compact_partials(
    con: DuckDBPyConnection, catalog: Catalog, fence: Fence = no_fence, seconds: float = MERGE_SECONDS
) -> int:
    """Merges rows of one key in slices that are closed or were appended to often, the busiest slices first.

    Returns how many slices were merged.  Reads give the same before and after.
    """
    types = {t.view: t for t in catalog.types if not t.retained}
    widths = {w.name: w for w in WIDTHS}
    newest = newest_watermark(con) or 0
    ragged = con.execute(
        'SELECT "view", width, epoch(period)::BIGINT, sum(deltas) FROM ragged '
        "GROUP BY ALL ORDER BY 4 DESC, 1, 2, 3"
    ).fetchall()
    deadline = time.monotonic() + seconds
    done = 0
    for view, width, start, deltas in ragged:
        end = start + widths[width].slice
        if view in types and (end + PARTIALS_CLOSED_AFTER <= newest or deltas >= OPEN_DELTAS):
            _merge_slice(con, types[view], width, start, end, fence)
            done += 1
            if time.monotonic() > deadline:
                break
    return done


def _merge_slice(
    con: DuckDBPyConnection, event_type: EventType, width: str, start: int, end: int, fence: Fence
) -> None:
    inside = bounds("window_start", start, end)
    with transaction(con, fence):
        for table in partial_tables(event_type, width):
            con.execute(
                f"CREATE OR REPLACE TEMP TABLE merged AS SELECT {merge_select(event_type, table)} "
                f"FROM {table} WHERE {inside} GROUP BY ALL"
            )
            con.execute(f"DELETE FROM {table} WHERE {inside}")
            # By series: neighbouring rows have the same bits, which the storage then keeps once.
            con.execute(f"INSERT INTO {table} BY NAME SELECT * FROM merged ORDER BY series, window_start")
        con.execute(
            f"DELETE FROM ragged WHERE {quoted('view')} = {literal(event_type.view)} "
            f"AND width = {literal(width)} AND period = make_timestamp({start}::BIGINT * 1000000)"
        )
        con.execute("DROP TABLE IF EXISTS merged")


def merge_fates(con: DuckDBPyConnection, fence: Fence = no_fence) -> int:
    """Merges the counts that each delta added to the minutes now over; returns how many minutes.

    Without it a day of two deltas a second is millions of rows, which every status and every reading adds up.
    """
    return _merge_counts(con, FATES_TABLE, fence) + _merge_counts(con, SET_ASIDE_TABLE, fence)


def _merge_counts(con: DuckDBPyConnection, counted: PublishedTable, fence: Fence) -> int:
    table, key = counted.view, ", ".join(quoted(name) for name, _ in counted.columns[:-1])
    closed = f"minute < (SELECT max(minute) - INTERVAL 2 MINUTE FROM {table})"
    with transaction(con, fence):
        con.execute(
            f"CREATE OR REPLACE TEMP TABLE scattered AS SELECT minute FROM {table} WHERE {closed} GROUP BY minute "
            f"HAVING count(*) > count(DISTINCT ({key}))"
        )
        con.execute(
            f"CREATE OR REPLACE TEMP TABLE merged_counts AS SELECT {key}, sum(n)::BIGINT AS n "
            f"FROM {table} SEMI JOIN scattered USING (minute) GROUP BY ALL"
        )
        con.execute(f"DELETE FROM {table} WHERE minute IN (FROM scattered)")
        con.execute(f"INSERT INTO {table} FROM merged_counts")
        row = con.execute("SELECT count(*) FROM scattered").fetchone()
    return int(row[0]) if row else 0
