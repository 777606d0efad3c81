"""SIGTERM under load, and a contract that changes while the pipeline runs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.simulate.fleet import Fleet
from pipeline.simulate.fleet_spec import FleetSpec
from pipeline.simulate.simulator import fill

GPUS, MINUTES = 8_000, 30


@pytest.mark.slow
def test_a_stop_under_load_ends_by_itself_and_the_next_start_goes_on_where_it_was(
    kafka: Any, telemetry_topics: Any, worker_factory: Any, background: Any
) -> None:
    telemetry_topics()
    fleet = Fleet(
        FleetSpec.uniform(GPUS, clusters=8), 7, start := int(time.time()) // 60 * 60 - 60 * MINUTES - 60
    )
    writing = background(fill(kafka.bootstrap, fleet, start, start + 60 * MINUTES, gpus_only=True))
    worker = worker_factory(kafka.bootstrap, batch_records=10_000)
    for _ in range(3):
        worker.start().await_status("something taken in", lambda s: s["events"]["in"])
        time.sleep(0.7)
        began, said = time.monotonic(), worker.log.stat().st_size
        assert worker.stop() == 0, worker.said()
        print(f"stopped in {time.monotonic() - began:.1f} s after {worker.status()['events']['in']:,} events")
        assert worker.status()["state"] == "stopped"
        # A stop publishes what it can in its few seconds.
        if b"was cut short" not in worker.log.read_bytes()[said:]:
            _all_readable(worker)
    sent = writing.result()
    worker.start().await_taken_in().await_published()
    assert worker.stop() == 0, worker.said()
    _all_readable(worker)
    assert worker.one("SELECT count(DISTINCT (source, id, idx)) FROM gpu") == sent.samples["telemetry.gpu"]
    assert worker.one("SELECT count(*) FROM gpu") == sent.samples["telemetry.gpu"]


def _all_readable(worker: Any) -> None:
    """What the stopped pipeline says it took in is what anybody can read."""
    taken_in = worker.status()["by_topic"]["telemetry.gpu"]["aggregated"]
    for sql in (
        "SELECT count(*) FROM gpu",
        *(f"SELECT sum(samples) FROM gpu_{w}" for w in ("10s", "1m", "15m", "1h", "1d")),
    ):
        assert worker.one(sql) == taken_in, sql


CONTRACT = """\
metadata: {{id: changing, version: "{version}"}}
parties: {{customer: Northline Mobile, supplier: Halcyon Compute}}
term: {{start: 2020-01-01, end: 2040-01-01}}
currency: USD
timezone: UTC
capacity:
  - {{id: floor, text: The floor., match: {{region: eu-west}}, by: [region], committed_gpus: {floor}}}
"""


def test_a_changed_contract_is_taken_over_and_a_wrong_one_is_refused_while_the_old_one_goes_on(
    kafka: Any,
    telemetry_topics: Any,
    worker_factory: Any,
    send: Any,
    gpu_event: Any,
    tmp_path: Path,
    eventually: Any,
) -> None:
    telemetry_topics(partitions=1)
    contract = tmp_path / "contract.yaml"
    contract.write_text(CONTRACT.format(version="1", floor=10))
    worker = worker_factory(kafka.bootstrap, contract=contract).start().await_begun()
    sent = 0

    def report(seconds: int) -> None:
        """Ten GPUs, each in every second."""
        nonlocal sent
        at = time.time() - 600 + sent
        data = [{"gpu": f"GPU-{g}"} for g in range(10)]
        send(
            kafka.bootstrap,
            "telemetry.gpu",
            [gpu_event(f"{sent + s}-{g}", at + s, data[g]) for s in range(seconds) for g in range(10)],
        )
        sent += seconds
        worker.await_taken_in()

    report(200)
    assert _firing(worker) == []
    contract.write_text(CONTRACT.format(version="2", floor="ten"))
    error = worker.await_status("the wrong contract is refused", lambda s: s["contract_error"])
    assert "contract.yaml:7:" in error and "committed_gpus" in error and "ten" in error, error
    assert [c["version"] for c in worker.status()["contracts"]] == ["1"]
    report(60)
    assert _firing(worker) == []
    contract.write_text(CONTRACT.format(version="3", floor=11))
    worker.await_status(
        "the new contract is taken over", lambda s: [c["version"] for c in s["contracts"]] == ["3"]
    )
    assert worker.status()["contract_error"] is None
    report(60)
    worker.await_status("the new floor is missed", lambda s: _firing_of(s) == [("floor", 10, 11)])
    contract.unlink()
    assert worker.await_status("the absence is said", lambda s: s["contract_error"])
    assert [c["version"] for c in worker.status()["contracts"]] == ["3"]
    assert worker.stop() == 0, worker.said()
    assert worker.start().wait() != 0, "without a contract it should not start"
    assert str(contract) in worker.said()


def _firing(worker: Any) -> list[tuple[Any, ...]]:
    return _firing_of(worker.status())


def _firing_of(status: dict[str, Any]) -> list[tuple[Any, ...]]:
    alerts = [a for a in status["alerts"] if a["alertname"] == "CapacityShortfall" and a["state"] == "firing"]
    return [(a["clause"], a["observed"], a["bound"]) for a in alerts]
