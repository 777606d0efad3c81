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
    "SEVERITIES", "BoundInForce", "CapacityBounds", "CapacityClause", "Clause", "Contract", "Interval",
    "MoneyAtRisk", "Parties", "PipelineAlert", "PipelineAlerts", "PowerClause", "Promise", "Ramp",
    "ServiceLevelClause", "Severity", "Term", "TrancheClause", "Window",
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


class Promise(NamedTuple):
    """GPUs that must be there when the occurrence `[start, end)` of `window` begins."""

    window: str
    start: int
    end: int
    gpus: float


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


@dataclass(frozen=True, slots=True)
class CapacityBounds:
    """GPUs promised (floor) and allowed (ceiling); None = not bounded on that side."""

    committed_gpus: Ramp | None = None
    ceiling_gpus: Ramp | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CapacityClause(Clause):
    """CapacityShortfall below the floor, CapacityCeilingExceeded above the ceiling, WindowNotReady."""

    kind: ClassVar[str] = "capacity"

    committed_gpus: Ramp | None = None
    ceiling_gpus: Ramp | None = None
    counts: Literal["observed", "healthy", "in_use"] = "healthy"
    in_window: Mapping[str, CapacityBounds] = field(default_factory=dict)
    lead_seconds: int | None = None
    silence_is_loss_after_seconds: int = 300

    def floor_at(self, t: int, windows: Windows) -> BoundInForce | None:
        """The highest floor in force at `t`: the clause's own and those of the windows open then."""
        inside = {name: bounds.committed_gpus for name, bounds in self.in_window.items()}
        found = _in_force(self.committed_gpus, inside, t, windows)
        return max(found, key=lambda bound: bound.value, default=None)

    def ceiling_at(self, t: int, windows: Windows) -> BoundInForce | None:
        """The lowest ceiling in force at `t`: the clause's own and those of the windows open then."""
        inside = {name: bounds.ceiling_gpus for name, bounds in self.in_window.items()}
        found = _in_force(self.ceiling_gpus, inside, t, windows)
        return min(found, key=lambda bound: bound.value, default=None)

    def promises_ahead(self, t: int, windows: Windows) -> tuple[Promise, ...]:
        """What WindowNotReady checks at `t`: floors of windows that start in `(t, t + lead]`."""
        if self.lead_seconds is None:
            return ()
        promises = []
        for name, bounds in self.in_window.items():
            coming = windows[name].next_interval(t)
            if coming and coming[0] <= t + self.lead_seconds and bounds.committed_gpus:
                gpus = bounds.committed_gpus.at(coming[0])
                if gpus is not None:
                    promises.append(Promise(name, *coming, gpus))
        return tuple(promises)

    def promise_open(self, t: int, window: str, windows: Windows) -> Promise | None:
        """The floor of `window` if it is open at `t`, as it was promised for its start."""
        bounds = self.in_window.get(window)
        interval = windows[window].interval_at(t) if bounds else None
        if interval is None or bounds is None or bounds.committed_gpus is None:
            return None
        gpus = bounds.committed_gpus.at(interval[0])
        return None if gpus is None else Promise(window, *interval, gpus)


def _in_force(
    own: Ramp | None, inside: Mapping[str, Ramp | None], t: int, windows: Windows
) -> list[BoundInForce]:
    """The clause's own bound first, so that a window which is no tighter does not get the credit."""
    found = [BoundInForce(value, None)] if own and (value := own.at(t)) is not None else []
    for name, ramp in inside.items():
        if ramp and windows[name].interval_at(t) and (value := ramp.at(t)) is not None:
            found.append(BoundInForce(value, name))
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerClause(Clause):
    """PowerCeilingExceeded: mean power over `over_seconds` above the ramp's ceiling at that date."""

    kind: ClassVar[str] = "power"

    ceiling_megawatts: Ramp
    at: Literal["it", "facility"] = "it"
    over_seconds: int = 900
    overhead_ratio: float = 0.0

    def ceiling_at(self, t: int) -> float | None:
        """Megawatts allowed at `t`; None before the first step."""
        return self.ceiling_megawatts.at(t)

    def it_watts(self, gpu_watts: float) -> float:
        """IT power where no meter reports: the GPUs' own, plus `overhead_ratio` of it for the rest."""
        return gpu_watts * (1.0 + self.overhead_ratio)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceLevelClause(Clause):
    """QueueWaitBreach (`queue_wait_*`, bound in seconds) and QueueBacklog (`pending_jobs`, bound in jobs)."""

    kind: ClassVar[str] = "service_level"

    indicator: Literal["queue_wait_p95", "queue_wait_p99", "pending_jobs"]
    bound: float
    in_window: Mapping[str, float] = field(default_factory=dict)
    over_seconds: int = 300

    @property
    def quantile(self) -> float | None:
        """0.95 or 0.99 for a wait, None for `pending_jobs`."""
        return {"queue_wait_p95": 0.95, "queue_wait_p99": 0.99}.get(self.indicator)

    def bound_at(self, t: int, windows: Windows) -> BoundInForce:
        """The lowest bound in force at `t`."""
        inside = [BoundInForce(v, name) for name, v in self.in_window.items() if windows[name].interval_at(t)]
        return min([BoundInForce(self.bound, None), *inside], key=lambda bound: bound.value)


CATEGORIES = ("Usage", "Purchase", "Adjustment", "Credit")
"""FOCUS categories of charges that spend a tranche unless its contract says otherwise: all but Tax."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrancheClause(Clause):
    """TrancheExhausted when spend has passed `ceiling`, TrancheOverrunForecast when it is on course to.

    Counts charges whose ChargePeriodStart lies in `[from_t, to_t)`, of `categories`, by `cost_column`.
    A charge whose ContractApplied names `commitment_id` counts by its applied cost.  A purchase that funds a commitment
    counts only where `purchases` is `burn`.
    Amounts are in the contract's currency.
    """

    kind: ClassVar[str] = "tranche"

    from_t: int
    to_t: int
    ceiling: Decimal
    commit: Decimal | None = None
    categories: tuple[str, ...] = CATEGORIES
    purchases: Literal["fund", "burn"] = "fund"
    cost_column: str = "BilledCost"
    commitment_id: str | None = None
    complete_after_seconds: int = 48 * 3600


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

    def of_kind(self, kind: type[C]) -> tuple[C, ...]:
        """The clauses of one kind, in the file's order."""
        return tuple(clause for clause in self.clauses if isinstance(clause, kind))


def pipeline_alerts(contracts: Iterable[Contract]) -> PipelineAlerts:
    """The `pipeline:` section of the one contract that has it (`load_all` refuses two), else the defaults."""
    return next((c.pipeline for c in contracts if c.pipeline), PipelineAlerts())
