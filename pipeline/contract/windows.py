"""Named calendars: the business-critical times of a contract.

A `Window` is built once, when its contract is loaded: ranges and RFC 5545 recurrences become one sorted row
of half-open intervals in epoch seconds.  After that a question about an instant is a bisection, so the rules
may ask thousands of times a second, and two windows that mean the same compare equal.

Recurrences live in local wall-clock time.  Around a change of daylight saving time a start is read as
RFC 5545, section 3.3.5, says: a local time that occurs twice means the first, a local time that does not
occur is read with the offset before the gap (02:30 becomes 03:30).  A duration in days is nominal, one in
hours exact (section 3.8.5.3).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

Interval = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Window:
    """A named calendar: sorted half-open intervals `[start, end)` in epoch seconds, never touching.

    Intervals are known within the term of the contract; before and after it, no window is open.
    """

    name: str
    zone: str
    starts: tuple[int, ...]
    ends: tuple[int, ...]
    text: str = ""

    @classmethod
    def of(cls, name: str, zone: str, intervals: Iterable[Interval], text: str = "") -> Window:
        """The window that is open whenever one of `intervals` is; those that overlap or touch become one."""
        merged = tuple(_merge(intervals))
        return cls(name, zone, tuple(s for s, _ in merged), tuple(e for _, e in merged), text)

    def interval_at(self, t: int) -> Interval | None:
        """The interval that covers the instant `t`."""
        i = bisect_right(self.starts, t) - 1
        return (self.starts[i], self.ends[i]) if i >= 0 and t < self.ends[i] else None

    def next_interval(self, t: int) -> Interval | None:
        """The first interval that starts after (not at) `t`."""
        i = bisect_right(self.starts, t)
        return (self.starts[i], self.ends[i]) if i < len(self.starts) else None

    def intervals(self, from_t: int, to_t: int) -> tuple[Interval, ...]:
        """Every interval, uncut, that shares an instant with `[from_t, to_t)`."""
        if from_t >= to_t:
            return ()
        first = bisect_right(self.ends, from_t)
        last = bisect_left(self.starts, to_t)
        return tuple(zip(self.starts[first:last], self.ends[first:last], strict=True))


def _merge(intervals: Iterable[Interval]) -> Iterator[Interval]:
    start = end = None
    for s, e in sorted(i for i in intervals if i[0] < i[1]):
        if start is None or end is None:
            start, end = s, e
        elif s <= end:
            end = max(end, e)
        else:
            yield start, end
            start, end = s, e
    if start is not None and end is not None:
        yield start, end
