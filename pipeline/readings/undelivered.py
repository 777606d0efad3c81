"""Who of a fleet is not delivered at an instant: GPUs that failed, are gone or fell silent, since when, where, at what power.

It is asked when an alert begins or changes, and once a minute while it fires.  What was there is read from the bit sets
of the hour before the alert became active and of the last quarter of an hour; what each of the missing said last, from
those of their own blocks alone.  Only rows count that were known by the instant, so a replay says the same.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from pipeline.catalog import EventType
from pipeline.readings.entity_count import EntityCount
from pipeline.readings.memory import Memory
from pipeline.readings.meters import SITE, Meters
from pipeline.readings.reading import GRID, LOOKBACK_INTERVALS, By
from pipeline.readings.silence import Gap
from pipeline.readings.span import Span, chosen_sql
from pipeline.readings.spec import Inquiry, Query, RawLabels, Sought
from pipeline.rollup.aggregate import BLOCK_BITS
from pipeline.rollup.quoting import quoted, timestamp

BEFORE = 3600
"""Seconds before an alert became active in which those that are missing now were there."""
LATELY = 900
"""Seconds before the instant: who came and went while the alert was active."""
MOST = 5_000
"""Missing GPUs that are looked at one by one; of more the racks say where they are."""
MOMENTS = 9
"""Windows of raw rows that are read for the nodes of those that were last seen then: those in which most were."""
RACK, NODE, POWER = "nvlink_domain", "node", "power_watts"
PLACE = ("site", "cluster", RACK)
"""Dimensions that say where a series is, from wide to narrow."""
PLACES = 3
"""So many of the worst racks and nodes are named."""


FAILED, GONE, SILENT, IDLE = "failed", "gone", "silent", "idle"
"""Ways of not being delivered: marked unhealthy, no longer reported by a source that reports, of a source that has
stopped, and there without being in use where that is what counts."""


class Lack(NamedTuple):
    """`n` GPUs that are `what`; the first of them was last well at `first`, the last at `last` (epoch seconds).

    None: longer ago than was looked back.
    """

    what: str
    n: int
    first: float | None = None
    last: float | None = None


class Place(NamedTuple):
    """`n` of the `of` GPUs of a rack or node are missing; `of` 0: not known."""

    name: str
    n: int
    of: int = 0


class Missing(NamedTuple):
    """`lacks` without a `what` that nobody is; `places` (racks, or clusters without any) and `nodes`: the worst first.

    `watts`: mean power of one GPU.  `sites`: those with dark GPUs, which are silent or gone, by the dimensions that
    meters have too.
    """

    lacks: tuple[Lack, ...] = ()
    places: tuple[Place, ...] = ()
    nodes: tuple[Place, ...] = ()
    more_places: int = 0
    more_nodes: int = 0
    watts: float | None = None
    sites: tuple[tuple[str, ...], ...] = ()
    meters: Meters | None = None

    @property
    def dark(self) -> tuple[Lack, ...]:
        """Those that say nothing any more."""
        return tuple(lack for lack in self.lacks if lack.what in (SILENT, GONE))

    def silent(self, n: int) -> Missing:
        """With `n` silent GPUs, as the reading carries them."""
        kept = (lack._replace(n=n) if lack.what == SILENT else lack for lack in self.lacks)
        return self._replace(lacks=tuple(lack for lack in kept if lack.n))


class _Series(NamedTuple):
    """A series of the group: its place, and how many were there, failed and are gone."""

    place: str
    site: tuple[str, ...]
    base: int
    ill: int
    gone: int


class _Entity(NamedTuple):
    """A missing one; `seen`, `well`: start of the last window that had it, and had it well (epoch seconds)."""

    series: int
    name: str
    ill: bool
    seen: float | None
    well: float | None


Look = Callable[[EntityCount, By, int, int], Missing]
"""Asks who of a group is missing at an instant, for an alert that is active since another; see `missing`."""


def missing(
    spec: EntityCount, event_type: EventType, by: By, t: int, active_at: int, memory: Memory
) -> Inquiry[Missing]:
    """Who of the group `by` is missing at `t`, for an alert that is active since `active_at`."""
    names = yield from _series_of(event_type, spec, by)
    silence = yield from memory.silence_at(event_type, t)
    grid = t // GRID
    gaps = {g.series: g for g in silence.expected if g.first <= grid <= g.last and g.series in names}
    paces = yield from silence.paces()
    slow = next((slow for low, high, slow in paces if low < grid <= high), ())
    span = Span(grid - 1, grid, spec.span, slow, LOOKBACK_INTERVALS, event_type.lateness + GRID)
    yield _absent(event_type, spec, sorted(names), span, t, active_at)
    found = yield from _counted(event_type, names, spec.by)
    entities = yield from _entities(event_type, spec, gaps, t, active_at)
    moved = yield from _moved(event_type, t, entities)
    entities = [e for e in entities if e not in moved]
    found = _without(found, moved)
    live = {series: one for series, one in found.items() if series not in gaps}
    dark = [one for series, one in found.items() if series in gaps or one.gone]
    places, more_places = _places(found, gaps)
    nodes, more_nodes = yield from _nodes(event_type, entities, gaps, t)
    return Missing(
        lacks=tuple(_lacks(event_type, spec, live, entities, gaps)),
        places=places,
        nodes=nodes,
        more_places=more_places,
        more_nodes=more_nodes,
        watts=(yield from _watts(event_type, sorted(names), span, t, active_at)),
        sites=tuple(sorted({one.site for one in dark})),
    )


def _nodes(
    event_type: EventType, entities: Sequence[_Entity], gaps: Mapping[int, Gap], t: int
) -> Inquiry[tuple[tuple[Place, ...], int]]:
    """Where most of the missing are: their node stands in the raw rows of the windows that saw them last.

    Of a silent series all are looked for in the interval before its last sample.  All are asked at once: to plan the
    question and to open its files is most of the work.
    """
    if NODE not in {label.name for label in event_type.labels} or len(entities) >= MOST:
        return (), 0
    windows: dict[int, list[tuple[int, str]]] = defaultdict(list)
    for e in entities:
        for window in _last_windows(event_type, e, gaps.get(e.series)):
            windows[window].append((e.series, e.name))
    most = sorted(windows, key=lambda w: (-len(windows[w]), w))[:MOMENTS]
    if not most:
        return (), 0
    sought = [
        Sought(*each, first * GRID, min((last + 1) * GRID, t))
        for first, last in _unbroken(most)
        for each in sorted({each for w in range(first, last + 1) for each in windows[w]})
    ]
    rows = yield RawLabels(event_type, NODE, t, sought)
    found = Counter(label for _, _, label in rows)
    worst = sorted(found.items(), key=lambda each: (-each[1], each[0]))
    return tuple(Place(name, n) for name, n in worst[:PLACES]), max(0, len(worst) - PLACES)


def _last_windows(event_type: EventType, entity: _Entity, gap: Gap | None) -> range:
    """The grid numbers of the windows in which an entity was surely seen last."""
    if gap is not None:
        last = int(gap.last_us / 1e6) // GRID
        return range(last - -(-event_type.interval // GRID) + 1, last + 1)
    return range(0) if entity.seen is None else range(int(entity.seen) // GRID, int(entity.seen) // GRID + 1)


def _unbroken(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """The numbers as ranges (first, last) without a gap inside."""
    found: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if found and number == found[-1][1] + 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


def _series_of(event: EventType, spec: EntityCount, by: By) -> Inquiry[dict[int, dict[str, str]]]:
    """The series of the group `by`, each with its dimensions."""
    chosen, params = chosen_sql(event, spec.match, spec.by)
    params |= {f"b{i}": value for i, value in enumerate(by)}
    where = " AND ".join(f"g{i} = $b{i}" for i in range(len(by))) or "true"
    dims = [d.name for d in event.dimensions]
    columns = ", ".join(f"coalesce({quoted(d)}, '')" for d in dims)
    rows = yield Query(
        f"SELECT series, {columns} FROM series_{event.view} SEMI JOIN (SELECT series FROM ({chosen}) WHERE {where}) "
        "USING (series)",
        params,
    )
    return {row[0]: dict(zip(dims, row[1:], strict=True)) for row in rows}


def _marks(event: EventType, spec: EntityCount) -> tuple[str, str]:
    """The bit set that says who of those that are there does not count, and which bits of it do: '' and '~'."""
    marks = {mark.name for mark in event.marks}
    if spec.counts == "healthy" and "unhealthy" in marks:
        return "unhealthy", ""
    return ("in_use", "~") if spec.counts == "in_use" and "in_use" in marks else ("", "")


def _absent(
    event: EventType,
    spec: EntityCount,
    series: Sequence[int],
    span: Span,
    t: int,
    active_at: int,
) -> Query:
    """Makes `absent(series, block, base, ill, gone)`: who was there, is there and does not count, is not there."""
    mark, negated = _marks(event, spec)
    lately = f"FILTER (epoch(window_start) >= {t} - {span.own_sql()})"
    marked = f", coalesce(bit_or({mark}) {lately}, none) AS marked" if mark else ""
    ill = f"here & {negated}marked" if mark else "none"
    began, recent = timestamp(active_at - max(BEFORE, span.longest)), timestamp(t - max(LATELY, span.longest))
    return Query(
        f"""CREATE OR REPLACE TEMP TABLE absent AS
        SELECT series, block, base, {ill} AS ill, base & ~here AS gone FROM (
            SELECT series, block, bit_or(observed) AS base, base & ~base AS none,
                coalesce(bit_or(observed) {lately}, none) AS here{marked}
            FROM bits_{event.view}_10s
            WHERE series IN (SELECT unnest($series::UBIGINT[])) AND known_from <= {timestamp(t)}
                AND window_start < {timestamp(t)} AND (window_start >= {recent}
                    OR window_start >= {began} AND window_start < {timestamp(active_at)})
            GROUP BY series, block)""",
        {"series": list(series)},
    )


def _counted(event: EventType, names: Mapping[int, Mapping[str, str]], by: By) -> Inquiry[dict[int, _Series]]:
    varies = [d for d in PLACE if d not in by and len({dims.get(d, "") for dims in names.values()}) > 1]
    shown = varies or [d for d in PLACE if any(dims.get(d) for dims in names.values())][-1:]
    rows = yield Query(
        "SELECT series, sum(bit_count(base))::BIGINT, sum(bit_count(ill))::BIGINT, sum(bit_count(gone))::BIGINT "
        "FROM absent GROUP BY series"
    )
    return {
        series: _Series(
            "/".join(filter(None, (names[series].get(d, "") for d in shown))),
            tuple(names[series].get(d, "") for d in SITE),
            *counts,
        )
        for series, *counts in rows
    }


def _entities(
    event: EventType,
    spec: EntityCount,
    gaps: Mapping[int, Gap],
    t: int,
    active_at: int,
) -> Inquiry[list[_Entity]]:
    """Up to `MOST` of the missing, one by one."""
    mark, negated = _marks(event, spec)
    marked, well = (
        (f", bit_or({mark}) AS marked", f"observed & ~({negated}marked)") if mark else ("", "observed")
    )
    rows = yield Query(
        f"""WITH masked AS (
            SELECT series, block, ill, CASE WHEN list_contains($silent::UBIGINT[], series) THEN base ELSE ill | gone END AS mask
            FROM absent),
        lacking AS MATERIALIZED (
            SELECT series, block, bit, get_bit(ill, bit) = 1 AS ill FROM (
                SELECT *, unnest(range({BLOCK_BITS}))::INTEGER AS bit FROM masked WHERE bit_count(mask) > 0)
            WHERE get_bit(mask, bit) = 1 ORDER BY series, block, bit LIMIT {MOST}),
        heard AS (
            SELECT series, block, epoch(window_start) AS w, observed, {well} AS well FROM (
                SELECT series, block, window_start, bit_or(observed) AS observed{marked} FROM bits_{event.view}_10s
                WHERE (series, block) IN (SELECT (series, block) FROM lacking
                        WHERE NOT list_contains($silent::UBIGINT[], series))
                    AND known_from <= {timestamp(t)} AND window_start < {timestamp(t)}
                    AND window_start >= {timestamp(active_at - BEFORE)} GROUP BY ALL))
        SELECT l.series, e.entity, ill, max(w) FILTER (get_bit(observed, bit) = 1),
            max(w) FILTER (get_bit(well, bit) = 1)
        FROM lacking l JOIN entities_{event.view} e ON e.series = l.series AND e.idx = block * {BLOCK_BITS} + bit
        LEFT JOIN heard h ON h.series = l.series AND h.block = l.block
        GROUP BY ALL ORDER BY ALL""",
        {"silent": list(gaps)},
    )
    return [_Entity(*row) for row in rows]


def _moved(event: EventType, t: int, entities: Sequence[_Entity]) -> Inquiry[set[_Entity]]:
    """Those that another series has seen since: they have moved, and nobody misses them."""
    own = {(e.series, e.name): e for e in entities if e.seen is not None and not e.ill}
    rows = yield Query(
        f"""SELECT a.series, a.name FROM (SELECT unnest($of::UBIGINT[]) AS series, unnest($who::VARCHAR[]) AS name,
                unnest($seen::DOUBLE[]) AS seen) a
        JOIN entities_{event.view} e ON e.series = a.series AND e.entity = a.name
        JOIN shared_{event.view} p ON p.series = e.series AND p.idx = e.idx
        JOIN sightings_{event.view} s ON s.entity = p.entity AND s.series <> p.series
        WHERE epoch(s.window_start) > seen AND s.known_from <= {timestamp(t)} GROUP BY ALL""",
        {
            "of": [s for s, _ in own],
            "who": [name for _, name in own],
            "seen": [e.seen for e in own.values()],
        },
    )
    return {own[series, name] for series, name in rows}


def _without(found: Mapping[int, _Series], moved: Iterable[_Entity]) -> dict[int, _Series]:
    less = Counter(e.series for e in moved)
    return {
        series: one._replace(base=one.base - less[series], gone=max(0, one.gone - less[series]))
        for series, one in found.items()
    }


def _lacks(
    event: EventType,
    spec: EntityCount,
    live: Mapping[int, _Series],
    entities: Sequence[_Entity],
    gaps: Mapping[int, Gap],
) -> Iterator[Lack]:
    for what, n, own in (
        (IDLE if spec.counts == "in_use" else FAILED, sum(s.ill for s in live.values()), True),
        (GONE, sum(s.gone for s in live.values()), False),
    ):
        if n:
            missing = [e for e in entities if e.series in live and e.ill == own]
            since = [_since(event, e) for e in missing]
            known = [at for at in since if at is not None]
            first = min(known) if known and len(known) == len(since) else None
            yield Lack(what, n, first, max(known, default=None))
    if gaps:
        last = [gap.last_us / 1e6 for gap in gaps.values()]
        yield Lack(SILENT, len(gaps), min(last), max(last))


def _since(event: EventType, missing: _Entity) -> float | None:
    """A failed one since the report after the last in which it was well; a gone one since its last report."""
    if not missing.ill:
        return missing.seen
    return None if missing.well is None else missing.well + event.interval


def _places(found: Mapping[int, _Series], gaps: Mapping[int, Gap]) -> tuple[tuple[Place, ...], int]:
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for series, one in found.items():
        sums[one.place][0] += one.base if series in gaps else one.ill + one.gone
        sums[one.place][1] += one.base
    worst = sorted(
        (Place(name, n, of) for name, (n, of) in sums.items() if n and name), key=lambda p: (-p.n, p.name)
    )
    return tuple(worst[:PLACES]), max(0, len(worst) - PLACES)


def _watts(
    event: EventType, series: Sequence[int], span: Span, t: int, active_at: int
) -> Inquiry[float | None]:
    """Mean power of one GPU of the group: in the span, else before the alert became active."""
    measure = next((m for m in event.measures if m.name == POWER), None)
    if measure is None:
        return None
    for start, end in ((t - span.longest, t), (active_at - LATELY, active_at)):
        [(total, count)] = yield Query(
            f"SELECT sum({POWER}_sum), sum({POWER}_count) FROM partials_{event.view}_10s WHERE series IN "
            f"(SELECT unnest($series::UBIGINT[])) AND window_start >= {timestamp(start)} AND window_start < {timestamp(end)} "
            f"AND known_from <= {timestamp(t)}",
            {"series": list(series)},
        )
        if count:
            return float(total * measure.quantum / count)
    return None
