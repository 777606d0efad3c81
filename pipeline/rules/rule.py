"""A rule: one alert, what it reads, how it judges, what it says, and the SQL under it.

`Rule` is every rule, with what it says unless it says more; `ClauseRule` is one alert of a clause of a contract.  A
rule is built once for each alert of each clause when a contract is taken over; asking it for the terms in force at an
instant costs a dictionary look-up in the steady case.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Generic, Literal, TypeVar

from pipeline.catalog import Catalog, EventType
from pipeline.contract.model import Clause, Contract, PipelineAlert
from pipeline.readings import LOOKBACK_INTERVALS, Mute, Reading, ReadingSpec
from pipeline.readings.undelivered import Look, Missing
from pipeline.rules.evidence import Evidence, group_of
from pipeline.rules.tally import VerdictTally
from pipeline.rules.verdicts import Answers, State, Terms, Verdict

C = TypeVar("C", bound=Clause)
Facts = Mapping[str, Any]
"""The details of a verdict, by name."""


class Rule:
    """One alert.

    `says`: what its numbers say, in a few words, with {observed}, {bound}, {unit} and {window}.  `fires_when`: for the
    table of alerts.  `tells_beyond`: whether what lies beyond the bound is worth naming as what is at risk (GPUs,
    megawatts, money; not seconds).  `adds_up_to`: what its readings come to over a day, in the view `since_yesterday`.
    `names_missing`: whether it is looked up who is missing while it fires.  `keeps`: how many seconds of its own verdicts
    a rule looks back on; `weighed` has them.

    `topics`: the Kafka topics it waits for; none: it is judged on the newest of all frontiers.  `absent`: what a group
    that has a live alert but no reading counts as.  `source`: whose text, runbook and contact it carries.
    """

    alertname: ClassVar[str] = ""
    says: ClassVar[str] = "{observed} {unit} observed, the bound is {bound}"
    fires_when: ClassVar[str] = ""
    tells_beyond: ClassVar[bool] = False
    adds_up_to: ClassVar[Literal["", "gpu_hours", "forecast"]] = ""
    names_missing: ClassVar[bool] = False
    keeps: int = 0
    absent: ClassVar[State] = "unknown"

    contract: str
    clause: str
    source: Clause | PipelineAlert
    topics: tuple[str, ...] = ()
    specs: tuple[ReadingSpec, ...] = ()

    def verdicts(self, t: int, answers: Answers) -> Sequence[Verdict] | None:
        """One verdict for each group; None when nothing is promised at `t`.

        Live alerts end then, but those of which `lingering` still has a verdict.
        """
        raise NotImplementedError

    def weighed(self, verdict: Verdict, tally: VerdictTally) -> Verdict:
        """The verdict in the light of those before it: `tally` has them, and the state of this one."""
        return verdict

    def lingering(self, t: int, by: tuple[str, ...], window: str | None, answers: Answers) -> Verdict | None:
        """Nothing: when nothing is promised any more, what fires for it is over."""
        return None

    def terms(self, t: int, bound: float, window: str | None) -> Terms:
        """The terms in force at `t`."""
        raise NotImplementedError

    def missing(
        self, by: tuple[str, ...], t: int, facts: Facts, active_at: int, look: Look
    ) -> Missing | None:
        """Who is missing in the group `by` at `t`, by the `facts` of its reading; None where nobody asks."""
        return None

    def words(self, facts: Facts) -> str:
        """`says`, of a verdict with these facts."""
        return self.says

    def sentences(self, unit: str, window: str | None, facts: Facts) -> Iterator[str]:
        """What the description says more, in whole sentences."""
        return iter(())

    def doubts(self, unit: str, facts: Facts) -> Iterator[str]:
        """Why the number is not to be trusted, where that is not what any reading may suffer from."""
        return iter(())

    def notes(self, facts: Facts) -> Mapping[str, str]:
        """Annotations of its own, by name."""
        return {}

    def sql(self, verdict: Verdict, evidence: Evidence) -> str:
        """One SELECT whose only value is the number of the verdict; empty where no row says it (a date)."""
        return evidence.value(self.specs[0], verdict.t, group_of(verdict)) if self.specs else ""

    def rows_sql(self, verdict: Verdict, evidence: Evidence) -> str:
        """One SELECT that lists what is missing; empty where nobody is asked for."""
        return ""


def lookback(event_type: EventType, clause: Clause) -> int:
    """Seconds that a reading of `clause` looks back: its own span, else three reporting intervals."""
    return clause.span_seconds or LOOKBACK_INTERVALS * event_type.interval


def expected_groups(clause: Clause) -> tuple[tuple[str, ...], ...]:
    """The groups that a clause names itself, which must have a reading even if nothing was ever seen.

    Without `by` there is one, `()`.  With one dimension in `by` that `match` lists, each listed value is one.
    With more, not every combination need exist, and only what was seen counts.
    """
    if not clause.by:
        return ((),)
    if len(clause.by) == 1:
        return tuple((value,) for value in clause.match.get(clause.by[0], ()))
    return ()


class ClauseRule(Rule, Generic[C]):
    """One alert of one clause; subclasses say what to read and how to judge it."""

    unit: str = ""

    def __init__(self, clause: C, contract: Contract, catalog: Catalog) -> None:
        self.clause_of_contract = clause
        self.contract_in_force = contract
        self.source = clause
        self.contract = contract.id
        self.clause = clause.id
        self.catalog = catalog
        self.groups = expected_groups(clause)
        self.span = 0
        self._terms: dict[tuple[float, str | None, str], Terms] = {}
        self.prepare()

    def prepare(self) -> None:
        """Sets `specs`, `topics` and `span` from the clause and the catalog."""
        raise NotImplementedError

    def judge(self, t: int, answers: Answers) -> Sequence[Verdict] | None:
        """The verdicts at an instant within the contract's term."""
        raise NotImplementedError

    def verdicts(self, t: int, answers: Answers) -> Sequence[Verdict] | None:
        """As `judge` has them; nothing is promised outside the contract's term."""
        return self.judge(t, answers) if self.contract_in_force.in_force(t) else None

    def terms(self, t: int, bound: float, window: str | None) -> Terms:
        """The terms in force at `t`, with the severity of the windows that are open then."""
        clause = self.clause_of_contract
        severity = clause.severity
        if clause.severity_in_window:
            severity = clause.severity_at(t, self.contract_in_force.windows)
        key = (bound, window, severity)
        found = self._terms.get(key)
        if found is None:
            found = self._terms[key] = Terms(
                alertname=self.alertname,
                contract=self.contract,
                clause=self.clause,
                by=clause.by,
                bound=bound,
                unit=self.unit,
                window=window,
                severity=severity,
                route=tuple(sorted(clause.route.items())),
                hold=clause.for_seconds,
                keep=clause.keep_firing_for_seconds,
                span=self.span,
            )
        return found

    def unread(self, terms: Terms, t: int, rows: Iterable[Reading]) -> list[Verdict]:
        """Unknown verdicts for the groups that the clause names and no reading speaks of."""
        if len(self.groups) == 1 and rows:
            return []
        seen = {row.by for row in rows}
        return [
            Verdict(terms, group, t, "unknown", None, 0, False, {"never_seen": True})
            for group in self.groups
            if group not in seen
        ]


def above(value: float, silent: float, bound: float, mute: Sequence[Mute] = ()) -> State:
    """Against a ceiling: what is silent might still be there, so it can make an excess unknown, never ok.

    What reports without the measure cannot be vouched for at all: the rest is a lower bound, and within the ceiling it
    says nothing.
    """
    if value > bound:
        return "breach"
    return "unknown" if mute or value + silent > bound else "ok"


MUTE_NAMED = 5
"""So many mute series are named; the rest are counted."""


def told(mute: Sequence[Mute]) -> Facts:
    """What a verdict says of the series that report without the measure that is read."""
    if not mute:
        return {}
    found = [
        {"series": "/".join(m.series), "measure": m.measure, "since": int(m.since)} for m in mute[:MUTE_NAMED]
    ]
    return {"mute": tuple(found), "mute_series": len({m.series for m in mute})}


def below(row: Reading, bound: float) -> State:
    """Against a floor: short even with what is silent is a breach; short only without it is unknown.

    So is short while none of the series has been heard for a whole interval: not all had their turn yet.
    """
    value = row.value or 0.0
    if value >= bound:
        return "ok"
    return "breach" if row.settled and value + row.silent < bound else "unknown"
