"""Which instants are judged: all where there is data, one a day where there is none.

An instant is *heard* when a row of the topics that a group reads, known by then, is at most `QUIET` older.  Heard
instants are judged one after the other.  Where nothing was heard no series is expected any more and no span reaches
back to a row, so that only the calendar can change anything: there the first instant of each UTC day is judged.  A
record of a clock that starts in 1970 so costs two days of instants and 56 years of days, not 180 million instants.

This follows from rows and their `known_from` alone, so it is the same live and replayed, however the log is cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from duckdb import DuckDBPyConnection

from pipeline.catalog import Catalog
from pipeline.readings.reading import GRID, GRID_US
from pipeline.rollup.grid import DAY
from pipeline.rollup.quoting import literal

QUIET = 2 * DAY
"""Seconds; as long as 10 s partials are kept, so that no reading looks back farther."""


def utc(t: float) -> datetime:
    """Epoch seconds as the ledger's naive UTC."""
    return datetime.fromtimestamp(t, UTC).replace(tzinfo=None)


class Stretch(NamedTuple):
    """The instants of `(t0, t1]` (epoch seconds) that are multiples of `every`."""

    t0: int
    t1: int
    every: int = GRID


class Heard:
    """When the topics of `catalog` were heard, from the ledger on `con`, inside whatever transaction that is in.

    It remembers what rows said: more rows only make more of it.  After a rollback call `forget`.
    """

    def __init__(self, con: DuckDBPyConnection, catalog: Catalog) -> None:
        self._con, self._catalog = con, catalog
        self._known: dict[tuple[str, ...], tuple[int, int]] = {}

    def forget(self) -> None:
        """Drops everything remembered."""
        self._known.clear()

    def stretch(self, topics: Sequence[str], t0: int, t1: int, most: int) -> Stretch:
        """The first stretch of `(t0, t1]` for clauses that read `topics`: at most `most` instants, all of a kind."""
        first = t0 + GRID
        until = self._until(tuple(topics), first)
        if until >= first:
            return Stretch(t0, min(t1, until, t0 + most * GRID))
        again = self._again(topics, first)
        end = t1 if again is None else min(t1, again - GRID)
        return Stretch(t0, min(end, (t0 // DAY + most) * DAY), DAY)

    def _until(self, topics: tuple[str, ...], first: int) -> int:
        """The last instant up to which what is known by `first` is heard, without a pause from there."""
        known, until = self._known.get(topics, (first, first - GRID))
        if not known <= first <= until:
            sources = " UNION ALL ".join(
                f"SELECT max(heard) AS heard FROM ({rows}) WHERE known <= {first // GRID}"
                for rows in self._rows(topics)
            )
            row = self._con.execute(f"SELECT max(heard) FROM ({sources})").fetchone()
            until = (row[0] + QUIET // GRID) * GRID if row and row[0] is not None else first - GRID
            self._known[topics] = (first, until)
        return until

    def _again(self, topics: Sequence[str], first: int) -> int | None:
        """The next instant after `first` that is heard, in a time when nothing is."""
        sources = " UNION ALL ".join(
            f"SELECT min(known) AS known FROM ({rows}) WHERE known > {first // GRID} "
            f"AND heard + {QUIET // GRID} >= known"
            for rows in self._rows(topics)
        )
        row = self._con.execute(f"SELECT min(known) FROM ({sources})").fetchone()
        return row[0] * GRID if row and row[0] is not None else None

    def _rows(self, topics: Sequence[str]) -> Iterator[str]:
        """SELECTs of (known, heard): grid numbers by which a row is known, and up to which it tells of its time.

        A bad record has no time of its own: of fates it is the minute in which Kafka got it that is balanced.
        """
        telemetry = [e for e in self._catalog.types if not e.retained]
        for event in [e for e in telemetry if e.topic in topics] or telemetry:
            yield (
                f"SELECT epoch_us(known_from) // {GRID_US} AS known, epoch_us(last_time) // {GRID_US} AS heard "
                f"FROM flow_{event.view}"
            )
        retained = [e for e in self._catalog.types if e.retained]
        issued = f'(epoch_us("time") + {GRID_US - 1}) // {GRID_US}'
        for event in retained if not topics or any(e.topic in topics for e in retained) else ():
            yield (
                f"SELECT greatest({issued}, epoch_us(known_from) // {GRID_US}) AS known, {issued} AS heard FROM {event.kept}"
            )
        names = ", ".join(map(literal, topics))
        minute = f"epoch_us(minute) // {GRID_US} + {60 // GRID}"
        own = f"topic IN ({names})" if topics else "true"
        yield f"SELECT {minute} AS known, {minute} AS heard FROM fates WHERE {own}"
