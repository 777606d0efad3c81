"""A cell of a recorded file as the value of a field or measure: numbers, words, times and exact money."""

from __future__ import annotations

import math
from datetime import datetime
from decimal import Decimal
from typing import Any

from pipeline.catalog import Field, Measure
from pipeline.contract.money import money_text
from pipeline.formats.amounts import amount_of
from pipeline.formats.point import micros_of
from pipeline.formats.times import read_time


def cell_value(column: Field | Measure, cell: str, scale: float = 1.0) -> Any:
    """The value of a cell that is not empty.  Raises ValueError that says what was expected.

    Money keeps every digit and is not scaled; a number is scaled, and whole where the schema says so.
    """
    if isinstance(column, Field):
        return _time(cell, column.zone) if column.kind == "time" else cell
    if column.kind == "money":
        return _money(cell, scale)
    if column.kind == "text":
        if column.enum and cell not in column.enum:
            raise ValueError(f"one of {', '.join(column.enum)}")
        return cell
    number = finite(cell) * scale
    return round(number) if column.integer and column.kind == "number" else round(number, 9)


def cell_moment(cell: str, unit: str) -> float:
    """Milliseconds since 1970 of a cell that is a count of `unit` or, with `rfc3339`, a time with a zone."""
    if unit == "rfc3339":
        moment = read_time(cell)
        if not isinstance(moment, datetime):
            raise ValueError("a time with a zone, such as 2026-11-23T19:26:00Z")
        return micros_of(moment) / 1000
    return finite(cell) * {"s": 1000.0, "ms": 1.0, "us": 1e-3, "ns": 1e-6}[unit]


def finite(cell: str) -> float:
    """A finite number.  Raises ValueError."""
    try:
        number = float(cell)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError("a finite number")
    return number


def _time(cell: str, zone: str | None) -> str:
    if not isinstance(read_time(cell, zone), datetime):
        raise ValueError("a time such as 2026-11-23T19:26:00Z")
    return cell


def _money(cell: str, scale: float) -> str:
    amount = amount_of(cell)
    if not isinstance(amount, Decimal) or scale != 1:
        raise ValueError("an amount with a decimal point, to be taken as it is (scale 1)")
    return money_text(amount)
