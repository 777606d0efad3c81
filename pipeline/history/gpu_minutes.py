"""GPU-minutes of each quarter of an hour: what a bill is held against, in a few rows for a whole fleet.

A GPU counts in each minute in which it reported, once, wherever it was; one that moves within a minute counts where its
labels come last.  A source that declares a longer interval is not there every minute: its GPUs count for five minutes or
a quarter of an hour in which they reported, or for the interval if that is longer still.  A GPU whose source as a whole
has stopped is *silent*: its minutes are counted apart for a day after its source was last heard, unless it reports from
elsewhere.

It follows from the bit sets of the minutes, which the ledger keeps for 30 days; days that are older than that when they
are first counted (an upgrade) are counted by quarters of an hour, and say so (`step_seconds`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from duckdb import DuckDBPyConnection

from pipeline.catalog import EventType
from pipeline.history.rollup_select import bounds
from pipeline.ledger.tables import get_meta, set_meta
from pipeline.readings.reading import EXPECTED
from pipeline.rollup.aggregate import BLOCK_BITS
from pipeline.rollup.grid import DAY, MINUTE, QUARTER
from pipeline.rollup.quoting import literal, quoted
from pipeline.views.published import GPU_MINUTES_BY

SLOW_MINUTES = 5
"""A source that reports at least twice within so many minutes counts by these."""
REACHED, BEGUN = "gpu_minutes_to", "gpu_minutes_from"
"""Keys in `meta`, epoch seconds: up to where quarters were published although nothing came in them; the first day that
was counted, of a ledger that is older than this table."""


def mark_due(con: DuckDBPyConnection, event: EventType) -> None:
    """Marks the quarters to be published that no delta has touched: those that are over now, and a day of before.

    Only when a quarter is over it is known who was silent in it.  For publishing's transaction, which notes how far it
    has come.
    """
    row = con.execute(
        f"SELECT epoch(watermark)::BIGINT, (SELECT epoch(max(window_start))::BIGINT FROM partials_{event.view}_15m) "
        "FROM frontier WHERE topic = ?",
        [event.topic],
    ).fetchone()
    watermark, last = row or (None, None)
    if watermark is None or last is None:
        return
    upto = min(watermark, last + QUARTER + EXPECTED) // QUARTER * QUARTER
    reached = int(get_meta(con, REACHED) or upto)
    if get_meta(con, REACHED) is None or reached < upto:
        set_meta(con, REACHED, str(upto))
    if quarters := [*range(reached, upto, QUARTER), *_earlier(con, event, upto)]:
        con.execute(
            f"INSERT INTO dirty SELECT '{event.view}_minutes', make_timestamp(unnest(?::BIGINT[]) * 1000000)",
            [quarters],
        )


def _earlier(con: DuckDBPyConnection, event: EventType, upto: int) -> Iterator[int]:
    """The quarters of the newest day that was never counted: a day at a time, for each may take seconds.

    With those after it over which its sources are expected and nothing came.
    """
    begun = get_meta(con, BEGUN)
    if begun == "":
        return
    before = int(begun) if begun else upto + QUARTER
    row = con.execute(
        f"""SELECT epoch(min(window_start))::BIGINT, epoch(max(window_start))::BIGINT FROM partials_{event.view}_15m
        WHERE window_start < make_timestamp({before * 1_000_000}) AND window_start >= (
            SELECT date_trunc('day', max(window_start)) FROM partials_{event.view}_15m
            WHERE window_start < make_timestamp({before * 1_000_000}))"""
    ).fetchone()
    first, last = row if row else (None, None)
    set_meta(con, BEGUN, "" if first is None else str(first // DAY * DAY))
    if first is not None:
        yield from range(first, min(before, upto, last + QUARTER + EXPECTED), QUARTER)


def kept(data: Path, path: str, minute: int, cut: int) -> bool:
    """Whether a file stays as it is: its minutes are no longer in the ledger (`cut`: the first that are, epoch s)."""
    return minute < cut and (data / path).exists()


def minutes_select(event: EventType, start: int, end: int, cut: int) -> str:
    """One row for each of GPU_MINUTES_BY and each quarter of an hour that starts in `[start, end)`, epoch seconds.

    `cut`: from where on the ledger has minutes.
    """
    width, step = ("1m", MINUTE) if start >= cut else ("15m", QUARTER)
    by, series = ", ".join(GPU_MINUTES_BY), f"JOIN series_{event.view} USING (series)"
    return f"""WITH {_counted(event, width, step, start, end)},
        {_silent(event, start, end)},
        delivered AS (
            SELECT quarter, {by}, sum(weight * bit_count(observed)) AS delivered,
                sum(weight * bit_count(observed & ~unhealthy)) AS healthy, sum(weight * bit_count(observed & in_use)) AS used
            FROM once {series} GROUP BY ALL),
        covered AS (
            SELECT quarter, {by}, least(count(DISTINCT minute), {QUARTER // MINUTE}) AS covered
            FROM (SELECT quarter, {by}, unnest(range(weight)) * {MINUTE} + epoch(begins)::BIGINT AS minute
                  FROM (SELECT DISTINCT quarter, {by}, begins, weight FROM once {series})) GROUP BY ALL),
        missing AS (
            SELECT quarter, {by}, sum(missing * gpus) AS silent FROM silent {series} GROUP BY ALL HAVING silent > 0)
        SELECT quarter AS window_start, {by}, coalesce(delivered, 0)::BIGINT AS delivered,
            coalesce(healthy, 0)::BIGINT AS healthy, coalesce(used, 0)::BIGINT AS used,
            coalesce(silent, 0)::BIGINT AS silent, coalesce(covered, 0)::BIGINT AS covered, {step}::INTEGER AS step_seconds
        FROM delivered JOIN covered USING (quarter, {by}) FULL JOIN missing USING (quarter, {by}) ORDER BY ALL"""


def _quarter(column: str = "window_start") -> str:
    return f"time_bucket(INTERVAL {QUARTER} SECOND, {column})"


def _counted(event: EventType, width: str, step: int, start: int, end: int) -> str:
    """CTE `once(quarter, begins, series, block, weight, observed, unhealthy, in_use)`: each GPU once in a block of time.

    `begins`: the start of that block; `weight`: the minutes that a GPU seen in it counts for.
    """
    view, inside = event.view, bounds("window_start", start, end)
    labels = ", ".join(f"coalesce({quoted(d.name)}, '') DESC" for d in event.dimensions)
    whole = QUARTER // MINUTE
    minutes = (
        f"CASE WHEN {step} = {QUARTER} OR pace * 2 > {SLOW_MINUTES * MINUTE} THEN {whole} "
        f"WHEN pace > {event.interval} THEN {SLOW_MINUTES} ELSE 1 END"
    )
    return f"""paces AS (
            SELECT series, {_quarter()} AS quarter, coalesce(max(interval), {event.interval}) AS pace,
                {minutes} AS minutes, greatest(minutes, pace // {MINUTE}) AS weight
            FROM partials_{view}_{width} WHERE {inside} GROUP BY ALL),
        seen AS MATERIALIZED (
            SELECT p.quarter, time_bucket(to_minutes(minutes), window_start) AS begins, series, block, weight,
                bit_or(observed) AS observed, bit_or(unhealthy) AS unhealthy, bit_or(in_use) AS in_use
            FROM (SELECT *, {_quarter()} AS quarter FROM bits_{view}_{width} WHERE {inside}) b
            JOIN paces p USING (series, quarter) GROUP BY ALL),
        again AS (
            SELECT begins, s.series, s.idx FROM seen r JOIN shared_{view} s
                ON s.series = r.series AND s.idx // {BLOCK_BITS} = r.block JOIN series_{view} l ON l.series = s.series
            WHERE get_bit(r.observed, s.idx % {BLOCK_BITS}) = 1
            QUALIFY row_number() OVER (PARTITION BY begins, s.entity ORDER BY {labels}) > 1),
        twice AS (
            SELECT begins, series, idx // {BLOCK_BITS} AS block, {_bits()} AS elsewhere FROM again GROUP BY ALL),
        once AS MATERIALIZED (
            SELECT quarter, begins, series, block, weight, unhealthy, in_use,
                CASE WHEN elsewhere IS NULL THEN observed ELSE observed & ~elsewhere END AS observed
            FROM seen LEFT JOIN twice USING (begins, series, block))"""


def _bits() -> str:
    return f"bitstring_agg(idx % {BLOCK_BITS}, 0, {BLOCK_BITS - 1})"


def _silent(event: EventType, start: int, end: int) -> str:
    """CTE `silent(quarter, series, missing, gpus)`: minutes of quarters that are over, without a word of an expected series.

    `gpus`: those that it had in the last quarter of an hour in which it was heard, without those that are elsewhere.
    """
    view, day = event.view, bounds("window_start", start - EXPECTED, end)
    over = f"(SELECT epoch(watermark)::BIGINT FROM frontier WHERE topic = {literal(event.topic)})"
    return f"""quarters AS MATERIALIZED (
            SELECT make_timestamp(t * 1000000) AS quarter FROM (SELECT unnest(range({start}, {end}, {QUARTER})) AS t)
            WHERE t + {QUARTER} <= {over}),
        present AS (
            SELECT quarter, series, sum(weight) AS minutes, min(begins) AS first
            FROM (SELECT DISTINCT quarter, series, begins, weight FROM once) GROUP BY ALL),
        complete AS MATERIALIZED (
            SELECT series FROM present JOIN quarters USING (quarter) WHERE minutes >= {QUARTER // MINUTE}
            GROUP BY series HAVING count(*) = (SELECT count(*) FROM quarters)),
        heard AS MATERIALIZED (
            SELECT series, window_start AS last, coalesce(max(interval), 0) AS pace FROM partials_{view}_15m
            WHERE {day} AND EXISTS (FROM quarters) AND series NOT IN (FROM complete) GROUP BY ALL),
        lasts AS (
            SELECT e.quarter, e.series, h.last FROM (SELECT * FROM quarters, (SELECT DISTINCT series FROM heard)) e
            ASOF JOIN heard h ON h.series = e.series AND h.last <= e.quarter
            WHERE epoch(e.quarter) - epoch(h.last) < greatest({EXPECTED}, pace) AND (h.last = e.quarter
                OR epoch(e.quarter) - epoch(h.last) >= pace)),
        lacking AS MATERIALIZED (
            SELECT l.quarter, l.series, l.last, {QUARTER // MINUTE} - coalesce(p.minutes, 0) - CASE
                    WHEN b.last IS NULL AND l.last = l.quarter THEN (epoch(p.first) - epoch(l.quarter))::BIGINT // {MINUTE}
                    ELSE 0 END AS missing
            FROM lasts l LEFT JOIN present p ON p.quarter = l.quarter AND p.series = l.series
            ASOF LEFT JOIN heard b ON b.series = l.series AND b.last < l.quarter
            WHERE missing > 0 AND NOT EXISTS (
                SELECT 1 FROM moved_{view} m WHERE m.series = l.series AND {_quarter("m.last_time")} = l.last)),
        homes AS (
            SELECT quarter, entity, arg_max(s.series, (s.window_start, s.series)) AS home
            FROM (SELECT DISTINCT quarter FROM lacking) q JOIN sightings_{view} s
                ON s.window_start < q.quarter + INTERVAL {QUARTER} SECOND
            WHERE entity IN (SELECT entity FROM shared_{view} WHERE series IN (SELECT series FROM lacking)) GROUP BY ALL),
        away AS (
            SELECT quarter, p.series, idx // {BLOCK_BITS} AS block, {_bits()} AS elsewhere
            FROM shared_{view} p JOIN homes h ON h.entity = p.entity AND h.home <> p.series GROUP BY ALL),
        silent AS (
            SELECT quarter, series, missing,
                sum(bit_count(CASE WHEN elsewhere IS NULL THEN observed ELSE observed & ~elsewhere END)) AS gpus
            FROM (SELECT l.quarter, l.series, l.missing, b.block, bit_or(observed) AS observed
                  FROM (SELECT * FROM bits_{view}_15m WHERE {day} AND series IN (SELECT series FROM lacking)) b
                  JOIN lacking l ON l.series = b.series AND l.last = b.window_start GROUP BY ALL)
            LEFT JOIN away USING (quarter, series, block) GROUP BY ALL)"""
