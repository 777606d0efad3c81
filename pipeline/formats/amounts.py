"""Amounts of money as sources write them, kept to the last digit or refused.

`amount_of` is the specification.  `amount_sql` reads the usual spelling of it in DuckDB, and nothing else.
"""

from __future__ import annotations

import re
from decimal import Context, Decimal
from typing import Any, Literal

from pipeline.catalog import MONEY, MONEY_DECIMALS, MONEY_WHOLE_DIGITS

Unkept = Literal["mistyped", "too_precise", "out_of_range"]

_NUMBER = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE](?P<exponent>[-+]?\d{1,9}))?", re.ASCII)
_STEP = Decimal(1).scaleb(-MONEY_DECIMALS)
_CONTEXT = Context(prec=MONEY_WHOLE_DIGITS + MONEY_DECIMALS + 1)
_SURELY_EXACT = 15
"""Significant digits that a DOUBLE gives back as they were."""


def amount_of(value: Any) -> Decimal | Unkept:
    """The amount that a JSON number or text says, with `MONEY_DECIMALS` decimals, or why it cannot be kept.

    A number that is read as a float has its digits in an attribute `text`.

    >>> amount_of("-6.03E-9")
    Decimal('-6.030000E-9')
    >>> amount_of("0.0000000000000001"), amount_of("1e22"), amount_of("1,50")
    ('too_precise', 'out_of_range', 'mistyped')
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return "mistyped"
    text = str(getattr(value, "text", value)).strip(" \t")
    if isinstance(value, float) and text.lstrip("-").lower() in ("nan", "inf", "infinity"):
        return "out_of_range"
    if not _NUMBER.fullmatch(text):
        return "mistyped"
    amount = Decimal(text)
    if amount and amount.adjusted() >= MONEY_WHOLE_DIGITS:
        return "out_of_range"
    if amount and amount.adjusted() < -MONEY_DECIMALS:
        return "too_precise"
    kept = amount.quantize(_STEP, context=_CONTEXT) if amount else Decimal(0).quantize(_STEP)
    return kept if kept == amount else "too_precise"


_USUAL = f"-?[0-9]{{1,{MONEY_WHOLE_DIGITS}}}([.][0-9]{{1,{MONEY_DECIMALS}}})?"


def amount_sql(text: str) -> str:
    """SQL for the amount that the JSON text of a value says; NULL for what only `amount_of` reads.

    Good for a JSON number only in a message without `LOSSY_NUMBER`.
    """
    plain = f"trim({text}::VARCHAR, '\"')"
    return f"CASE WHEN regexp_full_match({plain}, '{_USUAL}') THEN try_cast({plain} AS {MONEY}) END"


LOSSY_NUMBER = f":[ \\t\\r\\n]*-?([0-9.]{{{_SURELY_EXACT + 1},}}|[0-9.]+[eE][-+]?[0-9]{{3,}})"
"""A number in a message of which DuckDB's JSON reader may have lost digits: it writes a fraction anew from a DOUBLE, in
which 1e-400 is 0."""
