"""Roll-up windows: half-open `[window_start, window_start + width)`, UTC, aligned to the epoch."""

from __future__ import annotations

from dataclasses import dataclass

GRID_SECONDS = 10
"""Step of event time on which clauses are evaluated, and the narrowest window."""


@dataclass(frozen=True, slots=True)
class Width:
    """A roll-up width; `per_file` is the span of event time that one published file covers, in seconds."""

    name: str
    seconds: int
    per_file: int


WIDTHS = (
    Width("10s", 10, 3600),
    Width("1m", 60, 3600),
    Width("15m", 900, 86400),
    Width("1h", 3600, 86400),
    Width("1d", 86400, 86400),
)


def floor_sql(time: str, seconds: int) -> str:
    """SQL for the start of the window of `seconds` that holds the TIMESTAMP expression `time`."""
    step = seconds * 1_000_000
    # `//` cuts towards zero: what lies before 1970 goes down to the start of its window too
    before_1970 = f"CASE WHEN epoch_us({time}) < 0 THEN {step - 1} ELSE 0 END"
    return f"make_timestamp((epoch_us({time}) - {before_1970}) // {step} * {step})"


def grid_floor(seconds: float) -> int:
    """The last grid instant at or before an epoch time in seconds."""
    return int(seconds // GRID_SECONDS) * GRID_SECONDS
