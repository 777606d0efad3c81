"""From a reading spec to one vectorised query over the ledger's tables, for a whole range of instants.

`Reader` chooses; the queries are in `series_readings` (GPUs, power, meters, last values), `wait_readings` and
`spend_readings`, and who is silent in `silence`.
"""

from __future__ import annotations

from collections.abc import Iterable

from duckdb import DuckDBPyConnection

from pipeline.catalog import Catalog, EventType
from pipeline.ledger.instants import Heard
from pipeline.ledger.pulses import Pulses
from pipeline.ledger.raw_rows import RawRows
from pipeline.ledger.reading_sql import By, Mutes, Span, groups_of, timestamp
from pipeline.ledger.series_readings import series_sums
from pipeline.ledger.silence import GRID_US, Silence, fold_seen, note_seen, seen_ddl
from pipeline.ledger.spend_readings import SpendReader
from pipeline.ledger.wait_readings import quantiles
from pipeline.ledger.whereabouts import depart, note_decided
from pipeline.rules.readings import (
    GRID,
    LOOKBACK_INTERVALS,
    FateBalance,
    Match,
    Reading,
    Readings,
    ReadingSpec,
    SilentSeries,
    TrancheSpend,
    WaitQuantile,
    reports,
)

__all__ = ["Reader", "fold_seen", "note_seen", "read", "seen_ddl"]

#: Ranges whose silence is remembered: those of the groups of topics that one evaluation passes.
REMEMBERED = 16


def read(
    con: DuckDBPyConnection, spec: ReadingSpec, t0: int, t1: int, catalog: Catalog, raw: RawRows
) -> Readings:
    """The answers to one spec at every grid instant of `(t0, t1]` (epoch seconds)."""
    return Reader(con, catalog, raw).read(spec, t0, t1)


class Reader:
    """Reads specs from the ledger on `con`, inside whatever transaction that is in.

    Keep one for each ledger: it remembers the spend of tranches while no charge comes in, and who was silent
    over the last few ranges.  After a rollback call `forget`.
    """

    def __init__(self, con: DuckDBPyConnection, catalog: Catalog, raw: RawRows) -> None:
        self.con, self.catalog, self.raw = con, catalog, raw
        self.heard = Heard(con, catalog)
        self._spend = SpendReader(con)
        self._pulses = Pulses(con)
        self._silence: dict[tuple[str, int, int], Silence] = {}

    def forget(self) -> None:
        """Drops everything remembered."""
        self.heard.forget()
        self._spend.forget()
        self._pulses.forget()
        self._silence.clear()
        self.raw.arriving = {}

    def read(self, spec: ReadingSpec, t0: int, t1: int) -> Readings:
        """The answers to one spec at every grid instant of `(t0, t1]`."""
        event_type = self.catalog.by_topic(spec.topic)
        if isinstance(spec, FateBalance):
            return Readings(_balances(self.con, spec, t0, t1))
        if isinstance(spec, SilentSeries):
            return Readings(
                _silent_series(self.con, spec, event_type, self._silent(event_type, t0, t1), t0, t1)
            )
        if not _answers(event_type, spec.match, spec.by):
            return Readings(())
        if isinstance(spec, TrancheSpend):
            return self._spend.read(spec, event_type, t0, t1)
        silent = self._silent(event_type, t0, t1)
        most = 1 if isinstance(spec, WaitQuantile) else reports(spec)
        found: list[Reading] = []
        paces: list[tuple[int, int, int]] = []
        for low, high, slow in silent.paces():
            if slow:
                paces.append((low * GRID, high * GRID, slow[-1][0]))
            span = Span(low, high, spec.span, slow, most, event_type.lateness + GRID)
            if isinstance(spec, WaitQuantile):
                found += quantiles(self.con, spec, event_type, silent, span)
            else:
                frozen = self._pulses.within(event_type, low * GRID, high * GRID)
                found += series_sums(self.con, spec, event_type, silent, span, self.raw, frozen)
        return Readings(found, paces)

    def _silent(self, event_type: EventType, t0: int, t1: int) -> Silence:
        key = (event_type.view, t0, t1)
        if key not in self._silence:
            while len(self._silence) >= REMEMBERED:
                del self._silence[next(iter(self._silence))]
            self._silence[key] = Silence(self.con, event_type, t0, t1)
            depart(self.con, event_type, self._silence[key])
        return self._silence[key]

    def silence_at(self, event_type: EventType, t: int) -> Silence:
        """Who is silent at the instant `t`: as it was read with the readings, where it was."""
        for (view, t0, t1), silent in self._silence.items():
            if view == event_type.view and t0 < t <= t1:
                return silent
        return self._silent(event_type, t - GRID, t)

    def note_decided(self) -> None:
        """Writes down which series were found to have moved, so that it is not asked again."""
        for (view, _, _), silent in self._silence.items():
            note_decided(self.con, self.catalog.by_view(view), silent)


def _answers(event_type: EventType, match: Match, by: By) -> bool:
    """Whether the topic has the dimensions asked for: a feed, say, knows no cluster."""
    return {*by, *(name for name, _ in match)} <= {d.name for d in event_type.dimensions}


def _silent_series(
    con: DuckDBPyConnection, spec: SilentSeries, event_type: EventType, silent: Silence, t0: int, t1: int
) -> Iterable[Reading]:
    """One reading for each silent series and instant: its age in seconds; of a mute one, that of what it lacks."""
    mute = {measure: silent.mute(measure, span, LOOKBACK_INTERVALS) for measure, span in spec.measures}
    if not silent.expected and not any(mute.values()):
        return
    span = Span(t0 // GRID, t1 // GRID, 0)
    groups = groups_of(con, event_type, (), tuple(d.name for d in event_type.dimensions))
    for gap in silent.expected:
        for grid in range(max(gap.first, span.low + 1), min(gap.last, span.high) + 1):
            due = (gap.due_us - gap.last_us) / 1e6
            age = (grid * GRID_US - gap.last_us) / 1e6
            yield Reading(grid * GRID, groups.get(gap.series, ()), age, silent_series=1, series=1, due=due)
    for (grid, by), mutes in Mutes(con, event_type, mute).of(groups, span).items():
        age = grid * GRID - min(m.since for m in mutes)
        yield Reading(grid * GRID, by, age, silent_series=1, series=1, mute=mutes)


def _balances(con: DuckDBPyConnection, spec: FateBalance, t0: int, t1: int) -> Iterable[Reading]:
    """Partitions whose fates do not add up to what came in; one that never counted `in` is silent."""
    rows = con.execute(
        f"""SELECT part, epoch_us(minute) // {GRID_US} AS k, sum(CASE WHEN fate = 'in' THEN n ELSE -n END)::BIGINT,
               sum(n) FILTER (fate = 'in')::BIGINT
        FROM fates WHERE topic = $topic AND minute >= {timestamp(t0 + GRID - spec.span)}
          AND minute < {timestamp(t1)} AND part IN (SELECT part FROM fates WHERE topic = $topic AND fate = 'in')
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
