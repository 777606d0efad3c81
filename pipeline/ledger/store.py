"""The ledger: one DuckDB file that knows what was taken in, what it adds up to, and what was said about it.

    apply(delta)   one transaction:
        1. the writer's generation is current            4. the offsets and progress move
        2. every range begins at the stored offset       5. the watermark passes instants: readings, verdicts
        3. partials, entities, fates appended            6. alert states, standing and outbox written
        7. the segments are noted, once they are on the disk
    tick           the same without rows: silence must be noticed

A delta that was applied before is refused without effect.  All writing happens through one object on one
thread at a time; housekeeping uses cursors of its own and is fenced by the same generation.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb

from pipeline.catalog import Catalog
from pipeline.contract.model import Contract
from pipeline.errors import ForeignCluster, LedgerError, StaleGeneration
from pipeline.ledger import counter, deliveries, evaluation, files
from pipeline.ledger.append import append_rows
from pipeline.ledger.dirty import mark_dirty
from pipeline.ledger.evaluation import EvaluationStep
from pipeline.ledger.frontier import least_evaluated
from pipeline.ledger.instants import utc
from pipeline.ledger.lock import DirectoryLock
from pipeline.ledger.raw_rows import RawRows
from pipeline.ledger.reader import Reader
from pipeline.ledger.tables import create, get_meta, insert, set_meta
from pipeline.ledger.terms import write_contracts
from pipeline.ledger.transaction import transaction
from pipeline.rollup.delta import Addition, Delta, Place
from pipeline.rollup.grid import GRID, grid_floor
from pipeline.rules.alerts import AlertChange, AlertState
from pipeline.rules.evaluate import Plan

FAR_PAST = datetime(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class Applied:
    """What a transaction did: the instants evaluated by group of topics, and the alert changes.

    `behind`: the watermark has passed more instants than one transaction evaluates; a `tick` goes on with them.
    """

    events: int = 0
    due: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    changes: tuple[AlertChange, ...] = ()
    behind: bool = False


class Ledger:
    """The open ledger of a data directory; `close` releases it.

    `destinations` are the names that every change is written to the outbox for.  `con` is the connection on
    which batches are processed and applied, by one thread at a time.  `behind`: whether instants that the watermark
    has passed may be left to evaluate; `reached`: topic → watermark, epoch seconds, to be read from any thread.
    Raises DataDirectoryInUse, LedgerError.
    """

    def __init__(
        self,
        data: Path,
        catalog: Catalog,
        *,
        memory_limit: str = "600MB",
        threads: int = 1,
        destinations: Sequence[str] = (),
    ) -> None:
        self.data = data
        self.catalog = catalog
        self.destinations = tuple(destinations)
        self._lock = DirectoryLock(data)
        try:
            self.con = self._open(memory_limit, threads)
        except BaseException:
            self._lock.release()
            raise
        try:
            self.generation = self._begin_generation()
        except BaseException:
            self.close()
            raise
        self.plan: Plan | None = None
        self.behind = True
        self.reached = {topic: _seconds(mark) for topic, mark in self.watermarks().items()}
        self._reader = Reader(self.con, catalog, RawRows(self.con, data))

    def _open(self, memory_limit: str, threads: int) -> duckdb.DuckDBPyConnection:
        path = self.data / "ledger.duckdb"
        with files.disk_errors(path):
            try:
                con = duckdb.connect(str(path))
            except duckdb.Error as error:
                if files.is_full(error):
                    raise
                raise LedgerError(
                    f"{path}: cannot be opened ({str(error).splitlines()[0]}); check that no other program has it "
                    "open, or restore it from a backup"
                ) from error
        con.execute(f"SET memory_limit = '{memory_limit}'")
        con.execute(f"SET threads = {threads}")
        con.execute("SET temp_directory = $1", [str(self.data / "spill")])
        con.execute("SET TimeZone = 'UTC'")
        con.execute("SET enable_progress_bar = false")  # it would be drawn into the log
        con.execute("SET preserve_insertion_order = false")
        con.execute("SET checkpoint_threshold = '256MB'")
        return con

    def _begin_generation(self) -> int:
        """Tables, migrations and the next generation, in one transaction."""
        with files.disk_errors(self.data), transaction(self.con):
            create(self.con, self.catalog)
            counter.check(self.con, self.data)
            generation = int(get_meta(self.con, "generation") or 0) + 1
            set_meta(self.con, "generation", str(generation))
        (self.data / "segments").mkdir(exist_ok=True)
        return generation

    def close(self) -> None:
        try:
            self.con.close()
        finally:
            self._lock.release()

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A connection of its own to the same ledger, for another thread."""
        return self.con.cursor()

    def fence(self, con: duckdb.DuckDBPyConnection) -> None:
        """Raises StaleGeneration once another writer has opened the ledger."""
        found = get_meta(con, "generation")
        if found != str(self.generation):
            raise StaleGeneration(
                f"{self.data}: taken over by another writer (generation {found}, this one is {self.generation}); "
                "stop one of the two"
            )

    def bind_cluster(self, cluster_id: str) -> None:
        """Remember the Kafka cluster at the first start; raises ForeignCluster for another one later."""
        known = get_meta(self.con, "cluster_id")
        if known is None:
            with transaction(self.con, self.fence):
                set_meta(self.con, "cluster_id", cluster_id)
        elif known != cluster_id:
            raise ForeignCluster(
                f"{self.data}: this ledger was written from Kafka cluster {known}, but cluster {cluster_id} answers; "
                "point --bootstrap at the right cluster, or start with an empty data directory"
            )

    def topic_ids(self) -> dict[str, str]:
        """Topic → the id of the topic that the offsets here are of."""
        rows = self.con.execute(
            "SELECT key[10:], value FROM meta WHERE starts_with(key, 'topic_id:')"
        ).fetchall()
        return dict(rows)

    def bind_topics(self, ids: Mapping[str, str]) -> None:
        """Remember which topics the offsets are of, by the ids they were given when they were made."""
        with transaction(self.con, self.fence):
            for topic, id_ in ids.items():
                set_meta(self.con, f"topic_id:{topic}", id_)

    def offsets(self) -> dict[Place, int]:
        """The next offset of every partition that was ever read."""
        rows = self.con.execute("SELECT topic, part, next_offset FROM offsets").fetchall()
        return {(topic, part): offset for topic, part, offset in rows}

    def progress(self) -> dict[Place, datetime]:
        """The greatest min(event time, record time) of every partition that had any."""
        return {place: reached for place, (reached, _) in self.progress_since().items()}

    def progress_since(self) -> dict[Place, tuple[datetime, datetime]]:
        """The same, each with the wall clock at which it was reached."""
        rows = self.con.execute("SELECT topic, part, progress, progress_at FROM offsets").fetchall()
        return {(topic, part): (at, since) for topic, part, at, since in rows if at is not None}

    def watermarks(self) -> dict[str, datetime]:
        return dict(self.con.execute("SELECT topic, watermark FROM frontier").fetchall())

    def known_from(self) -> dict[str, datetime]:
        """The first instant not yet evaluated, for each topic; the far past where nothing came yet.

        Charges and what closes their deliveries are read together, so both go by the one that is farther.
        """
        reached = dict(self.con.execute("SELECT topic, instant FROM frontier").fetchall())
        step = timedelta(seconds=GRID)
        known = {
            topic: reached[topic] + step if topic in reached else FAR_PAST for topic in self.catalog.topics
        }
        bill = [event.topic for event in self.catalog.types if event.retained]
        return known | dict.fromkeys(bill, max((known[topic] for topic in bill), default=FAR_PAST))

    def least_evaluated(self, con: duckdb.DuckDBPyConnection, topic: str) -> int:
        """The last instant (epoch seconds) that every group of clauses reading `topic` has passed."""
        return least_evaluated(con, topic) or 0

    def use(self, contracts: Sequence[Contract], plan: Plan, now: float) -> None:
        """Evaluate by `plan`, which is that of `contracts`, from now on; readers see what they promise."""
        with files.disk_errors(self.data), transaction(self.con, self.fence):
            write_contracts(self.con, contracts, now)
        self.plan, self.behind = plan, True

    def apply(
        self, delta: Delta, watermarks: Mapping[str, datetime], now: float, most: int | None = None
    ) -> Applied:
        """Take `delta` in and evaluate what `watermarks` pass, `most` instants or all; `now` is wall clock, epoch s.

        Rows of the next delta count from the first instant that the watermark has not passed, evaluated or not: in
        how many transactions the instants are evaluated changes nothing of what they see.

        A watermark in the far past says that the topic's first records wait: so do the clauses that read it.

        Raises LedgerError when a range does not begin at the stored offset (a delta applied before, or a
        gap), StaleGeneration, DiskFull; nothing is changed then.
        """
        con = self.con
        with self._forgetting(), files.disk_errors(self.data), transaction(con, self.fence):
            self._move_offsets(delta, now)
            known_from = self.known_from()
            for added in delta.added:
                event = self.catalog.by_view(added.view)
                append_rows(con, event, added, known_from[event.topic])
            if any(self.catalog.by_view(added.view).retained for added in delta.added):
                deliveries.recount(con, self.catalog)
            insert(con, "fates", ((f.topic, f.part, f.minute, f.fate, f.reason, f.n) for f in delta.fates))
            mark_dirty(con, "fates", (f.minute for f in delta.fates))
            insert(
                con,
                "set_aside",
                ((a.topic, a.part, a.minute, a.field, a.reason, a.n) for a in delta.set_aside),
            )
            self._note_reported(delta)
            mark_dirty(con, "set_aside", (a.minute for a in delta.set_aside))
            with self._reader.raw.arriving(lambda: _noted(delta, known_from)):
                judged = self._pass(delta.added, watermarks, now, most)
            insert(con, "segments", _noted(delta, known_from))
        self.behind = judged.behind
        self.reached = {
            **self.reached,
            **{t: max(_seconds(m), self.reached.get(t, 0.0)) for t, m in watermarks.items()},
        }
        return Applied(delta.events, judged.due, judged.changes, judged.behind)

    def _note_reported(self, delta: Delta) -> None:
        """What sources have counted so far, in the transaction that takes in what it adds."""
        if delta.reported:
            topics, series = ([key[at] for key in delta.reported] for at in (0, 1))
            self.con.execute(
                "DELETE FROM reported r USING (SELECT unnest(?::VARCHAR[]) AS topic, unnest(?::VARCHAR[]) AS series) m "
                "WHERE r.topic = m.topic AND r.series = m.series",
                [topics, series],
            )
            kept = ((*key, text) for key, text in delta.reported.items() if text is not None)
            insert(self.con, "reported", kept)

    def reported(self) -> dict[tuple[str, str], str]:
        """(topic of a source, series) → its last cumulative histogram."""
        rows = self.con.execute("SELECT topic, series, buckets FROM reported").fetchall()
        return {(topic, series): text for topic, series, text in rows}

    @contextlib.contextmanager
    def _forgetting(self) -> Iterator[None]:
        """What is remembered belongs to the transaction: it goes when that is rolled back."""
        try:
            yield
        except BaseException:
            self._reader.forget()
            self.behind = True
            raise

    def tick(self, watermarks: Mapping[str, datetime], now: float, most: int | None = None) -> Applied:
        """`apply` without rows."""
        return self.apply(Delta(), watermarks, now, most)

    def _move_offsets(self, delta: Delta, now: float) -> None:
        """Check that every range begins where the ledger stands, and move it there."""
        rows = self.con.execute(
            "SELECT topic, part, next_offset, progress, progress_at FROM offsets"
        ).fetchall()
        stored = {(topic, part): tuple(rest) for topic, part, *rest in rows}
        moved = []
        for place, (lo, hi) in delta.ranges.items():
            offset, reached, reached_at = stored.get(place, (lo, None, None))
            if offset != lo:
                raise LedgerError(
                    f"{self.data}: a delta of {place[0]} partition {place[1]} covers offsets [{lo}, {hi}), but the "
                    f"ledger stands at {offset}; nothing was changed: restart the pipeline"
                )
            new = delta.progress.get(place)
            if new is not None and (reached is None or new > reached):
                reached, reached_at = new, utc(now)
            moved.append([*place, hi, reached, reached_at])
        if moved:
            topics, parts = ([row[at] for row in moved] for at in (0, 1))
            self.con.execute(
                "DELETE FROM offsets o USING (SELECT unnest(?::VARCHAR[]) AS topic, unnest(?::INTEGER[]) AS part) m "
                "WHERE o.topic = m.topic AND o.part = m.part",
                [topics, parts],
            )
            insert(self.con, "offsets", moved)

    def _pass(
        self, added: Sequence[Addition], watermarks: Mapping[str, datetime], now: float, most: int | None
    ) -> EvaluationStep:
        """Move the frontier and evaluate what it has passed."""
        rows = self.con.execute("SELECT topic, watermark, instant FROM frontier").fetchall()
        before = {topic: _epoch(instant) for topic, _, instant in rows}
        stood = {topic: watermark for topic, watermark, _ in rows}
        after = dict(before)
        waiting = {topic for topic, mark in watermarks.items() if mark <= FAR_PAST and topic not in stood}
        for topic, watermark in watermarks.items():
            if topic in waiting:
                continue
            moved = max(watermark, stood.get(topic, watermark))
            after[topic] = max(grid_floor(_seconds(moved)), before.get(topic, -(2**62)))
            self.con.execute("DELETE FROM frontier WHERE topic = ?", [topic])
            self.con.execute("INSERT INTO frontier VALUES (?, ?, ?)", [topic, moved, utc(after[topic])])
        if self.plan is None or (after == before and not self.behind):
            return EvaluationStep({}, ())
        return self._judge(before, after, added, now, waiting, most)

    def _judge(
        self,
        before: Mapping[str, int],
        after: Mapping[str, int],
        added: Sequence[Addition],
        now: float,
        waiting: Set[str],
        most: int | None,
    ) -> EvaluationStep:
        """Evaluate a step of `most` instants, or all steps; of each group the last unbroken stretch is told."""
        assert self.plan is not None
        due: dict[str, tuple[int, int]] = {}
        changes: list[AlertChange] = []
        while True:
            step = evaluation.judge(
                self.con, self._reader, self.catalog, self.plan, before, after, added, self.destinations, now, waiting,
                most or evaluation.AT_ONCE,
            )  # fmt: skip
            for group, (t0, t1) in step.due.items():
                low, high = due.get(group, (t0, t0))
                due[group] = (low if high == t0 else t0, t1)
            changes += step.changes
            if most is not None or not step.behind:
                return EvaluationStep(due, tuple(changes), step.behind)

    def record_own(
        self, states: Mapping[str, AlertState | None], changes: Sequence[AlertChange], now: float
    ) -> None:
        """Write the states and changes of alerts that go by the wall clock (PipelineStalled, Watchdog).

        `states`: identity → the state after, None when the alert is over.
        """
        with files.disk_errors(self.data), transaction(self.con, self.fence):
            kept = evaluation.load_states(self.con)
            for identity, state in states.items():
                kept.pop(identity, None)
                if state is not None:
                    kept[identity] = state
            evaluation.write_states(self.con, kept)
            evaluation.write_changes(self.con, changes, self.destinations, now)


def _noted(delta: Delta, known_from: Mapping[str, datetime]) -> list[tuple[object, ...]]:
    """The rows of `segments` for a delta, once its segments are on the disk."""
    return [(s.name, s.topic, s.rows, s.min_time, s.max_time, known_from[s.source]) for s in delta.written()]


def _seconds(at: datetime) -> float:
    return at.replace(tzinfo=UTC).timestamp()


def _epoch(at: datetime) -> int:
    return int(_seconds(at))
