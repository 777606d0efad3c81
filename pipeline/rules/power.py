"""PowerCeilingExceeded: megawatts against the ramp's ceiling at that date, metered where a meter reports.

Meters and GPUs are read for each site, because one may be metered and its neighbour not; the sites of a group
are then summed.  Where no meter reports, IT power is derived: fleet power times
1 + overhead_ratio.  There is
no such formula for a whole facility, which draws at least its IT power: derived power above a facility's
ceiling is a breach, below it says nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import fsum
from typing import Any

from pipeline.contract.model import PowerClause
from pipeline.readings import FleetPower, MeterMean, Mute, Reading, match_of
from pipeline.rules.clauses import ClauseRule, above, told
from pipeline.rules.verdicts import Answers, State, Terms, Verdict

WATTS_PER_MEGAWATT = 1e6


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
    unit = "MW"

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
