"""What was promised: a contract as values that never change.

Instants are epoch seconds, UTC; durations are seconds; GPUs and megawatts are floats, money is `Decimal`.
Everything here is a question about a moment (`at(t)`): nothing reads a clock or a file.
A contract says nothing outside its term: ask `Contract.in_force(t)` first.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import ClassVar, Literal, NamedTuple, TypeVar

from pipeline.contract.windows import Interval, Window

__all__ = [
    "SEVERITIES", "BoundInForce", "Clause", "Contract", "Interval", "MoneyAtRisk", "Parties", "PipelineAlert",
    "PipelineAlerts", "Ramp", "Severity", "Term", "Window", "Windows",
]  # fmt: skip

#: From most to least urgent. `critical` pages now, `warning` is looked at within the shift, `ticket` within
#: days, `info` is for the record.
Severity = Literal["critical", "warning", "ticket", "info"]
SEVERITIES: tuple[Severity, ...] = ("critical", "warning", "ticket", "info")

Windows = Mapping[str, Window]


@dataclass(frozen=True, slots=True)
class Ramp:
    """A bound that moves at dated steps: `steps` is `((from_t, value), …)`, ascending, never empty."""

    steps: tuple[tuple[int, float], ...]

    def at(self, t: int) -> float | None:
        """The value in force at `t`; None before the first step."""
        i = bisect_right(self.steps, t, key=lambda step: step[0])
        return self.steps[i - 1][1] if i else None


class BoundInForce(NamedTuple):
    """A bound at one instant, and the named window it comes from (None: the clause's own)."""

    value: float
    window: str | None


class MoneyAtRisk(NamedTuple):
    """What an hour of breach is said to cost."""

    per_hour: Decimal
    currency: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Clause:
    """What every clause has.

    `match`: dimension → the values that count (any of them; every dimension must match; empty = everything).
    `by`: the dimensions to split on, one reading for each combination; empty = one reading.
    `span_seconds`: how far a reading looks back; None = the rules decide.
    """

    kind: ClassVar[str] = ""

    id: str
    match: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    by: tuple[str, ...] = ()
    severity: Severity = "warning"
    severity_in_window: Mapping[str, Severity] = field(default_factory=dict)
    for_seconds: int = 0
    keep_firing_for_seconds: int = 0
    span_seconds: int | None = None
    route: Mapping[str, str] = field(default_factory=dict)
    text: str = ""
    runbook: str | None = None
    contact: str | None = None
    money_at_risk: MoneyAtRisk | None = None

    def severity_at(self, t: int, windows: Windows) -> Severity:
        """The most urgent severity of the windows open at `t`, else the clause's own."""
        inside = [s for name, s in self.severity_in_window.items() if windows[name].interval_at(t)]
        return min(inside, key=SEVERITIES.index) if inside else self.severity

    def asks(self, contract: Contract, t: int) -> str:
        """What it asks at `t`, in words: the bounds that hold then."""
        raise NotImplementedError

    def asks_inside(self, window: str, t: int) -> str:
        """What else it asks inside `window`, of an occurrence that starts at `t`; empty where that is nothing."""
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineAlert:
    """Where an alert about Gigawatch itself goes."""

    severity: Severity
    route: Mapping[str, str] = field(default_factory=dict)
    text: str = ""
    runbook: str | None = None
    contact: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineAlerts:
    """The pipeline's own alerts; the defaults hold where no contract tunes them under `pipeline:`."""

    telemetry_silent: PipelineAlert = PipelineAlert(severity="warning")
    loss_imbalance: PipelineAlert = PipelineAlert(severity="critical")
    pipeline_stalled: PipelineAlert = PipelineAlert(severity="critical")
    clock_skew: PipelineAlert = PipelineAlert(severity="critical")
    telemetry_cardinality: PipelineAlert = PipelineAlert(severity="warning")
    clause_unmatched: PipelineAlert = PipelineAlert(severity="warning")
    watchdog: PipelineAlert = PipelineAlert(severity="info")


class Term(NamedTuple):
    """When the contract holds: `[start, end)`."""

    start: int
    end: int


class Parties(NamedTuple):
    customer: str
    supplier: str


C = TypeVar("C", bound=Clause)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """One contract file.

    `fx`: currency → `((from_t, units of the contract's currency for one of it), …)`, ascending.
    `aliases`: dimension of telemetry (provider, region, sku) → the supplier's name in bills → its name in telemetry.
    """

    id: str
    version: str
    supersedes: str | None
    parties: Parties
    term: Term
    currency: str
    timezone: str
    fx: Mapping[str, tuple[tuple[int, Decimal], ...]]
    windows: Mapping[str, Window]
    clauses: tuple[Clause, ...]
    pipeline: PipelineAlerts | None = None
    aliases: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    path: str = ""
    digest: str = ""
    notices: tuple[str, ...] = ()

    def in_force(self, t: int) -> bool:
        return self.term.start <= t < self.term.end


def pipeline_alerts(contracts: Iterable[Contract]) -> PipelineAlerts:
    """The `pipeline:` section of the one contract that has it (`load_all` refuses two), else the defaults."""
    return next((c.pipeline for c in contracts if c.pipeline), PipelineAlerts())
