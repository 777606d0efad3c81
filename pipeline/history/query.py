"""Questions to the published history: an in-memory DuckDB that holds views over DATA, and nothing else.

Readers never open the ledger.  A published file may be replaced between the moment a query lists it and the
moment it opens it, or between its footer and its rows, for which DuckDB opens a file twice; the query is then simply
asked again.
"""

from __future__ import annotations

import csv
import difflib
import io
import itertools
import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, Literal

import duckdb
from duckdb import DuckDBPyConnection

from pipeline.catalog import Catalog, load
from pipeline.contract.money import money_text
from pipeline.errors import QueryError
from pipeline.views.all_views import views_sql
from pipeline.views.published import published_tables

Row = tuple[Any, ...]
Format = Literal["table", "csv", "json"]

ATTEMPTS = 5
ROWS_AHEAD = 2_000
"""Rows that are read before the first is shown: a vanished file up to here is no error to anybody."""
_CATALOG = re.compile(r"duckdb_|information_schema|pg_", re.IGNORECASE)
"""In the names of what has comments."""
_VANISHED = re.compile(
    r"No such file|Cannot open file|No files found|does not exist|Could not read enough bytes", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Result:
    """Column names and rows; the rows are read as they are asked for, once."""

    columns: tuple[str, ...]
    rows: Iterator[Row]


def open_views(
    data: Path, catalog: Catalog | None = None, memory_limit: str = "512MB", comments: bool = False
) -> DuckDBPyConnection:
    """A DuckDB of its own with every view over DATA, in UTC; works beside a running pipeline and without.

    `comments`: with what views and columns say of themselves, for questions that `may_read_comments`.  QueryError when
    `data` is no directory.
    """
    if not data.is_dir():
        raise QueryError(
            f"{data}: no such data directory; give the --data of the pipeline whose history you ask for"
        )
    con = duckdb.connect(config={"memory_limit": memory_limit, "autoinstall_known_extensions": False})
    con.execute("SET TimeZone = 'UTC'")
    # Progress bars and row order cost memory; a query that wants an order says so.
    con.execute("SET enable_progress_bar = false")
    # Hundreds of files, of which most have nothing of the time asked for, are known without reading them again.
    con.execute("SET parquet_metadata_cache = true")
    con.execute(views_sql(data, catalog or load(), comments))
    return con


def may_read_comments(sql: str) -> bool:
    """Whether a question may be about the views themselves: comments are 1,300 statements, and most of the work of opening."""
    return _CATALOG.search(sql) is not None


def nothing_yet(data: Path, catalog: Catalog) -> str | None:
    """Why there is nothing to read, when a pipeline has begun in DATA and not published yet; None once it has.

    Then no answer is right, and an empty one would look like one.
    """
    begun = (data / "ledger.duckdb").exists()
    if not begun or any((data / table.root).is_dir() for table in published_tables(catalog)):
        return None
    return (
        f"{data}: nothing is published yet, so there is nothing to ask; a running pipeline publishes every few seconds, and "
        "one that was stopped before goes on where it was at its next start"
    )


def ask(con: DuckDBPyConnection, sql: str, parameters: Sequence[Any] = ()) -> Result:
    """Runs one SELECT.  QueryError says what is wrong with it and which names come nearest.

    `parameters` are bound to its placeholders.
    """
    _only_a_select(con, sql)
    for attempt in itertools.count(1):
        try:
            con.execute(sql, parameters)
            columns = tuple(str(column[0]) for column in con.description or ())
            ahead = con.fetchmany(ROWS_AHEAD)
            return Result(columns, _rows(con, ahead))
        except duckdb.Error as error:
            if _replaced(error) and attempt < ATTEMPTS:
                time.sleep(0.05 * attempt)
            elif _replaced(error) or isinstance(error, duckdb.IOException):
                raise QueryError(f"the published history cannot be read: {_first_line(error)}") from error
            else:
                raise QueryError(_explained(con, error)) from error
    raise AssertionError("unreachable: the loop returns or raises")


def _rows(con: DuckDBPyConnection, ahead: list[Row]) -> Iterator[Row]:
    while ahead:
        yield from ahead
        try:
            ahead = con.fetchmany(ROWS_AHEAD)
        except duckdb.Error as error:
            changed = "the history changed while it was read: ask again, or for less"
            words = changed if _replaced(error) else "ended midway"
            raise QueryError(f"{words} ({_first_line(error)})") from error


def _replaced(error: duckdb.Error) -> bool:
    """Whether it is what DuckDB says of a file that was replaced under its hands: that it is gone or shorter, or, in an
    error of no class of its own, that its bytes are not what its footer promised."""
    if isinstance(error, duckdb.IOException):
        return _VANISHED.search(str(error)) is not None
    return type(error) is duckdb.Error


def _only_a_select(con: DuckDBPyConnection, sql: str) -> None:
    try:
        statements = con.extract_statements(sql)
    except duckdb.Error as error:
        raise QueryError(_explained(con, error)) from error
    kinds = [str(s.type).rpartition(".")[2] for s in statements]
    if [s.type for s in statements] != [duckdb.StatementType.SELECT]:
        raise QueryError(
            f"found {', '.join(kinds) or 'nothing'}; expected one SELECT: the published history is read-only"
        )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def _explained(con: DuckDBPyConnection, error: duckdb.Error) -> str:
    """DuckDB's own message (it marks the place), and names near the one that it did not find."""
    message = str(error).strip()
    missing = re.search(r'(?:column|Table with name) "?([A-Za-z0-9_.]+)"?', message)
    if missing is None or not isinstance(error, duckdb.BinderException | duckdb.CatalogException):
        return message
    near = _nearest(con, missing[1].rpartition(".")[2])
    return f"{message}\nNames that come nearest: {', '.join(near)}" if near else message


def _nearest(con: DuckDBPyConnection, name: str) -> list[str]:
    known = con.execute(
        "SELECT DISTINCT column_name, view_name FROM duckdb_columns() c JOIN duckdb_views() v "
        "ON c.table_oid = v.view_oid WHERE NOT v.internal AND v.schema_name = 'main'"
    ).fetchall()
    places: dict[str, list[str]] = {}
    for column, view in sorted(known):
        places.setdefault(column.lower(), []).append(f"{view}.{column}")
        places.setdefault(view.lower(), [view])
    near = difflib.get_close_matches(name.lower(), places, n=4, cutoff=0.6)
    return [places[n][0] for n in near]


def render(result: Result, form: Format, terminal: bool = False) -> Iterator[str]:
    """Pieces of text, in bounded memory: an aligned table, CSV with a header, or a JSON array of objects.

    Nothing in a table or in JSON steers a terminal.  CSV has no escapes: it is exact, but on a `terminal`.
    """
    forms: dict[Format, Callable[[Result], Iterator[str]]] = {
        "table": _table,
        "csv": partial(_csv, cell=_text if terminal else _exact),
        "json": _json,
    }
    return forms[form](result)


def _table(result: Result) -> Iterator[str]:
    """Widths come from the first ROWS_AHEAD rows; a later cell that is wider pushes its line out."""
    rows = ([_text(value) for value in row] for row in result.rows)
    first = list(itertools.islice(rows, ROWS_AHEAD))
    widths = [max(map(len, column)) for column in zip(result.columns, *first, strict=True)]
    yield _line([_text(name) for name in result.columns], widths)
    yield _line(["-" * width for width in widths], widths)
    count = 0
    for row in itertools.chain(first, rows):
        count += 1
        yield _line(row, widths)
    yield f"({count} row{'' if count == 1 else 's'})\n"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(c.ljust(w) for c, w in zip(cells, widths, strict=True)).rstrip() + "\n"


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, Decimal):
        return money_text(value)
    if isinstance(value, datetime | date):
        return value.isoformat(" ") if isinstance(value, datetime) else value.isoformat()
    # A label is somebody else's text: a newline or an escape sequence must not draw on our terminal.
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(value))


def _exact(value: Any) -> Any:
    return "" if value is None else _plain(value)


def _csv(result: Result, cell: Callable[[Any], Any]) -> Iterator[str]:
    yield _csv_line([cell(name) for name in result.columns])
    for row in result.rows:
        yield _csv_line([cell(_plain(value)) for value in row])


def _csv_line(cells: Sequence[Any]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()


def _json(result: Result) -> Iterator[str]:
    yield "["
    for number, row in enumerate(result.rows):
        pairs = dict(zip(result.columns, map(_plain, row), strict=True))
        yield ("," if number else "") + "\n" + as_json(pairs)
    yield "\n]\n"


def as_json(document: Any, indent: int | None = None) -> str:
    """JSON in which every character that could steer a terminal or turn its text around stands as an escape."""
    text = json.dumps(document, indent=indent, default=str, ensure_ascii=False)
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    if character.isprintable() or character == "\n":
        return character
    return f"\\u{ord(character):04x}" if ord(character) < 0x10000 else json.dumps(character)[1:-1]


def _plain(value: Any) -> Any:
    """Times as ISO 8601 in UTC; money (Decimal) stays exact, as text."""
    if isinstance(value, datetime):
        return value.isoformat() + ("Z" if value.tzinfo is None else "")
    return money_text(value) if isinstance(value, Decimal) else value
