"""Topics of what people already have: their messages are samples in the ledger, counted and refused as events are."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from typing import Any

import pytest

from pipeline.catalog import Catalog
from pipeline.errors import MappingError, SettingsError
from pipeline.producer import arrow_message
from pipeline.settings import SourceSettings, load_settings
from pipeline.stream.batch import Batch
from pipeline.stream.deadletter_tools import Letter, taken_in, verdicts
from pipeline.stream.source_topics import SourceTopic, fed_by, source_topics
from pipeline.stream.watermark import Watermarks

CASES = Path(__file__).resolve().parents[1] / "mappings" / "cases"
GPUS = {"provider": "halcyon", "region": "eu-west", "site": "ams-02", "cluster": "ams-h1", "sku": "H100"}
QUEUES = {"provider": "halcyon", "region": "eu-west", "cluster": "ams-h1", "workload_class": "planning"}
AT = 1_795_461_960


def source(catalog: Catalog, topic: str, wire: str, mapping: str, constants: dict[str, str]) -> SourceTopic:
    settings = SourceSettings(topic=topic, format=wire, mapping=mapping, constants=constants)
    return source_topics([settings], catalog)[0]


def messages(make: Any, topic: str, values: Sequence[bytes]) -> list[Any]:
    return [make.record(value, (), topic=topic, appended=AT + 1) for value in values]


def lines(name: str) -> list[bytes]:
    return (CASES / name).read_bytes().splitlines()


@pytest.fixture
def pipe(tmp_path: Path, catalog: Catalog, make_pipeline: Callable[..., Any]) -> Callable[..., Any]:
    def open_one(*given: tuple[str, str, str, dict[str, str]]) -> Any:
        return make_pipeline(tmp_path / "data", sources=[source(catalog, *each) for each in given])

    return open_one


def test_a_message_of_a_collector_is_gpus_and_what_nobody_reads_is_counted_by_name(
    pipe: Callable[..., Any], make: Any
) -> None:
    pipeline = pipe(("otlp", "otlp_json", "dcgm", GPUS))
    value = (CASES / "otlp-json-from-the-collector" / "otlp_metrics.json").read_bytes()
    delta, letters = pipeline.take(*messages(make, "otlp", [value]))
    assert letters == []
    assert delta.ranges == {("otlp", 0): (0, 1)}
    assert pipeline.fates() == {("aggregated", ""): 3}
    rows = pipeline.sql(
        "SELECT gpu, node, utilization_ratio, power_watts, energy_joules_total, source, epoch(time) "
        f"FROM read_parquet('{pipeline.data}/segments/gpu-*.parquet') ORDER BY gpu"
    )
    assert rows == [
        ("GPU-00000001-0c43-4e0a-8a6e-61d9f0a2c001", "node-0042", 0.81, 634.5, 88410233.125, "/dcgm/node-0042", AT + 0.25),
        ("GPU-00000002-0c43-4e0a-8a6e-61d9f0a2c002", "node-0042", None, 634.5, None, "/dcgm/node-0042", AT + 0.25),
        ("GPU-00000004-0c43-4e0a-8a6e-61d9f0a2c004", "node-0042", 0.81, 634.5, None, "/dcgm/node-0042", AT + 0.25),
    ]  # fmt: skip
    assert pipeline.processor.ignored() == {"otlp": {"up": 2}}


def test_the_parts_of_a_sample_that_come_one_by_one_all_count_for_one_gpu(
    pipe: Callable[..., Any], make: Any
) -> None:
    pipeline = pipe(("telegraf", "telegraf", "dcgm", GPUS))
    pipeline.take(*messages(make, "telegraf", lines("telegraf-kafka-json/metric_version-1.jsonl")))
    [row] = pipeline.sql(
        "SELECT utilization_ratio_max, power_watts_max, memory_used_bytes_max, energy_joules_total_max "
        "FROM partials_gpu_10s"
    )
    assert row == (0.81, 634.5, 42949672960.0, 88410233.125)
    assert pipeline.sql("SELECT count(*) FROM entities_gpu") == [(1,)]
    assert pipeline.fates() == {("aggregated", ""): 4}


def test_messages_without_fields_are_passed_over_in_silence(pipe: Callable[..., Any], make: Any) -> None:
    pipeline = pipe(("telegraf", "telegraf", "dcgm", GPUS))
    empty = b'{"fields":{},"name":"prometheus","tags":{"UUID":"GPU-1"},"timestamp":1795461960}'
    delta, letters = pipeline.take(*messages(make, "telegraf", [empty] * 50))
    assert (delta.events, letters, pipeline.fates()) == (0, [], {})
    assert pipeline.ledger.offsets() == {("telegraf", 0): 50}


def test_what_an_ha_pair_sends_twice_counts_once_across_batches_too(
    pipe: Callable[..., Any], make: Any
) -> None:
    pipeline = pipe(("metrics", "prometheus_kafka_adapter", "dcgm", GPUS))
    both = lines("ha-pair/metrics.jsonl")
    pipeline.take(*messages(make, "metrics", both))
    pipeline.take(*messages(make, "metrics", both))
    assert pipeline.fates() == {("aggregated", ""): 2, ("duplicate", "identity_seen"): 6}


def test_one_topic_may_be_samples_of_several_event_types(pipe: Callable[..., Any], make: Any) -> None:
    pipeline = pipe(("slurm", "prometheus", "slurm", {**GPUS, **QUEUES}))
    text = (
        b'slurm_queue_pending{partition="train",reason="Resources"} 20\n'
        b'slurm_node_gres_total{node="gpu-02",gres_type="gpu:h100"} 8\n'
        b'slurm_node_cpu_total{node="gpu-02",status="drained*"} 192\n'
    )
    pipeline.take(*messages(make, "slurm", [text]))
    assert pipeline.sql("SELECT pending_jobs_max FROM partials_queue_10s") == [(20.0,)]
    assert pipeline.sql("SELECT samples, health_last.value FROM partials_gpu_10s") == [(8, "failed")]
    assert pipeline.fates() == {("aggregated", ""): 9}


def test_a_broken_message_is_a_dead_letter_with_its_bytes_and_its_neighbours_live(
    pipe: Callable[..., Any], make: Any
) -> None:
    pipeline = pipe(("otlp", "otlp_proto", "dcgm", GPUS))
    broken = [b"\x0a\xff\xff", b"x" * (make.MAX_BYTES + 1), None]
    delta, letters = pipeline.take(*messages(make, "otlp", broken))
    assert [(letter.topic, letter.record.value, dict(letter.reasons)) for letter in letters] == [
        ("otlp", broken[0], {0: "not_protobuf"}),
        ("otlp", broken[1], {0: "too_large"}),
        ("otlp", None, {0: "null_value"}),
    ]
    assert delta.events == 3
    assert pipeline.fates() == {
        ("dead_lettered", "not_protobuf"): 1,
        ("dead_lettered", "too_large"): 1,
        ("dead_lettered", "null_value"): 1,
    }


def test_an_impossible_measure_of_a_source_is_set_aside_and_its_sample_lives(
    pipe: Callable[..., Any], make: Any
) -> None:
    pipeline = pipe(("scrapes", "prometheus", "dcgm", GPUS))
    pipeline.take(*messages(make, "scrapes", [(CASES / "dcgm-blanks" / "node-0042.prom").read_bytes()]))
    assert pipeline.fates() == {("aggregated", ""): 3}
    assert pipeline.aside() == {("power_watts", "power_watts_out_of_range"): 1}


def test_a_batch_of_several_topics_is_one_for_each_source_and_one_for_the_rest(make: Any) -> None:
    batch = make.batch(
        make.event(),
        make.event("telemetry.queue"),
        *messages(make, "otlp", [b"{}"]),
        *messages(make, "slurm", [b""]),
    )
    found = [sorted(topic for topic, _ in one.ranges) for one in batch.apart(["otlp", "slurm"])]
    assert found == [["telemetry.gpu", "telemetry.queue"], ["otlp"], ["slurm"]]
    assert [len(one) for one in batch.apart(["otlp", "slurm"])] == [2, 1, 1]
    moved = Batch({}, {("otlp", 0): (1, 5)})
    assert [one.ranges for one in moved.apart(["otlp"])] == [{("otlp", 0): (1, 5)}]


def test_a_clause_waits_for_every_topic_that_its_events_come_from(catalog: Catalog) -> None:
    sources = [source(catalog, "otlp", "otlp_json", "dcgm", GPUS)]
    marks = Watermarks(catalog, fed_by(sources, catalog))
    for topic in ("telemetry.gpu", "otlp"):
        marks.assign((topic, 0), 0)
    marks.answered({("telemetry.gpu", 0): 1, ("otlp", 0): 2}, 100.0)
    marks.applied({("telemetry.gpu", 0): (0, 1)}, {("telemetry.gpu", 0): 1000.0}, 100.0)
    assert marks.current(100.0)["telemetry.gpu"] == 0
    marks.applied({("otlp", 0): (0, 1)}, {("otlp", 0): 900.0}, 100.0)
    assert marks.current(100.0)["telemetry.gpu"] == 895.0


TOML = """
[[sources]]
topic = "otlp_metrics"
format = "otlp_proto"
mapping = ["dcgm", "kueue"]
constants = {provider = "halcyon", region = "eu-west", site = "ams-02", cluster = "ams-h1", workload_class = "planning"}
from_label = {sku = "modelName"}
where = [{label = "Hostname", matches = "^fra-", set = {site = "fra-01"}}]
"""


def test_the_settings_name_topics_formats_and_mappings(tmp_path: Path, catalog: Catalog) -> None:
    file = tmp_path / "gigawatch.toml"
    file.write_text(TOML)
    [found] = source_topics(load_settings(file).sources, catalog)
    assert (found.topic, found.format) == ("otlp_metrics", "otlp_proto")
    assert [m.mapping for m in found.mappings] == ["dcgm", "kueue"]
    assert [e.topic for e in found.events] == ["telemetry.gpu", "telemetry.queue"]


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"mapping": "dcmg"}, MappingError, "did you mean 'dcgm'"),
        ({"format": "otlp"}, SettingsError, "expected one of prometheus, otlp_proto"),
        ({"format": "otlp"}, SettingsError, "cloudevents and arrow need no mapping"),
        (
            {"mapping": []},
            SettingsError,
            "sources[0] (otlp): found no mapping, expected one; gigawatch map list",
        ),
        (
            {"format": "cloudevents", "constants": {}},
            SettingsError,
            "found mapping, expected none of them: what is cloudevents",
        ),
        (
            {"format": "arrow"},
            SettingsError,
            "found mapping and constants, expected none of them: what is arrow",
        ),
        ({"format": "entsoe"}, SettingsError, "expected one that comes on Kafka"),
        ({"topic": "telemetry.gpu"}, SettingsError, "found a topic that is read already"),
        (
            {"constants": {"provider": "p"}},
            SettingsError,
            "found nothing for region, site, cluster, sku of telemetry.gpu",
        ),
        ({"constants": {**GPUS, "regoin": "x"}}, SettingsError, "did you mean 'region'"),
    ],
)
def test_a_source_that_cannot_work_is_refused_with_what_to_set(
    catalog: Catalog, change: dict[str, Any], error: type[Exception], says: str
) -> None:
    whole = {"topic": "otlp", "format": "otlp_json", "mapping": "dcgm", "constants": GPUS, **change}
    with pytest.raises(error) as refused:
        source_topics([SourceSettings(**whole)], catalog)
    assert says in str(refused.value)


def of_all_kinds(make: Any) -> list[Any]:
    """Records of every type, in every content mode, good and bad."""
    both = [
        make.event(topic, binary=binary, id=str(n), source=f"/{topic}/{binary}")
        for topic in ("telemetry.gpu", "telemetry.queue", "telemetry.energy", "telemetry.billing")
        for binary in (False, True)
        for n in range(3)
    ]
    tricky = make.event("telemetry.queue", id="names", workload_class="gpu.utilization.v1")
    escaped = make.event("telemetry.energy", id="escaped")
    escaped = make.record(
        escaped.value.replace(b"energy.reading", b"energy\\u002ereading"), topic=escaped.topic
    )
    gpus = [{**json.loads(make.event().value)["data"], "gpu": f"GPU-{n}"} for n in range(5)]
    message = arrow_message("gpu.utilization.v1", "/arrow", gpus, datetime.fromtimestamp(make.T0, UTC))
    arrow = make.record(message.value, message.headers)
    unknown = make.event(id="unknown", envelope={"type": "gpu.utilization.v9"})
    return [*both, tricky, escaped, arrow, unknown, make.record(b"{broken"), make.record(None)]


@pytest.mark.parametrize("form", ["cloudevents", "arrow"])
def test_our_own_events_on_a_topic_of_another_name_are_what_they_are_on_their_own(
    tmp_path: Path, catalog: Catalog, make: Any, make_pipeline: Callable[..., Any], form: str
) -> None:
    [source] = source_topics([SourceSettings(topic="firehose", format=form)], catalog)
    found = make_pipeline(tmp_path / "found", sources=[source])
    wanted = make_pipeline(tmp_path / "wanted")
    every = of_all_kinds(make)
    _, letters = found.take(
        *(make.record(r.value, r.headers, topic="firehose", appended=r.timestamp / 1000) for r in every)
    )
    _, others = wanted.take(*every)
    assert sorted(str(each.reasons) for each in letters) == sorted(str(each.reasons) for each in others)
    assert found.fates() == wanted.fates() and found.fates()["aggregated", ""] == 24 + 2 + 5
    for view in ("gpu", "queue", "energy"):
        rows = f"SELECT * FROM partials_{view}_10s ORDER BY ALL"
        assert found.sql(rows) == wanted.sql(rows) != []


def test_a_new_format_of_points_is_one_file_and_one_line(
    monkeypatch: pytest.MonkeyPatch, pipe: Callable[..., Any], make: Any
) -> None:
    """The file is the function below, the line its entry in the registry."""
    from pipeline.formats import registry
    from pipeline.formats.point import Point
    from pipeline.formats.point_format import PointFormat

    def points(raw: bytes) -> list[Point]:
        uuid, percent = raw.decode().split(";")
        return [
            Point(
                "DCGM_FI_DEV_GPU_UTIL",
                {"UUID": uuid, "gpu": "0", "Hostname": "toy"},
                int(percent),
                AT * 1_000_000,
            )
        ]

    toy = PointFormat("toy", "a GPU's name and its utilisation", points)
    monkeypatch.setattr(registry, "FORMATS", (*registry.FORMATS, toy))
    pipeline = pipe(("toys", "toy", "dcgm", GPUS))
    pipeline.take(*messages(make, "toys", [b"GPU-7;81"]))
    assert pipeline.sql("SELECT utilization_ratio_max FROM partials_gpu_10s") == [(0.81,)]


def test_json_of_the_settings_does_not_change_a_message(pipe: Callable[..., Any], make: Any) -> None:
    """A constant is a text, whatever it looks like."""
    pipeline = pipe(("vec", "vector", "dcgm", {**GPUS, "sku": "007"}))
    value = {"name": "DCGM_FI_DEV_GPU_UTIL", "tags": {"UUID": "GPU-7", "Hostname": "n"}, "timestamp": "2026-11-23T19:26:00Z",
             "kind": "absolute", "gauge": {"value": 81}}  # fmt: skip
    pipeline.take(*messages(make, "vec", [json.dumps(value).encode()]))
    assert pipeline.sql("SELECT sku FROM series_gpu") == [("007",)]


def test_histograms_add_what_was_counted_since_the_last_report_through_a_restart_of_either_side(
    tmp_path: Path, catalog: Catalog, make_pipeline: Callable[..., Any], make: Any
) -> None:
    sources = [source(catalog, "kueue", "prometheus", "kueue", QUEUES)]
    reports = [
        (CASES / "kueue-wait-histogram" / name).read_bytes()
        for name in ("1.t0.prom", "2.t30.prom", "3.t60.restarted.prom")
    ]

    def waits(pipeline: Any) -> list[Any]:
        return pipeline.sql("SELECT greatest, sum(n)::INTEGER FROM hist_queue_10s GROUP BY ALL ORDER BY 1")

    pipeline = make_pipeline(tmp_path / "data", sources=sources)
    pipeline.take(make.record(reports[0], (), topic="kueue", appended=AT))
    assert waits(pipeline) == []
    pipeline.close()
    pipeline = make_pipeline(tmp_path / "data", sources=sources)
    pipeline.take(make.record(reports[1], (), topic="kueue", appended=AT + 30))
    assert waits(pipeline) == [(10.0, 4), (640.0, 1), (inf, 2)]
    assert pipeline.sql("SELECT least, n::INTEGER FROM hist_queue_10s WHERE greatest = 'inf'") == [
        (40960.0, 2)
    ]
    pipeline.take(make.record(reports[2], (), topic="kueue", appended=AT + 60))
    assert waits(pipeline) == [(1.0, 2), (10.0, 4), (640.0, 1), (inf, 3)]


def test_what_a_source_counted_is_forgotten_a_day_after_it_was_last_heard(
    tmp_path: Path, catalog: Catalog, make_pipeline: Callable[..., Any], make: Any
) -> None:
    sources = [source(catalog, "kueue", "prometheus", "kueue", QUEUES)]
    report = (CASES / "kueue-wait-histogram" / "1.t0.prom").read_bytes()
    pipeline = make_pipeline(tmp_path / "data", sources=sources)
    pipeline.take(make.record(report, (), topic="kueue", appended=AT))
    known = set(pipeline.ledger.reported())
    pipeline.close()
    pipeline = make_pipeline(tmp_path / "data", sources=sources)
    queue = re.search(rb'cluster_queue="([^"]+)"', report)[1]  # type: ignore[index]
    other = report.replace(queue, b"another")
    pipeline.take(make.record(other, (), topic="kueue", appended=AT + 86_400))
    assert len(known) == 1 and len(pipeline.ledger.reported()) == 2
    pipeline.take(make.record(other, (), topic="kueue", appended=AT + 86_430))
    assert len(pipeline.ledger.reported()) == 1 and not known & set(pipeline.ledger.reported())


def letter(topic: str, value: bytes, reason: str, headers: Any = ()) -> Letter:
    return Letter(
        part=0, at=0, topic=topic, partition=0, offset=7, reason=reason, reasons=reason, size=len(value),
        time_ms=AT * 1000, truncated=False, dropped=0, key=None, value=value, headers=tuple(headers),
    )  # fmt: skip


def test_a_dead_letter_of_a_source_is_read_again_by_its_format_and_mapping(
    catalog: Catalog, make: Any
) -> None:
    otlp = source(catalog, "otlp", "otlp_json", "dcgm", GPUS)
    good = (CASES / "otlp-json-from-the-collector" / "otlp_metrics.json").read_bytes()
    mended, broken = letter("otlp", good, "not_otlp"), letter("otlp", b"{", "not_json")
    assert verdicts(mended, catalog, make.MAX_BYTES, [otlp]) == {("aggregated", ""): 3}
    assert verdicts(broken, catalog, make.MAX_BYTES, [otlp]) == {("dead_lettered", "not_json"): 1}
    assert verdicts(broken, catalog, make.MAX_BYTES) == {("dead_lettered", "unknown_topic"): 1}
    assert taken_in(mended, catalog, make.MAX_BYTES, [otlp]) == 0


def test_of_a_dead_letter_of_a_topic_of_events_it_is_known_that_its_good_neighbours_count_already(
    catalog: Catalog, make: Any
) -> None:
    settings = SourceSettings(topic="events", format="cloudevents")
    (events,) = source_topics([settings], catalog)
    samples = [{**make.GPU, "gpu": f"GPU-{n}"} for n in range(3)]
    del samples[1]["region"]
    record = make.event(at=AT, data=samples)
    one = letter("events", record.value, "region_missing", record.headers)
    found = verdicts(one, catalog, make.MAX_BYTES, [events])
    assert found == {("aggregated", ""): 2, ("dead_lettered", "region_missing"): 1}
    assert taken_in(one, catalog, make.MAX_BYTES, [events]) == 2


def test_a_sample_of_a_source_that_is_refused_is_a_dead_letter_of_the_message_that_held_it(
    pipe: Callable[..., Any], make: Any, catalog: Catalog
) -> None:
    value = (CASES / "otlp-json-from-the-collector" / "otlp_metrics.json").read_bytes()
    spoilt = value.replace(b"GPU-", b"G" * 2000 + b"-", 1)
    assert spoilt != value
    pipeline = pipe(("otlp", "otlp_json", "dcgm", GPUS))
    _, (found,) = pipeline.take(*messages(make, "otlp", [spoilt]))
    assert (found.topic, found.record.value) == ("otlp", spoilt)
    assert set(found.reasons.values()) == {"gpu_length"}
    good = pipeline.fates()["aggregated", ""]
    otlp = source(catalog, "otlp", "otlp_json", "dcgm", GPUS)
    one = letter("otlp", spoilt, "gpu_length")
    assert verdicts(one, catalog, make.MAX_BYTES, [otlp])["aggregated", ""] == good
    assert taken_in(one, catalog, make.MAX_BYTES, [otlp]) == good
