"""Service levels: how long jobs may wait, and how many.  QueueWaitBreach and QueueBacklog."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isinf
from typing import ClassVar, Literal

from pipeline.contract.build import Scope
from pipeline.contract.cursor import Cursor
from pipeline.contract.faults import shown
from pipeline.contract.model import BoundInForce, Clause, Contract, Windows
from pipeline.readings import LastSum, Reading, WaitQuantile, match_of
from pipeline.rules.evidence import Evidence, group_of
from pipeline.rules.kind import Kind
from pipeline.rules.ready_view import DATED, OF_CLAUSE, SPLIT, ReadyView
from pipeline.rules.rule import ClauseRule, Facts, above, told
from pipeline.rules.verdicts import Answers, State, Terms, Verdict


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

    def asks(self, contract: Contract, t: int) -> str:
        bound = self.bound_at(t, contract.windows)
        inside = f" inside {bound.window}" if bound.window else ""
        return f"{self.indicator} at most {bound.value:,g}{self._unit}{inside}"

    def asks_inside(self, window: str, t: int) -> str:
        return f"at most {self.in_window[window]:,g}{self._unit}" if window in self.in_window else ""

    @property
    def _unit(self) -> str:
        return "s" if self.quantile else ""


def _check(place: Cursor, clause: ServiceLevelClause, scope: Scope) -> None:
    if not place.sound("indicator", "bound"):
        return
    _check_unit(place.at("bound"), clause.bound, clause)
    for name, tighter in clause.in_window.items():
        item = place.at("in_window").at(name)
        _check_unit(item, tighter, clause)
        if place.sound("bound") and tighter > clause.bound:
            item.fault(
                shown(item.value), "a bound not above the clause's own, for the tighter of the two holds"
            )


def _check_unit(place: Cursor, bound: float, clause: ServiceLevelClause) -> None:
    """A duration above 0 for a wait, a number for a backlog."""
    if clause.quantile is None:
        if isinstance(place.value, str):
            place.fault(shown(place.value), f"a number of jobs, for the indicator is {clause.indicator}")
    elif not isinstance(place.value, str):
        hint = f"did you mean '{place.value}s'?"
        place.fault(shown(place.value), f"a duration, for the indicator is {clause.indicator}", hint)
    elif bound == 0:
        place.fault(shown(place.value), "a wait above 0")


class _Queue(ClauseRule[ServiceLevelClause]):
    def prepare(self) -> None:
        queue = self.catalog.by_view("queue")
        self.topics = (queue.topic,)
        self.lookback = self.clause_of_contract.over_seconds

    def judge(self, t: int, answers: Answers) -> Sequence[Verdict] | None:
        bound = self.clause_of_contract.bound_at(t, self.contract_in_force.windows)
        terms = self.terms(t, bound.value, bound.window)
        rows = answers[self.specs[0]].at(t)
        return [self.verdict(terms, row) for row in rows] + self.unread(terms, t, rows)

    def verdict(self, terms: Terms, row: Reading) -> Verdict:
        raise NotImplementedError


class QueueWaitBreach(_Queue):
    """Breach: the quantile of all waits over its bound, or, where nobody is admitted, the oldest wait.

    Queues that went silent cannot vouch for a wait that looks good: if all of a group did, it is unknown.  So it is
    if one reports without what tells whether anybody waits.  A wait that is known in bounds only is over its bound when
    the least that it can be is.
    """

    alertname = "QueueWaitBreach"
    says = "{observed} {unit} waited, at most {bound} allowed"
    fires_when = (
        "a quantile of the queue wait is above `bound`; a queue that admits nobody is read by its oldest wait"
    )
    unit = "s"

    def prepare(self) -> None:
        super().prepare()
        clause = self.clause_of_contract
        self.span = clause.over_seconds
        self.specs = (
            WaitQuantile(
                topic=self.topics[0],
                measure="admission_wait_seconds",
                fallback="oldest_wait_seconds",
                pending="pending_jobs",
                q=clause.quantile or 0.95,
                match=match_of(clause.match),
                by=clause.by,
                span=clause.over_seconds,
                lookback=self.lookback,
            ),
        )

    def verdict(self, terms: Terms, row: Reading) -> Verdict:
        details = {**({"basis": row.basis} if row.basis else {}), **told(row.mute)}
        if row.at_most is not None:
            details |= {"at_least": True} if isinf(row.at_most) else {"at_most": row.at_most}
        trusted = not row.silent_series and not row.mute
        return Verdict(
            terms, row.by, row.t, _waits(row, terms.bound), row.value, row.samples, trusted, details
        )

    def words(self, facts: Facts) -> str:
        return f"at least {self.says}" if facts.get("at_least") else self.says

    def sql(self, verdict: Verdict, evidence: Evidence) -> str:
        basis = str((verdict.details or {}).get("basis", ""))
        return evidence.value(self.specs[0], verdict.t, group_of(verdict), basis)


class QueueBacklog(_Queue):
    """Breach: more jobs pending than the bound, by the last value of each queue."""

    alertname = "QueueBacklog"
    says = "{observed} {unit} pending, at most {bound} allowed"
    fires_when = "more jobs are pending than `bound`"
    unit = "jobs"

    def prepare(self) -> None:
        super().prepare()
        clause = self.clause_of_contract
        self.span = self.lookback
        self.specs = (
            LastSum(
                topic=self.topics[0],
                measure="pending_jobs",
                match=match_of(clause.match),
                by=clause.by,
                span=self.lookback,
            ),
        )

    def verdict(self, terms: Terms, row: Reading) -> Verdict:
        carried = row.silent + row.lost
        state: State = "unknown" if row.value is None else above(row.value, carried, terms.bound, row.mute)
        details = {**({"silent": carried} if carried else {}), **told(row.mute)}
        return Verdict(terms, row.by, row.t, state, row.value, row.samples, not row.silent_series, details)


def _waits(row: Reading, bound: float) -> State:
    if row.value is None:
        return "unknown"
    if row.value > bound:
        return "breach"
    if row.at_most is not None and row.at_most > bound:
        return "unknown"
    return "unknown" if row.mute or (row.series and row.silent_series >= row.series) else "ok"


def _asks_for(clause: ServiceLevelClause) -> list[type[ClauseRule[ServiceLevelClause]]]:
    return [QueueBacklog if clause.quantile is None else QueueWaitBreach]


VIEW = ReadyView(
    "queue_wait",
    "Queue waits and depths against the bound in force, for each service level: a row a minute",
    {
        "time": "Instant of the reading, UTC",
        **OF_CLAUSE,
        "indicator": "queue_wait_p95, queue_wait_p99 or pending_jobs",
        "observed": "Seconds waited at that quantile, or jobs pending",
        "bound": "Most that is allowed; tighter inside a window",
        "unit": "s or jobs",
        "window": "Business-critical window that the bound comes from",
        "basis": "What the value rests on, where that is not the waits of admitted jobs",
        "state": "ok, breach or unknown",
        **DATED,
    },
    f"""SELECT "time", contract, clause, {SPLIT}, terms ->> '$.indicator' AS indicator, observed, bound, unit, "window",
        facts ->> '$.basis' AS basis, state, date
    FROM readings LEFT JOIN (SELECT contract, clause, terms FROM clauses) USING (contract, clause)
    WHERE alertname IN ('QueueWaitBreach', 'QueueBacklog')""",
)

KIND = Kind(
    path="service_levels",
    clause=ServiceLevelClause,
    of=("queue",),
    check=_check,
    alerts=(QueueWaitBreach, QueueBacklog),
    asks_for=_asks_for,
    view=VIEW,
)
