"""The ledger's tables, and how an older ledger becomes a newer one.

Hot tables have no index and are only appended to: readers `GROUP BY`, a compactor merges.  `{view}` is the
short name of an event type; what its tables hold follows from its schema file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import duckdb

from pipeline.catalog import MONEY, Catalog, EventType
from pipeline.errors import LedgerError
from pipeline.ledger.deliveries import COUNTED, DELIVERED
from pipeline.ledger.pulses import pulses_table
from pipeline.ledger.revisions import revised_table
from pipeline.ledger.seen import seen_ddl, seen_migration
from pipeline.ledger.sightings import share_all, sightings_tables
from pipeline.rollup.aggregate import BLOCK_BITS, content_sql, partial_columns
from pipeline.rollup.grid import WIDTHS
from pipeline.rollup.histogram import lower_bound_sql, upper_bound_sql
from pipeline.views.published import PLAIN_TABLES, STANDING_COLUMNS, Columns

SCHEMA_VERSION = 9

_OWN: Mapping[str, Columns] = {
    "meta": (("key", "VARCHAR"), ("value", "VARCHAR")),
    "offsets": (
        ("topic", "VARCHAR"),
        ("part", "INTEGER"),
        ("next_offset", "BIGINT"),
        ("progress", "TIMESTAMP"),
        ("progress_at", "TIMESTAMP"),
    ),
    "frontier": (("topic", "VARCHAR"), ("watermark", "TIMESTAMP"), ("instant", "TIMESTAMP")),
    "evaluated": (("group", "VARCHAR"), ("instant", "TIMESTAMP"), ("began", "TIMESTAMP")),
    "segments": (
        ("segment", "VARCHAR"),
        ("topic", "VARCHAR"),
        ("rows", "BIGINT"),
        ("min_time", "TIMESTAMP"),
        ("max_time", "TIMESTAMP"),
        ("known_from", "TIMESTAMP"),
    ),
    # Published raw files.  `path` and `staged` are relative to DATA; `state` is `renaming`, `merging` (history/compact.py) or
    # `published`, and `staged` is NULL when published.
    "files": (
        ("topic", "VARCHAR"),
        ("path", "VARCHAR"),
        ("rows", "BIGINT"),
        ("min_time", "TIMESTAMP"),
        ("max_time", "TIMESTAMP"),
        ("state", "VARCHAR"),
        ("staged", "VARCHAR"),
        ("bytes", "BIGINT"),
        ("checksum", "VARCHAR"),
    ),
    # Published files that follow from the ledger: the mark (`dirty`) that has each written anew, and what was written.
    "published": (
        ("path", "VARCHAR"),
        ("view", "VARCHAR"),
        ("minute", "TIMESTAMP"),
        ("rows", "BIGINT"),
        ("bytes", "BIGINT"),
        ("checksum", "VARCHAR"),
    ),
    # Minutes whose published files are out of date.
    "dirty": (("view", "VARCHAR"), ("minute", "TIMESTAMP")),
    # Slices of partial tables to which `deltas` deltas were appended since they were last merged (history/compact.py).
    "ragged": (("view", "VARCHAR"), ("width", "VARCHAR"), ("period", "TIMESTAMP"), ("deltas", "BIGINT")),
    # What sources last counted, as JSON: the next report of a series adds the difference (formats/histograms.py).
    "reported": (("topic", "VARCHAR"), ("series", "VARCHAR"), ("buckets", "VARCHAR")),
    "alert_state": (("identity", "VARCHAR"), ("state", "VARCHAR")),
    "alert_notes": (
        ("contract", "VARCHAR"),
        ("clause", "VARCHAR"),
        ("alertname", "VARCHAR"),
        ("by_values", "VARCHAR"),
        ("labels", "VARCHAR"),
        ("fired_at", "TIMESTAMP"),
        ("fired_observed", "DOUBLE"),
        ("time", "TIMESTAMP"),
        ("notes", "VARCHAR"),
        ("facts", "VARCHAR"),
    ),
    "tallies": (
        ("contract", "VARCHAR"),
        ("clause", "VARCHAR"),
        ("alertname", "VARCHAR"),
        ("by_values", "VARCHAR[]"),
        ("starts", "TIMESTAMP"),
        ("ends", "TIMESTAMP"),
        ("state", "VARCHAR"),
    ),
    "outbox": (
        ("seq", "BIGINT"),
        ("created", "TIMESTAMP"),
        ("destination", "VARCHAR"),
        ("body", "VARCHAR"),
        ("attempts", "INTEGER"),
        ("next_try", "TIMESTAMP"),
        ("delivered", "TIMESTAMP"),
        ("last_error", "VARCHAR"),
    ),
    "delivered": DELIVERED,
    "counted": COUNTED,
}
_FIXED: Mapping[str, Columns] = {
    **_OWN,
    **{table.view: table.columns for table in PLAIN_TABLES},
    "standing": STANDING_COLUMNS,
}
"""The tables that are the same whatever the event types are, with their columns."""


def create(con: duckdb.DuckDBPyConnection, catalog: Catalog) -> None:
    """Make every table that is not there yet, and bring an older ledger to `SCHEMA_VERSION`.

    A new event type adds its tables.  Raises LedgerError for a ledger of a newer program, or when the hash
    that names series has changed with the DuckDB version.
    """
    for table in _tables(catalog):
        con.execute(f"CREATE TABLE IF NOT EXISTS {table}")
    for event in catalog.types:
        for statement in () if event.retained else seen_ddl(event.view):
            con.execute(statement)
    con.execute("CREATE SEQUENCE IF NOT EXISTS outbox_seq")
    _check_version(con, catalog)
    _check_hash(con)


def get_meta(con: duckdb.DuckDBPyConnection, key: str) -> str | None:
    row = con.execute("SELECT value FROM meta WHERE key = ?", [key]).fetchone()
    return str(row[0]) if row else None


def set_meta(con: duckdb.DuckDBPyConnection, key: str, value: str) -> None:
    con.execute("DELETE FROM meta WHERE key = ?", [key])
    con.execute("INSERT INTO meta VALUES (?, ?)", [key, value])


def insert(con: duckdb.DuckDBPyConnection, table: str, rows: Iterable[Sequence[Any]]) -> None:
    """Insert `rows` into a table that every ledger has, all its columns, in one statement.

    A statement for each row costs 0.2 ms: sixty kinds of fates in a bad hour are a tenth of a batch's price.
    """
    if lists := [list(column) for column in zip(*rows, strict=True)]:
        columns = ", ".join(f"unnest(?::{kind}[])" for _, kind in _FIXED[table])
        con.execute(f"INSERT INTO {table} SELECT {columns}", lists)


def _tables(catalog: Catalog) -> Iterator[str]:
    for name, columns in _FIXED.items():
        yield f"{name}({_columns(columns)})"
    for event in catalog.types:
        yield f"series_{event.view}(series UBIGINT, {_columns((d.name, 'VARCHAR') for d in event.dimensions)})"
        if event.retained:
            yield _retained(event)
        else:
            yield from _rollups(event)


_BOUNDS = "least DOUBLE, greatest DOUBLE"


def _rollups(event: EventType) -> Iterator[str]:
    view = event.view
    if event.entity:
        # names at random compress badly, and at once when a batch brings a row group of them: 40 ms instead of 10
        yield f"entities_{view}(series UBIGINT, entity VARCHAR USING COMPRESSION uncompressed, idx INTEGER)"
        yield from sightings_tables(view)
        yield pulses_table(view)
    if event.revision:
        yield revised_table(event)
    for width in WIDTHS:
        key = "series UBIGINT, window_start TIMESTAMP" + (
            ", known_from TIMESTAMP" if width is WIDTHS[0] else ""
        )
        yield f"partials_{view}_{width.name}({key}, {_columns(partial_columns(event))})"
        if event.histograms:
            yield f"hist_{view}_{width.name}({key}, measure VARCHAR, bucket INTEGER, n BIGINT, {_BOUNDS})"
        if event.entity:
            marks = "".join(f", {mark.name} BIT" for mark in event.marks)
            yield f"bits_{view}_{width.name}({key}, block INTEGER, observed BIT{marks})"


def _retained(event: EventType) -> str:
    head = 'identity UBIGINT, content UBIGINT, "time" TIMESTAMP, source VARCHAR, id VARCHAR, idx INTEGER'
    return f"{event.kept}({head}, known_from TIMESTAMP, {_columns(event.columns())})"


def _columns(columns: Iterable[tuple[str, str]]) -> str:
    return ", ".join(f'"{name}" {kind}' for name, kind in columns)


def _check_version(con: duckdb.DuckDBPyConnection, catalog: Catalog) -> None:
    found = get_meta(con, "schema_version")
    if found is None:
        set_meta(con, "schema_version", str(SCHEMA_VERSION))
        set_meta(con, "block_bits", str(BLOCK_BITS))
    elif int(found) > SCHEMA_VERSION:
        raise LedgerError(
            f"ledger: written by a newer Gigawatch (schema version {found}; this program knows {SCHEMA_VERSION}); "
            "use that version, or another data directory"
        )
    else:
        for version in range(int(found), SCHEMA_VERSION):
            for statement in (
                *MIGRATIONS[version],
                *_widened(version, catalog),
                *_republished(version, catalog),
            ):
                con.execute(statement)
            if version == 4:
                for event in catalog.types:
                    if event.entity and not event.retained:
                        share_all(con, event)
        set_meta(con, "schema_version", str(SCHEMA_VERSION))


MIGRATIONS: dict[int, tuple[str, ...]] = {
    1: (
        'ALTER TABLE standing ADD COLUMN "window" VARCHAR',
        "ALTER TABLE standing ADD COLUMN samples BIGINT",
        "ALTER TABLE standing ADD COLUMN facts VARCHAR",
    ),
    2: (),
    3: (),
    4: (
        "ALTER TABLE evaluated ADD COLUMN IF NOT EXISTS began TIMESTAMP",
        "UPDATE evaluated SET began = instant WHERE instant > TIMESTAMP '1970-01-01'",
        "ALTER TABLE files ADD COLUMN IF NOT EXISTS bytes BIGINT",
        "ALTER TABLE files ADD COLUMN IF NOT EXISTS checksum VARCHAR",
        "INSERT INTO meta VALUES ('adopt_published', 'yes')",
    ),
    5: (
        "ALTER TABLE health ADD COLUMN IF NOT EXISTS state VARCHAR",
        "ALTER TABLE health ADD COLUMN IF NOT EXISTS since TIMESTAMP",
        "ALTER TABLE health ADD COLUMN IF NOT EXISTS why VARCHAR",
    ),
    6: (),
    7: ("ALTER TABLE segments ADD COLUMN IF NOT EXISTS known_from TIMESTAMP",),
    8: (),
}
"""Version → the statements that lead from it to the next; run in the transaction that opens the ledger."""


def _widened(version: int, catalog: Catalog) -> Iterator[str]:
    """What the tables of the event types have lacked since `version`."""
    for event in catalog.types if version == 6 else ():
        if event.retained and not event.closes:  # the delivery that a charge is a row of
            yield from _with_all_columns(event)
    for event in catalog.types if version == 8 else ():
        for width in () if event.retained else WIDTHS:  # energy that is counted
            for name, kind in partial_columns(event):
                table = f"partials_{event.view}_{width.name}"
                yield f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS {name} {kind}"
    for event in catalog.types if version == 4 else ():
        for dimension in event.dimensions:  # the units of a bill
            yield f'ALTER TABLE series_{event.view} ADD COLUMN IF NOT EXISTS "{dimension.name}" VARCHAR'
        if event.retained:
            if not event.closes:
                yield from _exact_charges(event)
            continue
        for width in WIDTHS:  # the intervals that sources declare
            yield f"ALTER TABLE partials_{event.view}_{width.name} ADD COLUMN IF NOT EXISTS interval INTEGER"
            if event.histograms:  # of values long gone their bucket's bounds are known
                yield from _bounded(f"hist_{event.view}_{width.name}")
        yield from (*seen_ddl(event.view), *seen_migration(event))


def _bounded(table: str) -> Iterator[str]:
    yield f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS least DOUBLE"
    yield f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS greatest DOUBLE"
    yield f"UPDATE {table} SET least = {lower_bound_sql('bucket')}, greatest = {upper_bound_sql('bucket')}"


def _exact_charges(event: EventType) -> Iterator[str]:
    """Charges with 15 decimals in place of 10, and their content by the dimensions that there are now.

    An amount of 10^23 or more, which no bill has, becomes NULL.
    """
    for measure in event.measures:
        if measure.kind == "money":
            column = f'"{measure.name}"'
            yield f"ALTER TABLE charges ALTER {column} TYPE {MONEY} USING try_cast({column} AS {MONEY})"
    yield from _with_all_columns(event)


def _with_all_columns(event: EventType) -> Iterator[str]:
    """Charges with the columns that there are now, and their content by all of them."""
    for name, kind in event.columns():
        yield f'ALTER TABLE charges ADD COLUMN IF NOT EXISTS "{name}" {kind}'
    series = f"hash({', '.join(d.name for d in event.dimensions)})"
    yield f"UPDATE charges SET content = {content_sql(event, series)}"


def _republished(version: int, catalog: Catalog) -> Iterator[str]:
    """Marks for what is new or has another place among the published files since `version`, as publishing reads them."""
    for event in catalog.types if version == 2 else ():
        # minutes of what has no entities: a file for each day, in place of each hour
        if not event.retained and event.entity is None:
            table = f"partials_{event.view}_1m"
            yield f"INSERT INTO dirty SELECT DISTINCT '{event.view}', window_start FROM {table}"
    for event in catalog.types if version == 4 else ():
        if event.retained and not event.closes:  # roll-ups by unit, with all decimals
            yield (
                f"INSERT INTO dirty SELECT DISTINCT '{event.view}', "
                f'time_bucket(INTERVAL 1 MINUTE, "{event.window_time or "time"}") FROM charges'
            )
    if version == 3:  # alerts_now is published with the alerts
        yield """INSERT INTO dirty SELECT 'alerts', max("time") FROM alerts HAVING count(*) > 0"""


def _check_hash(con: duckdb.DuckDBPyConnection) -> None:
    """Series are named by DuckDB's hash of their dimensions, which a new version may change."""
    row = con.execute("SELECT hash('gigawatch', 1, NULL::VARCHAR)::VARCHAR").fetchone()
    now = str(row[0]) if row else ""
    found = get_meta(con, "hash")
    if found is None:
        set_meta(con, "hash", now)
    elif found != now:
        raise LedgerError(
            f"ledger: written with another DuckDB, whose hash differs (this is {duckdb.__version__}); "
            "install the version that the lock file names"
        )
