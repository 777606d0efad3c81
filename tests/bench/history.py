"""A large published history, made: what a fleet of 1 GW would leave in 90 days, in minutes and a few gigabytes.

    python tests/bench/history.py DIRECTORY [--days 90]

Files are where publishing puts them (`publish.place`), with the columns, order and compression that it gives them:
settled directories hold one file, the open ones their slices.  Everything is as long as retention keeps it, but the
tables of GPUs by rack are smaller than real ones before `WHOLE`: those by the minute and finer have one rack of each
cluster, those by the quarter of an hour and wider every rack with its counts, whose measures stand still for hours.
Raw events, quarantine and the ledger are left out.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import duckdb
from history_promises import (
    alerts_rows,
    contract_text,
    fates_rows,
    health_rows,
    promised_table,
    readings_rows,
    standing_rows,
)  # fmt: skip
from history_rows import fleet_spec, minutes_rows, rollup_rows, series_of, series_table

from pipeline import catalog
from pipeline.clauses import load_all, plan_of
from pipeline.history import publish
from pipeline.history.alerts_now import alerts_now_select
from pipeline.history.retention import Keep
from pipeline.ledger import files
from pipeline.ledger.store import Ledger
from pipeline.rollup.grid import DAY, HOUR, MINUTE
from pipeline.simulate.fleet_spec import FleetSpec
from pipeline.views.published import (
    ALERTS_NOW_TABLE,
    ALERTS_TABLE,
    CLAUSES_TABLE,
    FATES_TABLE,
    HEALTH_TABLE,
    READINGS_TABLE,
    STANDING_TABLE,
    WIDTHS,
    WINDOWS_TABLE,
    PublishedTable,
    minutes_table,
    rollup_table,
)

WHOLE = {"10s": HOUR, "1m": 25 * HOUR, "15m": 8 * DAY, "1h": 30 * DAY, "1d": 10 * 365 * DAY}
"""Seconds before the end from which on a table of GPUs by rack is as large as a real one."""
STILL = DAY // 4
"""Seconds for which measures stand still in the wider tables before that."""
Select = Callable[[int, int], str]


@dataclass(frozen=True)
class Made:
    """A history that ends at `newest` (epoch s, its watermark) and goes back `days`."""

    data: Path
    newest: int
    days: int = 90

    @property
    def oldest(self) -> int:
        return self.newest // DAY * DAY - self.days * DAY


def reported() -> catalog.Catalog:
    """The event types that the fleet reports; its bills come without deliveries."""
    return catalog.Catalog(tuple(event for event in catalog.load().types if not event.closes))


def make(data: Path, newest: int, days: int = 90, spec: FleetSpec | None = None) -> Made:
    """Writes it below `data`; about seven minutes and five gigabytes for 90 days of the whole fleet."""
    made, spec, types = Made(data, newest // MINUTE * MINUTE, days), spec or fleet_spec(), reported()
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        con.execute("SET enable_progress_bar = false")
        con.execute("SET memory_limit = '3GB'")
        for event_type in types.types:
            con.execute(series_table(event_type, series_of(spec, event_type.view)))
        for table, since, select in tables(types, made):
            write(con, made, table, since, select)
        con.execute(promised_table(spec))
        keep = Keep()
        for table, seconds, select in (
            (READINGS_TABLE, keep.readings, readings_rows),
            (ALERTS_TABLE, keep.alerts, partial(alerts_rows, made.newest)),
            (FATES_TABLE, keep.fates, fates_rows),
            (HEALTH_TABLE, keep.health, health_rows),
        ):
            write(con, made, table, max(made.oldest, made.newest - seconds), select)
        standing = publish.PublishedFile(
            f"{STANDING_TABLE.root}/standing.parquet",
            standing_rows(made.newest, made.newest - 20 * DAY),
            STANDING_TABLE.view,
            0,
        )
        changes = alerts_rows(made.newest, made.oldest, made.newest + 1)
        now = publish.PublishedFile(
            f"{ALERTS_NOW_TABLE.root}/alerts_now.parquet",
            alerts_now_select(f"({changes})"),
            ALERTS_NOW_TABLE.view,
            0,
        )
        for file in (standing, now):
            files.move(publish.stage(con, data, file)[0], data / file.path)
    write_contract(made, spec, types)
    return made


def tables(types: catalog.Catalog, made: Made) -> Iterator[tuple[PublishedTable, int, Select]]:
    """(table, its oldest second, its rows between two seconds) of all roll-ups."""
    keep = Keep()
    for event_type in types.types:
        if minutes := minutes_table(event_type):
            yield (
                minutes,
                max(made.oldest, made.newest - keep.widths["1h"]),
                partial(minutes_rows, event_type),
            )
        for width in WIDTHS:
            since = max(made.oldest, made.newest - keep.widths[width.name])
            whole = made.newest - WHOLE[width.name] if event_type.entity else 0

            def rows(start: int, end: int, event_type=event_type, width=width, whole=whole) -> str:  # type: ignore[no-untyped-def]
                cut, wide = end <= whole, width.seconds >= 900
                still = STILL if cut and wide else 1
                return rollup_rows(
                    event_type, width.seconds, start, end, still=still, leads_only=cut and not wide
                )

            yield rollup_table(event_type, width), since, rows


def write(
    con: duckdb.DuckDBPyConnection, made: Made, table: PublishedTable, since: int, select: Select
) -> None:
    """Every file of a dated table from `since` to the end, each at its place."""
    at = since // (table.directory or DAY) * (table.directory or DAY)
    while at <= made.newest:
        path, start, end = publish.place(made.data, table, at, made.newest)
        file = publish.PublishedFile(path, select(start, min(end, made.newest + 1)), table.view, start)
        files.move(publish.stage(con, made.data, file)[0], made.data / path)
        at = end


def write_contract(made: Made, spec: FleetSpec, types: catalog.Catalog) -> None:
    """The tables of clauses and windows, as a ledger that goes by the contract publishes them."""
    day = made.newest // DAY * DAY
    text = contract_text(
        spec, *(date(at) for at in (min(made.oldest, day - 30 * DAY), day - 20 * DAY, day + 60 * DAY))
    )
    contract = made.data / "contracts" / "contract.yaml"
    contract.parent.mkdir(parents=True, exist_ok=True)
    contract.write_text(text, "utf-8")
    with tempfile.TemporaryDirectory(dir=made.data) as name:
        ledger = Ledger(Path(name), types)
        try:
            contracts = load_all(contract.parent)
            ledger.use(contracts, plan_of(contracts, types), made.newest)
            publish.publish(ledger.con, Path(name), types)
        finally:
            ledger.close()
        for table in (CLAUSES_TABLE, WINDOWS_TABLE):
            for path in (Path(name) / table.root).glob("*.parquet"):
                files.move(path, made.data / table.root / path.name)


def date(at: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(at))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--days", type=int, default=90)
    given = parser.parse_args()
    began = time.monotonic()
    make(given.directory, int(time.time()), given.days)
    paths = list(given.directory.rglob("*.parquet"))
    size = sum(path.stat().st_size for path in paths)
    print(f"{len(paths):,} files, {size / 1e9:.2f} GB, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
