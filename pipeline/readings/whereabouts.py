"""Where an entity (a GPU) is that was seen in more than one series: it counts once, where it was last seen.

Its home at an instant is one of the series that saw it less than a reporting interval before it was last seen: one
that is not silent, else the one that was heard last; of several, which report it at the same time, always the same,
by their dimensions.  In every other series it is *away*.  A silent series of which nobody is left has *moved*.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby, pairwise
from typing import Any

from pipeline.catalog import EventType
from pipeline.readings.reading import EXPECTED, GRID_US, LOOKBACK_INTERVALS, By
from pipeline.readings.silence import Gap, Move, Silence
from pipeline.readings.span import Span, groups_of
from pipeline.readings.spec import Inquiry, Query
from pipeline.rollup.aggregate import BLOCK_BITS
from pipeline.rollup.quoting import quoted, timestamp

KEPT = EXPECTED
"""Seconds for which the last sighting in a series is kept: as long as a series is expected."""


def moving(event_type: EventType, span: Span) -> Inquiry[bool]:
    """Whether two series that share an entity have rows that count in `span`."""
    view = event_type.view
    if not event_type.entity or not (yield Query(f"SELECT 1 FROM kin_{view} LIMIT 1")):
        return False
    found = f"WITH {_live(event_type, span)} SELECT 1 FROM kin_{view} WHERE {_BOTH_LIVE} LIMIT 1"
    return bool((yield Query(found)))


_BOTH_LIVE = "series IN (FROM live) AND other IN (FROM live)"


def _live(event_type: EventType, span: Span) -> str:
    rows = f"SELECT DISTINCT series FROM partials_{event_type.view}_10s WHERE {span.counted}"
    return f"live AS MATERIALIZED ({rows})"


def away_within(event_type: EventType, span: Span) -> str:
    """CTEs up to `away` and `away_bits`, at every instant of `span`; parameters: `still_params`."""
    view = event_type.view
    movers = (
        f"SELECT entity FROM shared_{view} WHERE series IN (SELECT series FROM kin_{view} WHERE {_BOTH_LIVE})"
    )
    instants = f"SELECT unnest(range({span.low + 1}, {span.high + 1})) AS t"
    return f"{_live(event_type, span)}, {_STILL}, {_away(event_type, movers, instants, span.seconds)}"


def away_at(event_type: EventType) -> str:
    """The same at the instants and of the entities of the series `asked(series, t)`, a CTE before it."""
    movers = f"SELECT entity FROM shared_{event_type.view} WHERE series IN (SELECT series FROM asked)"
    return f"{_STILL}, {_away(event_type, movers, 'SELECT DISTINCT t FROM asked', KEPT)}"


_STILL = """still AS MATERIALIZED (
        SELECT unnest($still_series::UBIGINT[]) AS series, unnest($still_first::BIGINT[]) AS "first",
               unnest($still_last::BIGINT[]) AS "last", unnest($still_us::BIGINT[]) AS last_us)"""


def still_params(gaps: Iterable[Gap]) -> dict[str, Any]:
    gaps = list(gaps)
    return {
        "still_series": [g.series for g in gaps],
        "still_first": [g.first for g in gaps],
        "still_last": [g.last for g in gaps],
        "still_us": [g.last_us for g in gaps],
    }


def _away(event_type: EventType, movers: str, instants: str, seconds: int) -> str:
    """CTEs: `away(t, entity, series, idx, home, last)`, `away_bits(t, series, block, away)`.

    Only what was seen in the last `seconds` makes a home.  A sighting that is not known is older than those that are.
    """
    view = event_type.view
    order = ", ".join(f"coalesce({quoted(d.name)}, '')" for d in event_type.dimensions)
    return f"""movers AS MATERIALIZED ({movers}), instants AS MATERIALIZED ({instants}),
        ranks AS MATERIALIZED (SELECT series, row_number() OVER (ORDER BY {order}) AS rank FROM series_{view}),
        lasts AS MATERIALIZED (
            SELECT t, entity, series, max(window_start) AS "last" FROM sightings_{view} JOIN instants
            ON epoch_us(known_from) <= t * {GRID_US} AND epoch_us(window_start) >= t * {GRID_US} - {KEPT * 1_000_000}
            WHERE entity IN (FROM movers) GROUP BY ALL),
        newest AS (SELECT t, entity, max("last") AS newest FROM lasts GROUP BY ALL),
        homes AS MATERIALIZED (
            SELECT l.t, l.entity, arg_max(l.series, (coalesce(s.last_us, {2**62}), rank)) AS home
            FROM lasts l JOIN newest n ON n.t = l.t AND n.entity = l.entity JOIN ranks r ON r.series = l.series
            LEFT JOIN still s ON s.series = l.series AND l.t BETWEEN s."first" AND s."last"
            WHERE l."last" > newest - INTERVAL {event_type.interval} SECOND
            AND epoch_us(l."last") >= l.t * {GRID_US} - {seconds * 1_000_000} GROUP BY ALL),
        away AS MATERIALIZED (
            SELECT h.t, p.entity, p.series, p.idx, h.home, l."last" FROM shared_{view} p
            JOIN homes h ON h.entity = p.entity AND h.home <> p.series
            LEFT JOIN lasts l ON l.t = h.t AND l.entity = p.entity AND l.series = p.series),
        away_bits AS MATERIALIZED (
            SELECT t, series, idx // {BLOCK_BITS} AS block, bitstring_agg(idx % {BLOCK_BITS}, 0, {BLOCK_BITS - 1}) AS away
            FROM away GROUP BY ALL)"""


def moved_from(
    event_type: EventType,
    silent: Silence,
    span: Span,
    still: Sequence[Gap] | None,
    groups: Mapping[int, By],
) -> Inquiry[dict[tuple[int, By], tuple[tuple[str, int], ...]]]:
    """(grid number, group) → (where, how many) of what has left the group, the most first.

    `still`: the gaps of all series, when those that report may have lost entities to others; else None.  `groups`:
    series → group; what has moved within its group has not left it.
    """
    moves = [move for move in silent.moved if move.first <= span.high and move.last > span.low]
    for part in (yield from span.parts(event_type)) if still is not None else ():
        moves += yield from _left(event_type, silent.gaps, part)
    found: dict[tuple[int, By], Counter[int]] = {}
    for move in moves:
        group = groups.get(move.series)
        if group is not None and group != groups.get(move.home):
            for grid in range(max(move.first, span.low + 1), min(move.last, span.high) + 1):
                found.setdefault((grid, group), Counter())[move.home] += move.n
    if not found:
        return {}
    every = yield from groups_of(event_type, (), tuple(d.name for d in event_type.dimensions))
    names = {series: "/".join(filter(None, dimensions)) for series, dimensions in every.items()}
    return {
        key: tuple(sorted(((names[h], n) for h, n in homes.items()), key=lambda at: (-at[1], at[0])))
        for key, homes in found.items()
    }


def _left(event_type: EventType, gaps: Sequence[Gap], span: Span) -> Inquiry[list[Move]]:
    """Who has left a series that still reports, of those that were last seen there within a day."""
    rows = yield Query(
        f"""WITH {away_within(event_type, span)}
        SELECT t, series, home, count(*) FROM away WHERE "last" IS NOT NULL AND NOT EXISTS
            (SELECT 1 FROM still WHERE still.series = away.series AND t BETWEEN still."first" AND still."last")
        GROUP BY ALL""",
        still_params(gaps),
    )
    return [Move(series, t, t, home, n, 0) for t, series, home, n in rows]


def depart(event_type: EventType, silent: Silence) -> Inquiry[None]:
    """Of the gaps in `silent`: what is still expected there, and what has moved.

    A gap of which everybody is away ends there, for good: it is decided once, and `note_decided` remembers it.
    """
    view = event_type.view
    if not silent.gaps or not event_type.entity:
        return
    kin = {series for (series,) in (yield Query(f"SELECT DISTINCT series FROM kin_{view}"))}
    if not kin:
        return
    decided = yield from _decided(view)
    asked = [g for g in silent.gaps if g.series in kin and not _known(decided, g)]
    pieces = dict((yield from _pieces(event_type, silent, asked))) if asked else {}
    expected: list[Gap] = []
    for gap in silent.gaps:
        if known := _known(decided, gap):
            silent.moved.extend(move._replace(first=gap.first, last=gap.last) for move in known)
            continue
        for piece, total, homes in pieces.get(gap, [(gap, 0, [])]):
            moves = [Move(gap.series, piece.first, piece.last, home, n, gap.last_us) for home, n in homes]
            if total and total == sum(n for _, n in homes):
                moves = [move._replace(last=gap.last) for move in moves]
                silent.moved.extend(moves)
                silent.decided.extend(moves)
                decided[gap.series, gap.last_us] = moves
                break
            silent.moved.extend(moves)
            expected.append(piece)
    silent.depart(frozenset(kin), tuple(expected))


def _known(decided: Mapping[tuple[int, int], list[Move]], gap: Gap) -> list[Move]:
    """How the series was found to have moved, by the gap's first instant."""
    return [move for move in decided.get((gap.series, gap.last_us), ()) if move.first <= gap.first]


def _decided(view: str) -> Inquiry[dict[tuple[int, int], list[Move]]]:
    found: dict[tuple[int, int], list[Move]] = {}
    rows = yield Query(
        f"SELECT series, epoch_us(known_from) // {GRID_US}, home, n, epoch_us(last_time) FROM moved_{view} ORDER BY ALL"
    )
    for series, first, home, n, last_us in rows:
        found.setdefault((series, last_us), []).append(Move(series, first, 0, home, n, last_us))
    return found


Piece = tuple[Gap, int, list[tuple[int, int]]]


def _pieces(
    event_type: EventType, silent: Silence, gaps: Sequence[Gap]
) -> Inquiry[list[tuple[Gap, list[Piece]]]]:
    """Each gap cut where entities leave: (piece, entities that were there last, [(home, how many of them)])."""
    rows = yield Query(
        f"""WITH wholes AS MATERIALIZED (
            SELECT unnest($n::BIGINT[]) AS n, unnest($series::UBIGINT[]) AS series, unnest($first::BIGINT[]) AS "first",
                unnest($last::BIGINT[]) AS "last", unnest($last_us::BIGINT[]) AS last_us),
        asked AS MATERIALIZED ({_cuts(event_type)}),
        {away_at(event_type)},
        seen AS MATERIALIZED ({_seen(event_type, gaps)}),
        totals AS (SELECT n, t, sum(bit_count(observed))::BIGINT AS total FROM seen GROUP BY ALL),
        gone AS (
            SELECT s.n, s.t, home, count(*) AS gone FROM seen s JOIN away a ON a.t = s.t AND a.series = s.series
            AND a.idx // {BLOCK_BITS} = s.block WHERE get_bit(observed, a.idx % {BLOCK_BITS}) = 1 GROUP BY ALL)
        SELECT n, t, coalesce(total, 0), home, gone FROM asked LEFT JOIN totals USING (n, t)
        LEFT JOIN gone USING (n, t) ORDER BY ALL""",
        {
            "n": list(range(len(gaps))),
            "series": [g.series for g in gaps],
            "first": [g.first for g in gaps],
            "last": [g.last for g in gaps],
            "last_us": [g.last_us for g in gaps],
            **still_params(silent.gaps),
        },
    )
    return [(gaps[n], list(_of_gap(gaps[n], list(own)))) for n, own in groupby(rows, key=lambda row: row[0])]


def _of_gap(gap: Gap, rows: list[tuple[Any, ...]]) -> Iterator[Piece]:
    cuts = [(at, list(own)) for at, own in groupby(rows, key=lambda row: row[1])]
    for (at, own), (end, _) in pairwise([*cuts, (gap.last + 1, [])]):
        homes = [(home, gone) for *_, home, gone in own if home is not None]
        yield gap._replace(first=at, last=end - 1), own[0][2], homes


def _cuts(event_type: EventType) -> str:
    """SELECT (n, series, t): where a gap begins, and where another series of its entities is heard, or no more.

    Of each entity and other series, the first sighting that makes that its home beside this one, or instead of it.
    """
    view, near = event_type.view, f"INTERVAL {event_type.interval} SECOND"
    known = f"epoch_us(s.known_from) // {GRID_US}"
    return f"""
        WITH mine AS (
            SELECT n, g.series, "last", p.entity, coalesce(max(s.window_start), TIMESTAMP '1970-01-01') AS w
            FROM wholes g JOIN shared_{view} p ON p.series = g.series LEFT JOIN sightings_{view} s
            ON s.entity = p.entity AND s.series = p.series AND {known} <= "last" GROUP BY ALL),
        others AS (
            SELECT n, min({known}) FILTER (s.window_start > w - {near}) AS beside,
                min({known}) FILTER (s.window_start >= w + {near}) AS instead
            FROM mine m JOIN sightings_{view} s ON s.entity = m.entity AND s.series <> m.series
            WHERE {known} <= "last" GROUP BY n, m.entity, s.series),
        heard AS (
            SELECT n, unnest([s."first", s."last" + 1]) AS t FROM wholes g JOIN kin_{view} k ON k.series = g.series
            JOIN (SELECT unnest($still_series::UBIGINT[]) AS series, unnest($still_first::BIGINT[]) AS "first",
                unnest($still_last::BIGINT[]) AS "last") s ON s.series = k.other)
        SELECT DISTINCT n, series, t FROM (
            SELECT n, "first" AS t FROM wholes UNION ALL SELECT n, unnest([beside, instead]) FROM others
            UNION ALL FROM heard) JOIN wholes USING (n) WHERE t BETWEEN "first" AND "last" """


def _seen(event_type: EventType, gaps: Sequence[Gap]) -> str:
    """SELECT (n, t, series, block, observed): who was in a series in a lookback's time before its last sample."""
    lookback = LOOKBACK_INTERVALS * event_type.interval
    low = min(g.last_us for g in gaps) // 1_000_000 - lookback
    high = max(g.last_us for g in gaps) // 1_000_000 + 1
    return f"""
        SELECT n, t, g.series, b.block, bit_or(b.observed) AS observed FROM asked JOIN wholes g USING (n)
        JOIN (SELECT * FROM bits_{event_type.view}_10s WHERE window_start >= {timestamp(low)}
            AND window_start < {timestamp(high)} AND series IN (SELECT series FROM wholes)) b
        ON b.series = g.series AND epoch_us(b.window_start) > g.last_us - {lookback * 1_000_000}
        AND epoch_us(b.window_start) <= g.last_us AND epoch_us(b.known_from) <= t * {GRID_US} GROUP BY ALL"""
