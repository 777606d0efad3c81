"""The published rows of entities (GPUs), each once: where it was seen last, and without those that are frozen."""

from __future__ import annotations

from pipeline.catalog import EventType
from pipeline.readings.past import Past, all_of, entity_name, series_names, within_sql
from pipeline.rollup.quoting import moment, quoted


def at_home_sql(past: Past, span: int, more: str = "") -> str:
    """SELECT of each entity seen in the span, once: in the series that saw it last, unless that is silent.

    Of several that saw it within an interval of that, it is in one that is not silent, else always in the same.
    `more`: aggregates of its rows, for the select list.
    """
    event_type, t = past.event_type, past.t
    entity, series = entity_name(event_type), series_names(event_type)
    here = f"last >= {moment(t - span)}"
    if past.slow:
        more, here = f"{more}, bool_or({past.since(span)}) AS here", "here"
    tied = ", ".join(f"coalesce({quoted(d.name)}, '') DESC" for d in event_type.dimensions)
    window = "time_bucket(INTERVAL 10 SECOND, last)"
    one = ", ".join([*(quoted(d) for d in event_type.within), entity])
    return (
        f"  SELECT * FROM ({'SELECT * FROM (' if event_type.frozen else ''}\n    SELECT * FROM (\n"
        f'      SELECT {series}, {entity}{more}, max("time") AS last,\n'
        f"        max({past.last()}) OVER (PARTITION BY {series}) < {past.stop()} AS silent\n"
        f"      FROM {event_type.view} WHERE {within_sql((), {}, t, past.rows(span))}\n"
        f"      GROUP BY {series}, {entity})\n    WHERE {here}\n"
        f"    QUALIFY {window} > max({window}) OVER (PARTITION BY {one}) - INTERVAL {event_type.interval} SECOND)\n"
        f"  QUALIFY row_number() OVER (PARTITION BY {one} ORDER BY silent, {tied}) = 1 AND NOT silent"
        + _not_frozen(event_type, t)
    )


def _not_frozen(event_type: EventType, t: int) -> str:
    """What leaves out the entities whose counter and numbers stood still while others' moved, where there is one.

    They are compared in one interval of every five (or as the schema says), the last that was over by `t`.
    """
    rule, entity = event_type.frozen, entity_name(event_type)
    if rule is None:
        return ""
    slot = (t - event_type.interval) // rule.every
    until, names = (
        slot * rule.every + event_type.interval,
        [*(quoted(d.name) for d in event_type.dimensions), entity],
    )
    pulse = f"row({', '.join(quoted(m.name) for m in event_type.numbers)})"
    inside = all_of(
        [
            f'"time" >= {moment((slot - 3) * rule.every)}',
            f'"time" < {moment(until)}',
            f'epoch_us("time") % {rule.every * 1_000_000} < {event_type.interval * 1_000_000}',
            f"known_from <= {moment(until)}",
            f"{quoted(rule.counter)} > 0",
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
    same = all_of(f"home.{n} IS NOT DISTINCT FROM frozen.{n}" for n in names)
    return f") AS home\nANTI JOIN (\n  {frozen}) AS frozen ON {same}"
