"""What an alert says to a tired person: the clause in words, the numbers, how far to trust them, what to do.

Annotations are text by name.  `summary` is one line of at most 120 characters; `sql` reproduces the number.  What only
one alert says is said by its rule.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pipeline.contract.model import Clause
from pipeline.readings.undelivered import Missing
from pipeline.rules.alerts import AlertChange, AlertState
from pipeline.rules.evidence import Evidence
from pipeline.rules.missing import megawatts_of, notes_of, sentences_of
from pipeline.rules.rule import Rule
from pipeline.rules.verdicts import Verdict
from pipeline.rules.wording import number, utc

SUMMARY_LIMIT = 120
#: Shares of a topic's events below which its quality is not worth a word.
WORTH_SAYING = 0.001


#: Details that say by themselves why a number is not to be trusted.
DOUBTS = ("silent", "lost", "never_seen", "basis", "mute", "left_out")


class Trust(NamedTuple):
    """How much of a topic's recent events was duplicate or quarantined, as shares of all."""

    duplicate_share: float = 0.0
    quarantined_share: float = 0.0


def annotate(
    change: AlertChange,
    verdict: Verdict,
    rule: Rule,
    evidence: Evidence,
    trust: Mapping[str, Trust],
    missing: Missing | None = None,
) -> dict[str, str]:
    """The annotations of a change; those without anything to say are left out.  `missing`: who is, where it was asked."""
    state = change.state
    details = verdict.details or {}
    told = notes_of(missing, verdict.t) if missing else {}
    is_open = state.phase in ("pending", "firing")
    notes = {
        "summary": _summary(change, rule, details),
        "description": " ".join([*_sentences(change, verdict, rule, details), *sentences_of(told)]),
        "text": rule.source.text,
        "observed": number(state.observed),
        "bound": number(state.bound),
        "unit": state.unit,
        "since": utc(state.active_at),
        "window": state.window or "",
        **rule.notes(details),
        "at_risk": at_risk(rule, state.observed if is_open else None, state.bound, state.unit, missing),
        **told,
        "samples": str(state.samples),
        "trust": " ".join(_doubts(state, verdict, details, rule, trust)),
        "runbook": rule.source.runbook or "",
        "contact": rule.source.contact or "",
        "sql": rule.sql(verdict, evidence),
        "rows_sql": rule.rows_sql(verdict, evidence) if missing else "",
    }
    return {name: text for name, text in notes.items() if text}


def now_text(state: str | None, observed: float | None, unit: str, t: int) -> str:
    """How an alert that was told stands now; `state` is that of its last verdict, None where there is none any more."""
    if state is None:
        return "No reading speaks of it any more."
    if state == "unknown" or observed is None:
        known = "" if observed is None else f"; {number(observed)} {unit} are seen"
        return f"Not known at {utc(t)}{known}."
    return f"{number(observed)} {unit} at {utc(t)}{', within its bound' if state == 'ok' else ''}."


def _where(state: AlertState) -> str:
    values = ", ".join(value for _, value in state.by if value)
    return values or "everything the clause covers"


def _words(state: AlertState, rule: Rule, details: Mapping[str, Any]) -> str:
    words = rule.words(details) if state.observed is not None else "no reading, the bound is {bound} {unit}"
    return words.format(
        observed=number(state.observed), unit=state.unit, bound=number(state.bound), window=state.window
    )


def _summary(change: AlertChange, rule: Rule, details: Mapping[str, Any]) -> str:
    """One line within the limit; what is cut is the end, and it shows."""
    state = change.state
    verb = {"resolved": "Resolved: ", "inactive": "Over: ", "stale": "Unverified: "}.get(change.kind, "")
    if details.get("over"):
        verb = "Over: "
    line = " ".join(f"{verb}{state.clause}: {_words(state, rule, details)} ({_where(state)})".split())
    return line if len(line) <= SUMMARY_LIMIT else line[: SUMMARY_LIMIT - 1] + "…"


def _sentences(
    change: AlertChange, verdict: Verdict, rule: Rule, details: Mapping[str, Any]
) -> Iterator[str]:
    state = change.state
    inside = f" inside {state.window}" if state.window else ""
    if change.kind == "stale":
        yield "It still fires, but its readings can no longer vouch for it."
    words = _words(state, rule, details)
    yield f"{_where(state)}: {words}{inside}; out of bounds since {utc(state.active_at)}."
    yield from rule.sentences(state.unit, state.window, details)
    if details.get("over"):
        yield "Nothing is promised any more: it is over, whether it was kept or not."
    elif verdict.state != "breach" and details.get("absent"):
        yield "No reading speaks of it any more."


def _doubts(
    state: AlertState, verdict: Verdict, details: Mapping[str, Any], rule: Rule, trust: Mapping[str, Trust]
) -> Iterator[str]:
    if details.get("silent"):
        yield f"{number(details['silent'])} {state.unit} are silent: last known, not seen now."
    if details.get("lost"):
        yield f"{number(details['lost'])} {state.unit} have been silent for so long that they count as lost."
    yield from _mute(details)
    own = list(rule.doubts(state.unit, details))
    yield from own
    if details.get("at_most") is not None:
        yield f"It is {number(details['at_most'])} {state.unit} at most: exact values were not kept."
    if details.get("never_seen"):
        yield "No telemetry of it has ever been seen."
    if details.get("left_out"):
        yield f"Not counted: {details['left_out']}."
    if details.get("basis") and details["basis"] != "metered":
        yield f"Basis: {details['basis']}."
    if state.stale:
        yield "The last reading is unknown."
    for topic in rule.topics:
        yield from _quality(topic, trust.get(topic))
    if not verdict.trusted and not own and not any(details.get(doubt) for doubt in DOUBTS):
        yield "Part of the telemetry is silent."


def _mute(details: Mapping[str, Any]) -> Iterator[str]:
    """Which series report, but without what is read."""
    named = details.get("mute", ())
    for mute in named:
        yield f"{mute['series']} reports, but has not said {mute['measure']} since {utc(mute['since'])}."
    if more := details.get("mute_series", 0) - len({mute["series"] for mute in named}):
        yield f"So do {more} more." if more > 1 else "So does one more."


def _quality(topic: str, trust: Trust | None) -> Iterator[str]:
    if trust and trust.duplicate_share >= WORTH_SAYING:
        yield f"{trust.duplicate_share:.1%} of {topic} were duplicates."
    if trust and trust.quarantined_share >= WORTH_SAYING:
        yield f"{trust.quarantined_share:.1%} of {topic} were quarantined as not credible."


def at_risk(
    rule: Rule, observed: float | None, bound: float, unit: str, missing: Missing | None = None
) -> str:
    """Money by the clause's own formula, and what is beyond the bound, where the rule says that this is worth naming.

    GPUs are told in megawatts too where it is known what one draws.
    """
    parts = []
    if isinstance(rule.source, Clause) and (risk := rule.source.money_at_risk):
        parts.append(f"{number(risk.per_hour)} {risk.currency} an hour")
    if observed is not None and rule.tells_beyond:
        beyond = abs(observed - bound)
        parts += [f"{number(beyond)} {unit}", megawatts_of(beyond, missing)]
    return "; ".join(filter(None, parts))
