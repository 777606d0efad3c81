"""Entities (GPUs) that were seen in more than one series, and when they were last seen in each.

A GPU that moves to another cluster, or whose labels change, is an entity of two series.  `shared_{view}` names such
entities in each of their series, by their bit there; `kin_{view}` the pairs of series that share any;
`sightings_{view}` has a row for each shared entity, series and `known_from` of a delta: the newest window that had
it.  A fleet in which nothing moves has no row in any of them and pays for one look.  Everything follows from rows and
their `known_from`, in any order and batching: `whereabouts.py` reads where an entity is from them.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from duckdb import DuckDBPyConnection

from pipeline.catalog import EventType
from pipeline.readings.reading import GRID_US
from pipeline.readings.silence import Silence
from pipeline.readings.whereabouts import KEPT
from pipeline.rollup.aggregate import BLOCK_BITS
from pipeline.rollup.grid import GRID

HOMES = 64
"""Series that an entity may stand in and be looked for: one that is in more has not moved, its labels grow without end,
and every pair of its series would be kept."""
BEFORE = timedelta(minutes=15)
"""So long before a delta begin the sightings that are taken out of the bit sets for what has become shared.

Older ones can stay there: they are older than the one that made it shared.
"""


def sightings_tables(view: str) -> tuple[str, ...]:
    """Name and columns of an event type's tables; append only, no index.

    `entity` is 64 bits of its name within `EventType.within`, `idx` its bit in the series; `moved_{view}` is of `whereabouts.py`.
    """
    return (
        f"shared_{view}(entity UBIGINT, series UBIGINT, idx INTEGER)",
        f"kin_{view}(series UBIGINT, other UBIGINT)",
        f"sightings_{view}(entity UBIGINT, series UBIGINT, window_start TIMESTAMP, known_from TIMESTAMP)",
        f"moved_{view}(series UBIGINT, last_time TIMESTAMP, home UBIGINT, n BIGINT, known_from TIMESTAMP)",
    )


def note_sightings(con: DuckDBPyConnection, event: EventType, known_from: datetime) -> None:
    """For the apply transaction: when the shared entities of `indexed_{view}` were seen.

    `known_from`: the topic's first instant not yet evaluated, naive UTC.
    """
    view = event.view
    if con.execute(f"SELECT 1 FROM shared_{view} LIMIT 1").fetchall():
        known = f"greatest(TIMESTAMP '{known_from}', window_start + INTERVAL {GRID} SECOND)"
        con.execute(
            f"INSERT INTO sightings_{view} SELECT s.entity, s.series, max(window_start), {known} AS known "
            f"FROM indexed_{view} i JOIN shared_{view} s ON s.series = i.series AND s.idx = i.entity_idx "
            "GROUP BY s.entity, s.series, known"
        )


def share(con: DuckDBPyConnection, event: EventType, new: str, known_from: datetime, first: int) -> None:
    """For the apply transaction: make entities shared that now stand in several series.

    `new`: a relation with columns `entity`, the names that are new to a series, and `name`, 64 bits of each.  `first`: the
    start of the delta's first window, epoch seconds.  What was known of a shared entity before counts from `known_from` on.
    """
    if not _met_elsewhere(con, event, new):
        return
    since = min(known_from, datetime.fromtimestamp(first, UTC).replace(tzinfo=None)) - BEFORE
    _share(
        con,
        event,
        new,
        f"greatest(known_from, TIMESTAMP '{known_from}')",
        f"window_start >= TIMESTAMP '{since}'",
    )


def _met_elsewhere(con: DuckDBPyConnection, event: EventType, new: str) -> bool:
    """Whether any name of `new` may stand in another series, too: by 64 bits of it, and nearly never."""
    [(met,)] = con.execute(
        f"SELECT count(*) > (SELECT count(DISTINCT name) FROM {new}) FROM entity_bits_{event.view} "
        f"WHERE name IN (SELECT name FROM {new})"
    ).fetchall()
    return bool(met)


def share_all(con: DuckDBPyConnection, event: EventType) -> None:
    """The same for all that a ledger holds, which was written before there were these tables."""
    evaluated = "(SELECT coalesce(max(instant), TIMESTAMP '1970-01-01') FROM frontier)"
    _share(con, event, f"entities_{event.view}", f"greatest(known_from, {evaluated})", "true")


def _share(con: DuckDBPyConnection, event: EventType, new: str, known: str, inside: str) -> None:
    view = event.view
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE namesakes AS SELECT {_one(event)} AS entity, series, idx "
        f"FROM entities_{view} JOIN series_{view} USING (series) "
        f"WHERE hash(entity) IN (SELECT hash(entity) FROM {new})"
    )
    con.execute(
        "CREATE OR REPLACE TEMP TABLE newly_shared AS SELECT n.entity, n.series, n.idx "
        f"FROM namesakes n ANTI JOIN shared_{view} s ON s.series = n.series AND s.idx = n.idx "
        f"WHERE n.entity IN (SELECT entity FROM namesakes GROUP BY entity HAVING count(*) BETWEEN 2 AND {HOMES})"
    )
    if not con.execute("SELECT 1 FROM newly_shared LIMIT 1").fetchall():
        return
    con.execute(f"INSERT INTO shared_{view} FROM newly_shared")
    con.execute(
        f"INSERT INTO kin_{view} SELECT DISTINCT unnest([n.series, s.series]), unnest([s.series, n.series]) "
        f"FROM newly_shared n JOIN shared_{view} s ON s.entity = n.entity AND s.series <> n.series "
        f"EXCEPT FROM kin_{view}"
    )
    con.execute(
        f"INSERT INTO sightings_{view} SELECT n.entity, n.series, max(window_start), {known} AS known "
        f"FROM bits_{view}_10s b JOIN newly_shared n ON b.series = n.series AND b.block = n.idx // {BLOCK_BITS} "
        f"WHERE get_bit(b.observed, n.idx % {BLOCK_BITS}) = 1 AND {inside} GROUP BY n.entity, n.series, known"
    )


def _one(event: EventType) -> str:
    """What makes an entity the same in another series: its name, within the dimensions that the schema says."""
    within = "".join(f', "{name}"' for name in event.within)
    return f"hash(entity{within})"


def fold_sightings(con: DuckDBPyConnection, event: EventType, evaluated: int) -> None:
    """Housekeeping: leaves of what was known by `evaluated` (epoch seconds) the last sighting in each series.

    Those of more than a day ago go, and what was said of series that are no longer expected.
    """
    view = event.view
    old = f"known_from <= make_timestamp({evaluated * 1_000_000})"
    gone = f"make_timestamp({(evaluated - KEPT) * 1_000_000})"
    if not con.execute(f"SELECT 1 FROM sightings_{view} LIMIT 1").fetchall():
        return
    con.execute(
        f"DELETE FROM sightings_{view} WHERE {old} AND (window_start < {gone} OR rowid NOT IN "
        f"(SELECT arg_max(rowid, window_start) FROM sightings_{view} WHERE {old} GROUP BY entity, series))"
    )
    con.execute(f"DELETE FROM moved_{view} WHERE {old} AND last_time < {gone}")


def note_decided(con: DuckDBPyConnection, event_type: EventType, silent: Silence) -> None:
    """For the evaluation's transaction: remembers what was decided while `silent` was read."""
    if not silent.decided:
        return
    view = event_type.view
    columns = zip(*((m.series, m.last_us, m.home, m.n, m.first) for m in silent.decided), strict=True)
    con.execute(
        f"INSERT INTO moved_{view} SELECT series, make_timestamp(last_us), home, n, make_timestamp(k * {GRID_US}) "
        "FROM (SELECT unnest(?::UBIGINT[]) AS series, unnest(?::BIGINT[]) AS last_us, unnest(?::UBIGINT[]) AS home, "
        "unnest(?::BIGINT[]) AS n, unnest(?::BIGINT[]) AS k) d "
        f"ANTI JOIN moved_{view} m ON m.series = d.series AND m.last_time = make_timestamp(d.last_us)",
        [list(column) for column in columns],
    )
    silent.decided.clear()
