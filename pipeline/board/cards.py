"""An open alert as a card: everything that somebody woken at three needs to see, and nothing that could hurt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from pipeline.board.card_links import Elsewhere, Part, grafana_link, parts_of, silence_link
from pipeline.board.charts import Chart, readings_chart
from pipeline.board.published_rows import CHARTS, Clauses, Published, Row, by_clause, keys_of, labels_of
from pipeline.board.silences import Muted, Routing
from pipeline.board.text import PROSE, amount, beyond, instant, lines, link, short
from pipeline.notify.links import anchor_of

SEVERITIES = ("critical", "warning", "ticket", "info")
BESIDE = (
    ("Not delivered", "missing"),
    ("Worst hit", "worst"),
    ("Meters", "meters"),
    ("Blinds", "blinds"),
    ("Window opens", "opens"),
)
"""What a card says beside the numbers, and the column that has it."""


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
    """What is read now, where it is known, else what was when it fired; `at_firing` is that where it is another."""
    at_firing: str
    bound: str
    beyond: str
    excess: float
    """How far it is beyond its bound, as a share of the bound: what is compared to find the worst of a clause."""
    active_at: str
    fired_at: str
    window: str
    window_ends: str
    at_risk: str
    beside: tuple[tuple[str, str], ...]
    """What else is known of it, by what it is: who is missing, where, what the meters show, what it blinds, …"""
    runbook: str
    runbook_link: str
    contact: tuple[Part, ...]
    silence_link: str
    grafana_link: str
    sql: str
    rows_sql: str
    chart: Chart | None
    muted: Muted | None
    unheard: bool
    """Alertmanager answers, and does not know of it."""


def cards_of(
    alerts: Sequence[Row], published: Published, routing: Routing, elsewhere: Elsewhere
) -> Iterator[Card]:
    """The cards of the alerts, in their order; the first ones with a chart."""
    ends = {(row["contract"], row["window"]): row["ends"] for row in reversed(published.windows)}
    clauses = by_clause(published.standing)
    for number, row in enumerate(alerts):
        chart = _chart(row, clauses, published) if number < CHARTS else None
        yield _card(row, chart, routing, ends.get((row["contract"], row["window"])), elsewhere)


def _card(
    row: Row, chart: Chart | None, routing: Routing, window_ends: datetime | None, elsewhere: Elsewhere
) -> Card:
    labels = labels_of(row["labels"])
    muted = routing.of(labels, row["alertname"])
    asked = bool(routing.address) and not routing.error
    observed = row["observed"] if row["now"] is None else row["now"]
    at_firing = amount(row["observed"], row["unit"])
    return Card(
        id=anchor_of(row["alertname"], labels),
        severity=row["severity"] if row["severity"] in SEVERITIES else short(row["severity"], 20),
        state=row["state"],
        stale=bool(row["stale"]),
        alertname=short(row["alertname"]),
        contract=short(row["contract"]),
        clause=short(row["clause"]),
        about=short(row["about"]),
        summary=short(row["summary"], PROSE),
        text=short(row["text"], PROSE),
        observed=amount(observed, row["unit"]),
        at_firing=at_firing if at_firing != amount(observed, row["unit"]) else "",
        bound=amount(row["bound"], row["unit"]),
        beyond=beyond(observed, row["bound"], row["unit"]),
        excess=_excess(observed, row["bound"]),
        active_at=instant(row["active_at"]),
        fired_at=instant(row["fired_at"]),
        window=short(row["window"]),
        window_ends=instant(window_ends),
        at_risk=short(row["at_risk"], PROSE),
        beside=tuple((what, short(row[name], PROSE)) for what, name in BESIDE if row[name]),
        runbook=short(row["runbook"], PROSE),
        runbook_link=link(row["runbook"]),
        contact=tuple(parts_of(short(row["contact"], PROSE))),
        silence_link=silence_link(elsewhere, labels, row["alertname"]),
        grafana_link=grafana_link(
            elsewhere, row["contract"], row["clause"], labels.get("region"), row["active_at"], row["sql"]
        ),
        sql=lines(row["sql"]),
        rows_sql=lines(row["rows_sql"]),
        chart=chart,
        muted=muted if muted and muted.mute else None,
        unheard=asked and muted is None and row["state"] == "firing",
    )


def _excess(observed: float | None, bound: float | None) -> float:
    return 0.0 if observed is None or bound is None else abs(observed - bound) / (abs(bound) or 1.0)


def _chart(row: Row, clauses: Clauses, published: Published) -> Chart | None:
    for key in keys_of(row, clauses):
        if points := (published.series or {}).get(key):
            return readings_chart(points, short(row["unit"], 20), published.unknown_for)
    return None
