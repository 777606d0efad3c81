"""RFC 5545 recurrence rules: checked part by part, then unfolded to intervals in epoch seconds.

`unfold.py` walks the days.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from pipeline.contract.faults import Unreadable, did_you_mean, one_of
from pipeline.contract.unfold import FREQUENCIES, WEEKDAYS, RecurrenceRule
from pipeline.contract.values import Duration, epoch
from pipeline.contract.windows import Interval

#: 100,000 occurrences is every hour for eleven years: more is a slip of the pen, not a calendar.
MAX_OCCURRENCES = 100_000

#: Part → (least, greatest, whether negative counts from the end); RFC 5545, section 3.3.10.
_NUMBERS = {
    "INTERVAL": (1, 1000, False),
    "COUNT": (1, MAX_OCCURRENCES, False),
    "BYMONTH": (1, 12, False),
    "BYMONTHDAY": (1, 31, True),
    "BYYEARDAY": (1, 366, True),
    "BYWEEKNO": (1, 53, True),
    "BYHOUR": (0, 23, False),
    "BYMINUTE": (0, 59, False),
    "BYSECOND": (0, 59, False),
    "BYSETPOS": (1, 366, True),
}
_PARTS = ("FREQ", "UNTIL", "BYDAY", "WKST", *_NUMBERS)
#: Part → the frequencies that RFC 5545 forbids it with.
_FORBIDDEN = {
    "BYWEEKNO": ("MONTHLY", "WEEKLY", "DAILY", "HOURLY"),
    "BYYEARDAY": ("MONTHLY", "WEEKLY", "DAILY"),
    "BYMONTHDAY": ("WEEKLY",),
}


def parts(text: str) -> dict[str, str]:
    """The parts of a rule, upper case, each checked.  Raises Unreadable."""
    found: dict[str, str] = {}
    for part in text.strip().upper().removeprefix("RRULE:").split(";"):
        name, _, value = (piece.strip() for piece in part.partition("="))
        if name not in _PARTS:
            raise Unreadable(f"{one_of(_PARTS)} in an RRULE", did_you_mean(name, _PARTS), repr(name))
        if name in found:
            raise Unreadable("each part of an RRULE once", found=f"{name} a second time")
        _check_part(name, value)
        found[name] = value
    _check_whole(found)
    return found


def _check_part(name: str, value: str) -> None:
    found = f"{name}={value}"
    if name == "FREQ" and value not in FREQUENCIES:
        raise Unreadable(f"FREQ={'|'.join(FREQUENCIES)}", did_you_mean(value, FREQUENCIES), found)
    if name == "WKST" and value not in WEEKDAYS:
        raise Unreadable(f"WKST={'|'.join(WEEKDAYS)}", found=found)
    if name == "BYDAY":
        for day in value.split(","):
            if not re.fullmatch(r"([+-]?[1-9]\d?)?(MO|TU|WE|TH|FR|SA|SU)", day, re.ASCII):
                raise Unreadable("days such as BYDAY=MO,WE or BYDAY=-1FR", found=found)
    if name == "UNTIL" and not re.fullmatch(r"\d{8}(T\d{6}Z?)?", value, re.ASCII):
        raise Unreadable("an end such as UNTIL=20261224 or UNTIL=20261224T230000Z", found=found)
    if name in _NUMBERS:
        _check_numbers(name, value)


def _check_numbers(name: str, value: str) -> None:
    least, greatest, from_end = _NUMBERS[name]
    numbers = value.split(",")
    for number in numbers:
        valid = re.fullmatch(r"[+-]?\d{1,6}", number, re.ASCII) is not None
        size = abs(int(number)) if valid and from_end else int(number) if valid else -1
        if not least <= size <= greatest or (len(numbers) > 1 and not name.startswith("BY")):
            end = " (or negative, counted from the end)" if from_end else ""
            raise Unreadable(f"{name} from {least} to {greatest}{end}", found=f"{name}={value}")


def _check_whole(found: dict[str, str]) -> None:
    if "FREQ" not in found:
        raise Unreadable("a part FREQ, as in FREQ=DAILY", found="an RRULE without FREQ")
    if "COUNT" in found and "UNTIL" in found:
        raise Unreadable("one of COUNT and UNTIL", found="both COUNT and UNTIL")
    frequency = found["FREQ"]
    for name in found:
        if frequency in _FORBIDDEN.get(name, ()):
            raise Unreadable(
                f"{name} only with a wider FREQ (RFC 5545)", found=f"{name} with FREQ={frequency}"
            )
    ordinal = re.search(r"\d", found.get("BYDAY", ""))
    if ordinal and frequency not in ("MONTHLY", "YEARLY"):
        raise Unreadable(
            "days without a number, as in BYDAY=MO", found=f"BYDAY={found['BYDAY']} with FREQ={frequency}"
        )
    if "BYSETPOS" in found and not any(n.startswith("BY") and n != "BYSETPOS" for n in found):
        raise Unreadable("BYSETPOS beside another BY… part", found="BYSETPOS alone")


def occurrences(
    rule: str, start: datetime, length: Duration, zone: ZoneInfo, within: Interval, omit: Iterable[date] = ()
) -> tuple[list[Interval], set[date]]:
    """The intervals of a rule that share an instant with `within`, and the dates of `omit` that left one out.

    `start` is naive wall-clock time in `zone`.  Raises Unreadable for a wrong rule or too many occurrences.
    """
    left_out: set[date] = set()
    unwanted = set(omit)
    intervals = []
    for wall in _walls(rule, start, zone, within[1]):
        begin = epoch(wall, zone)
        end = (epoch(wall + timedelta(days=length.days), zone) if length.days else begin) + length.seconds
        if wall.date() in unwanted:
            left_out.add(wall.date())
        elif end > within[0] and begin < within[1]:
            intervals.append((begin, end))
    return intervals, left_out


def _walls(text: str, start: datetime, zone: ZoneInfo, to_t: int) -> Iterator[datetime]:
    """Local starts in order, up to the instant `to_t`."""
    found = parts(text)
    rule = RecurrenceRule.of(found, start)
    if not rule.reaches():
        raise Unreadable(
            "a place that a set of this FREQ can have",
            "it would never occur",
            f"BYSETPOS={found['BYSETPOS']} with FREQ={found['FREQ']}",
        )
    until = _until(found["UNTIL"], zone) if "UNTIL" in found else datetime.max
    most = int(found.get("COUNT", MAX_OCCURRENCES + 1))
    last = min(datetime.fromtimestamp(to_t, zone).date(), until.date())
    for n, wall in enumerate(rule.walls(last)):
        if wall > until or epoch(wall, zone) >= to_t or n >= most:
            return
        if n >= MAX_OCCURRENCES:
            raise Unreadable(
                f"at most {MAX_OCCURRENCES:,} occurrences", "start it later or make it rarer", repr(text)
            )
        yield wall


def _until(text: str, zone: ZoneInfo) -> datetime:
    """The last wall-clock time that counts; a date alone includes its whole day."""
    try:
        if len(text) == 8:
            return datetime.strptime(text, "%Y%m%d") + timedelta(days=1, seconds=-1)
        wall = datetime.strptime(text[:15], "%Y%m%dT%H%M%S")
        if not text.endswith("Z"):
            return wall
        return wall.replace(tzinfo=ZoneInfo("UTC")).astimezone(zone).replace(tzinfo=None)
    except (ValueError, OverflowError) as error:  # the last day of the year 9999 has no next one
        raise Unreadable("a date of the calendar", found=f"UNTIL={text}") from error
