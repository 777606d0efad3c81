"""What an alert says to a tired person: the clause in words, the numbers, how far to trust them, what to do.

Annotations are text by name.  `summary` is one line of at most 120 characters; `sql` reproduces the number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple

from pipeline.catalog import Catalog
from pipeline.contract.model import Clause, PipelineAlert
from pipeline.rules.alerts import AlertChange, AlertState
from pipeline.rules.power import WATTS_PER_MEGAWATT, PowerCeilingExceeded
from pipeline.rules.readings import ReadingSpec
from pipeline.rules.reproduce import sql_of
from pipeline.rules.verdicts import Rule, Verdict

SUMMARY_LIMIT = 120
#: Shares of a topic's events below which its quality is not worth a word.
WORTH_SAYING = 0.001


class Trust(NamedTuple):
    """How much of a topic's recent events was duplicate or quarantined, as shares of all."""

    duplicate_share: float = 0.0
    quarantined_share: float = 0.0


#: What the observed number is, for the sentence; `{at}` and the like come from the labels.
SUBJECT: Mapping[str, tuple[str, str]] = {
    "CapacityShortfall": ("delivered", "of at least"),
    "CapacityCeilingExceeded": ("delivered", "of at most"),
    "WindowNotReady": ("delivered", "promised when the window opens:"),
    "PowerCeilingExceeded": ("drawn", "of at most"),
    "QueueWaitBreach": ("waited", "of at most"),
    "QueueBacklog": ("pending", "of at most"),
    "TrancheExhausted": ("charged", "of a ceiling of"),
    "TrancheOverrunForecast": ("forecast", "of a ceiling of"),
    "TelemetrySilent": ("without a sample", "of at most"),
    "LossImbalance": ("unaccounted for", "of"),
}


def utc(t: int) -> str:
    """The instant `t` as RFC 3339."""
    return f"{datetime.fromtimestamp(t, UTC):%Y-%m-%dT%H:%M:%SZ}"


def number(value: float | Decimal | None) -> str:
    """A number for people: grouped thousands, no more digits than matter."""
    if value is None:
        return "unknown"
    if isinstance(value, Decimal) or abs(value) >= 1000:
        return f"{value:,.2f}".rstrip("0").rstrip(".")
    return f"{value:.4g}"


def annotate(
    change: AlertChange, verdict: Verdict, rule: Rule, catalog: Catalog, trust: Mapping[str, Trust]
) -> dict[str, str]:
    """The annotations of a change; those without anything to say are left out."""
    state = change.state
    source = _source(rule)
    details = verdict.details or {}
    notes = {
        "summary": _summary(change),
        "description": " ".join(_sentences(change, verdict, details)),
        "text": source.text if source else "",
        "observed": number(state.observed),
        "bound": number(state.bound),
        "unit": state.unit,
        "since": utc(state.active_at),
        "window": state.window or "",
        "at_risk": _at_risk(state, source),
        "samples": str(state.samples),
        "trust": " ".join(_doubts(state, verdict, details, rule, trust)),
        "runbook": (source.runbook or "") if source else "",
        "contact": (source.contact or "") if source else "",
        "sql": _sql(verdict, rule, catalog),
    }
    return {name: text for name, text in notes.items() if text}


def _source(rule: Rule) -> Clause | PipelineAlert | None:
    found = getattr(rule, "clause_of_contract", None) or getattr(rule, "alert", None)
    return found if isinstance(found, (Clause, PipelineAlert)) else None


def _where(state: AlertState) -> str:
    values = ", ".join(value for _, value in state.by if value)
    return values or "everything the clause covers"


def _summary(change: AlertChange) -> str:
    state = change.state
    subject, relation = SUBJECT.get(state.alertname, ("observed", "against"))
    verb = {"resolved": "Resolved: ", "inactive": "Over: ", "stale": "Unverified: "}.get(change.kind, "")
    numbers = f"{number(state.observed)} {state.unit} {subject}, {relation} {number(state.bound)}"
    return _clip(f"{verb}{state.clause}: {numbers}", f" ({_where(state)})")


def _clip(head: str, tail: str) -> str:
    """One line within the limit; what is cut is the tail, and it shows."""
    line = " ".join((head + tail).split())
    return line if len(line) <= SUMMARY_LIMIT else line[: SUMMARY_LIMIT - 1] + "…"


def _sentences(change: AlertChange, verdict: Verdict, details: Mapping[str, Any]) -> Iterator[str]:
    state = change.state
    subject, relation = SUBJECT.get(state.alertname, ("observed", "against"))
    inside = f" inside {state.window}" if state.window else ""
    if change.kind == "stale":
        yield "It still fires, but its readings can no longer vouch for it."
    yield (
        f"{number(state.observed)} {state.unit} {subject} for {_where(state)}, {relation} {number(state.bound)}"
        f"{inside}; out of bounds since {utc(state.active_at)}."
    )
    if "window_starts" in details:
        yield f"{state.window} starts at {utc(details['window_starts'])}."
    if "complete_days" in details:
        yield (
            f"{number(details['spent'])} {state.unit} charged so far; {number(details['daily_usage'])} "
            f"{state.unit} a day over {details['complete_days']} complete days."
        )
    if details.get("blinds"):
        yield f"Blinded by this: {', '.join(details['blinds'])}."
    if verdict.state != "breach" and details.get("absent"):
        yield "No reading speaks of it any more."


def _doubts(
    state: AlertState, verdict: Verdict, details: Mapping[str, Any], rule: Rule, trust: Mapping[str, Trust]
) -> Iterator[str]:
    if details.get("silent"):
        yield f"{number(details['silent'])} {state.unit} are silent: last known, not seen now."
    if details.get("lost"):
        yield f"{number(details['lost'])} {state.unit} have been silent for so long that they count as lost."
    if details.get("never_seen"):
        yield "No telemetry of it has ever been seen."
    if details.get("basis") and details["basis"] != "metered":
        yield f"Basis: {details['basis']}."
    if state.stale:
        yield "The last reading is unknown."
    for topic in rule.topics:
        yield from _quality(topic, trust.get(topic))
    if not verdict.trusted and not details:
        yield "Part of the telemetry is silent."


def _quality(topic: str, trust: Trust | None) -> Iterator[str]:
    if trust and trust.duplicate_share >= WORTH_SAYING:
        yield f"{trust.duplicate_share:.1%} of {topic} were duplicates."
    if trust and trust.quarantined_share >= WORTH_SAYING:
        yield f"{trust.quarantined_share:.1%} of {topic} were quarantined as not credible."


def _at_risk(state: AlertState, source: Clause | PipelineAlert | None) -> str:
    """Money by the clause's own formula, else the distance from the bound in its unit."""
    parts = []
    if isinstance(source, Clause) and source.money_at_risk:
        risk = source.money_at_risk
        parts.append(f"{number(risk.per_hour)} {risk.currency} an hour")
    if state.observed is not None and state.unit and state.phase in ("pending", "firing"):
        parts.append(f"{number(abs(state.observed - state.bound))} {state.unit}")
    return "; ".join(parts)


def _sql(verdict: Verdict, rule: Rule, catalog: Catalog) -> str:
    group = dict(zip(verdict.terms.by, verdict.by, strict=True))
    details = verdict.details or {}
    if isinstance(rule, PowerCeilingExceeded):
        return _power_sql(rule, verdict, group, str(details.get("basis", "")), catalog)
    if not rule.specs:
        return ""
    fallback = str(details.get("basis", "")).startswith("oldest wait")
    return _one(rule.specs[0], verdict.t, group, catalog, fallback)


def _one(
    spec: ReadingSpec, t: int, group: Mapping[str, str], catalog: Catalog, fallback: bool = False
) -> str:
    by = tuple(d for d in group if d != "topic")
    return sql_of(spec, by, group, t, catalog, fallback)


def _power_sql(
    rule: PowerCeilingExceeded, verdict: Verdict, group: Mapping[str, str], basis: str, catalog: Catalog
) -> str:
    """Megawatts from the meters, or from the GPUs; where both count, one statement for each."""
    factor = rule.clause_of_contract.it_watts(1.0)
    metered = f"SELECT value / {WATTS_PER_MEGAWATT:.0f} AS megawatts FROM ({{}})"
    derived = f"SELECT value * {factor!r} / {WATTS_PER_MEGAWATT:.0f} AS megawatts FROM ({{}})"
    statements = []
    if "metered" in basis:
        statements.append(metered.format(_one(rule.meter, verdict.t, group, catalog)))
    if "derived" in basis:
        statements.append(derived.format(_one(rule.fleet, verdict.t, group, catalog)))
    return ";\n".join(statements)
