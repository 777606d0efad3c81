"""What a clause wants to read, as values; and what it gets back.

A spec is a question that the ledger answers for every instant of a range `(t0, t1]` at once.  Two clauses
that ask the same question compare equal, so it is read once.  Instants are epoch seconds on the 10 s grid.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, NamedTuple

#: Distance of two evaluation instants, and width of the narrowest roll-up window, in seconds.
GRID = 10

#: A reading looks back three reporting intervals unless its clause says otherwise: one lost report in a
#: row of three does not make an entity vanish.
LOOKBACK_INTERVALS = 3
LONGEST = 2 * 86_400
"""Seconds that a reading looks back for a slow series at most: 10 s partials are kept as long."""

#: `((dimension, (value, …)), …)`, sorted: hashable form of a clause's `match`.
Match = tuple[tuple[str, tuple[str, ...]], ...]
Counts = Literal["observed", "healthy", "in_use"]
By = tuple[str, ...]


def match_of(match: Mapping[str, tuple[str, ...]]) -> Match:
    """The hashable, sorted form of a clause's `match`."""
    return tuple(sorted((name, tuple(sorted(values))) for name, values in match.items()))


@dataclass(frozen=True, slots=True)
class EntityCount:
    """Distinct entities (GPUs) seen in the `span` seconds before an instant.

    Read as delivered (`value`), `silent` and `lost`; silence becomes loss after `loss_after` seconds.
    """

    topic: str
    match: Match
    by: By
    span: int
    counts: Counts = "healthy"
    loss_after: int = 300


@dataclass(frozen=True, slots=True)
class FleetPower:
    """Mean of `measure` times distinct entities over `span`, for each series, then summed."""

    topic: str
    measure: str
    match: Match
    by: By
    span: int
    loss_after: int = 300


@dataclass(frozen=True, slots=True)
class MeterMean:
    """Mean of `measure` over `span`, for each series (a feed), then summed."""

    topic: str
    measure: str
    match: Match
    by: By
    span: int
    loss_after: int = 300


@dataclass(frozen=True, slots=True)
class LastSum:
    """The last value of `measure` within `span`, for each series (a queue), then summed."""

    topic: str
    measure: str
    match: Match
    by: By
    span: int
    loss_after: int = 300


@dataclass(frozen=True, slots=True)
class WaitQuantile:
    """Quantile `q` of the histogram `measure` over `span`: the value at rank ⌈q·n⌉ of all that were observed.

    With nothing in the histogram while `pending` (last values within `lookback`, summed) is above zero, it
    is the greatest last value of `fallback`; with nothing pending either it is 0.
    """

    topic: str
    measure: str
    fallback: str
    pending: str
    q: float
    match: Match
    by: By
    span: int
    lookback: int


@dataclass(frozen=True, slots=True)
class TrancheSpend:
    """Money charged in `[from_t, to_t)` by ChargePeriodStart, as issued and known by an instant.

    `fx`: `((currency, ((from_t, rate), …)), …)`.  A charge in a currency without a rate is left out, and said to be.
    `purchases`: whether a purchase that funds a commitment counts (`burn`) or not (`fund`).  Days are those of `zone`.
    """

    topic: str
    match: Match
    by: By
    from_t: int
    to_t: int
    categories: tuple[str, ...]
    cost_column: str
    commitment_id: str | None
    currency: str
    fx: tuple[tuple[str, tuple[tuple[int, Decimal], ...]], ...] = ()
    purchases: Literal["fund", "burn"] = "fund"
    zone: str = "UTC"


@dataclass(frozen=True, slots=True)
class SilentSeries:
    """The series of a topic that have stopped as a whole: `by` is every dimension, `value` the age (s).

    So have those that report, but not what clauses read: `measures` are those, with the seconds they look back.
    """

    topic: str
    measures: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class FateBalance:
    """Events in, less events whose fate is known, for each partition: `by` is (partition,), 0 is healthy."""

    topic: str
    span: int


ReadingSpec = (
    EntityCount | FleetPower | MeterMean | LastSum | WaitQuantile | TrancheSpend | SilentSeries | FateBalance
)
#: Specs whose reading is a sum of one value for each series, with silence carried.
SeriesSpec = EntityCount | FleetPower | MeterMean | LastSum


def said(spec: ReadingSpec) -> dict[str, int]:
    """The measures or marks that a series must report to be alive for `spec`, with the seconds that it looks back.

    None where being there is enough.
    """
    if isinstance(spec, EntityCount):
        return {"in_use": spec.span} if spec.counts == "in_use" else {}
    if isinstance(spec, WaitQuantile):
        return dict.fromkeys((spec.pending, spec.fallback), spec.lookback)
    if isinstance(spec, FleetPower | MeterMean | LastSum):
        return {spec.measure: spec.span}
    return {}


def reports(spec: ReadingSpec) -> int:
    """How many reports a reading looks back for, of a source that declares a longer interval than its schema.

    A mean needs one; what counts the last report of each also bears with one that is lost.
    """
    return 1 if isinstance(spec, FleetPower | MeterMean) else LOOKBACK_INTERVALS


class DaySpend(NamedTuple):
    """Charges of one day of the contract's zone: `usage` is ChargeCategory Usage, `other` the rest.

    `day`: the calendar date, as the epoch seconds of its midnight in UTC.
    """

    day: int
    usage: Decimal
    other: Decimal


class Mute(NamedTuple):
    """A series that reports, but has not said `measure` since `since` (epoch seconds)."""

    series: tuple[str, ...]
    measure: str
    since: float


class Reading(NamedTuple):
    """One answer: at instant `t`, for the dimension values `by` (absent optional ones are '').

    `value` None: nothing to go by.  `silent` and `lost` in the unit of `value`; `silent_series` counts both.
    `settled` False: none of its series has been heard for a whole reporting interval yet (a start, a return),
    so that entities may be there that have not had their turn.
    `basis` says in words what the value rests on when that is not the obvious.
    `left_out`: what could not be counted, in words; then `amount` and `days` are what is known, and that is less.
    `counts`: every way of counting entities, of an EntityCount: (observed, healthy, in use).
    `mute`: the series that report, but without the measure that is read; `silent_series` counts them too.
    `at_most`: what the value can be at most, where it is known in bounds only (infinite: at least so much).
    `without`: entities that are there without the measure; the value takes them at the others' mean, which makes
    `estimated` of it.
    `due`: seconds after its last sample at which the next of a silent series was due.
    `moved`: entities that were last seen here within a day and now live on in another group: (where, how many).
    `frozen`: entities that report, but whose counter and numbers stand still: they do not count.
    """

    t: int
    by: tuple[str, ...]
    value: float | None
    silent: float = 0.0
    lost: float = 0.0
    samples: int = 0
    silent_series: int = 0
    series: int = 0
    settled: bool = True
    basis: str = ""
    amount: Decimal | None = None
    days: tuple[DaySpend, ...] = ()
    left_out: str = ""
    counts: tuple[float, float, float] | None = None
    mute: tuple[Mute, ...] = ()
    due: float = 0.0
    at_most: float | None = None
    without: int = 0
    estimated: float = 0.0
    moved: tuple[tuple[str, int], ...] = ()
    frozen: int = 0

    @property
    def left(self) -> bool:
        """Nothing is here any more, and nothing is missing: all has moved."""
        return bool(self.moved) and not self.series


class Readings:
    """The answers to one spec over a range of instants, looked up by instant."""

    __slots__ = ("_rows", "_slow")

    def __init__(self, rows: Iterable[Reading], slow: Sequence[tuple[int, int, int]] = ()) -> None:
        """`slow`: (after, until, seconds): the longest interval, beyond the schema's, that a source declared then."""
        self._rows: dict[int, list[Reading]] = {}
        self._slow = slow
        for row in rows:
            self._rows.setdefault(row.t, []).append(row)
        for found in self._rows.values():
            found.sort(key=lambda row: row.by)

    def at(self, t: int) -> Sequence[Reading]:
        """The readings at `t`, one for each group that has any, ordered by group."""
        return self._rows.get(t, ())

    def slowest(self, t: int) -> int:
        """Seconds between two reports of the slowest source at `t`; 0 where all report as the schema says."""
        return next((seconds for after, until, seconds in self._slow if after < t <= until), 0)


class Steps(Readings):
    """Answers that hold until the next one: those at `t` are the last at or before it (spend)."""

    __slots__ = ("_instants",)

    def __init__(self, rows: Iterable[Reading]) -> None:
        super().__init__(rows)
        self._instants = sorted(self._rows)

    def at(self, t: int) -> Sequence[Reading]:
        i = bisect_right(self._instants, t)
        return self._rows[self._instants[i - 1]] if i else ()
