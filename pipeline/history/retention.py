"""How long each table is kept, and the removal of what is older, from the readers' files and the ledger.

Age is counted from the newest watermark, not from a wall clock: the replay of an old day keeps its history,
and a pipeline that stands still forgets nothing; nor is what is still to be evaluated too old.  Cuts fall on whole
directories (an hour or a day), so that the ledger can rewrite every published file that is still there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from duckdb import DuckDBPyConnection

from pipeline.catalog import Catalog, EventType
from pipeline.ledger import deliveries, files
from pipeline.ledger.frontier import least_evaluated, newest_watermark
from pipeline.ledger.transaction import Fence, no_fence, transaction
from pipeline.rollup.grid import DAY, HOUR
from pipeline.views.published import (
    ALERTS_TABLE,
    FATES_TABLE,
    FORECASTS_TABLE,
    HEALTH_TABLE,
    MOMENT,
    QUARANTINE_TABLE,
    READINGS_TABLE,
    SET_ASIDE_TABLE,
    WIDTHS,
    PublishedTable,
    minutes_table,
    raw_table,
    rollup_table,
)

YEAR = 365 * DAY


def _widths() -> Mapping[str, int]:
    return {"10s": 2 * DAY, "1m": 30 * DAY, "15m": 180 * DAY, "1h": 2 * YEAR, "1d": 10 * YEAR}


@dataclass(frozen=True, slots=True)
class Keep:
    """Seconds that each kind of table is kept.  Charges, and reports that may be revised, stay in the ledger as long as the
    widest roll-up.

    `outbox`: what was delivered; what waits or was refused stays.
    """

    raw: int = 90 * DAY
    widths: Mapping[str, int] = field(default_factory=_widths)
    fates: int = 90 * DAY
    health: int = 90 * DAY
    readings: int = 180 * DAY
    alerts: int = 10 * YEAR
    forecasts: int = 10 * YEAR
    tallies: int = 400 * DAY
    outbox: int = 7 * DAY


def cut(newest: int, keep: int, directory: int) -> int:
    """The start of the oldest directory that is kept, in epoch seconds."""
    return (newest - keep) // directory * directory


def kept_tables(catalog: Catalog, keep: Keep) -> Iterator[tuple[PublishedTable, int]]:
    """Every dated table with the seconds that it is kept."""
    for event_type in catalog.types:
        yield raw_table(event_type), keep.raw
        for width in WIDTHS if not event_type.closes else ():
            yield rollup_table(event_type, width), keep.widths[width.name]
        if minutes := minutes_table(event_type):
            yield minutes, keep.widths["1h"]
    yield QUARANTINE_TABLE, keep.raw
    yield from _plain(keep)


def _plain(keep: Keep) -> tuple[tuple[PublishedTable, int], ...]:
    """The dated tables that are the same in ledger and files, each with the seconds that it is kept."""
    return (
        (FATES_TABLE, keep.fates), (SET_ASIDE_TABLE, keep.fates), (HEALTH_TABLE, keep.health), (READINGS_TABLE, keep.readings),
        (ALERTS_TABLE, keep.alerts),
    )  # fmt: skip


def prune(
    con: DuckDBPyConnection, data: Path, catalog: Catalog, keep: Keep | None = None, fence: Fence = no_fence
) -> int:
    """Removes everything older than `keep`; returns how many published directories went."""
    keep = keep or Keep()
    _prune_outbox(con, keep.outbox, fence)
    newest = newest_watermark(con)
    if newest is None:
        return 0
    gone = 0
    for table, seconds in kept_tables(catalog, keep):
        oldest = cut(newest, seconds, table.directory or DAY)
        # The files first: a kill in between leaves records of files that are gone; the next run removes them.
        for directory, start in list(directories(data, table)):
            if start < oldest:
                files.retire(data, directory)
                gone += 1
                con.execute(
                    "DELETE FROM published WHERE starts_with(path, ?)", [f"{directory.relative_to(data)}/"]
                )
        _forget_files(con, data, table, oldest, fence)
    for event_type in catalog.types:
        _prune_ledger(con, event_type, keep, newest, fence)
    for table, seconds in _plain(keep):
        _delete(con, table.view, MOMENT[table.view], cut(newest, seconds, DAY), fence)
    _delete(con, FORECASTS_TABLE.view, "time", cut(newest, keep.forecasts, DAY), fence)
    _delete(con, "tallies", "ends", cut(newest, keep.tallies, DAY), fence)
    return gone


def _prune_outbox(con: DuckDBPyConnection, keep: int, fence: Fence) -> None:
    """What was delivered so long before the newest change, by the clock of the process that wrote both."""
    row = con.execute("SELECT epoch(max(created))::BIGINT FROM outbox").fetchone()
    if row and row[0] is not None:
        _delete(con, "outbox", "created", row[0] - keep, fence, "delivered IS NOT NULL")


def directories(data: Path, table: PublishedTable) -> Iterator[tuple[Path, int]]:
    """(innermost directory, its start in epoch seconds) of a dated table, oldest first."""
    for date in sorted((data / table.root).glob("date=*")):
        if table.directory == HOUR:
            for hour in sorted(date.glob("hour=*")):
                yield hour, _start(date.name, hour.name)
        else:
            yield date, _start(date.name, "hour=00")


def _start(date: str, hour: str) -> int:
    moment = datetime.strptime(f"{date} {hour}", "date=%Y-%m-%d hour=%H")
    return int(moment.replace(tzinfo=UTC).timestamp())


def _forget_files(
    con: DuckDBPyConnection, data: Path, table: PublishedTable, oldest: int, fence: Fence
) -> None:
    if not table.root.startswith("history/"):
        return
    for date in sorted((data / table.root).glob("date=*")):
        if not any(date.iterdir()):
            files.retire(data, date)
    # By path and not by time: a quarantined row's own time may be anything.
    oldest_path = f"{table.root}/{datetime.fromtimestamp(oldest, UTC):date=%Y-%m-%d/hour=%H}/"
    with transaction(con, fence):
        con.execute(
            "DELETE FROM files WHERE state = 'published' AND starts_with(path, ?) AND path < ?",
            [f"{table.root}/", oldest_path],
        )


def _prune_ledger(
    con: DuckDBPyConnection, event_type: EventType, keep: Keep, newest: int, fence: Fence
) -> None:
    if event_type.retained:
        oldest = cut(newest, max(keep.widths.values()), DAY)
        _delete(con, event_type.kept, event_type.window_time or "time", oldest, fence)
        if event_type.closes:
            deliveries.prune(con, fence)
        return
    if event_type.revision:
        oldest = cut(newest, max(keep.widths.values()), DAY)
        _delete(con, f"revised_{event_type.view}", "time", oldest, fence)
    evaluated = least_evaluated(con, event_type.topic)
    read_from = newest if evaluated is None else min(newest, evaluated)
    for width in WIDTHS:
        since = (
            read_from if width is WIDTHS[0] else newest
        )  # readings look back from the instant that is next
        oldest = cut(since, keep.widths[width.name], rollup_table(event_type, width).directory or DAY)
        for table in partial_tables(event_type, width.name):
            _delete(con, table, "window_start", oldest, fence)


def partial_tables(event_type: EventType, width: str) -> list[str]:
    """The ledger tables that hold one width of an event type's partial roll-ups."""
    kinds = ["partials"]
    if event_type.entity:
        kinds.append("bits")
    if event_type.histograms:
        kinds.append("hist")
    return [f"{kind}_{event_type.view}_{width}" for kind in kinds]


def _delete(
    con: DuckDBPyConnection, table: str, column: str, oldest: int, fence: Fence, also: str = "true"
) -> None:
    before = f'"{column}" < make_timestamp({oldest}::BIGINT * 1000000) AND {also}'
    # A look first: most rounds find nothing, and a look writes nothing to the log.
    if con.execute(f'SELECT 1 FROM "{table}" WHERE {before} LIMIT 1').fetchone() is None:
        return
    with transaction(con, fence):
        con.execute(f'DELETE FROM "{table}" WHERE {before}')
