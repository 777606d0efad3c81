"""What the SQL that reproduces a reading shares: which published rows count, and which series are silent."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.catalog import EventType
from pipeline.readings.reading import GRID, LONGEST, Match
from pipeline.readings.spec import Group, Instant
from pipeline.rollup.quoting import literal, moment, quoted


@dataclass(frozen=True, slots=True)
class Past:
    """How far back from an instant counts.

    For a source that declares a longer interval, `reports` of its own and a little more.
    """

    event_type: EventType
    at: Instant
    reports: int

    @property
    def t(self) -> int:
        return self.at.t

    @property
    def slow(self) -> int:
        return self.at.slow

    def since(self, seconds: int) -> str:
        """The condition for a row that counts in a span of `seconds`."""
        if not self.slow:
            return f'"time" >= {moment(self.t - seconds)}'
        own = f'least({self.reports} * "interval" + {self._grace}, {LONGEST})'
        slow = f'CASE WHEN "interval" > {self.event_type.interval} THEN greatest({seconds}, {own}) ELSE {seconds} END'
        return f'time_bucket(INTERVAL {GRID} SECOND, "time") >= {moment(self.t)} - to_seconds({slow})'

    def last(self) -> str:
        """What says of a series when it stopped: from `stop` on it is silent."""
        if not self.slow:
            return 'max("time")'
        own = f'time_bucket(INTERVAL {GRID} SECOND, "time") + to_seconds({GRID} + "interval")'
        return f'max(greatest("time" + INTERVAL {self.event_type.interval} SECOND, {own}))'

    def stop(self) -> str:
        """Series that were last heard before interval + lateness are silent: they deliver nothing."""
        return moment(self.t - self.event_type.lateness - (0 if self.slow else self.event_type.interval))

    def rows(self, seconds: int) -> int:
        """Seconds of rows that hold all that counts in a span of `seconds`, and that tells who is silent."""
        kind = self.event_type
        farther = min(self.reports * self.slow + self._grace, LONGEST) if self.slow else 0
        silent = max(kind.interval, self.slow + GRID if self.slow else 0) + kind.lateness
        return max(seconds, silent, farther)

    def counted(self, match: Match, group: Group, seconds: int) -> str:
        """WHERE for the rows that count in a span of `seconds`."""
        within = within_sql(match, group, self.t, self.rows(seconds) if self.slow else seconds)
        return all_of([within, self.since(seconds)]) if self.slow else within

    @property
    def _grace(self) -> int:
        return self.event_type.lateness + GRID


def where(match: Match, group: Group) -> list[str]:
    """The conditions for a clause's `match` and one group of its `by`; '' stands for an absent dimension."""
    found = [f"{quoted(d)} IN ({', '.join(map(literal, values))})" for d, values in match if values]
    found += [f"{quoted(d)} = {literal(v)}" if v else f"{quoted(d)} IS NULL" for d, v in group.items()]
    return found


def within_sql(match: Match, group: Group, t: int, seconds: int) -> str:
    """WHERE for the rows known at `t` and no older than `seconds`."""
    return all_of([f'"time" >= {moment(t - seconds)}', f"known_from <= {moment(t)}", *where(match, group)])


def all_of(conditions: Iterable[str]) -> str:
    return " AND ".join(conditions)


def series_names(event_type: EventType) -> str:
    """The columns that name a series, for a select list or a GROUP BY."""
    return ", ".join(quoted(d.name) for d in event_type.dimensions)


def entity_name(event_type: EventType) -> str:
    return quoted(event_type.entity.name) if event_type.entity else '"source"'


def last_value(measure: str) -> str:
    return f'arg_max({quoted(measure)}, ("time", source, id, idx))'
