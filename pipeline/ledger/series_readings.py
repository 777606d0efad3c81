"""Readings that are a sum of one value for each series: GPUs, fleet power, meters, last values.

Rows of one series and one interval are merged first, and only what is left is spread over the instants; at a
single instant every interval is the same, so nothing is spread.  The sum over series is taken in integers of
the measure's quantum, so that the order in which threads add does not show.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from duckdb import DuckDBPyConnection

from pipeline.catalog import EventType
from pipeline.ledger.pulses import FROZEN, Still, frozen_params
from pipeline.ledger.raw_rows import RawRows
from pipeline.ledger.reading_sql import (
    GAPS,
    IN_GAP,
    By,
    Mutes,
    Span,
    Tally,
    chosen_sql,
    gap_params,
    group_columns,
    groups_of,
    quoted,
)
from pipeline.ledger.silence import GRID_US, Gap, Silence
from pipeline.ledger.weights import Ask, Weighed, weigh, weigh_asked, without
from pipeline.ledger.whereabouts import away_at, away_within, moved_from, moving, still_params
from pipeline.rules.readings import (
    GRID,
    EntityCount,
    FleetPower,
    LastSum,
    MeterMean,
    Reading,
    SeriesSpec,
    reports,
    said,
)

#: Carried counts are looked up around at most this many moments one by one; beyond, in one wide scan.
SCATTERED = 32


def _quantum(spec: SeriesSpec, event_type: EventType) -> Decimal:
    return Decimal(1) if isinstance(spec, EntityCount) else event_type.measure(spec.measure).quantum


COUNTS = ("observed", "healthy", "in_use")


def _counted(event_type: EventType) -> dict[str, str]:
    """How entities are counted from their bit sets, in each of the ways of COUNTS that the type's marks allow.

    Without a mark that says so all that is observed is healthy.
    """
    marks = {mark.name for mark in event_type.marks}
    healthy = "bit_count(observed & ~unhealthy)" if "unhealthy" in marks else "bit_count(observed)"
    found = {"observed": "bit_count(observed)", "healthy": healthy}
    return {**found, "in_use": "bit_count(in_use)"} if "in_use" in marks else found


def _bit_columns(spec: SeriesSpec, event_type: EventType) -> tuple[tuple[str, ...], dict[str, str]] | None:
    """The bit sets to merge, and what to count in them, the entities first; None where none are needed."""
    if isinstance(spec, (MeterMean, LastSum)):
        return None
    counted = _counted(event_type)
    if isinstance(spec, FleetPower):
        return ("observed",), {"entities": counted["observed"]}
    marks = tuple(mark.name for mark in event_type.marks if mark.name in ("unhealthy", "in_use"))
    return ("observed", *marks), {"entities": counted[spec.counts], **counted}


def _partial_columns(spec: SeriesSpec) -> tuple[tuple[str, str], ...]:
    """(aggregate, column) of the partial rows to merge."""
    if isinstance(spec, EntityCount):
        return (("sum", "samples"), ("min", "window_start"))
    name = spec.measure
    if isinstance(spec, LastSum):
        return (("sum", f"{name}_count"), ("max", f"{name}_last"))
    return (("sum", f"{name}_count"), ("sum", f"{name}_sum"))


def _value(spec: SeriesSpec, event_type: EventType, weighed: bool) -> tuple[str, str, str]:
    """The value of one series in quanta, the samples it rests on, and the condition that there is one."""
    if isinstance(spec, EntityCount):
        return "entities", "samples", "true"
    count, total = quoted(f"{spec.measure}_count"), quoted(f"{spec.measure}_sum")
    if isinstance(spec, FleetPower):
        mean = f"{total} * entities // {count}"
        if weighed:
            mean = f"CASE WHEN den IS NULL THEN {mean} ELSE num * entities // den END"
        return mean, count, f"{count} > 0"
    if isinstance(spec, MeterMean):
        return f"{total} // {count}", count, f"{count} > 0"
    quantum = _quantum(spec, event_type)
    return f"""round({quoted(f"{spec.measure}_last")}."value" / {quantum})""", count, f"{count} > 0"


def _settled(spec: SeriesSpec, event_type: EventType, span: Span) -> str:
    """Whether a series has been heard for a whole interval and a window: each of its entities had its turn."""
    needed = event_type.interval + GRID
    if not isinstance(spec, EntityCount) or spec.span < needed:
        return "true"
    return f"epoch(window_start) <= t::BIGINT * {GRID} - {GRID} - {span.interval_sql(event_type)}"


def _per_series(
    spec: SeriesSpec,
    event_type: EventType,
    partials: str,
    bits: str,
    span: Span,
    away: bool = False,
    weighed: bool = False,
    frozen: bool = False,
) -> str:
    """SELECT t, series, value (HUGEINT, quanta), samples, settled, counts; the sources have `t`, `series`, columns.

    `counts`: entities in each of the ways of COUNTS, for an EntityCount.  `away`: those of `away_bits` count elsewhere,
    and a series all of whose entities do has no row.  `weighed`: some means stand in `weighed` (see `weights`).
    `frozen`: those of `frozen_bits` do not count.
    """
    merged = ", ".join(f"{how}({quoted(c)}) AS {quoted(c)}" for how, c in _partial_columns(spec))
    value, samples, there = _value(spec, event_type, weighed)
    source = f"(SELECT t, series, {merged} FROM ({partials}) GROUP BY t, series)"
    found = _bit_columns(spec, event_type)
    if found:
        ored = ", ".join(f"bit_or({c}) AS {c}" for c in found[0])
        sums = ", ".join(f"sum({count})::HUGEINT AS {name}" for name, count in found[1].items())
        merged = f"SELECT t, series, block, {ored} FROM ({bits}) GROUP BY t, series, block"
        if away:
            merged = f"SELECT *, bit_count(observed) AS present FROM ({_masked(found[0], merged, 'away')})"
            sums += ", sum(present) AS present"
            there += " AND present > 0"
        if frozen:
            merged = _masked(found[0], merged, "frozen")
        source += f"""
        JOIN (SELECT t, series, {sums} FROM ({merged}) GROUP BY t, series) USING (t, series)"""
    if weighed:
        source += " LEFT JOIN weighed USING (t, series)"
    counts = [name if found and name in found[1] else f"0 AS {name}" for name in COUNTS]
    return (
        f"SELECT t, series, ({value})::HUGEINT AS value, {samples} AS samples, "
        f"{_settled(spec, event_type, span)} AS settled, {', '.join(counts)} FROM {source} WHERE {there}"
    )


def _masked(columns: Iterable[str], rows: str, mask: str) -> str:
    """`rows` without the bits of `{mask}_bits`."""
    left = ", ".join(f"CASE WHEN {mask} IS NULL THEN {c} ELSE {c} & ~{mask} END AS {c}" for c in columns)
    return f"SELECT * EXCLUDE ({mask}) REPLACE ({left}) FROM ({rows}) LEFT JOIN {mask}_bits USING (t, series, block)"


def _live_rows(spec: SeriesSpec, event_type: EventType, span: Span) -> tuple[str, str]:
    """Sources of `_per_series` at every instant of `span`: merged by interval, then spread."""
    view = event_type.view
    inside = f"{span.counted} AND series IN (SELECT series FROM chosen)"
    merged = ", ".join(f"{how}({quoted(c)}) AS {quoted(c)}" for how, c in _partial_columns(spec))
    names = ", ".join(quoted(c) for _, c in _partial_columns(spec))
    rows = f"SELECT series, {span.interval}, {names} FROM partials_{view}_10s WHERE {inside}"
    partials = f"SELECT {span.spread}, series, {names} FROM (SELECT series, a, b, {merged} FROM ({rows}) GROUP BY ALL)"
    found = _bit_columns(spec, event_type)
    if not found:
        return partials, ""
    columns = ", ".join(found[0])
    ored = ", ".join(f"bit_or({c}) AS {c}" for c in found[0])
    rows = f"SELECT series, block, {span.interval}, {columns} FROM bits_{view}_10s WHERE {inside}"
    bits = (
        f"SELECT {span.spread}, series, block, {columns} "
        f"FROM (SELECT series, block, a, b, {ored} FROM ({rows}) GROUP BY ALL)"
    )
    return partials, bits


def _delivered(
    con: DuckDBPyConnection,
    spec: SeriesSpec,
    event_type: EventType,
    gaps: Sequence[Gap],
    span: Span,
    still: Sequence[Gap] | None,
    raw: RawRows,
    weighed: list[Weighed],
    frozen: list[Still],
) -> Iterable[tuple[Any, ...]]:
    """Rows (t, group…, value in quanta, samples, series, settled, counts) of the series that are not silent.

    `still`: the gaps of all series, when entities of this span may be away (see `whereabouts`); else None.
    `weighed` is given what is found of series whose samples do not weigh alike.
    """
    for part in span.parts(con, event_type):
        yield from _delivered_within(
            con, spec, event_type, part.near(gaps), part, still, raw, weighed, frozen
        )


def _delivered_within(
    con: DuckDBPyConnection,
    spec: SeriesSpec,
    event_type: EventType,
    gaps: Sequence[Gap],
    span: Span,
    still: Sequence[Gap] | None,
    raw: RawRows,
    weighed: list[Weighed],
    frozen: list[Still],
) -> list[tuple[Any, ...]]:
    chosen, params = chosen_sql(event_type, spec.match, spec.by)
    uneven = weigh(con, spec, event_type, span, raw) if isinstance(spec, FleetPower) else []
    weighed += uneven
    rows = _live_rows(spec, event_type, span)
    per_series = _per_series(
        spec, event_type, *rows, span, away=still is not None, weighed=bool(uneven), frozen=bool(frozen)
    )
    heard = masks = ""
    if still is not None:
        params |= still_params(still)
        masks += f", {away_within(event_type, span)}"
    if frozen:
        params |= frozen_params(frozen)
        masks += f", {FROZEN}"
    if gaps:
        params |= gap_params(gaps)
        heard = f"WHERE NOT EXISTS ({IN_GAP})"
    columns = group_columns(spec.by)
    counts = ", ".join(f"sum({name})::BIGINT" for name in COUNTS)
    return con.execute(
        f"""WITH chosen AS MATERIALIZED ({chosen}){GAPS if gaps else ""}{masks}
        SELECT t{columns}, sum(value)::HUGEINT, sum(samples)::BIGINT, count(*), bool_or(settled), [{counts}]
        FROM ({per_series}) s JOIN chosen USING (series) {heard} GROUP BY t{columns}""",
        params,
    ).fetchall()


def _ask(gap: Gap, shared: bool) -> Ask | None:
    """What is carried in a gap; of a series that shares entities, less those that live on elsewhere by then."""
    return None if gap.until is None else (gap.until, gap.series, gap.first if shared else gap.until)


def _carried(
    con: DuckDBPyConnection,
    spec: SeriesSpec,
    event_type: EventType,
    asks: Iterable[Ask],
    silence: Silence,
    span: Span,
    raw: RawRows,
) -> dict[Ask, int]:
    """The value in quanta that was read at the last instant before each gap."""
    found: dict[Ask, int] = {}
    for some in _near(sorted(set(asks)), span.longest // GRID):
        carried = _asked(con, spec, event_type, some, silence, span.within(some[0][0] - 1, some[-1][0]), raw)
        found.update({ask: carried.get(ask[1:], 0) for ask in some})
    return found


def _asked(
    con: DuckDBPyConnection,
    spec: SeriesSpec,
    event_type: EventType,
    asks: Sequence[Ask],
    silence: Silence,
    span: Span,
    raw: RawRows,
) -> dict[tuple[int, int], int]:
    """(series, t) → value in quanta."""
    away = isinstance(spec, EntityCount | FleetPower) and any(
        series in silence.shared for _, series, _ in asks
    )
    params = dict(zip(("ask_until", "ask_series", "ask_t"), map(list, zip(*asks, strict=True)), strict=True))
    asked = """asked AS MATERIALIZED (SELECT unnest($ask_until::BIGINT[]) AS until,
        unnest($ask_series::UBIGINT[]) AS series, unnest($ask_t::BIGINT[]) AS t)"""
    weighed = isinstance(spec, FleetPower) and weigh_asked(con, spec, event_type, asks, span, raw)
    rows = _asked_rows(spec, event_type, span)
    per_series = _per_series(spec, event_type, *rows, span, away=away, weighed=weighed)
    found = con.execute(
        f"WITH {asked}{', ' + away_at(event_type) if away else ''} SELECT t, series, value FROM ({per_series})",
        params | (still_params(silence.gaps) if away else {}),
    ).fetchall()
    return {(series, t): int(value) for t, series, value in found}


def _near(asks: Sequence[Ask], reach: int) -> list[list[Ask]]:
    """Asks parted wherever a scan would cross more than `reach` grid steps that nobody asks for."""
    parts: list[list[Ask]] = []
    for ask in asks:
        if parts and ask[0] - parts[-1][-1][0] <= reach:
            parts[-1].append(ask)
        else:
            parts.append([ask])
    return parts if len(parts) <= SCATTERED else [list(asks)]


def _asked_rows(spec: SeriesSpec, event_type: EventType, span: Span) -> tuple[str, str]:
    """Sources of `_per_series` for what stands in `asked`."""

    def rows(table: str, columns: Iterable[str]) -> str:
        names = ", ".join(f"r.{quoted(c)}" for c in columns)
        return (
            f"SELECT q.t, r.series, {names} FROM (SELECT * FROM {table} WHERE {span.counted} "
            f"AND series IN (SELECT series FROM asked)) r JOIN asked q ON r.series = q.series "
            f"AND epoch(r.window_start) >= q.until * {GRID} - {span.own_sql('r.series')} "
            f"AND epoch_us(r.known_from) <= q.until * {GRID_US}"
        )

    view, found = event_type.view, _bit_columns(spec, event_type)
    partials = rows(f"partials_{view}_10s", (c for _, c in _partial_columns(spec)))
    return partials, rows(f"bits_{view}_10s", ("block", *found[0])) if found else ""


#: What a group delivers of which there is no row: value, samples, series, settled, counts.
NOTHING = (0, 0, 0, True, [0, 0, 0])


def series_sums(
    con: DuckDBPyConnection,
    spec: SeriesSpec,
    event_type: EventType,
    silence: Silence,
    span: Span,
    raw: RawRows,
    frozen: list[Still],
) -> list[Reading]:
    quantum = _quantum(spec, event_type)
    measure = next(iter(said(spec)), "")
    missing = silence.silent(measure, spec.span, reports(spec)) if measure else silence.expected
    mute = silence.mute(measure, spec.span, reports(spec)) if measure else ()
    groups = groups_of(con, event_type, spec.match, spec.by) if silence.gaps or mute or frozen else {}
    silences = _silences(con, spec, event_type, silence, span, groups, missing, mute, raw)
    mutes = Mutes(con, event_type, {measure: mute}).of(groups, span)
    gaps = [g for g in (*silence.gaps, *mute) if g.series in groups]
    counts = isinstance(spec, EntityCount | FleetPower)
    still = silence.gaps if counts and moving(con, event_type, span) else None
    gone = _gone(con, spec, event_type, silence, span, still)
    found: list[Reading] = []
    weighed: list[Weighed] = []
    stopped = _stopped(frozen, groups) if isinstance(spec, EntityCount) else {}
    frozen = frozen if counts else []
    for row in _delivered(con, spec, event_type, gaps, span, still, raw, weighed, frozen):
        key = (row[0], row[1:-5])
        found.append(
            _reading(key, row[-5:], silences.pop(key, None), silence, spec, quantum, gone.pop(key, ()))
        )
    for key in sorted({*silences, *gone}):
        found.append(_reading(key, NOTHING, silences.get(key), silence, spec, quantum, gone.get(key, ())))
    if any(w.seen > w.having or w.by_samples for w in weighed):
        groups = groups or groups_of(con, event_type, spec.match, spec.by)
        found = without(found, weighed, gaps, groups, quantum)
    if not mutes and not stopped:
        return found
    keys = [(row.t // GRID, row.by) for row in found]
    return [
        row._replace(mute=mutes.get(key, ()), frozen=stopped.get(key, 0))
        for row, key in zip(found, keys, strict=True)
    ]


def _stopped(frozen: Iterable[Still], groups: Mapping[int, By]) -> Mapping[tuple[int, By], int]:
    """(grid number, group) → how many are frozen."""
    return Counter(
        (grid, groups[f.series]) for f in frozen if f.series in groups for grid in range(f.first, f.last + 1)
    )


def _silences(
    con: DuckDBPyConnection,
    spec: SeriesSpec,
    event_type: EventType,
    silence: Silence,
    span: Span,
    groups: Mapping[int, By],
    missing: Sequence[Gap],
    mute: Sequence[Gap],
    raw: RawRows,
) -> dict[tuple[int, By], list[int]]:
    """(grid number, group) → what is silent or mute there, as `Tally` adds it up."""
    # GPUs that report are there, whatever they do not say
    lasting = dict.fromkeys(mute if isinstance(spec, EntityCount) else (), True)
    asks = {g: _ask(g, g.series in silence.shared) for g in missing if g.series in groups}
    asks |= {g: _ask(g, False) for g in mute if g.series in groups}
    carried = _carried(con, spec, event_type, [ask for ask in asks.values() if ask], silence, span, raw)
    tally = Tally(span, spec.loss_after)
    for gap, ask in asks.items():
        tally.add(groups[gap.series], gap, carried.get(ask, 0) if ask else 0, lasting.get(gap, False))
    return {(grid, by): sums for grid, by, sums in tally.sums()}


def _gone(
    con: DuckDBPyConnection,
    spec: SeriesSpec,
    event_type: EventType,
    silence: Silence,
    span: Span,
    still: Sequence[Gap] | None,
) -> dict[tuple[int, By], tuple[tuple[str, int], ...]]:
    """What has left each group, and where it is now."""
    if not isinstance(spec, EntityCount) or not (silence.moved or still is not None):
        return {}
    groups = groups_of(con, event_type, spec.match, spec.by)
    return moved_from(con, event_type, silence, span, still, groups)


def _reading(
    key: tuple[int, By],
    delivered: tuple[int, int, int, bool, list[int]],
    silences: list[int] | None,
    silent: Silence,
    spec: SeriesSpec,
    quantum: Decimal,
    moved: tuple[tuple[str, int], ...],
) -> Reading:
    grid, by = key
    value, samples, series, settled, (observed, healthy, in_use) = delivered
    counts = (observed, healthy, in_use) if isinstance(spec, EntityCount) else None
    whole, silent_series, old, _ = silences or (0, 0, 0, 0)
    lost = old if old and silent.lost_at(grid, spec.loss_after) else 0
    return Reading(
        t=grid * GRID,
        by=by,
        value=float(value * quantum),
        silent=float((whole - lost) * quantum),
        lost=float(lost * quantum),
        samples=samples,
        silent_series=silent_series,
        series=series + silent_series,
        settled=settled,
        counts=counts,
        moved=moved,
    )
