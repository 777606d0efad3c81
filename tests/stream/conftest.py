"""Kafka records, made by hand as aiokafka makes them, and what becomes of them without a broker."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiokafka.structs import ConsumerRecord

from pipeline.catalog import Catalog, load
from pipeline.ledger.store import Ledger
from pipeline.rollup.delta import Delta, Place
from pipeline.stream.batch import Batch
from pipeline.stream.process import DeadLetter, Processor
from pipeline.stream.source_topics import SourceTopic
from tests.processing import processed

STRUCTURED = [("content-type", b"application/cloudevents+json; charset=UTF-8")]
T0 = 1_790_000_000
"""An instant of the grid (epoch seconds, in 2026): where the tests' event time begins."""
MAX_BYTES = 1_000_000

Headers = Sequence[tuple[str, bytes | None]]

GPU: dict[str, Any] = {
    "provider": "azure",
    "region": "eastus",
    "site": "s1",
    "cluster": "c1",
    "sku": "gb300",
    "gpu": "GPU-1",
    "node": "n1",
    "utilization_ratio": 0.5,
    "power_watts": 700.5,
    "xid": 0,
    "health": "ok",
}
QUEUE: dict[str, Any] = {
    "provider": "azure",
    "region": "eastus",
    "cluster": "c1",
    "queue": "q1",
    "workload_class": "training",
    "pending_jobs": 3,
    "oldest_wait_seconds": 12.5,
    "admission_wait_seconds": [0.5, 30],
}
ENERGY: dict[str, Any] = {
    "provider": "azure",
    "region": "eastus",
    "site": "s1",
    "feed": "f1",
    "it_power_watts": 5e6,
    "facility_power_watts": 6.5e6,
}
CHARGE: dict[str, Any] = {
    "ServiceProviderName": "azure",
    "RegionId": "eastus",
    "SkuId": "ND_GB300_v6",
    "ChargeCategory": "Usage",
    "BillingCurrency": "EUR",
    "ResourceId": "/r/1",
    "ChargePeriodStart": "2026-09-21T00:00:00Z",
    "ChargePeriodEnd": "2026-09-21T01:00:00Z",
    "BilledCost": "12.50",
}
SAMPLES = {
    "telemetry.gpu": GPU,
    "telemetry.queue": QUEUE,
    "telemetry.energy": ENERGY,
    "telemetry.billing": CHARGE,
}
TYPES = {
    "telemetry.gpu": "gpu.utilization.v1",
    "telemetry.queue": "queue.depth.v1",
    "telemetry.energy": "energy.reading.v1",
    "telemetry.billing": "billing.charge.v1",
}


def rfc3339(seconds: float) -> str:
    """Epoch seconds → `2026-09-21T13:33:20.000Z`."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def naive(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)


def record(
    value: bytes | None,
    headers: Headers = STRUCTURED,
    *,
    topic: str = "telemetry.gpu",
    part: int = 0,
    offset: int = 0,
    appended: float = T0,
) -> ConsumerRecord:
    """A record as the consumer hands it over; `appended` is its LogAppendTime in epoch seconds."""
    size = len(value or b"")
    return ConsumerRecord(
        topic, part, offset, int(appended * 1000), 1, None, value, None, -1, size, tuple(headers)
    )  # type: ignore[arg-type]


def event(
    topic: str = "telemetry.gpu",
    *,
    at: float = T0,
    id: str = "1",
    source: str = "/sim/n1",
    data: Any = None,
    binary: bool = False,
    appended: float | None = None,
    part: int = 0,
    offset: int = 0,
    envelope: Mapping[str, Any] | None = None,
    headers: Headers | None = None,
    **fields: Any,
) -> ConsumerRecord:
    """A good CloudEvent of `topic`; `fields` change its sample, `envelope` its attributes (None removes one)."""
    sample = {k: v for k, v in {**SAMPLES[topic], **fields}.items() if v is not ...}
    attributes = {"specversion": "1.0", "id": id, "source": source, "type": TYPES[topic], "time": rfc3339(at)}
    attributes = {k: v for k, v in {**attributes, **(envelope or {})}.items() if v is not ...}
    data = sample if data is None else data
    if binary:
        own = [(f"ce_{name}", text.encode()) for name, text in attributes.items()]
        value, found = json.dumps(data).encode(), [*own, ("content-type", b"application/json")]
    else:
        value, found = json.dumps({**attributes, "data": data}).encode(), STRUCTURED
    return record(
        value,
        found if headers is None else headers,
        topic=topic,
        part=part,
        offset=offset,
        appended=at if appended is None else appended,
    )


def batch_of(*records: ConsumerRecord, after: Mapping[Place, int] | None = None) -> Batch:
    """A batch of these records, numbered in order from where each partition stands (`after`, else 0)."""
    places: dict[Place, list[ConsumerRecord]] = {}
    start = dict(after or {})
    for one in records:
        place = (one.topic, one.partition)
        own = places.setdefault(place, [])
        own.append(_numbered(one, start.get(place, 0) + len(own)))
    ranges = {p: (start.get(p, 0), start.get(p, 0) + len(own)) for p, own in places.items()}
    return Batch(places, ranges)


def _numbered(one: ConsumerRecord, offset: int) -> ConsumerRecord:
    return record(
        one.value,
        one.headers,
        topic=one.topic,
        part=one.partition,
        offset=offset,
        appended=one.timestamp / 1000,
    )


class Pipeline:
    """A ledger and a processor: what the intake does with a batch, without Kafka and the clock."""

    def __init__(
        self,
        data: Path,
        catalog: Catalog,
        max_bytes: int = MAX_BYTES,
        sources: Sequence[SourceTopic] = (),
        **options: Any,
    ) -> None:
        self.data, self.catalog = data, catalog
        self.ledger = Ledger(data, catalog, **options)
        self.processor = Processor(self.ledger.con, catalog, data, max_bytes, sources=sources)
        progress = self.ledger.progress()
        self.processor.remember(progress, self.ledger.reported())

    def process(self, batch: Batch) -> tuple[Delta, list[DeadLetter]]:
        return processed(self.processor, batch, self.ledger.known_from(), self.ledger.progress())

    def take(
        self, *records: ConsumerRecord, watermarks: Mapping[str, float] | None = None
    ) -> tuple[Delta, list[DeadLetter]]:
        """Process and apply one batch of records, numbered from where the ledger stands."""
        delta, letters = self.process(batch_of(*records, after=self.ledger.offsets()))
        self.apply(delta, watermarks)
        return delta, letters

    def apply(self, delta: Delta, watermarks: Mapping[str, float] | None = None) -> Any:
        return self.ledger.apply(delta, {t: naive(at) for t, at in (watermarks or {}).items()}, float(T0))

    def tick(self, **watermarks: float) -> Any:
        """Move the watermarks of `gpu=…, queue=…` (short names), in epoch seconds."""
        marks = {self.catalog.by_view(view).topic: naive(at) for view, at in watermarks.items()}
        return self.ledger.tick(marks, float(T0))

    def sql(self, text: str) -> list[tuple[Any, ...]]:
        return self.ledger.con.execute(text).fetchall()

    def fates(self) -> dict[tuple[str, str], int]:
        """(fate, reason) → events."""
        rows = self.sql("SELECT fate, reason, sum(n)::BIGINT FROM fates WHERE fate <> 'in' GROUP BY ALL")
        return {(fate, reason): n for fate, reason, n in rows}

    def aside(self) -> dict[tuple[str, str], int]:
        """(field, reason) → samples that were taken in without it."""
        rows = self.sql("SELECT field, reason, sum(n)::BIGINT FROM set_aside GROUP BY ALL")
        return {(field, reason): n for field, reason, n in rows}

    def quarantine(self, columns: str) -> list[tuple[Any, ...]]:
        """These columns of what waits to be sealed into the quarantine, in the order of the log."""
        files = f"read_parquet('{self.data}/segments/quarantine-*.parquet')"
        return self.sql(f"SELECT {columns} FROM {files} ORDER BY topic, part, record_offset, idx, field")

    def close(self) -> None:
        self.ledger.close()


@pytest.fixture(scope="session")
def catalog() -> Catalog:
    return load()


@pytest.fixture
def make_pipeline(catalog: Catalog) -> Iterator[Callable[..., Pipeline]]:
    """`make_pipeline(data, catalog=…)`: an open pipeline, closed after the test."""
    made: list[Pipeline] = []

    def make(data: Path, own: Catalog = catalog, **options: Any) -> Pipeline:
        made.append(Pipeline(data, own, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def pipeline(tmp_path: Path, make_pipeline: Callable[..., Pipeline]) -> Pipeline:
    return make_pipeline(tmp_path / "data")


@pytest.fixture(scope="session")
def make() -> Any:
    """The makers: `make.event(…)`, `make.record(…)`, `make.batch(…)`, `make.rfc3339(…)`, `make.T0`, …"""

    class Makers:
        event = staticmethod(event)
        record = staticmethod(record)
        batch = staticmethod(batch_of)
        rfc3339 = staticmethod(rfc3339)
        naive = staticmethod(naive)

    for name, value in {
        "T0": T0, "STRUCTURED": STRUCTURED, "SAMPLES": SAMPLES, "TYPES": TYPES, "MAX_BYTES": MAX_BYTES,
        "GPU": GPU, "Pipeline": Pipeline,
    }.items():  # fmt: skip
        setattr(Makers, name, value)
    return Makers
