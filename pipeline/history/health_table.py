"""How the pipeline itself does, by the wall clock: a row for each topic and minute in the table `health`.

The row of the current minute is replaced until the minute is over, so the newest is as old as the last publishing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import duckdb

from pipeline.ledger.dirty import mark_dirty
from pipeline.ledger.instants import utc
from pipeline.ledger.tables import insert
from pipeline.ledger.transaction import Fence, no_fence, transaction
from pipeline.rollup.grid import MINUTE
from pipeline.rules.pipeline_alerts import Stall

STOPPED = "it was stopped in good order"


@dataclass(frozen=True, slots=True)
class Pulse:
    """What only the running process knows: records that wait by topic, its rate, its measured delays (p99, s), and
    what holds it up, if anything does; `stopped`: this is its last word."""

    lag: Mapping[str, int] = field(default_factory=dict)
    events_per_second: float = 0.0
    freshness_p99: float | None = None
    decision_delay_p99: float | None = None
    stall: Stall | None = None
    stopped: bool = False

    def state(self, topic: str, now: float) -> tuple[str, datetime | None, str | None]:
        """State, since when and why, as the columns of `health` have them; `now`: epoch seconds."""
        if self.stopped:
            return "stopped", utc(now), STOPPED
        if self.stall and topic in self.stall.topics:
            return "stalled", utc(self.stall.since), self.stall.why
        return "well", None, None


def note(con: duckdb.DuckDBPyConnection, pulse: Pulse, now: float, fence: Fence = no_fence) -> None:
    """Write the rows of this minute; `con` is a cursor of its own, `now` epoch seconds."""
    with transaction(con, fence):
        note_in(con, pulse, now)


def note_in(con: duckdb.DuckDBPyConnection, pulse: Pulse, now: float) -> None:
    """The same within a transaction: what it says is of the same instant as all that is read there."""
    at, minute = utc(now), utc(now // MINUTE * MINUTE)
    offsets = dict(
        con.execute("SELECT topic, sum(next_offset)::BIGINT FROM offsets GROUP BY topic").fetchall()
    )
    marks = dict(con.execute("SELECT topic, watermark FROM frontier").fetchall())
    waiting = con.execute("SELECT count(*) FROM outbox WHERE delivered IS NULL").fetchone()
    con.execute('DELETE FROM health WHERE "time" >= ?', [minute])
    rows = (
        (
            at, topic, offsets.get(topic, 0), pulse.lag.get(topic, 0), marks.get(topic), pulse.events_per_second,
            pulse.freshness_p99, pulse.decision_delay_p99, waiting[0] if waiting else 0, *pulse.state(topic, now),
        )
        for topic in sorted({*offsets, *pulse.lag})
    )  # fmt: skip
    insert(con, "health", rows)
    mark_dirty(con, "health", [minute])
