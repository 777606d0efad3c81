"""Finding a column's value in a sample under any of its names, and writing a JSON column in one spelling."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from pipeline.catalog import EventType, Field, Inside, Measure
from pipeline.contract.money import money_text
from pipeline.rollup.quoting import literal

Amount = Callable[[str, Any], Decimal]


def found(column: Field | Measure | Inside, sample: Mapping[str, Any], nulls: Sequence[str]) -> Any:
    """The first value that is there: under the column's own name, else under its aliases, in their order.

    A text of `nulls` is no value.
    """
    for name in (column.name, *column.aliases):
        value = sample.get(name)
        if value is not None and value not in nulls:
            return value
    return None


def tidied(inside: Inside, value: Any, nulls: Sequence[str], amount: Amount) -> Any:
    """`value` with the schema's own names, and its money as text with all digits.

    `amount(name, value)` reads an amount, or raises.
    """
    if inside.items and isinstance(value, list):
        return [tidied(inside.items, each, nulls, amount) for each in value]
    if not isinstance(value, dict):
        return value
    named = {alias: inner.name for inner in inside.properties for alias in inner.aliases}
    written = {named.get(name, name): each for name, each in value.items()}
    for inner in inside.properties:
        if inner.name in written:
            each = found(inner, value, nulls)
            if inner.money and each is not None:
                each = money_text(amount(inner.name, each))
            written[inner.name] = tidied(inner, each, nulls, amount)
    return written


def settled_sql(event: EventType, columns: Sequence[Field | Measure], sample: str) -> str:
    """SQL for the struct `sample` of JSON texts with each of `columns` as `found` finds it."""
    if not event.nulls and not any(column.aliases for column in columns):
        return sample
    fields = ", ".join(f"{column.name} := {_found_sql(event, column, sample)}" for column in columns)
    return f"struct_pack({fields})"


def _found_sql(event: EventType, column: Field | Measure, sample: str) -> str:
    values = [f"{sample}.{name}" for name in (column.name, *column.aliases)]
    if event.nulls:
        words = ", ".join(literal(f'"{word}"') for word in event.nulls)
        values = [f"CASE WHEN {value} NOT IN ({words}) THEN {value} END" for value in values]
    return f"coalesce({', '.join(values)})" if len(values) > 1 else values[0]


_TEXT = r'"[^"\\\x00-\x1f]*"'
_PAIR = f"{_TEXT} *: *(?:{_TEXT}|true|false|null)"
_PLAIN = rf"\{{ *(?:{_PAIR} *(?:, *{_PAIR} *)*)?\}}"


def plain_object_sql(text: str) -> str:
    """True for a JSON object of plain texts, as tags are, of which each key comes once.

    No number, no escape, nothing nested: without blanks between, such a text is the one that Python would write.
    """
    keys = f"json_keys({text})"  # a regular expression cannot tell whether a key comes again
    return f"CASE WHEN regexp_full_match({text}, {literal(_PLAIN)}) THEN list_unique({keys}) = len({keys}) ELSE false END"


def names_of(columns: Sequence[Field | Measure]) -> dict[str, None]:
    """Every name under which `columns` are looked for, each once."""
    return dict.fromkeys(name for column in columns for name in (column.name, *column.aliases))
