"""PipelineStalled, ClockSkew, TelemetryCardinality and Watchdog: the alerts that go by the wall clock.

The pipeline raises them itself, when event time may be standing still; instants here are wall-clock epoch
seconds.  They have the same type as every other alert, so that the same delivery carries them.
"""

from __future__ import annotations

from dataclasses import replace

from pipeline.contract.model import PipelineAlert
from pipeline.rules.alerts import AlertChange, AlertState, step
from pipeline.rules.telemetry import OWN
from pipeline.rules.verdicts import State, Terms, Verdict

#: Alerts whose states no reading moves.
WALL_CLOCK = ("PipelineStalled", "ClockSkew", "TelemetryCardinality", "Watchdog")


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


def stalled(
    state: AlertState | None,
    alert: PipelineAlert,
    topic: str,
    seconds: float,
    limit: float,
    reason: str,
    now: int,
) -> tuple[AlertState | None, AlertChange | None]:
    """Moves PipelineStalled of one `topic`: a breach when nothing progressed for more than `limit` seconds.

    `reason` says what is seen ("the broker does not answer"); it goes into the annotations.
    """
    terms = _terms("PipelineStalled", "pipeline_stalled", ("topic",), float(limit), alert)
    verdict_state: State = "breach" if seconds > limit else "ok"
    after, change = step(state, Verdict(terms, (topic,), now, verdict_state, float(seconds)), now)
    if change is None:
        return after, None
    told = _annotated(change.state, alert, _stalled_words(topic, seconds, reason, change.kind == "resolved"))
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


_GROWTH_REMEDY = (
    "What is beyond is in the view quarantine, and counted; those that were there before go on. Take what is of one job, "
    "pod or moment out of the dimension at its source, or raise the setting if the fleet is that large."
)
_CLOCKS_REMEDY = (
    "Let NTP set the clock (chrony, systemd-timesyncd). Until then no watermark passes the earlier of the broker's clock "
    "and ours; when the clocks agree, it goes on by itself, and nothing has to be deleted."
)


def _stalled_words(topic: str, seconds: float, reason: str, over: bool) -> dict[str, str]:
    if over:
        return {"summary": f"{topic} progresses again", "description": f"{topic} progresses again."}
    return {
        "summary": f"{topic} has not progressed for {seconds:.0f} s",
        "description": f"No event of {topic} has been taken in for {seconds:.0f} s: {reason}. "
        "Until it goes on, no clause that reads it is watched; alerts that fire stay as they are.",
    }


def _annotated(state: AlertState, alert: PipelineAlert, words: dict[str, str]) -> AlertState:
    extra = {"runbook": alert.runbook or "", "contact": alert.contact or "", "text": alert.text}
    return replace(state, annotations={**words, **{k: v for k, v in extra.items() if v}})
