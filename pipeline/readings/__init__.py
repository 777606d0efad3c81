"""One file for each quantity that a clause is compared with: what to ask of the ledger, and the SQL that reproduces it.

Nothing here touches an engine or a clock: a spec yields queries and is sent their rows (`spec.py`).
"""

from __future__ import annotations

from pipeline.readings.entity_count import EntityCount
from pipeline.readings.fate_balance import FateBalance
from pipeline.readings.fleet_power import FleetPower
from pipeline.readings.last_sum import LastSum
from pipeline.readings.meter_mean import MeterMean
from pipeline.readings.reading import (
    GRID,
    LOOKBACK_INTERVALS,
    By,
    DaySpend,
    Match,
    Mute,
    Reading,
    Readings,
    Steps,
    match_of,
)
from pipeline.readings.silent_series import SilentSeries
from pipeline.readings.spec import Group, Instant, ReadingSpec
from pipeline.readings.tranche_spend import TrancheSpend
from pipeline.readings.wait_quantile import WaitQuantile

SPECS = (
    EntityCount,
    FleetPower,
    MeterMean,
    LastSum,
    WaitQuantile,
    TrancheSpend,
    SilentSeries,
    FateBalance,
)
"""Every quantity that there is; a law runs over them: `query` and `reproduce` give the same number."""

__all__ = [
    "GRID",
    "LOOKBACK_INTERVALS",
    "SPECS",
    "By",
    "DaySpend",
    "EntityCount",
    "FateBalance",
    "FleetPower",
    "Group",
    "Instant",
    "LastSum",
    "Match",
    "MeterMean",
    "Mute",
    "Reading",
    "ReadingSpec",
    "Readings",
    "SilentSeries",
    "Steps",
    "TrancheSpend",
    "WaitQuantile",
    "match_of",
]
