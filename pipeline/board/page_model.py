"""From rows to what the page says, pure: alerts (`cards`), contracts (`contract_standing`), tranches, windows, topics.

Nothing here knows a kind of clause: a new one appears by its own name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Any

from pipeline.board.alert_lines import Group, Over, grouped, over_of
from pipeline.board.card_links import NOWHERE, Elsewhere
from pipeline.board.cards import Card, cards_of
from pipeline.board.charts import Chart, spend_chart
from pipeline.board.contract_standing import ContractStanding, contracts_of
from pipeline.board.problems import Life, Problem, problems
from pipeline.board.published_rows import ALERTS, Published, Row, labels_of
from pipeline.board.silences import Routing
from pipeline.board.text import PROSE, amount, instant, short
from pipeline.notify.links import ALWAYS, anchor_of

FATES = ("aggregated", "duplicate", "quarantined", "dead_lettered")


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
    crosses: str
    used: str
    passed: str
    starts: str
    ends: str
    chart: Chart | None


@dataclass(frozen=True, slots=True)
class NextWindow:
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
class Body:
    """What follows from the published files and Alertmanager's answer: it changes every ten seconds at most.

    `alerts` are those that somebody may have to act on, `muted` those for which Alertmanager calls nobody: they are not
    counted as `firing` or `critical`.  `unshown` are those of both that the page has no room for.
    """

    alerts: tuple[Card, ...]
    groups: tuple[Group, ...]
    muted: tuple[Card, ...]
    over: tuple[Over, ...]
    unshown: int
    over_unshown: int
    firing: int
    critical: int
    contracts: tuple[ContractStanding, ...]
    tranches: tuple[Tranche, ...]
    windows: tuple[NextWindow, ...]
    published_at: str
    evaluated_to: str
    watchdog: bool
    alertmanager: str


@dataclass(frozen=True, slots=True)
class Page:
    """Everything that the page says."""

    data: str
    body: Body
    problems: tuple[Problem, ...]
    topics: tuple[Topic, ...]
    written_at: str
    evaluated_to: str
    rate: str
    delays: tuple[tuple[str, str], ...]


def body_of(published: Published, routing: Routing, now: float, elsewhere: Elsewhere = NOWHERE) -> Body:
    """The greater part of the page at `now`, epoch seconds of the wall clock; cards link to what is `elsewhere`."""
    alerts = [row for row in published.alerts if row["alertname"] != ALWAYS]
    loud, muted = _told_apart(alerts, routing)
    cards = tuple(cards_of(loud[:ALERTS], published, routing, elsewhere))
    anchors = {anchor_of(row["alertname"], labels_of(row["labels"])) for row in alerts}
    over = tuple(over_of([row for row in published.over if row["alertname"] != ALWAYS], anchors))
    return Body(
        alerts=cards,
        groups=tuple(grouped(cards)),
        muted=tuple(cards_of(muted[:ALERTS], published, routing, elsewhere)),
        over=over[:ALERTS],
        unshown=max(0, len(loud) - ALERTS) + max(0, len(muted) - ALERTS),
        over_unshown=max(0, len(over) - ALERTS),
        firing=sum(row["state"] == "firing" for row in loud),
        critical=sum(row["state"] == "firing" and row["severity"] == "critical" for row in loud),
        contracts=tuple(contracts_of(published, alerts)),
        tranches=tuple(_tranches(published.spend, now)),
        windows=tuple(_window(row, now) for row in published.windows),
        published_at=instant(published.published_at),
        evaluated_to=instant(published.evaluated_to),
        watchdog=len(alerts) < len(published.alerts),
        alertmanager=routing.address,
    )


def _told_apart(alerts: Sequence[Row], routing: Routing) -> tuple[list[Row], list[Row]]:
    """Those that may call somebody, and those that Alertmanager keeps quiet."""
    loud: list[Row] = []
    muted: list[Row] = []
    for row in alerts:
        known = routing.of(labels_of(row["labels"]), row["alertname"])
        (muted if known and known.mute else loud).append(row)
    return loud, muted


def page_of(data: str, life: Life, body: Body, routing: Routing, now: float) -> Page:
    """The page at `now`, epoch seconds of the wall clock."""
    status = life.status or {}
    return Page(
        data=short(data),
        body=body,
        problems=problems(life, routing, now),
        topics=tuple(_topics(status)),
        written_at=_second(status.get("written_at")),
        evaluated_to=body.evaluated_to,
        rate=f"{status['rate_events_per_s']:,.0f}" if status else "",
        delays=tuple(_delays(status)) if status else (),
    )


def _second(at: str | None) -> str:
    """An RFC 3339 instant in UTC to the second; empty where there is none."""
    return f"{short(at)[:19]}Z" if at else ""


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
        crosses=f"{last['crosses']:%Y-%m-%d}" if last["crosses"] else "",
        used=f"{share:.0%}" if share is not None else "",
        passed=f"{passed:.0%}",
        starts=instant(last["starts"]),
        ends=instant(last["ends"]),
        chart=spend_chart(
            spent, last["starts"], last["ends"], _number(limit), _number(last["forecast"]), short(unit)
        ),
    )  # fmt: skip


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _remaining(limit: Any, spent: Any, unit: str) -> str:
    if limit is None:
        return "No limit"
    return f"{amount(limit - spent, unit)} left" if spent <= limit else f"{amount(spent - limit, unit)} over"


def _window(row: Row, now: float) -> NextWindow:
    return NextWindow(
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
        aside = {f"{reason} (set aside)": n for reason, n in counts.get("aside_reasons", {}).items()}
        worst = sorted((counts.get("reasons", {}) | aside).items(), key=lambda each: -each[1])[:5]
        yield Topic(
            name=short(name),
            counts=tuple(f"{counts.get(fate, 0):,}" for fate in ("in", *FATES)),
            reasons=", ".join(f"{short(reason, 60)} {n:,}" for reason, n in worst),
            lag=f"{sum(lag.get(name, {}).values()):,}",
            evaluated_to=_second(status.get("watermarks", {}).get(name)),
        )


def _delays(status: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for title, key in (("Freshness", "freshness_s"), ("Decision delay", "decision_delay_s")):
        found = status[key]
        yield title, f"{amount(found['p50'], 's')} / {amount(found['p99'], 's')}"
