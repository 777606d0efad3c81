"""The made history is like a real one: what the pipeline publishes of a small fleet has the same files, columns, rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from aiokafka.structs import ConsumerRecord

from pipeline import catalog
from pipeline.clauses import load_all, plan_of
from pipeline.history import publish
from pipeline.history.query import ask, open_views
from pipeline.ledger.store import Ledger
from pipeline.settings import load_settings
from pipeline.simulate.cloud_events import STRUCTURED
from pipeline.simulate.fleet import Fleet
from pipeline.simulate.fleet_spec import FleetSpec
from pipeline.stream.batch import Batch
from pipeline.stream.process import Processor
from pipeline.views.published import published_tables
from tests.bench.test_figures import load
from tests.processing import processed

MIDNIGHT = 1_795_564_800  # 2026-11-25T00:00:00Z
MINUTES = 12
NEWEST = MIDNIGHT + MINUTES * 60
TYPES = catalog.load()
ROLLED = [
    f"{event.view}_{width}"
    for event in TYPES.types
    if not event.retained
    for width in ("10s", "1m", "15m", "1h", "1d")
]
FILED = [*ROLLED, "gpu_minutes"]


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    return load("history")


@pytest.fixture(scope="module")
def spec() -> FleetSpec:
    """One region: four racks, 120 nodes, two queues, two feeds."""
    small: FleetSpec = load("history_rows").fleet_spec(regions=1, racks=2)
    return small


@pytest.fixture(scope="module")
def made(maker: ModuleType, spec: FleetSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    data: Path = tmp_path_factory.mktemp("made")
    maker.make(data, NEWEST, days=0, spec=spec)
    return data


@pytest.fixture(scope="module")
def real(spec: FleetSpec, made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the pipeline publishes of twelve minutes of that fleet, under the contract of the made history."""
    data: Path = tmp_path_factory.mktemp("real")
    ledger = Ledger(data, TYPES)
    contracts = load_all(made / "contracts")
    ledger.use(contracts, plan_of(contracts, TYPES), NEWEST)
    processor = Processor(ledger.con, TYPES, data, load_settings().max_message_bytes)
    for batch, reached in batches(Fleet(spec, 1, MIDNIGHT)):
        delta, letters = processed(processor, batch, ledger.known_from(), ledger.progress())
        assert not letters
        ledger.apply(delta, {topic: moment(reached - 5) for topic in TYPES.topics}, reached)
    publish.publish(ledger.cursor(), data, TYPES)
    ledger.close()
    return data


def moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)


def batches(fleet: Fleet) -> Iterator[tuple[Batch, int]]:
    """The fleet's messages as Kafka would have them, in one partition a topic, a batch for each minute."""
    offsets: dict[str, int] = defaultdict(int)
    for start in range(MIDNIGHT, NEWEST + 60, 60):
        records: dict[tuple[str, int], list[Any]] = defaultdict(list)
        for at in range(start * 1000, (start + 60) * 1000, 1000):
            for block in fleet.step(at, at + 1000):
                for message in block.messages():
                    records[block.topic, 0].append(record(block.topic, offsets[block.topic], message))
                    offsets[block.topic] += 1
        ranges = {place: (found[0].offset, found[-1].offset + 1) for place, found in records.items()}
        yield Batch(records, ranges), start + 60


def record(topic: str, offset: int, message: Any) -> ConsumerRecord[bytes, bytes]:
    key, value = message.key, message.value
    return ConsumerRecord(
        topic, 0, offset, message.time_ms + 100, 1, key, value, None, len(key), len(value), tuple(STRUCTURED)
    )  # fmt: skip


def rows(data: Path, sql: str) -> list[tuple[Any, ...]]:
    with open_views(data, TYPES) as con:
        return list(ask(con, sql).rows)


def test_every_file_has_the_columns_of_its_table_in_their_order(made: Path, real: Path) -> None:
    for data in (made, real):
        with open_views(data, TYPES) as con:
            for table in published_tables(TYPES):
                for path in data.glob(table.glob):
                    found = con.execute(
                        f"DESCRIBE SELECT * FROM read_parquet('{path}', hive_partitioning = false)"
                    )
                    columns = tuple((name, kind) for name, kind, *_ in found.fetchall())
                    assert columns == table.columns, path


@pytest.mark.parametrize("view", FILED)
def test_roll_ups_are_in_the_same_files(view: str, made: Path, real: Path) -> None:
    table = next(table for table in published_tables(TYPES) if table.view == view)
    of_made, of_real = ({str(p.relative_to(data)) for p in data.glob(table.glob)} for data in (made, real))
    assert of_made and of_made == of_real


@pytest.mark.parametrize("view", ROLLED)
def test_whole_windows_have_the_same_series(view: str, made: Path, real: Path) -> None:
    """Of windows of ten seconds six together: who reports in which is chance."""
    event = TYPES.by_view(view.partition("_")[0])
    dimensions = ", ".join(d.name for d in event.dimensions)
    counted = ", max(gpus) AS gpus" if event.entity and not view.endswith("_10s") else ""
    sql = (
        f"SELECT time_bucket(INTERVAL 1 MINUTE, window_start) AS t, {dimensions}{counted} FROM {view} "
        f"WHERE window_start < make_timestamp({NEWEST - 60}000000) GROUP BY ALL ORDER BY ALL"
    )
    found, expected = rows(made, sql), rows(real, sql)
    assert expected and found == expected


def test_measures_are_of_the_size_of_measured_ones(made: Path, real: Path) -> None:
    for view, column in (
        ("gpu", "power_watts_mean"),
        ("gpu", "temperature_celsius_mean"),
        ("queue", "running_gpus_mean"),
    ):
        low, high = rows(real, f"SELECT min({column}), max({column}) FROM {view}_15m")[0]
        found = rows(made, f"SELECT min({column}), max({column}) FROM {view}_15m")[0]
        assert found[1] >= low / 10 and found[0] <= high * 10, (view, column, found, (low, high))


def test_a_minute_has_the_same_readings(made: Path, real: Path) -> None:
    """But for those of the tranche, which wait for bills."""
    at = MIDNIGHT + (MINUTES - 2) * 60
    sql = (
        "SELECT contract, clause, alertname, by_values, unit FROM readings "
        f"WHERE \"time\" = make_timestamp({at}000000) AND alertname NOT LIKE 'Tranche%' ORDER BY ALL"
    )
    found, expected = rows(made, sql), rows(real, sql)
    assert found and found == expected
