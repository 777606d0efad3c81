"""Capacity: GPUs promised and allowed.  CapacityShortfall, CapacityCeilingExceeded and WindowNotReady."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple

from pipeline.contract.build import Scope
from pipeline.contract.cursor import Cursor
from pipeline.contract.faults import one_of, shown
from pipeline.contract.model import BoundInForce, Clause, Contract, Ramp, Windows
from pipeline.readings import EntityCount, Reading, match_of
from pipeline.readings.undelivered import Look, Missing
from pipeline.rules.evidence import Evidence, group_of
from pipeline.rules.kind import Kind
from pipeline.rules.ready_view import DATED, OF_CLAUSE, SPLIT, ReadyView
from pipeline.rules.rule import ClauseRule, Facts, above, below, lookback, told
from pipeline.rules.verdicts import Answers, State, Terms, Verdict
from pipeline.rules.wording import number, short, utc

#: So many places where GPUs have moved to are named.
PLACES = 3


class Promise(NamedTuple):
    """GPUs that must be there when the occurrence `[start, end)` of `window` begins."""

    window: str
    start: int
    end: int
    gpus: float


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

    def asks(self, contract: Contract, t: int) -> str:
        floor, ceiling = self.floor_at(t, contract.windows), self.ceiling_at(t, contract.windows)
        sides = (("at least", floor), ("at most", ceiling))
        parts = [
            f"{word} {bound.value:,g} GPUs{f' inside {bound.window}' if bound.window else ''}"
            for word, bound in sides
            if bound
        ]
        return f"{', '.join(parts) or 'nothing yet'} ({self.counts})"

    def asks_inside(self, window: str, t: int) -> str:
        bounds = self.in_window.get(window, CapacityBounds())
        sides = (("at least", bounds.committed_gpus), ("at most", bounds.ceiling_gpus))
        found = [(word, ramp.at(t)) for word, ramp in sides if ramp]
        return " and ".join(f"{word} {value:,g} GPUs" for word, value in found if value is not None)


def _in_force(
    own: Ramp | None, inside: Mapping[str, Ramp | None], t: int, windows: Windows
) -> list[BoundInForce]:
    """The clause's own bound first, so that a window which is no tighter does not get the credit."""
    found = [BoundInForce(value, None)] if own and (value := own.at(t)) is not None else []
    for name, ramp in inside.items():
        if ramp and windows[name].interval_at(t) and (value := ramp.at(t)) is not None:
            found.append(BoundInForce(value, name))
    return found


def _check(place: Cursor, clause: CapacityClause, scope: Scope) -> None:
    bounds_of = ("committed_gpus", "ceiling_gpus", "in_window")
    if isinstance(place.value, dict) and not any(place.at(name).present for name in bounds_of):
        place.fault("a clause without a bound", f"at least {one_of(bounds_of)}")
    _check_order(place, clause.committed_gpus, clause.ceiling_gpus)
    for name, bounds in clause.in_window.items():
        inside = place.at("in_window").at(name)
        floor, ceiling = bounds.committed_gpus, bounds.ceiling_gpus
        _check_order(inside, floor or clause.committed_gpus, ceiling or clause.ceiling_gpus)
        _check_tighter(inside.at("committed_gpus"), floor, clause.committed_gpus, True)
        _check_tighter(inside.at("ceiling_gpus"), ceiling, clause.ceiling_gpus, False)
    promises = any(bounds.committed_gpus for bounds in clause.in_window.values())
    lead, inside = place.at("lead"), place.at("in_window")
    # What seems to be missing may only be unreadable, and is a fault already.
    if lead.present and not promises and not (inside.present and place.document.faults):
        lead.fault("a lead without a promise", "in_window with committed_gpus for some window", key=True)


def _check_order(place: Cursor, floor: Ramp | None, ceiling: Ramp | None) -> None:
    """A floor above the ceiling can only be breached."""
    if not floor or not ceiling:
        return
    for t in sorted({t for t, _ in (*floor.steps, *ceiling.steps)}):
        low, high = floor.at(t), ceiling.at(t)
        if low is not None and high is not None and low > high:
            place.fault(f"committed_gpus {low:g} above ceiling_gpus {high:g}", "a floor below the ceiling")
            return


def _check_tighter(place: Cursor, inside: Ramp | None, outside: Ramp | None, is_floor: bool) -> None:
    """The tightest bound in force counts, so a window's bound that is never tighter would never count."""
    if not inside or not outside:
        return
    for t in sorted({t for t, _ in (*inside.steps, *outside.steps)}):
        here, there = inside.at(t), outside.at(t)
        if here is not None and (there is None or (here >= there if is_floor else here <= there)):
            return
    word = "below" if is_floor else "above"
    place.fault(shown(place.value), f"a bound not {word} the clause's own, for the tighter of the two holds")


class _Capacity(ClauseRule[CapacityClause]):
    """All three read the same: distinct GPUs over the span, with silent ones carried and lost ones told.

    A group that was only ever seen, not named by the clause, ends when all its GPUs have moved to others.
    """

    unit = "GPUs"
    tells_beyond = True

    def prepare(self) -> None:
        gpu = self.catalog.by_view("gpu")
        clause = self.clause_of_contract
        self.span = lookback(gpu, clause)
        self.spec = EntityCount(
            topic=gpu.topic,
            match=match_of(clause.match),
            by=clause.by,
            span=self.span,
            counts=clause.counts,
            loss_after=clause.silence_is_loss_after_seconds,
        )
        self.specs = (self.spec,)
        self.topics = (gpu.topic,)

    def verdict(
        self, terms: Terms, row: Reading, state: State, details: Mapping[str, Any] | None = None
    ) -> Verdict:
        """The verdict on one group, with what its number is made of."""
        if row.left and row.by not in self.groups:
            state = "ok"
        if row.counts is not None:
            observed, healthy, in_use = row.counts
            details = {**(details or {}), "seen": observed, "healthy": healthy, "in_use": in_use}
        if row.silent or row.lost:
            details = {**(details or {}), "silent": row.silent, "lost": row.lost}
        if row.mute:
            details = {**(details or {}), **told(row.mute)}
        if row.frozen:
            details = {**(details or {}), "frozen": row.frozen}
        if row.moved:
            details = {
                **(details or {}),
                "moved": sum(n for _, n in row.moved),
                "moved_to": _places(row.moved),
            }
        trusted = row.settled and not row.silent
        return Verdict(terms, row.by, row.t, state, row.value, row.samples, trusted, details)

    def sentences(self, unit: str, window: str | None, facts: Facts) -> Iterator[str]:
        if facts.get("frozen"):
            yield f"Frozen: {number(facts['frozen'])} {unit} that report, but whose counters stand still."
        if facts.get("moved"):
            yield f"{number(facts['moved'])} {unit} have moved: they now report from {facts['moved_to']}."

    def sql(self, verdict: Verdict, evidence: Evidence) -> str:
        """Half as long where nothing is frozen."""
        frozen = bool((verdict.details or {}).get("frozen"))
        return evidence.value(self.spec, verdict.t, group_of(verdict), frozen=frozen)


class _Floor(_Capacity):
    """Of these alerts somebody asks who is missing."""

    names_missing = True

    def missing(
        self, by: tuple[str, ...], t: int, facts: Facts, active_at: int, look: Look
    ) -> Missing | None:
        """With as many silent as the reading carries."""
        silent = int(facts.get("silent", 0) + facts.get("lost", 0))
        return look(self.spec, by, t, active_at).silent(silent)

    def rows_sql(self, verdict: Verdict, evidence: Evidence) -> str:
        return evidence.missing(self.spec, verdict.t, group_of(verdict))


class CapacityShortfall(_Floor):
    """Breach: short of the floor even if all that is silent were still there.  Lost GPUs are not there."""

    alertname = "CapacityShortfall"
    says = "{observed} {unit} delivered, at least {bound} promised"
    fires_when = "fewer GPUs than `committed_gpus` were delivered"
    adds_up_to = "gpu_hours"

    def judge(self, t: int, answers: Answers) -> Sequence[Verdict] | None:
        floor = self.clause_of_contract.floor_at(t, self.contract_in_force.windows)
        if floor is None:
            return None
        terms = self.terms(t, floor.value, floor.window)
        rows = answers[self.spec].at(t)
        found = [self.verdict(terms, r, below(r, floor.value)) for r in rows]
        return found + self.unread(terms, t, rows)


class CapacityCeilingExceeded(_Capacity):
    """Breach: more delivered than allowed.  What is silent or lost to us may well still be there."""

    alertname = "CapacityCeilingExceeded"
    says = "{observed} {unit} delivered, at most {bound} allowed"
    fires_when = "more GPUs than `ceiling_gpus` were delivered"
    adds_up_to = "gpu_hours"

    def judge(self, t: int, answers: Answers) -> Sequence[Verdict] | None:
        ceiling = self.clause_of_contract.ceiling_at(t, self.contract_in_force.windows)
        if ceiling is None:
            return None
        terms = self.terms(t, ceiling.value, ceiling.window)
        rows = answers[self.spec].at(t)
        found = [
            self.verdict(terms, r, above(r.value or 0.0, r.silent + r.lost, ceiling.value, r.mute))
            for r in rows
        ]
        return found + self.unread(terms, t, rows)


class WindowNotReady(_Floor):
    """Breach: a window starts within its lead, and the GPUs promised inside it are not there yet.

    Once the window is open CapacityShortfall speaks, and this alert does not begin any more.  One that fires goes on
    until the GPUs are there or the window is over: nobody is told "resolved" while they are short.
    """

    alertname = "WindowNotReady"
    says = "{observed} {unit} delivered, {bound} promised when {window} {opens}"
    fires_when = (
        "a window starts within `lead`, and what is promised inside it is not there; it goes on until it is"
    )

    def judge(self, t: int, answers: Answers) -> Sequence[Verdict] | None:
        promises = self.clause_of_contract.promises_ahead(t, self.contract_in_force.windows)
        if not promises:
            return None
        ahead = max(promises, key=lambda promise: (promise.gpus, -promise.start))
        terms = self.terms(t, ahead.gpus, ahead.window)
        rows = answers[self.spec].at(t)
        details = _starts(ahead)
        found = [self.verdict(terms, r, below(r, ahead.gpus), details) for r in rows]
        return found + self.unread(terms, t, rows)

    def lingering(self, t: int, by: tuple[str, ...], window: str | None, answers: Answers) -> Verdict | None:
        """As it was promised before the window opened, with the severity of before: nobody is paged twice for it."""
        windows = self.contract_in_force.windows
        opened = self.clause_of_contract.promise_open(t, window or "", windows)
        row = next((row for row in answers[self.spec].at(t) if row.by == by), None)
        if opened is None or row is None or not self.contract_in_force.in_force(t):
            return None
        terms = self.terms(opened.start - 1, opened.gpus, opened.window)
        return self.verdict(terms, row, below(row, opened.gpus), {**_starts(opened), "opened": True})

    def words(self, facts: Facts) -> str:
        starts = facts.get("window_starts")
        opens = f"{'opened' if facts.get('opened') else 'opens'} on {short(starts)}" if starts else "opens"
        return self.says.replace("{opens}", opens)

    def sentences(self, unit: str, window: str | None, facts: Facts) -> Iterator[str]:
        if "window_starts" in facts:
            starts = "opened at" if facts.get("opened") else "starts at"
            yield f"{window} {starts} {utc(facts['window_starts'])}."
        yield from super().sentences(unit, window, facts)

    def notes(self, facts: Facts) -> Mapping[str, str]:
        return {"opens": utc(facts["window_starts"])} if "window_starts" in facts else {}


def _starts(promise: Promise) -> Mapping[str, Any]:
    return {"window_starts": promise.start, "window_ends": promise.end}


def _places(moved: Sequence[tuple[str, int]]) -> str:
    """Where they are now, in words: the three places that have most."""
    named = [f"{place} ({n})" for place, n in moved[:PLACES]]
    others = len(moved) - len(named)
    return ", ".join([*named, *([f"{others} more"] if others else [])])


def _asks_for(clause: CapacityClause) -> list[type[ClauseRule[CapacityClause]]]:
    inside = clause.in_window.values()
    asked: list[tuple[type[ClauseRule[CapacityClause]], bool]] = [
        (CapacityShortfall, bool(clause.committed_gpus or any(b.committed_gpus for b in inside))),
        (CapacityCeilingExceeded, bool(clause.ceiling_gpus or any(b.ceiling_gpus for b in inside))),
        (WindowNotReady, clause.lead_seconds is not None),
    ]
    return [rule for rule, is_asked in asked if is_asked]


VIEW = ReadyView(
    "capacity",
    "GPUs delivered against what was promised, for each capacity clause: a row a minute, and one at each change",
    {
        "time": "Instant of the reading, UTC",
        **OF_CLAUSE,
        "committed": "GPUs promised at least (the floor in force then)",
        "ceiling": "GPUs allowed at most",
        "delivered": "GPUs counted as the clause says: observed, healthy or in use",
        "observed": "GPUs seen in the span before",
        "healthy": "GPUs seen, and never degraded or failed, nor with a fatal XID where no health is reported",
        "in_use": "GPUs seen at work",
        "silent": "GPUs whose source has stopped, carried from their last report",
        "lost": "GPUs silent for so long that they count as lost",
        "moved": "GPUs that were last seen here within a day, and now report from elsewhere",
        "moved_to": "Where to, in words",
        "frozen": "GPUs that report, but whose counters stand still: they are not delivered",
        "headroom": "delivered less committed: below zero is a shortfall",
        "window": "Business-critical window that the floor comes from",
        "state": "ok, breach or unknown, of the floor where there is one",
        **DATED,
    },
    f"""SELECT "time", contract, clause, {SPLIT},
        max(bound) FILTER (alertname = 'CapacityShortfall') AS committed,
        max(bound) FILTER (alertname = 'CapacityCeilingExceeded') AS ceiling,
        max(observed) AS delivered,
        max((facts ->> '$.seen')::DOUBLE) AS observed,
        max((facts ->> '$.healthy')::DOUBLE) AS healthy,
        max((facts ->> '$.in_use')::DOUBLE) AS in_use,
        coalesce(max((facts ->> '$.silent')::DOUBLE), 0) AS silent,
        coalesce(max((facts ->> '$.lost')::DOUBLE), 0) AS lost,
        coalesce(max((facts ->> '$.moved')::DOUBLE), 0) AS moved, max(facts ->> '$.moved_to') AS moved_to,
        coalesce(max((facts ->> '$.frozen')::DOUBLE), 0) AS frozen,
        max(observed) - max(bound) FILTER (alertname = 'CapacityShortfall') AS headroom,
        max("window") FILTER (alertname = 'CapacityShortfall') AS "window",
        coalesce(max(state) FILTER (alertname = 'CapacityShortfall'), max(state)) AS state,
        date
    FROM readings WHERE alertname IN ('CapacityShortfall', 'CapacityCeilingExceeded')
    GROUP BY date, "time", contract, clause, by_values""",
)

KIND = Kind(
    path="capacity",
    clause=CapacityClause,
    of=("gpu",),
    check=_check,
    alerts=(CapacityShortfall, CapacityCeilingExceeded, WindowNotReady),
    asks_for=_asks_for,
    view=VIEW,
)
