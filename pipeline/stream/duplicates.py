"""Which samples were seen before.

Telemetry: a re-send is a duplicate while it lies within two minutes behind its partition's progress; what is
older is aggregated.  Whether a sample is a duplicate depends on the order of the log alone, never on how the
log was cut into batches.  Retained types (billing): against every identity retained; the same identity with
another time and other content is a revision.  A row of a delivery has no revisions: it is the same row whatever its
time, so that two imports of one file that overlap leave each row once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.catalog import EventType
from pipeline.formats.event_format import MAX_CLOCK_AHEAD
from pipeline.rollup.aggregate import content_sql
from pipeline.rollup.delta import Place
from pipeline.rollup.revised import is_report_sql, reports_sql

WINDOW = timedelta(minutes=2)
_PRUNE_EVERY = timedelta(seconds=30)

Progress = Mapping[int, datetime]
Interval = tuple[datetime, datetime]


class RecentIdentities:
    """The identities of one event type's recent samples, in `recent_{view}(identity, time)`."""

    def __init__(self, con: duckdb.DuckDBPyConnection, event: EventType) -> None:
        self._con = con
        self._event = event
        self._plain = f"batch_{event.view}"
        """The samples that are no reports: those have a memory of their own."""
        if event.revision:
            self._plain = f"(FROM batch_{event.view} WHERE NOT {is_report_sql(event)})"
        self._pruned: Mapping[Place, datetime] = {}
        con.execute(f"CREATE OR REPLACE TEMP TABLE recent_{event.view}(identity UBIGINT, time TIMESTAMP)")

    def rebuild(self, data: Path, progress: Mapping[Place, datetime]) -> None:
        """Remember the identities of the last minutes again, from the ledger's segments and published files."""
        if self._event.retained:
            return
        for low, high in _remembered(progress):
            held = "topic = $topic AND max_time >= $low AND min_time <= $high"
            names = self._con.execute(
                f"SELECT 'segments/' || segment FROM segments WHERE {held} UNION ALL SELECT path FROM files WHERE {held}",
                {"topic": self._event.topic, "low": low, "high": high},
            ).fetchall()
            there = [str(data / name) for (name,) in names if (data / name).exists()]
            try:
                self._remember(there, low, high)
            except (duckdb.IOException, duckdb.InvalidInputException):
                for path in (
                    there
                ):  # one that is damaged, and named by `verify`, must not keep the pipeline from starting
                    with contextlib.suppress(duckdb.IOException, duckdb.InvalidInputException):
                        self._remember([path], low, high)

    def _remember(self, paths: Sequence[str], low: datetime, high: datetime) -> None:
        if paths:
            self._con.execute(
                f"INSERT INTO recent_{self._event.view} SELECT hash(source, id, idx), time FROM read_parquet("
                "?, union_by_name = true, hive_partitioning = false) WHERE time BETWEEN ? AND ?",
                [paths, low, high],
            )

    def find_duplicates(
        self, progress: Progress, identities: pa.ChunkedArray
    ) -> dict[tuple[int, datetime], int]:
        """How many of `batch_{view}` are duplicates, by (partition, minute); if any, `duplicates_{view}(row, idx)` names them.

        `progress` is each partition's greatest min(event time, record time) before this batch, `identities` those of
        its samples.
        """
        view = self._event.view
        found = self._retained() if self._event.retained else self._windowed(progress, identities)
        if self._event.revision:
            found = self._mark([*found, *reported]) if (reported := self._reported()) else found
        if not found:
            return {}
        counted = self._con.execute(
            f"SELECT part, date_trunc('minute', record_time), count(*) FROM batch_{view} "
            f"SEMI JOIN duplicates_{view} USING (row, idx) GROUP BY ALL"
        ).fetchall()
        return {(part, minute): n for part, minute, n in counted}

    def remember(self, progress: Mapping[Place, datetime]) -> None:
        """Keep the identities of `batch_{view}`, now without duplicates, and forget those that no partition can ask for again."""
        if self._event.retained:
            return
        view = self._event.view
        self._con.execute(f"INSERT INTO recent_{view} SELECT identity, time FROM {self._plain}")
        if any(at - self._pruned.get(part, datetime.min) > _PRUNE_EVERY for part, at in progress.items()):
            # a partition that stands still keeps its own two minutes, not everything since
            kept = " OR ".join("time BETWEEN ? AND ?" for _ in _remembered(progress))
            self._con.execute(
                f"CREATE OR REPLACE TEMP TABLE recent_{view} AS SELECT * FROM recent_{view} WHERE {kept}",
                [at for interval in _remembered(progress) for at in interval],
            )
            self._pruned = dict(progress)

    def _windowed(self, progress: Progress, identities: pa.ChunkedArray) -> list[tuple[int, int]]:
        view, con = self._event.view, self._con
        # mostly none comes twice in a batch, which Arrow sees in a third of the time that DuckDB takes to group them
        twice = f"SELECT identity FROM {self._plain} GROUP BY identity HAVING count(*) > 1 UNION "
        con.execute(
            f"CREATE OR REPLACE TEMP TABLE suspects_{view} AS {twice if _any_twice(identities) else ''}"
            f"SELECT identity FROM {self._plain} SEMI JOIN recent_{view} USING (identity)"
        )
        if not con.execute(f"SELECT 1 FROM suspects_{view} LIMIT 1").fetchall():
            return []
        con.execute("CREATE OR REPLACE TEMP TABLE progress_before(part INTEGER, reached TIMESTAMP)")
        if progress:
            con.executemany("INSERT INTO progress_before VALUES (?, ?)", list(progress.items()))
        con.execute(
            f"""CREATE OR REPLACE TEMP TABLE suspected_{view} AS
            WITH placed AS (
                SELECT row, idx, identity, time, greatest(coalesce(reached, TIMESTAMP '1970-01-01'),
                    max(least(time, record_time)) OVER (PARTITION BY part ORDER BY row, idx ROWS UNBOUNDED PRECEDING)
                ) - INTERVAL 2 MINUTE AS horizon
                FROM {self._plain} LEFT JOIN progress_before USING (part))
            SELECT * FROM placed SEMI JOIN suspects_{view} USING (identity)"""
        )
        con.execute(
            f"""CREATE OR REPLACE TEMP TABLE duplicates_{view} AS
            WITH before AS (
                SELECT DISTINCT identity, time, true AS known FROM recent_{view}
                SEMI JOIN suspects_{view} USING (identity)),
            judged AS (
                SELECT row, idx, time, horizon, coalesce(known, false) OR row_number() OVER (
                    PARTITION BY identity, time ORDER BY row, idx) > 1 AS again
                FROM suspected_{view} LEFT JOIN before USING (identity, time))
            SELECT row, idx FROM judged WHERE again AND time >= horizon ORDER BY row, idx"""
        )
        self._judge_reused()
        return con.execute(f"FROM duplicates_{view} ORDER BY row, idx").fetchall()

    def _judge_reused(self) -> None:
        """Identities that come with several times, one after the other: only what is aggregated is remembered."""
        view, con = self._event.view, self._con
        known = f"SELECT identity, time FROM recent_{view} SEMI JOIN suspects_{view} USING (identity)"
        con.execute(
            f"CREATE OR REPLACE TEMP TABLE reused_{view} AS SELECT identity FROM "
            f"({known} UNION SELECT identity, time FROM suspected_{view}) GROUP BY identity HAVING count(*) > 1"
        )
        rows = con.execute(
            f"SELECT identity, time, horizon, row, idx FROM suspected_{view} SEMI JOIN reused_{view} USING (identity) "
            f"UNION ALL SELECT identity, time, NULL, -1, 0 FROM recent_{view} SEMI JOIN reused_{view} USING (identity) "
            "ORDER BY identity, row, idx"
        ).fetchall()
        if rows:
            con.execute(
                f"DELETE FROM duplicates_{view} WHERE (row, idx) IN "
                f"(SELECT (row, idx) FROM suspected_{view} SEMI JOIN reused_{view} USING (identity))"
            )
        if found := list(_again(rows)):
            con.executemany(f"INSERT INTO duplicates_{view} VALUES (?, ?)", found)

    def _retained(self) -> list[tuple[int, int]]:
        """The same identity again with a time that is known, or as it was last issued before its time.

        A charge that goes back to what it was before its last revision is one more revision.
        """
        view, content, delivered = self._event.view, content_sql(self._event), "false"
        if self._event.delivery and not self._event.closes:
            delivered = f"{self._event.delivery} IS NOT NULL"
        new = f"SELECT identity, time, {content} AS content, row, idx, {delivered} AS delivered FROM batch_{view}"
        rows = self._con.execute(
            f"""WITH new AS ({new}),
            known AS (SELECT identity, time, content, -1, 0, {delivered} FROM {self._event.kept} SEMI JOIN new USING (identity)),
            suspects AS (
                SELECT identity FROM new GROUP BY identity HAVING count(*) > 1 UNION SELECT identity FROM known)
            FROM new SEMI JOIN suspects USING (identity) UNION ALL FROM known ORDER BY identity, row, idx, time"""
        ).fetchall()
        return self._mark(sorted(_issued_before(rows)))

    def _reported(self) -> list[tuple[int, int]]:
        """Reports that say nothing new, whenever they were first known (rollup/revised.py).

        Where the source says when it issued them, that tells.  Else it is asked again and again, and a report that says
        what the one before it said is the same.
        """
        event, batch = self._event, f"batch_{self._event.view}"
        assert event.revision
        if not self._con.execute(f"SELECT 1 FROM {batch} WHERE {is_report_sql(event)} LIMIT 1").fetchall():
            return []
        named = f"{event.revision.issued} IS NOT NULL AS named, row, "
        rows = self._con.execute(
            f"""WITH new AS ({reports_sql(event, batch, also=named)}),
            known AS (FROM revised_{event.view} SEMI JOIN new USING (reading))
            SELECT reading, said, finality, issued, content, true, -1, 0 FROM known UNION ALL
            SELECT reading, said, finality, issued, content, named, row, idx FROM new
            ORDER BY reading, said, row, idx, finality, issued"""
        ).fetchall()
        return list(_said_before(rows))

    def _mark(self, found: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """`found`, put into `duplicates_{view}`."""
        schema = pa.schema([("row", pa.int32()), ("idx", pa.int32())])
        marked = pa.Table.from_pylist([{"row": row, "idx": idx} for row, idx in found], schema=schema)
        self._con.register("marked", marked)
        self._con.execute(f"CREATE OR REPLACE TEMP TABLE duplicates_{self._event.view} AS FROM marked")
        self._con.unregister("marked")
        return found


def _any_twice(identities: pa.ChunkedArray) -> bool:
    return len(pc.unique(identities)) < len(identities)


def _issued_before(rows: Iterable[tuple[int, datetime, int, int, int, bool]]) -> Iterator[tuple[int, int]]:
    """(row, idx) of the duplicates among `rows`, which come by identity, what is known first, then in log order."""
    for _, same in groupby(rows, key=lambda row: row[0]):
        known: dict[datetime, int] = {}
        for _, time, content, row, idx, delivered in same:
            before = max((at for at in known if at < time), default=None)
            again = time in known or (before is not None and known[before] == content)
            again = again or (delivered and content in known.values())
            if row >= 0 and again:
                yield row, idx
            else:
                known[time] = content


def _said_before(
    rows: Iterable[tuple[int, str, int, datetime, int, bool, int, int]],
) -> Iterator[tuple[int, int]]:
    """(row, idx) of the duplicates among reports, which come by reading and measures, what is known first, then in log order."""
    for _, same in groupby(rows, key=lambda row: row[:2]):
        known: dict[tuple[int, datetime], int] = {}
        for _, _, finality, issued, content, named, row, idx in same:
            mark = (finality, issued)
            before = max((at for at in known if at <= mark), default=None)
            again = mark in known if named else before is not None and known[before] == content
            if row >= 0 and again:
                yield row, idx
            else:
                known[mark] = content


def _again(
    rows: Iterable[tuple[int, datetime, datetime | None, int, int]],
) -> Iterator[tuple[int, int]]:
    """(row, idx) of the duplicates among `rows`, which come by identity, then in log order."""
    for _, same in groupby(rows, key=lambda row: row[0]):
        known: list[datetime] = []
        for _, time, horizon, row, idx in same:
            if horizon is not None and time >= horizon and any(at >= horizon for at in known):
                yield row, idx
            else:
                known.append(time)


def _remembered(progress: Mapping[Place, datetime]) -> list[Interval]:
    """The times that any partition may still ask for, `[from, to]`, without overlaps."""
    found: list[Interval] = []
    for at in sorted(progress.values()):
        low, high = at - WINDOW, at + MAX_CLOCK_AHEAD
        if found and low <= found[-1][1]:
            low = found.pop()[0]
        found.append((low, high))
    return found
