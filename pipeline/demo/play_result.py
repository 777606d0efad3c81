"""What came of a play: each promised alert beside the one that fired, the surprises, and the report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pipeline.demo.receiver import ReceivedAlert
from pipeline.ledger.status import NO_DELAY, report
from pipeline.simulate.scenarios import Comparison, ExpectedAlert, Play, compare

Alert = Mapping[str, Any]
Status = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Told:
    """One promised alert and what became of it.

    `fired`, `resolved`: seconds of event time since the play's start; `took`: from the true onset to its
    firing, event time; `delivered`: whether the receiver was told; `reason`: why it is not as promised, empty
    if it is.
    """

    promised: ExpectedAlert
    alert: Alert | None
    fired: int | None
    resolved: int | None
    delivered: bool
    reason: str

    @property
    def took(self) -> int | None:
        return None if self.fired is None else self.fired - self.promised.onset


@dataclass(frozen=True, slots=True)
class PlayResult:
    """A play, compared with what its scenario promises.

    `rate`: events per second of wall clock over the play; `first_alert_after`: seconds from the pipeline's start;
    `went_on`: it was interrupted, and some alerts were delivered before that.
    """

    play: Play
    status: Status
    comparison: Comparison
    told: tuple[Told, ...]
    rate: float
    first_alert_after: float | None
    went_on: bool = False

    @property
    def agrees(self) -> bool:
        return self.comparison.agrees

    @property
    def accelerated(self) -> bool:
        """Event time ran faster than the wall clock: a delay between the two means nothing."""
        return self.play.speed > 1

    @property
    def report(self) -> dict[str, Any]:
        """The report as JSON values; the rate is that of the whole play."""
        figures: dict[str, Any] = {"rate_events_per_s": round(self.rate, 1)}
        if self.accelerated:
            figures |= {"decision_delay_s": dict(NO_DELAY)}
        missing, unexpected = self.comparison.missing, self.comparison.unexpected
        return report({**self.status, **figures}, missing=missing, unexpected=unexpected)


def outcome(
    play: Play,
    status: Status,
    deliveries: Iterable[ReceivedAlert],
    rate: float,
    first_alert_after: float | None,
    went_on: bool = False,
) -> PlayResult:
    """Compare; `status` is one that was written after the play's last instant was evaluated."""
    alerts: Sequence[Alert] = status["alerts"]
    found = compare(play.expected, alerts, play.start)
    heard, left = list(deliveries), list(alerts)
    told = []
    for promised in play.expected:
        alert = _nearest(promised, left, play.start)
        if alert is not None:
            left.remove(alert)
        told.append(_told(promised, alert, heard, found, play.start))
    return PlayResult(play, status, found, tuple(told), rate, first_alert_after, went_on)


def _nearest(promised: ExpectedAlert, alerts: Sequence[Alert], start: int) -> Alert | None:
    """The alert that is meant: of the right name and place, and if there are several in the right time."""
    same = [
        alert
        for alert in alerts
        if (alert["alertname"], alert["clause"]) == (promised.alertname, promised.clause)
        and promised.by.items() <= alert["labels"].items()
    ]
    middle = start + (promised.start + promised.end) / 2
    return min(same, key=lambda alert: abs(_epoch(alert["fired_at"]) - middle), default=None)


def _told(
    promised: ExpectedAlert,
    alert: Alert | None,
    heard: Sequence[ReceivedAlert],
    found: Comparison,
    start: int,
) -> Told:
    wanted = (promised.alertname, promised.clause, dict(promised.by))
    reasons = [m["reason"] for m in found.missing if (m["alertname"], m["clause"], m["labels"]) == wanted]
    if alert is None:
        return Told(promised, None, None, None, False, reasons[0] if reasons else "never fired")
    ended = alert["resolved_at"]
    return Told(
        promised,
        alert,
        _epoch(alert["fired_at"]) - start,
        None if ended is None else _epoch(ended) - start,
        any(delivery.is_of(alert["labels"]) for delivery in heard),
        reasons[0] if reasons else "",
    )


def _epoch(at: str) -> int:
    return int(datetime.fromisoformat(at).timestamp())
