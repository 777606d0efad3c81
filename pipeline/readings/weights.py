"""A mean over a fleet weighs its GPUs, not their samples.

A series' mean is that of its samples wherever every entity came once in each reporting interval: then they weigh the
same.  Where that fails, as its bit sets and its samples tell, some came more often than others, and what each of them
said is read from the raw rows: the mean is that of the entities' own means.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple, Protocol

from pipeline.catalog import EventType, Measure
from pipeline.readings.reading import GRID, GRID_US, By, Match, Reading
from pipeline.readings.silence import Gap
from pipeline.readings.span import Span, chosen_sql
from pipeline.readings.spec import Inquiry, Query, RawSamples
from pipeline.rollup.quoting import quoted


class Weighs(Protocol):
    """A spec that takes the mean of `measure` over a fleet."""

    @property
    def measure(self) -> str: ...
    @property
    def match(self) -> Match: ...
    @property
    def by(self) -> By: ...


Ask = tuple[int, int, int]
"""What is carried: until which grid number it was heard, of which series, at which grid number it is asked for."""
UNEVEN = 0.01
"""Share of a series' samples that may be missing or too many: the hottest and coolest GPU would have to differ by far
more than they draw for that to move a mean by more than a hundredth."""
BEGINNING = 0.2
"""The same of a span in which a series begins: not all have had their turn in its first interval."""
SLOTS_AT_ONCE = 20_000
"""Series x instants x intervals that one query spreads over, as `SPREAD` bounds the bit sets in memory."""


AT_MOST = 2_000_000
"""Samples of a clause's span that are read one by one for an instant, about a second of work.  Beyond that the mean comes
from the roll-ups, and the reading says that it weighs samples."""
AT_MOST_BEGINNING = 50_000
"""The same where the only reason is that a series begins: that passes within a few intervals, and a backlog of a large
fleet, which is read as fast as the machine can, would wait seconds for it and take 250 MB more."""


class Weighed(NamedTuple):
    """A series at a grid number whose samples do not weigh alike: of `seen` entities `having` have the measure.

    `estimated`: what those without it are taken to add, in quanta.  `by_samples`: there were too many to read.
    """

    t: int
    series: int
    having: int
    seen: int
    estimated: int
    by_samples: bool = False


BY_SAMPLES = (
    "a mean of samples, as there are too many to weigh each GPU: those that report more often weigh more"
)


class _Uneven(NamedTuple):
    """What the roll-ups say of it: `samples` of `seen` entities, of which `n` have the measure, `total` in quanta."""

    t: int
    series: int
    samples: int
    n: int
    total: int
    seen: int
    begins: bool

    def by_samples(self) -> Weighed:
        having = self.seen * self.n // self.samples
        return Weighed(
            self.t, self.series, having, self.seen, self.total * (self.seen - having) // self.n, True
        )


def weigh(
    spec: Weighs, event_type: EventType, span: Span, series: Sequence[int] | None = None
) -> Inquiry[list[Weighed]]:
    """Make `weighed(t, series, num, den)`, of the series that match (or `series`), where samples do not weigh alike.

    `num / den` is the mean of the entities' means, in quanta; none of an instant that has too many samples to read.
    """
    uneven = yield from _all_uneven(spec, event_type, span, series)
    if not uneven:
        return []
    yield Query("CREATE OR REPLACE TEMP TABLE weighed(t BIGINT, series UBIGINT, num HUGEINT, den BIGINT)")
    instants = [list(group) for _, group in groupby(sorted(uneven), key=attrgetter("t"))]
    found = [each.by_samples() for instant in instants if _too_many(instant) for each in instant]
    for some in _at_once(instant for instant in instants if not _too_many(instant)):
        found += yield from _weigh(event_type.measure(spec.measure), event_type, span, some)
    return found


def _too_many(instant: Sequence[_Uneven]) -> bool:
    most = AT_MOST_BEGINNING if all(each.begins for each in instant) else AT_MOST
    return sum(each.samples for each in instant) > most


def _at_once(instants: Iterable[list[_Uneven]]) -> Iterator[list[_Uneven]]:
    """As many instants together as have `AT_MOST` samples."""
    some: list[_Uneven] = []
    count = 0
    for instant in instants:
        more = sum(each.samples for each in instant)
        if some and count + more > AT_MOST:
            yield some
            some, count = [], 0
        some, count = some + instant, count + more
    if some:
        yield some


def _weigh(
    measure: Measure, event_type: EventType, span: Span, uneven: Sequence[_Uneven]
) -> Inquiry[list[Weighed]]:
    """Read the raw rows of `uneven`, and put the means into `weighed`."""
    low, high = uneven[0].t, uneven[-1].t
    series = sorted({each.series for each in uneven})
    yield RawSamples(event_type, measure, low * GRID - span.longest, high * GRID, series)
    yield Query(
        f"""CREATE OR REPLACE TEMP TABLE each AS
        WITH uneven AS (SELECT unnest($t::BIGINT[]) AS t, unnest($series::UBIGINT[]) AS series)
        SELECT t, series, entity, sum(total) // nullif(sum(n), 0) AS mean
        FROM uneven JOIN raw_{event_type.view} r USING (series)
        WHERE r.k <= t AND r.w < t AND r.w * {GRID} >= t * {GRID} - {span.own_sql()} GROUP BY ALL""",
        {"t": [each.t for each in uneven], "series": [each.series for each in uneven]},
    )
    yield Query(
        "INSERT INTO weighed SELECT t, series, sum(mean)::HUGEINT AS num, count(mean) AS den "
        "FROM each GROUP BY ALL HAVING count(mean) > 0"
    )
    rows = yield Query(
        "SELECT t, series, count(mean), count(*), "
        "coalesce(sum(mean) * (count(*) - count(mean)) // nullif(count(mean), 0), 0)::HUGEINT FROM each GROUP BY ALL"
    )
    return [Weighed(*row) for row in rows]


def _all_uneven(
    spec: Weighs, event_type: EventType, span: Span, series: Sequence[int] | None
) -> Inquiry[list[_Uneven]]:
    """Where entities came too often, or not in every interval that has any."""
    found: list[_Uneven] = []
    slots = max(1, span.seconds // event_type.interval)
    [(count,)] = yield Query(f"SELECT count(*) FROM series_{event_type.view}")
    step = max(1, SLOTS_AT_ONCE // slots // max(1, count))
    chosen, params = chosen_sql(event_type, spec.match, spec.by)
    if series is not None:
        chosen, params = "SELECT unnest($only::UBIGINT[]) AS series", {"only": list(series)}
    for low in range(span.low, span.high, step):
        part = span.within(low, min(low + step, span.high))
        rows = yield Query(_uneven_sql(spec, event_type, part, chosen), params)
        found += [_Uneven(*row) for row in rows]
    return found


def _uneven_sql(spec: Weighs, event_type: EventType, span: Span, chosen: str) -> str:
    """Slots are the reporting intervals before an instant: an entity on time is once in each."""
    view, count, total = event_type.view, quoted(f"{spec.measure}_count"), quoted(f"{spec.measure}_sum")
    inside = f"{span.counted} AND series IN (SELECT series FROM chosen)"
    slot = f"(t - 1 - w) // (({span.interval_sql(event_type)} + {GRID - 1}) // {GRID}) AS slot"
    own = f"{span.interval}, epoch_us(window_start) // {GRID_US} AS w"
    return f"""
        WITH chosen AS MATERIALIZED ({chosen}), samples AS (
            SELECT t, series, {slot}, sum(samples) AS samples, sum(n) AS n, sum(total) AS total
            FROM (SELECT {span.spread}, series, w, samples, n, total FROM (
                SELECT series, {own}, samples, {count} AS n, {total} AS total
                FROM partials_{view}_10s WHERE {inside}))
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
        SELECT t, series, sum(samples)::BIGINT, sum(n)::BIGINT, sum(total)::HUGEINT, any_value(fleet)::BIGINT,
            sum(more + CASE WHEN oldest THEN 0 ELSE fewer END) <= {UNEVEN} * sum(samples) FROM (
            SELECT *, samples - n + samples - entities AS more, fleet - entities AS fewer,
                   max(slot) OVER (PARTITION BY t, series) = slot AS oldest
            FROM samples JOIN slots USING (t, series, slot)
            JOIN (SELECT t, series, entities AS fleet FROM fleet) USING (t, series))
        GROUP BY t, series HAVING sum(n) > 0 AND (
            sum(more + CASE WHEN oldest THEN 0 ELSE fewer END) > {UNEVEN} * sum(samples)
            OR sum(fewer) > {BEGINNING} * sum(samples))"""


def weigh_asked(spec: Weighs, event_type: EventType, asks: Sequence[Ask], span: Span) -> Inquiry[bool]:
    """`weigh` for what is carried: by when it was heard, under the grid number that it is asked for at."""
    series = sorted({series for _, series, _ in asks})
    if not (yield from weigh(spec, event_type, span, series)):
        return False
    yield Query(
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
    sums: dict[tuple[int, By], tuple[int, int, bool]] = {}
    for w in weighed:
        if w.series in groups and not any(g.first <= w.t <= g.last for g in missing.get(w.series, ())):
            key = w.t, groups[w.series]
            none, estimated, by_samples = sums.get(key, (0, 0, False))
            sums[key] = none + w.seen - w.having, estimated + w.estimated, by_samples or w.by_samples
    told = []
    for row in found:
        none, estimated, by_samples = sums.get((row.t // GRID, row.by), (0, 0, False))
        basis = BY_SAMPLES if by_samples else row.basis
        told.append(row._replace(without=none, estimated=float(estimated * quantum), basis=basis))
    return told
