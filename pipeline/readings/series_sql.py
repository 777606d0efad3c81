"""SQL of a value for each series at each instant, from partial roll-ups and bit sets.

Rows of one series and one interval are merged first, and only what is left is spread over the instants; at a single
instant every interval is the same, so nothing is spread.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from pipeline.catalog import EventType
from pipeline.readings.reading import GRID, GRID_US
from pipeline.readings.span import Span
from pipeline.rollup.quoting import quoted

COUNTS = ("observed", "healthy", "in_use")
Columns = tuple[tuple[str, str], ...]
"""(aggregate, column) of the partial rows to merge."""


class Bits(NamedTuple):
    """The bit sets to merge, and what to count in them, by name: `entities` first."""

    columns: tuple[str, ...]
    counted: Mapping[str, str]


class Worth(NamedTuple):
    """SQL for the value of one series in quanta, the samples it rests on, and the condition that there is one."""

    value: str
    samples: str
    there: str = "true"


@dataclass(frozen=True, slots=True)
class Sources:
    """SELECTs of what `per_series` merges: `t`, `series` and the columns of partial rows, and of bit sets by block."""

    partials: str
    bits: str = ""


@dataclass(frozen=True, slots=True)
class Masks:
    """What is taken off the bit sets: `away_bits` count elsewhere, `frozen_bits` not at all.

    A series all of whose entities are away has no row.
    """

    away: bool = False
    frozen: bool = False

    def over(self, columns: Iterable[str], rows: str) -> str:
        """`rows` without those bits; `present` counts what is left of a series before the frozen are taken off."""
        columns = tuple(columns)
        if self.away:
            rows = f"SELECT *, bit_count(observed) AS present FROM ({_masked(columns, rows, 'away')})"
        return _masked(columns, rows, "frozen") if self.frozen else rows


def counted_bits(event_type: EventType) -> dict[str, str]:
    """How entities are counted from their bit sets, in each of the ways of COUNTS that the type's marks allow.

    Without a mark that says so all that is observed is healthy.
    """
    marks = {mark.name for mark in event_type.marks}
    healthy = "bit_count(observed & ~unhealthy)" if "unhealthy" in marks else "bit_count(observed)"
    found = {"observed": "bit_count(observed)", "healthy": healthy}
    return {**found, "in_use": "bit_count(in_use)"} if "in_use" in marks else found


def per_series(
    sources: Sources,
    columns: Columns,
    bits: Bits | None,
    worth: Worth,
    settled: str,
    masks: Masks = Masks(),
    weighed: bool = False,
) -> str:
    """SELECT t, series, value (HUGEINT, quanta), samples, settled, and entities in each of the ways of COUNTS.

    `weighed`: some means stand in `weighed` (see `weights`).
    """
    merged = ", ".join(f"{how}({quoted(c)}) AS {quoted(c)}" for how, c in columns)
    source = f"(SELECT t, series, {merged} FROM ({sources.partials}) GROUP BY t, series)"
    there = worth.there
    if bits:
        ored = ", ".join(f"bit_or({c}) AS {c}" for c in bits.columns)
        sums = ", ".join(f"sum({count})::HUGEINT AS {name}" for name, count in bits.counted.items())
        if masks.away:
            sums, there = f"{sums}, sum(present) AS present", f"{there} AND present > 0"
        rows = f"SELECT t, series, block, {ored} FROM ({sources.bits}) GROUP BY t, series, block"
        rows = masks.over(bits.columns, rows)
        source += (
            f"\n        JOIN (SELECT t, series, {sums} FROM ({rows}) GROUP BY t, series) USING (t, series)"
        )
    if weighed:
        source += " LEFT JOIN weighed USING (t, series)"
    counts = [name if bits and name in bits.counted else f"0 AS {name}" for name in COUNTS]
    return (
        f"SELECT t, series, ({worth.value})::HUGEINT AS value, {worth.samples} AS samples, "
        f"{settled} AS settled, {', '.join(counts)} FROM {source} WHERE {there}"
    )


def _masked(columns: Iterable[str], rows: str, mask: str) -> str:
    """`rows` without the bits of `{mask}_bits`."""
    left = ", ".join(f"CASE WHEN {mask} IS NULL THEN {c} ELSE {c} & ~{mask} END AS {c}" for c in columns)
    return f"SELECT * EXCLUDE ({mask}) REPLACE ({left}) FROM ({rows}) LEFT JOIN {mask}_bits USING (t, series, block)"


def live_rows(event_type: EventType, columns: Columns, bits: Bits | None, span: Span) -> Sources:
    """What counts at every instant of `span`, of the series in `chosen`: merged by interval, then spread."""
    view = event_type.view
    inside = f"{span.counted} AND series IN (SELECT series FROM chosen)"
    merged = ", ".join(f"{how}({quoted(c)}) AS {quoted(c)}" for how, c in columns)
    names = ", ".join(quoted(c) for _, c in columns)
    rows = f"SELECT series, {span.interval}, {names} FROM partials_{view}_10s WHERE {inside}"
    partials = f"SELECT {span.spread}, series, {names} FROM (SELECT series, a, b, {merged} FROM ({rows}) GROUP BY ALL)"
    if bits is None:
        return Sources(partials)
    listed = ", ".join(bits.columns)
    ored = ", ".join(f"bit_or({c}) AS {c}" for c in bits.columns)
    rows = f"SELECT series, block, {span.interval}, {listed} FROM bits_{view}_10s WHERE {inside}"
    return Sources(
        partials,
        f"SELECT {span.spread}, series, block, {listed} "
        f"FROM (SELECT series, block, a, b, {ored} FROM ({rows}) GROUP BY ALL)",
    )


def asked_rows(event_type: EventType, columns: Columns, bits: Bits | None, span: Span) -> Sources:
    """What stands in `asked(until, series, t)`: what counted at the grid number `until`, under `t`."""

    def rows(table: str, names: Iterable[str]) -> str:
        listed = ", ".join(f"r.{quoted(c)}" for c in names)
        return (
            f"SELECT q.t, r.series, {listed} FROM (SELECT * FROM {table} WHERE {span.counted} "
            f"AND series IN (SELECT series FROM asked)) r JOIN asked q ON r.series = q.series "
            f"AND epoch(r.window_start) >= q.until * {GRID} - {span.own_sql('r.series')} "
            f"AND epoch_us(r.known_from) <= q.until * {GRID_US}"
        )

    view = event_type.view
    partials = rows(f"partials_{view}_10s", (c for _, c in columns))
    return Sources(partials, rows(f"bits_{view}_10s", ("block", *bits.columns)) if bits else "")
