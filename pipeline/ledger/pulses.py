"""Who is frozen: an entity (a GPU) that reports, but whose counter and values stand still while others move.

In one interval of every `x-frozen.intervals` a delta notes each entity's *pulse*: 64 bits of all its numbers.  A counter
only rises, so one that is the same in two such slots stood still between them; an idle GPU draws power, and its energy
counter rises.  Without a counter, or with one at zero, nothing is said: values alone may stand still for good reasons.
Judged once for each slot, at its end, from what is known by then; it holds until the next.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from duckdb import DuckDBPyConnection

from pipeline.catalog import EventType, Frozen
from pipeline.ledger.reading_sql import timestamp
from pipeline.rollup.aggregate import BLOCK_BITS
from pipeline.rules.readings import GRID

#: So many slots back is looked for the one before: a source that reports less often is not in each of them.
BACK = 3
#: Seconds for which pulses are kept after they were evaluated.
KEPT = 3600


class Still(NamedTuple):
    """The entity of bit `idx` in a series is frozen from grid number `first` to `last`."""

    series: int
    idx: int
    first: int
    last: int


def note_pulses(con: DuckDBPyConnection, event: EventType, known_from: datetime) -> None:
    """For the apply transaction: the pulses of `delta_samples_{view}`; `known_from` as in `note_seen`."""
    rule = event.frozen
    if rule is None or event.entity is None:
        return
    view, numbers = event.view, ", ".join(f'"{m.name}"' for m in event.numbers)
    con.execute(
        f"INSERT INTO pulses_{view} SELECT series, entity, slot, min(pulse), max(pulse), known_from FROM ("
        f'SELECT series, hash(series, "{event.entity.name}") AS entity, epoch("time")::BIGINT // {rule.every} AS slot, '
        f"hash({numbers}) AS pulse, greatest(TIMESTAMP '{known_from}', "
        f'time_bucket(INTERVAL {GRID} SECOND, "time") + INTERVAL {GRID} SECOND) AS known_from '
        f'FROM delta_samples_{view} WHERE "{rule.counter}" > 0 AND epoch_us("time") % {rule.every * 1_000_000} '
        f"< {event.interval * 1_000_000}) GROUP BY ALL"
    )


def fold_pulses(con: DuckDBPyConnection, event: EventType, evaluated: int) -> None:
    """Housekeeping: forgets the pulses that no instant after `evaluated` (epoch seconds) asks for."""
    if event.frozen is not None:
        con.execute(f"DELETE FROM pulses_{event.view} WHERE known_from < {timestamp(evaluated - KEPT)}")


class Pulses:
    """Reads who is frozen, and remembers what it read of each slot."""

    def __init__(self, con: DuckDBPyConnection) -> None:
        self._con = con
        self._slots: dict[tuple[str, int], list[tuple[int, int]]] = {}

    def forget(self) -> None:
        self._slots.clear()

    def within(self, event: EventType, t0: int, t1: int) -> list[Still]:
        """Who is frozen at the instants `(t0, t1]`, epoch seconds."""
        rule = event.frozen
        if rule is None:
            return []
        found = []
        for slot in range(
            judged_slot(rule, event.interval, t0 + GRID), judged_slot(rule, event.interval, t1) + 1
        ):
            begins = slot * rule.every + event.interval
            first, last = max(begins, t0 + GRID), min(begins + rule.every - GRID, t1)
            for series, idx in self._of_slot(event, rule, slot):
                found.append(Still(series, idx, -(-first // GRID), last // GRID))
        return found

    def _of_slot(self, event: EventType, rule: Frozen, slot: int) -> list[tuple[int, int]]:
        key = (event.view, slot)
        if key not in self._slots:
            while len(self._slots) > 2 * BACK:
                del self._slots[next(iter(self._slots))]
            self._slots[key] = self._con.execute(_still_sql(event, rule, slot)).fetchall()
        return self._slots[key]


def judged_slot(rule: Frozen, interval: int, t: int) -> int:
    """The slot that decides who is frozen at the instant `t`: the last one that is over."""
    return (t - interval) // rule.every


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


def pulses_table(view: str) -> str:
    """Name and columns; `entity` is 64 bits of series and name, `slot` a number; append only, no index."""
    return (
        f"pulses_{view}(series UBIGINT, entity UBIGINT, slot BIGINT, least UBIGINT, greatest UBIGINT, "
        "known_from TIMESTAMP)"
    )
