"""Publishing: roll-ups, alerts, standing and fates as Parquet files, each replaced as a whole by rename.

Every transaction that changes such a table marks the minutes it touched in `dirty`.  Publishing then

    1. opens a transaction and reads the marks
    2. writes each file that a mark touches under `DATA/staging/`, from that transaction's view of the ledger
    3. renames them into place
    4. takes the marks away and commits

What is not all is published part by part (`parts`), each a transaction of its own, so that the alerts need not wait for
the roll-ups of a bill of weeks.

A kill before 4 leaves the marks, and the same files are written again.  A file's content follows from the
ledger's rows alone, in a fixed order: any batching of the same events gives the same content.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from duckdb import DuckDBPyConnection

from pipeline.catalog import Catalog, EventType
from pipeline.history import gpu_minutes
from pipeline.history.alerts_now import alerts_now_select
from pipeline.history.retention import Keep, cut
from pipeline.history.rollup_select import charges_select, newest_charges, partials_select
from pipeline.history.verify import note_published
from pipeline.ledger import files
from pipeline.ledger.alert_notes import standing_select
from pipeline.ledger.frontier import newest_watermark
from pipeline.ledger.transaction import NO_HOOKS, Hooks, transaction
from pipeline.rollup.grid import DAY, HOUR
from pipeline.rollup.quoting import literal, quoted
from pipeline.views.published import (
    ALERTS_NOW_TABLE,
    ALERTS_TABLE,
    MOMENT,
    PLAIN_TABLES,
    STANDING_TABLE,
    WIDTHS,
    PublishedTable,
    minutes_table,
    rollup_table,
)

PLAIN = {table.view: table for table in PLAIN_TABLES}
WHOLE = "all.parquet"
SETTLED_AFTER = 600
"""A directory of roll-ups gets one file when the newest watermark is so many seconds past it."""


@dataclass(frozen=True, slots=True)
class PublishedFile:
    """One file to be written, at `path` relative to DATA; `view` and `minute` (epoch seconds): a mark that is about it."""

    path: str
    select: str
    view: str = field(compare=False)
    minute: int = field(compare=False)


EVERYTHING = "true"
OWN = f"""\"view\" IN ({", ".join(literal(table.view) for table in PLAIN_TABLES)})"""
"""Parts of what is to be published, as conditions on its marks: all of it, and all but the roll-ups."""


def parts(con: DuckDBPyConnection, catalog: Catalog) -> list[str]:
    """The marks of roll-ups in parts that take about a second each: a day of telemetry, a week of charges."""
    found: list[str] = []
    minutes = (table.view for event in catalog.types if (table := minutes_table(event)))
    retained = {event.view: event.retained for event in catalog.types} | dict.fromkeys(minutes, False)
    for view, weekly in retained.items():
        days = con.execute(
            'SELECT DISTINCT time_bucket(?::INTERVAL, minute) FROM dirty WHERE "view" = ? ORDER BY 1',
            ["7 days" if weekly else "1 day", view],
        ).fetchall()
        span = "INTERVAL 7 DAY" if weekly else "INTERVAL 1 DAY"
        found += (
            f"\"view\" = {literal(view)} AND minute >= TIMESTAMP '{day}' AND minute < TIMESTAMP '{day}' + {span}"
            for (day,) in days
        )
    return found


def publish(
    con: DuckDBPyConnection,
    data: Path,
    catalog: Catalog,
    keep: Keep | None = None,
    hooks: Hooks = NO_HOOKS,
    part: str = EVERYTHING,
    first: Callable[[DuckDBPyConnection], None] | None = None,
) -> int:
    """Brings the published files of a part up to date with the ledger; returns how many were written.

    `con` is a cursor of its own; appends by other cursors go on meanwhile and wait for the next call.  `first` is called
    within the transaction, and what it writes is published with the rest, as of the same instant.
    """
    files.sweep(data)
    with files.disk_errors(data), transaction(con, hooks.fence):
        if first:
            first(con)
        for event in catalog.types:
            if minutes_table(event):
                gpu_minutes.mark_due(con, event)
        marks = con.execute(
            f'SELECT "view", epoch(minute)::BIGINT, count(*) FROM dirty WHERE {part} GROUP BY ALL ORDER BY ALL'
        ).fetchall()
        newest = newest_watermark(con)
        wanted = dict.fromkeys(_files(data, catalog, keep or Keep(), newest, marks))
        _choose_charges(con, catalog, wanted)
        written = [(file, *stage(con, data, file)) for file in wanted]
        con.execute("DROP TABLE IF EXISTS temp.newest")
        note_published(con, ((f.path, f.view, f.minute, rows, at) for f, at, rows in written))
        staged = [(at, data / file.path) for file, at, _ in written]
        hooks.step("publish.written")
        for source, target in staged:
            files.move(source, target)
            hooks.step("publish.renamed")
        for directory in {target.parent for _, target in staged}:
            files.fsync(directory)
        con.execute(f"DELETE FROM dirty WHERE {part}")
        _note_ragged(con, catalog, marks)
    hooks.step("publish.committed")
    return len(staged)


def _choose_charges(con: DuckDBPyConnection, catalog: Catalog, wanted: Iterable[PublishedFile]) -> None:
    """Once for all files of a part: to find the newest revisions takes as long for a day as for a week."""
    for event in catalog.types:
        days = [file.minute for file in wanted if event.retained and file.view == event.view]
        if days:
            newest = newest_charges(event, min(days), max(days) + DAY)
            con.execute(f"CREATE OR REPLACE TEMP TABLE newest AS {newest}")


def stage(con: DuckDBPyConnection, data: Path, file: PublishedFile) -> tuple[Path, int]:
    """Writes and fsyncs a file under `DATA/staging/`, to be renamed into place; where it stands, and its rows."""
    target = files.staging(data) / f"{files.token()}.parquet"
    row = con.execute(
        f"COPY ({file.select}) TO {literal(str(target))} (FORMAT parquet, COMPRESSION zstd)"
    ).fetchone()
    files.fsync(target)
    return target, int(row[0]) if row else 0


def _files(
    data: Path, catalog: Catalog, keep: Keep, newest: int | None, marks: Iterable[tuple[str, int, int]]
) -> Iterator[PublishedFile]:
    """Every file that a mark touches, but those beyond retention, whose ledger rows are going or gone."""
    views = {t.view: t for t in catalog.types}
    counted = {table.view: t for t in catalog.types if (table := minutes_table(t))}
    for view, minute, _ in marks:
        if view in counted:
            yield from _minutes_file(data, counted[view], keep, minute, newest)
        elif view in views:
            yield from _minutes_file(data, views[view], keep, minute, newest)
            for width in WIDTHS:
                table = rollup_table(views[view], width)
                if newest is None or minute >= cut(newest, keep.widths[width.name], table.directory or DAY):
                    yield _rollup_file(data, views[view], table, minute, newest)
        elif (table := PLAIN[view]).directory is None:
            select = standing_select() if table is STANDING_TABLE else _plain_select(view, table, "")
            yield PublishedFile(f"{table.root}/{view}.parquet", select, view, 0)
        else:
            yield _plain_file(data, table, MOMENT[view], minute, newest)
            if table is ALERTS_TABLE:
                path = f"{ALERTS_NOW_TABLE.root}/{ALERTS_NOW_TABLE.view}.parquet"
                yield PublishedFile(path, alerts_now_select(), view, minute)


def _minutes_file(
    data: Path, event_type: EventType, keep: Keep, minute: int, newest: int | None
) -> Iterator[PublishedFile]:
    """The file of GPU-minutes that has this minute, unless the ledger can no longer count them."""
    if table := minutes_table(event_type):
        first = 0 if newest is None else cut(newest, keep.widths["1m"], DAY)
        path, start, end = place(data, table, minute, newest)
        if not gpu_minutes.kept(data, path, minute, first):
            select = gpu_minutes.minutes_select(event_type, start, end, first)
            yield PublishedFile(path, select, table.view, start)


def _rollup_file(
    data: Path, event_type: EventType, table: PublishedTable, moment: int, newest: int | None
) -> PublishedFile:
    path, start, end = place(data, table, moment, newest)
    width = next(w for w in WIDTHS if table.view.endswith(f"_{w.name}"))
    build = charges_select if event_type.retained else partials_select
    return PublishedFile(path, build(event_type, width, start, end), event_type.view, start)


def _plain_file(
    data: Path, table: PublishedTable, column: str, moment: int, newest: int | None
) -> PublishedFile:
    path, start, end = place(data, table, moment, newest)
    where = (
        f"WHERE {quoted(column)} >= make_timestamp({start}::BIGINT * 1000000) "
        f"AND {quoted(column)} < make_timestamp({end}::BIGINT * 1000000)"
    )
    return PublishedFile(path, _plain_select(table.view, table, where), table.view, start)


def _plain_select(name: str, table: PublishedTable, where: str) -> str:
    """All columns, sorted by all: equal rows are the only ties.  Counts (`n`) of one key are summed."""
    names = [quoted(column) for column, _ in table.columns]
    if name in ("fates", "set_aside"):
        names[-1] = "sum(n)::BIGINT AS n"
        where += " GROUP BY ALL"
    return f"SELECT {', '.join(names)} FROM {name} {where} ORDER BY ALL"


def place(data: Path, table: PublishedTable, moment: int, newest: int | None = None) -> tuple[str, int, int]:
    """(path relative to DATA, start, end) of the file that holds `moment`, in epoch seconds.

    A directory that has settled has one file for all of it; before that, one for each slice.  One that is
    older than the `newest` watermark before it has any file never gets slices: a backlog is written once.
    """
    span, part = table.directory or DAY, table.slice or DAY
    first = moment // span * span
    directory = f"{table.root}/{datetime.fromtimestamp(first, UTC):date=%Y-%m-%d}"
    if span == HOUR:
        directory += f"/{datetime.fromtimestamp(first, UTC):hour=%H}"
    missed = newest is not None and settled(first + span, newest) and not (data / directory).exists()
    if part == span or missed or (data / directory / WHOLE).exists():
        return f"{directory}/{WHOLE}", first, first + span
    start = moment // part * part
    return f"{directory}/{datetime.fromtimestamp(start, UTC):%H%M}.parquet", start, start + part


def settled(end: int, newest: int) -> bool:
    """Whether hardly any late row is still to come for a time that ended at `end`, in epoch seconds."""
    return end + SETTLED_AFTER <= newest


def _note_ragged(con: DuckDBPyConnection, catalog: Catalog, marks: Sequence[tuple[str, int, int]]) -> None:
    """Adds to `ragged` how many deltas touched each slice: at most the marks of its busiest minute."""
    types: Mapping[str, EventType] = {t.view: t for t in catalog.types if not t.retained}
    deltas: dict[tuple[str, str, int], int] = {}
    for view, minute, count in marks:
        for width in WIDTHS if view in types else ():
            key = (view, width.name, minute // width.slice * width.slice)
            deltas[key] = max(deltas.get(key, 0), count)
    for (view, name, period), count in deltas.items():
        con.execute(
            "INSERT INTO ragged VALUES (?, ?, make_timestamp(?::BIGINT * 1000000), ?)",
            [view, name, period, count],
        )
