"""TelemetrySilent and LossImbalance: where we cannot vouch for the numbers.

These watch our own senses, not a contract: their `contract` label is `gigawatch`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from pipeline.catalog import EventType
from pipeline.contract.model import Clause, PipelineAlert
from pipeline.readings import FateBalance, Reading, ReadingSpec, SilentSeries
from pipeline.rules.clauses import told
from pipeline.rules.verdicts import Answers, State, Terms, Verdict

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


class TelemetrySilent:
    """Breach for each series that has stopped as a whole, or reports without what clauses read of it.

    A series that is neither has no reading.  `measures`: what clauses read, with the seconds they look back.
    """

    alertname = "TelemetrySilent"
    contract = OWN
    clause = "telemetry_silent"
    absent: State = "ok"

    def __init__(
        self,
        event_type: EventType,
        alert: PipelineAlert,
        blinds: Blinds,
        measures: tuple[tuple[str, int], ...] = (),
    ) -> None:
        self.event_type = event_type
        self.alert = alert
        self.blinds = blinds
        self.spec = SilentSeries(event_type.topic, measures)
        self.specs: tuple[ReadingSpec, ...] = (self.spec,)
        self.topics = (event_type.topic,)
        self.by = ("topic", *(d.name for d in event_type.dimensions))
        self._terms = self._make_terms()

    def _make_terms(self) -> Terms:
        """A source that reports at the very edge of its interval must not flap: kept for one interval."""
        event_type, alert = self.event_type, self.alert
        bound = float(event_type.interval + event_type.lateness)
        route = tuple(sorted(alert.route.items()))
        keep, span = event_type.interval, 3 * event_type.interval
        return Terms(
            self.alertname, OWN, self.clause, self.by, bound, "s", None, alert.severity, route, 0, keep, span
        )

    def terms(self, t: int, bound: float, window: str | None) -> Terms:
        return self._terms

    def lingering(self, t: int, by: tuple[str, ...], window: str | None, answers: Answers) -> Verdict | None:
        return None

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


class LossImbalance:
    """Breach: events of a partition whose fate is unknown.  Nothing is lost in silence."""

    alertname = "LossImbalance"
    contract = OWN
    clause = "loss_imbalance"
    by = ("topic", "partition")
    absent: State = "ok"

    def __init__(self, event_type: EventType, alert: PipelineAlert) -> None:
        self.event_type = event_type
        self.spec = FateBalance(event_type.topic, BALANCE_SPAN)
        self.specs: tuple[ReadingSpec, ...] = (self.spec,)
        self.topics = (event_type.topic,)
        route = tuple(sorted(alert.route.items()))
        self._terms = Terms(
            self.alertname,
            OWN,
            self.clause,
            self.by,
            0.0,
            "events",
            None,
            alert.severity,
            route,
            0,
            0,
            BALANCE_SPAN,
        )

    def terms(self, t: int, bound: float, window: str | None) -> Terms:
        return self._terms

    def lingering(self, t: int, by: tuple[str, ...], window: str | None, answers: Answers) -> Verdict | None:
        return None

    def verdicts(self, t: int, answers: Answers) -> Sequence[Verdict]:
        topic = self.event_type.topic
        return [
            Verdict(self._terms, (topic, *row.by), t, "breach" if row.value else "ok", row.value, row.samples)
            for row in answers[self.spec].at(t)
        ]
