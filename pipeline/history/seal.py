"""Sealing: the private segments of many deltas become one sorted, public file for each hour of event time.

    1. write each hour of the segments, sorted, under `DATA/staging/` and fsync it
    2. one ledger transaction: record the final names as `renaming`, take the segments' records away
    3. rename into `DATA/history/<topic>/date=…/hour=…/`, fsync the directories
    4. mark the names `published`
    5. delete the segments' files

A kill before 2 leaves the segments as they were, and `staging/` to be emptied; one after 2 is completed by
`recover`.  So every row is in exactly one committed place at any moment.  Sealing, compaction and retention
run one after the other, never at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TypeVar

from duckdb import DuckDBPyConnection, OutOfMemoryException

from pipeline.catalog import Catalog
from pipeline.errors import LedgerError
from pipeline.history.sorted_columns import DENSE, QUICK, ROW_GROUP, columns_writer
from pipeline.history.verify import checksum
from pipeline.ledger import files
from pipeline.ledger.counter import counted
from pipeline.ledger.stamped import stamped_rows
from pipeline.ledger.transaction import NO_HOOKS, Fence, Hooks, transaction
from pipeline.rollup.grid import HOUR
from pipeline.rollup.quoting import literal, quoted
from pipeline.views.published import QUARANTINE, QUARANTINE_TABLE, PublishedTable, raw_table

T = TypeVar("T")
ROWS_AT_ONCE = 500_000
"""Segments beyond this many rows become files of their own, so that a backlog's sort fits in memory.

DuckDB has 600 MB by default.  A row of the GPU type takes about 600 bytes, half of them its key, while it is sorted, and
what cannot be spilt in time ends the sort.
"""
HOURS_AT_ONCE = 4
"""Segments of more hours are gathered in a table first: a bill has thousands, and each would read all segments again."""


@dataclass(frozen=True, slots=True)
class Unsealed:
    """A segment that waits to be sealed; `known_from` as in `Stamped`, `low` and `high` the least and greatest time in it."""

    file: Path
    known_from: datetime | None
    rows: int
    low: datetime
    high: datetime


@dataclass(frozen=True, slots=True)
class Hour:
    """What is sealed of one hour: its start, its rows, and the least and greatest time in them."""

    start: datetime
    rows: int
    low: datetime
    high: datetime


@dataclass(frozen=True, slots=True)
class Staged:
    """A written and fsynced file, and where it will be published; both relative to DATA."""

    staged: str
    path: str
    rows: int
    min_time: datetime
    max_time: datetime
    size: int
    checksum: str


def history_table(catalog: Catalog, topic: str) -> PublishedTable:
    """The raw history table of a topic or of `quarantine`; LedgerError for one the schemas do not know."""
    if topic == QUARANTINE:
        return QUARANTINE_TABLE
    try:
        return raw_table(catalog.by_topic(topic))
    except KeyError:
        raise LedgerError(
            f"ledger: segments of topic {topic!r} wait to be sealed, but no schema file declares that topic; "
            "put its schema back, seal, and remove it then"
        ) from None


def hour_column(topic: str) -> str:
    """The column that decides a row's hour.  A quarantined time may be absurd, so its record's time does."""
    return "coalesce(record_time, time)" if topic == QUARANTINE else "time"


def seal(
    con: DuckDBPyConnection,
    data: Path,
    catalog: Catalog,
    hooks: Hooks = NO_HOOKS,
) -> int:
    """Publishes the rows of every committed segment; returns how many.  `con` is a cursor of its own."""
    found = list(_sets(con, data))
    waiting = [(topic, segments) for topic, segments in reversed(found)]
    while waiting:
        topic, segments = waiting.pop()
        try:
            _seal_set(con, data, catalog, topic, segments, hooks)
        except OutOfMemoryException as error:
            waiting += [(topic, half) for half in reversed(_halves(segments, error))]
    return sum(s.rows for _, segments in found for s in segments)


def _halves(segments: list[Unsealed], error: OutOfMemoryException) -> tuple[list[Unsealed], list[Unsealed]]:
    """What is sealed in two steps where DuckDB's memory does not suffice for one."""
    if len(segments) == 1:
        raise LedgerError(
            f"{segments[0].file}: to sort it needs more memory than DuckDB may use ({str(error).splitlines()[0]}); "
            "raise memory_limit, then start again: nothing is lost"
        ) from error
    middle = len(segments) // 2
    return segments[:middle], segments[middle:]


def _sets(con: DuckDBPyConnection, data: Path) -> Iterator[tuple[str, list[Unsealed]]]:
    """(topic, segments) in pieces of at most ROWS_AT_ONCE rows, or of one segment, oldest segments first."""
    records = con.execute(
        "SELECT topic, segment, known_from, rows, min_time, max_time FROM segments ORDER BY topic, rowid"
    ).fetchall()
    for topic, of_topic in groupby(records, key=itemgetter(0)):
        segments = (Unsealed(data / "segments" / name, *told) for _, name, *told in of_topic)
        for chosen in in_groups(((segment, segment.rows) for segment in segments), ROWS_AT_ONCE):
            yield topic, chosen


def in_groups(counted: Iterable[tuple[T, int]], most: int) -> Iterator[list[T]]:
    """What has rows (it and their number), in groups of at most `most` rows, or of one."""
    chosen: list[T] = []
    held = 0
    for one, rows in counted:
        if chosen and held + rows > most:
            yield chosen
            chosen, held = [], 0
        chosen.append(one)
        held += rows
    if chosen:
        yield chosen


def _seal_set(
    con: DuckDBPyConnection,
    data: Path,
    catalog: Catalog,
    topic: str,
    segments: Sequence[Unsealed],
    hooks: Hooks,
) -> None:
    table = history_table(catalog, topic)
    event = None if topic == QUARANTINE else catalog.by_topic(topic)
    windowed = event is not None and not event.retained
    paths = [segment.file for segment in segments]
    stamped = [(segment.file, segment.known_from) for segment in segments]
    rows = f"({stamped_rows(stamped, table, windowed)})"
    with files.disk_errors(data / table.root):
        hours = _hours(con, topic, segments, rows)
        by_columns = columns_writer(stamped, event, table) if event and windowed and len(hours) == 1 else None
        if len(hours) > HOURS_AT_ONCE:
            gathered = (
                f"CREATE OR REPLACE TEMP TABLE sealing AS SELECT * FROM {rows} ORDER BY {hour_column(topic)}"
            )
            con.execute(gathered)
            rows = "sealing"
        written: list[Staged] = []
        try:
            for hour in hours:
                write = by_columns or partial(_write_hour, con, topic, table, rows, hour)
                written.append(_stage(data, table, hour, write))
                hooks.between()
        except OutOfMemoryException:
            con.execute("DROP TABLE IF EXISTS sealing")
            for staged in written:
                files.discard(data / staged.staged)
            raise
        con.execute("DROP TABLE IF EXISTS sealing")
        files.fsync(files.staging(data))
        hooks.step("seal.written")
        _commit(con, data, topic, [path.name for path in paths], written, hooks.fence)
        hooks.step("seal.committed")
        for staged in written:
            publish_staged(data, staged.staged, staged.path)
            hooks.step("seal.renamed")
            hooks.between()
        mark_published(con, [staged.path for staged in written], hooks.fence)
        hooks.step("seal.published")
        for path in paths:
            files.discard(path)


def _hours(con: DuckDBPyConnection, topic: str, segments: Sequence[Unsealed], rows: str) -> list[Hour]:
    """The hours of what is sealed: mostly it is one, and then the records say so."""
    if topic != QUARANTINE:
        low, high = min(s.low for s in segments), max(s.high for s in segments)
        start = low.replace(minute=0, second=0, microsecond=0)
        if high < start + timedelta(seconds=HOUR):
            return [Hour(start, sum(s.rows for s in segments), low, high)]
    bucket = f"time_bucket(INTERVAL 1 HOUR, {hour_column(topic)})"
    found = con.execute(f"SELECT {bucket}, count(*), min(time), max(time) FROM {rows} GROUP BY 1 ORDER BY 1")
    return [Hour(*one) for one in found.fetchall()]


def _stage(data: Path, table: PublishedTable, hour: Hour, write: Callable[[Path], None]) -> Staged:
    name = files.token()
    files.staging(data)
    staged = f"staging/{name}.parquet"
    try:
        write(data / staged)
    except OutOfMemoryException:
        files.discard(data / staged)
        raise
    path = f"{table.root}/date={hour.start:%Y-%m-%d}/hour={hour.start:%H}/{name}.parquet"
    size = (data / staged).stat().st_size
    return Staged(staged, path, hour.rows, hour.low, hour.high, size, checksum(data / staged))


def _write_hour(
    con: DuckDBPyConnection, topic: str, table: PublishedTable, rows: str, hour: Hour, target: Path
) -> None:
    column, end = hour_column(topic), hour.start + timedelta(seconds=HOUR)
    where = f"{column} >= TIMESTAMP '{hour.start}' AND {column} < TIMESTAMP '{end}'"
    write_sorted(con, target, topic, table, f"{rows} WHERE {where}", QUICK)


def write_sorted(
    con: DuckDBPyConnection, target: Path, topic: str, table: PublishedTable, source: str, level: int = DENSE
) -> None:
    """Writes and fsyncs `SELECT … FROM source`, sorted by everything that is not a measure of one moment.

    Neighbouring rows of one GPU compress best and are what a query for one cluster reads.
    """
    con.execute(
        f"COPY (SELECT {', '.join(quoted(name) for name, _ in table.columns)} FROM {source} "
        f"ORDER BY {sort_key(topic, table)}) TO {literal(str(target))} "
        f"(FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL {level}, ROW_GROUP_SIZE {ROW_GROUP})"
    )
    files.fsync(target)


def sort_key(topic: str, table: PublishedTable) -> str:
    """Text columns that come before the measures, then time and identity: a total order of the rows."""
    if topic == QUARANTINE:
        return "record_time, topic, part, record_offset, idx, field"
    names = [name for name, kind in table.columns]
    leading = []
    for name, kind in table.columns[1:]:
        if kind != "VARCHAR" or name == "source":
            break
        leading.append(quoted(name))
    return ", ".join(
        [*leading, *(quoted(n) for n in ("time", "source", "id", "idx", "known_from") if n in names)]
    )


def _commit(
    con: DuckDBPyConnection,
    data: Path,
    topic: str,
    segments: Sequence[str],
    written: Sequence[Staged],
    fence: Fence,
) -> None:
    with counted(con, data, fence):
        columns = zip(
            *((s.path, s.rows, s.min_time, s.max_time, s.staged, s.size, s.checksum) for s in written),
            strict=True,
        )
        con.execute(
            "INSERT INTO files SELECT $1, unnest($2::VARCHAR[]), unnest($3::BIGINT[]), unnest($4::TIMESTAMP[]), "
            "unnest($5::TIMESTAMP[]), 'renaming', unnest($6::VARCHAR[]), unnest($7::BIGINT[]), unnest($8::VARCHAR[])",
            [topic, *map(list, columns)],
        )
        con.execute(
            "DELETE FROM segments WHERE topic = ? AND segment IN (SELECT unnest(?))", [topic, list(segments)]
        )


def publish_staged(data: Path, staged: str, path: str) -> None:
    """Step 3: the rename that shows a committed file to readers."""
    files.move(data / staged, data / path)
    files.fsync((data / path).parent)


def mark_published(con: DuckDBPyConnection, paths: Sequence[str], fence: Fence) -> None:
    """Step 4: these committed files (relative to DATA) are where readers see them."""
    with transaction(con, fence):
        con.execute(
            "UPDATE files SET state = 'published', staged = NULL WHERE path IN (SELECT unnest(?))",
            [list(paths)],
        )
