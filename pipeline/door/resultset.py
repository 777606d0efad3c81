"""Columns and values in MySQL's two forms: text for COM_QUERY, binary for prepared statements.

Times go out in UTC and without a zone; numbers keep their kind, money its digits; lists, structs and maps are JSON
text.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from mysql_mimic.charset import CharacterSet
from mysql_mimic.packets import make_column_definition_41
from mysql_mimic.types import ColumnDefinition, ColumnType, uint_len

Row = Sequence[Any]
_PLAIN = ColumnDefinition(0)
Binary = Callable[[Any], bytes]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of an answer: its name, its MySQL type and how a value of it is packed for the binary form."""

    name: str
    type: ColumnType
    pack: Binary | None = None
    """None: the text, with its length in front."""
    flags: ColumnDefinition = _PLAIN
    decimals: int = 0
    length: int = 0xFFFF

    @property
    def is_text(self) -> bool:
        """Whether its values have a character set; numbers, times and bytes have none."""
        return self.type is ColumnType.VAR_STRING

    def definition(self, charset: CharacterSet) -> bytes:
        """The packet that announces it."""
        definition: bytes = make_column_definition_41(
            server_charset=charset,
            name=self.name,
            character_set=charset if self.is_text else CharacterSet.binary,
            column_length=self.length,
            column_type=self.type,
            flags=self.flags,
            decimals=self.decimals,
        )
        return definition


def column(name: str, kind: str) -> Column:
    """The column for a type as DuckDB names it; whatever is not known here goes out as text."""
    base = kind.partition("(")[0]
    if kind.endswith("]"):
        return Column(name, ColumnType.VAR_STRING)
    if base in _INTEGERS:
        type_, form, length = _INTEGERS[base]
        unsigned = ColumnDefinition.UNSIGNED_FLAG if base.startswith("U") else _PLAIN
        return Column(name, type_, struct.Struct(form).pack, _NUMBER | unsigned, 0, length)
    if base in {"FLOAT", "DOUBLE"}:
        type_, form = (ColumnType.FLOAT, "<f") if base == "FLOAT" else (ColumnType.DOUBLE, "<d")
        return Column(name, type_, struct.Struct(form).pack, _NUMBER, 31, 22)
    if base in {"DECIMAL", "HUGEINT", "UHUGEINT"}:
        scale = int(kind.rstrip(")").rpartition(",")[2]) if base == "DECIMAL" else 0
        return Column(name, ColumnType.NEWDECIMAL, None, _NUMBER, scale, 42)
    if base.startswith("TIMESTAMP"):
        return Column(name, ColumnType.DATETIME, _pack_datetime, _BINARY, 6, 26)
    if base == "DATE":
        return Column(name, ColumnType.DATE, _pack_datetime, _BINARY, 0, 10)
    if base == "TIME":
        return Column(name, ColumnType.TIME, _pack_time, _BINARY, 6, 17)
    if base in {"BLOB", "BYTEA"}:
        return Column(name, ColumnType.BLOB, None, _BINARY | ColumnDefinition.BLOB_FLAG)
    return Column(name, ColumnType.VAR_STRING)


def text_row(row: Row, codec: str) -> bytes:
    """A row of the text form.  Written out for the usual types: a panel of a thousand points has 100,000 values."""
    packed = []
    for value in row:
        if value is None:
            packed.append(b"\xfb")
            continue
        kind = type(value)
        if kind is str:
            data = value.encode(codec, "replace")
        elif kind is float or kind is int or (kind is datetime and value.tzinfo is None):
            data = str(value).encode()
        else:
            data = _bytes(value, codec)
        size = len(data)
        packed.append(_SIZES[size] + data if size < 251 else bytes(uint_len(size)) + data)
    return b"".join(packed)


def binary_row(row: Row, columns: Sequence[Column], codec: str) -> bytes:
    """A row of the binary form: a bit for each NULL (from the third on), then the values that are there."""
    nulls = bytearray((len(row) + 7 + 2) // 8)
    values = []
    for n, (value, column) in enumerate(zip(row, columns, strict=True)):
        if value is None:
            nulls[(n + 2) // 8] |= 1 << ((n + 2) % 8)
        else:
            values.append(column.pack(value) if column.pack else _sized(_bytes(value, codec)))
    return b"\x00" + bytes(nulls) + b"".join(values)


def text(value: Any) -> str:
    """A value that is not NULL, as MySQL writes it."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, datetime):
        return _utc(value).isoformat(" ")
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, dict | list | tuple):
        return _json(value)
    return value.isoformat() if isinstance(value, date | time) else str(value)


def _json(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, default=text)
    except TypeError:  # a map whose keys are no texts
        return str(value)


def _bytes(value: Any, codec: str) -> bytes:
    kind = type(value)
    if kind is str:
        return value.encode(codec, "replace")  # type: ignore[no-any-return]
    if kind is int or kind is float:
        return str(value).encode()
    return bytes(value) if isinstance(value, bytes | bytearray) else text(value).encode(codec, "replace")


def _sized(value: bytes) -> bytes:
    size = len(value)
    return _SIZES[size] + value if size < 251 else bytes(uint_len(size)) + value


_SIZES = [bytes([size]) for size in range(251)]


def _utc(value: datetime) -> datetime:
    return value if value.tzinfo is None else value.astimezone(UTC).replace(tzinfo=None)


def _pack_datetime(value: datetime | date) -> bytes:
    day = struct.pack("<HBB", value.year, value.month, value.day)
    if not isinstance(value, datetime):
        return b"\x04" + day
    value = _utc(value)
    clock = struct.pack("<BBB", value.hour, value.minute, value.second)
    return b"\x0b" + day + clock + struct.pack("<I", value.microsecond)


def _pack_time(value: time | timedelta) -> bytes:
    if isinstance(value, timedelta):
        value = (datetime.min + value).time()
    clock = struct.pack("<?IBBBI", False, 0, value.hour, value.minute, value.second, value.microsecond)
    return b"\x0c" + clock


_BINARY = ColumnDefinition.BINARY_FLAG
_NUMBER = ColumnDefinition.BINARY_FLAG | ColumnDefinition.NUM_FLAG
_INTEGERS = {
    "BOOLEAN": (ColumnType.TINY, "<b", 1),
    "TINYINT": (ColumnType.TINY, "<b", 4),
    "UTINYINT": (ColumnType.TINY, "<B", 3),
    "SMALLINT": (ColumnType.SHORT, "<h", 6),
    "USMALLINT": (ColumnType.SHORT, "<H", 5),
    "INTEGER": (ColumnType.LONG, "<i", 11),
    "UINTEGER": (ColumnType.LONG, "<I", 10),
    "BIGINT": (ColumnType.LONGLONG, "<q", 20),
    "UBIGINT": (ColumnType.LONGLONG, "<Q", 20),
}
