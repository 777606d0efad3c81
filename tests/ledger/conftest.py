"""A small real ledger: the tables of publishing and sealing, filled by the real roll-up SQL."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest

from pipeline.catalog import Catalog, EventType, load
from pipeline.ledger import publish, seal, views
from pipeline.rollup import aggregate

Row = dict[str, Any]


def moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)


class SmallLedger:
    """`add` is what a delta does: rows to a private segment, partials, bit sets, histograms, marks."""

    def __init__(self, data: Path, catalog: Catalog) -> None:
        self.data, self.catalog = data, catalog
        (data / "segments").mkdir(parents=True, exist_ok=True)
        self.con = duckdb.connect(str(data / "ledger.duckdb"), config={"memory_limit": "600MB"})
        self.con.execute("SET TimeZone = 'UTC'")
        self.con.execute("SET preserve_insertion_order = true")
        self._create()

    def _create(self) -> None:
        run = self.con.execute
        for ddl in (seal.FILES_DDL, *publish.DIRTY_DDL):
            run(ddl)
        run(
            "CREATE TABLE IF NOT EXISTS segments(segment VARCHAR, topic VARCHAR, rows BIGINT, "
            "min_time TIMESTAMP, max_time TIMESTAMP)"
        )
        run("CREATE TABLE IF NOT EXISTS frontier(topic VARCHAR, watermark TIMESTAMP, instant TIMESTAMP)")
        for name, columns in (
            ("alerts", views.ALERTS_COLUMNS),
            ("standing", views.STANDING_COLUMNS),
            ("fates", views.FATES_COLUMNS),
        ):
            run(f"CREATE TABLE IF NOT EXISTS {name}({_ddl(columns)})")
        for event_type in self.catalog.types:
            self._create_type(event_type)

    def _create_type(self, event_type: EventType) -> None:
        run, t = self.con.execute, event_type.view
        if event_type.retained:
            run(f"CREATE TABLE IF NOT EXISTS charges({_ddl(views.raw_columns(event_type))})")
            return
        dimensions = _ddl(tuple((d.name, d.sql_type) for d in event_type.dimensions))
        run(f"CREATE TABLE IF NOT EXISTS series_{t}(series INTEGER, {dimensions})")
        run(f"CREATE TABLE IF NOT EXISTS entities_{t}(series INTEGER, entity VARCHAR, idx INTEGER)")
        bits = "".join(f", {name} BIT" for name in ("observed", *(m.name for m in event_type.marks)))
        for width in views.WIDTHS:
            known = ", known_from TIMESTAMP" if width.name == "10s" else ""
            key = f"series INTEGER, window_start TIMESTAMP{known}"
            partial = _ddl(aggregate.partial_columns(event_type))
            run(f"CREATE TABLE IF NOT EXISTS partials_{t}_{width.name}({key}, {partial})")
            run(f"CREATE TABLE IF NOT EXISTS bits_{t}_{width.name}({key}, block INTEGER{bits})")
            run(
                f"CREATE TABLE IF NOT EXISTS hist_{t}_{width.name}"
                f"({key}, measure VARCHAR, bucket INTEGER, n BIGINT)"
            )

    def add(self, view: str, rows: Sequence[Row], segment: str, known_from: float = 0) -> None:
        """One delta of rows of one event type, in one transaction."""
        event_type = self.catalog.by_view(view)
        columns = views.raw_columns(event_type)
        self.con.execute(f"CREATE OR REPLACE TEMP TABLE given({_ddl(columns)})")
        marks = ", ".join("?" for _ in columns)
        self.con.executemany(
            f"INSERT INTO given VALUES ({marks})",
            [[{"known_from": moment(known_from), **row}.get(name) for name, _ in columns] for row in rows],
        )
        self.add_given(event_type, segment)

    def add_given(self, event_type: EventType, segment: str) -> None:
        """The delta of the rows that stand in the temporary table `given`."""
        run = self.con.execute
        run(f"COPY given TO '{self.data / 'segments' / segment}' (FORMAT parquet)")
        run("BEGIN")
        run(
            f"INSERT INTO segments SELECT '{segment}', '{event_type.topic}', count(*), min(time), max(time) "
            "FROM given"
        )
        if event_type.retained:
            run("INSERT INTO charges SELECT * FROM given")
            run(publish.charges_dirty_sql(event_type, "given"))
        else:
            self._roll_up(event_type)
            run(publish.dirty_sql(event_type.view, "given", "time"))
        run("COMMIT")

    def _roll_up(self, event_type: EventType) -> None:
        run, t = self.con.execute, event_type.view
        dims = ", ".join(d.name for d in event_type.dimensions)
        same = " AND ".join(f"s.{d.name} IS NOT DISTINCT FROM g.{d.name}" for d in event_type.dimensions)
        run(
            f"INSERT INTO series_{t} SELECT (SELECT count(*) FROM series_{t}) + row_number() OVER (), * "
            f"FROM (SELECT DISTINCT {dims} FROM given g "
            f"WHERE NOT EXISTS (SELECT 1 FROM series_{t} s WHERE {same}))"
        )
        run(
            "CREATE OR REPLACE TEMP TABLE samples AS SELECT s.series, g.*, "
            "row_number() OVER (ORDER BY time, source, id, g.idx) AS rank "
            f"FROM given g JOIN series_{t} s ON {same}"
        )
        if event_type.entity:
            self._entities(event_type)
        for width in views.WIDTHS:
            self._roll_up_width(event_type, width)

    def _entities(self, event_type: EventType) -> None:
        run, t, entity = self.con.execute, event_type.view, event_type.entity.name  # type: ignore[union-attr]
        run(
            f"INSERT INTO entities_{t} SELECT series, entity, (SELECT count(*) FROM entities_{t} e WHERE "
            "e.series = n.series) + row_number() OVER (PARTITION BY series ORDER BY entity) - 1 FROM "
            f"(SELECT DISTINCT series, {entity} AS entity FROM samples ANTI JOIN entities_{t} e "
            f"ON e.series = samples.series AND e.entity = samples.{entity}) n"
        )

    def _roll_up_width(self, event_type: EventType, width: views.Width) -> None:
        run, t, w = self.con.execute, event_type.view, width.name
        known = ", known_from" if w == "10s" else ""
        start = f"time_bucket(INTERVAL {width.seconds} SECONDS, window_start) AS window_start"
        known_from = ", (SELECT any_value(known_from) FROM given) AS known_from" if known else ""
        replaced = f"SELECT * REPLACE ({start}) {known_from}"
        partials = f"{replaced} FROM ({aggregate.partials_sql(event_type, 'samples')})"
        run(
            f"INSERT INTO partials_{t}_{w} BY NAME SELECT series, window_start{known}, "
            f"{aggregate.merge_sql(event_type)} FROM ({partials}) GROUP BY ALL"
        )
        if event_type.entity:
            indexed = (
                "SELECT s.series, time_bucket(INTERVAL 10 SECONDS, time) AS window_start, "
                "e.idx AS entity_idx, "
                f"{aggregate.marks_sql(event_type)} FROM samples s JOIN entities_{t} e "
                f"ON e.series = s.series AND e.entity = s.{event_type.entity.name}"
            )
            bits = f"{replaced} FROM ({aggregate.bits_sql(event_type, f'({indexed})')})"
            run(
                f"INSERT INTO bits_{t}_{w} BY NAME SELECT series, window_start{known}, block, "
                f"{aggregate.merge_bits_sql(event_type)} FROM ({bits}) GROUP BY ALL"
            )
        if histogram := aggregate.histogram_sql(event_type, "samples"):
            run(f"INSERT INTO hist_{t}_{w} BY NAME {replaced} FROM ({histogram})")

    def watermark(self, seconds: float) -> None:
        """Every topic's watermark."""
        self.con.execute("DELETE FROM frontier")
        at = moment(seconds)
        for topic in self.catalog.topics:
            self.con.execute("INSERT INTO frontier VALUES (?, ?, ?)", [topic, at, at])

    def publish(self, **options: Any) -> int:
        return publish.publish(self.con.cursor(), self.data, self.catalog, **options)

    def seal(self, **options: Any) -> int:
        return seal.seal(self.con.cursor(), self.data, self.catalog, **options)

    def close(self) -> None:
        self.con.close()


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


@pytest.fixture
def make_ledger(catalog: Catalog) -> type[SmallLedger]:
    return SmallLedger


@pytest.fixture
def rows() -> Any:
    """The makers of rows: `rows.gpu(…)`, `rows.charge(…)`, and `rows.moment(…)`."""

    class Rows:
        gpu = staticmethod(gpu_row)
        charge = staticmethod(charge_row)
        moment = staticmethod(moment)

    return Rows
