"""A real ledger with deltas made from plain rows: what the stream room does, without Kafka."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.catalog import Catalog, EventType, load
from pipeline.history import publish, seal
from pipeline.history.recover import recover
from pipeline.ledger import files
from pipeline.ledger.store import Ledger
from pipeline.rollup import aggregate
from pipeline.rollup.delta import Addition, Delta, Fate, Segment
from pipeline.views import published

Row = dict[str, Any]


def moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)


class SmallLedger:
    """A ledger and what a batch of rows does to it: `add` writes a private segment and applies the delta."""

    def __init__(self, data: Path, catalog: Catalog) -> None:
        self.data, self.catalog = data, catalog
        self.ledger = Ledger(data, catalog)
        recover(self.ledger.cursor(), data, self.ledger.fence)
        self.con = self.ledger.con

    def add(self, view: str, rows: Sequence[Row], segment: str | None = None) -> None:
        """One delta of rows of one event type, in one transaction."""
        event_type = self.catalog.by_view(view)
        columns = (*published.raw_columns(event_type), ("record_time", "TIMESTAMP"))
        self.con.execute(f"CREATE OR REPLACE TEMP TABLE given({_ddl(columns)})")
        self.con.executemany(
            f"INSERT INTO given VALUES ({', '.join('?' for _ in columns)})",
            [[{"record_time": row["time"], **row}.get(name) for name, _ in columns] for row in rows],
        )
        self.add_given(event_type, segment)

    def add_given(self, event_type: EventType, segment: str | None = None) -> None:
        """The delta of the rows that stand in the temporary table `given`."""
        dimensions = ", ".join(f'"{d.name}"' for d in event_type.dimensions)
        series = f"hash({dimensions}) AS series"
        self.con.execute(
            f"CREATE OR REPLACE TEMP TABLE batch AS SELECT * EXCLUDE (known_from), {series}, "
            "hash(source, id, idx) AS identity, 0 AS part FROM given"
        )
        met = self._arrow(f"SELECT DISTINCT {series}, {dimensions} FROM given")
        segments = (self._segment(event_type, segment),)
        added = replace(self._rolled_up(event_type), series=met)
        self.ledger.apply(Delta(added=(added,), written=lambda: segments), {}, 0)

    def _rolled_up(self, event_type: EventType) -> Addition:
        added = Addition(event_type.view, arrivals=self._arrow(aggregate.arrivals_sql(event_type, "batch")))
        if event_type.retained:
            return replace(added, charges=self._arrow(aggregate.charges_sql(event_type, "batch")))
        return replace(
            added,
            partials=self._arrow(aggregate.partials_sql(event_type, "batch")),
            histogram=self._arrow(aggregate.histogram_sql(event_type, "batch")),
            entities=self._arrow(aggregate.entities_sql(event_type, "batch") if event_type.entity else None),
            pulses=self._arrow(aggregate.pulses_sql(event_type, "batch")),
        )

    def _arrow(self, sql: str | None) -> pa.Table | None:
        return self.con.sql(sql).to_arrow_table() if sql else None

    def _segment(self, event_type: EventType, name: str | None) -> Segment:
        name = name or f"{event_type.view}-{files.token()}.parquet"
        [(of_before,)] = self.con.execute("SELECT count(known_from) > 0 FROM given").fetchall()
        names = [c for c, _ in published.raw_columns(event_type) if c != "known_from" or of_before]
        columns = ", ".join(f'"{name}"' for name in names)
        self.con.execute(
            f"COPY (SELECT {columns} FROM given) TO '{self.data / 'segments' / name}' (FORMAT parquet)"
        )
        [counted] = self.con.execute("SELECT count(*), min(time), max(time) FROM given").fetchall()
        return Segment(name, event_type.topic, *counted, event_type.topic)

    def quarantine(self, rows: Sequence[Row]) -> None:
        """A delta that has nothing but quarantined samples."""
        columns = published.QUARANTINE_COLUMNS
        self.con.execute(f"CREATE OR REPLACE TEMP TABLE given({_ddl(columns)})")
        self.con.executemany(
            f"INSERT INTO given VALUES ({', '.join('?' for _ in columns)})",
            [[row.get(name) for name, _ in columns] for row in rows],
        )
        name = f"quarantine-{files.token()}.parquet"
        self.con.execute(f"COPY given TO '{self.data / 'segments' / name}' (FORMAT parquet)")
        [counted] = self.con.execute("SELECT count(*), min(time), max(time) FROM given").fetchall()
        segments = (Segment(name, "quarantine", *counted, "telemetry.gpu"),)
        self.ledger.apply(Delta(written=lambda: segments), {}, 0)

    def fates(self, *fates: Fate) -> None:
        self.ledger.apply(Delta(fates=fates), {}, 0)

    def watermark(self, seconds: float) -> None:
        """Moves every topic's watermark."""
        self.ledger.tick({topic: moment(seconds) for topic in self.catalog.topics}, 0)

    def publish(self, **options: Any) -> int:
        return publish.publish(self.ledger.cursor(), self.data, self.catalog, **options)

    def seal(self, **options: Any) -> int:
        return seal.seal(self.ledger.cursor(), self.data, self.catalog, **options)

    def segments(self) -> int:
        """Private files that are still there."""
        return len(list((self.data / "segments").iterdir()))

    def close(self) -> None:
        self.ledger.close()


_KILLED = """
import os, signal, sys
from pathlib import Path
from pipeline.catalog import load
from pipeline.history import compact, publish, recover, seal
from pipeline.ledger.store import Ledger
from pipeline.ledger.transaction import Hooks
data, action, name, nth = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
reached = 0
def step(done):
    global reached
    reached += done == name
    if reached == nth:
        os.kill(os.getpid(), signal.SIGKILL)
catalog = load()
ledger = Ledger(data, catalog)
hooks = Hooks(step=step)
recover.recover(ledger.cursor(), data)
actions = {
    "seal": lambda con: seal.seal(con, data, catalog, hooks=hooks),
    "publish": lambda con: publish.publish(con, data, catalog, hooks=hooks),
    "compact": lambda con: compact.compact_history(con, data, catalog, hooks=hooks),
    "settle": lambda con: compact.settle_rollups(con, data, catalog, hooks=hooks),
}
actions[action](ledger.cursor())
"""


def killed_at(data: Path, action: str, step: str, nth: int = 1) -> None:
    """Runs `action` in a process of its own that is killed with SIGKILL when `step` is done the nth time."""
    done = subprocess.run(
        [sys.executable, "-c", _KILLED, str(data), action, step, str(nth)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


def _ddl(columns: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f'"{name}" {kind}' for name, kind in columns)


def gpu_row(at: float, gpu: int = 0, cluster: str = "c0", id: str | None = None, **measures: Any) -> Row:
    """A sample of one GPU; `at` in epoch seconds."""
    return {
        "time": moment(at),
        "provider": "azure",
        "region": "eastus",
        "site": "s1",
        "cluster": cluster,
        "sku": "gb300",
        "gpu": f"{cluster}-{gpu}",
        "node": f"n{gpu // 8}",
        "source": f"/gigawatch/sim/eastus/{cluster}/n{gpu // 8}",
        "id": id or f"{gpu}-{at}",
        "idx": 0,
        **measures,
    }


def queue_row(at: float, *waits: float, queue: str = "q0", **measures: Any) -> Row:
    """A report of one queue with the waits of the jobs admitted since the last."""
    return {
        "time": moment(at),
        "provider": "azure",
        "region": "eastus",
        "cluster": "c0",
        "queue": queue,
        "workload_class": "training",
        "admission_wait_seconds": list(waits),
        "source": f"/queues/{queue}",
        "id": str(at),
        "idx": 0,
        **measures,
    }


def charge_row(at: float, issued: float, cost: str, id: str, **fields: Any) -> Row:
    """A charge for the hour that starts at `at`, issued (event time) at `issued`."""
    return {
        "time": moment(issued),
        "ServiceProviderName": "azure",
        "RegionId": "eastus",
        "SkuId": "gb300",
        "ChargeCategory": "Usage",
        "BillingCurrency": "USD",
        "ResourceId": "r1",
        "ChargePeriodStart": moment(at),
        "ChargePeriodEnd": moment(at + 3600),
        "BilledCost": cost,
        "Tags": json.dumps({}),
        "source": "/billing",
        "id": id,
        "idx": 0,
        **fields,
    }


@pytest.fixture(scope="session")
def catalog() -> Catalog:
    return load()


@pytest.fixture
def ledger(tmp_path: Path, catalog: Catalog) -> Iterator[SmallLedger]:
    small = SmallLedger(tmp_path / "data", catalog)
    yield small
    small.close()


@pytest.fixture(scope="session")
def make_ledger(catalog: Catalog) -> type[SmallLedger]:
    return SmallLedger


@pytest.fixture
def kill() -> Any:
    """`kill(data, action, step, nth=1)`: see `killed_at`."""
    return killed_at


@pytest.fixture(scope="session")
def rows() -> Any:
    """The makers of rows: `rows.gpu(…)`, `rows.queue(…)`, `rows.charge(…)`, and `rows.moment(…)`."""

    class Rows:
        gpu = staticmethod(gpu_row)
        queue = staticmethod(queue_row)
        charge = staticmethod(charge_row)
        moment = staticmethod(moment)

    return Rows
