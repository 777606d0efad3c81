"""Readings as a small chart: paths of an inline SVG, the same figures in words, and as JSON for the script.

Pure: from points to text.  The chart in the page needs no script; the script draws it again so that a finger or a
pointer can read each value.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pipeline.board.published_rows import Point
from pipeline.board.text import amount, instant
from pipeline.rollup.grid import DAY

WIDTH, HEIGHT = 600.0, 120.0
POINTS = 300
"""At most so many points of a series; of more, every n-th, and always the last."""
MARGIN = 0.08
"""Of the height, left free above and below."""


@dataclass(frozen=True, slots=True)
class Chart:
    """`observed`, `bound`, `forecast` are `d` of SVG paths in a box of 600 x 120; `figures` says it in words;
    `data` is what the script draws: its columns' names, rows `[ms, …]` and frame; the rest stands at the axes."""

    observed: str
    bound: str
    forecast: str
    top: str
    bottom: str
    starts: str
    ends: str
    figures: str
    data: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Frame:
    """The box in numbers: seconds from `left` to `right`, values from `low` to `high`."""

    left: float
    right: float
    low: float
    high: float

    def place(self, t: float, value: float) -> str:
        """`x,y` in the box, y downwards."""
        x = (t - self.left) / ((self.right - self.left) or 1.0) * WIDTH
        y = HEIGHT - (value - self.low) / ((self.high - self.low) or 1.0) * HEIGHT
        return f"{x:.1f},{y:.1f}"


def readings_chart(points: Sequence[Point], unit: str, unknown_for: float = 0.0) -> Chart | None:
    """The last hours of a reading and the bound in force; None while there are fewer than two readings.

    The lines end where the data ends: the last `unknown_for` seconds up to now are left blank.
    """
    points = thinned(points)
    seen = [(t, value) for t, value, _ in points if value is not None]
    if len(seen) < 2:
        return None
    bounds = [(t, bound) for t, _, bound in points if bound is not None]
    frame = framed([*seen, *bounds], points[0][0], points[-1][0] + unknown_for)
    return Chart(
        observed=path(frame, [(t, value) for t, value, _ in points]),
        bound=path(frame, bounds, steps=True),
        forecast="",
        top=amount(frame.high, unit),
        bottom=amount(frame.low, unit),
        starts=instant(frame.left),
        ends=instant(frame.right),
        figures=_figures(seen, bounds, unit),
        data=_data(frame, ["observed", "bound"], [[t, value, bound] for t, value, bound in points]),
    )


def spend_chart(
    days: Sequence[tuple[float, float]],
    starts: float,
    ends: float,
    limit: float | None,
    forecast: float | None,
    unit: str,
) -> Chart | None:
    """The burn-down of a tranche: spent by the end of each day, what it is on course to, and the limit."""
    if not days:
        return None
    days = [(starts, 0.0), *((t + DAY, spent) for t, spent in days)]
    course = [days[-1], (ends, forecast)] if forecast is not None and ends > days[-1][0] else []
    lines = [(starts, limit), (ends, limit)] if limit is not None else []
    frame = framed([*days, *course, *lines, (starts, 0.0)], starts, max(ends, days[-1][0]))
    rows: list[list[float | None]] = [[t, spent, limit, None] for t, spent in days]
    rows += [[ends, None, limit, forecast]] if course else []
    if course:
        rows[len(days) - 1][3] = days[-1][1]
    return Chart(
        observed=path(frame, days),
        bound=path(frame, lines),
        forecast=path(frame, course),
        top=amount(frame.high, unit),
        bottom=amount(frame.low, unit),
        starts=instant(frame.left),
        ends=instant(frame.right),
        figures="",
        data=_data(frame, ["spent", "limit", "forecast"], rows),
    )


def thinned(points: Sequence[Point]) -> list[Point]:
    """At most about POINTS of them, evenly, with the last."""
    step = -(-len(points) // POINTS) or 1
    return [point for n, point in enumerate(points) if n % step == 0 or n == len(points) - 1]


def framed(points: Sequence[tuple[float, float]], left: float, right: float) -> Frame:
    """A frame that holds all points with some air; never below zero for numbers that are not."""
    values = [value for _, value in points]
    low, high = min(values), max(values)
    air = (high - low or abs(high) or 1.0) * MARGIN
    return Frame(left, right, max(0.0, low - air) if low >= 0 else low - air, high + air)


def path(frame: Frame, points: Sequence[tuple[float, float | None]], steps: bool = False) -> str:
    """A line through the points, broken where there is no value; with `steps` it is level from point to point."""
    return " ".join(_commands(frame, points, steps))


def _commands(frame: Frame, points: Sequence[tuple[float, float | None]], steps: bool) -> Iterator[str]:
    before: float | None = None
    for t, value in points:
        if value is None:
            before = None
            continue
        if before is not None and steps and value != before:
            yield f"L{frame.place(t, before)}"
        yield f"{'M' if before is None else 'L'}{frame.place(t, value)}"
        before = value


def _figures(seen: Sequence[tuple[float, float]], bounds: Sequence[tuple[float, float]], unit: str) -> str:
    least, most = min(seen, key=lambda p: p[1]), max(seen, key=lambda p: p[1])
    bound = f"; bound {amount(bounds[-1][1], unit)}" if bounds else ""
    return (
        f"Last {amount(seen[-1][1], unit)}{bound}; least {amount(least[1], unit)} at {_clock(least[0])}, "
        f"most {amount(most[1], unit)} at {_clock(most[0])} UTC"
    )


def _clock(t: float) -> str:
    return f"{datetime.fromtimestamp(t, UTC):%H:%M}"


def _data(frame: Frame, names: Sequence[str], rows: Sequence[Sequence[float | None]]) -> str:
    """What the script draws, in the same frame: its scale is that of the figures at the axes."""
    spoken = [[round((row[0] or 0) * 1000), *row[1:]] for row in rows]
    across, up = [frame.left * 1000, frame.right * 1000], [frame.low, frame.high]
    return json.dumps({"names": names, "rows": spoken, "across": across, "up": up}, separators=(",", ":"))
