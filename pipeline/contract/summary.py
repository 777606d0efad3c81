"""A contract in a few lines: what `gigawatch contract check` prints when there is nothing to mend."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from zoneinfo import ZoneInfo

from pipeline.contract.model import (
    CapacityClause,
    Clause,
    Contract,
    PowerClause,
    ServiceLevelClause,
    TrancheClause,
)
from pipeline.contract.windows import Window


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
        yield f"    {clause.id:{width}}  {clause.kind.replace('_', ' '):13}  {_asks(clause, contract, t)}"
    for window in contract.windows.values():
        yield f"  window {_when(window, t)}"
    for notice in contract.notices:
        yield f"  note: {notice}"


def _asks(clause: Clause, contract: Contract, t: int) -> str:
    """The bounds that hold at `t`, in words."""
    if isinstance(clause, CapacityClause):
        return _capacity(clause, contract, t)
    if isinstance(clause, PowerClause):
        ceiling = clause.ceiling_at(t)
        return "no ceiling yet" if ceiling is None else f"at most {ceiling:,g} MW ({clause.at})"
    if isinstance(clause, ServiceLevelClause):
        bound = clause.bound_at(t, contract.windows)
        unit = "s" if clause.quantile else ""
        return f"{clause.indicator} at most {bound.value:,g}{unit}{_inside(bound.window)}"
    if isinstance(clause, TrancheClause):
        last = datetime.fromtimestamp(clause.to_t, ZoneInfo(contract.timezone))
        return f"at most {clause.ceiling:,f} {contract.currency} until {last:%Y-%m-%d}"
    return ""


def _capacity(clause: CapacityClause, contract: Contract, t: int) -> str:
    floor, ceiling = clause.floor_at(t, contract.windows), clause.ceiling_at(t, contract.windows)
    parts = []
    if floor:
        parts.append(f"at least {floor.value:,g} GPUs{_inside(floor.window)}")
    if ceiling:
        parts.append(f"at most {ceiling.value:,g} GPUs{_inside(ceiling.window)}")
    return f"{', '.join(parts) or 'nothing yet'} ({clause.counts})"


def _inside(window: str | None) -> str:
    return f" inside {window}" if window else ""


def _when(window: Window, t: int) -> str:
    zone = ZoneInfo(window.zone)

    def local(at: int) -> str:
        return f"{datetime.fromtimestamp(at, zone):%Y-%m-%d %H:%M %Z}"

    if now := window.interval_at(t):
        return f"{window.name}: open until {local(now[1])}"
    if coming := window.next_interval(t):
        return f"{window.name}: next {local(coming[0])} to {local(coming[1])}"
    return f"{window.name}: no occurrence left in the term"
