"""An open alert as a card: everything that somebody woken at three needs to see, and nothing that could hurt."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from pipeline.serve.board_charts import Chart, readings_chart
from pipeline.serve.board_rows import ALERTS, CHARTS, Clauses, Published, Row, by_clause, keys_of, labels_of
from pipeline.serve.board_silences import Muted, Routing
from pipeline.serve.board_words import PROSE, amount, beyond, instant, lines, link, short

SEVERITIES = ("critical", "warning", "ticket", "info")


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


def cards_of(alerts: Sequence[Row], published: Published, routing: Routing) -> Iterator[Card]:
    """The cards of the alerts that are shown, in their order; the first ones with a chart."""
    ends = {(row["contract"], row["window"]): row["ends"] for row in reversed(published.windows)}
    clauses = by_clause(published.standing)
    for number, row in enumerate(alerts[:ALERTS]):
        chart = _chart(row, clauses, published) if number < CHARTS else None
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


def identity(row: Row, labels: Mapping[str, str]) -> str:
    """A name for an alert that is fit for an anchor: of what it is about, without what changes inside a window."""
    told = {name: value for name, value in labels.items() if name != "severity"}
    whole = json.dumps([row["alertname"], row["contract"], row["clause"], sorted(told.items())])
    return f"alert-{hashlib.sha256(whole.encode()).hexdigest()[:12]}"


def _chart(row: Row, clauses: Clauses, published: Published) -> Chart | None:
    for key in keys_of(row, clauses):
        if points := (published.series or {}).get(key):
            return readings_chart(points, short(row["unit"], 20))
    return None
