"""Which instants are judged: all of a backlog, however it is cut, and one a day where nothing is heard."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiokafka.structs import ConsumerRecord

from pipeline.catalog import Catalog
from pipeline.clauses import load as load_contract
from pipeline.clauses import plan_of
from pipeline.history import compact, retention
from pipeline.ledger.seen import fold_seen
from pipeline.ledger.store import Ledger
from pipeline.stream.batch import Batch
from pipeline.stream.process import Processor
from tests.processing import processed

GPU = "telemetry.gpu"
T = 1_790_000_000 // 86_400 * 86_400
HOUR = 3600
CONTRACT = """
metadata: {id: acme, version: "1"}
parties: {customer: c, supplier: s}
term: {start: 2024-01-01, end: 2030-01-01}
currency: USD
timezone: UTC
capacity:
  - {id: floor, committed_gpus: 2, for: 2m}
  - {id: by-cluster, committed_gpus: 1, by: [cluster]}
"""


class Fed:
    """A ledger that is fed GPU samples, and evaluates up to the newest."""

    def __init__(self, data: Path, catalog: Catalog, contract: Path) -> None:
        self.catalog = catalog
        self.ledger = Ledger(data, catalog)
        self.processor = Processor(self.ledger.con, catalog, data, 1_000_000)
        contracts = [load_contract(contract)]
        self.ledger.use(contracts, plan_of(contracts, catalog), 0.0)

    def feed(self, records: list[ConsumerRecord], most: int | None = None) -> None:
        low = self.ledger.offsets().get((GPU, 0), 0)
        batch = Batch({(GPU, 0): records}, {(GPU, 0): (low, low + len(records))})
        delta, _ = processed(self.processor, batch, self.ledger.known_from(), self.ledger.progress())
        lateness = self.catalog.by_topic(GPU).lateness
        newest = max(self.ledger.progress().values(), default=None)
        reached = [at for at in (*delta.progress.values(), newest) if at is not None]
        marks = {GPU: mark(max(reached), lateness)}
        self.ledger.apply(delta, marks, 0.0, most)
        while self.ledger.behind:
            self.ledger.tick(marks, 0.0, most)

    def keep_house(self) -> None:
        con = self.ledger.cursor()
        compact.compact_partials(con, self.catalog, self.ledger.fence)
        fold_seen(con, self.catalog.by_topic(GPU), self.ledger.least_evaluated(con, GPU))
        retention.prune(con, self.ledger.data, self.catalog, fence=self.ledger.fence)

    def said(self) -> dict[str, list[Any]]:
        """Alerts, standing and readings, in order."""
        ask = self.ledger.con.execute
        return {
            "alerts": ask(
                'SELECT "time", alertname, clause, labels, state, active_at, fired_at, resolved_at, observed '
                "FROM alerts ORDER BY ALL"
            ).fetchall(),
            "standing": ask("SELECT * FROM standing ORDER BY ALL").fetchall(),
            "readings": ask("SELECT * FROM readings ORDER BY ALL").fetchall(),
        }


def naive(t: float) -> datetime:
    return datetime.fromtimestamp(t, UTC).replace(tzinfo=None)


def mark(reached: datetime, lateness: int) -> datetime:
    return reached - timedelta(seconds=lateness)


def record(catalog: Catalog, n: int, at: float, gpu: str, cluster: str = "c1", health: str = "ok") -> Any:
    time = datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")
    value = (
        f'{{"specversion":"1.0","id":"{n}","source":"/n","type":"gpu.utilization.v1","time":"{time}","data":'
        f'{{"provider":"a","region":"r","site":"s","cluster":"{cluster}","sku":"x","node":"n","gpu":"{gpu}",'
        f'"health":"{health}"}}}}'
    ).encode()
    headers = (("content-type", b"application/cloudevents+json"),)
    return ConsumerRecord(GPU, 0, n, round(at * 1000), 1, None, value, None, -1, len(value), headers)  # type: ignore[arg-type]


def thirty_hours(catalog: Catalog) -> list[Any]:
    """Stretches of two clusters, one of which goes away; short outages, a long silence, a return 30 h later."""
    found = []
    for start, minutes, clusters in (
        (0, 12, ("c1", "c2")), (1, 6, ("c1",)), (3, 10, ("c1", "c2")), (29.8, 10, ("c1", "c2")),
    ):  # fmt: skip
        for step in range(0, minutes * 60, 30):
            for cluster in clusters:
                at = T + start * HOUR + step + (7 if cluster == "c2" else 0)
                health = "failed" if step % 600 > 300 else "ok"
                found.append((at, f"g-{cluster}", cluster, health))
    return [record(catalog, n, *rest) for n, rest in enumerate(sorted(found))]


@pytest.fixture
def fed(tmp_path: Path, catalog: Catalog) -> Iterator[Callable[[], Fed]]:
    contract = tmp_path / "acme.yaml"
    contract.write_text(CONTRACT)
    made: list[Fed] = []

    def make() -> Fed:
        made.append(Fed(tmp_path / f"data-{len(made)}", catalog, contract))
        return made[-1]

    yield make
    for one in made:
        one.ledger.close()


def test_live_or_replayed_thirty_hours_give_the_same_alerts_standing_and_readings(
    fed: Callable[[], Fed], catalog: Catalog
) -> None:
    records = thirty_hours(catalog)
    live, replayed = fed(), fed()
    for n, at in enumerate(range(0, len(records), 5)):
        live.feed(records[at : at + 5])
        if n % 20 == 0:
            live.keep_house()
    replayed.feed(records[:-1], most=100)
    replayed.keep_house()
    replayed.feed(records[-1:], most=100)
    assert live.said() == replayed.said()
    fired = {(row[1], row[0].timestamp()) for row in live.said()["alerts"] if row[4] == "firing"}
    assert {name for name, _ in fired} >= {"CapacityShortfall", "TelemetrySilent"}
    assert min(at for name, at in fired if name == "CapacityShortfall") < T + 14 * HOUR


def test_a_record_of_1970_before_a_backlog_changes_nothing_of_what_is_said_of_the_backlog(
    fed: Callable[[], Fed], catalog: Catalog
) -> None:
    with_it, without = fed(), fed()
    records = thirty_hours(catalog)[:30]
    with_it.feed([record(catalog, 999, 7, "g-old", "c1"), *records])
    without.feed(records)

    def since(one: Fed) -> Any:
        return {
            name: [row for row in rows if row[0] > naive(T)] if name != "standing" else rows
            for name, rows in one.said().items()
        }

    assert since(with_it) == since(without)
    judged = with_it.ledger.con.execute('SELECT count(DISTINCT "time") FROM readings').fetchone()
    assert judged and judged[0] < 5_000


def test_what_is_still_to_be_evaluated_is_not_forgotten(fed: Callable[[], Fed], catalog: Catalog) -> None:
    one = fed()
    day = 24 * HOUR
    low = one.ledger.offsets().get((GPU, 0), 0)
    records = [record(catalog, n, T + n * day, "g") for n in range(6)]
    batch = Batch({(GPU, 0): records}, {(GPU, 0): (low, low + 6)})
    delta, _ = processed(one.processor, batch, one.ledger.known_from(), one.ledger.progress())
    one.ledger.apply(delta, {GPU: mark(max(delta.progress.values()), 5)}, 0.0, 10)
    one.keep_house()
    left = one.ledger.con.execute("SELECT count(*) FROM partials_gpu_10s").fetchone()
    assert one.ledger.behind and left == (6,)
