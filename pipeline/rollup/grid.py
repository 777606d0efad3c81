"""Roll-up windows: half-open `[window_start, window_start + width)`, UTC, aligned to the epoch."""

from __future__ import annotations

from dataclasses import dataclass

MINUTE, QUARTER, HOUR, DAY = 60, 900, 3600, 86_400
"""Seconds."""
GRID = 10
"""Seconds between two evaluation instants, and the width of the narrowest window."""


@dataclass(frozen=True, slots=True)
class Width:
    """A roll-up width; `per_file` is the span of event time that one published file covers, in seconds."""

    name: str
    seconds: int
    per_file: int


WIDTHS = (
    Width("10s", GRID, HOUR),
    Width("1m", MINUTE, HOUR),
    Width("15m", QUARTER, DAY),
    Width("1h", HOUR, DAY),
    Width("1d", DAY, DAY),
)


def floor_sql(time: str, seconds: int) -> str:
    """SQL for the start of the window of `seconds` that holds the TIMESTAMP expression `time`."""
    step = seconds * 1_000_000
    # `//` cuts towards zero: what lies before 1970 goes down to the start of its window too
    before_1970 = f"CASE WHEN epoch_us({time}) < 0 THEN {step - 1} ELSE 0 END"
    return f"make_timestamp((epoch_us({time}) - {before_1970}) // {step} * {step})"


def grid_floor(seconds: float) -> int:
    """The last grid instant at or before an epoch time in seconds."""
    return int(seconds // GRID) * GRID
