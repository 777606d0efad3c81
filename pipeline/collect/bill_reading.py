"""From rows of text to charges: what each cell says, to the last digit, and which cells say nothing that counts.

DuckDB reads the usual spellings of a column at once.  What is left, each text once, is asked of the specification that
the pipeline itself goes by (`amount_of`, `read_time`), so that a bill is refused here for what the pipeline would refuse,
with the file, line and column.  More is refused than of single events: there a bad optional measure is set aside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
from duckdb import DuckDBPyConnection

from pipeline.catalog import EventType, Field, Inside, Measure
from pipeline.collect.bill_columns import ACCOUNT
from pipeline.contract.money import money_text
from pipeline.formats.amounts import amount_of
from pipeline.formats.inside import tidied
from pipeline.formats.lenient_json import read_json
from pipeline.formats.times import read_time, time_sql
from pipeline.rollup.quoting import literal, quoted

Column = Field | Measure
Said = tuple[str | None, str | None]
"""What a text says, as text, or why it says nothing."""
_USUAL_AMOUNT = "-?[0-9]{1,22}([.][0-9]{1,15})?"
_EXPECTED = {
    "mistyped": "a number with a decimal point and without thousands separators",
    "too_precise": "at most 15 decimals, for what cannot be kept exactly is not rounded",
    "out_of_range": "at most 22 digits before the point",
    "malformed": "a time such as 2026-11-01T00:00:00Z, or 2026-11-01 00:00:00 in UTC",
    "missing": "a value, for the column is required",
}


@dataclass(frozen=True, slots=True)
class _Kind:
    """How the texts of a column are read: `usual` is SQL, NULL for what only `read` can tell; `table` has what that told."""

    table: str
    sql_type: str
    usual: Callable[[str], str]
    read: Callable[[str], Said]

    def value(self, column: str, odd: bool) -> str:
        """SQL for the value of a column of `settled`; `odd`: it has texts that are looked up."""
        usual = self.usual(f"settled.{quoted(column)}")
        return f"coalesce({usual}, {self._beside(column)}.value::{self.sql_type})" if odd else usual

    def join(self, column: str) -> str:
        beside = self._beside(column)
        return f"LEFT JOIN {self.table} AS {beside} ON {beside}.text = settled.{quoted(column)}"

    def _beside(self, column: str) -> str:
        return quoted(f"{self.table} of {column}")


def read_rows(con: DuckDBPyConnection, charge: EventType, present: Sequence[str]) -> None:
    """Make `charges(file, row, account, <columns>)` of `raw(file, row, <present>)`, and `bad(file, row, name, found, why)`.

    Money and quantities become text with all digits, times TIMESTAMP; labels and custom columns stay as they are.  What
    stands between is a view: to write it costs more than to find a column under its names again.
    """
    read = [column for column in columns_of_bill(charge) if _names(column, present)]
    con.execute("CREATE VIEW settled AS " + _settled(present, read))
    kinds = {column.name: kind for column in read if (kind := _kind(column, charge))}
    odd = _note_odd(con, kinds)
    values = [f"{kind.value(name, name in odd)} AS {quoted(name)}" for name, kind in kinds.items()]
    others = f"settled.* EXCLUDE ({', '.join(map(quoted, kinds))})"
    joins = " ".join(kinds[name].join(name) for name in odd)
    con.execute(f"CREATE TABLE charges AS SELECT {', '.join([others, *values])} FROM settled {joins}")
    con.execute("CREATE TABLE bad AS " + " UNION ALL ".join(_faults(charge, read, kinds, odd)))
    con.execute("DROP VIEW settled")


def columns_of_bill(charge: EventType) -> Iterator[Column]:
    """The schema's columns that a bill may have: all but the name of the delivery, which the import gives."""
    yield from (field for field in charge.fields if field.name != charge.delivery)
    yield from charge.measures


def expected(why: str) -> str:
    """What would have been right, in words."""
    return _EXPECTED.get(why, why)


def _names(column: Column, present: Sequence[str]) -> list[str]:
    return [name for name in (column.name, *column.aliases) if name in present]


def _settled(present: Sequence[str], read: Iterable[Column]) -> str:
    """Each column as text, found under any of its names."""
    values = [f"coalesce({', '.join(map(quoted, _names(c, present)))}) AS {quoted(c.name)}" for c in read]
    values.append(f"{quoted(ACCOUNT) if ACCOUNT in present else 'NULL::VARCHAR'} AS account")
    values += [quoted(name) for name in present if name.startswith("x_")]
    return f"SELECT file, row, {', '.join(values)} FROM raw"


def _kind(column: Column, charge: EventType) -> _Kind | None:
    """How the column is read; None of a text that stands for itself."""
    if isinstance(column, Measure):
        return _AMOUNT
    if column.kind == "time":
        return _MOMENT
    if column.inside and column.inside.properties:
        inside = column.inside
        return _Kind(
            "objects",
            "VARCHAR",
            lambda text: "NULL::VARCHAR",
            lambda text: _object(inside, charge.nulls, text),
        )
    return None


def _amount(text: str) -> Said:
    found = amount_of(text)
    return (None, found) if isinstance(found, str) else (money_text(found), None)


def _moment(text: str) -> Said:
    found = read_time(text, "UTC")
    return (None, found) if isinstance(found, str) else (found.isoformat(), None)


def _object(inside: Inside, nulls: Sequence[str], text: str) -> Said:
    """The text itself, where the amounts inside can be kept."""

    def amount(name: str, value: object) -> object:
        if isinstance(found := amount_of(value), str):
            raise ValueError(f"{name}: {expected(found)}")
        return found

    try:
        value = read_json(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        return None, "a JSON object"
    try:
        tidied(inside, value, nulls, amount)  # type: ignore[arg-type]
    except ValueError as error:
        return None, str(error)
    return text, None


_AMOUNT = _Kind(
    "amounts",
    "VARCHAR",
    lambda text: f"CASE WHEN regexp_full_match({text}, '{_USUAL_AMOUNT}') THEN {text} END",
    _amount,
)
_MOMENT = _Kind("moments", "TIMESTAMP", lambda text: time_sql(text, "UTC"), _moment)


def _note_odd(con: DuckDBPyConnection, kinds: dict[str, _Kind]) -> frozenset[str]:
    """Make each kind's table (text, value, why) of the texts that SQL does not read; the columns that have any."""
    texts: dict[str, set[str]] = {kind.table: set() for kind in (_AMOUNT, _MOMENT, *kinds.values())}
    odd: set[str] = set()
    for column, kind in kinds.items():
        text = f"settled.{quoted(column)}"
        found = con.execute(
            f"SELECT DISTINCT {text} FROM settled WHERE {text} IS NOT NULL AND {kind.usual(text)} IS NULL"
        ).fetchall()
        odd |= {column} if found else set()
        texts[kind.table].update(one for (one,) in found)
    for table, kind in {kind.table: kind for kind in (_AMOUNT, _MOMENT, *kinds.values())}.items():
        make_said(con, table, texts[table], kind.read)
    return frozenset(odd)


def make_said(
    con: DuckDBPyConnection, table: str, texts: Iterable[str], read: Callable[[str], Said] = _amount
) -> None:
    """Make `table(text, value, why)` of what each of `texts` says."""
    rows = [(text, *read(text)) for text in sorted(texts)]
    columns = {
        name: pa.array([row[i] for row in rows], pa.string())
        for i, name in enumerate(("text", "value", "why"))
    }
    con.register("said", pa.table(columns))
    con.execute(f"CREATE TABLE {table} AS FROM said")
    con.unregister("said")


def _faults(
    charge: EventType, read: Sequence[Column], kinds: dict[str, _Kind], odd: frozenset[str]
) -> Iterator[str]:
    """SELECTs of (file, row, name, found, why) of each column that may have a bad cell."""
    there = {column.name for column in read}
    for column in columns_of_bill(charge):
        name, text = literal(column.name), quoted(column.name)
        if not column.optional:
            test = f"{text} IS NULL" if column.name in there else "true"
            yield f"SELECT file, row, {name} AS name, NULL::VARCHAR AS found, 'missing' AS why FROM settled WHERE {test}"
        if column.name in odd:
            table = kinds[column.name].table
            yield (
                f"SELECT file, row, {name}, left({text}, 200), why FROM settled JOIN {table} ON {table}.text = {text} "
                "WHERE why IS NOT NULL"
            )
        elif column.name in there and column.name not in kinds and column in charge.dimensions:
            test, words = _like(column)
            yield f"SELECT file, row, {name}, left({text}, 200), {literal(words)} FROM settled WHERE NOT ({test})"


def _like(column: Column) -> tuple[str, str]:
    """The condition for a text that the pipeline takes, and the same in words."""
    if column.enum:
        return (
            f"{quoted(column.name)} IN ({', '.join(map(literal, column.enum))})",
            f"one of {', '.join(column.enum)}",
        )
    longest = (column.max_length if isinstance(column, Field) else None) or 1024
    return f"length({quoted(column.name)}) <= {longest}", f"at most {longest} characters"
