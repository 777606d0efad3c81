"""Amounts are kept to the last digit or refused by name, by the careful decoder and the fast one alike."""

from __future__ import annotations

import json
from decimal import Decimal

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.formats.amounts import amount_of, amount_sql


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("-0.00000000603", "-0.00000000603"),
        ("-6.03E-9", "-0.00000000603"),
        ("0.000000000000001", "0.000000000000001"),
        ("0.0000000000000010000", "0.000000000000001"),
        ("9999999999999999999999.999999999999999", "9999999999999999999999.999999999999999"),
        ("1e21", "1000000000000000000000"),
        ("+007.50", "7.5"),
        (".5", "0.5"),
        ("-0", "0"),
        ("0e999", "0"),
        (12, "12"),
    ],
)
def test_an_amount_is_kept_to_the_last_digit(text: str | int, kept: str) -> None:
    found = amount_of(text)
    assert isinstance(found, Decimal) and found == Decimal(kept)
    assert not found.is_signed() or found < 0


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("0.0000000000000001", "too_precise"),
        ("1.0000000000000001", "too_precise"),
        ("9999999999999999999999.9999999999999999", "too_precise"),
        ("1e-400", "too_precise"),
        ("10000000000000000000000", "out_of_range"),
        ("-1e22", "out_of_range"),
        ("1e999", "out_of_range"),
        (float("nan"), "out_of_range"),
        (float("-inf"), "out_of_range"),
        ("NaN", "mistyped"),
        ("1,50", "mistyped"),
        ("1.234,50", "mistyped"),
        ("1_000", "mistyped"),
        ("$5", "mistyped"),
        ("\uff15", "mistyped"),
        ("", "mistyped"),
        (True, "mistyped"),
        (None, "mistyped"),
        ([1], "mistyped"),
    ],
)
def test_what_cannot_be_kept_is_refused_by_name(text: object, why: str) -> None:
    assert amount_of(text) == why


@given(st.decimals(-(10**22) + 1, 10**22 - 1, places=15, allow_nan=False))
def test_the_fast_decoder_reads_every_plain_amount_as_the_careful_one_does(amount: Decimal) -> None:
    text = format(amount, "f")
    (found,) = duckdb.execute(f"SELECT {amount_sql('$text')}", {"text": json.dumps(text)}).fetchone() or ()
    assert found == amount_of(text) == amount
