"""Running a stretch of instants: what to read, then verdicts, then alert states.  The ledger's one entry.

    plan = plan_of(contracts, catalog, KINDS)      # once for each set of contracts
    due = plan.due(before, after, done)            # which instants each group of topics may now pass
    answers = {spec: read(spec, t0, t1) for spec, (t0, t1) in plan.wanted(due).items()}
    evaluation = evaluate(plan, due, answers, states, standing)

A clause waits only for the topics it reads: clauses that read the same topics share a frontier, whose name is
those topics joined by `+`.  A rule that reads none (a deadline) follows the newest frontier of all; the name of its
group is empty.  The same answers give the same output in the same order, whether a range is evaluated at once or
instant by instant, with or without a restart between.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

from pipeline.catalog import Catalog, EventType
from pipeline.contract.model import Contract, pipeline_alerts
from pipeline.readings import GRID, LOOKBACK_INTERVALS, Readings, ReadingSpec
from pipeline.readings.undelivered import Look, Missing
from pipeline.rules import telemetry
from pipeline.rules.alerts import AlertChange, AlertState, step
from pipeline.rules.annotate import Trust, annotate
from pipeline.rules.evidence import Evidence
from pipeline.rules.kind import Kind
from pipeline.rules.pipeline_alerts import WALL_CLOCK
from pipeline.rules.rule import Rule
from pipeline.rules.standing import Key, StandingRow, row_of
from pipeline.rules.tally import Run, VerdictTally
from pipeline.rules.verdicts import Answers, State, Terms, Verdict

HISTORY = 60
"""Seconds between two instants whose readings are kept whatever they say."""

LOOKS = 20
"""Groups of one clause that are looked up at one instant: a blackout of hundreds must not wait for them all to be."""

Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """`states`: every live alert, by identity.  `changes`: ordered by instant, then identity.
    `standing`: as a whole, ordered by key; `done`: the last instant evaluated, by group of topics.
    `history`: how each group stood at every full minute, and at every instant at which its state became another.
    `tallied`: of the rules that look back on their own verdicts, the runs that began or went on.
    """

    states: Mapping[str, AlertState]
    changes: tuple[AlertChange, ...]
    standing: tuple[StandingRow, ...]
    done: Mapping[str, int]
    history: tuple[StandingRow, ...] = ()
    tallied: Mapping[Key, tuple[Run, ...]] = field(default_factory=dict)


def frontier(topics: Sequence[str], reached: Mapping[str, int]) -> int | None:
    """The last instant that rules which read `topics` may pass, by that of each topic: the least of theirs.

    Rules that read none may pass the newest of all.  A topic from which nothing ever came holds nobody back; None when
    nothing came from any of them.
    """
    if not topics:
        return max(reached.values(), default=None)
    return min((reached[topic] for topic in topics if topic in reached), default=None)


@dataclass(frozen=True, slots=True)
class Plan:
    """The rules of a set of contracts, in the contracts' order, grouped by the topics that they read."""

    catalog: Catalog
    rules: tuple[Rule, ...]
    groups: Mapping[str, tuple[Rule, ...]] = field(default_factory=dict)

    def due(
        self, before: Mapping[str, int], after: Mapping[str, int], done: Mapping[str, int]
    ) -> dict[str, Range]:
        """The instants `(t0, t1]` that each group may pass, as the topics' frontiers move on.

        `before`, `after`: topic → last instant that its watermark has passed.  `done`: group → last instant
        evaluated, kept by the ledger.  A topic from which nothing ever came has no frontier and holds
        nobody back; a group starts where the first of its topics does.
        """
        found: dict[str, Range] = {}
        for group, rules in self.groups.items():
            t1 = frontier(rules[0].topics, after)
            if t1 is None:
                continue
            stood = frontier(rules[0].topics, before)
            t0 = done.get(group, t1 - GRID if stood is None else stood)
            if t0 < t1:
                found[group] = (t0, t1)
        return found

    def wanted(self, due: Mapping[str, Range]) -> dict[ReadingSpec, Range]:
        """Everything to read for `due`: each distinct question once, over the widest range that asks it."""
        found: dict[ReadingSpec, Range] = {}
        for group, (t0, t1) in due.items():
            for rule in self.groups[group]:
                for spec in rule.specs:
                    low, high = found.get(spec, (t0, t1))
                    found[spec] = (min(low, t0), max(high, t1))
        return found


def plan_of(contracts: Iterable[Contract], catalog: Catalog, kinds: Iterable[Kind[Any]]) -> Plan:
    """The rules of all clauses of `contracts`, each of which is of one of `kinds`, and those that watch the telemetry."""
    contracts = tuple(contracts)
    kind_of = {kind.clause: kind for kind in kinds}
    rules: list[Rule] = [
        rule
        for contract in contracts
        for clause in contract.clauses
        for rule in kind_of[type(clause)].rules(clause, contract, catalog)
    ]
    rules += _own_rules(rules, contracts, catalog)
    groups: dict[str, list[Rule]] = {}
    for rule in rules:
        groups.setdefault("+".join(rule.topics), []).append(rule)
    return Plan(catalog, tuple(rules), {name: tuple(found) for name, found in groups.items()})


def _own_rules(rules: Sequence[Rule], contracts: Sequence[Contract], catalog: Catalog) -> list[Rule]:
    """Billing is late by nature: a bill that is not there yet is not silence."""
    tuned = pipeline_alerts(contracts)
    reads = {(r.contract, r.clause): r.topics for r in rules}
    clauses = [(c.id, clause) for c in contracts for clause in c.clauses]
    found: list[Rule] = []
    for event_type in catalog.types:
        found.append(telemetry.LossImbalance(event_type, tuned.loss_imbalance))
        if not event_type.retained:
            readers = [(c, k) for c, k in clauses if event_type.topic in reads.get((c, k.id), ())]
            blinds = telemetry.Blinds(readers)
            measures = _measures(rules, event_type)
            found.append(telemetry.TelemetrySilent(event_type, tuned.telemetry_silent, blinds, measures))
    return found


def _measures(rules: Sequence[Rule], event_type: EventType) -> tuple[tuple[str, int], ...]:
    """What clauses read of a topic, each with the longest time that one of them looks back.

    It is three intervals at least: a clause may read a minute's mean, and a source has a value for every other report.
    """
    found: dict[str, int] = {}
    least = LOOKBACK_INTERVALS * event_type.interval
    for spec in (s for rule in rules for s in rule.specs if s.topic == event_type.topic):
        for measure, span in spec.said().items():
            found[measure] = max(span, found.get(measure, least))
    return tuple(sorted(found.items()))


def evaluate(
    plan: Plan,
    due: Mapping[str, Range],
    answers: Answers,
    states: Mapping[str, AlertState],
    standing: Iterable[StandingRow] = (),
    trust: Mapping[str, Trust] | None = None,
    every: Mapping[str, int] | None = None,
    look: Look | None = None,
    tallies: Mapping[Key, Iterable[Run]] = MappingProxyType({}),
) -> Evaluation:
    """Judges every rule at every instant it is due, and moves the alerts.

    `every`: group → seconds between its instants, where that is not `GRID`.
    `answers` must hold every spec of `plan.wanted(due)`.  States of rules that no contract has any more are
    resolved at the last instant of `due`.  `trust`: each topic's quality, for the annotations; `look` is asked for who is
    missing when a shortfall fires or changes, never else.  `tallies`: the saved runs of rules that look back.
    """
    run = _Run(plan, answers, states, standing, trust or {}, look, tallies)
    for group, (t0, t1) in due.items():
        step_of = (every or {}).get(group, GRID)
        for rule in plan.groups.get(group, ()):
            run.stretch(rule, range(t0 + step_of - t0 % step_of, t1 + 1, step_of))
    run.withdraw(max((t1 for _, t1 in due.values()), default=None))
    changes = sorted(run.changes, key=lambda change: (change.t, change.state.key))
    live = {state.identity: state for state in sorted(run.states.values(), key=lambda s: s.key)}
    rows = tuple(run.standing[key] for key in sorted(run.standing))
    history = sorted(run.history, key=lambda row: (row.t, row.key))
    done = {group: t1 for group, (_, t1) in due.items()}
    tallied = {key: tally.changed for key, tally in sorted(run.tallies.items()) if tally.changed}
    return Evaluation(live, tuple(changes), rows, done, tuple(history), tallied)


class _Run:
    """One evaluation under way: the states and the standing that move."""

    def __init__(
        self,
        plan: Plan,
        answers: Mapping[ReadingSpec, Readings],
        states: Mapping[str, AlertState],
        standing: Iterable[StandingRow],
        trust: Mapping[str, Trust],
        look: Look | None,
        tallies: Mapping[Key, Iterable[Run]],
    ) -> None:
        self.tallies = {key: VerdictTally(runs) for key, runs in tallies.items()}
        self.plan, self.answers, self.trust, self.look = plan, answers, trust, look
        self.states: dict[Key, AlertState] = {s.key: s for s in states.values()}
        self.standing: dict[Key, StandingRow] = {row.key: row for row in standing}
        self.rows_of: dict[tuple[str, ...], list[Key]] = {}
        for key in self.standing:
            self.rows_of.setdefault(key[:3], []).append(key)
        self.changes: list[AlertChange] = []
        self.history: list[StandingRow] = []
        self.looked: Counter[tuple[str, str, str, int]] = Counter()
        # A rule's live alerts: none, nearly always, and then its healthy verdicts cost one look-up each.
        self.live: dict[tuple[str, ...], set[Key]] = {}
        for key in self.states:
            self.live.setdefault(key[:3], set()).add(key)

    def stretch(self, rule: Rule, instants: range) -> None:
        name = (rule.alertname, rule.contract, rule.clause)
        live = self.live.setdefault(name, set())
        since: dict[Key, tuple[State, int]] = {}
        own = self._own(rule)
        for key in filter(own, self.rows_of.get(name, ())):
            row = self.standing.pop(key)
            since[key] = (row.state, row.since)
        last: Sequence[Verdict] = ()
        for t in instants:
            found = rule.verdicts(t, self.answers)
            if rule.keeps and found:
                found = [self._weighed(rule, verdict) for verdict in found]
            last = self._lingering(rule, found or (), live, t) if live else found or ()
            since = self._since(last, since, t)
            for verdict in last:
                if t % HISTORY == 0 or since[verdict.key][1] == t:
                    self.history.append(row_of(verdict, since[verdict.key][1], verdict.brief_facts))
            absent = self._absent(rule, found, last, live, own, t) if live else ()
            for verdict in (*last, *absent):
                if live or verdict.state != "ok":
                    self._step(rule, verdict, live)
        for verdict in last:
            self.standing[verdict.key] = row_of(verdict, since[verdict.key][1], verdict.facts)

    def _weighed(self, rule: Rule, verdict: Verdict) -> Verdict:
        tally = self.tallies.setdefault(verdict.key, VerdictTally())
        tally.fold(verdict.t, verdict.state, rule.keeps)
        return rule.weighed(verdict, tally)

    @staticmethod
    def _own(rule: Rule) -> Callable[[Key], bool]:
        """Rules about telemetry share their name; each speaks of the topic that its groups begin with."""
        if rule.contract != telemetry.OWN:
            return lambda key: True
        return lambda key: key[3][:1] == rule.topics[:1]

    @staticmethod
    def _since(
        found: Sequence[Verdict], since: Mapping[Key, tuple[State, int]], t: int
    ) -> dict[Key, tuple[State, int]]:
        """Since when each group has had the state it has; a group that went away starts anew."""
        now: dict[Key, tuple[State, int]] = {}
        for verdict in found:
            key = verdict.key
            before = since.get(key)
            now[key] = before if before is not None and before[0] == verdict.state else (verdict.state, t)
        return now

    def _lingering(self, rule: Rule, found: Sequence[Verdict], live: set[Key], t: int) -> Sequence[Verdict]:
        """`found`, with what is still short for an alert that fires though it is well or promised no more."""
        said = {verdict.key: verdict for verdict in found}
        for key in sorted(live):
            now, state = said.get(key), self.states[key]
            if state.phase == "firing" and (now is None or now.state == "ok"):
                still = rule.lingering(t, key[3], state.window, self.answers)
                if still is not None and (now is None or still.state != "ok"):
                    said[key] = still
        return tuple(said.values())

    def _absent(
        self,
        rule: Rule,
        found: Sequence[Verdict] | None,
        last: Sequence[Verdict],
        live: set[Key],
        own: Callable[[Key], bool],
        t: int,
    ) -> list[Verdict]:
        """Verdicts for live alerts of which no reading speaks: they end when nothing is promised any more."""
        spoken = {verdict.key for verdict in last}
        state = "ok" if found is None else rule.absent
        missing = sorted(key for key in live if key not in spoken and own(key))
        return [
            Verdict(
                self._terms(rule, self.states[key], t),
                key[3],
                t,
                state,
                None,
                0,
                state == "ok",
                {"absent": True, "over": found is None},
            )
            for key in missing
        ]

    @staticmethod
    def _terms(rule: Rule, state: AlertState, t: int) -> Terms:
        return rule.terms(t, state.bound, state.window)

    def _step(self, rule: Rule, verdict: Verdict, live: set[Key]) -> None:
        key = verdict.key
        before = self.states.get(key)
        after, change = step(before, verdict, verdict.t)
        if change is not None:
            missing = self._missing(rule, verdict, change)
            slow = {
                spec.topic: self.answers[spec].slowest(verdict.t)
                for spec in rule.specs
                if spec in self.answers
            }
            evidence = Evidence(self.plan.catalog, slow)
            notes = annotate(change, verdict, rule, evidence, self.trust, missing)
            told = replace(change.state, annotations=notes)
            change = change._replace(state=told)
            self.changes.append(change)
            after = None if after is None else told
        if after is None:
            self.states.pop(key, None)
            live.discard(key)
        else:
            self.states[key] = after
            live.add(key)

    def _missing(self, rule: Rule, verdict: Verdict, change: AlertChange) -> Missing | None:
        if self.look is None or change.state.phase != "firing" or not rule.names_missing:
            return None
        at = (rule.alertname, rule.contract, rule.clause, verdict.t)
        self.looked[at] += 1
        if self.looked[at] > LOOKS:
            return None
        facts, since = verdict.details or {}, change.state.active_at
        return rule.missing(verdict.by, verdict.t, facts, since, self.look)

    def withdraw(self, t: int | None) -> None:
        """Ends the alerts and the standing of rules that are no more; those by wall clock are not ours."""
        known = {(r.alertname, r.contract, r.clause) for r in self.plan.rules}
        self.standing = {key: row for key, row in self.standing.items() if key[:3] in known}
        gone = [key for key in self.states if key[:3] not in known and key[0] not in WALL_CLOCK]
        for key in sorted(gone) if t is not None else ():
            state = self.states.pop(key)
            assert t is not None
            phase: Literal["resolved", "inactive"] = "resolved" if state.phase == "firing" else "inactive"
            notes = {**state.annotations, "ended": "The clause is no longer part of a contract in force."}
            ended = replace(
                state,
                phase=phase,
                resolved_at=t if phase == "resolved" else None,
                stale=False,
                annotations=notes,
            )
            self.changes.append(AlertChange(phase, t, ended))
