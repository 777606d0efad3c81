"""QueueWaitBreach and QueueBacklog: how long jobs wait, and how many do."""

from __future__ import annotations

from collections.abc import Sequence
from math import isinf

from pipeline.contract.model import ServiceLevelClause
from pipeline.readings import LOOKBACK_INTERVALS, LastSum, Reading, WaitQuantile, match_of
from pipeline.rules.clauses import ClauseRule, above, told
from pipeline.rules.verdicts import Answers, State, Terms, Verdict


class _Queue(ClauseRule[ServiceLevelClause]):
    def prepare(self) -> None:
        queue = self.catalog.by_view("queue")
        self.topics = (queue.topic,)
        self.lookback = self.clause_of_contract.span_seconds or LOOKBACK_INTERVALS * queue.interval

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


class QueueBacklog(_Queue):
    """Breach: more jobs pending than the bound, by the last value of each queue."""

    alertname = "QueueBacklog"
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
