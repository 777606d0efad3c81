"""A recording becomes events: joined, converted, shifted to end by now; what is wrong is named with its cell."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.broker.kafka import EmbeddedKafka
from pipeline.errors import ScenarioError
from pipeline.simulate.recording import Recorded, Recording, load_mapping, record
from pipeline.simulate.replay import replay, shift_ms, steps
from tests.records import records_of

ROOT = Path(__file__).resolve().parents[2]
GENTD26 = ROOT.parent / "shared" / "data" / "gentd26"

MAPPING = """\
mapping: small
topics:
  - topic: telemetry.gpu
    source: /trace/{node}
    constants: {provider: p, region: r, site: s, cluster: c, sku: GPU}
    entity: {gpu: pod, node: pod}
    files:
      - {file: duty.csv, time: at, fields: {utilization_ratio: {column: percent, scale: 0.01}}}
      - {file: memory.csv, time: at_ms, unit: ms, fields: {memory_used_bytes: {column: bytes}}}
  - topic: telemetry.queue
    source: /trace/gateway
    constants: {provider: p, region: r, cluster: c, queue: q, workload_class: inference}
    every: 30s
    files:
      - {file: size.csv, time: at, fields: {pending_jobs: {column: n}}}
      - {file: waits.csv, time: at, fields: {admission_wait_seconds: {column: ms, scale: 0.001, as: list}}}
"""
FILES = {
    # b's first row comes late: after rows of 60, though its time is 30.
    "duty.csv": "percent,at,pod\n50,30.0,a\n75.5,60.0,a\n12,30.0,b\n100,60.0,b\n",
    "memory.csv": "at_ms,bytes,pod\n30000,1000.0,a\n60000,2000.0,a\n60000,,b\n90000,3000.0,c\n",
    "size.csv": "n,at\n3,31\n4,45\n0,121\n",
    "waits.csv": "ms,at\n1500,40\n250,59.5\n10,61\n",
}


def write(directory: Path, **changes: str) -> Path:
    for name, text in {**FILES, **{k.replace("_", "."): v for k, v in changes.items()}}.items():
        (directory / name).write_text(text, "utf-8")
    return directory


def recording(directory: Path, mapping: str = MAPPING, **changes: str) -> Recording:
    path = directory / "small.mapping.yaml"
    path.write_text(mapping, "utf-8")
    return record(load_mapping(path), write(directory, **changes))


def gpu(found: Recording) -> list[tuple[int, str, Any, Any]]:
    return [
        (e.time_ms, e.data["gpu"], e.data.get("utilization_ratio"), e.data.get("memory_used_bytes"))
        for e in found.events
        if e.topic == "telemetry.gpu"
    ]


def test_rows_of_one_pod_and_time_become_one_event_in_its_own_units(tmp_path: Path) -> None:
    found = recording(tmp_path)
    assert sorted(gpu(found), key=str) == sorted(
        [
            (30_000, "a", 0.5, 1000), (60_000, "a", 0.755, 2000), (30_000, "b", 0.12, None),
            (60_000, "b", 1.0, None), (90_000, "c", None, 3000),
        ],
        key=str,
    )  # fmt: skip
    assert found.rows == {"duty.csv": 4, "memory.csv": 4, "size.csv": 3, "waits.csv": 3}
    first = found.events[0]
    assert (first.source, first.type, first.data["region"]) == ("/trace/a", "gpu.utilization.v1", "r")
    assert isinstance(first.data["memory_used_bytes"], int)


def test_a_late_row_stays_late(tmp_path: Path) -> None:
    found = recording(tmp_path)
    times = [(time_ms, pod) for time_ms, pod, _, _ in gpu(found)]
    assert times.index((30_000, "b")) > times.index((60_000, "a"))
    assert found.late == 1


def test_waits_and_lengths_are_gathered_into_a_report_for_each_interval(tmp_path: Path) -> None:
    reports = [e for e in recording(tmp_path).events if e.topic == "telemetry.queue"]
    assert [(e.time_ms, e.data["pending_jobs"], e.data["admission_wait_seconds"]) for e in reports] == [
        (60_000, 4, [1.5, 0.25]),
        (90_000, 4, [0.01]),
        (120_000, 4, []),
        (150_000, 0, []),
    ]


def test_a_repeated_row_is_an_event_of_its_own_with_its_own_id(tmp_path: Path) -> None:
    found = recording(tmp_path, duty_csv="percent,at,pod\n50,30,a\n60,30,a\n")
    same = [e for e in found.events if e.topic == "telemetry.gpu" and e.time_ms == 30_000]
    assert [e.data["utilization_ratio"] for e in same] == [0.5, 0.6]
    assert len({e.id for e in same}) == 2


@pytest.mark.parametrize("kind", ["gz", "tar of its name", "tar of another name"])
def test_compressed_files_read_the_same(tmp_path: Path, kind: str) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "packed").mkdir()
    plain = recording(tmp_path / "plain")
    packed = write(tmp_path / "packed")
    for name, text in FILES.items():
        (packed / name).unlink()
        if kind == "gz":
            (packed / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
            continue
        archive = f"{name[:-4]}.tar.gz" if kind == "tar of its name" else "everything.tar.gz"
        members = FILES if archive == "everything.tar.gz" else {name: text}
        with tarfile.open(packed / archive, "w:gz") as tar:
            for member, content in members.items():
                info = tarfile.TarInfo(f"day/{member}")
                info.size = len(content.encode())
                tar.addfile(info, io.BytesIO(content.encode()))
    (packed / "m.yaml").write_text(MAPPING, "utf-8")
    assert record(load_mapping(packed / "m.yaml"), packed) == plain


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"duty_csv": "percent,at,pod\n50,30,a\nhalf,60,a\n"},
         r"duty\.csv:3 column percent: found 'half', expected a finite number"),
        ({"duty_csv": "percent,at,pod\nnan,30,a\n"}, r"duty\.csv:2 column percent: found 'nan'"),
        ({"duty_csv": "percent,at,pod\n50,noon,a\n"}, r"duty\.csv:2 column at: found 'noon'"),
        ({"duty_csv": "percent,at,pod\n50,30,\n"}, r"duty\.csv:2 column pod: found an empty cell"),
        ({"duty_csv": "percent,at,pod\n50,30\n"}, r"duty\.csv:2: found 2 cells, expected 3"),
        ({"duty_csv": "percnt,at,pod\n50,30,a\n"},
         r"duty\.csv:1: found no column 'percent'.*did you mean 'percnt'"),
        ({"duty_csv": ""}, r"duty\.csv:1: found no column 'at'"),
    ],
)  # fmt: skip
def test_a_wrong_cell_is_named_by_file_line_and_column(
    tmp_path: Path, changes: dict[str, str], message: str
) -> None:
    with pytest.raises(ScenarioError, match=message):
        recording(tmp_path, **changes)


def test_a_missing_file_is_named_with_the_forms_it_may_have(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(MAPPING, "utf-8")
    with pytest.raises(
        ScenarioError, match=r"found no duty\.csv, expected it there as it is, as duty\.csv\.gz"
    ):
        record(load_mapping(tmp_path / "m.yaml"), tmp_path)


@pytest.mark.parametrize(
    ("wrong", "right", "message"),
    [
        ("utilization_ratio:", "utilisation_ratio:", r":8:\d+: found 'utilisation_ratio', .*did you mean 'utili"),
        ("telemetry.gpu", "telemetry.gpus", r"yaml:3:\d+: found 'telemetry.gpus', .*did you mean 'telemetry.gpu'"),
        ("sku: GPU", "data_class: x", r"yaml:3:\d+ topics\[0\]: found no sku, expected it"),
        ("    every: 30s\n", "", r"every: found nothing, expected an interval to gather admission_wait_seconds"),
        ("unit: ms", "unit: minutes", r"yaml:9:\d+ topics\[0\]\.files\[1\]\.unit: found 'minutes'"),
        ("mapping: small", "maping: small", r"found the unknown field 'maping'"),
    ],
)  # fmt: skip
def test_a_wrong_mapping_is_refused_with_the_place(
    tmp_path: Path, wrong: str, right: str, message: str
) -> None:
    assert wrong in MAPPING
    path = tmp_path / "small.yaml"
    path.write_text(MAPPING.replace(wrong, right), "utf-8")
    with pytest.raises(ScenarioError, match=message):
        load_mapping(path)


@given(
    st.lists(st.tuples(st.integers(0, 10**8), st.integers(0, 10**5)), min_size=1, max_size=30),
    st.sampled_from([None, 0.5, 1.0, 60.0]),
    st.sampled_from([0.5, 1.0]),
)
def test_no_event_is_in_the_future_of_the_clock_that_sends_it(
    rows: list[tuple[int, int]], speed: float | None, scale: float
) -> None:
    events = [Recorded("t", "t", "s", str(i), at, at + late, {}) for i, (at, late) in enumerate(rows)]
    events.sort(key=lambda event: event.arrived_ms)
    made, now = Recording("r", events, {}, scale), 1_795_000_000.0
    shift = shift_ms(made, now, speed)
    start = int(events[0].arrived_ms * scale) + shift
    for end_ms, blocks in steps(made, shift):
        sent_at = now + ((end_ms - start) / 1000 / speed if speed else 0)
        assert all(at / 1000 <= sent_at for block in blocks for at in block.times_ms)


def test_a_replay_reaches_the_broker_whole_with_times_of_today(
    tmp_path: Path, kafka: EmbeddedKafka, telemetry_topics: Any
) -> None:
    telemetry_topics(partitions=2)
    found = recording(tmp_path)
    sent = asyncio.run(replay(kafka.bootstrap, found))
    assert sent.messages == {"telemetry.gpu": 5, "telemetry.queue": 4}
    events = [json.loads(record.value) for record in records_of(kafka.bootstrap, "telemetry.gpu")]
    assert {(e["source"], e["data"].get("utilization_ratio")) for e in events} == {
        ("/trace/a", 0.5), ("/trace/a", 0.755), ("/trace/b", 0.12), ("/trace/b", 1.0), ("/trace/c", None),
    }  # fmt: skip
    today = time.strftime("%Y-%m-%dT%H", time.gmtime(time.time() - 600))
    assert all(event["time"] >= today for event in events)


def test_the_mapping_of_the_real_day_agrees_with_the_event_types() -> None:
    assert load_mapping(ROOT / "tests" / "data" / "gentd26.mapping.yaml").mapping == "gentd26"


@pytest.mark.skipif(
    not GENTD26.is_dir(), reason=f"the recording is not at {GENTD26.relative_to(ROOT.parent)}"
)
def test_a_real_day_comes_through_with_every_row() -> None:
    found = record(load_mapping(ROOT / "tests" / "data" / "gentd26.mapping.yaml"), GENTD26)
    samples = [e.data for e in found.events if e.topic == "telemetry.gpu"]
    reports = [e.data for e in found.events if e.topic == "telemetry.queue"]
    assert sum("utilization_ratio" in s for s in samples) == 157_417
    assert sum("memory_used_bytes" in s for s in samples) == 161_413
    assert sum(len(r["admission_wait_seconds"]) for r in reports) == 23_478
    assert len({s["gpu"] for s in samples}) == 144
    assert all(0 <= s["utilization_ratio"] <= 1 for s in samples if "utilization_ratio" in s)
    assert max(w for r in reports for w in r["admission_wait_seconds"]) == 4.329
    assert max(r["pending_jobs"] for r in reports) == 3


BILL = """\
mapping: bill
topics:
  - topic: telemetry.billing
    source: /bills/halcyon
    constants: {BillingCurrency: USD, ServiceProviderName: Halcyon}
    entity: {ResourceId: resource}
    files:
      - file: bill.csv
        time: issued
        unit: rfc3339
        fields:
          BilledCost: {column: cost}
          ChargeCategory: {column: category}
          ChargePeriodStart: {column: start}
          ChargePeriodEnd: {column: end}
"""
HEAD = "issued,resource,category,start,end,cost\n"
ROW = "2026-11-23T19:00:00+01:00,vm-1,Usage,2026-11-22T00:00:00Z,2026-11-23T00:00:00Z,{cost}\n"


def bill(directory: Path, rows: str) -> Recording:
    (directory / "bill.yaml").write_text(BILL, "utf-8")
    (directory / "bill.csv").write_text(HEAD + rows, "utf-8")
    return record(load_mapping(directory / "bill.yaml"), directory)


def test_text_times_and_money_are_read_as_they_are_to_the_last_digit(tmp_path: Path) -> None:
    [event] = bill(tmp_path, ROW.format(cost="4271.700000000000001")).events
    assert event.time_ms == 1_795_456_800_000
    assert event.data == {
        "BillingCurrency": "USD",
        "ServiceProviderName": "Halcyon",
        "ResourceId": "vm-1",
        "ChargeCategory": "Usage",
        "ChargePeriodStart": "2026-11-22T00:00:00Z",
        "ChargePeriodEnd": "2026-11-23T00:00:00Z",
        "BilledCost": "4271.700000000000001",
    }


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("12.5", '"12,50"', "bill.csv:2 column cost: found '12,50', expected an amount with a decimal point"),
        ("2026-11-22T00:00:00Z", "11/22/2026", "column start: found '11/22/2026', expected a time"),
        ("+01:00", "", "column issued: found '2026-11-23T19:00:00', expected a time with a zone"),
    ],
)
def test_money_and_times_that_could_be_read_in_two_ways_are_refused_with_their_cell(
    tmp_path: Path, old: str, new: str, says: str
) -> None:
    with pytest.raises(ScenarioError) as refused:
        bill(tmp_path, ROW.format(cost="12.5").replace(old, new))
    assert says in str(refused.value)
