"""The SQL that reproduces an alert's number, on the public views: what goes under the alert.

It reads raw rows (`gpu`, `queue`, `energy`, `billing`, `fates`), not roll-ups, so it is a second way to the
same number.  `known_from <= t` makes it see what was known at the instant.  Every value from data or contract is
a quoted literal; names come from schema files alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal

from pipeline.catalog import MONEY_DECIMALS, Catalog, EventType
from pipeline.rollup.aggregate import marked_sql
from pipeline.rules.charges_sql import amount_sql, counts_sql, literal
from pipeline.rules.readings import (
    GRID,
    LONGEST,
    By,
    EntityCount,
    FateBalance,
    FleetPower,
    LastSum,
    Match,
    MeterMean,
    ReadingSpec,
    SilentSeries,
    TrancheSpend,
    WaitQuantile,
    reports,
)

Group = Mapping[str, str]
#: A series is expected for this long after its last sample, in seconds.
EXPECTED = 86_400
MISSED = 3_600
"""An entity that is not delivered is listed if it was there in so many seconds before."""


def moment(t: int) -> str:
    """The instant `t` as a DuckDB TIMESTAMP literal (UTC)."""
    return f"TIMESTAMP '{datetime.fromtimestamp(t, UTC):%Y-%m-%d %H:%M:%S}'"


def name(column: str) -> str:
    """A quoted identifier."""
    return '"' + column.replace('"', '""') + '"'


def where(match: Match, group: Group) -> list[str]:
    """The conditions for a clause's `match` and one group of its `by`; '' stands for an absent dimension."""
    found = [f"{name(d)} IN ({', '.join(map(literal, values))})" for d, values in match if values]
    found += [f"{name(d)} = {literal(v)}" if v else f"{name(d)} IS NULL" for d, v in group.items()]
    return found


def sql_of(
    spec: ReadingSpec,
    by: By,
    group: Group,
    t: int,
    catalog: Catalog,
    fallback: bool = False,
    frozen: bool = True,
    slow: int = 0,
) -> str:
    """One SELECT whose only row and column is the reading of `spec` at `t` for `group` (dimension → value).

    `by` are the dimensions of `group` that the rows are chosen by.  `fallback`: a WaitQuantile that rests on
    the oldest wait.  `frozen`: whether any entity may be; the SQL is half as long where none is.
    `slow`: seconds between two reports of the slowest source, where any declares more than the schema says.
    Watts, seconds, GPUs, jobs or money, as the spec has it.
    """
    event_type = catalog.by_topic(spec.topic)
    event_type = event_type if frozen else replace(event_type, frozen=None)
    chosen = {d: group[d] for d in by if d in group}
    past = _Past(event_type, t, slow, reports(spec))
    if isinstance(spec, WaitQuantile):
        return (
            _oldest_wait(spec, past, chosen)
            if fallback
            else _quantile(spec, replace(past, reports=1), chosen)
        )
    if isinstance(spec, TrancheSpend):
        return _spend(spec, chosen, t)
    if isinstance(spec, SilentSeries):
        return _age(spec, event_type, chosen, t)
    if isinstance(spec, FateBalance):
        return _balance(spec, group, t)
    if isinstance(spec, EntityCount):
        return _count(spec, past, chosen)
    return _series_sum(spec, past, chosen)


@dataclass(frozen=True, slots=True)
class _Past:
    """How far back from `t` counts: for a source that declares a longer interval, `reports` of its own and a little more."""

    event_type: EventType
    t: int
    slow: int
    reports: int

    def since(self, seconds: int) -> str:
        """The condition for a row that counts in a span of `seconds`."""
        if not self.slow:
            return f'"time" >= {moment(self.t - seconds)}'
        own = f'least({self.reports} * "interval" + {self._grace}, {LONGEST})'
        slow = f'CASE WHEN "interval" > {self.event_type.interval} THEN greatest({seconds}, {own}) ELSE {seconds} END'
        return f'time_bucket(INTERVAL {GRID} SECOND, "time") >= {moment(self.t)} - to_seconds({slow})'

    def last(self) -> str:
        """What says of a series when it stopped: from `stop` on it is silent."""
        if not self.slow:
            return 'max("time")'
        own = f'time_bucket(INTERVAL {GRID} SECOND, "time") + to_seconds({GRID} + "interval")'
        return f'max(greatest("time" + INTERVAL {self.event_type.interval} SECOND, {own}))'

    def stop(self) -> str:
        """Series that were last heard before interval + lateness are silent: they deliver nothing."""
        return moment(self.t - self.event_type.lateness - (0 if self.slow else self.event_type.interval))

    def rows(self, seconds: int) -> int:
        """Seconds of rows that hold all that counts in a span of `seconds`, and that tells who is silent."""
        kind = self.event_type
        farther = min(self.reports * self.slow + self._grace, LONGEST) if self.slow else 0
        silent = max(kind.interval, self.slow + GRID if self.slow else 0) + kind.lateness
        return max(seconds, silent, farther)

    @property
    def _grace(self) -> int:
        return self.event_type.lateness + GRID


def _series_sum(spec: FleetPower | MeterMean | LastSum, past: _Past, group: Group) -> str:
    if isinstance(spec, FleetPower):
        return _fleet(spec, past, group)
    value = _last(spec.measure) if isinstance(spec, LastSum) else f"avg({name(spec.measure)})"
    return (
        f"SELECT coalesce(sum(value), 0) AS value FROM (\n"
        f"  SELECT {value} FILTER ({past.since(spec.span)}) AS value\n"
        f"  FROM {past.event_type.view}\n  WHERE {_within(spec.match, group, past.t, past.rows(spec.span))}\n"
        f"  GROUP BY {_series(past.event_type)}\n  HAVING {past.last()} >= {past.stop()})"
    )


def _fleet(spec: FleetPower, past: _Past, group: Group) -> str:
    """For each series that is not silent the mean of its entities' means, times its entities."""
    event_type = past.event_type
    names, entity = _series(event_type), _entity(event_type)
    same = _all(
        [f"fleet.{name(d.name)} IS NOT DISTINCT FROM home.{name(d.name)}" for d in event_type.dimensions]
    )
    within = _within(spec.match, group, past.t, past.rows(spec.span))
    return (
        f"SELECT coalesce(sum(mean * entities), 0) AS value FROM (\n  SELECT {names}, avg(mean) AS mean FROM (\n"
        f"    SELECT {names}, {entity}, {past.last()} AS last,\n"
        f"      avg({name(spec.measure)}) FILTER ({past.since(spec.span)}) AS mean\n"
        f"    FROM {event_type.view}\n    WHERE {within}\n    GROUP BY {names}, {entity})\n"
        f"  GROUP BY {names}\n  HAVING max(last) >= {past.stop()}) AS fleet\n"
        f"JOIN (SELECT {names}, count(*) AS entities FROM (\n{_at_home(past, spec.span)})\n"
        f"  GROUP BY ALL) AS home ON {same}"
    )


def _count(spec: EntityCount, past: _Past, group: Group) -> str:
    """Entities seen in the span, of series that are not silent; healthy means never marked unhealthy in it."""
    marks = {mark.name: mark for mark in past.event_type.marks}
    mark, keep = "true", "true"
    if spec.counts == "in_use":
        mark, keep = marked_sql(marks["in_use"]), "marked"
    elif spec.counts == "healthy" and "unhealthy" in marks:
        mark, keep = marked_sql(marks["unhealthy"]), "NOT marked"
    recent = f"FILTER ({past.since(spec.span)})"
    at_home = _at_home(past, spec.span, f", coalesce(bool_or({mark}) {recent}, false) AS marked")
    return f"SELECT count(*) AS value FROM (\n{at_home})\nWHERE {_all([keep, *where(spec.match, group)])}"


def missing_sql(spec: EntityCount, group: Group, t: int, catalog: Catalog, slow: int = 0) -> str:
    """One SELECT with a row for each entity of `group` that was there in the hour before `t` and is not delivered.

    Where it is, its labels (the node), when it was last seen, and why: failed, idle, gone or silent.
    """
    event_type = catalog.by_topic(spec.topic)
    past = _Past(event_type, t, slow, reports(spec))
    entity, series = _entity(event_type), _series(event_type)
    labels = "".join(
        f', arg_max({name(each.name)}, "time") AS {name(each.name)}' for each in event_type.labels
    )
    own = ", ".join([*(name(d) for d in event_type.within), entity])
    marks = {mark.name: mark for mark in event_type.marks}
    recent = f"FILTER ({past.since(spec.span)})"
    gone = f"NOT bool_or({past.since(spec.span)})" if slow else f'max("time") < {moment(t - spec.span)}'
    marked = ""
    if spec.counts == "healthy" and "unhealthy" in marks:
        marked = f"\n      WHEN bool_or({marked_sql(marks['unhealthy'])}) {recent} THEN 'failed'"
    elif spec.counts == "in_use":
        marked = (
            f"\n      WHEN NOT coalesce(bool_or({marked_sql(marks['in_use'])}) {recent}, false) THEN 'idle'"
        )
    return (
        f'SELECT * FROM (\n  SELECT {series}, {entity}{labels}, max("time") AS last_seen,\n'
        f"    CASE WHEN max({past.last()}) OVER (PARTITION BY {series}) < {past.stop()} THEN 'silent'\n"
        f"      WHEN {gone} THEN 'gone'{marked} END AS why\n"
        f"  FROM {event_type.view} WHERE {_within((), {}, t, past.rows(MISSED))}\n  GROUP BY {series}, {entity}\n"
        f'  QUALIFY row_number() OVER (PARTITION BY {own} ORDER BY max("time") DESC) = 1)\n'
        f"WHERE {_all(['why IS NOT NULL', *where(spec.match, group)])} ORDER BY ALL"
    )


def _at_home(past: _Past, span: int, more: str = "") -> str:
    """SELECT of each entity seen in the span, once: in the series that saw it last, unless that is silent.

    Of several that saw it within an interval of that, it is in one that is not silent, else always in the same.
    """
    event_type, t = past.event_type, past.t
    entity, series = _entity(event_type), _series(event_type)
    here = f"last >= {moment(t - span)}"
    if past.slow:
        more, here = f"{more}, bool_or({past.since(span)}) AS here", "here"
    tied = ", ".join(f"coalesce({name(d.name)}, '') DESC" for d in event_type.dimensions)
    window = "time_bucket(INTERVAL 10 SECOND, last)"
    one = ", ".join([*(name(d) for d in event_type.within), entity])
    return (
        f"  SELECT * FROM ({'SELECT * FROM (' if event_type.frozen else ''}\n    SELECT * FROM (\n"
        f'      SELECT {series}, {entity}{more}, max("time") AS last,\n'
        f"        max({past.last()}) OVER (PARTITION BY {series}) < {past.stop()} AS silent\n"
        f"      FROM {event_type.view} WHERE {_within((), {}, t, past.rows(span))}\n"
        f"      GROUP BY {series}, {entity})\n    WHERE {here}\n"
        f"    QUALIFY {window} > max({window}) OVER (PARTITION BY {one}) - INTERVAL {event_type.interval} SECOND)\n"
        f"  QUALIFY row_number() OVER (PARTITION BY {one} ORDER BY silent, {tied}) = 1 AND NOT silent"
        + _not_frozen(event_type, t)
    )


def _not_frozen(event_type: EventType, t: int) -> str:
    """What leaves out the entities whose counter and numbers stood still while others' moved, where there is one.

    They are compared in one interval of every five (or as the schema says), the last that was over by `t`.
    """
    rule, entity = event_type.frozen, _entity(event_type)
    if rule is None:
        return ""
    slot = (t - event_type.interval) // rule.every
    until, names = (
        slot * rule.every + event_type.interval,
        [*(name(d.name) for d in event_type.dimensions), entity],
    )
    pulse = f"row({', '.join(name(m.name) for m in event_type.numbers)})"
    inside = _all(
        [
            f'"time" >= {moment((slot - 3) * rule.every)}',
            f'"time" < {moment(until)}',
            f'epoch_us("time") % {rule.every * 1_000_000} < {event_type.interval * 1_000_000}',
            f"known_from <= {moment(until)}",
            f"{name(rule.counter)} > 0",
        ]
    )
    before, listed = f"FILTER (slot < {slot})", ", ".join(names)
    still = f"arg_max(one, slot) AND arg_max(one, slot) {before} AND arg_max(pulse, slot) = arg_max(pulse, slot) {before}"
    frozen = (
        f"SELECT * FROM (SELECT {listed}, {still} AS frozen FROM (\n"
        f'    SELECT {listed}, epoch("time")::BIGINT // {rule.every} AS slot, count(DISTINCT {pulse}) = 1 AS one, '
        f"min({pulse}) AS pulse\n    FROM {event_type.view} WHERE {inside} GROUP BY ALL)\n"
        f"  GROUP BY {listed} HAVING max(slot) = {slot} AND count(*) > 1) QUALIFY frozen AND NOT bool_and(frozen) OVER ()"
    )
    same = _all([f"home.{n} IS NOT DISTINCT FROM frozen.{n}" for n in names])
    return f") AS home\nANTI JOIN (\n  {frozen}) AS frozen ON {same}"


def _series(event_type: EventType) -> str:
    return ", ".join(name(d.name) for d in event_type.dimensions)


def _within(match: Match, group: Group, t: int, seconds: int) -> str:
    """WHERE for the rows known at `t` and no older than `seconds`."""
    return _all([f'"time" >= {moment(t - seconds)}', f"known_from <= {moment(t)}", *where(match, group)])


def _counted(match: Match, past: _Past, group: Group, seconds: int) -> str:
    """WHERE for the rows that count in a span of `seconds`."""
    within = _within(match, group, past.t, past.rows(seconds) if past.slow else seconds)
    return _all([within, past.since(seconds)]) if past.slow else within


def _entity(event_type: EventType) -> str:
    return name(event_type.entity.name) if event_type.entity else '"source"'


def _last(measure: str) -> str:
    return f'arg_max({name(measure)}, ("time", source, id, idx))'


def _quantile(spec: WaitQuantile, past: _Past, group: Group) -> str:
    """The value at rank ⌈q·n⌉."""
    millionths = round(spec.q * 1_000_000)
    return (
        f"SELECT list_sort(list(w))[({millionths} * count(*) + 999999) // 1000000] AS value FROM (\n"
        f"  SELECT unnest({name(spec.measure)}) AS w FROM {past.event_type.view}\n"
        f"  WHERE {_counted(spec.match, past, group, spec.span)})"
    )


def _oldest_wait(spec: WaitQuantile, past: _Past, group: Group) -> str:
    return (
        f"SELECT max(value) AS value FROM (\n  SELECT {_last(spec.fallback)} AS value\n"
        f"  FROM {past.event_type.view}\n  WHERE {_counted(spec.match, past, group, spec.lookback)}\n"
        f"  GROUP BY {_series(past.event_type)})"
    )


def _spend(spec: TrancheSpend, group: Group, t: int) -> str:
    return f"SELECT coalesce(sum({_converted(spec)}), 0) AS value FROM (\n{_charges(spec, group, t)})"


def forecast_sql(spec: TrancheSpend, group: Group, t: int, horizon: int, complete: int, total: int) -> str:
    """One SELECT of the forecast: usage of `complete` days before `horizon`, projected to `total`, and the rest.

    Usage is taken in millionths, so that the projection is one of integers; it is never below what is spent.
    """
    before = f'"ChargePeriodStart" < {moment(horizon)}'
    usage = f"""coalesce(sum(CASE WHEN {before} AND "ChargeCategory" = 'Usage' THEN value END), 0)"""
    other = f"""coalesce(sum(CASE WHEN {before} AND "ChargeCategory" <> 'Usage' THEN value END), 0)"""
    millionths = f"CAST(round({usage}, 6) * 1000000 AS HUGEINT) * {total} // {complete}"
    projected = f"CAST(CAST({millionths} AS DECIMAL(38, 0)) * 0.000001 AS {_exact(spec)})"
    return (
        f"SELECT greatest(coalesce(sum(value), 0), {projected} + {other}) AS value\n"
        f'FROM (SELECT "ChargeCategory", "ChargePeriodStart", {_converted(spec)} AS value FROM (\n'
        f"{_charges(spec, group, t)}))"
    )


def _charges(spec: TrancheSpend, group: Group, t: int) -> str:
    """SELECT of the tranche's charges that count at `t`, each with its `amount`."""
    inside = [
        f'"ChargePeriodStart" >= {moment(spec.from_t)}',
        f'"ChargePeriodStart" < {moment(spec.to_t)}',
        *counts_sql(spec),
        *where(spec.match, group),
    ]
    return (
        f"  SELECT *, {amount_sql(spec)} AS amount FROM (\n"
        f'    SELECT * FROM billing WHERE "time" <= {moment(t)} AND known_from <= {moment(t)}\n'
        f'    QUALIFY row_number() OVER (PARTITION BY source, id, idx ORDER BY "time" DESC) = 1)\n'
        f"  WHERE {_all(inside)}"
    )


def _converted(spec: TrancheSpend) -> str:
    """`amount` in the contract's currency, exactly; without a rate it is NULL, which the sum leaves out."""
    own = f'WHEN "BillingCurrency" = {literal(spec.currency)} THEN amount'
    cases = [own, *(_rate(c, since, rate) for c, steps in spec.fx for since, rate in reversed(steps))]
    if not spec.fx:
        return f"CASE {own} END"
    return f"CASE {' '.join(f'{case}::{_exact(spec)}' for case in cases)} END"


def _rate(currency: str, since: int, rate: Decimal) -> str:
    since_then = f'"BillingCurrency" = {literal(currency)} AND "ChargePeriodStart" >= {moment(since)}'
    return f"WHEN {since_then} THEN (amount * {rate:f})"


def _exact(spec: TrancheSpend) -> str:
    """The type of converted money: the decimals of an amount and of a rate."""
    decimals = [len(f"{rate:f}".partition(".")[2]) for _, steps in spec.fx for _, rate in steps]
    return f"DECIMAL(38, {MONEY_DECIMALS + max(decimals, default=0)})"


def _age(spec: SilentSeries, event_type: EventType, group: Group, t: int) -> str:
    """Seconds since the last sample; with `measures`, since the last that had the one that is missing longest."""
    marks = {mark.name: mark.of for mark in event_type.marks}
    values = [", ".join(map(name, marks.get(measure, (measure,)))) for measure, _ in spec.measures]
    last = ", ".join(f'max("time") FILTER (coalesce({value}) IS NOT NULL)' for value in values)
    newest = f"least({last})" if last else 'max("time")'
    age = f"epoch({moment(t)}) - epoch({newest})"
    return f"SELECT {age} AS value FROM {event_type.view}\nWHERE {_within((), group, t, EXPECTED)}"


def _balance(spec: FateBalance, group: Group, t: int) -> str:
    within = [f"minute >= {moment(t - spec.span)}", f"minute < {moment(t)}", f"topic = {literal(spec.topic)}"]
    within += [f"part = {int(group['partition'])}"] if "partition" in group else []
    signed = "CASE WHEN fate = 'in' THEN n ELSE -n END"
    return f"SELECT coalesce(sum({signed}), 0) AS value FROM fates\nWHERE {_all(within)}"


def _all(conditions: Sequence[str]) -> str:
    return " AND ".join(conditions)
