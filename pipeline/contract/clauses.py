"""The clauses of a contract file, kind by kind: read, then asked whether they can mean what they say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from functools import partial
from typing import Any, Literal, TypeVar

from pipeline.contract import values
from pipeline.contract.build import (
    Scope,
    read_about,
    read_duration,
    read_money_at_risk,
    read_ramp,
    read_route,
    read_severity,
    read_span,
    read_window_name,
)
from pipeline.contract.cursor import Cursor
from pipeline.contract.faults import did_you_mean, one_of, shown
from pipeline.contract.model import (
    CATEGORIES,
    CapacityBounds,
    CapacityClause,
    Clause,
    PowerClause,
    Ramp,
    ServiceLevelClause,
    Severity,
    TrancheClause,
)

L = TypeVar("L", bound=str)


def read_clauses(scope: Scope, root: Cursor) -> tuple[Clause, ...]:
    """Every clause of the file, in the order of the sections below."""
    sections: tuple[tuple[Cursor, Callable[[Scope, Cursor], Clause | None]], ...] = (
        (root.at("capacity"), _capacity),
        (root.at("power"), _power),
        (root.at("service_levels"), _service_level),
        (root.at("spend").at("tranches"), _tranche),
    )
    found = [read(scope, item) for section, read in sections if section.present for item in section.each()]
    return tuple(clause for clause in found if clause)


def _common(scope: Scope, cursor: Cursor, dimensions: Sequence[str], severity: Severity) -> dict[str, Any]:
    """What every clause has, as keyword arguments."""
    by = cursor.at("by").texts() if cursor.at("by").present else ()
    for i, name in enumerate(by):
        _check_dimension(Cursor(scope.document, (*cursor.path, "by", i), name), name, dimensions)
    return {
        "id": _id(scope, cursor.at("id")),
        "match": _match(cursor.at("match"), dimensions),
        "by": by,
        "severity": read_severity(cursor.at("severity"), severity),
        "severity_in_window": _severity_in_window(scope, cursor.at("severity_in_window"), severity),
        "for_seconds": read_duration(cursor.at("for"), 0),
        "keep_firing_for_seconds": read_duration(cursor.at("keep_firing_for"), 0),
        "route": read_route(scope, cursor.at("route"), dimensions),
        "money_at_risk": read_money_at_risk(scope, cursor.at("money_at_risk")),
        **read_about(cursor),
    }


def _id(scope: Scope, cursor: Cursor) -> str:
    found = cursor.text() or ""
    if found in scope.ids:
        cursor.fault(repr(found), f"an id of its own (line {scope.ids[found]} has this one)")
    elif found:
        scope.ids[found] = scope.document.place(cursor.path)[0]
    return found


def _match(cursor: Cursor, dimensions: Sequence[str]) -> dict[str, tuple[str, ...]]:
    found = {}
    for name, item in cursor.entries() if cursor.present else ():
        _check_dimension(item, name, dimensions, key=True)
        found[name] = item.texts()
    return found


def _check_dimension(cursor: Cursor, name: str, dimensions: Sequence[str], key: bool = False) -> None:
    if name not in dimensions:
        hint = did_you_mean(name, dimensions)
        cursor.fault(f"the unknown dimension {name!r}", one_of(dimensions), hint, key=key)


def _severity_in_window(scope: Scope, cursor: Cursor, default: Severity) -> dict[str, Severity]:
    found = {}
    for name, item in cursor.entries() if cursor.present else ():
        read_window_name(scope, item, name)
        found[name] = read_severity(item, default)
    return found


def _choice(cursor: Cursor, default: L, choices: Mapping[str, L]) -> L:
    return choices.get(str(cursor.value), default)


_COUNTS: dict[str, Literal["observed", "healthy", "in_use"]] = {
    "observed": "observed", "healthy": "healthy", "in_use": "in_use"
}  # fmt: skip
_PLACES: dict[str, Literal["it", "facility"]] = {"it": "it", "facility": "facility"}
_INDICATORS: dict[str, Literal["queue_wait_p95", "queue_wait_p99", "pending_jobs"]] = {
    "queue_wait_p95": "queue_wait_p95", "queue_wait_p99": "queue_wait_p99", "pending_jobs": "pending_jobs"
}  # fmt: skip


def _capacity(scope: Scope, cursor: Cursor) -> CapacityClause:
    span, lead = cursor.at("span"), cursor.at("lead")
    clause = CapacityClause(
        **_common(scope, cursor, scope.dimensions.get("gpu", ()), "warning"),
        committed_gpus=read_ramp(scope, cursor.at("committed_gpus")),
        ceiling_gpus=read_ramp(scope, cursor.at("ceiling_gpus")),
        counts=_choice(cursor.at("counts"), "healthy", _COUNTS),
        in_window=_bounds_in_window(scope, cursor.at("in_window")),
        lead_seconds=read_duration(lead, 0) if lead.present else None,
        silence_is_loss_after_seconds=read_duration(cursor.at("silence_is_loss_after"), 300),
        span_seconds=read_span(span, 10) if span.present else None,
    )
    _check_capacity(cursor, clause)
    return clause


def _bounds_in_window(scope: Scope, cursor: Cursor) -> dict[str, CapacityBounds]:
    found = {}
    for name, item in cursor.entries() if cursor.present else ():
        read_window_name(scope, item, name)
        floor, ceiling = (
            read_ramp(scope, item.at("committed_gpus")),
            read_ramp(scope, item.at("ceiling_gpus")),
        )
        found[name] = CapacityBounds(floor, ceiling)
    return found


def _check_capacity(cursor: Cursor, clause: CapacityClause) -> None:
    fields = ("committed_gpus", "ceiling_gpus", "in_window")
    if isinstance(cursor.value, dict) and not any(cursor.at(name).present for name in fields):
        cursor.fault("a clause without a bound", f"at least {one_of(fields)}")
    _check_order(cursor, clause.committed_gpus, clause.ceiling_gpus)
    for name, bounds in clause.in_window.items():
        inside = cursor.at("in_window").at(name)
        _check_order(
            inside, bounds.committed_gpus or clause.committed_gpus, bounds.ceiling_gpus or clause.ceiling_gpus
        )
        _check_tighter(inside.at("committed_gpus"), bounds.committed_gpus, clause.committed_gpus, True)
        _check_tighter(inside.at("ceiling_gpus"), bounds.ceiling_gpus, clause.ceiling_gpus, False)
    promises = any(bounds.committed_gpus for bounds in clause.in_window.values())
    lead = cursor.at("lead")
    if lead.present and not promises and not _may_be_unreadable(cursor.at("in_window")):
        lead.fault("a lead without a promise", "in_window with committed_gpus for some window", key=True)


def _may_be_unreadable(cursor: Cursor) -> bool:
    """Whether what seems to be missing at `cursor` may only be unreadable: the file has faults already."""
    return cursor.present and bool(cursor.document.faults)


def _check_order(cursor: Cursor, floor: Ramp | None, ceiling: Ramp | None) -> None:
    """A floor above the ceiling can only be breached."""
    if not floor or not ceiling:
        return
    for t in sorted({t for t, _ in (*floor.steps, *ceiling.steps)}):
        low, high = floor.at(t), ceiling.at(t)
        if low is not None and high is not None and low > high:
            cursor.fault(f"committed_gpus {low:g} above ceiling_gpus {high:g}", "a floor below the ceiling")
            return


def _check_tighter(cursor: Cursor, inside: Ramp | None, outside: Ramp | None, is_floor: bool) -> None:
    """The tightest bound in force counts, so a window's bound that is never tighter would never count."""
    if not inside or not outside:
        return
    for t in sorted({t for t, _ in (*inside.steps, *outside.steps)}):
        here, there = inside.at(t), outside.at(t)
        if here is not None and (there is None or (here >= there if is_floor else here <= there)):
            return
    word = "below" if is_floor else "above"
    cursor.fault(
        shown(cursor.value), f"a bound not {word} the clause's own, for the tighter of the two holds"
    )


def _power(scope: Scope, cursor: Cursor) -> PowerClause:
    at = _choice(cursor.at("at"), "it", _PLACES)
    # Power is read from meters and from GPUs, so a clause can only speak of what both know.
    shared = [name for name in scope.dimensions.get("energy", ()) if name in scope.dimensions.get("gpu", ())]
    common = _common(scope, cursor, shared, "warning")
    ratio = cursor.at("overhead_ratio")
    over = read_span(cursor.at("over"), 900)
    return PowerClause(
        **common,
        ceiling_megawatts=read_ramp(scope, cursor.at("ceiling_megawatts")) or Ramp(((0, 0.0),)),
        at=at,
        over_seconds=over,
        span_seconds=over,
        overhead_ratio=(ratio.number() if ratio.present else None) or 0.0,
    )


def _service_level(scope: Scope, cursor: Cursor) -> ServiceLevelClause:
    indicator = _choice(cursor.at("indicator"), "pending_jobs", _INDICATORS)
    known = indicator == cursor.at("indicator").value
    bound = _bound(cursor.at("bound"), indicator if known else None)
    inside: dict[str, float] = {}
    windows = cursor.at("in_window")
    for name, item in windows.entries() if windows.present else ():
        read_window_name(scope, item, name)
        tighter = _bound(item, indicator if known else None)
        if tighter is not None and bound is not None and tighter > bound:
            item.fault(
                shown(item.value), "a bound not above the clause's own, for the tighter of the two holds"
            )
        inside[name] = tighter or 0.0
    over = read_span(cursor.at("over"), 300)
    return ServiceLevelClause(
        **_common(scope, cursor, scope.dimensions.get("queue", ()), "warning"),
        indicator=indicator,
        bound=bound or 0.0,
        in_window=inside,
        over_seconds=over,
        span_seconds=over,
    )


def _bound(cursor: Cursor, indicator: str | None) -> float | None:
    """Seconds for a wait, jobs for a backlog; None where it cannot be read."""
    if indicator is None or not cursor.present:
        return None
    if indicator == "pending_jobs":
        if isinstance(cursor.value, str):
            cursor.fault(shown(cursor.value), "a number of jobs, for the indicator is pending_jobs")
            return None
        return cursor.number()
    if isinstance(cursor.value, int | Decimal) and not isinstance(cursor.value, bool):
        hint = f"did you mean '{cursor.value}s'?"
        cursor.fault(shown(cursor.value), f"a duration, for the indicator is {indicator}", hint)
        return None
    found = cursor.parse(values.duration)
    if found is not None and found.exact == 0:
        cursor.fault(shown(cursor.value), "a wait above 0")
    return float(found.exact) if found else None


def _tranche(scope: Scope, cursor: Cursor) -> TrancheClause:
    begin, end = cursor.at("from"), cursor.at("to")
    from_t = begin.parse(partial(values.instant, local=scope.zone))
    to_t = end.parse(partial(values.instant, local=scope.zone))
    if from_t is not None and to_t is not None and from_t >= to_t:
        end.fault(shown(end.value), f"a date after 'from' ({begin.value})")
    if scope.term and from_t is not None and from_t < scope.term.start:
        begin.fault(shown(begin.value), "a date within the contract's term, which starts later")
    if scope.term and to_t is not None and to_t > scope.term.end:
        end.fault(shown(end.value), "a date within the contract's term, which ends earlier")
    ceiling, commit = _amount(cursor.at("ceiling")), _amount(cursor.at("commit"))
    if ceiling is not None and commit is not None and commit > ceiling:
        cursor.at("commit").fault(shown(cursor.at("commit").value), "a commit that is not above the ceiling")
    _check_tranche(scope, cursor)
    categories, commitment = cursor.at("categories"), cursor.at("commitment_id")
    return TrancheClause(
        **_common(scope, cursor, scope.dimensions.get("billing", ()), "ticket"),
        from_t=from_t or 0,
        to_t=to_t or 0,
        ceiling=ceiling or Decimal(0),
        commit=commit,
        categories=categories.texts() if categories.present else CATEGORIES,
        purchases="burn" if cursor.at("purchases").value == "burn" else "fund",
        cost_column=str(cursor.at("cost_column").value or "BilledCost"),
        commitment_id=commitment.text() if commitment.present else None,
        complete_after_seconds=read_duration(cursor.at("complete_after"), 48 * 3600),
    )


def _amount(cursor: Cursor) -> Decimal | None:
    return cursor.read(values.money, cursor.value) if cursor.present else None


def _check_tranche(scope: Scope, cursor: Cursor) -> None:
    category = cursor.at("match").at("ChargeCategory")
    if category.present:
        category.fault("ChargeCategory in match", "the field 'categories' for it", key=True)
    if cursor.at("commit").present:
        line, _ = scope.document.place(cursor.at("commit").path)
        scope.notices.append(
            f"{scope.document.file}:{line} {shown(cursor.at('id').value)} commit: kept for the record; "
            "nothing watches yet whether it is reached"
        )
