"""A law: the same points as text, OTLP, Telegraf, Vector or prometheus-kafka-adapter give the same samples."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from pipeline import catalog
from pipeline.formats.point import Point
from pipeline.formats.registry import format_named
from pipeline.mappings.gather import Gatherer
from pipeline.mappings.mapping_file import load_source_mapping

CATALOG = catalog.load()
DCGM = load_source_mapping("dcgm", CATALOG)
SECOND = 1_795_461_960
Series = tuple[str, dict[str, str], float]

METRICS = (
    "DCGM_FI_DEV_GPU_UTIL",
    "DCGM_FI_DEV_POWER_USAGE",
    "DCGM_FI_DEV_FB_USED",
    "DCGM_FI_DEV_FB_FREE",
    "DCGM_FI_DEV_FB_RESERVED",
    "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION",
    "DCGM_FI_PROF_GR_ENGINE_ACTIVE",
    "DCGM_FI_DEV_XID_ERRORS",
    "DCGM_FI_DEV_SM_CLOCK",
)
labels = st.fixed_dictionaries(
    {
        "gpu": st.sampled_from(["0", "1"]),
        "UUID": st.sampled_from(
            ["GPU-00000001-0c43-4e0a-8a6e-61d9f0a2c001", "", "0001F2C3-0C43-4E0A-8A6E-61D9F0A2C001"]
        ),
        "Hostname": st.sampled_from(["node-0042", 'no"de\\ 1,2', "nvidia-dcgm-exporter-9w2kd"]),
    },
    optional={
        "pod": st.sampled_from(["infer-a", "infer-b"]),
        "GPU_I_ID": st.sampled_from(["1", "2"]),
        "modelName": st.just("NVIDIA H100 80GB HBM3"),
    },
)
values = (
    st.integers(0, 2**33)
    | st.floats(0, 1e9, allow_nan=False)
    | st.sampled_from([4294967295, 0.5, 140737488355328.0])
)
series = st.lists(
    st.tuples(st.sampled_from(METRICS), labels, values),
    max_size=12,
    unique_by=lambda s: (s[0], str(sorted(s[1].items()))),
)


def text(found: Iterable[Series], second: int = SECOND) -> list[bytes]:
    def line(name: str, own: dict[str, str], value: float) -> str:
        inside = ",".join(
            f'{k}="{v.replace(chr(92), chr(92) * 2).replace(chr(34), chr(92) + chr(34))}"'
            for k, v in own.items()
        )
        return f"{name}{{{inside}}} {value!r} {second * 1000}"

    return ["\n".join(line(*s) for s in found).encode()]


def otlp(found: Iterable[Series], second: int = SECOND) -> list[bytes]:
    metrics = [
        {
            "name": name,
            "gauge": {
                "dataPoints": [
                    {
                        "attributes": [{"key": k, "value": {"stringValue": v}} for k, v in own.items()],
                        "timeUnixNano": str(second * 10**9),
                        **({"asInt": str(value)} if isinstance(value, int) else {"asDouble": value}),
                    }
                ]
            },
        }
        for name, own, value in found
    ]
    return [json.dumps({"resourceMetrics": [{"scopeMetrics": [{"metrics": metrics}]}]}).encode()]


def proto(found: Iterable[Series], second: int = SECOND) -> list[bytes]:
    request = ExportMetricsServiceRequest()
    scope = request.resource_metrics.add().scope_metrics.add()
    for name, own, value in found:
        point = scope.metrics.add(name=name).gauge.data_points.add(time_unix_nano=second * 10**9)
        for key, each in own.items():
            point.attributes.add(key=key).value.string_value = each
        if isinstance(value, int):
            point.as_int = value
        else:
            point.as_double = value
    return [request.SerializeToString()]


def telegraf_1(found: Iterable[Series], second: int = SECOND) -> list[bytes]:
    return [
        json.dumps({"name": n, "tags": own, "fields": {"gauge": v}, "timestamp": second}).encode()
        for n, own, v in found
    ]


def telegraf_2(found: Iterable[Series], second: int = SECOND) -> list[bytes]:
    together: dict[str, dict[str, Any]] = {}
    for name, own, value in found:
        metric = {"name": "prometheus", "tags": own, "fields": {}, "timestamp": second}
        together.setdefault(json.dumps(own, sort_keys=True), metric)["fields"][name] = value
    return [json.dumps(metric).encode() for metric in together.values()]


def lines(found: Iterable[Series], second: int = SECOND) -> list[bytes]:
    def plain(value: str) -> str:
        return "".join("\\" + c if c in ", =" else c for c in value)

    return [
        "\n".join(
            f"{n},{','.join(f'{k}={plain(v)}' for k, v in own.items() if v)} gauge={v!r}{'i' if isinstance(v, int) else ''}"
            f" {second * 10**9}"
            for n, own, v in found
        ).encode()
    ]


def vector(found: Iterable[Series], second: int = SECOND) -> list[bytes]:
    at = datetime.fromtimestamp(second, UTC).isoformat()
    return [
        json.dumps(
            {"name": n, "tags": own, "timestamp": at, "kind": "absolute", "gauge": {"value": v}}
        ).encode()
        for n, own, v in found
    ]


def adapter(found: Iterable[Series], second: int = SECOND) -> list[bytes]:
    at = datetime.fromtimestamp(second, UTC).isoformat()
    return [
        json.dumps({"name": n, "labels": {"__name__": n, **own}, "timestamp": at, "value": repr(v)}).encode()
        for n, own, v in found
    ]


FORMS = {
    "prometheus": text,
    "otlp_json": otlp,
    "otlp_proto": proto,
    "telegraf": telegraf_1,
    "telegraf ": telegraf_2,
    "vector": vector,
    "prometheus_kafka_adapter": adapter,
}


def samples(form: str, messages: list[bytes]) -> list[str]:
    points: list[Point] = [p for message in messages for p in format_named(form.strip()).points(message)]
    found = Gatherer(DCGM, CATALOG).gather(points)
    return sorted(json.dumps([sample.time, dict(sorted(sample.data.items()))]) for sample in found.samples)


@given(series)
def test_every_form_of_the_same_points_gives_the_same_samples(found: list[Series]) -> None:
    expected = samples("prometheus", text(found))
    for form, write in FORMS.items():
        assert samples(form, write(found)) == expected, form


@given(series.filter(lambda found: all(own["Hostname"] != 'no"de\\ 1,2' for _, own, _ in found)))
def test_line_protocol_gives_the_same_samples(found: list[Series]) -> None:
    assert samples("telegraf", lines(found)) == samples("prometheus", text(found))


@given(series, st.randoms())
def test_the_order_of_the_points_changes_nothing(found: list[Series], random: Any) -> None:
    mixed = list(found)
    random.shuffle(mixed)
    assert samples("prometheus", text(mixed)) == samples("prometheus", text(found))
