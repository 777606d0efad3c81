"""Expectations of a value in a schema file, and the words for one that does not meet them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal, InvalidOperation
from pathlib import Path

from pipeline.errors import SchemaError


def expect(good: object, path: Path, where: str, found: object, expected: str) -> None:
    """Raises SchemaError unless `good`."""
    if not good:
        shown = found if isinstance(found, OwnWords) else repr(found)
        raise SchemaError(f"{path}: {where}: found {shown}; expected {expected}")


class OwnWords(str):
    """Our own words for what was found, where the value itself says less."""


def matches(pattern: re.Pattern[str], value: object) -> bool:
    """Whether it is a text that the whole of the pattern fits."""
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def whole(value: object, least: int) -> bool:
    """Whether it is a whole number, `least` or more."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def decimal(value: object) -> Decimal | None:
    """A finite number, as it is written; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = Decimal(str(value))
    except InvalidOperation:
        return None
    return found if found.is_finite() else None


def kind_of(value: object) -> OwnWords:
    """What kind of JSON value it is."""
    names = {dict: "an object", list: "an array", str: "a text", type(None): "nothing"}
    return OwnWords(names.get(type(value), f"the value {value!r}"))


def listed(names: Iterable[str]) -> OwnWords:
    """Names in a row."""
    return OwnWords(", ".join(sorted(names)) or "none")
