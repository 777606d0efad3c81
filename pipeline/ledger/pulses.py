"""The pulses of entities (GPUs), from which `readings.frozen` reads who is frozen.

In one interval of every `x-frozen.intervals` a delta notes each entity's *pulse*: 64 bits of all its numbers.
"""

from __future__ import annotations

from datetime import datetime

from duckdb import DuckDBPyConnection

from pipeline.catalog import EventType
from pipeline.readings.reading import GRID
from pipeline.rollup.quoting import timestamp

#: Seconds for which pulses are kept after they were evaluated.
KEPT = 3600


def note_pulses(con: DuckDBPyConnection, event: EventType, known_from: datetime) -> None:
    """For the apply transaction: the pulses of `added_pulses`; `known_from` as in `note_seen`."""
    con.execute(
        f"INSERT INTO pulses_{event.view} SELECT series, entity, slot, min(pulse), max(pulse), "
        f"greatest(TIMESTAMP '{known_from}', window_start + INTERVAL {GRID} SECOND) AS known_from "
        "FROM added_pulses GROUP BY series, entity, slot, known_from"
    )


def fold_pulses(con: DuckDBPyConnection, event: EventType, evaluated: int) -> None:
    """Housekeeping: forgets the pulses that no instant after `evaluated` (epoch seconds) asks for."""
    if event.frozen is not None:
        con.execute(f"DELETE FROM pulses_{event.view} WHERE known_from < {timestamp(evaluated - KEPT)}")


def pulses_table(view: str) -> str:
    """Name and columns; `entity` is 64 bits of series and name, `slot` a number; append only, no index."""
    return (
        f"pulses_{view}(series UBIGINT, entity UBIGINT, slot BIGINT, least UBIGINT, greatest UBIGINT, "
        "known_from TIMESTAMP)"
    )
