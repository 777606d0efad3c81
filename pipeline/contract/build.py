"""From the values of a file to a `Contract`: what the terms mean, and whether they make sense together.

Each function reads one kind of thing and notes every fault it finds; nothing is raised until the whole file
has been read.  A term that could never have an effect (a window that never opens, a bound inside a window
that is looser than the one outside, a step after the end) is a fault too: it was meant to do something.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

from pipeline.contract import values
from pipeline.contract.cursor import Cursor
from pipeline.contract.document import Document
from pipeline.contract.faults import did_you_mean, one_of, shown
from pipeline.contract.model import (
    SEVERITIES,
    MoneyAtRisk,
    PipelineAlert,
    PipelineAlerts,
    Ramp,
    Severity,
    Term,
)
from pipeline.contract.recurrence import occurrences
from pipeline.contract.values import Duration
from pipeline.contract.windows import Interval, Window

#: Labels that the alert itself carries; a route must not overwrite them.
OWN_LABELS = ("alertname", "contract", "clause", "severity", "window")
UTC = ZoneInfo("UTC")


@dataclass(slots=True)
class Scope:
    """What every part of the file needs to know about the rest of it.

    `dimensions`: short topic (`gpu`, `queue`, `energy`, `billing`) → names that `match` and `by` may use.
    """

    document: Document
    dimensions: Mapping[str, Sequence[str]]
    zone: ZoneInfo
    term: Term | None
    currency: str
    windows: dict[str, Window] = field(default_factory=dict)
    used_windows: set[str] = field(default_factory=set)
    ids: dict[str, int] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)


def read_term(cursor: Cursor, zone: ZoneInfo) -> Term | None:
    start = cursor.at("start").parse(lambda text: values.instant(text, zone))
    end = cursor.at("end").parse(lambda text: values.instant(text, zone))
    if start is None or end is None:
        return None
    if start >= end:
        cursor.at("end").fault(shown(cursor.at("end").value), f"an end after {cursor.at('start').value!r}")
        return None
    return Term(start, end)


def read_duration(cursor: Cursor, default: int) -> int:
    found = cursor.parse(values.duration) if cursor.present else None
    return found.exact if found else default


def read_span(scope: Scope, cursor: Cursor) -> int | None:
    """A lookback, in whole roll-ups of 10 s: readings are made of those, nothing is rounded in silence."""
    found = cursor.parse(values.duration)
    if found is None:
        return None
    if found.exact % 10 or not 10 <= found.exact <= values.DAY:
        cursor.fault(shown(cursor.value), "a whole multiple of 10 s, up to a day")
        return None
    return found.exact


def read_windows(scope: Scope, cursor: Cursor) -> None:
    for name, spec in cursor.entries() if cursor.present else ():
        scope.windows[name] = _window(scope, name, spec)


def _window(scope: Scope, name: str, cursor: Cursor) -> Window:
    own = cursor.at("timezone")
    zone = (own.parse(values.zone) if own.present else None) or scope.zone
    intervals: list[Interval] = []
    ranges, recurring = cursor.at("ranges"), cursor.at("recurring")
    if isinstance(cursor.value, dict) and not ranges.present and not recurring.present:
        cursor.fault("neither ranges nor recurring", "at least one of them")
    for item in ranges.each() if ranges.present else ():
        intervals += _range(scope, item, zone)
    for item in recurring.each() if recurring.present else ():
        intervals += _recurrence(scope, item, zone)
    return Window.of(name, zone.key, intervals, cursor.at("text").text() or "")


def _range(scope: Scope, cursor: Cursor, zone: ZoneInfo) -> list[Interval]:
    found = read_term(cursor, zone)
    if found and scope.term and (found.end <= scope.term.start or found.start >= scope.term.end):
        cursor.fault("a range outside the contract's term", "one that shares some time with it")
    return [(found.start, found.end)] if found else []


def _recurrence(scope: Scope, cursor: Cursor, zone: ZoneInfo) -> list[Interval]:
    rule = cursor.at("rrule")
    start = cursor.at("start").parse(lambda text: values.wall_time(text, zone))
    length = cursor.at("duration").parse(values.duration)
    if length is not None and length.exact == 0:
        cursor.at("duration").fault(shown(cursor.at("duration").value), "a duration above 0")
    omit = cursor.at("except")
    dates = {day: item for item in omit.each() if (day := item.parse(values.day))} if omit.present else {}
    within = scope.term or Term(0, 0)

    def unfold(text: str) -> tuple[list[Interval], set[Any]]:
        return occurrences(
            text, start or datetime(1970, 1, 1), length or Duration(0, 60), zone, within, dates
        )

    found = rule.parse(unfold)
    if found is None or start is None or length is None or scope.term is None:
        return []
    intervals, left_out = found
    if not intervals:
        rule.fault(shown(rule.value), "a rule with an occurrence within the contract's term")
        return []
    for day in sorted(dates.keys() - left_out):
        dates[day].fault(f"{day}", "the local date of an occurrence (this one leaves nothing out)")
    return intervals


def read_window_name(scope: Scope, cursor: Cursor, name: str) -> bool:
    """Whether the key at `cursor` names a window of this contract."""
    scope.used_windows.add(name)
    if name in scope.windows:
        return True
    hint = did_you_mean(name, scope.windows)
    cursor.fault(f"the unknown window {name!r}", one_of(sorted(scope.windows)), hint, key=True)
    return False


def read_ramp(scope: Scope, cursor: Cursor) -> Ramp | None:
    """A number holds for the whole term; steps hold from their dates."""
    if not cursor.present:
        return None
    start = scope.term.start if scope.term else 0
    if not isinstance(cursor.value, list):
        value = cursor.number()
        return None if value is None else Ramp(((start, value),))
    steps: list[tuple[int, float]] = []
    for item in cursor.each():
        begin = item.at("from")
        t, value = begin.parse(partial(values.instant, local=scope.zone)), item.at("value").number()
        if t is None or value is None:
            continue
        if steps and t <= steps[-1][0]:
            begin.fault(shown(begin.value), "a date after that of the step before it")
        elif scope.term and t >= scope.term.end:
            begin.fault(shown(begin.value), "a date before the contract's term ends")
        else:
            steps.append((t, value))
    return Ramp(tuple(steps)) if steps else None


def read_severity(cursor: Cursor, default: Severity) -> Severity:
    return next((severity for severity in SEVERITIES if severity == cursor.value), default)


def read_route(scope: Scope, cursor: Cursor, taken: Sequence[str] = ()) -> dict[str, str]:
    found = {}
    for label, item in cursor.entries() if cursor.present else ():
        if label in OWN_LABELS or label in taken:
            item.fault(f"the label {label!r}", "a label that the alert does not carry already", key=True)
        found[label] = item.text() or ""
    return found


def read_money_at_risk(scope: Scope, cursor: Cursor) -> MoneyAtRisk | None:
    amount = cursor.at("per_hour")
    if not amount.present:
        return None
    per_hour = amount.read(values.money, amount.value)
    currency = cursor.at("currency")
    code = (currency.text() if currency.present else None) or scope.currency
    return None if per_hour is None else MoneyAtRisk(per_hour, code)


def read_about(cursor: Cursor) -> dict[str, Any]:
    """`text`, `runbook` and `contact`, as keyword arguments."""
    runbook, contact, text = (cursor.at(name) for name in ("runbook", "contact", "text"))
    return {
        "text": (text.text() if text.present else None) or "",
        "runbook": runbook.text() if runbook.present else None,
        "contact": contact.text() if contact.present else None,
    }


def read_pipeline(scope: Scope, cursor: Cursor) -> PipelineAlerts | None:
    if not cursor.present:
        return None
    defaults = PipelineAlerts()
    alerts = {}
    for name in (
        "telemetry_silent",
        "loss_imbalance",
        "pipeline_stalled",
        "clock_skew",
        "telemetry_cardinality",
        "clause_unmatched",
        "watchdog",
    ):
        item = cursor.at(name)
        if item.present:
            default: PipelineAlert = getattr(defaults, name)
            alerts[name] = PipelineAlert(
                severity=read_severity(item.at("severity"), default.severity),
                route=read_route(scope, item.at("route")),
                **read_about(item),
            )
    return PipelineAlerts(**alerts)
