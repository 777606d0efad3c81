"""Publishing, sealing, merging and forgetting: on a thread and a connection of their own, beside the intake.

Alerts, standing and the pipeline's own health come first, and between any two steps of the rest whenever it is time: a
bill of weeks has thousands of files, and meanwhile the board must not say less than the pager.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import duckdb
import structlog

from pipeline.history import compact, health_table, publish, retention, seal, unmatched, verify
from pipeline.history.health_table import Pulse
from pipeline.history.retention import Keep
from pipeline.ledger.pulses import fold_pulses
from pipeline.ledger.seen import fold_seen
from pipeline.ledger.sightings import fold_sightings
from pipeline.ledger.store import Ledger
from pipeline.ledger.transaction import Hooks
from pipeline.rules.pipeline_alerts import Unmatched

log = structlog.get_logger()

PRUNE_EVERY = 3600.0
LOOK_EVERY = 300.0
"""Seconds between two looks at the published files: at all names and sizes, and at checksums in turns."""
FINISH_WITHIN = 5.0
"""Seconds that the last seal and publish may take: the whole stop has ten."""


class Housekeeper:
    """Keeps `ledger`'s published files and tables in order; `seal_every` and `publish_every` in seconds.

    `pulse`: asked before each publishing for what only the running process knows of itself; `kept`: how long tables are.
    """

    def __init__(
        self,
        ledger: Ledger,
        seal_every: float,
        pulse: Callable[[], Pulse] = Pulse,
        kept: Keep | None = None,
        publish_every: float = 10.0,
    ) -> None:
        self._ledger, self._seal_every, self._pulse, self._kept = ledger, seal_every, pulse, kept or Keep()
        self._publish_every, self._told = publish_every, -math.inf
        self._con = ledger.cursor()
        self._thread = ThreadPoolExecutor(1, "housekeeping")
        # By the steady clock: a wall clock that is set back a day is no day without sealing.  The first round does all.
        self._sealed = self._pruned = self._looked = -math.inf
        self._hooks = Hooks(ledger.fence, between=self._tell_in_time)
        self._stopping = False
        self._turns = verify.ChecksumRotation()
        self.tampered: tuple[verify.Tampered, ...] = ()
        """Published files that were not as they should be at the last look."""
        self.unmatched: tuple[Unmatched, ...] | None = None
        """Clauses that match nothing that was ever seen; None before the first look."""

    async def keep(self) -> None:
        """Publish; seal, merge and forget when it is time."""
        await self._on_thread(self._keep)

    async def finish(self, last: Callable[[duckdb.DuckDBPyConnection], None]) -> None:
        """Publish and seal a last time; `last` is called before and after with the connection.

        What takes longer than `FINISH_WITHIN` is interrupted and done at the next start.  Interrupting is as
        safe as a kill: every step with files is redone or undone by `recover`.
        """
        finishing = asyncio.ensure_future(self._on_thread(lambda: self._finish(last)))
        done, _ = await asyncio.wait({finishing}, timeout=FINISH_WITHIN)
        while not done:
            self._con.interrupt()
            done, _ = await asyncio.wait({finishing}, timeout=0.05)
        self._thread.shutdown()
        if isinstance(finishing.exception(), duckdb.InterruptException):
            log.warning(
                "the last publish or seal was cut short; it is done at the next start, nothing is lost"
            )
        else:
            finishing.result()

    def close(self) -> None:
        """Without a last round: after a failure."""
        self._con.interrupt()
        self._thread.shutdown()

    def _keep(self) -> None:
        con, ledger, catalog, now = self._con, self._ledger, self._ledger.catalog, time.monotonic()
        self._publish()
        if ledger.plan:
            self.unmatched = unmatched.note(con, ledger.plan, catalog, ledger.fence)
        compact.compact_partials(con, catalog, ledger.fence)
        if now - self._sealed >= self._seal_every:
            self._sealed = now
            seal.seal(con, ledger.data, catalog, self._hooks)
            compact.compact_history(con, ledger.data, catalog, self._hooks)
            compact.merge_fates(con, ledger.fence)
            self._fold()
        if now - self._pruned >= PRUNE_EVERY and not ledger.behind:  # what is left to evaluate reads old rows
            self._pruned = now
            retention.prune(con, ledger.data, catalog, self._kept, ledger.fence)
        if now - self._looked >= LOOK_EVERY:
            self._looked = now
            self._look()
            # last, for what it puts in place is recorded by the next publishing
            compact.settle_rollups(con, ledger.data, catalog, self._hooks)

    def _publish(self) -> None:
        con, ledger = self._con, self._ledger
        self._tell()
        for part in publish.parts(con, ledger.catalog):
            publish.publish(con, ledger.data, ledger.catalog, self._kept, self._hooks, part=part)
            self._tell_in_time()

    def _tell(self) -> None:
        """Publish everything but the roll-ups, with the pipeline's health as of the same instant."""
        ledger, pulse = self._ledger, replace(self._pulse(), stopped=self._stopping)
        publish.publish(
            self._con, ledger.data, ledger.catalog, self._kept, self._hooks, part=publish.OWN,
            first=lambda con: health_table.note_in(con, pulse, time.time()),
        )  # fmt: skip
        self._told = time.monotonic()

    def _tell_in_time(self) -> None:
        if time.monotonic() - self._told >= self._publish_every:
            self._tell()

    def _look(self) -> None:
        found = verify.look(
            self._con, self._ledger.data, self._ledger.catalog, self._turns, self._ledger.fence
        )
        for one in found:
            if one not in self.tampered:
                log.error("the published history is not what was published", file=str(one))
        self.tampered = tuple(found)

    def _fold(self) -> None:
        for event in self._ledger.catalog.types:
            if not event.retained:
                evaluated = self._ledger.least_evaluated(self._con, event.topic)
                fold_seen(self._con, event, evaluated)
                if event.entity:
                    fold_sightings(self._con, event, evaluated)
                    fold_pulses(self._con, event, evaluated)

    def _finish(self, last: Callable[[duckdb.DuckDBPyConnection], None]) -> None:
        ledger, self._stopping = self._ledger, True
        last(self._con)
        self._publish()
        seal.seal(self._con, ledger.data, ledger.catalog, Hooks(ledger.fence))
        last(self._con)

    async def _on_thread(self, work: Callable[[], None]) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, work)
