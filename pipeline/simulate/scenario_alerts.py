"""Which alerts must come of a scenario, and whether those that came are they."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pipeline.contract.checked_parts import Moment
from pipeline.simulate.fleet_spec import Name, Spec


class ExpectedAlert(Spec):
    """An alert that must fire between `from` and `to`, in seconds since the start; `why` says why then.

    `onset` is the true onset of what it tells of; `resolves`: whether it must have resolved by the end
    (True), must still fire (False), or either (absent).
    """

    alertname: Name
    clause: Name
    by: dict[str, str] = Field(default_factory=dict)
    onset: Moment
    start: Annotated[Moment, Field(alias="from")]
    end: Annotated[Moment, Field(alias="to")]
    resolves: bool | None = None
    why: str

    @model_validator(mode="after")
    def _ordered(self) -> ExpectedAlert:
        if not self.onset <= self.start <= self.end:
            raise ValueError(f"found {self.onset}s, {self.start}s, {self.end}s, expected onset <= from <= to")
        return self


@dataclass(frozen=True)
class Comparison:
    """What should have fired and did not, and what fired and should not have; each with its reason."""

    missing: list[dict[str, Any]]
    unexpected: list[dict[str, Any]]

    @property
    def agrees(self) -> bool:
        return not self.missing and not self.unexpected


def compare(expected: Iterable[ExpectedAlert], alerts: Iterable[Mapping[str, Any]], start: int) -> Comparison:
    """Compares what a scenario promises with what fired.

    `alerts`: one for each time an alert went through its life, with alertname, clause, labels, fired_at and
    resolved_at (epoch seconds, RFC 3339 text, datetime or None).  What never fired is left out, as is
    Watchdog.
    `start`: the play's start, epoch seconds.
    """
    left = [a for a in alerts if a.get("fired_at") is not None and a["alertname"] != "Watchdog"]
    missing = []
    for wanted in expected:
        same = [alert for alert in left if _same(wanted, alert)]
        good = [alert for alert in same if not _objection(wanted, alert, start)]
        if good:
            left.remove(good[0])
            continue
        reason = _objection(wanted, same[0], start) if same else "never fired"
        if same:
            left.remove(same[0])
        missing.append(
            {
                "alertname": wanted.alertname,
                "clause": wanted.clause,
                "labels": dict(wanted.by),
                "reason": reason,
            }
        )
    return Comparison(missing, [_surprise(alert, start) for alert in left])


def _surprise(alert: Mapping[str, Any], start: int) -> dict[str, Any]:
    fired = _offset(_epoch(alert["fired_at"]), start)
    return {
        "alertname": alert["alertname"], "clause": alert.get("clause"), "labels": dict(alert["labels"]),
        "reason": f"fired at {fired}, which the scenario does not expect",
    }  # fmt: skip


def _same(wanted: ExpectedAlert, alert: Mapping[str, Any]) -> bool:
    labels = alert["labels"]
    return (
        alert["alertname"] == wanted.alertname
        and alert.get("clause") == wanted.clause
        and all(labels.get(name) == value for name, value in wanted.by.items())
    )


def _objection(wanted: ExpectedAlert, alert: Mapping[str, Any], start: int) -> str:
    """Why this alert is not the wanted one; empty if it is."""
    fired = _epoch(alert["fired_at"])
    if not wanted.start <= fired - start <= wanted.end:
        bounds = f"{_offset(start + wanted.start, start)} and {_offset(start + wanted.end, start)}"
        return f"fired at {_offset(fired, start)}, expected between {bounds}"
    resolved = alert.get("resolved_at")
    if wanted.resolves is True and resolved is None:
        return "has not resolved"
    if wanted.resolves is False and resolved is not None:
        return f"resolved at {_offset(_epoch(resolved), start)}, expected it to go on"
    return ""


def _epoch(moment: object) -> int:
    if isinstance(moment, int | float):
        return int(moment)
    at = moment if isinstance(moment, datetime) else datetime.fromisoformat(str(moment))
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp())


def _offset(moment: int, start: int) -> str:
    sign: Literal["+", "-"] = "+" if moment >= start else "-"
    minutes, seconds = divmod(abs(moment - start), 60)
    return f"{sign}{minutes}m{seconds:02d}s"
