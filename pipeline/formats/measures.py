"""What a measure's JSON value is worth: the typed value, nothing, or why its sample counts without it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from pipeline.catalog import Measure
from pipeline.formats.amounts import amount_of

Fate = Literal["aggregated", "duplicate", "quarantined", "dead_lettered"]


@dataclass(frozen=True, slots=True)
class SetAside:
    """A measure or label that its sample counts without; `value` is the JSON value as found."""

    field: str
    reason: str
    value: Any


class Unfit(Exception):
    """The sample or message has a fate other than aggregated; `reason` is a short, countable phrase."""

    def __init__(self, fate: Fate, reason: str) -> None:
        super().__init__(reason)
        self.fate: Fate = fate
        self.reason = reason


def measured(measure: Measure, value: Any, aside: list[SetAside]) -> Any:
    """The typed value; None when it is absent, or a number that says so.  Values of a list that are left out go to `aside`."""
    if value is None:
        return _absent(measure)
    if measure.kind == "money":
        return amount(measure.name, value)
    if measure.kind == "text":
        if not isinstance(value, str):
            raise Unfit("dead_lettered", f"{measure.name}_mistyped")
        if value not in measure.enum:
            raise Unfit("quarantined", f"{measure.name}_not_in_enum")
        return value
    if measure.kind == "histogram":
        return _list(measure, value, aside)
    number = _number_of(measure, value)
    return _absent(measure) if number is None else number


def _absent(measure: Measure) -> None:
    if not measure.optional:
        raise Unfit("dead_lettered", f"{measure.name}_missing")


def _list(measure: Measure, values: Any, aside: list[SetAside]) -> list[float]:
    """The values of a list that are what they should be; the others are set aside, their neighbours count."""
    if not isinstance(values, list):
        raise Unfit("dead_lettered", f"{measure.name}_mistyped")
    if measure.max_items is not None and len(values) > measure.max_items:
        raise Unfit("quarantined", f"{measure.name}_too_many")
    numbers: list[float] = []
    bad: list[Any] = []
    first: Unfit | None = None
    for value in values:
        try:
            number = None if value is None else _number_of(measure, value)
        except Unfit as refused:
            first = first or refused
            bad.append(value)
        else:
            numbers += [] if number is None else [float(number)]
    if first:
        if not measure.optional:
            raise first
        aside.append(SetAside(measure.name, first.reason, bad))
    return numbers


def _number_of(measure: Measure, value: Any) -> float | int | None:
    """The number, None when it stands for nothing measured.  Raises Unfit for any other value out of range."""
    number = _plain_number(measure, value)
    if number in measure.absent:
        return None
    if doubt := _doubt(measure, number):
        raise Unfit("quarantined", doubt)
    return number


def _plain_number(measure: Measure, value: Any) -> float | int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unfit("dead_lettered", f"{measure.name}_mistyped")
    if measure.integer and isinstance(value, float) and math.isfinite(value):
        if value != int(value):
            raise Unfit("dead_lettered", f"{measure.name}_mistyped")
        return int(value)
    if measure.integer:
        return value
    try:
        return float(value) + 0.0  # -0.0 equals 0.0, but which of the two is the least depends on the order
    except OverflowError:
        return math.inf


def _doubt(measure: Measure, number: float | int) -> str | None:
    if isinstance(number, float) and math.isnan(number):
        return f"{measure.name}_nan"
    if measure.minimum is not None and number < measure.minimum:
        return f"{measure.name}_negative" if number < 0 <= measure.minimum else f"{measure.name}_out_of_range"
    if measure.maximum is not None and number > measure.maximum:
        return f"{measure.name}_out_of_range"
    return None


def amount(name: str, value: Any) -> Decimal:
    """The exact amount; what a column of money cannot keep to the last digit is refused."""
    found = amount_of(value)
    if found == "mistyped":
        raise Unfit("dead_lettered", f"{name}_mistyped")
    if found == "too_precise":
        raise Unfit("quarantined", f"{name}_too_precise")
    if found == "out_of_range":
        raise Unfit("quarantined", f"{name}_out_of_range")
    assert isinstance(found, Decimal)
    return found
