"""Which series have stopped, and for how long."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pipeline.catalog import EventType
from pipeline.readings.gaps import mutes_of
from pipeline.readings.memory import Memory
from pipeline.readings.past import within_sql
from pipeline.readings.reading import EXPECTED, GRID, GRID_US, LOOKBACK_INTERVALS, Reading, Readings
from pipeline.readings.silence import Gap
from pipeline.readings.span import Span, groups_of
from pipeline.readings.spec import Group, Inquiry, Instant, ReadingSpec
from pipeline.rollup.quoting import moment, quoted


@dataclass(frozen=True, slots=True)
class SilentSeries(ReadingSpec):
    """The series of a topic that have stopped as a whole: `by` is every dimension, `value` the age (s).

    So have those that report, but not what clauses read: `measures` are those, with the seconds they look back.
    """

    topic: str
    measures: tuple[tuple[str, int], ...] = ()

    def lacking(self, measures: set[str]) -> SilentSeries:
        """The same of some of its measures: what a mute series lacks, or none for a silent one."""
        return replace(self, measures=tuple(m for m in self.measures if m[0] in measures))

    def query(self, event_type: EventType, t0: int, t1: int, memory: Memory) -> Inquiry[Readings]:
        """One reading for each silent series and instant: its age in seconds; of a mute one, that of what it lacks."""
        silence = yield from memory.silence(event_type, t0, t1)
        mute: dict[str, tuple[Gap, ...]] = {}
        for measure, seconds in self.measures:
            mute[measure] = yield from silence.mute(measure, seconds, LOOKBACK_INTERVALS)
        if not silence.expected and not any(mute.values()):
            return Readings(())
        span = Span(t0 // GRID, t1 // GRID, 0)
        groups = yield from groups_of(event_type, (), tuple(d.name for d in event_type.dimensions))
        found: list[Reading] = []
        for gap in silence.expected:
            for grid in range(max(gap.first, span.low + 1), min(gap.last, span.high) + 1):
                due = (gap.due_us - gap.last_us) / 1e6
                age = (grid * GRID_US - gap.last_us) / 1e6
                by = groups.get(gap.series, ())
                found.append(Reading(grid * GRID, by, age, silent_series=1, series=1, due=due))
        for (grid, by), mutes in (yield from mutes_of(event_type, mute, groups, span)).items():
            age = grid * GRID - min(m.since for m in mutes)
            found.append(Reading(grid * GRID, by, age, silent_series=1, series=1, mute=mutes))
        return Readings(found)

    def reproduce(self, event_type: EventType, group: Group, at: Instant) -> str:
        """Seconds since the last sample; with `measures`, since the last that had the one that is missing longest."""
        marks = {mark.name: mark.of for mark in event_type.marks}
        values = [", ".join(map(quoted, marks.get(measure, (measure,)))) for measure, _ in self.measures]
        last = ", ".join(f'max("time") FILTER (coalesce({value}) IS NOT NULL)' for value in values)
        newest = f"least({last})" if last else 'max("time")'
        age = f"epoch({moment(at.t)}) - epoch({newest})"
        return f"SELECT {age} AS value FROM {event_type.view}\nWHERE {within_sql((), group, at.t, EXPECTED)}"
