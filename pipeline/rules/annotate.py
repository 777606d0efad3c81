"""What an alert says to a tired person: the clause in words, the numbers, how far to trust them, what to do.

Annotations are text by name.  `summary` is one line of at most 120 characters; `sql` reproduces the number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple, TypeVar

from pipeline.catalog import Catalog
from pipeline.contract.model import Clause, PipelineAlert
from pipeline.readings import FleetPower, Instant, MeterMean, ReadingSpec, match_of
from pipeline.readings.undelivered import Missing
from pipeline.rules.alerts import AlertChange, AlertState
from pipeline.rules.missing import megawatts_of, notes_of, sentences_of
from pipeline.rules.power import WATTS_PER_MEGAWATT, PowerCeilingExceeded
from pipeline.rules.spend import Forecast, TrancheOverrunForecast
from pipeline.rules.telemetry import TelemetrySilent
from pipeline.rules.verdicts import Rule, Verdict

PowerSpec = TypeVar("PowerSpec", MeterMean, FleetPower)

SUMMARY_LIMIT = 120
#: Shares of a topic's events below which its quality is not worth a word.
WORTH_SAYING = 0.001


#: Details that say by themselves why a number is not to be trusted.
DOUBTS = ("silent", "lost", "never_seen", "basis", "mute", "left_out", "gpus_without_power")


class Trust(NamedTuple):
    """How much of a topic's recent events was duplicate or quarantined, as shares of all."""

    duplicate_share: float = 0.0
    quarantined_share: float = 0.0


#: What the numbers say, in a few words.
WORDS: Mapping[str, str] = {
    "CapacityShortfall": "{observed} {unit} delivered, at least {bound} promised",
    "CapacityCeilingExceeded": "{observed} {unit} delivered, at most {bound} allowed",
    "WindowNotReady": "{observed} {unit} delivered, {bound} promised when {window} {opens}",
    "PowerCeilingExceeded": "{observed} {unit} drawn, at most {bound} allowed",
    "QueueWaitBreach": "{observed} {unit} waited, at most {bound} allowed",
    "QueueBacklog": "{observed} {unit} pending, at most {bound} allowed",
    "TrancheExhausted": "{observed} {unit} charged, the ceiling is {bound}",
    "TrancheOverrunForecast": "{observed} {unit} forecast, the ceiling is {bound}",
    "TelemetrySilent": "{observed} {unit} without a sample, at most {bound} expected",
    "LossImbalance": "{observed} {unit} came in and are unaccounted for",
}


def utc(t: int) -> str:
    """The instant `t` as RFC 3339."""
    return f"{datetime.fromtimestamp(t, UTC):%Y-%m-%dT%H:%M:%SZ}"


def short(t: float) -> str:
    """The instant `t` in few words, for a line."""
    return f"{datetime.fromtimestamp(t, UTC):%-d %b %H:%M} UTC"


def number(value: float | Decimal | None) -> str:
    """A number for people: grouped thousands, no more digits than matter."""
    if value is None:
        return "unknown"
    if isinstance(value, Decimal) or abs(value) >= 1000:
        return f"{value:,.2f}".rstrip("0").rstrip(".")
    return f"{value:.4g}"


def annotate(
    change: AlertChange,
    verdict: Verdict,
    rule: Rule,
    catalog: Catalog,
    trust: Mapping[str, Trust],
    missing: Missing | None = None,
    slow: Mapping[str, int] | None = None,
) -> dict[str, str]:
    """The annotations of a change; those without anything to say are left out.

    `missing`: who is, where it was asked.  `slow`: topic → seconds between two reports of its slowest source, where any
    declares more than the schema says.
    """
    state = change.state
    source = _source(rule)
    details = verdict.details or {}
    told = notes_of(missing, verdict.t) if missing else {}
    is_open = state.phase in ("pending", "firing")
    notes = {
        "summary": _summary(change, details),
        "description": " ".join([*_sentences(change, verdict, details), *sentences_of(told)]),
        "text": source.text if source else "",
        "observed": number(state.observed),
        "bound": number(state.bound),
        "unit": state.unit,
        "since": utc(state.active_at),
        "window": state.window or "",
        "opens": utc(details["window_starts"]) if "window_starts" in details else "",
        "crosses": details.get("crosses", ""),
        "at_risk": at_risk(rule, state.observed if is_open else None, state.bound, state.unit, missing),
        **told,
        "samples": str(state.samples),
        "blinds": ", ".join(details.get("blinds", ())),
        "trust": " ".join(_doubts(state, verdict, details, rule, trust)),
        "runbook": (source.runbook or "") if source else "",
        "contact": (source.contact or "") if source else "",
        "sql": _sql(verdict, rule, catalog, slow or {}),
        "rows_sql": _rows_sql(verdict, rule, catalog, slow or {}) if missing else "",
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


def _source(rule: Rule) -> Clause | PipelineAlert | None:
    found = getattr(rule, "clause_of_contract", None) or getattr(rule, "alert", None)
    return found if isinstance(found, (Clause, PipelineAlert)) else None


def _where(state: AlertState) -> str:
    values = ", ".join(value for _, value in state.by if value)
    return values or "everything the clause covers"


def _words(state: AlertState, details: Mapping[str, Any]) -> str:
    words = WORDS.get(state.alertname, "{observed} {unit} observed, the bound is {bound}")
    if state.alertname == TelemetrySilent.alertname and details.get("mute"):
        lacking = " and ".join(sorted({mute["measure"] for mute in details["mute"]}))
        words = f"reports, but for {{observed}} {{unit}} without {lacking}"
    if state.observed is None:
        words = "no reading, the bound is {bound} {unit}"
    elif details.get("crosses"):
        words += f", passed on {details['crosses']}"
    more = "at least " if details.get("at_least") else ""
    return words.format(
        observed=more + number(state.observed),
        unit=state.unit,
        bound=number(state.bound),
        window=state.window,
        opens=_opens(details),
    )


def _opens(details: Mapping[str, Any]) -> str:
    """When the window opens, or opened."""
    starts = details.get("window_starts")
    if starts is None:
        return "opens"
    return f"{'opened' if details.get('opened') else 'opens'} on {short(starts)}"


def _summary(change: AlertChange, details: Mapping[str, Any]) -> str:
    """One line within the limit; what is cut is the end, and it shows."""
    state = change.state
    verb = {"resolved": "Resolved: ", "inactive": "Over: ", "stale": "Unverified: "}.get(change.kind, "")
    if details.get("over"):
        verb = "Over: "
    line = " ".join(f"{verb}{state.clause}: {_words(state, details)} ({_where(state)})".split())
    return line if len(line) <= SUMMARY_LIMIT else line[: SUMMARY_LIMIT - 1] + "…"


def _sentences(change: AlertChange, verdict: Verdict, details: Mapping[str, Any]) -> Iterator[str]:
    state = change.state
    inside = f" inside {state.window}" if state.window else ""
    if change.kind == "stale":
        yield "It still fires, but its readings can no longer vouch for it."
    yield f"{_where(state)}: {_words(state, details)}{inside}; out of bounds since {utc(state.active_at)}."
    if "window_starts" in details:
        starts = "opened at" if details.get("opened") else "starts at"
        yield f"{state.window} {starts} {utc(details['window_starts'])}."
    if "course" in details:
        yield _course(details, state.unit)
    if details.get("crosses"):
        yield f"The ceiling is passed on {details['crosses']} ({details['zone']})."
    if details.get("frozen"):
        yield f"Frozen: {number(details['frozen'])} {state.unit} that report, but whose counters stand still."
    if details.get("moved"):
        yield f"{number(details['moved'])} {state.unit} have moved: they now report from {details['moved_to']}."
    if details.get("blinds"):
        yield f"Blinded by this: {', '.join(details['blinds'])}."
    if details.get("over"):
        yield "Nothing is promised any more: it is over, whether it was kept or not."
    elif verdict.state != "breach" and details.get("absent"):
        yield "No reading speaks of it any more."


def _course(details: Mapping[str, Any], unit: str) -> str:
    course: Forecast = details["course"]
    return (
        f"{number(details['spent'])} {unit} charged so far; usage of {number(course.daily_usage)} {unit} a day "
        f"over {course.complete_days} complete days, projected to {course.total_days}."
    )


def _doubts(
    state: AlertState, verdict: Verdict, details: Mapping[str, Any], rule: Rule, trust: Mapping[str, Trust]
) -> Iterator[str]:
    if details.get("silent"):
        yield f"{number(details['silent'])} {state.unit} are silent: last known, not seen now."
    if details.get("lost"):
        yield f"{number(details['lost'])} {state.unit} have been silent for so long that they count as lost."
    yield from _mute(details)
    if details.get("gpus_without_power"):
        yield (
            f"{details['gpus_without_power']} GPUs report without power_watts: they are taken at the mean of the others, "
            "and without them the rest is a lower bound."
        )
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
    if not verdict.trusted and not any(details.get(doubt) for doubt in DOUBTS):
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
    """Money by the clause's own formula, and GPUs, megawatts or money beyond the bound; not seconds or jobs.

    GPUs are told in megawatts too where it is known what one draws.
    """
    parts, source = [], _source(rule)
    if isinstance(source, Clause) and source.money_at_risk:
        risk = source.money_at_risk
        parts.append(f"{number(risk.per_hour)} {risk.currency} an hour")
    if observed is not None and unit not in ("s", "jobs", "events"):
        beyond = abs(observed - bound)
        parts += [f"{number(beyond)} {unit}", megawatts_of(beyond, missing)]
    return "; ".join(filter(None, parts))


def _sql(verdict: Verdict, rule: Rule, catalog: Catalog, slow: Mapping[str, int]) -> str:
    group = {d: value for d, value in zip(verdict.terms.by, verdict.by, strict=True) if d != "topic"}
    details = verdict.details or {}
    if isinstance(rule, PowerCeilingExceeded):
        return _power_sql(rule, verdict.t, group, details, catalog, slow)
    if isinstance(rule, TrancheOverrunForecast) and "course" in details:
        course: Forecast = details["course"]
        days = (course.horizon, course.complete_days, course.total_days)
        return rule.spec.forecast_sql(group, verdict.t, *days)
    if isinstance(rule, TelemetrySilent):
        lacking = {mute["measure"] for mute in details.get("mute", ())}
        return _one(rule.spec.lacking(lacking), verdict.t, group, catalog)
    basis, frozen = str(details.get("basis", "")), bool(details.get("frozen"))
    return _one(rule.specs[0], verdict.t, group, catalog, basis, frozen, slow)


def _rows_sql(verdict: Verdict, rule: Rule, catalog: Catalog, slow: Mapping[str, int]) -> str:
    """What lists who is missing, where the rule counts who is there."""
    spec = rule.specs[0]
    group = dict(zip(verdict.terms.by, verdict.by, strict=True))
    return spec.rows_sql(catalog.by_topic(spec.topic), group, Instant(verdict.t, slow.get(spec.topic, 0)))


def _one(
    spec: ReadingSpec,
    t: int,
    group: Mapping[str, str],
    catalog: Catalog,
    basis: str = "",
    frozen: bool = True,
    slow: Mapping[str, int] | None = None,
) -> str:
    at = Instant(t, (slow or {}).get(spec.topic, 0), basis, frozen)
    return spec.reproduce(catalog.by_topic(spec.topic), group, at)


def _power_sql(
    rule: PowerCeilingExceeded,
    t: int,
    group: Mapping[str, str],
    details: Mapping[str, Any],
    catalog: Catalog,
    slow: Mapping[str, int],
) -> str:
    """Megawatts: what the meters say, and fleet power times its factor where none does."""
    metered, derived = details.get("metered", ()), details.get("derived", ())
    both = bool(metered and derived)
    parts = []
    if metered or not derived:
        meter = _narrowed(rule.meter, metered) if both else rule.meter
        parts.append(f"({_one(meter, t, group, catalog, slow=slow)})")
    if derived:
        fleet = _narrowed(rule.fleet, derived) if both else rule.fleet
        parts.append(
            f"({_one(fleet, t, group, catalog, slow=slow)}) * {rule.clause_of_contract.it_watts(1.0)!r}"
        )
    return f"SELECT ({' + '.join(parts)}) / {WATTS_PER_MEGAWATT:.0f} AS value"


def _narrowed(spec: PowerSpec, sites: Sequence[tuple[str, ...]]) -> PowerSpec:
    """The same question about some of the sites only."""
    names = {name: tuple(sorted({site[i] for site in sites})) for i, name in enumerate(spec.by)}
    return replace(spec, match=match_of({**dict(spec.match), **names}))
