"""Which samples were seen before.

Telemetry: a re-send is a duplicate while it lies within two minutes behind its partition's progress; what is
older is aggregated.  Whether a sample is a duplicate depends on the order of the log alone, never on how the
log was cut into batches.  Retained types (billing): against every identity retained; the same identity with
another time and other content is a revision.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path

import duckdb

from pipeline.catalog import EventType
from pipeline.rollup.aggregate import content_sql

WINDOW = timedelta(minutes=2)
_PRUNE_EVERY = timedelta(seconds=30)
_FAR_PAST = datetime(1970, 1, 1)


class Seen:
    """The identities of one event type's recent samples, in `recent_{view}(identity, time)`."""

    def __init__(self, con: duckdb.DuckDBPyConnection, event: EventType) -> None:
        self._con = con
        self._event = event
        self._pruned = _FAR_PAST
        con.execute(f"CREATE OR REPLACE TEMP TABLE recent_{event.view}(identity UBIGINT, time TIMESTAMP)")

    def rebuild(self, data: Path, progress: Mapping[int, datetime]) -> None:
        """Remember the identities of the last minutes again, from the ledger's segments and published files."""
        if self._event.retained or not progress:
            return
        since = min(progress.values()) - WINDOW
        names = self._con.execute(
            "SELECT 'segments/' || segment FROM segments WHERE topic = $topic AND max_time >= $since "
            "UNION ALL SELECT path FROM files WHERE topic = $topic AND max_time >= $since",
            {"topic": self._event.topic, "since": since},
        ).fetchall()
        if names:
            self._con.execute(
                f"INSERT INTO recent_{self._event.view} SELECT hash(source, id, idx), time "
                "FROM read_parquet(?, union_by_name = true, hive_partitioning = false) WHERE time >= ?",
                [[str(data / name) for (name,) in names], since],
            )

    def remove_duplicates(self, progress: Mapping[int, datetime]) -> list[tuple[int, int]]:
        """Delete the duplicates from `delta_samples_{view}`; their (row, idx), in log order.

        `progress` is each partition's greatest min(event time, record time) before this batch.
        """
        view = self._event.view
        found = self._retained() if self._event.retained else self._windowed(progress)
        if found:
            self._con.execute(
                f"DELETE FROM delta_samples_{view} WHERE (row, idx) IN (SELECT (row, idx) FROM duplicates_{view})"
            )
        return found

    def remember(self, progress: Mapping[int, datetime]) -> None:
        """Keep this batch's identities, and forget those that no partition can ask for again."""
        if self._event.retained:
            return
        view = self._event.view
        self._con.execute(f"INSERT INTO recent_{view} SELECT identity, time FROM delta_samples_{view}")
        oldest = min(progress.values(), default=_FAR_PAST) - WINDOW
        if oldest - self._pruned > _PRUNE_EVERY:
            self._con.execute(
                f"CREATE OR REPLACE TEMP TABLE recent_{view} AS SELECT * FROM recent_{view} WHERE time >= ?",
                [oldest],
            )
            self._pruned = oldest

    def _windowed(self, progress: Mapping[int, datetime]) -> list[tuple[int, int]]:
        view, con = self._event.view, self._con
        con.execute(
            f"CREATE OR REPLACE TEMP TABLE suspects_{view} AS "
            f"SELECT identity FROM delta_samples_{view} GROUP BY identity HAVING count(*) > 1 "
            f"UNION SELECT identity FROM delta_samples_{view} SEMI JOIN recent_{view} USING (identity)"
        )
        if not con.execute(f"SELECT 1 FROM suspects_{view} LIMIT 1").fetchone():
            return []
        con.execute("CREATE OR REPLACE TEMP TABLE progress_before(part INTEGER, reached TIMESTAMP)")
        if progress:
            con.executemany("INSERT INTO progress_before VALUES (?, ?)", list(progress.items()))
        con.execute(
            f"""CREATE OR REPLACE TEMP TABLE duplicates_{view} AS
            WITH placed AS (
                SELECT row, idx, identity, time, greatest(coalesce(reached, TIMESTAMP '1970-01-01'), max(least(time, record_time)) OVER (
                    PARTITION BY part ORDER BY row, idx ROWS UNBOUNDED PRECEDING)) - INTERVAL 2 MINUTE AS horizon
                FROM delta_samples_{view} LEFT JOIN progress_before USING (part)),
            suspected AS (SELECT * FROM placed SEMI JOIN suspects_{view} USING (identity)),
            before AS (SELECT identity, max(time) AS time FROM recent_{view} SEMI JOIN suspects_{view} USING (identity) GROUP BY identity),
            judged AS (
                SELECT row, idx, suspected.time, horizon, greatest(before.time, max(suspected.time) OVER (
                    PARTITION BY identity ORDER BY row, idx ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)) AS earlier
                FROM suspected LEFT JOIN before USING (identity))
            SELECT row, idx FROM judged WHERE earlier >= horizon AND time >= horizon ORDER BY row, idx"""
        )
        return con.execute(f"FROM duplicates_{view}").fetchall()

    def _retained(self) -> list[tuple[int, int]]:
        """The same identity with the same time or the same content: the first in the log stays."""
        view = self._event.view
        content = content_sql(self._event)
        self._con.execute(
            f"""CREATE OR REPLACE TEMP TABLE duplicates_{view} AS
            WITH new AS (SELECT row, idx, identity, time, {content} AS content FROM delta_samples_{view}),
            known AS (SELECT identity, time, content FROM charges SEMI JOIN new USING (identity))
            SELECT row, idx FROM new
            WHERE (identity, time) IN (SELECT (identity, time) FROM known)
               OR (identity, content) IN (SELECT (identity, content) FROM known)
            UNION
            SELECT row, idx FROM new QUALIFY row_number() OVER (PARTITION BY identity, time ORDER BY row, idx) > 1
            UNION
            SELECT row, idx FROM new QUALIFY row_number() OVER (PARTITION BY identity, content ORDER BY row, idx) > 1
            ORDER BY ALL"""
        )
        return self._con.execute(f"FROM duplicates_{view}").fetchall()
