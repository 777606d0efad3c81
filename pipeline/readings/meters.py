"""What the meters of sites show beside what their GPUs say: whether what is dark still draws power."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pipeline.catalog import EventType
from pipeline.readings.reading import LOOKBACK_INTERVALS
from pipeline.readings.spec import Inquiry, Query
from pipeline.rollup.quoting import timestamp

SITE = ("provider", "region", "site")
"""Dimensions that GPUs and meters share."""


class Meters(NamedTuple):
    """What the meters of `sites` show now and showed before `dark` watts of GPUs fell silent, in watts; None: nothing."""

    sites: tuple[str, ...]
    now: float | None
    before: float | None
    dark: float | None


def meters_of(
    energy: EventType, sites: Sequence[tuple[str, ...]], t: int, since: int, dark: float | None
) -> Inquiry[Meters | None]:
    """What the meters of `sites` show, as far as they are known by the instant `t`; None where there are none.

    They stand in another topic than the alert's, which nobody waits for.

    `since`: when the first of their GPUs went dark; `dark`: watts that these drew.
    """
    rows = yield Query(
        "SELECT epoch(instant)::BIGINT FROM frontier WHERE topic = $topic", {"topic": energy.topic}
    )
    if not rows or rows[0][0] is None:
        return None
    now, before = yield from _metered(energy, sites, min(int(rows[0][0]), t), since)
    if now is None and before is None:
        return None
    return Meters(tuple(site[-1] for site in sites), now, before, dark)


def _metered(
    energy: EventType, sites: Sequence[tuple[str, ...]], now: int, since: int
) -> Inquiry[tuple[float | None, float | None]]:
    """Watts of the feeds of `sites` at `now`, and before `since`: of those feeds that say so at both times."""
    span = LOOKBACK_INTERVALS * energy.interval
    start = max(now - span, since)
    listed = "SELECT unnest($provider::VARCHAR[]), unnest($region::VARCHAR[]), unnest($site::VARCHAR[])"
    for name in ("it_power_watts", "facility_power_watts"):
        measure = next((m for m in energy.measures if m.name == name), None)
        if measure is None:
            continue
        lately = f"FILTER (window_start >= {timestamp(start)} AND window_start < {timestamp(now)})"
        earlier = f"FILTER (window_start >= {timestamp(since - span)} AND window_start < {timestamp(since)})"
        means = ", ".join(f"sum({name}_sum) {f} / sum({name}_count) {f}" for f in (lately, earlier))
        rows = yield Query(
            f"SELECT {means} FROM partials_{energy.view}_10s WHERE window_start >= {timestamp(since - span)} "
            f"AND series IN (SELECT series FROM series_{energy.view} WHERE (provider, region, site) IN ({listed})) "
            "GROUP BY series",
            dict(zip(SITE, map(list, zip(*sites, strict=True)), strict=True)),
        )
        both = [(float(a), float(b)) for a, b in rows if a is not None and b is not None]
        quantum = float(measure.quantum)
        if both:
            return sum(a for a, _ in both) * quantum, sum(b for _, b in both) * quantum
        if any(b is not None for _, b in rows):
            return None, sum(float(b) for _, b in rows if b is not None) * quantum
    return None, None
