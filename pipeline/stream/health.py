"""The alerts that go by the clock: Watchdog, PipelineStalled, TelemetryCardinality for each topic, ClockSkew for each
clock, ClauseUnmatched for each clause.

A topic is well while the broker answers, the ledger is not busy with one thing for long, and either nothing waits or
what waits is taken in.  When it has not been well for `stalled_after` seconds, PipelineStalled goes out; when the broker
answers and nothing moves for `give_up_after` seconds, the process ends so that its supervisor restarts it: a consumer
that slowly died does not come back by itself.  Seconds are those of the steady clock in which somebody looked.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from pipeline.contract.model import PipelineAlerts
from pipeline.errors import Stalled
from pipeline.rollup.delta import Place
from pipeline.rules.alerts import AlertChange, AlertState
from pipeline.rules.pipeline_alerts import Stall, Unmatched, growing, skewed, stalled, unmatched, watchdog
from pipeline.stream.admission import Growth
from pipeline.stream.clocks import CLOCKS_DIFFER, Skew, Stopwatch
from pipeline.stream.watermark import ANSWER_HOLDS, Watermarks

NO_ANSWER = "the broker does not answer"
NO_PROGRESS = "records wait, but none is taken in"
GROWN_FOR = 600.0
"""Seconds for which TelemetryCardinality is kept after the last sample beyond a limit."""
BUSY_FOR = 5.0
"""Seconds after which one piece of the ledger's work is no progress any more: silence is not looked for meanwhile."""

K = TypeVar("K", bound=Hashable)
Found = tuple[dict[str, AlertState | None], list[AlertChange]]
"""Identity → the state after, None when it is over; and what changed."""


@dataclass(frozen=True, slots=True)
class IntakeState:
    """What the intake has done and what it is at.

    `steps`: stretches of instants evaluated; `busy`: seconds that the ledger's thread has been at one thing, called
    `busy_with`; `held_up`: why dead letters are not taken, if they are not.
    """

    positions: Mapping[Place, int] = field(default_factory=dict)
    steps: int = 0
    busy: float = 0.0
    busy_with: str = ""
    held_up: str = ""


class Health:
    """Watches `topics`; `states` are the live alerts of the ledger at the start, `steady` the steady clock (s).

    `unmatched_after`: seconds of event time after which a clause that matches nothing is an alert.
    `stall` says what does not progress, since when and why; None while all is well.
    """

    def __init__(
        self,
        topics: Sequence[str],
        watermarks: Watermarks,
        states: Mapping[str, AlertState],
        *,
        stalled_after: float,
        give_up_after: float,
        steady: float,
        unmatched_after: float = 3600.0,
    ) -> None:
        self._watermarks = watermarks
        self._stalled_after, self._give_up_after = stalled_after, give_up_after
        self._watch = Stopwatch(steady)
        self._stood = dict.fromkeys(topics, 0.0)
        self._moved: dict[str, int] = dict.fromkeys(topics, -1)
        stalled = [s for s in states.values() if s.alertname == "PipelineStalled"]
        self._stalled = next((s for s in stalled if not s.by), None)
        self._of_topics = [s for s in stalled if s.by]  # as they were before 0.2: one for each topic
        self._skewed = {dict(s.by)["clock"]: s for s in states.values() if s.alertname == "ClockSkew"}
        self._grown = {
            dict(s.by)["topic"]: s for s in states.values() if s.alertname == "TelemetryCardinality"
        }
        self._unmatched_after = unmatched_after
        self._unmatched = {
            (s.contract, s.clause): s for s in states.values() if s.alertname == "ClauseUnmatched"
        }
        self._grew: dict[str, tuple[int, float]] = {}
        self.stall: Stall | None = None
        self.outage: tuple[float, float] | None = None
        """When the broker was away last for so long that it was told, and when it answered again (epoch seconds)."""

    @property
    def hangs(self) -> str:
        """Why nothing progresses that ought to, "" while all is well or only the broker is away."""
        return self.stall.why if self.stall and self.stall.why != NO_ANSWER else ""

    def begin(self, alerts: PipelineAlerts, now: float) -> Found:
        """The Watchdog's state and firing change; `now`: epoch seconds."""
        state = watchdog(alerts.watchdog, int(now))
        return {state.identity: state}, [AlertChange("firing", int(now), state)]

    def look(
        self, alerts: PipelineAlerts, work: IntakeState, steady: float, now: float, skews: Sequence[Skew] = ()
    ) -> Found:
        """What changed about PipelineStalled and ClockSkew; raises Stalled when the process should end.

        `steady` is the steady clock, `now` the wall clock (epoch seconds), which changes are dated by.
        """
        states, changes = self._look_at_clocks(alerts, skews, int(now))
        lag, passed = self._watermarks.lag(), self._watch.look(steady)
        answers = steady - self._watermarks.last_answer() <= ANSWER_HOLDS + 2.0
        busy = work.busy > BUSY_FOR
        why = _why(answers, busy, work)
        if answers and self.stall and self.stall.why == NO_ANSWER:
            # An answer is progress: should records still wait, that is another cause, with a time of its own.
            self.outage = float(self.stall.since), now
            self._stood = dict.fromkeys(self._stood, 0.0)
        for topic in self._stood:
            waiting = sum(n for (name, _), n in lag.items() if name == topic)
            moved = work.steps + sum(n for (name, _), n in work.positions.items() if name == topic)
            well = answers and (moved != self._moved[topic] or (waiting == 0 and not busy))
            self._stood[topic] = 0.0 if well else self._stood[topic] + passed
            self._moved[topic] = moved
        longest = max(self._stood.values(), default=0.0)
        self._note_stall(longest, why, now)
        if longest > self._give_up_after and (answers or work.busy > self._give_up_after):
            raise _give_up(longest, sum(lag.values()), why)
        self._stalled, change = stalled(
            self._stalled, alerts.pipeline_stalled, self.stall, self._stalled_after, int(now)
        )
        for told in (change, *self._end_of_topics(int(now))):
            if told is not None:
                changes.append(told)
                states[told.state.identity] = None if told.kind == "resolved" else told.state
        return states, changes

    def _note_stall(self, longest: float, why: str, now: float) -> None:
        """`since` stays as it was first said: an instant that moves by a second each time would be news each time."""
        if longest <= self._stalled_after:
            self.stall = None
            return
        since = self.stall.since if self.stall else int(now - longest)
        topics = (topic for topic, stood in self._stood.items() if stood > self._stalled_after)
        self.stall = Stall(since, why, tuple(topics))

    def _end_of_topics(self, now: int) -> Iterator[AlertChange]:
        while self._of_topics:
            yield AlertChange(
                "resolved", now, replace(self._of_topics.pop(), phase="resolved", resolved_at=now)
            )

    def end(self, alerts: PipelineAlerts, why: str, now: float) -> Found:
        """The process ends with an error: nothing progresses until it is started again."""
        self.stall = Stall(self.stall.since if self.stall else int(now), why, tuple(self._stood))
        self._stalled, change = stalled(
            self._stalled, alerts.pipeline_stalled, self.stall, self._stalled_after, int(now)
        )
        return ({change.state.identity: change.state}, [change]) if change else ({}, [])

    def look_at_growth(
        self, alerts: PipelineAlerts, growth: Mapping[str, Growth], steady: float, now: float
    ) -> Found:
        """What changed about TelemetryCardinality: a topic is within its limits when nothing was beyond for a while."""
        states: dict[str, AlertState | None] = {}
        changes: list[AlertChange] = []
        for topic in sorted({*growth, *self._grown}):
            found = growth.get(topic)
            samples = found.samples if found else 0
            seen, since = self._grew.get(topic, (-1, steady))
            self._grew[topic] = (samples, steady if samples != seen else since)
            beyond = samples if steady - self._grew[topic][1] < GROWN_FOR else 0
            if found is None and topic in self._grown and not beyond and steady - since < GROWN_FOR:
                continue  # it fired before a restart: it stays until it was quiet for a while
            words = found.words if found else ""
            after, change = growing(
                self._grown.get(topic), alerts.telemetry_cardinality, topic, beyond, words, int(now)
            )
            _note(self._grown, topic, after, change, states, changes)
        return states, changes

    def look_at_clauses(self, alerts: PipelineAlerts, found: Sequence[Unmatched] | None, now: float) -> Found:
        """What changed about ClauseUnmatched; None: nobody has looked yet, and all stays as it is."""
        states: dict[str, AlertState | None] = {}
        changes: list[AlertChange] = []
        if found is None:
            return states, changes
        wanted = {(one.contract, one.clause): one for one in found if one.seconds >= self._unmatched_after}
        for name in sorted({*wanted, *self._unmatched}):
            one, over = wanted.get(name, Unmatched(*name, why="")), name not in wanted
            after, change = unmatched(
                self._unmatched.get(name), alerts.clause_unmatched, one, self._unmatched_after, over, int(now)
            )
            _note(self._unmatched, name, after, change, states, changes)
        return states, changes

    def _look_at_clocks(self, alerts: PipelineAlerts, skews: Sequence[Skew], now: int) -> Found:
        states: dict[str, AlertState | None] = {}
        changes: list[AlertChange] = []
        found = {skew.clock: skew for skew in skews}
        for clock in sorted({*found, *self._skewed}):
            skew = found.get(clock, Skew(clock, 0.0, ""))
            after, change = skewed(
                self._skewed.get(clock),
                alerts.clock_skew,
                clock,
                skew.seconds,
                CLOCKS_DIFFER,
                skew.words,
                now,
            )
            _note(self._skewed, clock, after, change, states, changes)
        return states, changes


def _note(
    known: dict[K, AlertState],
    name: K,
    after: AlertState | None,
    change: AlertChange | None,
    states: dict[str, AlertState | None],
    changes: list[AlertChange],
) -> None:
    if change is not None:
        changes.append(change)
        states[change.state.identity] = after
    if after is None:
        known.pop(name, None)
    else:
        known[name] = after


def _why(answers: bool, busy: bool, work: IntakeState) -> str:
    if busy:
        return f"the ledger is busy with one statement ({work.busy_with})"
    if not answers:
        return NO_ANSWER
    return f"{NO_PROGRESS}: {work.held_up}" if work.held_up else NO_PROGRESS


def _give_up(seconds: float, waiting: int, why: str) -> Stalled:
    return Stalled(
        f"nothing was taken in or evaluated for {seconds:.0f} s, and {waiting:,} records wait: {why}; the process ends so "
        "that its supervisor restarts it. Nothing is lost; if it recurs, mend what is named, or see the log for the batch "
        "that hangs"
    )
