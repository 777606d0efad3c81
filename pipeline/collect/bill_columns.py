"""From a bill's file to rows of text: each column that is looked for, under the name that the file gives it.

Everything is text here, whatever the file's types: what a text says is decided once, in `bill_reading`.  The words that
stand for null are NULL.
"""

from __future__ import annotations

import csv
import gzip
import io
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TextIO

from duckdb import DuckDBPyConnection
from duckdb import Error as DuckDBError

from pipeline.catalog import EventType, Field, Measure
from pipeline.collect.bill_files import BillFile
from pipeline.errors import BillError
from pipeline.rollup.quoting import literal, quoted

ACCOUNT = "BillingAccountId"
"""FOCUS: the account that a bill is for.  It names the export where nobody else does."""
LINE_BYTES = 2**20
"""Bytes of a line of CSV at most: what is longer is no row of a bill, and DuckDB reads sixteen times as much at once."""
_CONVERTED = {"TIMESTAMP": "strftime({c}, '%Y-%m-%dT%H:%M:%S.%fZ')", "DATE": "strftime({c}, '%Y-%m-%d')"}
_PLAIN = ("VARCHAR", "DECIMAL", "DOUBLE", "FLOAT", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT",
          "USMALLINT", "UINTEGER", "UBIGINT", "ENUM", "JSON", '"NULL"')  # fmt: skip


@dataclass(frozen=True, slots=True)
class BillColumns:
    """What is taken of a file: `select` is a SELECT of `row` (from 1) and of text columns named by `taken`.

    `ignored`: the columns that nothing is made of.
    """

    select: str
    taken: tuple[str, ...]
    ignored: tuple[str, ...]


def wanted(charge: EventType) -> dict[str, str]:
    """Lower-case name → the schema's name or alias, of every column that is looked for."""
    columns: Iterable[Field | Measure] = (*charge.fields, *charge.measures)
    names = [name for column in columns for name in (column.name, *column.aliases)]
    return {name.lower(): name for name in (*names, ACCOUNT) if name != charge.delivery}


def columns_of(con: DuckDBPyConnection, file: BillFile, charge: EventType) -> BillColumns:
    """What of a CSV or Parquet file is taken.  Raises BillError that names file and column."""
    return _csv(file, charge) if file.form == "csv" else _parquet(con, file, charge)


def _csv(file: BillFile, charge: EventType) -> BillColumns:
    names = header(file)
    taken = _matched(file, names, charge)
    typed = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in names)
    source = (
        f"read_csv({literal(str(file.path))}, auto_detect = false, header = true, delim = ',', quote = '\"', escape = '\"', "
        f"columns = {{{typed}}}, max_line_size = {LINE_BYTES}, compression = '{'gzip' if file.gzipped else 'none'}', "
        "store_rejects = true, rejects_limit = 0, null_padding = false)"
    )
    texts = {name: quoted(found) for found, name in taken.items()}
    return _columns(source, texts, charge, [name for name in names if name not in taken])


def header(file: BillFile) -> list[str]:
    """The names in a CSV file's first line."""
    try:
        with opened(file) as lines:
            names = next(csv.reader(lines), [])
    except (UnicodeDecodeError, csv.Error, OSError, EOFError) as error:
        raise BillError(
            f"{file.name}:1: cannot be read ({error}); expected CSV in UTF-8 with a line of column names"
        ) from error
    seen: set[str] = set()
    for place, name in enumerate(names, 1):
        if name.lower() in seen:
            raise BillError(
                f"{file.name}:1:{place}: the column {name!r} comes twice; which of the two counts cannot be guessed"
            )
        seen.add(name.lower())
    return names


def opened(file: BillFile) -> TextIO:
    """A CSV file as text, without its byte-order mark."""
    csv.field_size_limit(LINE_BYTES)
    raw = gzip.open(file.path) if file.gzipped else file.path.open("rb")  # noqa: SIM115 - closed with what is returned
    return io.TextIOWrapper(raw, encoding="utf-8-sig", newline="")


def _parquet(con: DuckDBPyConnection, file: BillFile, charge: EventType) -> BillColumns:
    source = f"read_parquet({literal(str(file.path))})"
    try:
        described = con.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()
    except DuckDBError as error:
        raise BillError(f"{file.name}: cannot be read as Parquet ({str(error).splitlines()[0]})") from error
    kinds = {name: kind for name, kind, *_ in described}
    taken = _matched(file, list(kinds), charge)
    objects = {field.name for field in charge.labels if field.kind == "json"}
    texts = {name: _as_text(file, found, kinds[found], name in objects) for found, name in taken.items()}
    return _columns(source, texts, charge, [name for name in kinds if name not in taken])


def _as_text(file: BillFile, column: str, kind: str, is_object: bool) -> str:
    """SQL for a Parquet column as the text that CSV would have.  Raises BillError for a type that says something else."""
    if kind.startswith("TIMESTAMP WITH TIME ZONE"):
        return f"strftime({quoted(column)} AT TIME ZONE 'UTC', '%Y-%m-%dT%H:%M:%S.%fZ')"
    for begin, form in _CONVERTED.items():
        if kind.startswith(begin):
            return form.format(c=quoted(column))
    if is_object and kind.startswith(("STRUCT", "MAP")):
        return f"to_json({quoted(column)})::VARCHAR"
    if kind.endswith("[]") or not kind.startswith(_PLAIN):
        raise BillError(
            f"{file.name}: column {column}: found the type {kind}, expected text, a number or a time"
        )
    return f"{quoted(column)}::VARCHAR"


def _matched(file: BillFile, names: Sequence[str], charge: EventType) -> dict[str, str]:
    """Name in the file → the name that is looked for, and custom columns under their own; upper and lower case are the same."""
    known = wanted(charge)
    found = {
        name: known.get(name.lower(), name)
        for name in names
        if name.lower() in known or name.startswith("x_")
    }
    if not {"BilledCost", "ConsumedQuantity", "PricingQuantity"} & set(found.values()):
        listed = ", ".join(names[:12]) + (" …" if len(names) > 12 else "")
        raise BillError(
            f"{file.name}:1: found the columns {listed[:400]}; expected those of FOCUS 1.0 to 1.4, such as BilledCost, "
            "BillingCurrency, ChargeCategory, ChargePeriodStart, with commas between them"
        )
    return found


def _columns(source: str, texts: Mapping[str, str], charge: EventType, ignored: Sequence[str]) -> BillColumns:
    words = ", ".join(map(literal, charge.nulls))
    listed = [
        f"CASE WHEN {text} NOT IN ({words}) THEN {text} END AS {quoted(name)}" for name, text in texts.items()
    ]
    select = f"SELECT row_number() OVER () AS row, {', '.join(listed)} FROM {source}"
    return BillColumns(select, tuple(texts), tuple(ignored))


def lines_of(file: BillFile, rows: Iterable[int]) -> dict[int, int]:
    """Row of a CSV file (from 1, as DuckDB counts those it can read) → the line that it begins on."""
    sought = set(rows)
    last = max(sought, default=0)
    upto = itertools.takewhile(lambda record: record[0] <= last, _records(file))
    return {row: line for row, line in upto if row in sought}


def _records(file: BillFile) -> Iterator[tuple[int, int]]:
    """(row, line) of each record that DuckDB takes: with as many cells as the header, or one more that is empty."""
    with opened(file) as lines:
        reader = csv.reader(lines)
        width = len(next(reader))
        row, line = 0, reader.line_num + 1
        for cells in reader:
            if len(cells) == width or (len(cells) == width + 1 and not cells[-1]):
                row += 1
                yield row, line
            line = reader.line_num + 1
