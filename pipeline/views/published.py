"""What readers see: one definition of every published table, its columns, its files and its view.

A published table is a tree of Parquet files under DATA.  Its view gives the columns of `domain.md`, typed
also while no file exists, and NULL for a column that an older file lacks.  All follows from the catalog.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.catalog import MONEY, Catalog, EventType, Measure
from pipeline.rollup import grid
from pipeline.rollup.grid import DAY, HOUR, MINUTE, QUARTER
from pipeline.rollup.quoting import literal, quoted
from pipeline.rules.ready_view import DATE

Columns = tuple[tuple[str, str], ...]

QUARANTINE = "quarantine"
QUARANTINE_COLUMNS: Columns = (
    ("time", "TIMESTAMP"),
    ("topic", "VARCHAR"),
    ("part", "INTEGER"),
    ("record_offset", "BIGINT"),
    ("reason", "VARCHAR"),
    ("field", "VARCHAR"),
    ("source", "VARCHAR"),
    ("id", "VARCHAR"),
    ("idx", "INTEGER"),
    ("sample", "VARCHAR"),
    ("record_time", "TIMESTAMP"),
    ("known_from", "TIMESTAMP"),
)
ALERTS_COLUMNS: Columns = (
    ("time", "TIMESTAMP"),
    ("alertname", "VARCHAR"),
    ("contract", "VARCHAR"),
    ("clause", "VARCHAR"),
    ("labels", "VARCHAR"),
    ("state", "VARCHAR"),
    ("active_at", "TIMESTAMP"),
    ("fired_at", "TIMESTAMP"),
    ("resolved_at", "TIMESTAMP"),
    ("severity", "VARCHAR"),
    ("observed", "DOUBLE"),
    ("bound", "DOUBLE"),
    ("unit", "VARCHAR"),
    ("window", "VARCHAR"),
    ("samples", "BIGINT"),
    ("annotations", "VARCHAR"),
    ("trusted", "BOOLEAN"),
    ("known_from", "TIMESTAMP"),
)
STANDING_COLUMNS: Columns = (
    ("contract", "VARCHAR"),
    ("clause", "VARCHAR"),
    ("alertname", "VARCHAR"),
    ("by_values", "VARCHAR"),
    ("state", "VARCHAR"),
    ("observed", "DOUBLE"),
    ("bound", "DOUBLE"),
    ("unit", "VARCHAR"),
    ("since", "TIMESTAMP"),
    ("time", "TIMESTAMP"),
    ("window", "VARCHAR"),
    ("samples", "BIGINT"),
    ("facts", "VARCHAR"),
)
STANDING_NOW_COLUMNS: Columns = (
    *STANDING_COLUMNS,
    ("labels", "VARCHAR"),
    ("fired_at", "TIMESTAMP"),
    ("fired_observed", "DOUBLE"),
)
"""The standing as it is published: with the alert that is open on it."""
READINGS_COLUMNS: Columns = (
    ("time", "TIMESTAMP"),
    ("contract", "VARCHAR"),
    ("clause", "VARCHAR"),
    ("alertname", "VARCHAR"),
    ("by_values", "VARCHAR"),
    ("state", "VARCHAR"),
    ("observed", "DOUBLE"),
    ("bound", "DOUBLE"),
    ("unit", "VARCHAR"),
    ("window", "VARCHAR"),
    ("samples", "BIGINT"),
    ("facts", "VARCHAR"),
)
FORECASTS_COLUMNS: Columns = (
    ("day", "DATE"),
    ("contract", "VARCHAR"),
    ("clause", "VARCHAR"),
    ("by_values", "VARCHAR"),
    ("time", "TIMESTAMP"),
    ("currency", "VARCHAR"),
    ("spent", MONEY),
    ("forecast", MONEY),
    ("ceiling", MONEY),
    ("crosses", "DATE"),
    ("complete_days", "INTEGER"),
    ("total_days", "INTEGER"),
    ("state", "VARCHAR"),
    ("left_out", "VARCHAR"),
)
CLAUSES_COLUMNS: Columns = (
    ("contract", "VARCHAR"),
    ("version", "VARCHAR"),
    ("supplier", "VARCHAR"),
    ("customer", "VARCHAR"),
    ("currency", "VARCHAR"),
    ("term_start", "TIMESTAMP"),
    ("term_end", "TIMESTAMP"),
    ("clause", "VARCHAR"),
    ("kind", "VARCHAR"),
    ("by_dimensions", "VARCHAR"),
    ("match", "VARCHAR"),
    ("severity", "VARCHAR"),
    ("text", "VARCHAR"),
    ("runbook", "VARCHAR"),
    ("contact", "VARCHAR"),
    ("route", "VARCHAR"),
    ("risk_per_hour", MONEY),
    ("terms", "VARCHAR"),
)
WINDOWS_COLUMNS: Columns = (
    ("contract", "VARCHAR"),
    ("window", "VARCHAR"),
    ("text", "VARCHAR"),
    ("starts", "TIMESTAMP"),
    ("ends", "TIMESTAMP"),
)
ALIASES_COLUMNS: Columns = (
    ("contract", "VARCHAR"),
    ("dimension", "VARCHAR"),
    ("billed", "VARCHAR"),
    ("name", "VARCHAR"),
)
HEALTH_COLUMNS: Columns = (
    ("time", "TIMESTAMP"),
    ("topic", "VARCHAR"),
    ("next_offset", "BIGINT"),
    ("lag", "BIGINT"),
    ("watermark", "TIMESTAMP"),
    ("events_per_second", "DOUBLE"),
    ("freshness_p99_seconds", "DOUBLE"),
    ("decision_delay_p99_seconds", "DOUBLE"),
    ("undelivered", "BIGINT"),
    ("state", "VARCHAR"),
    ("since", "TIMESTAMP"),
    ("why", "VARCHAR"),
)
FATES_COLUMNS: Columns = (
    ("topic", "VARCHAR"),
    ("part", "INTEGER"),
    ("minute", "TIMESTAMP"),
    ("fate", "VARCHAR"),
    ("reason", "VARCHAR"),
    ("n", "BIGINT"),
)
SET_ASIDE_COLUMNS: Columns = (
    ("topic", "VARCHAR"),
    ("part", "INTEGER"),
    ("minute", "TIMESTAMP"),
    ("field", "VARCHAR"),
    ("reason", "VARCHAR"),
    ("n", "BIGINT"),
)


SLICES = {"10s": MINUTE, "1m": 10 * MINUTE, "15m": HOUR, "1h": 6 * HOUR, "1d": DAY}
"""While a directory's time is open it holds one small file for each slice of this many seconds, so that
publishing rewrites only what changed; once it has settled, one file replaces them."""


@dataclass(frozen=True, slots=True)
class PublishedWidth:
    """A roll-up width as it is published; `slice` and `directory` are the spans of event time, in seconds,
    that the smallest file and its directory cover."""

    name: str
    seconds: int
    slice: int
    directory: int


WIDTHS = tuple(PublishedWidth(w.name, w.seconds, SLICES[w.name], w.per_file) for w in grid.WIDTHS)


@dataclass(frozen=True, slots=True)
class PublishedTable:
    """A tree of Parquet files: `root` is relative to DATA; `columns` are those of its files; `directory` is the span
    of its innermost directory in seconds, None when it has no dates; `slice` that of its smallest file."""

    view: str
    root: str
    columns: Columns
    directory: int | None
    slice: int | None

    @property
    def glob(self) -> str:
        """Where its files are, relative to DATA."""
        levels = {HOUR: "*/*/*.parquet", DAY: "*/*.parquet", None: "*.parquet"}
        return f"{self.root}/{levels[self.directory]}"

    @property
    def shown(self) -> Columns:
        """The columns of its view: those of its files, then the day that their directories are named after."""
        return self.columns if self.directory is None else (*self.columns, (DATE, "DATE"))


def raw_columns(event_type: EventType) -> Columns:
    """(name, SQL type) of an event type's raw history: time, fields, measures, identity, interval, known_from.

    `interval` is what its source declared; charges have none.
    """
    identity = (("source", "VARCHAR"), ("id", "VARCHAR"), ("idx", "INTEGER"))
    declared = () if event_type.retained else (("interval", "INTEGER"),)
    return (("time", "TIMESTAMP"), *event_type.columns(), *identity, *declared, ("known_from", "TIMESTAMP"))


def rollup_columns(event_type: EventType) -> Columns:
    """(name, SQL type) of an event type's roll-ups, whatever their width."""
    dimensions = tuple((d.name, d.sql_type) for d in event_type.dimensions)
    distinct = tuple((name, "BIGINT") for name, _ in distinct_columns(event_type))
    measures = tuple(column for m in event_type.measures for column in _measure_columns(m))
    return (("window_start", "TIMESTAMP"), *dimensions, ("samples", "BIGINT"), *distinct, *measures)


def distinct_columns(event_type: EventType) -> tuple[tuple[str, str], ...]:
    """(column, bit set) of the distinct entities of a roll-up's window: all, and those with each of the marks.

    Charges have no marks that are kept, so only the first.
    """
    if not event_type.entity:
        return ()
    marks = () if event_type.retained else event_type.marks
    return (("gpus", "observed"), *((f"gpus_{mark.name}", mark.name) for mark in marks))


def measure_aggregates(measure: Measure) -> tuple[str, ...]:
    """What a roll-up shows of a measure; quantiles come with the count of values that they rest on."""
    return ("count", *measure.aggregates) if measure.kind == "histogram" else measure.aggregates


def _measure_columns(measure: Measure) -> Iterator[tuple[str, str]]:
    value = {"text": "VARCHAR", "money": MONEY}.get(measure.kind, "DOUBLE")
    for aggregate in measure_aggregates(measure):
        yield f"{measure.name}_{aggregate}", "BIGINT" if aggregate == "count" else value


def raw_table(event_type: EventType) -> PublishedTable:
    """The raw history of an event type; each file is one sealing's rows of one hour."""
    return PublishedTable(event_type.view, f"history/{event_type.topic}", raw_columns(event_type), HOUR, None)


def rollup_table(event_type: EventType, width: PublishedWidth) -> PublishedTable:
    """The published roll-ups of an event type at one width.

    Of charges there is a file for each day at any width, for an hour has few of them, and bills of weeks come at once.
    What has no entities has few series: its minutes too are a file for each day, for every file that a question has to
    open and put away again takes it a tenth of a millisecond, and a month has 720 hours.
    """
    root = f"rollups/{event_type.topic}/{width.name}"
    columns = rollup_columns(event_type)
    if event_type.retained:
        return PublishedTable(f"{event_type.view}_{width.name}", root, columns, DAY, DAY)
    if event_type.entity is None and width.seconds == MINUTE:
        return PublishedTable(f"{event_type.view}_{width.name}", root, columns, DAY, HOUR)
    return PublishedTable(f"{event_type.view}_{width.name}", root, columns, width.directory, width.slice)


GPU_MINUTES_BY = ("provider", "region", "sku")
"""What a bill names: GPU-minutes are kept for each of them."""


def minutes_table(event_type: EventType) -> PublishedTable | None:
    """GPU-minutes of each quarter of an hour; None of an event type that has no GPUs, or not what a bill names."""
    known, marks = {d.name for d in event_type.dimensions}, {mark.name for mark in event_type.marks}
    counted = event_type.entity and not event_type.retained and {"unhealthy", "in_use"} <= marks
    if not counted or not known.issuperset(GPU_MINUTES_BY):
        return None
    numbers = ("delivered", "healthy", "used", "silent", "covered")
    columns = (
        ("window_start", "TIMESTAMP"),
        *((name, "VARCHAR") for name in GPU_MINUTES_BY),
        *((name, "BIGINT") for name in numbers),
        ("step_seconds", "INTEGER"),
    )
    view = f"{event_type.view}_minutes"
    return PublishedTable(view, f"rollups/{event_type.topic}/minutes", columns, DAY, QUARTER)


QUARANTINE_TABLE = PublishedTable(QUARANTINE, f"history/{QUARANTINE}", QUARANTINE_COLUMNS, HOUR, None)
ALERTS_TABLE = PublishedTable("alerts", "alerts", ALERTS_COLUMNS, DAY, DAY)
ALERTS_NOW_TABLE = PublishedTable("alerts_now", "alerts_now", ALERTS_COLUMNS, None, None)
STANDING_TABLE = PublishedTable("standing", "standing", STANDING_NOW_COLUMNS, None, None)
FATES_TABLE = PublishedTable("fates", "fates", FATES_COLUMNS, DAY, HOUR)
SET_ASIDE_TABLE = PublishedTable("set_aside", "set_aside", SET_ASIDE_COLUMNS, DAY, HOUR)
READINGS_TABLE = PublishedTable("readings", "readings", READINGS_COLUMNS, DAY, HOUR)
FORECASTS_TABLE = PublishedTable("forecasts", "forecasts", FORECASTS_COLUMNS, None, None)
CLAUSES_TABLE = PublishedTable("clauses", "clauses", CLAUSES_COLUMNS, None, None)
WINDOWS_TABLE = PublishedTable("windows", "windows", WINDOWS_COLUMNS, None, None)
ALIASES_TABLE = PublishedTable("aliases", "aliases", ALIASES_COLUMNS, None, None)
HEALTH_TABLE = PublishedTable("health", "health", HEALTH_COLUMNS, DAY, HOUR)
PLAIN_TABLES = (
    ALERTS_TABLE, STANDING_TABLE, FATES_TABLE, READINGS_TABLE, CLAUSES_TABLE, WINDOWS_TABLE, ALIASES_TABLE,
    HEALTH_TABLE, SET_ASIDE_TABLE, FORECASTS_TABLE,
)  # fmt: skip
"""The tables that are the same in the ledger and in the files; those without dates are one file each.

The standing has more in its file: how each open alert on it stood when it fired, and what is known beside.
"""
OWN_TABLES = (*PLAIN_TABLES, ALERTS_NOW_TABLE)
"""All that are of no event type; the newest alerts are chosen from the ledger's when they are published."""
MOMENT = {"alerts": "time", "fates": "minute", "readings": "time", "health": "time", "set_aside": "minute"}
"""The column by which the rows of a dated one of them are put into files."""


def published_tables(catalog: Catalog) -> tuple[PublishedTable, ...]:
    """Every table that readers see, raw history first."""
    raw = tuple(raw_table(t) for t in catalog.types)
    rolled = tuple(rollup_table(t, w) for t in catalog.types if not t.closes for w in WIDTHS)
    minutes = tuple(table for t in catalog.types if (table := minutes_table(t)))
    return (*raw, QUARANTINE_TABLE, *rolled, *minutes, *OWN_TABLES)


def pattern(directory: Path, glob: str) -> str:
    """A glob below a directory whose own name may hold glob characters.

    The name is without `..`, as DuckDB gives it back: `view_select` counts its letters.
    """
    return re.sub(r"([\[*?])", r"[\1]", os.path.abspath(directory)) + "/" + glob


def scan(files: str | list[str], columns: Columns, filename: bool = False) -> str:
    """A `read_parquet` of these columns by name, NULL where a file lacks one; `files` are globs.

    With `filename` there is a column more, of that name.
    """
    paths = literal(files) if isinstance(files, str) else "[" + ", ".join(map(literal, files)) + "]"
    fields = ", ".join(
        f"{literal(name)}: {{name: {literal(name)}, type: {literal(kind)}, default_value: NULL}}"
        for name, kind in columns
    )
    return f"read_parquet({paths}, schema = MAP {{{fields}}}, allow_empty = true, filename = {filename})"


def view_select(data: Path, table: PublishedTable) -> str:
    """The SELECT behind a view.  The empty half of the UNION gives names and types while no file exists.

    A condition on `date` is one on the names of the files, so DuckDB opens none of another day; from a condition on
    `time` it knows that only when it has read the file's footer.  (`hive_partitioning` has such a column too, but not
    beside a `schema`.)
    """
    names = [quoted(name) for name, _ in table.columns]
    typed = [f"NULL::{kind} AS {quoted(name)}" for name, kind in table.columns]
    dated = table.directory is not None
    if dated:
        # It is worked out for each file when a question is planned: by place, for a regular expression takes 20 µs.  Only
        # TRY_CAST is taken that far, because it cannot fail.
        begins = len(f"{os.path.abspath(data)}/{table.root}/date=") + 1
        names.append(f"TRY_CAST(substr(filename, {begins}, 10) AS DATE) AS {DATE}")
        typed.append("NULL::VARCHAR AS filename")
    files = scan(pattern(data, table.glob), table.columns, filename=dated)
    return (
        f"SELECT {', '.join(names)} FROM (SELECT {', '.join(typed)} WHERE false "
        f"UNION ALL BY NAME SELECT * FROM {files})"
    )


def published_sql(data: Path, catalog: Catalog) -> str:
    """The views of all published tables, as `CREATE VIEW` text (DuckDB 1.4 or later)."""
    return "\n".join(
        f"CREATE OR REPLACE VIEW {quoted(t.view)} AS {view_select(data, t)};"
        for t in published_tables(catalog)
    )
