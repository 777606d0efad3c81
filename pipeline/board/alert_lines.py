"""Alerts as lines that a phone has room for: many of one clause as one, silenced ones apart, and those that are over."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from pipeline.board.cards import SEVERITIES, Card
from pipeline.board.published_rows import Row, labels_of
from pipeline.board.text import instant, short
from pipeline.notify.links import anchor_of
from pipeline.serve.terminal import duration

LINES = 12
"""So many open alerts have a line each; of more, those of one clause share one."""
TOGETHER = 3
"""So many alerts of a clause at least share a line."""


@dataclass(frozen=True, slots=True)
class Group:
    """Cards of one severity, state and clause; `folded`: they share a line, which names the `worst`, `since` when the
    first of them is open."""

    id: str
    cards: tuple[Card, ...]
    folded: bool
    worst: Card
    since: str


@dataclass(frozen=True, slots=True)
class Over:
    """An alert that was resolved; `times`: how often within the day, `lasted` and the instants are of the last time."""

    id: str
    severity: str
    alertname: str
    contract: str
    clause: str
    about: str
    fired_at: str
    resolved_at: str
    lasted: str
    times: int


def grouped(cards: Sequence[Card]) -> Iterator[Group]:
    """The cards in their order; when they are many, those of a clause stand where the first of them does."""
    found: dict[tuple[str, ...], list[Card]] = {}
    for card in cards:
        clause = (card.severity, card.state, card.alertname, card.contract, card.clause)
        found.setdefault(clause if len(cards) > LINES else (card.id,), []).append(card)
    for key, same in found.items():
        if len(same) < TOGETHER:
            yield from (_group(key, [card], folded=False) for card in same)
        else:
            yield _group(key, same, folded=True)


def _group(key: Sequence[str], cards: Sequence[Card], folded: bool) -> Group:
    return Group(
        id=f"group-{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:12]}",
        cards=tuple(cards),
        folded=folded,
        worst=max(cards, key=lambda card: card.excess),
        since=min(card.fired_at or card.active_at for card in cards),
    )


def over_of(rows: Sequence[Row], still_open: set[str]) -> Iterator[Over]:
    """Those that are over, but for what fires again."""
    for row in rows:
        if (anchor := anchor_of(row["alertname"], labels_of(row["labels"]))) not in still_open:
            yield _over(anchor, row)


def _over(anchor: str, row: Row) -> Over:
    began: datetime = row["fired_at"]
    return Over(
        id=anchor,
        severity=row["severity"] if row["severity"] in SEVERITIES else short(row["severity"], 20),
        alertname=short(row["alertname"]),
        contract=short(row["contract"]),
        clause=short(row["clause"]),
        about=short(row["about"]),
        fired_at=instant(began),
        resolved_at=instant(row["resolved_at"]),
        lasted=duration((row["resolved_at"] - began).total_seconds()),
        times=row["times"],
    )
