"""TelemetrySilent and LossImbalance: where we cannot vouch for the numbers.

These watch our own senses, not a contract: their `contract` label is `gigawatch`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from pipeline.catalog import EventType
from pipeline.contract.model import Clause, PipelineAlert
from pipeline.readings import FateBalance, Reading, SilentSeries
from pipeline.rules.evidence import Evidence, group_of
from pipeline.rules.rule import Facts, Rule, told
from pipeline.rules.verdicts import Answers, Terms, Verdict

#: The `contract` label of alerts about the pipeline itself.
OWN = "gigawatch"
#: How far back fates are balanced, in seconds: a loss pages for an hour, then it is history.
BALANCE_SPAN = 3600


class Blinds:
    """Which clauses read a topic, and so go blind when one of its series stops."""

    def __init__(self, clauses: Iterable[tuple[str, Clause]]) -> None:
        self._clauses = tuple(clauses)

    def of(self, dimensions: Mapping[str, str]) -> tuple[str, ...]:
        """`contract/clause` of each clause whose `match` covers these dimension values, sorted.

        A dimension that the series does not carry at all rules nothing out.
        """
        names = {
            f"{contract}/{clause.id}"
            for contract, clause in self._clauses
            if all(dimensions.get(d, v[0]) in v for d, v in clause.match.items() if v)
        }
        return tuple(sorted(names))


class OwnRule(Rule):
    """A rule about the telemetry of one event type."""

    contract = OWN
    absent = "ok"

    def __init__(self, event_type: EventType, alert: PipelineAlert) -> None:
        self.event_type = event_type
        self.source = alert
        self.topics = (event_type.topic,)

    def _own_terms(self, by: tuple[str, ...], bound: float, unit: str, keep: int, span: int) -> Terms:
        route = tuple(sorted(self.source.route.items()))
        severity = self.source.severity
        return Terms(self.alertname, OWN, self.clause, by, bound, unit, None, severity, route, 0, keep, span)

    def sql(self, verdict: Verdict, evidence: Evidence) -> str:
        return evidence.value(self.specs[0], verdict.t, _of_the_topic(verdict))


def _of_the_topic(verdict: Verdict) -> Mapping[str, str]:
    """The verdict's group without its topic, which is no column of the views of events."""
    return {name: value for name, value in group_of(verdict).items() if name != "topic"}


class TelemetrySilent(OwnRule):
    """Breach for each series that has stopped as a whole, or reports without what clauses read of it.

    A series that is neither has no reading.  `measures`: what clauses read, with the seconds they look back.
    """

    alertname = "TelemetrySilent"
    clause = "telemetry_silent"
    says = "{observed} {unit} without a sample, at most {bound} expected"
    fires_when = "a source has stopped; the alert names the clauses that it blinds"

    def __init__(
        self,
        event_type: EventType,
        alert: PipelineAlert,
        blinds: Blinds,
        measures: tuple[tuple[str, int], ...] = (),
    ) -> None:
        super().__init__(event_type, alert)
        self.blinds = blinds
        self.spec = SilentSeries(event_type.topic, measures)
        self.specs = (self.spec,)
        self.by = ("topic", *(d.name for d in event_type.dimensions))
        bound = float(event_type.interval + event_type.lateness)
        # A source that reports at the very edge of its interval must not flap: kept for one interval.
        keep, span = event_type.interval, 3 * event_type.interval
        self._terms = self._own_terms(self.by, bound, "s", keep, span)

    def terms(self, t: int, bound: float, window: str | None) -> Terms:
        return self._terms

    def verdicts(self, t: int, answers: Answers) -> Sequence[Verdict]:
        return [self._verdict(t, row) for row in answers[self.spec].at(t)]

    def _verdict(self, t: int, row: Reading) -> Verdict:
        by = (self.event_type.topic, *row.by)
        blinds = self.blinds.of(dict(zip(self.by[1:], row.by, strict=True)))
        details = {"blinds": blinds, "since": t - int(row.value or 0), **told(row.mute)}
        terms = self._terms
        if row.mute:
            spans = dict(self.spec.measures)
            terms = terms._replace(bound=float(max(spans[mute.measure] for mute in row.mute)))
        elif row.due > self.event_type.interval:
            terms = terms._replace(bound=row.due + self.event_type.lateness)
        return Verdict(terms, by, t, "breach", row.value, row.samples, True, details)

    def words(self, facts: Facts) -> str:
        if not facts.get("mute"):
            return self.says
        return f"reports, but for {{observed}} {{unit}} without {' and '.join(sorted(_lacking(facts)))}"

    def sentences(self, unit: str, window: str | None, facts: Facts) -> Iterator[str]:
        if facts.get("blinds"):
            yield f"Blinded by this: {', '.join(facts['blinds'])}."

    def notes(self, facts: Facts) -> Mapping[str, str]:
        return {"blinds": ", ".join(facts.get("blinds", ()))}

    def sql(self, verdict: Verdict, evidence: Evidence) -> str:
        spec = self.spec.lacking(_lacking(verdict.details or {}))
        return evidence.value(spec, verdict.t, _of_the_topic(verdict))


def _lacking(facts: Facts) -> set[str]:
    """The measures that a series reports without."""
    return {mute["measure"] for mute in facts.get("mute", ())}


class LossImbalance(OwnRule):
    """Breach: events of a partition whose fate is unknown.  Nothing is lost in silence."""

    alertname = "LossImbalance"
    clause = "loss_imbalance"
    says = "{observed} {unit} came in and are unaccounted for"
    fires_when = "events of a partition came in whose fate is unknown"

    def __init__(self, event_type: EventType, alert: PipelineAlert) -> None:
        super().__init__(event_type, alert)
        self.spec = FateBalance(event_type.topic, BALANCE_SPAN)
        self.specs = (self.spec,)
        self._terms = self._own_terms(("topic", "partition"), 0.0, "events", 0, BALANCE_SPAN)

    def terms(self, t: int, bound: float, window: str | None) -> Terms:
        return self._terms

    def verdicts(self, t: int, answers: Answers) -> Sequence[Verdict]:
        topic = self.event_type.topic
        return [
            Verdict(self._terms, (topic, *row.by), t, "breach" if row.value else "ok", row.value, row.samples)
            for row in answers[self.spec].at(t)
        ]


WATCHES: tuple[type[OwnRule], ...] = (TelemetrySilent, LossImbalance)
"""What watches the telemetry itself, whatever the contracts say."""
