"""A mean over a fleet weighs its GPUs, not their samples.

A series' mean is that of its samples wherever every entity came once in each reporting interval: then they weigh the
same.  Where that fails, as its bit sets and its samples tell, some came more often than others, and what each of them
said is read from the raw rows: the mean is that of the entities' own means.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple

from duckdb import DuckDBPyConnection

from pipeline.catalog import EventType, Measure
from pipeline.ledger.raw_rows import RawRows
from pipeline.ledger.reading_sql import By, Span, chosen_sql, quoted
from pipeline.ledger.silence import GRID_US, Gap
from pipeline.rules.readings import GRID, FleetPower, Reading

Ask = tuple[int, int, int]
"""What is carried: until which grid number it was heard, of which series, at which grid number it is asked for."""
UNEVEN = 0.01
"""Share of a series' samples that may be missing or too many: the hottest and coolest GPU would have to differ by far
more than they draw for that to move a mean by more than a hundredth."""
BEGINNING = 0.2
"""The same of a span in which a series begins: not all have had their turn in its first interval."""
SLOTS_AT_ONCE = 20_000
"""Series x instants x intervals that one query spreads over, as `SPREAD` bounds the bit sets in memory."""


class Weighed(NamedTuple):
    """A series at a grid number whose samples do not weigh alike: of `seen` entities `having` have the measure.

    `estimated`: what those without it are taken to add, in quanta.
    """

    t: int
    series: int
    having: int
    seen: int
    estimated: int


def weigh(
    con: DuckDBPyConnection,
    spec: FleetPower,
    event_type: EventType,
    span: Span,
    raw: RawRows,
    series: Sequence[int] | None = None,
) -> list[Weighed]:
    """Make `weighed(t, series, num, den)`, of the series that match (or `series`), where samples do not weigh alike.

    `num / den` is the mean of the entities' means, in quanta.
    """
    uneven = _uneven(con, spec, event_type, span, series)
    if not uneven:
        return []
    own, measure = sorted({of for _, of in uneven}), _measure(event_type, spec.measure)
    low, high = min(t for t, _ in uneven), max(t for t, _ in uneven)
    start = low * GRID - span.longest
    raw.fetch(event_type, measure, start, high * GRID, own)
    con.execute(
        f"""CREATE OR REPLACE TEMP TABLE each AS
        WITH uneven AS (SELECT unnest($t::BIGINT[]) AS t, unnest($series::UBIGINT[]) AS series)
        SELECT t, series, entity, sum(total) // nullif(sum(n), 0) AS mean
        FROM uneven JOIN raw_{event_type.view} r USING (series)
        WHERE r.k <= t AND r.w < t AND r.w * {GRID} >= t * {GRID} - {span.own_sql()} GROUP BY ALL""",
        {"t": [t for t, _ in uneven], "series": [of for _, of in uneven]},
    )
    con.execute(
        "CREATE OR REPLACE TEMP TABLE weighed AS SELECT t, series, sum(mean)::HUGEINT AS num, count(mean) AS den "
        "FROM each GROUP BY ALL HAVING count(mean) > 0"
    )
    rows = con.execute(
        "SELECT t, series, count(mean), count(*), "
        "coalesce(sum(mean) * (count(*) - count(mean)) // nullif(count(mean), 0), 0)::HUGEINT FROM each GROUP BY ALL"
    ).fetchall()
    return [Weighed(*row) for row in rows]


def _measure(event_type: EventType, name: str) -> Measure:
    return next(m for m in event_type.measures if m.name == name)


def _uneven(
    con: DuckDBPyConnection,
    spec: FleetPower,
    event_type: EventType,
    span: Span,
    series: Sequence[int] | None,
) -> list[tuple[int, int]]:
    """(grid number, series) where entities came too often, or not in every interval that has any."""
    found: list[tuple[int, int]] = []
    slots = max(1, span.seconds // event_type.interval)
    row = con.execute(f"SELECT count(*) FROM series_{event_type.view}").fetchone()
    step = max(1, SLOTS_AT_ONCE // slots // max(1, row[0] if row else 0))
    chosen, params = chosen_sql(event_type, spec.match, spec.by)
    if series is not None:
        chosen, params = "SELECT unnest($only::UBIGINT[]) AS series", {"only": list(series)}
    for low in range(span.low, span.high, step):
        part = span.within(low, min(low + step, span.high))
        found += con.execute(_uneven_sql(spec, event_type, part, chosen), params).fetchall()
    return found


def _uneven_sql(spec: FleetPower, event_type: EventType, span: Span, chosen: str) -> str:
    """Slots are the reporting intervals before an instant: an entity on time is once in each."""
    view, count = event_type.view, quoted(f"{spec.measure}_count")
    inside = f"{span.counted} AND series IN (SELECT series FROM chosen)"
    slot = f"(t - 1 - w) // (({span.interval_sql(event_type)} + {GRID - 1}) // {GRID}) AS slot"
    own = f"{span.interval}, epoch_us(window_start) // {GRID_US} AS w"
    return f"""
        WITH chosen AS MATERIALIZED ({chosen}), samples AS (
            SELECT t, series, {slot}, sum(samples) AS samples, sum(n) AS n
            FROM (SELECT {span.spread}, series, w, samples, n FROM (
                SELECT series, {own}, samples, {count} AS n FROM partials_{view}_10s WHERE {inside}))
            GROUP BY ALL),
        blocks AS (
            SELECT t, series, {slot}, block, bit_or(observed) AS observed
            FROM (SELECT {span.spread}, series, w, block, observed FROM (
                SELECT series, {own}, block, observed FROM bits_{view}_10s WHERE {inside}))
            GROUP BY ALL),
        slots AS (SELECT t, series, slot, sum(bit_count(observed)) AS entities FROM blocks GROUP BY ALL),
        fleet AS (
            SELECT t, series, sum(bit_count(observed)) AS entities
            FROM (SELECT t, series, block, bit_or(observed) AS observed FROM blocks GROUP BY ALL) GROUP BY ALL)
        SELECT t, series FROM (
            SELECT *, samples - n + samples - entities AS more, fleet - entities AS fewer,
                   max(slot) OVER (PARTITION BY t, series) = slot AS oldest
            FROM samples JOIN slots USING (t, series, slot)
            JOIN (SELECT t, series, entities AS fleet FROM fleet) USING (t, series))
        GROUP BY t, series HAVING sum(n) > 0 AND (
            sum(more + CASE WHEN oldest THEN 0 ELSE fewer END) > {UNEVEN} * sum(samples)
            OR sum(fewer) > {BEGINNING} * sum(samples))"""


def weigh_asked(
    con: DuckDBPyConnection,
    spec: FleetPower,
    event_type: EventType,
    asks: Sequence[Ask],
    span: Span,
    raw: RawRows,
) -> bool:
    """`weigh` for what is carried: by when it was heard, under the grid number that it is asked for at."""
    series = sorted({series for _, series, _ in asks})
    if not weigh(con, spec, event_type, span, raw, series):
        return False
    con.execute(
        "CREATE OR REPLACE TEMP TABLE weighed AS SELECT q.t, w.series, num, den FROM weighed w JOIN (SELECT "
        "unnest($until::BIGINT[]) AS until, unnest($series::UBIGINT[]) AS series, unnest($t::BIGINT[]) AS t) q "
        "ON w.t = q.until AND w.series = q.series",
        dict(zip(("until", "series", "t"), map(list, zip(*asks, strict=True)), strict=True)),
    )
    return True


def without(
    found: Sequence[Reading],
    weighed: Sequence[Weighed],
    gaps: Sequence[Gap],
    groups: Mapping[int, By],
    quantum: Decimal,
) -> list[Reading]:
    """The readings with what is known of entities that report without the measure."""
    missing: dict[int, list[Gap]] = {}
    for gap in gaps:
        missing.setdefault(gap.series, []).append(gap)
    sums: dict[tuple[int, By], tuple[int, int]] = {}
    for w in weighed:
        if w.series in groups and not any(g.first <= w.t <= g.last for g in missing.get(w.series, ())):
            key, own = (w.t, groups[w.series]), (w.seen - w.having, w.estimated)
            a, b = sums.get(key, (0, 0))
            sums[key] = (a + own[0], b + own[1])
    told = []
    for row in found:
        having_none, estimated = sums.get((row.t // GRID, row.by), (0, 0))
        told.append(row._replace(without=having_none, estimated=float(estimated * quantum)))
    return told
