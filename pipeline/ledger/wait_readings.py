"""Quantiles of waits from the values of the histograms, and what counts where nobody is admitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from duckdb import DuckDBPyConnection

from pipeline.catalog import EventType
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
from pipeline.ledger.silence import Gap, Silence
from pipeline.rules.readings import GRID, Reading, WaitQuantile, reports, said


def quantiles(
    con: DuckDBPyConnection, spec: WaitQuantile, event_type: EventType, silent: Silence, whole: Span
) -> list[Reading]:
    mute = {measure: silent.mute(measure, span, reports(spec)) for measure, span in said(spec).items()}
    gaps, silences, mutes = silent.gaps, {}, {}
    if gaps or any(mute.values()):
        groups = groups_of(con, event_type, spec.match, spec.by)
        gaps = tuple(g for g in gaps if g.series in groups)
        tally = Tally(whole, 0)
        for gap in gaps:
            tally.add(groups[gap.series], gap, 0)
        silences = {(grid, by): sums[1] for grid, by, sums in tally.sums()}
        mutes = Mutes(con, event_type, mute).of(groups, whole)
    waits: dict[tuple[int, By], tuple[float, float, int]] = {}
    depths: dict[tuple[int, By], tuple[float | None, float | None, int, int]] = {}
    for part in whole.parts(con, event_type):
        waits |= _admissions(con, spec, event_type, part)
        depths |= _depths(
            con,
            spec,
            event_type,
            part.near(gaps),
            replace(part, seconds=spec.lookback, reports=reports(spec)),
        )
    keys = {**waits, **depths, **silences, **mutes}
    found = [_wait(key, waits.get(key), depths.get(key), silences.get(key, 0)) for key in keys]
    return [row._replace(mute=mutes.get((row.t // GRID, row.by), ())) for row in found] if mutes else found


def _wait(
    key: tuple[int, By],
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
        at_most=at_most if at_most != value else None,
    )


def _admissions(
    con: DuckDBPyConnection, spec: WaitQuantile, event_type: EventType, span: Span
) -> dict[tuple[int, By], tuple[float, float, int]]:
    """(grid number, group) → (least, greatest that the value at rank ⌈q·n⌉ can be, n): the same, but for old rows.

    The bucket that holds the rank is found first, and only its rows are put in order.
    """
    chosen, params = chosen_sql(event_type, spec.match, spec.by)
    columns = group_columns(spec.by)
    part = f"PARTITION BY t{columns}"
    rank = f"({round(spec.q * 1_000_000)} * sum(n) OVER ({part}) + 999999) // 1000000"
    same = "".join(f" AND f.g{i} = c.g{i}" for i in range(len(spec.by)))
    of = columns.replace(", ", ", f.")
    rows = con.execute(
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
        {**params, "measure": spec.measure},
    ).fetchall()
    return {(row[0], row[1:-3]): (float(row[-3]), float(row[-2]), int(row[-1])) for row in rows}


def _depths(
    con: DuckDBPyConnection, spec: WaitQuantile, event_type: EventType, gaps: Sequence[Gap], span: Span
) -> dict[tuple[int, By], tuple[float | None, float | None, int, int]]:
    """(grid number, group) → (pending, oldest wait, series that are not silent, samples)."""
    chosen, params = chosen_sql(event_type, spec.match, spec.by)
    columns = group_columns(spec.by)
    pending, oldest = quoted(f"{spec.pending}_last"), quoted(f"{spec.fallback}_last")
    heard = "true"
    if gaps:
        params |= gap_params(gaps)
        heard = f"NOT EXISTS ({IN_GAP})"
    rows = con.execute(
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
    ).fetchall()
    return {(row[0], row[1:-4]): row[-4:] for row in rows}
