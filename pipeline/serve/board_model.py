"""From rows to what the page says, pure: cards of alerts, standing of contracts, tranches, windows, topics.

Nothing here knows a kind of clause: a new one appears by its own name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from pipeline.ledger import status as written
from pipeline.serve.board_charts import Chart, readings_chart, spend_chart
from pipeline.serve.board_problems import Life, Problem, problems
from pipeline.serve.board_rows import ALERTS, CHARTS, Published, Row, keys_of
from pipeline.serve.board_silences import Muted, Routing
from pipeline.serve.board_words import PROSE, amount, beyond, instant, lines, link, short

Mood = Literal["firing", "pending", "unknown", "ok"]
MOODS: tuple[Mood, ...] = ("firing", "pending", "unknown", "ok")
SEVERITIES = ("critical", "warning", "ticket", "info")
FATES = ("aggregated", "duplicate", "quarantined", "dead_lettered")
ALWAYS = "Watchdog"


@dataclass(frozen=True, slots=True)
class Card:
    """An open alert.  `id` stays the same while it is open, whatever its severity becomes; `window` with its end."""

    id: str
    severity: str
    state: str
    stale: bool
    alertname: str
    contract: str
    clause: str
    about: str
    summary: str
    text: str
    observed: str
    bound: str
    beyond: str
    active_at: str
    fired_at: str
    window: str
    window_ends: str
    at_risk: str
    runbook: str
    runbook_link: str
    contact: str
    sql: str
    chart: Chart | None
    muted: Muted | None
    unheard: bool
    """Alertmanager answers, and does not know of it."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How one promise stands for one value of what it is split by."""

    mood: Mood
    clause: str
    alertname: str
    about: str
    observed: str
    bound: str
    since: str
    window: str


@dataclass(frozen=True, slots=True)
class Contract:
    """A contract and its promises, worst first; `parties` in a line, `term_end` as RFC 3339."""

    id: str
    version: str
    parties: str
    term_end: str
    amiss: tuple[Standing, ...]
    kept: tuple[Standing, ...]


@dataclass(frozen=True, slots=True)
class Tranche:
    """The burn-down of a tranche; `used` is a share of the ceiling, or of the commit where there is none."""

    contract: str
    clause: str
    spent: str
    limit: str
    limit_name: str
    remaining: str
    forecast: str
    used: str
    passed: str
    starts: str
    ends: str
    chart: Chart | None


@dataclass(frozen=True, slots=True)
class Window:
    """A business-critical window that is open or comes next."""

    name: str
    contract: str
    text: str
    starts: str
    ends: str
    is_open: bool


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic's fates, lag and how far it is evaluated."""

    name: str
    counts: tuple[str, ...]
    reasons: str
    lag: str
    evaluated_to: str


@dataclass(frozen=True, slots=True)
class Page:
    """Everything that the page says."""

    data: str
    problems: tuple[Problem, ...]
    alerts: tuple[Card, ...]
    unshown: int
    firing: int
    critical: int
    contracts: tuple[Contract, ...]
    tranches: tuple[Tranche, ...]
    windows: tuple[Window, ...]
    topics: tuple[Topic, ...]
    written_at: str
    evaluated_to: str
    published_at: str
    rate: str
    delays: tuple[tuple[str, str], ...]
    watchdog: bool
    alertmanager: str


def page_of(data: str, life: Life, published: Published, routing: Routing, now: float) -> Page:
    """The page at `now`, epoch seconds of the wall clock."""
    alerts = [row for row in published.alerts if row["alertname"] != ALWAYS]
    status = life.status or {}
    mark = written.least_watermark(status) if status else None
    return Page(
        data=short(data),
        problems=problems(life, routing, now),
        alerts=tuple(_cards(alerts, published, routing)),
        unshown=max(0, len(alerts) - ALERTS),
        firing=sum(row["state"] == "firing" for row in alerts),
        critical=sum(row["state"] == "firing" and row["severity"] == "critical" for row in alerts),
        contracts=tuple(_contracts(published, alerts)),
        tranches=tuple(_tranches(published.spend, now)),
        windows=tuple(_window(row, now) for row in published.windows),
        topics=tuple(_topics(status)),
        written_at=short(status.get("written_at"))[:19] + "Z" if status else "",
        evaluated_to=instant(mark),
        published_at=instant(published.published_at),
        rate=f"{status['rate_events_per_s']:,.0f}" if status else "",
        delays=tuple(_delays(status)) if status else (),
        watchdog=len(alerts) < len(published.alerts),
        alertmanager=routing.address,
    )


def _cards(alerts: Sequence[Row], published: Published, routing: Routing) -> Iterator[Card]:
    ends = {(row["contract"], row["window"]): row["ends"] for row in reversed(published.windows)}
    for number, row in enumerate(alerts[:ALERTS]):
        chart = _chart(row, published) if number < CHARTS else None
        yield _card(row, chart, routing, ends.get((row["contract"], row["window"])))


def _card(row: Row, chart: Chart | None, routing: Routing, window_ends: datetime | None) -> Card:
    labels = labels_of(row["labels"])
    muted = routing.of(labels, row["alertname"])
    asked = bool(routing.address) and not routing.error
    return Card(
        id=identity(row, labels),
        severity=row["severity"] if row["severity"] in SEVERITIES else short(row["severity"], 20),
        state=row["state"],
        stale=bool(row["stale"]),
        alertname=short(row["alertname"]),
        contract=short(row["contract"]),
        clause=short(row["clause"]),
        about=short(row["about"]),
        summary=short(row["summary"], PROSE),
        text=short(row["text"], PROSE),
        observed=amount(row["observed"], row["unit"]),
        bound=amount(row["bound"], row["unit"]),
        beyond=beyond(row["observed"], row["bound"], row["unit"]),
        active_at=instant(row["active_at"]),
        fired_at=instant(row["fired_at"]),
        window=short(row["window"]),
        window_ends=instant(window_ends),
        at_risk=short(row["at_risk"], PROSE),
        runbook=short(row["runbook"], PROSE),
        runbook_link=link(row["runbook"]),
        contact=short(row["contact"], PROSE),
        sql=lines(row["sql"]),
        chart=chart,
        muted=muted if muted and (muted.silences or muted.inhibited) else None,
        unheard=asked and muted is None and row["state"] == "firing",
    )


def labels_of(text: str | None) -> dict[str, str]:
    """The labels of an alert, all as text."""
    return {str(name): str(value) for name, value in json.loads(text or "{}").items() if value is not None}


def identity(row: Row, labels: Mapping[str, str]) -> str:
    """A name for an alert that is fit for an anchor: of what it is about, without what changes inside a window."""
    told = {name: value for name, value in labels.items() if name != "severity"}
    whole = json.dumps([row["alertname"], row["contract"], row["clause"], sorted(told.items())])
    return f"alert-{hashlib.sha256(whole.encode()).hexdigest()[:12]}"


def _chart(row: Row, published: Published) -> Chart | None:
    for key in keys_of(row, published.standing):
        if points := (published.series or {}).get(key):
            return readings_chart(points, short(row["unit"], 20))
    return None


def _contracts(published: Published, alerts: Sequence[Row]) -> Iterator[Contract]:
    """Those of the files, and what else stands there, such as the telemetry itself."""
    loud = _by_clause(alerts)
    lines: dict[str, list[Standing]] = {row["contract"]: [] for row in published.contracts}
    for row in published.standing:
        lines.setdefault(row["contract"], []).append(_standing(row, _mood(row, loud)))
    named = {row["contract"]: row for row in published.contracts}
    for name, rows in lines.items():
        rows.sort(key=lambda line: MOODS.index(line.mood))
        yield _contract(name, named.get(name), rows)


def _contract(name: str, row: Row | None, rows: Sequence[Standing]) -> Contract:
    return Contract(
        id=short(name),
        version=short(row["version"]) if row else "",
        parties=f"{short(row['supplier'])} to {short(row['customer'])}" if row else "",
        term_end=instant(row["term_end"]) if row else "",
        amiss=tuple(line for line in rows if line.mood != "ok"),
        kept=tuple(line for line in rows if line.mood == "ok"),
    )


Loud = Mapping[tuple[str, str, str], Sequence[tuple[set[tuple[str, str]], str]]]
"""contract, clause, alertname → labels and state of each alert that is open."""


def _by_clause(alerts: Sequence[Row]) -> Loud:
    found: dict[tuple[str, str, str], list[tuple[set[tuple[str, str]], str]]] = {}
    for row in alerts:
        key = (row["contract"], row["clause"], row["alertname"])
        found.setdefault(key, []).append((set(labels_of(row["labels"]).items()), row["state"]))
    return found


def _mood(row: Row, loud: Loud) -> Mood:
    """An open alert of it counts before its own state: that may be good again while the alert is kept firing."""
    values = {pair for pair in labels_of(row["by_values"]).items() if pair[1]}
    open_ones = loud.get((row["contract"], row["clause"], row["alertname"]), ())
    states = {state for labels, state in open_ones if values <= labels}
    if states:
        return "firing" if "firing" in states else "pending"
    calm: Mapping[str, Mood] = {"breach": "pending", "ok": "ok"}
    return calm.get(row["state"], "unknown")


def _standing(row: Row, mood: Mood) -> Standing:
    values = [short(value, 60) for value in labels_of(row["by_values"]).values() if value]
    return Standing(
        mood=mood,
        clause=short(row["clause"]),
        alertname=short(row["alertname"]),
        about=" / ".join(values) or "all that it covers",
        observed=amount(row["observed"], row["unit"]),
        bound=amount(row["bound"], row["unit"]),
        since=instant(row["since"]),
        window=short(row["window"]),
    )


def _tranches(spend: Sequence[Row], now: float) -> Iterator[Tranche]:
    days: dict[tuple[str, str], list[Row]] = {}
    for row in spend:
        days.setdefault((row["contract"], row["clause"]), []).append(row)
    for rows in days.values():
        yield _tranche(rows, now)


def _tranche(rows: Sequence[Row], now: float) -> Tranche:
    last = rows[-1]
    unit, name = last["currency"], "ceiling" if last["ceiling"] is not None else "commit"
    limit = last[name]
    spent = [(row["day"], float(row["spent"])) for row in rows]
    share = float(last["spent"]) / float(limit) if limit else None
    passed = min(1.0, max(0.0, (now - last["starts"]) / ((last["ends"] - last["starts"]) or 1.0)))
    return Tranche(
        contract=short(last["contract"]),
        clause=short(last["clause"]),
        spent=amount(last["spent"], unit),
        limit=amount(limit, unit),
        limit_name=name,
        remaining=_remaining(limit, last["spent"], unit),
        forecast=amount(last["forecast"], unit),
        used=f"{share:.0%}" if share is not None else "",
        passed=f"{passed:.0%}",
        starts=instant(last["starts"]),
        ends=instant(last["ends"]),
        chart=spend_chart(
            spent, last["starts"], last["ends"], None if limit is None else float(limit), last["forecast"], short(unit)
        ),
    )  # fmt: skip


def _remaining(limit: Any, spent: Any, unit: str) -> str:
    if limit is None:
        return "No limit"
    return f"{amount(limit - spent, unit)} left" if spent <= limit else f"{amount(spent - limit, unit)} over"


def _window(row: Row, now: float) -> Window:
    return Window(
        name=short(row["window"]),
        contract=short(row["contract"]),
        text=short(row["text"], PROSE),
        starts=instant(row["starts"]),
        ends=instant(row["ends"]),
        is_open=row["starts"].replace(tzinfo=UTC).timestamp() <= now,
    )


def _topics(status: Mapping[str, Any]) -> Iterator[Topic]:
    by_topic, lag = status.get("by_topic", {}), status.get("lag", {})
    for name in sorted({*by_topic, *lag}):
        counts = by_topic.get(name, {})
        worst = sorted(counts.get("reasons", {}).items(), key=lambda each: -each[1])[:5]
        yield Topic(
            name=short(name),
            counts=tuple(f"{counts.get(fate, 0):,}" for fate in ("in", *FATES)),
            reasons=", ".join(f"{short(reason, 40)} {n:,}" for reason, n in worst),
            lag=f"{sum(lag.get(name, {}).values()):,}",
            evaluated_to=short(status.get("watermarks", {}).get(name))[:19] + "Z"
            if status.get("watermarks", {}).get(name)
            else "",
        )


def _delays(status: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for title, key in (("Freshness", "freshness_s"), ("Decision delay", "decision_delay_s")):
        found = status[key]
        yield title, f"{amount(found['p50'], 's')} / {amount(found['p99'], 's')}"
