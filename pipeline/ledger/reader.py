"""Runs what a reading asks on the ledger's connection: the questions are those of `pipeline.readings`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from duckdb import DuckDBPyConnection

from pipeline.catalog import Catalog
from pipeline.ledger.instants import Heard
from pipeline.ledger.raw_rows import RawRows
from pipeline.ledger.sightings import note_decided
from pipeline.readings import By, EntityCount, Readings, ReadingSpec, undelivered
from pipeline.readings.memory import Memory
from pipeline.readings.meters import Meters, meters_of
from pipeline.readings.spec import Inquiry, Query, RawLabels, RawSamples, Rows
from pipeline.readings.together import together
from pipeline.readings.undelivered import Missing

T = TypeVar("T")

LOOKS_KEPT = 256
"""Looks for who is missing that are remembered: those of the alerts that change at an instant, for their notes."""


class Reader:
    """Reads specs from the ledger on `con`, inside whatever transaction that is in.

    Keep one for each ledger, for what it remembers.  After a rollback call `forget`.
    """

    def __init__(self, con: DuckDBPyConnection, catalog: Catalog, raw: RawRows) -> None:
        self.con, self.catalog, self.raw = con, catalog, raw
        self.heard = Heard(con, catalog)
        self.memory = Memory()
        self._missing: dict[tuple[EntityCount, By, int, int], Missing] = {}

    def forget(self) -> None:
        """Drops everything remembered."""
        self.heard.forget()
        self.memory.forget()
        self._missing.clear()

    def read(self, spec: ReadingSpec, t0: int, t1: int) -> Readings:
        """The answers to one spec at every grid instant of `(t0, t1]`, epoch seconds."""
        return self.answer(spec.query(self.catalog.by_topic(spec.topic), t0, t1, self.memory))

    def read_all(self, wanted: Mapping[ReadingSpec, tuple[int, int]]) -> dict[ReadingSpec, Readings]:
        """The answers to all of them, each over its range; what is alike in them is read once."""
        ranges: dict[tuple[int, int], list[ReadingSpec]] = {}
        for spec, span in wanted.items():
            ranges.setdefault(span, []).append(spec)
        found: dict[ReadingSpec, Readings] = {}
        for span, specs in ranges.items():
            for shared in together(specs):
                found |= shared.parted(self.read(shared.wide, *span))
        return found

    def answer(self, inquiry: Inquiry[T]) -> T:
        """Answers one question after the other until nothing more is asked."""
        try:
            asked = next(inquiry)
            while True:
                asked = inquiry.send(self._rows(asked))
        except StopIteration as done:
            found: T = done.value
            return found

    def _rows(self, asked: Query | RawSamples | RawLabels) -> Rows:
        if isinstance(asked, Query):
            return self.con.execute(asked.sql, dict(asked.params)).fetchall()
        if isinstance(asked, RawLabels):
            return self.raw.labels(asked)
        self.raw.fetch(asked.event_type, asked.measure, asked.start, asked.end, asked.series)
        return []

    def missing(self, spec: EntityCount, by: By, t: int, active_at: int) -> Missing:
        """Who of the group `by` is missing at `t`: asked when an alert changes, and at once again for its notes."""
        key = (spec, by, t, active_at)
        if key not in self._missing:
            while len(self._missing) >= LOOKS_KEPT:
                del self._missing[next(iter(self._missing))]
            event_type = self.catalog.by_topic(spec.topic)
            found = self.answer(undelivered.missing(spec, event_type, by, t, active_at, self.memory))
            self._missing[key] = found
        return self._missing[key]

    def meters(self, missing: Missing, t: int) -> Meters | None:
        """What the meters of the dark sites show, as far as they are known by now; None where there are none."""
        energy = next((e for e in self.catalog.types if e.view == "energy"), None)
        since = [lack.first for lack in missing.dark if lack.first is not None]
        if energy is None or not missing.sites or not since:
            return None
        dark = missing.watts * sum(lack.n for lack in missing.dark) if missing.watts else None
        return self.answer(meters_of(energy, missing.sites, t, int(min(since)), dark))

    def note_decided(self) -> None:
        """Writes down which series were found to have moved, so that it is not asked again."""
        for (view, _, _), silence in self.memory.silences.items():
            note_decided(self.con, self.catalog.by_view(view), silence)
