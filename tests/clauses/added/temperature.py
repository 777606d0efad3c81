"""Temperature: how warm the GPUs of a group may be on average.  TemperatureExceeded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from pipeline.contract.build import Scope
from pipeline.contract.cursor import Cursor
from pipeline.contract.faults import shown
from pipeline.contract.model import Clause, Contract, Ramp
from pipeline.readings import EntityCount, FleetPower, match_of
from pipeline.rules.evidence import Evidence, group_of
from pipeline.rules.kind import Kind
from pipeline.rules.ready_view import DATED, OF_CLAUSE, SPLIT, ReadyView
from pipeline.rules.rule import ClauseRule, Facts, above, told
from pipeline.rules.verdicts import Answers, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class TemperatureClause(Clause):
    """TemperatureExceeded: the mean over `over_seconds` of all GPUs above the ramp's ceiling at that date."""

    kind: ClassVar[str] = "temperature"

    ceiling_celsius: Ramp
    over_seconds: int = 300

    def asks(self, contract: Contract, t: int) -> str:
        ceiling = self.ceiling_celsius.at(t)
        return "no ceiling yet" if ceiling is None else f"at most {ceiling:,g} °C"


def _check(place: Cursor, clause: TemperatureClause, scope: Scope) -> None:
    ceiling = place.at("ceiling_celsius")
    if place.sound("ceiling_celsius") and any(value > 150 for _, value in clause.ceiling_celsius.steps):
        ceiling.fault(shown(ceiling.value), "a temperature that a GPU can have, up to 150 °C")


class TemperatureExceeded(ClauseRule[TemperatureClause]):
    """Breach: the mean of the GPUs that report is above the ceiling."""

    alertname = "TemperatureExceeded"
    says = "{observed} {unit} on average, at most {bound} allowed"
    fires_when = "the mean temperature of GPUs is above `ceiling_celsius` of that date"
    unit = "°C"

    def prepare(self) -> None:
        gpu, clause = self.catalog.by_view("gpu"), self.clause_of_contract
        match, self.span, self.topics = match_of(clause.match), clause.over_seconds, (gpu.topic,)
        self.heat = FleetPower(gpu.topic, "temperature_celsius", match, clause.by, self.span)
        self.gpus = EntityCount(gpu.topic, match, clause.by, self.span, "observed")
        self.specs = (self.heat, self.gpus)

    def judge(self, t: int, answers: Answers) -> Sequence[Verdict] | None:
        ceiling = self.clause_of_contract.ceiling_celsius.at(t)
        if ceiling is None:
            return None
        terms = self.terms(t, ceiling, None)
        counted = {row.by: row.value for row in answers[self.gpus].at(t)}
        rows = answers[self.heat].at(t)
        found = []
        for row in rows:
            gpus = counted.get(row.by)
            mean = (row.value or 0.0) / gpus if gpus else None
            state = "unknown" if mean is None else above(mean, 0.0, ceiling, row.mute)
            facts = {"gpus": gpus, **told(row.mute)}
            found.append(Verdict(terms, row.by, t, state, mean, row.samples, not row.silent, facts))
        return found + self.unread(terms, t, rows)

    def sentences(self, unit: str, window: str | None, facts: Facts) -> Iterator[str]:
        if facts.get("gpus"):
            yield f"The mean of {facts['gpus']:,.0f} GPUs."

    def sql(self, verdict: Verdict, evidence: Evidence) -> str:
        group = group_of(verdict)
        heat = evidence.value(self.heat, verdict.t, group)
        gpus = evidence.value(self.gpus, verdict.t, group)
        return f"SELECT ({heat}) / ({gpus}) AS value"


VIEW = ReadyView(
    "temperature",
    "Mean temperature of GPUs against what is allowed, for each temperature clause: a row a minute",
    {
        "time": "Instant of the reading, UTC",
        **OF_CLAUSE,
        "mean_celsius": "Mean over the span of the clause, of all GPUs",
        "ceiling_celsius": "Ceiling in force at that date",
        "gpus": "GPUs that it is the mean of",
        "state": "ok, breach or unknown",
        **DATED,
    },
    f"""SELECT "time", contract, clause, {SPLIT}, observed AS mean_celsius, bound AS ceiling_celsius,
        (facts ->> '$.gpus')::DOUBLE AS gpus, state, date
    FROM readings WHERE alertname = 'TemperatureExceeded'""",
)

KIND = Kind(
    path="temperature",
    clause=TemperatureClause,
    of=("gpu",),
    check=_check,
    alerts=(TemperatureExceeded,),
    view=VIEW,
)
