"""The fleet and the writer: the same seed gives the same bytes, and every event is one that could be true."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import defaultdict
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, FormatChecker

from pipeline.broker.kafka import EmbeddedKafka
from pipeline.catalog import schema_directory
from pipeline.errors import BrokerUnreachable, ScenarioError
from pipeline.simulate.cloud_events import Message
from pipeline.simulate.fleet import Fleet
from pipeline.simulate.fleet_spec import BillingSpec, ClusterSpec, Effect, FleetSpec, QueueSpec, RegionSpec
from pipeline.simulate.scenarios import Play, load, plan
from pipeline.simulate.simulator import fill, simulate, step_ms
from pipeline.simulate.writer import Sent
from tests.patience import PATIENCE
from tests.records import records_of

START = 1_795_000_020
NODES = ClusterSpec(cluster="h", sku="ND_H100_v5", gpus=64)
RACKS = ClusterSpec(
    cluster="g", sku="ND_GB300_v6", gpus=144, nvlink_domains=True, data_class="eu-personal", shape="inference"
)
QUEUE = QueueSpec(
    queue="train", cluster="h", workload_class="training", arrivals_per_minute=20, admissions_per_minute=40,
    gpus_per_job=1,
)  # fmt: skip
BILLING = BillingSpec(history=2 * 86_400, prices={"ND_H100_v5": 3.2, "ND_GB300_v6": 7.5}, tax_rate=0.19)
SPEC = FleetSpec(
    provider="halcyon", billing=BILLING,
    regions=[RegionSpec(region="north", site="n-1", clusters=[NODES, RACKS], queues=[QUEUE])],
)  # fmt: skip


def fleet(*effects: Effect, seed: int = 7, **options: Any) -> Fleet:
    return Fleet(SPEC, seed, START, effects=effects, **options)


def data_of(message: Message) -> list[dict[str, Any]]:
    """The samples of a structured message."""
    data = json.loads(message.value)["data"]
    return data if isinstance(data, list) else [data]


def gpu_samples(made: Fleet, t0: int, t1: int) -> list[tuple[int, dict[str, Any]]]:
    messages = [m for m in made.events(t0, t1) if m.topic == "telemetry.gpu"]
    return [(m.time_ms, sample) for m in messages for sample in data_of(m)]


@pytest.mark.parametrize("arrays", [False, True])
@pytest.mark.parametrize("mode", ["structured", "binary"])
def test_the_same_seed_gives_the_same_bytes(arrays: bool, mode: Any) -> None:
    first = list(fleet(arrays=arrays, mode=mode).events(START, START + 60))
    assert first == list(fleet(arrays=arrays, mode=mode).events(START, START + 60))
    assert first != list(fleet(seed=8, arrays=arrays, mode=mode).events(START, START + 60))


@given(st.sampled_from([100, 200, 500, 1000, 5000, 30_000]))
def test_the_steps_it_is_played_in_change_who_says_what_when_in_nothing_but_drift(step: int) -> None:
    """Times, entities and jobs are those of 1 s steps; only values that wander within a step may differ."""
    start = START // 30 * 30

    def facts(step_ms: int) -> list[tuple[Any, ...]]:
        messages = Fleet(SPEC, 7, start).events(start, start + 60, step_ms)
        rows = [(m.topic, m.time_ms, m.key, s) for m in messages for s in data_of(m)]
        return sorted(
            (t, at, k, s.get("gpu", ""), str(s.get("admission_wait_seconds"))) for t, at, k, s in rows
        )

    assert facts(step) == facts(1000)


def test_a_step_off_the_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="found a step of 700 ms"):
        fleet().step(START * 1000, START * 1000 + 700)


def test_every_gpu_reports_once_in_each_interval_and_a_third_of_them_in_each_window() -> None:
    seen = gpu_samples(fleet(), START, START + 90)
    by_gpu = defaultdict(list)
    for at, sample in seen:
        by_gpu[sample["gpu"]].append(at)
    assert len(by_gpu) == SPEC.gpus
    assert all(b - a == 30_000 for times in by_gpu.values() for a, b in itertools.pairwise(times))
    nodes = [at for at, sample in seen if sample["cluster"] == "h"]
    for window in range(START * 1000, START * 1000 + 90_000, 10_000):
        share = sum(window <= at < window + 10_000 for at in nodes) / 64
        assert 0.2 < share < 0.5


def test_event_time_ascends_within_a_topic() -> None:
    by_topic = defaultdict(list)
    for message in fleet().events(START, START + 120):
        by_topic[message.topic].append(message.time_ms)
    assert set(by_topic) == {"telemetry.gpu", "telemetry.queue", "telemetry.energy", "telemetry.billing"}
    assert all(times == sorted(times) for times in by_topic.values())
    assert by_topic["telemetry.gpu"][0] >= START * 1000


@pytest.mark.parametrize("arrays", [False, True])
def test_every_event_is_a_cloudevent_whose_data_its_schema_allows(arrays: bool) -> None:
    validators = {
        schema["x-topic"]: Draft202012Validator(schema, format_checker=FormatChecker())
        for path in schema_directory().glob("*.v1.json")
        for schema in [json.loads(path.read_text("utf-8"))]
    }
    effects = [
        Effect(what="fail", match={"cluster": "h"}, gpus=3),
        Effect(what="vanish", match={"cluster": "g"}, gpus=5),
    ]
    ids = set()
    for message in fleet(*effects, arrays=arrays).events(START, START + 60):
        event = json.loads(message.value)
        assert list(event) == ["specversion", "id", "source", "type", "time", "datacontenttype", "data"]
        assert event["source"].encode() == message.key
        assert event["time"].endswith("Z")
        for sample in data_of(message):
            validators[message.topic].validate(sample)
        assert len(data_of(message)) == message.samples
        ids.add((event["source"], event["id"], event["type"]))
    assert len(ids) == len(list(fleet(*effects, arrays=arrays).events(START, START + 60)))


def test_arrays_and_single_samples_say_the_same() -> None:
    def key(row: tuple[int, dict[str, Any]]) -> tuple[int, str]:
        return row[0], row[1]["gpu"]

    single = sorted(gpu_samples(fleet(), START, START + 60), key=key)
    arrays = sorted(gpu_samples(fleet(arrays=True), START, START + 60), key=key)
    assert single == arrays


def test_binary_mode_carries_the_same_event_in_headers() -> None:
    pairs = zip(
        fleet().events(START, START + 30), fleet(mode="binary").events(START, START + 30), strict=True
    )
    for structured, binary in pairs:
        event, headers = json.loads(structured.value), dict(binary.headers)
        assert json.loads(binary.value) == event.pop("data")
        assert headers.pop("content-type") == b"application/json"
        assert event.pop("datacontenttype") == "application/json"
        assert {name.removeprefix("ce_"): value.decode() for name, value in headers.items()} == event


def test_the_energy_counter_never_falls_and_grows_by_the_power_drawn() -> None:
    by_gpu = defaultdict(list)
    for _, sample in gpu_samples(fleet(), START, START + 300):
        by_gpu[sample["gpu"]].append((sample["energy_joules_total"], sample["power_watts"]))
    for readings in by_gpu.values():
        for (before, _), (after, watts) in itertools.pairwise(readings):
            assert after - before == pytest.approx(30 * watts, abs=4)


def test_power_follows_utilisation_and_stays_what_the_machine_can_draw() -> None:
    samples = [sample for _, sample in gpu_samples(fleet(), START, START + 600)]
    for sku, most in (("ND_H100_v5", 700), ("ND_GB300_v6", 1400)):
        mine = [s for s in samples if s["sku"] == sku]
        assert all(0 < s["power_watts"] <= most * 1.02 for s in mine)
        busy = [s["power_watts"] for s in mine if s["utilization_ratio"] > 0.7]
        idle = [s["power_watts"] for s in mine if s["utilization_ratio"] == 0]
        assert min(busy) > 0.6 * most
        assert not idle or max(idle) < 0.2 * most


def test_inference_load_is_higher_by_day_than_by_night() -> None:
    midnight = START // 86_400 * 86_400

    def mean(hour: int) -> float:
        at = midnight + hour * 3600
        seen = gpu_samples(Fleet(SPEC, 7, at), at, at + 60)
        rack = [s["utilization_ratio"] for _, s in seen if s["cluster"] == "g"]
        return sum(rack) / len(rack)

    assert mean(11) > mean(3) + 0.2


def test_failed_gpus_say_so_with_their_xid_until_they_are_repaired() -> None:
    effect = Effect.model_validate(
        {"what": "fail", "match": {"cluster": "h"}, "from": "30s", "to": "90s", "gpus": 10, "xid": 79}
    )
    seen = gpu_samples(fleet(effect), START, START + 150)
    failed = {(s["gpu"], (at - START * 1000) // 30_000) for at, s in seen if s["health"] == "failed"}
    assert {interval for _, interval in failed} == {1, 2}
    assert len({gpu for gpu, _ in failed}) == 10
    assert all((s["xid"] == 79) == (s["health"] == "failed") for _, s in seen)


def test_vanished_gpus_and_silent_clusters_report_nothing_while_the_meters_tell_them_apart() -> None:
    gone = Effect(what="vanish", match={"cluster": "h"}, gpus=16)
    silent = Effect(what="silence", match={"cluster": "h"})
    assert len({s["gpu"] for _, s in gpu_samples(fleet(gone), START, START + 30)}) == SPEC.gpus - 16
    assert {s["cluster"] for _, s in gpu_samples(fleet(silent), START, START + 30)} == {"g"}

    def watts(*effects: Effect) -> float:
        readings = [
            data_of(m)[0] for m in fleet(*effects).events(START, START + 60) if m.topic == "telemetry.energy"
        ]
        return max(r["it_power_watts"] for r in readings)

    assert watts(silent) == watts()
    assert watts(gone) < watts() - 16 * 100 * 0.5


def test_a_queue_that_admits_nobody_grows_older_and_longer() -> None:
    stuck = Effect(what="queue", match={"queue": "train"}, admissions=0)
    made = fleet(stuck).events(START, START + 300)
    reports = [data_of(m)[0] for m in made if m.topic == "telemetry.queue"]
    assert len(reports) == 10
    late = reports[1:]
    assert all(not r["admission_wait_seconds"] for r in late)
    assert all(b["pending_jobs"] >= a["pending_jobs"] for a, b in itertools.pairwise(late))
    ages = [r["oldest_wait_seconds"] for r in late]
    assert all(b - a == pytest.approx(30, abs=0.01) for a, b in itertools.pairwise(ages))


def test_jobs_are_neither_lost_nor_invented_and_waits_are_never_negative() -> None:
    made = fleet().events(START, START + 1800)
    reports = [data_of(m)[0] for m in made if m.topic == "telemetry.queue"]
    waits = [wait for report in reports for wait in report["admission_wait_seconds"]]
    assert all(wait >= 0 for wait in waits)
    assert len(waits) == pytest.approx(30 * QUEUE.arrivals_per_minute, rel=0.2)
    assert all((r["oldest_wait_seconds"] > 0) == (r["pending_jobs"] > 0) for r in reports)


def test_past_charges_come_first_each_once_and_are_issued_after_their_period() -> None:
    made = fleet()
    charges = [(m, data_of(m)[0]) for m in made.events(START, START + 7200) if m.topic == "telemetry.billing"]
    usage = [c for _, c in charges if c["ChargeCategory"] == "Usage"]
    periods = [(c["SkuId"], c["ChargePeriodStart"]) for c in usage]
    assert len(set(periods)) == len(periods) >= 2 * 48
    for message, charge in charges:
        assert isinstance(charge["BilledCost"], str)
        event = json.loads(message.value)
        assert event["time"] > charge["ChargePeriodEnd"]
        assert message.time_ms < (START + 7200) * 1000
    tax = sum(float(c["BilledCost"]) for _, c in charges if c["ChargeCategory"] == "Tax")
    days = {c["ChargePeriodStart"][:10] for _, c in charges if c["ChargeCategory"] == "Tax"}
    taxed = sum(float(c["BilledCost"]) for c in usage if c["ChargePeriodStart"][:10] in days)
    assert tax == pytest.approx(0.19 * taxed, rel=1e-4)


def test_the_step_is_at_most_a_second_of_event_time() -> None:
    assert [step_ms(speed) for speed in (1, 2, 5, 10, 1000)] == [100, 200, 500, 1000, 1000]


TOPICS = ("telemetry.billing", "telemetry.energy", "telemetry.gpu", "telemetry.queue")


def consume(bootstrap: str, topic: str) -> dict[int, list[Any]]:
    """Every record of a topic, by partition."""
    out: dict[int, list[Any]] = {}
    for record in records_of(bootstrap, topic):
        out.setdefault(record.partition, []).append(record)
    return out


def test_a_play_reaches_the_broker_whole_in_lock_step_and_never_ahead_of_the_clock(
    kafka: EmbeddedKafka, telemetry_topics: Any
) -> None:
    telemetry_topics(partitions=4)
    full = load("steady")
    scenario = full.model_copy(update={"length": 240})
    play = plan(scenario, time.time(), duration=4)
    heard: list[int] = []
    sent = asyncio.run(
        simulate(kafka.bootstrap, play, progress=lambda so_far: heard.append(so_far.samples.total()))
    )
    assert play.end <= time.time()
    assert heard == sorted(heard) and heard[-1] == sent.samples.total()
    wanted = list(play.fleet().events(play.start, play.end))
    for topic in TOPICS:
        found = consume(kafka.bootstrap, topic)
        records = [record for rows in found.values() for record in rows]
        mine = [m for m in wanted if m.topic == topic]
        assert sorted((r.key, r.value) for r in records) == sorted((m.key, m.value) for m in mine)
        assert len(records) == sent.messages[topic]
        times = {m.value: m.time_ms for m in mine}
        assert all(times[r.value] <= r.timestamp for r in records)
        for rows in found.values():
            ordered = [times[r.value] for r in sorted(rows, key=lambda r: r.offset)]
            assert ordered == sorted(ordered)
        places = {(r.key, partition) for partition, rows in found.items() for r in rows}
        assert len(places) == len({key for key, _ in places})
    assert_lock_step(kafka.bootstrap, {m.value: m.time_ms for m in wanted})


def test_after_its_end_a_play_goes_on_in_real_time_until_it_is_stopped(
    kafka: EmbeddedKafka, telemetry_topics: Any
) -> None:
    telemetry_topics(partitions=2)
    play = plan(load("steady").model_copy(update={"length": 60}), time.time(), speed=60)

    async def watched() -> None:
        reached = asyncio.Event()

        def look(sent: Sent) -> None:
            if sent.event_time_ms > (play.end + 2) * 1000:
                reached.set()

        playing = asyncio.create_task(simulate(kafka.bootstrap, play, linger=True, progress=look))
        await asyncio.wait_for(reached.wait(), PATIENCE)
        playing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await playing

    asyncio.run(watched())
    records = [r for rows in consume(kafka.bootstrap, "telemetry.gpu").values() for r in rows]
    times = [datetime.fromisoformat(json.loads(r.value)["time"]).timestamp() * 1000 for r in records]
    assert max(times) > play.end * 1000
    assert all(at <= r.timestamp for at, r in zip(times, records, strict=True))


def assert_lock_step(bootstrap: str, times: dict[bytes, int]) -> None:
    """Whatever is appended later, to whatever partition or topic, is at most a step (1 s) earlier."""
    written = sorted(
        (record.timestamp, times[record.value])
        for topic in TOPICS
        if topic != "telemetry.billing"
        for rows in consume(bootstrap, topic).values()
        for record in rows
    )
    newest = 0
    for _, together in itertools.groupby(written, key=lambda row: row[0]):
        batch = [at for _, at in together]
        assert min(batch) >= newest - 1000
        newest = max(newest, *batch)


def test_a_broker_that_does_not_answer_is_named() -> None:
    play = Play(load("steady").model_copy(update={"length": 60}), START, 60.0)
    with pytest.raises(BrokerUnreachable, match=r"no Kafka broker answers at 127\.0\.0\.1:1;"):
        asyncio.run(simulate("127.0.0.1:1", play))


def test_a_missing_topic_is_named_with_what_to_do(fresh_kafka: EmbeddedKafka) -> None:
    with pytest.raises(ScenarioError, match=r"topic telemetry\.\w+ does not exist; .*topics create"):
        asyncio.run(fill(fresh_kafka.bootstrap, Fleet(FleetSpec.uniform(80), 1, START), START, START + 30))


def test_rates_are_measured_and_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """No bound on the time, which is the machine's: the figure is for whoever reads the log."""
    made = Fleet(FleetSpec.uniform(30_000), 1, START)
    began, count = time.perf_counter(), 0
    for second in range(5):
        blocks = made.gpu_blocks((START + second) * 1000, (START + second + 1) * 1000)
        count += sum(len(block.values) for block in blocks)
    with capsys.disabled():
        print(f"[{count / (time.perf_counter() - began):,.0f} GPU samples/s made]", end=" ")
    assert count == pytest.approx(5_000, rel=0.05)
