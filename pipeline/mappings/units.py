"""Units as sources have them, and what makes of them the unit that a measure has."""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple


class Unit(NamedTuple):
    """A value in this unit is `value * times / over` in the measure's: one of the two is 1 where it can be, and then
    no digit of a decimal number is lost."""

    times: float
    over: float

    def of(self, value: float | int) -> float | int:
        """The value in the measure's unit; whole numbers stay whole where the unit does not divide."""
        if self.over == 1 and isinstance(value, int) and self.times == int(self.times):
            return value * int(self.times)
        return value * self.times / self.over


SAME = Unit(1.0, 1.0)
_UNITS: dict[str, dict[str, Decimal]] = {
    "ratio": {"ratio": Decimal(1), "percent": Decimal("0.01"), "%": Decimal("0.01")},
    "bytes": {
        **{"B": Decimal(1), "bytes": Decimal(1)},
        **{unit: Decimal(1024) ** n for n, unit in enumerate(("KiB", "MiB", "GiB", "TiB"), 1)},
        **{unit: Decimal(1000) ** n for n, unit in enumerate(("kB", "MB", "GB", "TB"), 1)},
    },
    "watts": {
        "uW": Decimal("1e-6"),
        "mW": Decimal("0.001"),
        "W": Decimal(1),
        "kW": Decimal(1000),
        "MW": Decimal(10**6),
    },
    "joules": {
        **{
            "uJ": Decimal("1e-6"),
            "mJ": Decimal("0.001"),
            "J": Decimal(1),
            "kJ": Decimal(1000),
            "MJ": Decimal(10**6),
        },
        **{"Wh": Decimal(3600), "kWh": Decimal(3_600_000), "MWh": Decimal(3_600_000_000)},
    },
    "celsius": {"C": Decimal(1)},
    "seconds": {
        **{"ns": Decimal("1e-9"), "us": Decimal("1e-6"), "ms": Decimal("0.001"), "s": Decimal(1)},
        **{"min": Decimal(60), "h": Decimal(3600)},
    },
    "gCO2e/kWh": {
        **{"g/kWh": Decimal(1), "kg/MWh": Decimal(1), "kg/kWh": Decimal(1000), "t/MWh": Decimal(1000)},
        "lb/MWh": Decimal("0.45359237"),  # the avoirdupois pound
    },
    "currency/MWh": {"/MWh": Decimal(1), "/kWh": Decimal(1000)},
}
_NUMBERED = re.compile(r"(?:(?P<number>\d+(?:\.\d+)?) )?(?P<unit>\S+)")


@lru_cache(1024)
def unit_of(text: str, measured: str) -> Unit | None:
    """What turns `text` into the unit of a measure; None where it is no unit of that kind.

    A number may stand before it, for sources that count in steps.

    >>> unit_of("percent", "ratio"), unit_of("MiB", "bytes"), unit_of("0.01 kW", "watts"), unit_of("mJ", "watts")
    (Unit(times=1.0, over=100.0), Unit(times=1048576.0, over=1.0), Unit(times=10.0, over=1.0), None)
    """
    found = _NUMBERED.fullmatch(text)
    factor = _UNITS.get(measured, {"1": Decimal(1)}).get(found["unit"]) if found else None
    if factor is None or found is None:
        return None
    factor *= Decimal(found["number"] or 1)
    inverse = 1 / factor
    if factor < 1 and inverse == int(inverse):
        return Unit(1.0, float(inverse))
    return Unit(float(factor), 1.0)


def units_for(measured: str) -> Iterable[str]:
    """The names of the units that a measure in `measured` may come in."""
    return _UNITS.get(measured, {"1": Decimal(1)})
