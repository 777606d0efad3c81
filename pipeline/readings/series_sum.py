"""Readings that are a sum of one value for each series: GPUs, fleet power, meters, last values; with silence carried.

The sum over series is taken in integers of the measure's quantum, so that the order in which threads add does not show.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, ClassVar, NamedTuple

from pipeline.catalog import EventType
from pipeline.readings.frozen import FROZEN, Still, frozen_params
from pipeline.readings.gaps import GAPS, IN_GAP, GapSums, gap_params, mutes_of
from pipeline.readings.memory import Memory
from pipeline.readings.reading import GRID, By, Match, Reading, Readings
from pipeline.readings.series_sql import (
    COUNTS,
    Bits,
    Columns,
    Masks,
    Worth,
    asked_rows,
    live_rows,
    per_series,
)
from pipeline.readings.silence import Gap, Silence
from pipeline.readings.span import Span, chosen_sql, group_columns, groups_of, slow_times
from pipeline.readings.spec import Inquiry, Query, ReadingSpec, has_dimensions
from pipeline.readings.weights import Ask, Weighed, without
from pipeline.readings.whereabouts import away_at, away_within, moved_from, moving, still_params

#: Carried counts are looked up around at most this many moments one by one; beyond, in one wide scan.
SCATTERED = 32
Moved = tuple[tuple[str, int], ...]
Key = tuple[int, By]
"""Grid number and group."""


class _Delivered(NamedTuple):
    """What the series of a group deliver that are not silent; `value` in quanta, `counts` in each of the ways of COUNTS."""

    value: int = 0
    samples: int = 0
    series: int = 0
    settled: bool = True
    counts: Sequence[int] = (0, 0, 0)


class SeriesSum(ReadingSpec):
    """One value for each series, summed over those of a group."""

    __slots__ = ()
    match: Match
    by: By
    span: int
    loss_after: int
    of_entities: ClassVar[bool] = False
    """Whether it rests on who is there: then an entity counts once, wherever it is, and not while it is frozen."""
    counting: ClassVar[bool] = False
    """Whether the value is a count of entities: then what reports is there, whatever it does not say."""

    @abstractmethod
    def quantum(self, event_type: EventType) -> Decimal:
        """What the value is counted in."""

    @abstractmethod
    def columns(self) -> Columns:
        """The columns of partial rows that it merges."""

    @abstractmethod
    def worth(self, event_type: EventType, weighed: bool) -> Worth:
        """The value of one series; `weighed`: some means stand in `weighed`."""

    def bits(self, event_type: EventType) -> Bits | None:
        """The bit sets that it counts in."""
        return None

    def settled(self, event_type: EventType, span: Span) -> str:
        """SQL for whether each entity of a series had its turn."""
        return "true"

    def weigh(self, event_type: EventType, span: Span) -> Inquiry[list[Weighed]]:
        """The series whose samples do not weigh alike (see `weights`)."""
        yield from ()
        return []

    def weigh_asked(self, event_type: EventType, asks: Sequence[Ask], span: Span) -> Inquiry[bool]:
        """The same for what is carried."""
        yield from ()
        return False

    def query(self, event_type: EventType, t0: int, t1: int, memory: Memory) -> Inquiry[Readings]:
        if not has_dimensions(event_type, self.match, self.by):
            return Readings(())
        silence = yield from memory.silence(event_type, t0, t1)
        paces = yield from silence.paces()
        found: list[Reading] = []
        for low, high, slow in paces:
            span = Span(low, high, self.span, slow, self.reports, event_type.lateness + GRID)
            frozen: list[Still] = []
            if self.of_entities:
                frozen = yield from memory.frozen(event_type, low * GRID, high * GRID)
            found += yield from self._sums(event_type, silence, span, frozen)
        return Readings(found, slow_times(paces))

    def _sums(
        self, event_type: EventType, silence: Silence, span: Span, frozen: list[Still]
    ) -> Inquiry[list[Reading]]:
        measure = next(iter(self.said()), "")
        missing, mute = silence.expected, tuple[Gap, ...]()
        if measure:
            missing = yield from silence.silent(measure, self.span, self.reports)
            mute = yield from silence.mute(measure, self.span, self.reports)
        groups: dict[int, By] = {}
        if silence.gaps or mute or frozen:
            groups = yield from groups_of(event_type, self.match, self.by)
        carried = yield from self._silences(event_type, silence, span, groups, missing, mute)
        mutes = yield from mutes_of(event_type, {measure: mute}, groups, span)
        gaps = [g for g in (*silence.gaps, *mute) if g.series in groups]
        still = silence.gaps if self.of_entities and (yield from moving(event_type, span)) else None
        gone = yield from self._gone(event_type, silence, span, still)
        delivered, weighed = yield from self._delivered(event_type, gaps, span, still, frozen)
        lost = frozenset[int]()
        if any(old for _, _, old, _ in carried.values()):
            lost = yield from silence.lost(self.loss_after)
        quantum = self.quantum(event_type)
        keys = [*delivered, *sorted({*carried, *gone} - delivered.keys())]
        found = [
            self._reading(
                key, delivered.get(key, _Delivered()), carried.get(key), lost, quantum, gone.get(key, ())
            )
            for key in keys
        ]
        if any(w.seen > w.having or w.by_samples for w in weighed):
            groups = groups or (yield from groups_of(event_type, self.match, self.by))
            found = without(found, weighed, gaps, groups, quantum)
        stopped = _stopped(frozen, groups) if self.counting else {}
        if not mutes and not stopped:
            return found
        return [
            row._replace(mute=mutes.get(key, ()), frozen=stopped.get(key, 0))
            for row, key in zip(found, keys, strict=True)
        ]

    def _delivered(
        self,
        event_type: EventType,
        gaps: Sequence[Gap],
        span: Span,
        still: Sequence[Gap] | None,
        frozen: list[Still],
    ) -> Inquiry[tuple[dict[Key, _Delivered], list[Weighed]]]:
        """What the series deliver that are not silent, and those of them whose samples do not weigh alike.

        `still`: the gaps of all series, when entities of this span may be away (see `whereabouts`); else None.
        """
        found: dict[Key, _Delivered] = {}
        weighed: list[Weighed] = []
        for part in (yield from span.parts(event_type)):
            uneven = yield from self.weigh(event_type, part)
            weighed += uneven
            rows = yield self._delivered_query(event_type, part.near(gaps), part, still, frozen, bool(uneven))
            found |= {(row[0], row[1:-5]): _Delivered(*row[-5:]) for row in rows}
        return found, weighed

    def _delivered_query(
        self,
        event_type: EventType,
        gaps: Sequence[Gap],
        span: Span,
        still: Sequence[Gap] | None,
        frozen: list[Still],
        weighed: bool,
    ) -> Query:
        """Rows (t, group…, value in quanta, samples, series, settled, counts)."""
        chosen, params = chosen_sql(event_type, self.match, self.by)
        of_series = per_series(
            live_rows(event_type, self.columns(), self.bits(event_type), span),
            self.columns(),
            self.bits(event_type),
            self.worth(event_type, weighed),
            self.settled(event_type, span),
            Masks(still is not None, bool(frozen)),
            weighed,
        )
        heard = masks = ""
        if still is not None:
            params |= still_params(still)
            masks += f", {away_within(event_type, span)}"
        if frozen:
            params |= frozen_params(frozen)
            masks += f", {FROZEN}"
        if gaps:
            params |= gap_params(gaps)
            heard = f"WHERE NOT EXISTS ({IN_GAP})"
        columns = group_columns(self.by)
        counts = ", ".join(f"sum({name})::BIGINT" for name in COUNTS)
        return Query(
            f"""WITH chosen AS MATERIALIZED ({chosen}){GAPS if gaps else ""}{masks}
            SELECT t{columns}, sum(value)::HUGEINT, sum(samples)::BIGINT, count(*), bool_or(settled), [{counts}]
            FROM ({of_series}) s JOIN chosen USING (series) {heard} GROUP BY t{columns}""",
            params,
        )

    def _silences(
        self,
        event_type: EventType,
        silence: Silence,
        span: Span,
        groups: Mapping[int, By],
        missing: Sequence[Gap],
        mute: Sequence[Gap],
    ) -> Inquiry[dict[Key, list[int]]]:
        """What is silent or mute in each group, as `GapSums` adds it up."""
        lasting = dict.fromkeys(mute if self.counting else (), True)
        asks = {g: _ask(g, g.series in silence.shared) for g in missing if g.series in groups}
        asks |= {g: _ask(g, False) for g in mute if g.series in groups}
        carried = yield from self._carried(event_type, [ask for ask in asks.values() if ask], silence, span)
        sums = GapSums(span, self.loss_after)
        for gap, ask in asks.items():
            sums.add(groups[gap.series], gap, carried.get(ask, 0) if ask else 0, lasting.get(gap, False))
        return {(grid, by): found for grid, by, found in sums.sums()}

    def _carried(
        self, event_type: EventType, asks: Iterable[Ask], silence: Silence, span: Span
    ) -> Inquiry[dict[Ask, int]]:
        """The value in quanta that was read at the last instant before each gap."""
        found: dict[Ask, int] = {}
        for some in _near(sorted(set(asks)), span.longest // GRID):
            within = span.within(some[0][0] - 1, some[-1][0])
            carried = yield from self._asked(event_type, some, silence, within)
            found.update({ask: carried.get(ask[1:], 0) for ask in some})
        return found

    def _asked(
        self, event_type: EventType, asks: Sequence[Ask], silence: Silence, span: Span
    ) -> Inquiry[dict[tuple[int, int], int]]:
        """(series, t) → value in quanta."""
        away = self.of_entities and any(series in silence.shared for _, series, _ in asks)
        params: dict[str, Any] = dict(
            zip(("ask_until", "ask_series", "ask_t"), map(list, zip(*asks, strict=True)), strict=True)
        )
        asked = """asked AS MATERIALIZED (SELECT unnest($ask_until::BIGINT[]) AS until,
            unnest($ask_series::UBIGINT[]) AS series, unnest($ask_t::BIGINT[]) AS t)"""
        weighed = yield from self.weigh_asked(event_type, asks, span)
        of_series = per_series(
            asked_rows(event_type, self.columns(), self.bits(event_type), span),
            self.columns(),
            self.bits(event_type),
            self.worth(event_type, weighed),
            self.settled(event_type, span),
            Masks(away),
            weighed,
        )
        rows = yield Query(
            f"WITH {asked}{', ' + away_at(event_type) if away else ''} SELECT t, series, value FROM ({of_series})",
            params | (still_params(silence.gaps) if away else {}),
        )
        return {(series, t): int(value) for t, series, value in rows}

    def _gone(
        self, event_type: EventType, silence: Silence, span: Span, still: Sequence[Gap] | None
    ) -> Inquiry[dict[Key, Moved]]:
        """What has left each group, and where it is now; of a count."""
        if not self.counting or not (silence.moved or still is not None):
            return {}
        groups = yield from groups_of(event_type, self.match, self.by)
        return (yield from moved_from(event_type, silence, span, still, groups))

    def _reading(
        self,
        key: Key,
        delivered: _Delivered,
        silences: Sequence[int] | None,
        lost_at: frozenset[int],
        quantum: Decimal,
        moved: Moved,
    ) -> Reading:
        grid, by = key
        observed, healthy, in_use = delivered.counts
        whole, silent_series, old, _ = silences or (0, 0, 0, 0)
        lost = old if grid in lost_at else 0
        return Reading(
            t=grid * GRID,
            by=by,
            value=float(delivered.value * quantum),
            silent=float((whole - lost) * quantum),
            lost=float(lost * quantum),
            samples=delivered.samples,
            silent_series=silent_series,
            series=delivered.series + silent_series,
            settled=delivered.settled,
            counts=(observed, healthy, in_use) if self.counting else None,
            moved=moved,
        )


def _ask(gap: Gap, shared: bool) -> Ask | None:
    """What is carried in a gap; of a series that shares entities, less those that live on elsewhere by then."""
    return None if gap.until is None else (gap.until, gap.series, gap.first if shared else gap.until)


def _near(asks: Sequence[Ask], reach: int) -> list[list[Ask]]:
    """Asks parted wherever a scan would cross more than `reach` grid steps that nobody asks for."""
    parts: list[list[Ask]] = []
    for ask in asks:
        if parts and ask[0] - parts[-1][-1][0] <= reach:
            parts[-1].append(ask)
        else:
            parts.append([ask])
    return parts if len(parts) <= SCATTERED else [list(asks)]


def _stopped(frozen: Iterable[Still], groups: Mapping[int, By]) -> Mapping[Key, int]:
    """How many of each group are frozen."""
    return Counter(
        (grid, groups[f.series]) for f in frozen if f.series in groups for grid in range(f.first, f.last + 1)
    )
