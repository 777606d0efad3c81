"""From a reading spec to one vectorised query over the ledger's tables, for a whole range of instants.

A partial row counts at the instants from its `known_from` to its `window_start + span`: an interval.  Rows of
one series and one interval are merged first, and only what is left is spread over the instants; at a single
instant every interval is the same, so nothing is spread.  A sum over series is taken in integers of the
measure's quantum, so that the order in which threads add does not show.

Grid numbers are instants divided by 10 s.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from duckdb import DuckDBPyConnection

from pipeline.catalog import Catalog, EventType, Measure
from pipeline.ledger.silence import GRID_US, Gap, Silence, fold_seen, note_seen, seen_ddl
from pipeline.ledger.spend_readings import SpendReader
from pipeline.rollup.histogram import SCALE, ZERO_BUCKET, ZERO_SECONDS
from pipeline.rules.readings import (
    GRID,
    EntityCount,
    FateBalance,
    FleetPower,
    LastSum,
    Match,
    MeterMean,
    Reading,
    Readings,
    ReadingSpec,
    SeriesSpec,
    SilentSeries,
    TrancheSpend,
    WaitQuantile,
)

__all__ = ["Reader", "fold_seen", "note_seen", "read", "seen_ddl"]

By = tuple[str, ...]
#: Series x instants that one query spreads over: beyond, its bit sets (about 1 KB each) would fill the memory.
SPREAD = 40_000
#: Ranges whose silence is remembered: those of the groups of topics that one evaluation passes.
REMEMBERED = 16
#: Carried counts are looked up around at most this many moments one by one; beyond, in one wide scan.
SCATTERED = 32


def read(con: DuckDBPyConnection, spec: ReadingSpec, t0: int, t1: int, catalog: Catalog) -> Readings:
    """The answers to one spec at every grid instant of `(t0, t1]` (epoch seconds)."""
    return Reader(con, catalog).read(spec, t0, t1)


class Reader:
    """Reads specs from the ledger on `con`, inside whatever transaction that is in.

    Keep one for each ledger: it remembers the spend of tranches while no charge comes in, and who was silent
    over the last few ranges.  After a rollback call `forget`.
    """

    def __init__(self, con: DuckDBPyConnection, catalog: Catalog) -> None:
        self.con, self.catalog = con, catalog
        self._spend = SpendReader(con)
        self._silence: dict[tuple[str, int, int], Silence] = {}

    def forget(self) -> None:
        """Drops everything remembered."""
        self._spend.forget()
        self._silence.clear()

    def read(self, spec: ReadingSpec, t0: int, t1: int) -> Readings:
        """The answers to one spec at every grid instant of `(t0, t1]`."""
        event_type = self.catalog.by_topic(spec.topic)
        if isinstance(spec, FateBalance):
            return Readings(_balances(self.con, spec, t0, t1))
        if isinstance(spec, SilentSeries):
            return Readings(_silent_series(self.con, event_type, self._silent(event_type, t0, t1), t0, t1))
        if not _answers(event_type, spec.match, spec.by):
            return Readings(())
        if isinstance(spec, TrancheSpend):
            return self._spend.read(spec, event_type, t0, t1)
        silent = self._silent(event_type, t0, t1)
        if isinstance(spec, WaitQuantile):
            return Readings(_quantiles(self.con, spec, event_type, silent, t0, t1))
        return Readings(_series_sums(self.con, spec, event_type, silent, t0, t1))

    def _silent(self, event_type: EventType, t0: int, t1: int) -> Silence:
        key = (event_type.view, t0, t1)
        if key not in self._silence:
            while len(self._silence) >= REMEMBERED:
                del self._silence[next(iter(self._silence))]
            self._silence[key] = Silence(self.con, event_type, t0, t1)
        return self._silence[key]


def _answers(event_type: EventType, match: Match, by: By) -> bool:
    """Whether the topic has the dimensions asked for: a feed, say, knows no cluster."""
    return {*by, *(name for name, _ in match)} <= {d.name for d in event_type.dimensions}


# --- what the queries share ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Span:
    """The grid numbers `(low, high]` to answer for, looking back `seconds`."""

    low: int
    high: int
    seconds: int

    def parts(self, con: DuckDBPyConnection, event_type: EventType) -> Iterator[Span]:
        """This span in pieces of at most `SPREAD` series x instants."""
        row = con.execute(f"SELECT count(*) FROM series_{event_type.view}").fetchone()
        step = max(1, SPREAD // max(1, row[0] if row else 0))
        for low in range(self.low, self.high, step):
            yield Span(low, min(low + step, self.high), self.seconds)

    def near(self, gaps: Sequence[Gap]) -> list[Gap]:
        """The gaps that share an instant with this span."""
        return [g for g in gaps if g.first <= self.high and g.last > self.low]

    @property
    def single(self) -> bool:
        return self.high - self.low == 1

    @property
    def counted(self) -> str:
        """WHERE for the rows that count at any of the instants."""
        first = (self.low + 1) * GRID - self.seconds
        return (
            f"window_start >= {_timestamp(first)} AND window_start < {_timestamp(self.high * GRID)} "
            f"AND known_from <= {_timestamp(self.high * GRID)}"
        )

    @property
    def interval(self) -> str:
        """Select list: the first and last grid number at which a row counts."""
        if self.single:
            return f"{self.high} AS a, {self.high} AS b"
        return (
            f"greatest(epoch_us(known_from) // {GRID_US}, {self.low + 1}) AS a, "
            f"least((epoch_us(window_start) + {self.seconds * 1_000_000}) // {GRID_US}, {self.high}) AS b"
        )

    @property
    def spread(self) -> str:
        """Select list: the grid numbers of an interval."""
        return "b AS t" if self.single else "unnest(range(a, b + 1)) AS t"


def _timestamp(t: int) -> str:
    return f"make_timestamp({t * 1_000_000})"


def _name(column: str) -> str:
    return '"' + column.replace('"', '""') + '"'


def _chosen(event_type: EventType, match: Match, by: By) -> tuple[str, dict[str, Any]]:
    """SELECT of the series that match, with their group as columns g0, g1, …; and its parameters."""
    groups = "".join(f", coalesce({_name(d)}, '') AS g{i}" for i, d in enumerate(by))
    params = {f"m{i}": list(values) for i, (_, values) in enumerate(match)}
    tests = [f"list_contains($m{i}, {_name(d)})" for i, (d, _) in enumerate(match)]
    where = f" WHERE {' AND '.join(tests)}" if tests else ""
    return f"SELECT series{groups} FROM series_{event_type.view}{where}", params


def _group_columns(by: By) -> str:
    return "".join(f", g{i}" for i in range(len(by)))


def _groups_of(con: DuckDBPyConnection, event_type: EventType, match: Match, by: By) -> dict[int, By]:
    sql, params = _chosen(event_type, match, by)
    return {row[0]: row[1:] for row in con.execute(sql, params).fetchall()}


# --- sums of one value for each series -----------------------------------------------------------------------


def _measure(event_type: EventType, name: str) -> Measure:
    return next(m for m in event_type.measures if m.name == name)


def _quantum(spec: SeriesSpec, event_type: EventType) -> Decimal:
    return Decimal(1) if isinstance(spec, EntityCount) else _measure(event_type, spec.measure).quantum


def _bit_columns(spec: SeriesSpec, event_type: EventType) -> tuple[tuple[str, ...], str] | None:
    """The bit sets to merge, and the entities that they amount to; None where none are needed."""
    if isinstance(spec, (MeterMean, LastSum)):
        return None
    counts = spec.counts if isinstance(spec, EntityCount) else "observed"
    if counts == "in_use":
        return ("in_use",), "bit_count(in_use)"
    if counts == "healthy" and any(mark.name == "unhealthy" for mark in event_type.marks):
        return ("observed", "unhealthy"), "bit_count(observed & ~unhealthy)"
    return ("observed",), "bit_count(observed)"


def _partial_columns(spec: SeriesSpec) -> tuple[tuple[str, str], ...]:
    """(aggregate, column) of the partial rows to merge."""
    if isinstance(spec, EntityCount):
        return (("sum", "samples"), ("min", "window_start"))
    name = spec.measure
    if isinstance(spec, LastSum):
        return (("sum", f"{name}_count"), ("max", f"{name}_last"))
    return (("sum", f"{name}_count"), ("sum", f"{name}_sum"))


def _value(spec: SeriesSpec, event_type: EventType) -> tuple[str, str, str]:
    """The value of one series in quanta, the samples it rests on, and the condition that there is one."""
    if isinstance(spec, EntityCount):
        return "entities", "samples", "true"
    count, total = _name(f"{spec.measure}_count"), _name(f"{spec.measure}_sum")
    if isinstance(spec, FleetPower):
        return f"{total} * entities // {count}", count, f"{count} > 0"
    if isinstance(spec, MeterMean):
        return f"{total} // {count}", count, f"{count} > 0"
    quantum = _quantum(spec, event_type)
    return f"""round({_name(f"{spec.measure}_last")}."value" / {quantum})""", count, f"{count} > 0"


def _settled(spec: SeriesSpec, event_type: EventType) -> str:
    """Whether a series has been heard for a whole interval and a window: each of its entities had its turn."""
    needed = event_type.interval + GRID
    if not isinstance(spec, EntityCount) or spec.span < needed:
        return "true"
    return f"epoch_us(window_start) <= t::BIGINT * {GRID_US} - {needed * 1_000_000}"


def _per_series(spec: SeriesSpec, event_type: EventType, partials: str, bits: str) -> str:
    """SELECT t, series, value (HUGEINT, quanta), samples, settled; the sources have `t`, `series`, columns."""
    merged = ", ".join(f"{how}({_name(c)}) AS {_name(c)}" for how, c in _partial_columns(spec))
    value, samples, there = _value(spec, event_type)
    source = f"(SELECT t, series, {merged} FROM ({partials}) GROUP BY t, series)"
    found = _bit_columns(spec, event_type)
    if found:
        ored = ", ".join(f"bit_or({c}) AS {c}" for c in found[0])
        source += f"""
        JOIN (SELECT t, series, sum({found[1]})::HUGEINT AS entities FROM (
                SELECT t, series, block, {ored} FROM ({bits}) GROUP BY t, series, block) GROUP BY t, series)
        USING (t, series)"""
    return (
        f"SELECT t, series, ({value})::HUGEINT AS value, {samples} AS samples, "
        f"{_settled(spec, event_type)} AS settled FROM {source} WHERE {there}"
    )


def _live_rows(spec: SeriesSpec, event_type: EventType, span: Span) -> tuple[str, str]:
    """Sources of `_per_series` at every instant of `span`: merged by interval, then spread."""
    view = event_type.view
    inside = f"{span.counted} AND series IN (SELECT series FROM chosen)"
    merged = ", ".join(f"{how}({_name(c)}) AS {_name(c)}" for how, c in _partial_columns(spec))
    names = ", ".join(_name(c) for _, c in _partial_columns(spec))
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
    con: DuckDBPyConnection, spec: SeriesSpec, event_type: EventType, gaps: Sequence[Gap], span: Span
) -> Iterable[tuple[Any, ...]]:
    """Rows (t, group…, value in quanta, samples, series, settled) of the series that are not silent."""
    for part in span.parts(con, event_type):
        yield from _delivered_within(con, spec, event_type, part.near(gaps), part)


def _delivered_within(
    con: DuckDBPyConnection, spec: SeriesSpec, event_type: EventType, gaps: Sequence[Gap], span: Span
) -> list[tuple[Any, ...]]:
    chosen, params = _chosen(event_type, spec.match, spec.by)
    per_series = _per_series(spec, event_type, *_live_rows(spec, event_type, span))
    heard = ""
    if gaps:
        params |= _gap_params(gaps)
        heard = f"WHERE NOT EXISTS ({_IN_GAP})"
    columns = _group_columns(spec.by)
    return con.execute(
        f"""WITH chosen AS MATERIALIZED ({chosen}){_GAPS if gaps else ""}
        SELECT t{columns}, sum(value)::HUGEINT, sum(samples)::BIGINT, count(*), bool_or(settled)
        FROM ({per_series}) s JOIN chosen USING (series) {heard} GROUP BY t{columns}""",
        params,
    ).fetchall()


_GAPS = """, gaps AS MATERIALIZED (
        SELECT unnest($gap_series::UBIGINT[]) AS series,
               unnest($gap_first::BIGINT[]) AS "first", unnest($gap_last::BIGINT[]) AS "last")"""

_IN_GAP = "SELECT 1 FROM gaps WHERE gaps.series = s.series AND s.t BETWEEN gaps.first AND gaps.last"


def _gap_params(gaps: Sequence[Gap]) -> dict[str, Any]:
    return {
        "gap_series": [g.series for g in gaps],
        "gap_first": [g.first for g in gaps],
        "gap_last": [g.last for g in gaps],
    }


def _carried(
    con: DuckDBPyConnection, spec: SeriesSpec, event_type: EventType, gaps: Sequence[Gap]
) -> dict[tuple[int, int], tuple[int, int]]:
    """(series, until) → (value in quanta, samples): what was read at the last instant before a gap."""
    asks = sorted({(g.until, g.series) for g in gaps if g.until is not None})
    found: dict[tuple[int, int], tuple[int, int]] = {}
    for some in _near(asks, spec.span // GRID):
        rows = con.execute(
            _per_series(spec, event_type, *_asked_rows(spec, event_type, some)),
            {"ask_series": [series for _, series in some], "ask_t": [until for until, _ in some]},
        ).fetchall()
        found.update({(series, t): (int(value), int(samples)) for t, series, value, samples, _ in rows})
    return found


def _near(asks: Sequence[tuple[int, int]], reach: int) -> list[list[tuple[int, int]]]:
    """Asks parted wherever a scan would cross more than `reach` grid steps that nobody asks for."""
    parts: list[list[tuple[int, int]]] = []
    for ask in asks:
        if parts and ask[0] - parts[-1][-1][0] <= reach:
            parts[-1].append(ask)
        else:
            parts.append([ask])
    return parts if len(parts) <= SCATTERED else [list(asks)]


def _asked_rows(spec: SeriesSpec, event_type: EventType, asks: Sequence[tuple[int, int]]) -> tuple[str, str]:
    """Sources of `_per_series` for single (series, instant) pairs, given as parameters."""
    low, high = asks[0][0], asks[-1][0]
    asked = "(SELECT unnest($ask_series::UBIGINT[]) AS series, unnest($ask_t::BIGINT[]) AS t) q"
    span = Span(low - 1, high, spec.span)

    def rows(table: str, columns: Iterable[str]) -> str:
        names = ", ".join(f"r.{_name(c)}" for c in columns)
        return (
            f"SELECT q.t, r.series, {names} FROM (SELECT * FROM {table} WHERE {span.counted} "
            f"AND series IN (SELECT unnest($ask_series::UBIGINT[]))) r JOIN {asked} ON r.series = q.series "
            f"AND epoch_us(r.window_start) >= q.t * {GRID_US} - {spec.span * 1_000_000} "
            f"AND epoch_us(r.known_from) <= q.t * {GRID_US}"
        )

    view, found = event_type.view, _bit_columns(spec, event_type)
    partials = rows(f"partials_{view}_10s", (c for _, c in _partial_columns(spec)))
    return partials, rows(f"bits_{view}_10s", ("block", *found[0])) if found else ""


class _Tally:
    """What the gaps of each group add up to at each grid number, kept as differences."""

    def __init__(self, span: Span, loss_after: int) -> None:
        self.span, self.loss_after = span, loss_after
        self._steps: dict[By, dict[int, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0, 0, 0]))

    def add(self, by: By, gap: Gap, value: int) -> None:
        """A gap counts from its first instant; from the one by which it has lasted `loss_after`, as old."""
        first, end = max(gap.first, self.span.low + 1), gap.last + 1
        old = (gap.last_us + self.loss_after * 1_000_000) // GRID_US + 1
        self._step(by, first, end, 0, value)
        self._step(by, max(first, old), end, 2, value)

    def _step(self, by: By, first: int, end: int, at: int, value: int) -> None:
        if first < end:
            for grid, sign in ((first, 1), (end, -1)):
                change = self._steps[by][grid]
                change[at] += sign * value
                change[at + 1] += sign

    def sums(self) -> Iterable[tuple[int, By, list[int]]]:
        """(grid number, group, [silent in all, its series, old, its series]) wherever there are any."""
        for by, steps in self._steps.items():
            now = [0, 0, 0, 0]
            for grid in range(self.span.low + 1, self.span.high + 1):
                if grid in steps:
                    now = [a + b for a, b in zip(now, steps[grid], strict=True)]
                if now[1]:
                    yield grid, by, now


def _series_sums(
    con: DuckDBPyConnection, spec: SeriesSpec, event_type: EventType, silent: Silence, t0: int, t1: int
) -> list[Reading]:
    span = Span(t0 // GRID, t1 // GRID, spec.span)
    quantum = _quantum(spec, event_type)
    gaps, groups = silent.gaps, {}
    if gaps:
        groups = _groups_of(con, event_type, spec.match, spec.by)
        gaps = tuple(g for g in gaps if g.series in groups)
    carried = _carried(con, spec, event_type, gaps) if gaps else {}
    tally = _Tally(span, spec.loss_after)
    for gap in gaps:
        value, _ = carried.get((gap.series, gap.until or 0), (0, 0))
        tally.add(groups[gap.series], gap, value)
    silences = {(grid, by): sums for grid, by, sums in tally.sums()}
    found = []
    for row in _delivered(con, spec, event_type, gaps, span):
        key = (row[0], row[1:-4])
        found.append(_reading(key, row[-4:], silences.pop(key, None), silent, spec.loss_after, quantum))
    found += [
        _reading(k, (0, 0, 0, True), sums, silent, spec.loss_after, quantum) for k, sums in silences.items()
    ]
    return found


def _reading(
    key: tuple[int, By],
    delivered: tuple[int, int, int, bool],
    silences: list[int] | None,
    silent: Silence,
    loss_after: int,
    quantum: Decimal,
) -> Reading:
    grid, by = key
    value, samples, series, settled = delivered
    if silences is None:
        return Reading(
            grid * GRID, by, float(value * quantum), samples=samples, series=series, settled=settled
        )
    whole, silent_series, old, _ = silences
    lost = old if old and silent.lost_at(grid, loss_after) else 0
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
    )


# --- waits ---------------------------------------------------------------------------------------------------


def _quantiles(
    con: DuckDBPyConnection, spec: WaitQuantile, event_type: EventType, silent: Silence, t0: int, t1: int
) -> list[Reading]:
    whole = Span(t0 // GRID, t1 // GRID, spec.span)
    gaps, silences = silent.gaps, {}
    if gaps:
        groups = _groups_of(con, event_type, spec.match, spec.by)
        gaps = tuple(g for g in gaps if g.series in groups)
        tally = _Tally(whole, 0)
        for gap in gaps:
            tally.add(groups[gap.series], gap, 0)
        silences = {(grid, by): sums[1] for grid, by, sums in tally.sums()}
    waits: dict[tuple[int, By], tuple[int, int]] = {}
    depths: dict[tuple[int, By], tuple[float | None, float | None, int, int]] = {}
    for part in whole.parts(con, event_type):
        waits |= _admissions(con, spec, event_type, part)
        depths |= _depths(con, spec, event_type, part.near(gaps), replace(part, seconds=spec.lookback))
    keys = {**waits, **depths, **silences}
    return [_wait(key, waits.get(key), depths.get(key), silences.get(key, 0)) for key in keys]


def _wait(
    key: tuple[int, By],
    waits: tuple[int, int] | None,
    depth: tuple[float | None, float | None, int, int] | None,
    silent_series: int,
) -> Reading:
    grid, by = key
    pending, oldest, heard, samples = depth or (None, None, 0, 0)
    basis, value = "", None
    if waits is not None:
        bucket, samples = waits
        value = ZERO_SECONDS if bucket == ZERO_BUCKET else float(2.0 ** ((bucket + 1) / SCALE))
    elif pending:
        value, basis = oldest, "oldest wait: jobs are pending and none was admitted"
    elif pending is not None:
        value, basis = 0.0, "nothing is pending and none was admitted"
    return Reading(
        grid * GRID,
        by,
        value,
        samples=samples,
        silent_series=silent_series,
        series=heard + silent_series,
        basis=basis,
    )


def _admissions(
    con: DuckDBPyConnection, spec: WaitQuantile, event_type: EventType, span: Span
) -> dict[tuple[int, By], tuple[int, int]]:
    """(grid number, group) → (bucket that holds rank ⌈q·n⌉, n)."""
    chosen, params = _chosen(event_type, spec.match, spec.by)
    columns = _group_columns(spec.by)
    part = f"PARTITION BY t{columns}"
    rank = f"({round(spec.q * 1_000_000)} * sum(n) OVER ({part}) + 999999) // 1000000"
    rows = con.execute(
        f"""WITH chosen AS MATERIALIZED ({chosen})
        SELECT t{columns}, min(bucket), any_value(total) FROM (
            SELECT t{columns}, bucket, sum(n) OVER ({part}) AS total,
                   sum(n) OVER ({part} ORDER BY bucket) AS so_far, {rank} AS rank
            FROM (SELECT t{columns}, bucket, sum(n)::BIGINT AS n FROM (
                SELECT {span.spread}{columns}, bucket, n FROM (
                    SELECT a, b{columns}, bucket, sum(n)::BIGINT AS n
                    FROM (SELECT series, {span.interval}, bucket, n FROM hist_{event_type.view}_10s
                          WHERE {span.counted} AND measure = $measure) JOIN chosen USING (series) GROUP BY ALL))
            GROUP BY ALL)) WHERE so_far >= rank GROUP BY t{columns}""",
        {**params, "measure": spec.measure},
    ).fetchall()
    return {(row[0], row[1:-2]): (int(row[-2]), int(row[-1])) for row in rows}


def _depths(
    con: DuckDBPyConnection, spec: WaitQuantile, event_type: EventType, gaps: Sequence[Gap], span: Span
) -> dict[tuple[int, By], tuple[float | None, float | None, int, int]]:
    """(grid number, group) → (pending, oldest wait, series that are not silent, samples)."""
    chosen, params = _chosen(event_type, spec.match, spec.by)
    columns = _group_columns(spec.by)
    pending, oldest = _name(f"{spec.pending}_last"), _name(f"{spec.fallback}_last")
    heard = "true"
    if gaps:
        params |= _gap_params(gaps)
        heard = f"NOT EXISTS ({_IN_GAP})"
    rows = con.execute(
        f"""WITH chosen AS MATERIALIZED ({chosen}){_GAPS if gaps else ""}
        SELECT t{columns}, sum({pending}."value"), max({oldest}."value"), count(*) FILTER (heard),
               sum(samples)::BIGINT
        FROM (SELECT *, {heard} AS heard FROM (
            SELECT t, series, max({pending}) AS {pending}, max({oldest}) AS {oldest}, sum(samples) AS samples FROM (
                SELECT {span.spread}, series, {pending}, {oldest}, samples FROM (
                    SELECT series, {span.interval}, {pending}, {oldest}, samples
                    FROM partials_{event_type.view}_10s
                    WHERE {span.counted} AND series IN (SELECT series FROM chosen)))
            GROUP BY t, series) s) JOIN chosen USING (series) GROUP BY t{columns}""",
        params,
    ).fetchall()
    return {(row[0], row[1:-4]): row[-4:] for row in rows}


# --- the pipeline's own --------------------------------------------------------------------------------------


def _silent_series(
    con: DuckDBPyConnection, event_type: EventType, silent: Silence, t0: int, t1: int
) -> Iterable[Reading]:
    """One reading for each silent series and instant: its age in seconds."""
    if not silent.gaps:
        return
    by = tuple(d.name for d in event_type.dimensions)
    groups = _groups_of(con, event_type, (), by)
    for gap in silent.gaps:
        for grid in range(max(gap.first, t0 // GRID + 1), min(gap.last, t1 // GRID) + 1):
            age = (grid * GRID_US - gap.last_us) / 1e6
            yield Reading(grid * GRID, groups.get(gap.series, ()), age, silent_series=1, series=1)


def _balances(con: DuckDBPyConnection, spec: FateBalance, t0: int, t1: int) -> Iterable[Reading]:
    """Partitions whose fates do not add up to what came in; one that never counted `in` is silent."""
    rows = con.execute(
        f"""SELECT part, epoch_us(minute) // {GRID_US} AS k, sum(CASE WHEN fate = 'in' THEN n ELSE -n END)::BIGINT,
               sum(n) FILTER (fate = 'in')::BIGINT
        FROM fates WHERE topic = $topic AND minute >= {_timestamp(t0 + GRID - spec.span)}
          AND minute < {_timestamp(t1)} AND part IN (SELECT part FROM fates WHERE topic = $topic AND fate = 'in')
        GROUP BY ALL HAVING sum(CASE WHEN fate = 'in' THEN n ELSE -n END) <> 0""",
        {"topic": spec.topic},
    ).fetchall()
    for t in range(t0 + GRID, t1 + 1, GRID) if rows else ():
        sums: dict[int, list[int]] = {}
        for part, minute, missing, came in rows:
            if t - spec.span <= minute * GRID < t:
                found = sums.setdefault(part, [0, 0])
                found[0], found[1] = found[0] + missing, found[1] + (came or 0)
        yield from (Reading(t, (str(p),), float(m), samples=c) for p, (m, c) in sums.items() if m)
