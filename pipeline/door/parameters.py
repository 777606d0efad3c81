"""The parameters of a prepared statement, from MySQL's binary form to Python's values.

They are bound by DuckDB, never written into the text: no quote or backslash in them can mean anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, time
from decimal import Decimal, InvalidOperation
from typing import Any

from mysql_mimic.types import ColumnType

from pipeline.errors import QueryError
from pipeline.serve.packet_reader import PacketReader, Short

_FIXED = {
    ColumnType.TINY: "b",
    ColumnType.BOOL: "b",
    ColumnType.SHORT: "h",
    ColumnType.YEAR: "h",
    ColumnType.LONG: "i",
    ColumnType.INT24: "i",
    ColumnType.LONGLONG: "q",
}
_BLOBS = {ColumnType.BLOB, ColumnType.TINY_BLOB, ColumnType.MEDIUM_BLOB, ColumnType.LONG_BLOB}
_DECIMALS = {ColumnType.DECIMAL, ColumnType.NEWDECIMAL}
_MOMENTS = {ColumnType.DATE, ColumnType.DATETIME, ColumnType.TIMESTAMP}
_TEXTS = {
    ColumnType.VARCHAR,
    ColumnType.VAR_STRING,
    ColumnType.STRING,
    ColumnType.ENUM,
    ColumnType.SET,
    ColumnType.JSON,
}


Kind = tuple[int, bool]


def read(
    data: bytes, count: int, known: Sequence[Kind], long_data: Mapping[int, bytes], codec: str
) -> tuple[list[Any], Sequence[Kind]]:
    """(values, their types) of a COM_STMT_EXECUTE that has `count` parameters.

    `known`: the types of the last time, for a client that does not say them again.  Raises QueryError.
    """
    try:
        return _read(PacketReader(data), count, known, long_data, codec)
    except Short as error:
        raise QueryError(f"the parameters cannot be read: {error}") from error


def _read(
    reader: PacketReader, count: int, known: Sequence[Kind], long_data: Mapping[int, bytes], codec: str
) -> tuple[list[Any], Sequence[Kind]]:
    nulls = reader.take((count + 7) // 8)
    if reader.number("B"):
        known = [(reader.number("B"), bool(reader.number("B") & 0x80)) for _ in range(count)]
    if len(known) != count:
        raise QueryError("the parameters come without their types")
    values: list[Any] = []
    for n, kind in enumerate(known):
        if nulls[n // 8] & 1 << n % 8:
            values.append(None)
        elif n in long_data:
            values.append(_text(long_data[n], kind[0], codec))
        else:
            values.append(_value(reader, kind, codec))
    return values, known


def _value(reader: PacketReader, kind: Kind, codec: str) -> Any:
    type_, unsigned = kind
    if type_ in _FIXED:
        form = _FIXED[ColumnType(type_)]
        return reader.number(form.upper() if unsigned else form)
    if type_ == ColumnType.NULL:
        return None
    if type_ in {ColumnType.FLOAT, ColumnType.DOUBLE}:
        return reader.number("f" if type_ == ColumnType.FLOAT else "d")
    if type_ in _MOMENTS:
        return _moment(reader)
    if type_ == ColumnType.TIME:
        return _time(reader)
    return _text(reader.sized(), type_, codec)


def _text(value: bytes, type_: int, codec: str) -> Any:
    try:
        if type_ in _DECIMALS:
            return Decimal(value.decode("ascii"))
        if type_ in _TEXTS:
            return value.decode(codec)
        if type_ in _BLOBS:  # drivers send a text as bytes where the language has but one kind
            return _decoded(value, codec)
    except (UnicodeDecodeError, InvalidOperation):
        raise QueryError("a parameter is not what its type says") from None
    raise QueryError(f"a parameter of type {type_:#x} is not served; send it as text")


def _decoded(value: bytes, codec: str) -> str | bytes:
    try:
        return value.decode(codec)
    except UnicodeDecodeError:
        return value


def _moment(reader: PacketReader) -> datetime | None:
    size = reader.number("B")
    if size == 0:
        return None
    year, month, day = reader.number("H"), reader.number("B"), reader.number("B")
    hour, minute, second = reader.take(3) if size >= 7 else bytes(3)
    micro = reader.number("I") if size >= 11 else 0
    try:
        return datetime(year, month, day, hour, minute, second, micro)
    except ValueError as error:
        raise QueryError(f"a parameter is no time: {error}") from None


def _time(reader: PacketReader) -> time:
    size = reader.number("B")
    negative, days = (reader.number("B"), reader.number("I")) if size >= 8 else (0, 0)
    hour, minute, second = reader.take(3) if size >= 8 else bytes(3)
    micro = reader.number("I") if size >= 12 else 0
    if negative or days or hour > 23 or minute > 59 or second > 59 or micro > 999_999:
        raise QueryError("a parameter is no time of day")
    return time(hour, minute, second, micro)
