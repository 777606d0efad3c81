"""What a recurrence rule (RFC 5545, section 3.3.10) names, day by day and no further than it is asked.

A library's iterator looks for the next occurrence until it finds one: of a rule that never occurs until the year 9999,
inside one call that nobody can bound.  Here the days are walked, each once, so the work is that of the span's days.
Times are naive wall-clock times.
"""

from __future__ import annotations

import calendar
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from itertools import count, product

DAY = timedelta(days=1)
FREQUENCIES = ("YEARLY", "MONTHLY", "WEEKLY", "DAILY", "HOURLY")
WEEKDAYS = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")
LONGEST = {"YEARLY": 366, "MONTHLY": 31, "WEEKLY": 7, "DAILY": 1, "HOURLY": 1}
"""Days of a period at most."""

Span = tuple[date, date]
"""Two dates, the second one not included."""


@dataclass(frozen=True, slots=True)
class RecurrenceRule:
    """The parts of a rule, with what it takes from its start where it says nothing.

    `weekdays`: (day of the week, Monday 0; its number within month or year, 0 for every one).
    """

    frequency: str
    start: datetime
    interval: int
    week_start: int
    months: frozenset[int]
    month_days: frozenset[int]
    year_days: frozenset[int]
    weeks: frozenset[int]
    weekdays: frozenset[tuple[int, int]]
    hours: frozenset[int]
    times: tuple[time, ...]
    positions: tuple[int, ...]

    @classmethod
    def of(cls, parts: dict[str, str], start: datetime) -> RecurrenceRule:
        """From checked parts; those that say how long it lasts are not looked at."""
        frequency, start = parts["FREQ"], start.replace(microsecond=0)

        def numbers(name: str, otherwise: Sequence[int] = ()) -> frozenset[int]:
            return frozenset(map(int, parts[name].split(","))) if name in parts else frozenset(otherwise)

        silent = not {"BYWEEKNO", "BYYEARDAY", "BYMONTHDAY", "BYDAY"} & parts.keys()
        yearly, monthly = silent and frequency == "YEARLY", silent and frequency in ("YEARLY", "MONTHLY")
        days = frozenset(map(_weekday, parts["BYDAY"].split(","))) if "BYDAY" in parts else frozenset()
        if silent and frequency == "WEEKLY":
            days = frozenset({(start.weekday(), 0)})
        hours = numbers("BYHOUR", range(24) if frequency == "HOURLY" else [start.hour])
        minutes, seconds = numbers("BYMINUTE", [start.minute]), numbers("BYSECOND", [start.second])
        of_the_day = sorted(hours) if frequency != "HOURLY" else [0]
        return cls(
            frequency=frequency, start=start, interval=int(parts.get("INTERVAL", 1)),
            week_start=WEEKDAYS.index(parts.get("WKST", "MO")),
            months=numbers("BYMONTH", [start.month] if yearly else ()),
            month_days=numbers("BYMONTHDAY", [start.day] if monthly else ()),
            year_days=numbers("BYYEARDAY"), weeks=numbers("BYWEEKNO"), weekdays=days, hours=hours,
            times=tuple(time(*each) for each in product(of_the_day, sorted(minutes), sorted(seconds))),
            positions=tuple(sorted(numbers("BYSETPOS"))),
        )  # fmt: skip

    def reaches(self) -> bool:
        """Whether a period can ever have as many occurrences as BYSETPOS counts to."""
        most = LONGEST[self.frequency] * len(self.times)
        return not self.positions or any(abs(position) <= most for position in self.positions)

    def walls(self, last: date) -> Iterator[datetime]:
        """Every occurrence from the start to the end of the day `last`, in order."""
        for span, hour in self._periods(last):
            days = [day for day in _dates(span) if self._names(day)]
            walls = self._chosen(days, hour)
            yield from (wall for wall in walls if wall >= self.start and wall.date() <= last)

    def _periods(self, last: date) -> Iterator[tuple[Span, int]]:
        """(days, hour to add to the times) of each period, as many of them apart as INTERVAL says."""
        if self.frequency == "HOURLY":
            yield from self._hours(last)
            return
        for n in count(0, self.interval):
            span = _period(self.frequency, self.start.date(), n, self.week_start)
            if span[0] > last:
                return
            yield span, 0

    def _hours(self, last: date) -> Iterator[tuple[Span, int]]:
        first, hour = self.start.date(), self.start.hour  # hours since the midnight before the start
        while (day := first + hour // 24 * DAY) <= last:
            of_the_day = range(hour % 24, 24, self.interval)
            if self._names(day):
                yield from (((day, day + DAY), each) for each in of_the_day if each in self.hours)
            hour += self.interval * len(of_the_day)

    def _chosen(self, days: Sequence[date], hour: int) -> Iterator[datetime]:
        """The set of one period, or of it what BYSETPOS chooses."""
        times, add = self.times, timedelta(hours=hour)
        if not self.positions:
            first = self.start.date()
            yield from (datetime.combine(day, at) + add for day in days if day >= first for at in times)
            return
        most, chosen = len(days) * len(times), set()
        for position in self.positions:
            if -most <= position <= most:  # the set itself may be the seconds of a year
                n, at = divmod(position - 1 if position > 0 else position + most, len(times))
                chosen.add(datetime.combine(days[n], times[at]) + add)
        yield from sorted(chosen)

    def _names(self, day: date) -> bool:
        """Whether every part that is about days lets this one through."""
        if self.months and day.month not in self.months:
            return False
        if self.month_days:
            length = calendar.monthrange(day.year, day.month)[1]
            if not self.month_days & {day.day, day.day - length - 1}:
                return False
        if self.weekdays and not self._is_weekday(day):
            return False
        if self.year_days:
            number = day.timetuple().tm_yday
            if not self.year_days & {number, number - _days_of(day.year) - 1}:
                return False
        return not self.weeks or not self.weeks.isdisjoint(_week(day, self.week_start))

    def _is_weekday(self, day: date) -> bool:
        """A number with a day of the week counts in the month, or in the year where no month is named."""
        weekday = day.weekday()
        if (weekday, 0) in self.weekdays:
            return True
        if self.frequency == "YEARLY" and not self.months:
            index, length = day.timetuple().tm_yday - 1, _days_of(day.year)
        else:
            index, length = day.day - 1, calendar.monthrange(day.year, day.month)[1]
        numbered = {(weekday, index // 7 + 1), (weekday, -((length - 1 - index) // 7) - 1)}
        return not self.weekdays.isdisjoint(numbered)


def _weekday(text: str) -> tuple[int, int]:
    return WEEKDAYS.index(text[-2:]), int(text[:-2] or 0)


def _dates(span: Span) -> Iterator[date]:
    day, end = span
    while day < end:
        yield day
        day += DAY


def _days_of(year: int) -> int:
    return 366 if calendar.isleap(year) else 365


def _period(frequency: str, first: date, n: int, week_start: int) -> Span:
    """The days of the `n`-th period from the one of `first`; the first week begins with its start."""
    if frequency == "YEARLY":
        return date(first.year + n, 1, 1), date(first.year + n + 1, 1, 1)
    if frequency == "MONTHLY":
        return _month(first, n), _month(first, n + 1)
    if frequency == "WEEKLY":
        monday = first - DAY * ((first.weekday() - week_start) % 7)
        return max(first, monday + 7 * n * DAY), monday + 7 * (n + 1) * DAY
    return first + n * DAY, first + (n + 1) * DAY


def _month(first: date, n: int) -> date:
    years, month = divmod(first.month - 1 + n, 12)
    return date(first.year + years, month + 1, 1)


def _week(day: date, week_start: int) -> tuple[int, int]:
    """The number of the week, counted from the first and from the last of its year; the first has four days of it."""
    begin = day - DAY * ((day.weekday() - week_start) % 7)
    year = (begin + 3 * DAY).year
    first, following = _first_week(year, week_start), _first_week(year + 1, week_start)
    number, count = (begin - first).days // 7 + 1, (following - first).days // 7
    return number, number - count - 1


def _first_week(year: int, week_start: int) -> date:
    fourth = date(year, 1, 4)
    return fourth - DAY * ((fourth.weekday() - week_start) % 7)
