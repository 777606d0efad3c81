"""Who of a fleet is missing at an instant: GPUs that failed, are gone or fell silent, since when, where, at what power.

It is asked when an alert begins or changes, and once a minute while it fires.  What was there is read from the bit sets
of the hour before the alert became active and of the last quarter of an hour; what each of the missing said last, from
those of their own blocks alone.  Only rows count that were known by the instant, so a replay says the same.  The meters
are the exception: they stand in another topic, which nobody waits for; what is known of them is said beside.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from duckdb import DuckDBPyConnection

from pipeline.catalog import EventType
from pipeline.ledger.reader import Reader
from pipeline.readings import GRID, LOOKBACK_INTERVALS, EntityCount
from pipeline.readings.silence import Gap
from pipeline.readings.span import Span, chosen_sql
from pipeline.rollup.aggregate import BLOCK_BITS
from pipeline.rollup.quoting import quoted, timestamp
from pipeline.rules.missing import FAILED, GONE, IDLE, PLACES, SILENT, Lack, Meters, Missing, Place

BEFORE = 3600
"""Seconds before an alert became active in which those that are missing now were there."""
LATELY = 900
"""Seconds before the instant: who came and went while the alert was active."""
MOST = 5_000
"""Missing GPUs that are looked at one by one; of more the racks say where they are."""
MOMENTS = 3
"""Minutes of raw rows that are read for the nodes of those that were last seen then: those in which most were."""
RACK, NODE, POWER = "nvlink_domain", "node", "power_watts"
PLACE = ("site", "cluster", RACK)
"""Dimensions that say where a series is, from wide to narrow."""
SITE = ("provider", "region", "site")
"""Dimensions that GPUs and meters share."""


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


class Looker:
    """Answers `rules.missing.Look` from the ledger of `reader`, inside whatever transaction that is in."""

    def __init__(self, reader: Reader) -> None:
        self._reader, self._con = reader, reader.con
        self._last: tuple[tuple[Any, ...], Missing] | None = None

    def __call__(self, spec: EntityCount, by: tuple[str, ...], t: int, active_at: int) -> Missing:
        key = (spec, by, t, active_at)
        if self._last is None or self._last[0] != key:
            self._last = (key, self._look(spec, by, t, active_at))
        return self._last[1]

    def _look(self, spec: EntityCount, by: tuple[str, ...], t: int, active_at: int) -> Missing:
        con, event = self._con, self._reader.catalog.by_topic(spec.topic)
        names = _series_of(con, event, spec, by)
        silence = self._reader.answer(self._reader.memory.silence_at(event, t))
        grid = t // GRID
        gaps = {g.series: g for g in silence.expected if g.first <= grid <= g.last and g.series in names}
        slow = next(
            (slow for low, high, slow in self._reader.answer(silence.paces()) if low < grid <= high), ()
        )
        span = Span(grid - 1, grid, spec.span, slow, LOOKBACK_INTERVALS, event.lateness + GRID)
        _find(con, event, spec, sorted(names), span, t, active_at)
        found = _counted(con, event, names, spec.by)
        entities = _entities(con, event, spec, gaps, t, active_at)
        moved = _moved(con, event, t, entities)
        entities = [e for e in entities if e not in moved]
        found = _without(found, moved)
        live = {series: one for series, one in found.items() if series not in gaps}
        dark = [one for series, one in found.items() if series in gaps or one.gone]
        places, more_places = _places(found, gaps)
        nodes, more_nodes = self._nodes(event, entities, gaps, t)
        return Missing(
            lacks=tuple(_lacks(event, spec, live, entities, gaps)),
            places=places,
            nodes=nodes,
            more_places=more_places,
            more_nodes=more_nodes,
            watts=_watts(con, event, sorted(names), span, t, active_at),
            sites=tuple(sorted({one.site for one in dark})),
        )

    def _nodes(
        self, event: EventType, entities: Sequence[_Entity], gaps: Mapping[int, Gap], t: int
    ) -> tuple[tuple[Place, ...], int]:
        """Where most of the missing are: their node stands in the raw rows of the minutes that saw them last."""
        if NODE not in {label.name for label in event.labels} or len(entities) >= MOST:
            return (), 0
        minutes: dict[int, list[tuple[int, str]]] = defaultdict(list)
        for e in entities:
            seen = gaps[e.series].last_us / 1e6 if e.series in gaps else e.seen
            if seen is not None:
                minutes[int(seen) // 60].append((e.series, e.name))
        found: Counter[str] = Counter()
        for minute, own in sorted(minutes.items(), key=lambda each: (-len(each[1]), each[0]))[:MOMENTS]:
            start = minute * 60
            end = min(start + 60, t)
            found.update(self._reader.raw.labels(event, NODE, start, end, t, own).values())
        worst = sorted(found.items(), key=lambda each: (-each[1], each[0]))
        return tuple(Place(name, n) for name, n in worst[:PLACES]), max(0, len(worst) - PLACES)

    def meters(self, missing: Missing, t: int) -> Meters | None:
        """What the meters of the dark sites show, as far as they are known by now; None where there are none."""
        energy = next((e for e in self._reader.catalog.types if e.view == "energy"), None)
        since = [lack.first for lack in missing.dark if lack.first is not None]
        if energy is None or not missing.sites or not since:
            return None
        row = self._con.execute(
            "SELECT epoch(instant)::BIGINT FROM frontier WHERE topic = ?", [energy.topic]
        ).fetchone()
        if row is None or row[0] is None:
            return None
        now, before = _metered(self._con, energy, missing.sites, min(int(row[0]), t), int(min(since)))
        if now is None and before is None:
            return None
        watts = missing.watts
        dark = watts * sum(lack.n for lack in missing.dark) if watts else None
        return Meters(tuple(site[-1] for site in missing.sites), now, before, dark)


def _series_of(
    con: DuckDBPyConnection, event: EventType, spec: EntityCount, by: tuple[str, ...]
) -> dict[int, dict[str, str]]:
    """The series of the group `by`, each with its dimensions."""
    chosen, params = chosen_sql(event, spec.match, spec.by)
    params |= {f"b{i}": value for i, value in enumerate(by)}
    where = " AND ".join(f"g{i} = $b{i}" for i in range(len(by))) or "true"
    dims = [d.name for d in event.dimensions]
    columns = ", ".join(f"coalesce({quoted(d)}, '')" for d in dims)
    rows = con.execute(
        f"SELECT series, {columns} FROM series_{event.view} SEMI JOIN (SELECT series FROM ({chosen}) WHERE {where}) "
        "USING (series)",
        params,
    ).fetchall()
    return {row[0]: dict(zip(dims, row[1:], strict=True)) for row in rows}


def _marks(event: EventType, spec: EntityCount) -> tuple[str, str]:
    """The bit set that says who of those that are there does not count, and which bits of it do: '' and '~'."""
    marks = {mark.name for mark in event.marks}
    if spec.counts == "healthy" and "unhealthy" in marks:
        return "unhealthy", ""
    return ("in_use", "~") if spec.counts == "in_use" and "in_use" in marks else ("", "")


def _find(
    con: DuckDBPyConnection,
    event: EventType,
    spec: EntityCount,
    series: Sequence[int],
    span: Span,
    t: int,
    active_at: int,
) -> None:
    """Make `absent(series, block, base, ill, gone)`: who was there, is there and does not count, is not there."""
    mark, negated = _marks(event, spec)
    lately = f"FILTER (epoch(window_start) >= {t} - {span.own_sql()})"
    marked = f", coalesce(bit_or({mark}) {lately}, none) AS marked" if mark else ""
    ill = f"here & {negated}marked" if mark else "none"
    began, recent = timestamp(active_at - max(BEFORE, span.longest)), timestamp(t - max(LATELY, span.longest))
    con.execute(
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


def _counted(
    con: DuckDBPyConnection,
    event: EventType,
    names: Mapping[int, Mapping[str, str]],
    by: tuple[str, ...],
) -> dict[int, _Series]:
    varies = [d for d in PLACE if d not in by and len({dims.get(d, "") for dims in names.values()}) > 1]
    shown = varies or [d for d in PLACE if any(dims.get(d) for dims in names.values())][-1:]
    rows = con.execute(
        "SELECT series, sum(bit_count(base))::BIGINT, sum(bit_count(ill))::BIGINT, sum(bit_count(gone))::BIGINT "
        "FROM absent GROUP BY series"
    ).fetchall()
    return {
        series: _Series(
            "/".join(filter(None, (names[series].get(d, "") for d in shown))),
            tuple(names[series].get(d, "") for d in SITE),
            *counts,
        )
        for series, *counts in rows
    }


def _entities(
    con: DuckDBPyConnection,
    event: EventType,
    spec: EntityCount,
    gaps: Mapping[int, Gap],
    t: int,
    active_at: int,
) -> list[_Entity]:
    """Up to `MOST` of the missing, one by one."""
    mark, negated = _marks(event, spec)
    marked, well = (
        (f", bit_or({mark}) AS marked", f"observed & ~({negated}marked)") if mark else ("", "observed")
    )
    rows = con.execute(
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
    ).fetchall()
    return [_Entity(*row) for row in rows]


def _moved(con: DuckDBPyConnection, event: EventType, t: int, entities: Sequence[_Entity]) -> set[_Entity]:
    """Those that another series has seen since: they have moved, and nobody misses them."""
    own = {(e.series, e.name): e for e in entities if e.seen is not None and not e.ill}
    rows = con.execute(
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
    ).fetchall()
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
    con: DuckDBPyConnection, event: EventType, series: Sequence[int], span: Span, t: int, active_at: int
) -> float | None:
    """Mean power of one GPU of the group: in the span, else before the alert became active."""
    measure = next((m for m in event.measures if m.name == POWER), None)
    if measure is None:
        return None
    for start, end in ((t - span.longest, t), (active_at - LATELY, active_at)):
        row = con.execute(
            f"SELECT sum({POWER}_sum), sum({POWER}_count) FROM partials_{event.view}_10s WHERE series IN "
            f"(SELECT unnest(?::UBIGINT[])) AND window_start >= {timestamp(start)} AND window_start < {timestamp(end)} "
            f"AND known_from <= {timestamp(t)}",
            [list(series)],
        ).fetchone()
        if row and row[1]:
            return float(row[0] * measure.quantum / row[1])
    return None


def _metered(
    con: DuckDBPyConnection, energy: EventType, sites: Sequence[tuple[str, ...]], now: int, since: int
) -> tuple[float | None, float | None]:
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
        rows = con.execute(
            f"SELECT {means} FROM partials_{energy.view}_10s WHERE window_start >= {timestamp(since - span)} "
            f"AND series IN (SELECT series FROM series_{energy.view} WHERE (provider, region, site) IN ({listed})) "
            "GROUP BY series",
            dict(zip(("provider", "region", "site"), map(list, zip(*sites, strict=True)), strict=True)),
        ).fetchall()
        both = [(float(a), float(b)) for a, b in rows if a is not None and b is not None]
        quantum = float(measure.quantum)
        if both:
            return sum(a for a, _ in both) * quantum, sum(b for _, b in both) * quantum
        if any(b is not None for _, b in rows):
            return None, sum(float(b) for _, b in rows if b is not None) * quantum
    return None, None
