"""Who is frozen: an entity (a GPU) that reports, but whose counter and values stand still while others move.

Its *pulse* is 64 bits of all its numbers, noted in one interval of every `x-frozen.intervals` (`ledger/pulses.py`).  A
counter only rises, so one that is the same in two such slots stood still between them; an idle GPU draws power, and its
energy counter rises.  Without a counter, or with one at zero, nothing is said: values alone may stand still for good
reasons.  Judged once for each slot, at its end, from what is known by then; it holds until the next.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from pipeline.catalog import EventType, Frozen
from pipeline.readings.reading import GRID
from pipeline.readings.spec import Inquiry, Query
from pipeline.rollup.aggregate import BLOCK_BITS
from pipeline.rollup.quoting import timestamp

#: So many slots back is looked for the one before: a source that reports less often is not in each of them.
BACK = 3
Slots = dict[tuple[str, int], list[tuple[int, int]]]
"""(view, slot) → (series, bit) of those that are frozen."""


class Still(NamedTuple):
    """The entity of bit `idx` in a series is frozen from grid number `first` to `last`."""

    series: int
    idx: int
    first: int
    last: int


def frozen_within(event_type: EventType, t0: int, t1: int, known: Slots) -> Inquiry[list[Still]]:
    """Who is frozen at the instants `(t0, t1]`, epoch seconds; what was read of a slot is remembered in `known`."""
    rule = event_type.frozen
    if rule is None:
        return []
    found = []
    first, last = (judged_slot(rule, event_type.interval, t) for t in (t0 + GRID, t1))
    for slot in range(first, last + 1):
        begins = slot * rule.every + event_type.interval
        since, until = max(begins, t0 + GRID), min(begins + rule.every - GRID, t1)
        key = (event_type.view, slot)
        if key not in known:
            while len(known) > 2 * BACK:
                del known[next(iter(known))]
            rows = yield Query(_repeated_sql(event_type, rule, slot))
            if rows:
                rows = yield Query(_still_sql(event_type, rule, slot))
            known[key] = [(series, idx) for series, idx in rows]
        found += [Still(series, idx, -(-since // GRID), until // GRID) for series, idx in known[key]]
    return found


def judged_slot(rule: Frozen, interval: int, t: int) -> int:
    """The slot that decides who is frozen at the instant `t`: the last one that is over."""
    return (t - interval) // rule.every


def _repeated_sql(event: EventType, rule: Frozen, slot: int) -> str:
    """SELECT of one row where any entity may have had the pulse that it has in `slot` before.

    Nearly always none had.  A join finds that at a fraction of the price of `_still_sql`, which groups all.
    """
    known = f"known_from <= {timestamp(slot * rule.every + event.interval)}"
    return f"""
        SELECT true FROM pulses_{event.view} n JOIN pulses_{event.view} e
        ON n.series = e.series AND n.entity = e.entity AND n.least = e.greatest
        WHERE n.slot = {slot} AND n.{known} AND e.slot BETWEEN {slot - BACK} AND {slot - 1} AND e.{known} LIMIT 1"""


def _still_sql(event: EventType, rule: Frozen, slot: int) -> str:
    """SELECT (series, idx) of the entities whose pulse in `slot` is that of the slot before, while others' is not."""
    view, until = event.view, timestamp(slot * rule.every + event.interval)
    before = f"FILTER (slot < {slot})"
    return f"""
        WITH still AS (
            SELECT series, entity,
                arg_max(least = greatest, slot) AND arg_max(least = greatest, slot) {before}
                AND arg_max(least, slot) = arg_max(least, slot) {before} AS frozen
            FROM (SELECT series, entity, slot, min(least) AS least, max(greatest) AS greatest FROM pulses_{view}
                WHERE slot BETWEEN {slot - BACK} AND {slot} AND known_from <= {until} GROUP BY ALL)
            GROUP BY ALL HAVING max(slot) = {slot} AND count(*) > 1),
        frozen AS (SELECT series, entity FROM still WHERE frozen AND NOT (SELECT bool_and(frozen) FROM still))
        SELECT e.series, e.idx FROM entities_{view} e SEMI JOIN frozen f
        ON f.series = e.series AND f.entity = hash(e.series, e.entity)
        WHERE e.series IN (SELECT series FROM frozen)"""


#: CTE of the bits of the frozen, at each instant; parameters: `frozen_params`.
FROZEN = f"""frozen_bits AS MATERIALIZED (
        SELECT t, series, idx // {BLOCK_BITS} AS block, bitstring_agg(idx % {BLOCK_BITS}, 0, {BLOCK_BITS - 1}) AS frozen
        FROM (SELECT series, idx, unnest(range("first", "last" + 1)) AS t FROM (
            SELECT unnest($frozen_series::UBIGINT[]) AS series, unnest($frozen_idx::INTEGER[]) AS idx,
                unnest($frozen_first::BIGINT[]) AS "first", unnest($frozen_last::BIGINT[]) AS "last")) GROUP BY ALL)"""


def frozen_params(frozen: list[Still]) -> dict[str, Any]:
    return {
        "frozen_series": [f.series for f in frozen],
        "frozen_idx": [f.idx for f in frozen],
        "frozen_first": [f.first for f in frozen],
        "frozen_last": [f.last for f in frozen],
    }
