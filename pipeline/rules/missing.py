"""What of a fleet is not delivered: how many, since when, where, and whether it still draws power.

It is looked up (`readings.undelivered`) when an alert begins or changes, and while it is told again; here it is put into words.
Dark is not lost: GPUs that say nothing while the meters of their site go on are a matter of telemetry.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pipeline.readings.meters import Meters
from pipeline.readings.undelivered import PLACES, Lack, Missing, Place
from pipeline.rollup.grid import DAY

TOGETHER = 120
"""Seconds within which the first and the last have gone for it to be one moment."""
STILL_DRAWN, NO_LONGER_DRAWN = 0.25, 0.75
"""Shares of what dark GPUs drew: meters that fell by less say that they still draw it, by more that they do not."""
WATTS_PER_MEGAWATT = 1e6


def clock(at: float, t: float) -> str:
    """The time of day of an instant that lies within a day before `t`, else its date too."""
    form = "%H:%M UTC" if t - at < DAY else "%-d %b %H:%M UTC"
    return f"{datetime.fromtimestamp(at, UTC):{form}}"


def missing_text(missing: Missing, t: int) -> str:
    """`8 failed since 09:40 UTC, 320 silent since 09:43 UTC`; empty when nobody is known to be missing."""
    return ", ".join(f"{lack.n:,} {lack.what}{_since(lack, t)}" for lack in missing.lacks)


def _since(lack: Lack, t: int) -> str:
    if lack.last is None:
        return " for more than an hour"
    last = clock(lack.last, t)
    if lack.first is None:
        return f", the last since {last}"
    if lack.last - lack.first < TOGETHER:
        return f" since {clock(lack.first, t)}"
    return f" since {clock(lack.first, t)}, the last since {last}"


def worst_text(missing: Missing) -> str:
    """`nvl-07 (36 of 72), nvl-09 (8 of 72) and 2 more; node-0042 (8)`: racks, then nodes; empty when none is known."""
    kinds = ((missing.places, missing.more_places), (missing.nodes, missing.more_nodes))
    return "; ".join(_named(places, more) for places, more in kinds if places)


def _named(places: Sequence[Place], more: int) -> str:
    named = ", ".join(f"{p.name} ({p.n:,}{f' of {p.of:,}' if p.of else ''})" for p in places)
    return f"{named}{f' and {more:,} more' if more else ''}"


def meters_text(meters: Meters) -> str:
    """What the meters say of the dark, and what that probably means."""
    names = ", ".join(meters.sites[:PLACES])
    if meters.now is None:
        return f"the meters of {names} are silent too" if meters.before is not None else ""
    now = _megawatts(meters.now)
    if meters.before is None:
        return f"the meters of {names} show {now}"
    before = _megawatts(meters.before)
    share = (meters.before - meters.now) / meters.dark if meters.dark else None
    if share is not None and share <= STILL_DRAWN:
        return f"the meters of {names} still show {now} ({before} before): probably telemetry"
    if share is not None and share >= NO_LONGER_DRAWN:
        return f"the meters of {names} show {now}, {before} before: they no longer draw it"
    return f"the meters of {names} show {now}, {before} before"


def _megawatts(watts: float) -> str:
    return f"{watts / WATTS_PER_MEGAWATT:.3g} MW"


def notes_of(missing: Missing, t: int) -> dict[str, str]:
    """The annotations that say it; those without anything to say are left out."""
    notes = {
        "missing": missing_text(missing, t),
        "worst": worst_text(missing),
        "meters": meters_text(missing.meters) if missing.meters else "",
    }
    return {name: text for name, text in notes.items() if text}


def sentences_of(notes: Mapping[str, str]) -> Iterator[str]:
    """The same as sentences of a description."""
    if text := notes.get("missing"):
        yield f"Not delivered: {text}."
    if text := notes.get("worst"):
        yield f"Worst hit: {text}."


def facts_of(missing: Missing) -> dict[str, Any]:
    """The same as numbers, for who reads the standing; instants are RFC 3339."""
    return dict(_facts(missing))


def _facts(missing: Missing) -> Iterator[tuple[str, Any]]:
    for lack in missing.lacks:
        yield lack.what, lack.n
        if lack.first is not None:
            yield f"{lack.what}_since", f"{datetime.fromtimestamp(lack.first, UTC):%Y-%m-%dT%H:%M:%SZ}"
    for name, places in (("worst_places", missing.places), ("worst_nodes", missing.nodes)):
        if places:
            yield name, {place.name: place.n for place in places}
    if missing.meters and missing.meters.now is not None:
        yield "metered_megawatts", round(missing.meters.now / WATTS_PER_MEGAWATT, 6)


def megawatts_of(gpus: float, missing: Missing | None) -> str:
    """What so many GPUs draw, in words; empty where their power is not known."""
    return "" if missing is None or not missing.watts else f"about {_megawatts(gpus * missing.watts)}"
