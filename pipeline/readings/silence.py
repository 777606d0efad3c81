"""Which series are silent at which instants, from the narrow tables of what was last seen (`ledger/seen.py`).

A row of `seen_{view}` keeps its series from being silent at the instants from `known_from` to `reach + lateness`.  A
series that reports without a measure which it had is *mute*: nothing of it stands in a clause's span.  The answers
depend on rows and their `known_from` alone: a replay gives the same.

Grid numbers are instants divided by 10 s.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from pipeline.catalog import EventType
from pipeline.readings.reading import EXPECTED, GRID, GRID_US
from pipeline.readings.spec import Inquiry, Query
from pipeline.rollup.quoting import timestamp

SERIES = ""
"""In place of a measure: the series as a whole."""


class Gap(NamedTuple):
    """A series is silent, or mute, from grid number `first` to `last`, both inclusive.

    `until`: the last one at which it was not (None: never).  `last_us`: its last sample, or the last that had the
    measure, as known in the gap, epoch microseconds.  `due_us`: by when the next was due.
    """

    series: int
    first: int
    last: int
    until: int | None
    last_us: int
    due_us: int = 0


class Move(NamedTuple):
    """`n` entities that a silent series had last live on in the series `home`, from grid number `first` to `last`.

    `last_us`: that of the gap.
    """

    series: int
    first: int
    last: int
    home: int
    n: int
    last_us: int


class Pace(NamedTuple):
    """From grid number `low`, which it has not, to `high`: declared intervals and the series that report as slowly."""

    low: int
    high: int
    slow: tuple[tuple[int, tuple[int, ...]], ...]


class Silence:
    """The gaps of one topic over the instants `(t0, t1]`, and when the topic as a whole flowed.

    `expected`: those, or parts of them, in which something is missing; `moved`: what lives on elsewhere, of which
    `decided` is new; `shared`: the series that share entities with others (`whereabouts.depart` tells these).
    Rows that come later count from later instants, so what is read here stays true.
    """

    def __init__(self, event_type: EventType, t0: int, t1: int, gaps: tuple[Gap, ...]) -> None:
        self._event_type = event_type
        self._low, self._high = t0 // GRID, t1 // GRID
        self._lost: dict[int, frozenset[int]] = {}
        self._mute: dict[tuple[str, int, int], tuple[Gap, ...]] = {}
        self._paces: list[Pace] | None = None
        self.gaps = gaps
        self.expected = gaps
        self.moved: list[Move] = []
        self.decided: list[Move] = []
        self.shared: frozenset[int] = frozenset()

    def depart(self, shared: frozenset[int], expected: tuple[Gap, ...]) -> None:
        """These series share entities; of the gaps, in these something is missing."""
        self.shared, self.expected = shared, expected

    def mute(self, measure: str, span: int, reports: int = 1) -> Inquiry[tuple[Gap, ...]]:
        """Where a series is not silent, but has said nothing of `measure` for `span` seconds.

        One that declares a longer interval has not for `reports` of them, as `Span` looks back for it.
        """
        silent = _by_series(self.gaps)
        without = yield from self._without(measure, span, reports)
        return tuple(piece for gap in without for piece in _outside(gap, silent.get(gap.series, ())))

    def silent(self, measure: str, span: int, reports: int = 1) -> Inquiry[tuple[Gap, ...]]:
        """Where something of a silent series is missing, for a reading of `measure` over `span` seconds.

        What a series that was mute before it fell silent is carried with is what it said last.
        """
        without = _by_series((yield from self._without(measure, span, reports)))
        return tuple(piece for gap in self.expected for piece in _spoken(gap, without.get(gap.series, ())))

    def _without(self, measure: str, span: int, reports: int) -> Inquiry[tuple[Gap, ...]]:
        """Where nothing of `measure` stands in `span`, for the series that are expected to say it."""
        key = (measure, span, reports)
        if key not in self._mute:
            counted = f"epoch_us(last_time) // {GRID_US} + {span // GRID}"
            until = f"greatest({counted}, {until_sql(self._event_type, reports)})"
            self._mute[key] = yield from _gaps(self._event_type, self._low, self._high, measure, until)
        return self._mute[key]

    def paces(self) -> Inquiry[list[Pace]]:
        """The range in pieces, and the series that reported more slowly than the schema says in each.

        A series has the longest interval that was declared for it in the last day.
        """
        if self._paces is None:
            rows = yield Query(
                f"""SELECT series, interval, min(greatest(epoch_us(known_from) // {GRID_US}, {self._low + 1})),
                       max(epoch_us(last_time) + {EXPECTED * 1_000_000}) // {GRID_US}
                FROM seen_{self._event_type.view} WHERE measure = '{SERIES}' AND interval IS NOT NULL
                  AND known_from <= {timestamp(self._high * GRID)} GROUP BY series, interval"""
            )
            self._paces = list(_paces(rows, self._low, self._high))
        return self._paces

    def lost(self, loss_after: int) -> Inquiry[frozenset[int]]:
        """The grid numbers at which the topic has flowed for the whole of the last `loss_after` seconds."""
        if loss_after not in self._lost:
            steps = loss_after // GRID
            self._lost[loss_after] = yield from _flowing(
                self._event_type, self._low - steps, self._high, steps
            )
        return self._lost[loss_after]


def silence_of(event_type: EventType, t0: int, t1: int) -> Inquiry[Silence]:
    """Who is silent at the instants `(t0, t1]`."""
    gaps = yield from _gaps(event_type, t0 // GRID, t1 // GRID, SERIES, until_sql(event_type))
    return Silence(event_type, t0, t1, gaps)


def _paces(rows: Iterable[tuple[int, int, int, int]], low: int, high: int) -> Iterator[Pace]:
    """`rows`: (series, interval, the grid numbers from which to which it counts)."""
    rows = list(rows)
    cuts = {k - 1 for _, _, k, _ in rows} | {last for *_, last in rows} | {low, high}
    for start, end in pairwise(sorted(at for at in cuts if low <= at <= high)):
        own: dict[int, int] = {}
        for series, interval, k, last in rows:
            if k <= end and last > start:
                own[series] = max(interval, own.get(series, 0))
        by = {(each, tuple(sorted(s for s in own if own[s] == each))) for each in own.values()}
        yield Pace(start, end, tuple(sorted(by)))


def _outside(gap: Gap, others: Sequence[Gap]) -> Iterator[Gap]:
    """What is left of `gap` without the instants of `others`, which come in order."""
    first = gap.first
    for other in others:
        if other.first > gap.last or other.last < first:
            continue
        if first < other.first:
            yield gap._replace(first=first, last=other.first - 1)
        first = other.last + 1
    if first <= gap.last:
        yield gap._replace(first=first)


def _spoken(gap: Gap, without: Sequence[Gap]) -> Iterator[Gap]:
    """`gap` in pieces, each as of when the series last said the measure that it was `without` by then."""
    mute = [m for m in without if gap.until is not None and (m.until is None or m.until < gap.until)]
    yield from _outside(gap, mute)
    for m in mute:
        first, last = max(gap.first, m.first), min(gap.last, m.last)
        if first <= last:
            yield gap._replace(first=first, last=last, until=m.until)


def _by_series(gaps: Iterable[Gap]) -> dict[int, list[Gap]]:
    found: dict[int, list[Gap]] = defaultdict(list)
    for gap in gaps:
        found[gap.series].append(gap)
    return found


def _gaps(event_type: EventType, low: int, high: int, measure: str, until: str) -> Inquiry[tuple[Gap, ...]]:
    """Rows known by the first instant are merged at once; only those known later are put in order.

    `until`: SQL for the last grid number at which a row of `seen` keeps its series from a gap.
    """
    merged = f"""
        SELECT series, greatest(epoch_us(known_from) // {GRID_US}, {low + 1}) AS k,
               max(epoch_us(last_time)) AS last_us, max(epoch_us(reach)) AS due_us,
               max({until}) FILTER ({until} >= epoch_us(known_from) // {GRID_US}) AS until
        FROM seen_{event_type.view}
        WHERE measure = $measure AND known_from <= {timestamp(high * GRID)} GROUP BY ALL"""
    if high - low > 1:
        merged = f"""
        SELECT series, k, max(last_us) OVER so_far AS last_us, max(due_us) OVER so_far AS due_us,
               max(until) OVER so_far AS until, lead(k) OVER so_far AS next
        FROM ({merged}) WINDOW so_far AS (PARTITION BY series ORDER BY k)"""
    else:
        merged = f"SELECT *, NULL::BIGINT AS next FROM ({merged})"
    expected = f"(last_us + {EXPECTED * 1_000_000}) // {GRID_US}"
    rows = yield Query(
        f"""
        SELECT series, greatest(k, coalesce(until + 1, k)) AS "first",
               least(coalesce(next - 1, {high}), {high}, {expected}) AS "last", until, last_us, due_us
        FROM ({merged}) WHERE "first" <= "last" ORDER BY series, "first" """,
        {"measure": measure},
    )
    return tuple(Gap(*row) for row in rows)


def _flowing(event_type: EventType, low: int, high: int, steps: int) -> Inquiry[frozenset[int]]:
    """The grid numbers of `(low + steps, high]` before which some series was not silent for `steps` of them, without a pause."""
    known = f"epoch_us(known_from) // {GRID_US}"
    until = until_sql(event_type)
    rows = yield Query(f"""
        SELECT greatest({known}, {low + 1}) AS k, max({until}) FILTER ({until} >= {known})
        FROM flow_{event_type.view} WHERE known_from <= {timestamp(high * GRID)} GROUP BY k""")
    reach: dict[int, int | None] = dict(rows)
    found, until_now, flowing = set(), -1, 0
    for grid in range(low + 1, high + 1):
        until_now = max(until_now, reach.get(grid) or -1)
        flowing = flowing + 1 if until_now >= grid else 0
        if flowing >= steps:
            found.add(grid)
    return frozenset(found)


def until_sql(event_type: EventType, reports: int = 1) -> str:
    """Grid number of the last instant at which a row keeps its series from silence.

    Of a source that declares a longer interval, `reports` of them are waited for.
    """
    more = f" + {(reports - 1) * 1_000_000} * coalesce(interval, 0)::BIGINT" if reports > 1 else ""
    return f"((epoch_us(reach) + {event_type.lateness * 1_000_000}{more}) // {GRID_US})"
