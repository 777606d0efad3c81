"""PipelineStalled, ClockSkew, TelemetryCardinality, ClauseUnmatched and Watchdog: the alerts that go by the wall clock.

The pipeline raises them itself, when event time may be standing still; instants here are wall-clock epoch
seconds.  They have the same type as every other alert, so that the same delivery carries them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from pipeline.contract.model import PipelineAlert
from pipeline.rules.alerts import AlertChange, AlertState, step
from pipeline.rules.telemetry import OWN
from pipeline.rules.verdicts import State, Terms, Verdict

FIRES_WHEN: Mapping[str, str] = {
    "PipelineStalled": "for 30 s the broker does not answer, records wait and none is taken in, or the ledger hangs; or an "
    "error ends the process",
    "ClockSkew": "our clock and the broker's differ by more than a minute, or records or a watermark are ahead of them",
    "TelemetryCardinality": "a topic has more series or entities than it may (`max_series`, `max_entities`); what is beyond "
    "is quarantined",
    "ClauseUnmatched": "an hour of events (`unmatched_after`) has come, and a clause matches nothing that was ever seen; "
    "names the nearest values",
    "Watchdog": "always, so that its absence can be noticed",
}
"""Of each of these alerts, for the table of alerts."""
WALL_CLOCK = tuple(FIRES_WHEN)
"""Alerts whose states no reading moves."""


def _terms(alertname: str, clause: str, by: tuple[str, ...], bound: float, alert: PipelineAlert) -> Terms:
    route = tuple(sorted(alert.route.items()))
    return Terms(alertname, OWN, clause, by, bound, "s", None, alert.severity, route, 0, 0, 0)


def watchdog(alert: PipelineAlert, started: int) -> AlertState:
    """The alert that always fires, since the pipeline `started`.  Its silence is the alarm."""
    terms = _terms("Watchdog", "watchdog", (), 0.0, alert)
    state, _ = step(None, Verdict(terms, (), started, "breach", None), started)
    assert state is not None  # hold is 0: a breach fires at once
    text = alert.text or "Gigawatch is alive. If this alert stops, it is not: nothing is being watched."
    return _annotated(state, alert, {"summary": "Gigawatch is alive", "description": text})


@dataclass(frozen=True, slots=True)
class Stall:
    """Nothing of `topics` progresses, `since` then (epoch seconds): `why` says what is seen ("the broker does not
    answer")."""

    since: int
    why: str
    topics: tuple[str, ...]

    def __str__(self) -> str:
        """In one line, the same wherever it is told."""
        since = datetime.fromtimestamp(self.since, UTC)
        return f"the pipeline has been stalled since {since:%Y-%m-%d %H:%M:%S} UTC: {self.why}"


def stalled(
    state: AlertState | None, alert: PipelineAlert, stall: Stall | None, limit: float, now: int
) -> tuple[AlertState | None, AlertChange | None]:
    """Moves PipelineStalled: a breach while there is a `stall`, which takes more than `limit` seconds.

    One alert, whatever the number of topics: one broker that is away is one page.  It is told again when the cause
    changes.
    """
    terms = _terms("PipelineStalled", "pipeline_stalled", (), float(limit), alert)
    verdict_state: State = "breach" if stall else "ok"
    seconds = float(now - stall.since) if stall else 0.0
    after, change = step(state, Verdict(terms, (), now, verdict_state, seconds), now)
    if change is None and after and stall and after.annotations.get("why") != stall.why:
        change = AlertChange("updated", now, after, after.labels)
    if change is None:
        return after, None
    told = _annotated(change.state, alert, _stalled_words(stall) if stall else _PROGRESSES)
    return (told if after is not None else None), change._replace(state=told)


def skewed(
    state: AlertState | None,
    alert: PipelineAlert,
    clock: str,
    seconds: float,
    limit: float,
    words: str,
    now: int,
) -> tuple[AlertState | None, AlertChange | None]:
    """Moves ClockSkew of one `clock`: a breach when it is wrong by more than `limit` seconds, either way.

    `words` say which clock, by how much, and what follows.
    """
    terms = _terms("ClockSkew", "clock_skew", ("clock",), float(limit), alert)
    verdict_state: State = "breach" if abs(seconds) > limit else "ok"
    after, change = step(state, Verdict(terms, (clock,), now, verdict_state, float(seconds)), now)
    if change is None:
        return after, None
    over = change.kind == "resolved"
    summary = "The clocks agree again" if over else words[:1].upper() + words[1:].partition(";")[0]
    description = "The clocks agree again." if over else f"{words[:1].upper()}{words[1:]}. {_CLOCKS_REMEDY}"
    told = _annotated(change.state, alert, {"summary": summary, "description": description})
    return (told if after is not None else None), change._replace(state=told)


def growing(
    state: AlertState | None, alert: PipelineAlert, topic: str, samples: int, words: str, now: int
) -> tuple[AlertState | None, AlertChange | None]:
    """Moves TelemetryCardinality of one `topic`: a breach while `samples` of series or entities beyond its limit come.

    `words` say which dimension grows, and name a few of its values.
    """
    terms = _terms("TelemetryCardinality", "telemetry_cardinality", ("topic",), 0.0, alert)._replace(
        unit="samples"
    )
    verdict_state: State = "breach" if samples else "ok"
    after, change = step(state, Verdict(terms, (topic,), now, verdict_state, float(samples)), now)
    if change is None:
        return after, None
    over = f"{topic} is within its limits again"
    told = {"summary": words, "description": f"{words}. {_GROWTH_REMEDY}"}
    told = {"summary": over, "description": f"{over}."} if change.kind == "resolved" else told
    annotated = _annotated(change.state, alert, told)
    return (annotated if after is not None else None), change._replace(state=annotated)


@dataclass(frozen=True, slots=True)
class Unmatched:
    """A clause that for `seconds` of event time has matched nothing that was ever seen; `why` names what was.

    `billed`: it reads bills alone, which come by the month.
    """

    contract: str
    clause: str
    why: str
    seconds: int = 0
    billed: bool = False

    def __str__(self) -> str:
        """In one line, the same wherever it is told."""
        return f"clause {self.clause} of {self.contract} matches nothing that was ever seen: {self.why}"


def unmatched(
    state: AlertState | None, alert: PipelineAlert, one: Unmatched, limit: float, over: bool, now: int
) -> tuple[AlertState | None, AlertChange | None]:
    """Moves ClauseUnmatched of one clause: a breach until it is `over`.  Its labels are those of the clause."""
    route = tuple(sorted(alert.route.items()))
    terms = Terms(
        "ClauseUnmatched", one.contract, one.clause, (), limit, "s", None, alert.severity, route, 0, 0, 0
    )
    verdict_state: State = "ok" if over else "breach"
    after, change = step(state, Verdict(terms, (), now, verdict_state, float(one.seconds)), now)
    if change is None:
        return after, None
    line = f"C{str(one)[1:]}"
    told = {"summary": line, "description": f"{line}. {_MATCH_REMEDY}"}
    if change.kind == "resolved":
        words = f"Clause {one.clause} of {one.contract} matches something now, or is no longer in force"
        told = {"summary": words, "description": f"{words}."}
    annotated = _annotated(change.state, alert, told)
    return (annotated if after is not None else None), change._replace(state=annotated)


_MATCH_REMEDY = (
    "Nobody watches what it promises. Mend its `match` in the contract, or the labels at the source; if what it is about is "
    "still to come, silence this alert until then."
)
_GROWTH_REMEDY = (
    "What is beyond is in the view quarantine, and counted; those that were there before go on. Take what is of one job, "
    "pod or moment out of the dimension at its source, or raise the setting if the fleet is that large."
)
_CLOCKS_REMEDY = (
    "Let NTP set the clock (chrony, systemd-timesyncd). Until then no watermark passes the earlier of the broker's clock "
    "and ours; when the clocks agree, it goes on by itself, and nothing has to be deleted."
)


_PROGRESSES = {"summary": "The pipeline progresses again", "description": "The pipeline progresses again."}


def _stalled_words(stall: Stall) -> dict[str, str]:
    line = f"T{str(stall)[1:]}"
    return {
        "summary": line,
        "description": f"{line}. Nothing of {', '.join(stall.topics)} is taken in or evaluated. Until it goes on, no clause "
        "that reads it is watched; alerts that fire stay as they are.",
        "why": stall.why,
    }


def _annotated(state: AlertState, alert: PipelineAlert, words: dict[str, str]) -> AlertState:
    extra = {"runbook": alert.runbook or "", "contact": alert.contact or "", "text": alert.text}
    return replace(state, annotations={**words, **{k: v for k, v in extra.items() if v}})
