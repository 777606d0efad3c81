"""Large batches within the memory that DuckDB may use, and what is said when that does not suffice."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka.structs import ConsumerRecord

from pipeline.catalog import Catalog
from pipeline.errors import LedgerError
from pipeline.ledger.store import Ledger
from pipeline.simulate.cloud_events import STRUCTURED
from pipeline.simulate.fleet import Fleet
from pipeline.simulate.fleet_spec import ClusterSpec, FleetSpec, RegionSpec
from pipeline.stream import batch as batches
from pipeline.stream.batch import Batch
from pipeline.stream.intake import Intake
from pipeline.stream.process import Processor
from tests.processing import processed

START = 1_790_000_000
SAMPLES = 150_000
TOPIC = "telemetry.gpu"


def arrays(samples: int) -> Iterator[ConsumerRecord[bytes, bytes]]:
    """Messages of racks of 72 GPUs, as the simulator writes them, until there are so many samples."""
    racks = [
        RegionSpec(
            region=f"region-{i}",
            site=f"site-{i}",
            clusters=[ClusterSpec(cluster=f"gb-{i}", sku="ND_GB300_v6", gpus=7_200)],
        )
        for i in range(4)
    ]
    fleet = Fleet(FleetSpec(provider="halcyon", regions=racks), 3, START, arrays=True)
    done, at = 0, START * 1000
    while done < samples:
        for block in fleet.gpu_blocks(at, at + 1000):
            for message in block.messages():
                done += message.samples
                value = message.value or b""
                yield ConsumerRecord(
                    TOPIC, 0, 0, message.time_ms, 1, None, value, None, -1, len(value), tuple(STRUCTURED)
                )
        at += 1000


@pytest.fixture(scope="module")
def batch() -> Batch:
    records = list(arrays(SAMPLES))
    return Batch({(TOPIC, 0): records}, {(TOPIC, 0): (0, len(records))})


@pytest.fixture
def ledger(tmp_path: Path, catalog: Catalog, request: Any) -> Iterator[Ledger]:
    opened = Ledger(tmp_path, catalog, memory_limit=request.param)
    opened.con.execute("SET temp_directory = ''")  # what does not fit fails, and is not spilt
    yield opened
    opened.close()


@pytest.mark.parametrize("ledger", ["400MB"], indirect=True)
def test_a_batch_of_large_arrays_is_opened_piece_by_piece(
    ledger: Ledger, catalog: Catalog, batch: Batch
) -> None:
    fresh = Batch(batch.records, batch.ranges)
    processor = Processor(ledger.con, catalog, ledger.data, 2**20)
    delta, letters = processed(processor, fresh, ledger.known_from(), {})
    assert letters == []
    assert delta.events >= SAMPLES


@pytest.mark.parametrize("ledger", ["400MB"], indirect=True)
def test_opened_as_one_chunk_they_would_not_fit(
    ledger: Ledger, catalog: Catalog, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the test above rests on: without chunks the same batch fails, and is said with what to change."""
    monkeypatch.setattr(batches, "CHUNK_BYTES", 2**40)
    processor = Processor(ledger.con, catalog, ledger.data, 2**20)
    nothing = cast(Any, SimpleNamespace())
    intake = Intake(ledger, processor, nothing, nothing, lambda _: None)

    async def take() -> None:
        try:
            decoded = await intake.decode(Batch(batch.records, batch.ranges))
            assert decoded
            await intake.take(decoded)
        finally:
            await intake.stop()

    with pytest.raises(LedgerError, match=r"raise memory_limit or lower batch_bytes") as raised:
        asyncio.run(take())
    assert f"{len(batch):,} records" in str(raised.value)
    assert ledger.offsets() == {}
