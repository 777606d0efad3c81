"""Money in Python: sums and products to the last digit, and their text.

`decimal`'s own context keeps 28 digits; a charge may have 37, and a converted sum more.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import ROUND_HALF_UP, Context, Decimal

EXACT = Context(prec=200, rounding=ROUND_HALF_UP)
ZERO = Decimal(0)


def total(amounts: Iterable[Decimal]) -> Decimal:
    """The exact sum.

    >>> total([Decimal("9999999999999999999999.999999999999999"), Decimal("1e-15")])
    Decimal('10000000000000000000000.000000000000000')
    """
    found = ZERO
    for amount in amounts:
        found = EXACT.add(found, amount)
    return found


def times(amount: Decimal, factor: Decimal | int) -> Decimal:
    """The exact product."""
    return EXACT.multiply(amount, Decimal(factor))


def money_text(amount: Decimal) -> str:
    """All its digits, without an exponent; zeros beyond the second decimal are left out.

    >>> [money_text(Decimal(one)) for one in ("-6.030000E-9", "4271.7000", "1.50", "12")]
    ['-0.00000000603', '4271.70', '1.50', '12']
    """
    whole, point, decimals = format(amount, "f").partition(".")
    return f"{whole}{point}{decimals[:2]}{decimals[2:].rstrip('0')}"
