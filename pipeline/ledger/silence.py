"""Which series are silent at which instants, from a narrow table of what was last seen.

`seen_{view}(series, last_time, known_from)` gets one row for each series and `known_from` of a delta, and
`flow_{view}(last_time, known_from)` one row for the topic.  A row keeps its series from being silent at the
instants from `known_from` to `last_time + interval + lateness`.  Folding (housekeeping) leaves of everything
evaluated one or two rows for each series, so a tick scans thousands of narrow rows instead of a day of
partials.  The answers depend on rows and their `known_from` alone: a replay gives the same.

Grid numbers are instants divided by 10 s.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from duckdb import DuckDBPyConnection

from pipeline.catalog import EventType
from pipeline.rules.readings import GRID

GRID_US = GRID * 1_000_000
#: A series is expected for this long after its last sample, in seconds.
EXPECTED = 86_400


def seen_ddl(view: str) -> tuple[str, ...]:
    """Statements that create the two tables of an event type; append only, no index."""
    return (
        f"CREATE TABLE IF NOT EXISTS seen_{view}(series UBIGINT, last_time TIMESTAMP, known_from TIMESTAMP)",
        f"CREATE TABLE IF NOT EXISTS flow_{view}(last_time TIMESTAMP, known_from TIMESTAMP)",
    )


def note_seen(con: DuckDBPyConnection, event_type: EventType, known_from: datetime) -> None:
    """For the apply transaction: notes what the delta in `delta_partials_{view}` has seen.

    `known_from`: the topic's first instant not yet evaluated, naive UTC.
    """
    view = event_type.view
    noted = (
        "SELECT series, last_time, greatest($known_from::TIMESTAMP, window_start + "
        f"INTERVAL {GRID} SECOND) AS known_from FROM delta_partials_{view}"
    )
    for into, columns in ((f"seen_{view}", "series, "), (f"flow_{view}", "")):
        con.execute(
            f"INSERT INTO {into} SELECT {columns}max(last_time), known_from FROM ({noted}) "
            f"GROUP BY {columns}known_from",
            {"known_from": known_from},
        )


def fold_seen(con: DuckDBPyConnection, event_type: EventType, evaluated: int) -> None:
    """Housekeeping: forgets what no instant after `evaluated` (epoch seconds) can ask for any more.

    `evaluated` must be the least last-evaluated instant of the groups that read the topic.  Of each series
    the row with the latest sample stays, and the one that kept it from silence longest; a series that is no
    longer expected goes.  Flow is kept for a day, which bounds `silence_is_loss_after`.
    """
    seen, until = f"seen_{event_type.view}", _until("last_time", event_type)
    known = f"epoch_us(known_from) // {GRID_US}"
    old = f"{known} <= {evaluated // GRID}"
    kept = f"[arg_max(rowid, last_time), coalesce(arg_max(rowid, {until}) FILTER ({until} >= {known}), -1)]"
    con.execute(
        f"DELETE FROM {seen} WHERE {old} AND rowid NOT IN "
        f"(SELECT unnest({kept}) FROM {seen} WHERE {old} GROUP BY series)"
    )
    con.execute(f"DELETE FROM {seen} WHERE {old} AND last_time < {_timestamp(evaluated - EXPECTED)}")
    con.execute(f"DELETE FROM flow_{event_type.view} WHERE known_from < {_timestamp(evaluated - EXPECTED)}")


def _timestamp(t: int) -> str:
    return f"make_timestamp({t * 1_000_000})"


def _until(last_time: str, event_type: EventType) -> str:
    """Grid number of the last instant at which a sample of `last_time` keeps its series from silence."""
    stop = (event_type.interval + event_type.lateness) * 1_000_000
    return f"((epoch_us({last_time}) + {stop}) // {GRID_US})"


class Gap(NamedTuple):
    """A series is silent from grid number `first` to `last`, both inclusive.

    `until`: the last one at which it was not silent (None: never).  `last_us`: its last sample as known in
    the gap, epoch microseconds.
    """

    series: int
    first: int
    last: int
    until: int | None
    last_us: int


class Silence:
    """The gaps of one topic over the instants `(t0, t1]`, and when the topic as a whole flowed.

    Rows that come later count from later instants, so what is read here stays true.
    """

    def __init__(self, con: DuckDBPyConnection, event_type: EventType, t0: int, t1: int) -> None:
        self._con, self._event_type = con, event_type
        self._low, self._high = t0 // GRID, t1 // GRID
        self._flowing: dict[int, dict[int, bool]] = {}
        self.gaps = _gaps(con, event_type, self._low, self._high)

    def lost_at(self, grid: int, loss_after: int) -> bool:
        """True when the topic has flowed for the whole of the last `loss_after` seconds."""
        steps = loss_after // GRID
        if steps not in self._flowing:
            self._flowing[steps] = _flowing(self._con, self._event_type, self._low - steps, self._high)
        flowing = self._flowing[steps]
        return all(flowing.get(step, False) for step in range(grid - steps + 1, grid + 1))


def _gaps(con: DuckDBPyConnection, event_type: EventType, low: int, high: int) -> tuple[Gap, ...]:
    """Rows known by the first instant are merged at once; only those known later are put in order."""
    merged = f"""
        SELECT series, greatest(epoch_us(known_from) // {GRID_US}, {low + 1}) AS k,
               max(epoch_us(last_time)) AS last_us,
               max({_until("last_time", event_type)})
                   FILTER ({_until("last_time", event_type)} >= epoch_us(known_from) // {GRID_US}) AS until
        FROM seen_{event_type.view} WHERE known_from <= {_timestamp(high * GRID)} GROUP BY ALL"""
    if high - low > 1:
        merged = f"""
        SELECT series, k, max(last_us) OVER so_far AS last_us, max(until) OVER so_far AS until,
               lead(k) OVER so_far AS next
        FROM ({merged}) WINDOW so_far AS (PARTITION BY series ORDER BY k)"""
    else:
        merged = f"SELECT *, NULL::BIGINT AS next FROM ({merged})"
    expected = f"(last_us + {EXPECTED * 1_000_000}) // {GRID_US}"
    rows = con.execute(f"""
        SELECT series, greatest(k, coalesce(until + 1, k)) AS "first",
               least(coalesce(next - 1, {high}), {high}, {expected}) AS "last", until, last_us
        FROM ({merged}) WHERE "first" <= "last" ORDER BY series, "first" """).fetchall()
    return tuple(Gap(*row) for row in rows)


def _flowing(con: DuckDBPyConnection, event_type: EventType, low: int, high: int) -> dict[int, bool]:
    """For each grid number of `(low, high]`: whether any series of the topic was not silent then."""
    known = f"epoch_us(known_from) // {GRID_US}"
    until = _until("last_time", event_type)
    rows = con.execute(f"""
        SELECT greatest({known}, {low + 1}) AS k, max({until}) FILTER ({until} >= {known})
        FROM flow_{event_type.view} WHERE known_from <= {_timestamp(high * GRID)} GROUP BY k""").fetchall()
    reach = dict(rows)
    found: dict[int, bool] = {}
    until_now = -1
    for grid in range(low + 1, high + 1):
        until_now = max(until_now, reach.get(grid) or -1)
        found[grid] = until_now >= grid
    return found
