"""Every kind of bad input ends with its fate and a precise reason, and its neighbours live."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from pipeline.stream.deadletter_writer import HEADER_LIMIT, VALUE_LIMIT, headers_of

DEAD, DOUBTED = "dead_lettered", "quarantined"


def raw(make: Any, value: bytes | None, **options: Any) -> Any:
    return make.record(value, **options)


def structured(make: Any, **changes: Any) -> bytes:
    """The value of a good event after these changes to its attributes."""
    message = json.loads(make.event().value)
    return json.dumps({k: v for k, v in {**message, **changes}.items() if v is not ...}).encode()


MESSAGES = {
    "not_json": lambda m: raw(m, b"gpu=1,power=700"),
    "null_value": lambda m: raw(m, None),
    "too_large": lambda m: m.event(node="n" * m.MAX_BYTES),
    "confluent_wire_format": lambda m: raw(m, b"\x00\x00\x00\x00\x07" + m.event().value),
    "compressed_value": lambda m: raw(m, gzip.compress(b"0" * 50_000_000)),
    "not_utf8": lambda m: raw(m, m.event(node="caf\u00e9").value.replace(b"caf\\u00e9", b"caf\xe9")),
    "not_a_cloudevent": lambda m: raw(m, json.dumps(m.GPU).encode()),
    "content_type_missing": lambda m: raw(
        m, m.event().value, headers=(("content-type", b"application/json"),)
    ),
    "unknown_type": lambda m: m.event(envelope={"type": "gpu.utilization.v2"}),
    "data_missing": lambda m: raw(m, structured(m, data=...)),
    "data_empty_array": lambda m: m.event(data=[]),
    "sample_not_an_object": lambda m: m.event(data=[[]]),
    "id_missing": lambda m: m.event(envelope={"id": ...}),
    "source_length": lambda m: m.event(source=""),
    "id_not_unicode": lambda m: raw(m, structured(m, id="\ud800")),
    "source_not_unicode": lambda m: raw(m, structured(m, source="/a\udfff")),
    "time_missing": lambda m: m.event(envelope={"time": ...}),
    "time_without_zone": lambda m: m.event(envelope={"time": "2026-09-21T13:33:20"}),
    "time_malformed": lambda m: m.event(envelope={"time": "yesterday"}),
    "time_mistyped": lambda m: raw(m, structured(m, time=1_790_000_000)),
    "gpu_missing": lambda m: m.event(gpu=...),
    "region_missing": lambda m: m.event(region=None),
    "region_mistyped": lambda m: m.event(region=7),
    "region_length": lambda m: m.event(region=""),
    "provider_length": lambda m: m.event(provider="p" * 257),
    "node_not_unicode": lambda m: m.event(node="\ud83d"),
}


@pytest.mark.parametrize("reason", MESSAGES)
def test_what_cannot_be_understood_is_a_dead_letter_with_its_reason_and_bytes(
    pipeline: Any, make: Any, reason: str
) -> None:
    bad, good = MESSAGES[reason](make), make.event(id="good")
    _, letters = pipeline.take(good, bad)
    assert pipeline.fates() == {("aggregated", ""): 1, (DEAD, reason): 1}
    (letter,) = letters
    assert (letter.record.value, letter.record.headers) == (bad.value, bad.headers)
    assert (letter.topic, letter.record.partition, letter.record.offset) == ("telemetry.gpu", 0, 1)
    headers = dict(headers_of(letter))
    assert headers["gigawatch-reason"] == reason.encode()
    assert headers["gigawatch-topic"] == b"telemetry.gpu" and headers["gigawatch-offset"] == b"1"


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        ("utilization_ratio_mistyped", {"utilization_ratio": "0.5"}),
        ("utilization_ratio_mistyped", {"utilization_ratio": "N/A"}),
        ("utilization_ratio_out_of_range", {"utilization_ratio": 4294967295}),
        ("utilization_ratio_nan", {"utilization_ratio": float("nan")}),
        ("power_watts_mistyped", {"power_watts": True}),
        ("power_watts_out_of_range", {"power_watts": 0x7FFFFFF0}),
        ("power_watts_out_of_range", {"power_watts": float("inf")}),
        ("power_watts_negative", {"power_watts": -2}),
        ("memory_used_bytes_out_of_range", {"memory_used_bytes": 10**30}),
        ("xid_mistyped", {"xid": 3.5}),
        ("xid_out_of_range", {"xid": 1e400}),
        ("temperature_celsius_out_of_range", {"temperature_celsius": -273}),
        ("health_not_in_enum", {"health": "well"}),
        ("health_mistyped", {"health": 1}),
    ],
)
@pytest.mark.parametrize("careful", [False, True])  # an escape in its id sends a message down the slow path
def test_a_bad_measure_is_set_aside_with_its_reason_and_its_sample_lives(
    pipeline: Any, make: Any, reason: str, changes: dict[str, Any], careful: bool
) -> None:
    (field,) = changes
    id = 'b"d' if careful else "bad"
    _, letters = pipeline.take(make.event(id="good"), make.event(id=id, **changes))
    assert letters == [] and pipeline.fates() == {("aggregated", ""): 2}
    assert pipeline.aside() == {(field, reason): 1}
    good = int(field in make.GPU)
    assert pipeline.sql(f"SELECT samples, {field}_count FROM partials_gpu_10s") == [(2, good)]
    ((*where, sample),) = pipeline.quarantine("reason, field, id, idx, record_offset, sample")
    assert where == [reason, field, id, 0, 1]
    assert json.loads(sample).keys() == {field}


@pytest.mark.parametrize("careful", [False, True])
def test_minus_one_says_that_nothing_was_measured_where_nothing_can_be_negative(
    pipeline: Any, make: Any, careful: bool
) -> None:
    id = 'b"d' if careful else "bad"
    pipeline.take(make.event(id=id, power_watts=-1, xid=-1.0, temperature_celsius=-1))
    pipeline.take(
        make.event("telemetry.queue", id=id, oldest_wait_seconds=-1, admission_wait_seconds=[3, -1])
    )
    assert pipeline.fates() == {("aggregated", ""): 2} and pipeline.aside() == {}
    counts = "power_watts_count, xid_count, temperature_celsius_count"
    assert pipeline.sql(f"SELECT {counts} FROM partials_gpu_10s") == [(0, 0, 1)]
    assert pipeline.sql("SELECT oldest_wait_seconds_count FROM partials_queue_10s") == [(0,)]
    assert pipeline.sql("SELECT sum(n) FROM hist_queue_10s") == [(1,)]


def test_of_a_list_the_bad_values_are_set_aside_and_a_list_that_is_too_long_or_none_as_a_whole(
    pipeline: Any, make: Any
) -> None:
    name = "admission_wait_seconds"
    for id, waits in (("1", [3, None, "x", 63931058760.0, 44]), ("2", "N/A"), ("3", [1] * 100_001)):
        pipeline.take(make.event("telemetry.queue", id=id, **{name: waits}))
    assert pipeline.fates() == {("aggregated", ""): 3}
    assert pipeline.aside() == {(name, f"{name}_mistyped"): 2, (name, f"{name}_too_many"): 1}
    assert pipeline.sql("SELECT sum(n) FROM hist_queue_10s") == [(2,)]
    assert pipeline.quarantine("sample")[0] == ('{"admission_wait_seconds": ["x", 63931058760.0]}',)


def test_a_bad_label_is_set_aside_and_a_bad_dimension_refuses_the_sample(pipeline: Any, make: Any) -> None:
    pipeline.take(make.event("telemetry.energy", id="1", currency="euros"))
    pipeline.take(make.event(id="2", nvlink_domain=7))
    assert pipeline.fates() == {("aggregated", ""): 1, (DEAD, "nvlink_domain_mistyped"): 1}
    assert pipeline.aside() == {("currency", "currency_length"): 1}


def test_an_interval_that_is_none_is_set_aside_for_each_sample(pipeline: Any, make: Any) -> None:
    pipeline.take(make.event(id="1", data=[make.GPU, make.GPU], envelope={"interval": "15m"}))
    pipeline.take(
        make.event(id="2", envelope={"interval": 0}), make.event(id="3", envelope={"interval": "900"})
    )
    assert pipeline.aside() == {
        ("interval", "interval_mistyped"): 2,
        ("interval", "interval_out_of_range"): 1,
    }
    assert pipeline.sql("SELECT max(interval) FROM partials_gpu_10s") == [(900,)]


def test_a_fault_in_every_sample_is_counted_and_the_first_hundred_are_kept_however_batches_are_cut(
    make: Any, make_pipeline: Any, tmp_path: Any
) -> None:
    samples = [{**make.GPU, "gpu": f"GPU-{n}", "utilization_ratio": "N/A"} for n in range(72)]
    events = [make.event(id=str(n), data=samples) for n in (1, 2, 3, 1)]
    kept = []
    for cuts in ([events], [[event] for event in events]):
        one = make_pipeline(tmp_path / str(len(kept)))
        for batch in cuts:
            one.take(*batch)
        assert one.fates() == {("aggregated", ""): 216, ("duplicate", "identity_seen"): 72}
        assert one.aside() == {("utilization_ratio", "utilization_ratio_mistyped"): 216}
        kept.append(one.quarantine("record_offset, idx, id, sample"))
    assert kept[0] == kept[1] and len(kept[0]) == 100
    assert kept[0][-1] == (1, 27, "2", '{"utilization_ratio": "N/A"}')


@pytest.mark.parametrize(("ahead", "fate"), [(60, "aggregated"), (60.001, DOUBTED)])
def test_an_event_more_than_a_minute_later_than_its_record_is_quarantined(
    pipeline: Any, make: Any, ahead: float, fate: str
) -> None:
    pipeline.take(make.event(at=make.T0 + ahead, appended=make.T0))
    assert pipeline.fates() == {(fate, "time_in_future" if fate == DOUBTED else ""): 1}


def test_a_clock_in_the_future_does_not_move_the_progress(pipeline: Any, make: Any) -> None:
    pipeline.take(make.event(at=make.T0, id="a"), make.event(at=make.T0 + 3600, id="b", appended=make.T0))
    assert pipeline.ledger.progress() == {("telemetry.gpu", 0): make.naive(make.T0)}


@pytest.mark.parametrize("binary", [False, True])
def test_one_bad_sample_among_72_leaves_71_good_ones(pipeline: Any, make: Any, binary: bool) -> None:
    samples = [{**make.GPU, "gpu": f"GPU-{n}"} for n in range(72)]
    samples[17]["region"] = 700
    _, letters = pipeline.take(make.event(data=samples, binary=binary))
    assert pipeline.fates() == {("aggregated", ""): 71, (DEAD, "region_mistyped"): 1}
    assert pipeline.sql("SELECT bit_count(observed) FROM bits_gpu_10s") == [(71,)]
    assert [letter.reasons for letter in letters] == [{17: "region_mistyped"}]


def test_an_array_with_many_bad_samples_is_one_dead_letter_with_every_reason(
    pipeline: Any, make: Any
) -> None:
    samples = [{**make.GPU, "gpu": f"GPU-{n}"} for n in range(8)]
    samples[1]["site"], samples[3]["region"], samples[5]["power_watts"] = 1, None, 1e9
    _, (letter,) = pipeline.take(make.event(data=samples))
    assert letter.reasons == {1: "site_mistyped", 3: "region_missing"}
    assert dict(headers_of(letter))["gigawatch-reasons"] == b"1:site_mistyped,3:region_missing"
    assert pipeline.fates()["aggregated", ""] == 6
    assert pipeline.aside() == {("power_watts", "power_watts_out_of_range"): 1}


def test_an_array_counts_each_sample_and_a_message_that_cannot_be_opened_counts_once(
    pipeline: Any, make: Any
) -> None:
    samples = [{**make.GPU, "gpu": f"GPU-{n}"} for n in range(72)]
    value = make.event(data=samples).value
    pipeline.take(make.record(value), make.record(value[:-1]))
    assert pipeline.fates() == {("aggregated", ""): 72, (DEAD, "not_json"): 1}


@pytest.mark.parametrize(
    "spoilt", [(b"plain",), (b"{'a': 1}",), (b"plain", b"{'a': 1}"), (b"{'a': 1}", b"<a/>")]
)
@pytest.mark.parametrize("end", [b"", b"\n"])
def test_what_is_no_json_costs_its_neighbours_nothing_in_its_own_batch_and_in_those_after_it(
    pipeline: Any, make: Any, spoilt: tuple[bytes, ...], end: bytes
) -> None:
    """Whatever it looks like, and whatever kind of it was met before; good values may end with white space."""
    for turn, value in enumerate(spoilt):
        single = make.event(id=f"{turn}-single").value + end
        array = make.event(id=f"{turn}-array", data=[make.GPU, make.GPU]).value + end
        binary = make.event(id=f"{turn}-binary", data=[make.GPU, make.GPU], binary=True)
        pipeline.take(make.record(single), make.record(value), make.record(array), binary)
    turns = len(spoilt)
    assert pipeline.fates() == {("aggregated", ""): 5 * turns, (DEAD, "not_json"): turns}


@pytest.mark.parametrize("layout", [{}, {"indent": 2}, {"indent": "\t"}, {"separators": (",", ":")}])
def test_an_array_is_an_array_however_it_is_laid_out(
    pipeline: Any, make: Any, layout: dict[str, Any]
) -> None:
    message = json.loads(make.event(data=[{**make.GPU, "gpu": f"GPU-{n}"} for n in range(8)]).value)
    pipeline.take(make.record(json.dumps(message, **layout).encode()))
    assert pipeline.fates() == {("aggregated", ""): 8}


HOSTILE = [
    "'; DROP TABLE fates; --",
    "x\" OR '1'='1",
    "<script>alert('x')</script>",
    "two\nlines\r\n\tand a tab",
    "back\\slash and 'quotes' and \"double\"",
    "emoji 🔥👩‍🚒 and São Paulo and עברית",
    "NUL \x00 inside",
    "\u2028\u2029\ufeff\u200b",
    "{{ template }} ${env} %s %(x)s {0}",
    "ce_%20percent%41",
    " leading and trailing ",
    "null",
]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("escaped", [True, False])
def test_whatever_is_written_in_a_label_survives_as_data(
    pipeline: Any, make: Any, text: str, escaped: bool
) -> None:
    message = json.loads(make.event(cluster=text, gpu=text, node=text, source=f"/{text}", id=text).value)
    pipeline.take(make.record(json.dumps(message, ensure_ascii=escaped).encode()))
    assert pipeline.fates() == {("aggregated", ""): 1}
    path = f"{pipeline.data}/segments/gpu-*.parquet"
    assert pipeline.sql(f"SELECT cluster, gpu, node, source, id FROM '{path}'") == [
        (text, text, text, f"/{text}", text)
    ]
    assert pipeline.sql("SELECT cluster FROM series_gpu") == [(text,)]
    assert pipeline.sql("SELECT entity FROM entities_gpu") == [(text,)]


@pytest.mark.parametrize("text", HOSTILE)
def test_headers_of_the_binary_mode_are_taken_as_they_are(pipeline: Any, make: Any, text: str) -> None:
    """The Kafka binding says UTF-8; percent-encoding is HTTP's."""
    pipeline.take(make.event(binary=True, id=text, source=f"/{text}"))
    path = f"{pipeline.data}/segments/gpu-*.parquet"
    assert pipeline.sql(f"SELECT source, id FROM '{path}'") == [(f"/{text}", text)]


ATTRIBUTES = [("ce_specversion", b"1.0"), ("ce_source", b"/s"), ("ce_type", b"gpu.utilization.v1")]


@pytest.mark.parametrize(
    "headers",
    [
        [(name.upper(), text) for name, text in ATTRIBUTES] + [("Ce_Id", b"1")],
        [("ce_id", b"0"), *ATTRIBUTES, ("ce_id", b"1"), ("CE_ID", b"2")],
        [*ATTRIBUTES, ("ce_id", b"1"), ("content-type", None), ("trace", b"\xff\x00"), ("", b"")],
    ],
)
def test_header_names_in_any_case_given_twice_or_without_text_are_read(
    pipeline: Any, make: Any, headers: Any
) -> None:
    time = make.rfc3339(make.T0).encode()
    pipeline.take(make.record(json.dumps(make.GPU).encode(), [*headers, ("ce_time", time)]))
    assert pipeline.fates() == {("aggregated", ""): 1}
    path = f"{pipeline.data}/segments/gpu-*.parquet"
    assert pipeline.sql(f"SELECT id FROM '{path}'") == [("1",)]


@pytest.mark.parametrize(
    ("header", "reason"), [(("ce_id", b"\xff"), "not_utf8"), (("ce_id", None), "id_missing")]
)
def test_a_header_that_is_no_text_is_a_dead_letter(
    pipeline: Any, make: Any, header: tuple[str, bytes | None], reason: str
) -> None:
    good = make.event(binary=True, id="good")
    pipeline.take(good, make.record(good.value, [*good.headers, header]))
    assert pipeline.fates() == {("aggregated", ""): 1, (DEAD, reason): 1}


@pytest.mark.parametrize(
    "content_type", [b"application/cloudevents", b"Application/CloudEvents+JSON;charset=x"]
)
def test_the_structured_mode_is_told_by_its_media_type_in_any_case(
    pipeline: Any, make: Any, content_type: bytes
) -> None:
    pipeline.take(make.event(headers=[("Content-Type", content_type), ("ce_id", b"ignored")]))
    assert pipeline.fates() == {("aggregated", ""): 1}


DEEP = b"[" * 100_000 + b"]" * 100_000


def test_what_is_nested_deep_or_written_long_in_undeclared_properties_does_no_harm(
    pipeline: Any, make: Any
) -> None:
    value = make.event(undeclared="HERE").value
    odd = [DEEP, b"9" * 100_000, b"1e999999", b"-Infinity", b'{"a":' * 5000 + b"1" + b"}" * 5000]
    pipeline.take(
        *(make.record(value.replace(b'"HERE"', o).replace(b'"1"', b'"%d"' % n)) for n, o in enumerate(odd))
    )
    assert pipeline.fates() == {("aggregated", ""): 5}


@pytest.mark.parametrize(
    ("value", "fates"),
    [
        (DEEP, {(DEAD, "not_a_cloudevent"): 1}),
        (b"[" * 100_000, {(DEAD, "not_json"): 1}),
        (b'"' * 100_001, {(DEAD, "not_json"): 1}),
        (b"", {(DEAD, "not_json"): 1}),
        (b"null", {(DEAD, "not_a_cloudevent"): 1}),
        (b"9" * 500_000, {(DEAD, "not_a_cloudevent"): 1}),
    ],
)
def test_messages_that_are_nothing_but_depth_or_length_are_dead_letters(
    pipeline: Any, make: Any, value: bytes, fates: Any
) -> None:
    pipeline.take(make.record(value))
    assert pipeline.fates() == fates


def test_deep_nesting_in_a_column_that_is_kept_as_json_is_set_aside_and_not_cut(
    pipeline: Any, make: Any
) -> None:
    good = make.event("telemetry.billing", Tags="HERE").value
    for n, (depth, _) in enumerate([(150, "aggregated"), (5000, DEAD)]):
        tags = b'{"a":' * depth + b"1" + b"}" * depth
        value = good.replace(b'"HERE"', tags).replace(b'"id": "1"', b'"id": "%d"' % n)
        pipeline.take(make.record(value, topic="telemetry.billing"))
    assert pipeline.fates() == {("aggregated", ""): 2}
    assert pipeline.aside() == {("Tags", "Tags_nested_too_deep"): 1}


def test_a_doubted_sample_with_deep_data_can_be_kept(pipeline: Any, make: Any) -> None:
    value = make.event(undeclared="HERE", at=make.T0 + 3600).value
    pipeline.take(make.record(value.replace(b'"HERE"', DEEP), appended=make.T0))
    assert pipeline.fates() == {(DOUBTED, "time_in_future"): 1}


def test_of_a_repeated_key_the_first_counts(pipeline: Any, make: Any) -> None:
    value = make.event(power_watts=1).value.replace(b'"xid": 0', b'"xid": 0, "power_watts": 9')
    pipeline.take(make.record(value))
    assert pipeline.sql("SELECT power_watts_max FROM partials_gpu_10s") == [(1.0,)]


def test_money_is_exact_in_every_form(pipeline: Any, make: Any) -> None:
    value = make.event("telemetry.billing", BilledCost="HERE").value
    forms = [b"8000000.0000000001", b'"8000000.0000000001"', b"80000000000000001e-10"]
    single = [value.replace(b'"HERE"', f).replace(b'"1"', b'"s%d"' % n) for n, f in enumerate(forms)]
    data = json.loads(value)["data"]
    listed = json.dumps({**json.loads(value), "id": "array", "data": [data] * 3}).encode()
    for form in forms:
        listed = listed.replace(b'"HERE"', form, 1)
    pipeline.take(*(make.record(v, topic="telemetry.billing") for v in (*single, listed)))
    assert pipeline.sql("SELECT DISTINCT BilledCost::VARCHAR, count(*) FROM charges GROUP BY 1") == [
        ("8000000.000000000100000", 6)
    ]


def test_a_dead_letter_keeps_within_its_limits(pipeline: Any, make: Any) -> None:
    from pipeline.stream.deadletter_writer import _value

    huge = make.record(b"x" * (make.MAX_BYTES + 1), [("h", b"y" * 100_000), ("none", None)])
    _, (letter,) = pipeline.take(huge)
    headers = dict(headers_of(letter))
    assert len(_value(letter) or b"") == VALUE_LIMIT
    assert headers["gigawatch-truncated"] == b"true"
    assert headers["gigawatch-value-bytes"] == str(make.MAX_BYTES + 1).encode()
    assert len(headers["h"]) == HEADER_LIMIT and headers["none"] == b""


def test_a_batch_of_nothing_but_bad_records_is_taken_in(pipeline: Any, make: Any) -> None:
    pipeline.take(*(make.record(v) for v in (None, b"", b"\xff\xfe", b"\x00", b"{}")))
    assert sum(pipeline.fates().values()) == 5
    assert pipeline.ledger.offsets() == {("telemetry.gpu", 0): 5}


UUID = "0001f2c3-0c43-4e0a-8a6e-61d9f0a2c001"
NIL = "00000000-0000-0000-0000-000000000000"


@pytest.mark.parametrize(
    ("named", "gpu"),
    [
        (UUID, f"GPU-{UUID}"),
        (UUID.upper(), f"GPU-{UUID}"),
        (f"gpu-{UUID.upper()}", f"GPU-{UUID}"),
        (f"GPU-{UUID}", f"GPU-{UUID}"),
        ("GPU-B-1", "GPU-B-1"),
        (f"MIG-{UUID.upper()}", f"MIG-{UUID.upper()}"),
        ("1320922012345", "1320922012345"),
    ],
)
@pytest.mark.parametrize("careful", [False, True])
def test_a_uuid_has_one_spelling_and_other_names_stay_as_they_are(
    pipeline: Any, make: Any, named: str, gpu: str, careful: bool
) -> None:
    pipeline.take(make.event(id='b"d' if careful else "1", gpu=named), make.event(id="2", gpu=f"GPU-{UUID}"))
    assert pipeline.sql("SELECT entity FROM entities_gpu ORDER BY 1") == [
        (name,) for name in sorted({gpu, f"GPU-{UUID}"})
    ]


@pytest.mark.parametrize("named", ["", None, NIL, f"GPU-{NIL}", NIL.replace("-", ""), ...])
def test_a_name_that_identifies_nothing_gives_way_to_node_and_index(
    pipeline: Any, make: Any, named: Any
) -> None:
    def sample(**changes: Any) -> dict[str, Any]:
        return {
            k: v for k, v in {**make.GPU, "gpu": named, "node": "n-42", **changes}.items() if v is not ...
        }

    _, letters = pipeline.take(
        make.event(id="1", data=[sample(), sample(), sample(index=7)]),
        make.event(id="2", data=sample(index="3")),
        make.event(id="3", data=sample()),
    )
    names = [("n-42/0",), ("n-42/1",), ("n-42/3",), ("n-42/7",)]
    assert pipeline.sql("SELECT entity FROM entities_gpu ORDER BY 1") == names
    assert [letter.reasons for letter in letters] == [{0: "gpu_missing"}]
