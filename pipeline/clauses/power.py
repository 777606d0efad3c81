"""Power: megawatts allowed.  PowerCeilingExceeded.

Meters and GPUs are read for each site, because one may be metered and its neighbour not; the sites of a group
are then summed.  Where no meter reports, IT power is derived: fleet power times 1 + overhead_ratio.  There is
no such formula for a whole facility, which draws at least its IT power: derived power above a facility's
ceiling is a breach, below it says nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import fsum
from typing import Any, ClassVar, Literal, TypeVar

from pipeline.contract.model import Clause, Contract, Ramp
from pipeline.readings import FleetPower, MeterMean, Mute, Reading, match_of
from pipeline.rules.evidence import Evidence, group_of
from pipeline.rules.kind import Kind
from pipeline.rules.ready_view import DATED, OF_CLAUSE, SPLIT, ReadyView
from pipeline.rules.rule import ClauseRule, Facts, above, told
from pipeline.rules.verdicts import Answers, State, Terms, Verdict

PowerSpec = TypeVar("PowerSpec", MeterMean, FleetPower)

WATTS_PER_MEGAWATT = 1e6


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

    def asks(self, contract: Contract, t: int) -> str:
        ceiling = self.ceiling_at(t)
        return "no ceiling yet" if ceiling is None else f"at most {ceiling:,g} MW ({self.at})"


@dataclass(slots=True)
class _Sites:
    """Watts of one group, over its sites, by where they come from; a site is the values of the finer `by`."""

    metered: list[float] = field(default_factory=list)
    derived: list[float] = field(default_factory=list)
    metered_sites: list[tuple[str, ...]] = field(default_factory=list)
    derived_sites: list[tuple[str, ...]] = field(default_factory=list)
    carried: list[float] = field(default_factory=list)
    mute: list[Mute] = field(default_factory=list)
    estimated: list[float] = field(default_factory=list)
    without: int = 0
    weighing: str = ""
    samples: int = 0
    stale: int = 0

    def add_meter(self, row: Reading) -> None:
        self.metered_sites.append(row.by)
        self._add(row, self.metered, 1.0)

    def add_fleet(self, row: Reading, factor: float) -> None:
        self.derived_sites.append(row.by)
        self._add(row, self.derived, factor)
        self.without += row.without
        self.weighing = self.weighing or row.basis
        if row.without:
            self.estimated.append(row.estimated * factor)

    def _add(self, row: Reading, into: list[float], factor: float) -> None:
        into.append((row.value or 0.0) * factor)
        if row.silent or row.lost:
            self.carried.append((row.silent + row.lost) * factor)
        self.mute += row.mute
        self.samples += row.samples
        self.stale += row.silent_series

    @property
    def basis(self) -> str:
        if not self.derived:
            return "metered"
        words = "part metered, part derived from GPU power" if self.metered else "derived from GPU power"
        return f"{words}; {self.weighing}" if self.weighing else words


class PowerCeilingExceeded(ClauseRule[PowerClause]):
    """Breach: mean power over `over` above the ceiling.  Silent meters and GPUs may still draw theirs."""

    alertname = "PowerCeilingExceeded"
    says = "{observed} {unit} drawn, at most {bound} allowed"
    fires_when = "mean IT or facility power is above `ceiling_megawatts` of that date"
    unit = "MW"
    tells_beyond = True

    def prepare(self) -> None:
        gpu, energy = self.catalog.by_view("gpu"), self.catalog.by_view("energy")
        clause = self.clause_of_contract
        match, over = match_of(clause.match), clause.over_seconds
        shared = {d.name for d in gpu.dimensions} & {d.name for d in energy.dimensions}
        by = (*clause.by, *(d.name for d in energy.dimensions if d.name in shared - set(clause.by)))
        self.meter = MeterMean(energy.topic, f"{clause.at}_power_watts", match, by, over)
        self.fleet = FleetPower(gpu.topic, "power_watts", match, by, over)
        self.specs = (self.meter, self.fleet)
        self.topics = (energy.topic, gpu.topic)
        self.span = over

    def judge(self, t: int, answers: Answers) -> Sequence[Verdict] | None:
        ceiling = self.clause_of_contract.ceiling_at(t)
        if ceiling is None:
            return None
        terms = self.terms(t, ceiling, None)
        groups = self._groups(answers[self.meter].at(t), answers[self.fleet].at(t))
        found = [self._verdict(terms, t, by, sites) for by, sites in sorted(groups.items())]
        return found + self.unread(terms, t, [Reading(t, by, None) for by in groups])

    def _groups(self, meters: Sequence[Reading], fleets: Sequence[Reading]) -> dict[tuple[str, ...], _Sites]:
        """A site's meters speak for it while they report; once they count as lost, its GPUs do."""
        width = len(self.clause_of_contract.by)
        groups: dict[tuple[str, ...], _Sites] = defaultdict(_Sites)
        fleet_of = {row.by: row for row in fleets}
        metered = {row.by for row in meters if not row.lost or row.by not in fleet_of}
        for row in meters:
            if row.by in metered:
                groups[row.by[:width]].add_meter(row)
        for row in fleets:
            if row.by not in metered:
                groups[row.by[:width]].add_fleet(row, self.clause_of_contract.it_watts(1.0))
        return groups

    def _verdict(self, terms: Terms, t: int, by: tuple[str, ...], sites: _Sites) -> Verdict:
        observed = fsum(sites.metered + sites.derived) / WATTS_PER_MEGAWATT
        carried = fsum(sites.carried) / WATTS_PER_MEGAWATT
        state: State = above(observed, carried, terms.bound, sites.mute)
        # Of GPUs that do not say what they draw, nothing is known: the others' draw is a lower bound.
        known = observed - fsum(sites.estimated) / WATTS_PER_MEGAWATT
        if sites.without and known <= terms.bound:
            state = "unknown"
        basis = sites.basis
        if self.clause_of_contract.at == "facility" and sites.derived:
            basis += "; IT power only, the facility draws more"
            state = "unknown" if state == "ok" else state
        details: dict[str, Any] = {
            "basis": basis,
            "metered": tuple(sites.metered_sites),
            "derived": tuple(sites.derived_sites),
            **told(sites.mute),
        }
        if sites.without:
            details["gpus_without_power"] = sites.without
        if carried:
            details["silent"] = carried
        return Verdict(
            terms, by, t, state, observed, sites.samples, not (sites.stale or sites.without), details
        )

    def doubts(self, unit: str, facts: Facts) -> Iterator[str]:
        if facts.get("gpus_without_power"):
            yield (
                f"{facts['gpus_without_power']} GPUs report without power_watts: they are taken at the mean of the others, "
                "and without them the rest is a lower bound."
            )

    def sql(self, verdict: Verdict, evidence: Evidence) -> str:
        """Megawatts: what the meters say, and fleet power times its factor where none does."""
        facts, group = verdict.details or {}, group_of(verdict)
        metered, derived = facts.get("metered", ()), facts.get("derived", ())
        both = bool(metered and derived)
        parts = []
        if metered or not derived:
            meter = _narrowed(self.meter, metered) if both else self.meter
            parts.append(f"({evidence.value(meter, verdict.t, group)})")
        if derived:
            fleet = _narrowed(self.fleet, derived) if both else self.fleet
            factor = self.clause_of_contract.it_watts(1.0)
            parts.append(f"({evidence.value(fleet, verdict.t, group)}) * {factor!r}")
        return f"SELECT ({' + '.join(parts)}) / {WATTS_PER_MEGAWATT:.0f} AS value"


def _narrowed(spec: PowerSpec, sites: Sequence[tuple[str, ...]]) -> PowerSpec:
    """The same question about some of the sites only."""
    names = {name: tuple(sorted({site[i] for site in sites})) for i, name in enumerate(spec.by)}
    return replace(spec, match=match_of({**dict(spec.match), **names}))


VIEW = ReadyView(
    "power",
    "Megawatts drawn against what was contracted at that date, for each power clause: a row a minute",
    {
        "time": "Instant of the reading, UTC",
        **OF_CLAUSE,
        "at": "it: the IT load; facility: the whole site, cooling included",
        "contracted_megawatts": "Ceiling in force at that date",
        "drawn_megawatts": "Mean power drawn over the span of the clause",
        "headroom_megawatts": "contracted less drawn: below zero is an excess",
        "basis": "Whether it was metered or derived from GPU power",
        "state": "ok, breach or unknown",
        **DATED,
    },
    f"""SELECT "time", contract, clause, {SPLIT}, terms ->> '$.at' AS "at", bound AS contracted_megawatts,
        observed AS drawn_megawatts, bound - observed AS headroom_megawatts, facts ->> '$.basis' AS basis, state, date
    FROM readings LEFT JOIN (SELECT contract, clause, terms FROM clauses) USING (contract, clause)
    WHERE alertname = 'PowerCeilingExceeded'""",
)

# Power is read from meters and from GPUs, so a clause can only speak of what both know.
KIND = Kind(path="power", clause=PowerClause, of=("energy", "gpu"), alerts=(PowerCeilingExceeded,), view=VIEW)
