"""What a quantity is: a question as a hashable value, the queries that answer it, and the SQL that reproduces it.

A spec touches no engine.  `query` is a generator: it yields what is to be asked of the ledger's tables, is sent the rows
of each answer, and returns the readings.  Whoever has a connection runs it; what is asked next may so depend on what was
answered before, as what a silent series is carried with does.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

from pipeline.catalog import EventType, Measure
from pipeline.readings.reading import LOOKBACK_INTERVALS, By, Match, Readings

if TYPE_CHECKING:
    from pipeline.readings.memory import Memory

T = TypeVar("T")
Rows = list[tuple[Any, ...]]
Group = Mapping[str, str]
"""One group of a clause: dimension → value; '' stands for an absent dimension."""


@dataclass(frozen=True, slots=True)
class Query:
    """One statement over the ledger's tables, with its named parameters."""

    sql: str
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RawSamples:
    """Asks for `raw_{view}(series, entity, w, k, total, n)` of the raw samples of `series` in `[start, end)`.

    `w` and `k` are the grid numbers of a sample's window and of its `known_from`; `n` samples have `measure`, and `total`
    is what they add up to, in quanta.  It is a table of the connection that answers; there are no rows.
    """

    event_type: EventType
    measure: Measure
    start: int
    end: int
    series: Sequence[int]


class Sought(NamedTuple):
    """An entity of a series, looked for in `[start, end)`, epoch seconds."""

    series: int
    name: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class RawLabels:
    """Asks for the last `label` of each of `sought` in its time, of what was known by the instant `known`.

    Rows (series, name, label); an entity that is not there has none.
    """

    event_type: EventType
    label: str
    known: int
    sought: Sequence[Sought]


@dataclass(frozen=True, slots=True)
class Instant:
    """An instant, and what the reading at it says of how it came about.

    `slow`: seconds between two reports of the slowest source, where any declares more than the schema says.
    `basis`: what it rests on.  `frozen`: whether any entity may be; the SQL is half as long where none is.
    """

    t: int
    slow: int = 0
    basis: str = ""
    frozen: bool = True


Inquiry = Generator[Query | RawSamples | RawLabels, Rows, T]
"""Yields what is asked, is sent the rows of each answer, and returns what they say."""


class ReadingSpec(ABC):
    """A question that is answered for every instant of a range `(t0, t1]` at once.

    Subclasses are frozen dataclasses: two clauses that ask the same compare equal, so it is read once.
    """

    __slots__ = ()
    topic: str
    always: ClassVar[bool] = False
    """Whether there is something to read where no telemetry was heard for days: of what is charged, not of what is seen."""
    alone: ClassVar[bool] = False
    """Whether it is asked for itself, and never with others that ask the same of other groups (`together`)."""

    @abstractmethod
    def query(self, event_type: EventType, t0: int, t1: int, memory: Memory) -> Inquiry[Readings]:
        """The readings at every grid instant of `(t0, t1]`, epoch seconds, of a topic's `event_type`."""

    @abstractmethod
    def reproduce(self, event_type: EventType, group: Group, at: Instant) -> str:
        """One SELECT over the published views whose only row and column is the reading of `group`.

        It reads raw rows (`gpu`, `queue`, `energy`, `billing`, `fates`), not roll-ups, so it is a second way to the same
        number; `known_from <= t` makes it see what was known at the instant.  Every value from data or contract is a
        quoted literal; names come from schema files alone.  Watts, seconds, GPUs, jobs or money, as the spec has it.
        """

    def rows_sql(self, event_type: EventType, group: Group, at: Instant) -> str:
        """One SELECT that lists what the reading of `group` does not count, where there is such a thing; else empty."""
        return ""

    def said(self) -> Mapping[str, int]:
        """The measures or marks that a series must report to be alive for it, with the seconds that it looks back.

        None where being there is enough.
        """
        return {}

    @property
    def reports(self) -> int:
        """How many reports it looks back for, of a source that declares a longer interval than its schema.

        What counts the last report of each bears with one that is lost; a mean needs one.
        """
        return LOOKBACK_INTERVALS


def has_dimensions(event_type: EventType, match: Match, by: By) -> bool:
    """Whether the topic has the dimensions asked for: a feed, say, knows no cluster."""
    return {*by, *(name for name, _ in match)} <= {d.name for d in event_type.dimensions}
