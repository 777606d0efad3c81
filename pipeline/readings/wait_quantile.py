"""How long jobs wait: a quantile of the waits' values, and what counts where nobody is admitted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pipeline.catalog import EventType
from pipeline.readings.gaps import GAPS, IN_GAP, GapSums, Mutes, gap_params, mutes_of
from pipeline.readings.memory import Memory
from pipeline.readings.past import Past, last_value, series_names
from pipeline.readings.reading import GRID, By, Match, Reading, Readings
from pipeline.readings.silence import Gap, Silence
from pipeline.readings.span import Span, chosen_sql, group_columns, groups_of, slow_times
from pipeline.readings.spec import Group, Inquiry, Instant, Query, ReadingSpec, Rows, has_dimensions
from pipeline.rollup.quoting import quoted

OLDEST = "oldest wait"
"""How the basis of a reading begins that rests on the oldest wait."""
Key = tuple[int, By]
"""Grid number and group."""


@dataclass(frozen=True, slots=True)
class WaitQuantile(ReadingSpec):
    """Quantile `q` of the histogram `measure` over `span`: the value at rank ⌈q·n⌉ of all that were observed.

    With nothing in the histogram while `pending` (last values within `lookback`, summed) is above zero, it
    is the greatest last value of `fallback`; with nothing pending either it is 0.
    """

    topic: str
    measure: str
    fallback: str
    pending: str
    q: float
    match: Match
    by: By
    span: int
    lookback: int

    def said(self) -> Mapping[str, int]:
        return dict.fromkeys((self.pending, self.fallback), self.lookback)

    def query(self, event_type: EventType, t0: int, t1: int, memory: Memory) -> Inquiry[Readings]:
        if not has_dimensions(event_type, self.match, self.by):
            return Readings(())
        silence = yield from memory.silence(event_type, t0, t1)
        paces = yield from silence.paces()
        found: list[Reading] = []
        for low, high, slow in paces:
            span = Span(low, high, self.span, slow, 1, event_type.lateness + GRID)
            found += yield from self._waits(event_type, silence, span)
        return Readings(found, slow_times(paces))

    def _waits(self, event_type: EventType, silence: Silence, span: Span) -> Inquiry[list[Reading]]:
        mute: dict[str, tuple[Gap, ...]] = {}
        for measure, seconds in self.said().items():
            mute[measure] = yield from silence.mute(measure, seconds, self.reports)
        gaps: Sequence[Gap] = ()
        silent: dict[Key, int] = {}
        mutes: Mutes = {}
        if silence.gaps or any(mute.values()):
            groups = yield from groups_of(event_type, self.match, self.by)
            gaps = [g for g in silence.gaps if g.series in groups]
            sums = GapSums(span, 0)
            for gap in gaps:
                sums.add(groups[gap.series], gap, 0)
            silent = {(grid, by): each[1] for grid, by, each in sums.sums()}
            mutes = yield from mutes_of(event_type, mute, groups, span)
        admitted, queued = Rows(), Rows()
        for part in (yield from span.parts(event_type)):
            admitted += yield self._admissions(event_type, part)
            lately = replace(part, seconds=self.lookback, reports=self.reports)
            queued += yield self._depths(event_type, part.near(gaps), lately)
        waits = {(row[0], row[1:-3]): (float(row[-3]), float(row[-2]), int(row[-1])) for row in admitted}
        depths = {(row[0], row[1:-4]): row[-4:] for row in queued}
        keys = {**waits, **depths, **silent, **mutes}
        found = [_wait(key, waits.get(key), depths.get(key), silent.get(key, 0)) for key in keys]
        return (
            [row._replace(mute=mutes.get((row.t // GRID, row.by), ())) for row in found] if mutes else found
        )

    def _admissions(self, event_type: EventType, span: Span) -> Query:
        """Rows (grid number, group…, least, greatest that the value at rank ⌈q·n⌉ can be, n): the same, but for old rows.

        The bucket that holds the rank is found first, and only its rows are put in order.
        """
        chosen, params = chosen_sql(event_type, self.match, self.by)
        columns = group_columns(self.by)
        part = f"PARTITION BY t{columns}"
        rank = f"({round(self.q * 1_000_000)} * sum(n) OVER ({part}) + 999999) // 1000000"
        same = "".join(f" AND f.g{i} = c.g{i}" for i in range(len(self.by)))
        of = columns.replace(", ", ", f.")
        return Query(
            f"""WITH chosen AS MATERIALIZED ({chosen}),
            counted AS MATERIALIZED (
                SELECT a, b{columns}, bucket, least, greatest, sum(n)::BIGINT AS n
                FROM (SELECT series, {span.interval}, bucket, least, greatest, n FROM hist_{event_type.view}_10s
                      WHERE {span.counted} AND measure = $measure) JOIN chosen USING (series) GROUP BY ALL),
            ranked AS (
                SELECT t{columns}, bucket, n, sum(n) OVER ({part}) AS total,
                       sum(n) OVER ({part} ORDER BY bucket) AS so_far, {rank} AS rank
                FROM (SELECT t{columns}, bucket, sum(n)::BIGINT AS n
                      FROM (SELECT {span.spread}{columns}, bucket, n FROM counted) GROUP BY ALL)),
            found AS (
                SELECT t{columns}, min(bucket) AS bucket, any_value(total) AS total,
                       arg_min(rank - so_far + n, bucket) AS rank
                FROM ranked WHERE so_far >= rank GROUP BY t{columns})
            SELECT t{columns}, min(least) FILTER (to_least >= rank), min(greatest) FILTER (to_greatest >= rank),
                   any_value(total)
            FROM (SELECT f.t{of}, least, greatest, rank, total,
                         sum(c.n) OVER (PARTITION BY f.t{of} ORDER BY least) AS to_least,
                         sum(c.n) OVER (PARTITION BY f.t{of} ORDER BY greatest) AS to_greatest
                  FROM found f JOIN counted c ON f.bucket = c.bucket AND f.t BETWEEN c.a AND c.b{same})
            GROUP BY t{columns}""",
            {**params, "measure": self.measure},
        )

    def _depths(self, event_type: EventType, gaps: Sequence[Gap], span: Span) -> Query:
        """Rows (grid number, group…, pending, oldest wait, series that are not silent, samples)."""
        chosen, params = chosen_sql(event_type, self.match, self.by)
        columns = group_columns(self.by)
        pending, oldest = quoted(f"{self.pending}_last"), quoted(f"{self.fallback}_last")
        heard = "true"
        if gaps:
            params |= gap_params(gaps)
            heard = f"NOT EXISTS ({IN_GAP})"
        return Query(
            f"""WITH chosen AS MATERIALIZED ({chosen}){GAPS if gaps else ""}
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
        )

    def reproduce(self, event_type: EventType, group: Group, at: Instant) -> str:
        """The value at rank ⌈q·n⌉, or the oldest wait where the reading rests on that."""
        if at.basis.startswith(OLDEST):
            past = Past(event_type, at, self.reports)
            return (
                f"SELECT max(value) AS value FROM (\n  SELECT {last_value(self.fallback)} AS value\n"
                f"  FROM {event_type.view}\n  WHERE {past.counted(self.match, group, self.lookback)}\n"
                f"  GROUP BY {series_names(event_type)})"
            )
        millionths = round(self.q * 1_000_000)
        return (
            f"SELECT list_sort(list(w))[({millionths} * count(*) + 999999) // 1000000] AS value FROM (\n"
            f"  SELECT unnest({quoted(self.measure)}) AS w FROM {event_type.view}\n"
            f"  WHERE {Past(event_type, at, 1).counted(self.match, group, self.span)})"
        )


def _wait(
    key: Key,
    waits: tuple[float, float, int] | None,
    depth: tuple[float | None, float | None, int, int] | None,
    silent_series: int,
) -> Reading:
    grid, by = key
    pending, oldest, heard, samples = depth or (None, None, 0, 0)
    basis, value, at_most = "", None, None
    if waits is not None:
        value, at_most, samples = waits
    elif pending:
        value, basis = oldest, f"{OLDEST}: jobs are pending and none was admitted"
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
        at_most=at_most if at_most != value else None,
    )
