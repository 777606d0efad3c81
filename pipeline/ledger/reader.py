"""Runs what a reading asks on the ledger's connection: the questions are those of `pipeline.readings`."""

from __future__ import annotations

from typing import TypeVar

from duckdb import DuckDBPyConnection

from pipeline.catalog import Catalog
from pipeline.ledger.instants import Heard
from pipeline.ledger.raw_rows import RawRows
from pipeline.ledger.sightings import note_decided
from pipeline.readings import Readings, ReadingSpec
from pipeline.readings.memory import Memory
from pipeline.readings.spec import Inquiry, Query, RawSamples, Rows

T = TypeVar("T")


class Reader:
    """Reads specs from the ledger on `con`, inside whatever transaction that is in.

    Keep one for each ledger, for what it remembers.  After a rollback call `forget`.
    """

    def __init__(self, con: DuckDBPyConnection, catalog: Catalog, raw: RawRows) -> None:
        self.con, self.catalog, self.raw = con, catalog, raw
        self.heard = Heard(con, catalog)
        self.memory = Memory()

    def forget(self) -> None:
        """Drops everything remembered."""
        self.heard.forget()
        self.memory.forget()
        self.raw.arriving = {}

    def read(self, spec: ReadingSpec, t0: int, t1: int) -> Readings:
        """The answers to one spec at every grid instant of `(t0, t1]`, epoch seconds."""
        return self.answer(spec.query(self.catalog.by_topic(spec.topic), t0, t1, self.memory))

    def answer(self, inquiry: Inquiry[T]) -> T:
        """Answers one question after the other until nothing more is asked."""
        try:
            asked = next(inquiry)
            while True:
                asked = inquiry.send(self._rows(asked))
        except StopIteration as done:
            found: T = done.value
            return found

    def _rows(self, asked: Query | RawSamples) -> Rows:
        if isinstance(asked, Query):
            return self.con.execute(asked.sql, dict(asked.params)).fetchall()
        self.raw.fetch(asked.event_type, asked.measure, asked.start, asked.end, asked.series)
        return []

    def note_decided(self) -> None:
        """Writes down which series were found to have moved, so that it is not asked again."""
        for (view, _, _), silence in self.memory.silences.items():
            note_decided(self.con, self.catalog.by_view(view), silence)
