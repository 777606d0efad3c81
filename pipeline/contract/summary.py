"""A contract in a few lines: what `gigawatch contract check` prints when there is nothing to mend."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from pipeline.contract.model import Clause, Contract
from pipeline.contract.windows import Interval, Window

OCCURRENCES = 3
"""Of each window so many are printed: the one that is open, and the next."""


def summary(contract: Contract, t: int) -> Iterator[str]:
    """Lines of text: parties, term, each clause with what it asks at `t` (epoch seconds), windows, notices."""
    parties = contract.parties
    yield f"{contract.path}: {contract.id} {contract.version}, {parties.customer} with {parties.supplier}"
    zone = ZoneInfo(contract.timezone)
    begin, end = (f"{datetime.fromtimestamp(at, zone):%Y-%m-%d}" for at in contract.term)
    state = "in force" if contract.in_force(t) else "not in force now"
    yield f"  term {begin} to {end}, {state}; {contract.currency}, {contract.timezone}"
    yield f"  {len(contract.clauses)} clause{'' if len(contract.clauses) == 1 else 's'}, as of now:"
    width = max((len(clause.id) for clause in contract.clauses), default=0)
    for clause in contract.clauses:
        yield f"    {clause.id:{width}}  {clause.kind.replace('_', ' '):13}  {clause.asks(contract, t)}"
    for window in contract.windows.values():
        yield from _window(window, contract, t)
    for notice in contract.notices:
        yield f"  note: {notice}"


def as_document(contract: Contract, t: int) -> dict[str, Any]:
    """The same for scripts; instants are RFC 3339 in the zone that they are meant in."""
    begin, end = (_instant(at, contract.timezone) for at in contract.term)
    return {
        "file": str(contract.path), "id": contract.id, "version": contract.version,
        "customer": contract.parties.customer, "supplier": contract.parties.supplier, "currency": contract.currency,
        "timezone": contract.timezone, "term": {"starts": begin, "ends": end}, "in_force": contract.in_force(t),
        "clauses": [{"id": c.id, "kind": c.kind, "asks": c.asks(contract, t)} for c in contract.clauses],
        "windows": [_window_document(window, contract, t) for window in contract.windows.values()],
        "notices": [str(notice) for notice in contract.notices],
    }  # fmt: skip


def _window_document(window: Window, contract: Contract, t: int) -> dict[str, Any]:
    coming = tuple(_occurrences(window, t))
    asked = ((clause.id, _asks_inside(clause, window.name, coming)) for clause in contract.clauses)
    return {
        "window": window.name,
        "zone": window.zone,
        "occurrences": [
            {"starts": _instant(start, window.zone), "ends": _instant(end, window.zone), "open": start <= t}
            for start, end in coming
        ],
        "asks": {name: words for name, words in asked if words},
    }


def _instant(at: int, zone: str) -> str:
    return datetime.fromtimestamp(at, ZoneInfo(zone)).isoformat()


def _window(window: Window, contract: Contract, t: int) -> Iterator[str]:
    """A window's next occurrences, in its own zone, and what each clause asks inside them."""
    yield f"  window {window.name}, {window.zone}:"
    coming = tuple(_occurrences(window, t))
    if not coming:
        yield "    no occurrence left in the term"
    for start, end in coming:
        yield f"    {'open' if start <= t else 'next'}  {_local(start, window.zone)} to {_local(end, window.zone)}"
    asked = [(clause.id, _asks_inside(clause, window.name, coming)) for clause in contract.clauses]
    width = max((len(name) for name, words in asked if words), default=0)
    for name, words in asked:
        if words:
            yield f"    {name:{width}}  {words}"


def _occurrences(window: Window, t: int) -> Iterator[Interval]:
    here = window.interval_at(t) or window.next_interval(t)
    for _ in range(OCCURRENCES):
        if here is None:
            return
        yield here
        here = window.next_interval(here[0])


def _asks_inside(clause: Clause, window: str, coming: Sequence[Interval]) -> str:
    """What the clause asks as each occurrence starts, said once while it stays the same, and its severity inside."""
    asked = [words for start, _ in coming if (words := clause.asks_inside(window, start))]
    changing = [words for i, words in enumerate(asked) if i == 0 or words != asked[i - 1]]
    severity = clause.severity_in_window.get(window)
    return ", ".join(part for part in (", then ".join(changing), severity) if part)


def _local(at: int, zone: str) -> str:
    return f"{datetime.fromtimestamp(at, ZoneInfo(zone)):%Y-%m-%d %H:%M %Z}"
