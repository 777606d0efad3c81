"""How each contract stands, whatever its clauses are: a line for each clause and what it is split by, worst first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.board.published_rows import Published, Row, clause_of, labels_of
from pipeline.board.text import amount, instant, short

Mood = Literal["firing", "pending", "unknown", "ok"]
MOODS: tuple[Mood, ...] = ("firing", "pending", "unknown", "ok")


@dataclass(frozen=True, slots=True)
class ClauseStanding:
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
class ContractStanding:
    """A contract and its promises, worst first; `parties` in a line, `term_end` as RFC 3339."""

    id: str
    version: str
    parties: str
    term_end: str
    amiss: tuple[ClauseStanding, ...]
    kept: tuple[ClauseStanding, ...]


def contracts_of(published: Published, alerts: Sequence[Row]) -> Iterator[ContractStanding]:
    """Those of the files, and what else stands there, such as the telemetry itself."""
    loud = _by_clause(alerts)
    lines: dict[str, list[ClauseStanding]] = {row["contract"]: [] for row in published.contracts}
    for row in published.standing:
        lines.setdefault(row["contract"], []).append(_standing(row, _mood(row, loud)))
    named = {row["contract"]: row for row in published.contracts}
    for name, rows in lines.items():
        rows.sort(key=lambda line: MOODS.index(line.mood))
        yield _contract(name, named.get(name), rows)


def _contract(name: str, row: Row | None, rows: Sequence[ClauseStanding]) -> ContractStanding:
    return ContractStanding(
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
        found.setdefault(clause_of(row), []).append((set(labels_of(row["labels"]).items()), row["state"]))
    return found


def _mood(row: Row, loud: Loud) -> Mood:
    """An open alert of it counts before its own state: that may be good again while the alert is kept firing."""
    values = {pair for pair in labels_of(row["by_values"]).items() if pair[1]}
    open_ones = loud.get(clause_of(row), ())
    states = {state for labels, state in open_ones if values <= labels}
    if states:
        return "firing" if "firing" in states else "pending"
    calm: Mapping[str, Mood] = {"breach": "pending", "ok": "ok"}
    return calm.get(row["state"], "unknown")


def _standing(row: Row, mood: Mood) -> ClauseStanding:
    values = [short(value, 60) for value in labels_of(row["by_values"]).values() if value]
    return ClauseStanding(
        mood=mood,
        clause=short(row["clause"]),
        alertname=short(row["alertname"]),
        about=" / ".join(values) or "all that it covers",
        observed=amount(row["observed"], row["unit"]),
        bound=amount(row["bound"], row["unit"])
        + (f", passed on {row['crosses']}" if row.get("crosses") else ""),
        since=instant(row["since"]),
        window=short(row["window"]),
    )
