"""in = aggregated + duplicate + quarantined + dead-lettered, for every topic, partition and minute."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.catalog import Catalog

# How many events each kind of message is: what cannot be opened is one, an array as many as its samples.
KINDS = {
    "good": 1, "again": 1, "mistyped": 1, "doubted": 1, "future": 1, "null": 1, "garbage": 1, "foreign": 1,
    "array": 5, "bad_array": 5, "pretty_array": 5, "cut_array": 1, "empty_array": 1, "binary_array": 5,
}  # fmt: skip
TOPICS = ("telemetry.gpu", "telemetry.queue", "telemetry.energy", "telemetry.billing")
FIRST = {
    "telemetry.gpu": "gpu",
    "telemetry.queue": "queue",
    "telemetry.energy": "feed",
    "telemetry.billing": "SkuId",
}
DOUBT = {
    "telemetry.gpu": {"power_watts": -2},
    "telemetry.queue": {"pending_jobs": "many"},
    "telemetry.energy": {"it_power_watts": 1e300},
    "telemetry.billing": {"ListCost": "1e40"},
}


def message(make: Any, kind: str, topic: str, part: int, id: str, at: float) -> Any:
    samples = [{**make.SAMPLES[topic], FIRST[topic]: f"x{n}"} for n in range(5)]
    options = {"topic": topic, "part": part, "id": id, "at": at}
    where = {"topic": topic, "part": part, "appended": at}
    if kind == "mistyped":
        return make.event(**options, **{FIRST[topic]: 7})
    if kind == "doubted":
        return make.event(**options, **DOUBT[topic])
    if kind == "future":
        return make.event(**{**options, "at": at + 3600}, appended=at)
    if kind in ("null", "garbage", "foreign"):
        return make.record({"null": None, "garbage": b"{", "foreign": b"\x00\x01"}[kind], **where)
    if kind == "bad_array":
        samples[1] = {**samples[1], FIRST[topic]: None}
        samples[2] = {**samples[2], **DOUBT[topic]}
    if kind == "empty_array":
        return make.event(**options, data=[])
    if kind.endswith("array"):
        found = make.event(**options, data=samples, binary=kind == "binary_array")
        if kind == "pretty_array":
            return make.record(json.dumps(json.loads(found.value), indent=1).encode(), **where)
        return make.record(found.value[:-3], **where) if kind == "cut_array" else found
    return make.event(**options)


@settings(max_examples=20, suppress_health_check=list(HealthCheck))
@given(
    sent=st.lists(
        st.tuples(st.sampled_from(sorted(KINDS)), st.sampled_from(TOPICS), st.integers(0, 2), st.integers(0, 300)),
        min_size=1,
        max_size=40,
    ),
    cuts=st.sets(st.integers(1, 39), max_size=3),
)  # fmt: skip
def test_every_event_has_exactly_one_fate(
    catalog: Catalog, make: Any, tmp_path_factory: pytest.TempPathFactory, sent: Any, cuts: set[int]
) -> None:
    pipeline = make.Pipeline(tmp_path_factory.mktemp("balance"), catalog)
    expected: Counter[tuple[str, int]] = Counter()
    records = []
    for n, (kind, topic, part, at) in enumerate(sent):
        id = "again" if kind == "again" else str(n)
        records.append(message(make, kind, topic, part, id, make.T0 + at))
        expected[topic, part] += KINDS[kind]
    dead = 0
    start = 0
    for cut in sorted({*cuts, len(records)}):
        if records[start:cut]:
            delta, letters = pipeline.take(*records[start:cut])
            dead += sum(len(letter.reasons) for letter in letters)
            assert delta.events == sum(f.n for f in delta.fates if f.fate != "in")
            start = max(start, cut)
    arrived = "sum(n) FILTER (fate = 'in')::INTEGER"
    fated = "sum(n) FILTER (fate IN ('aggregated', 'duplicate', 'quarantined', 'dead_lettered'))::INTEGER"
    found = pipeline.sql(f"SELECT topic, part, {arrived}, {fated} FROM fates GROUP BY 1, 2")
    unbalanced = pipeline.sql(
        f"SELECT topic, part, minute FROM fates GROUP BY ALL HAVING {arrived} IS DISTINCT FROM {fated}"
    )
    counts = Counter(
        {fate: n for fate, n in pipeline.sql("SELECT fate, sum(n)::INTEGER FROM fates GROUP BY 1")}
    )
    rows = pipeline.sql("SELECT coalesce(sum(rows), 0)::INTEGER FROM segments WHERE topic <> 'quarantine'")
    doubted = pipeline.sql("SELECT coalesce(sum(rows), 0)::INTEGER FROM segments WHERE topic = 'quarantine'")
    aside = sum(pipeline.aside().values())
    pipeline.close()
    assert {(topic, part): (n, m) for topic, part, n, m in found} == {k: (n, n) for k, n in expected.items()}
    assert unbalanced == []
    assert rows == [(counts["aggregated"],)] and doubted == [(counts["quarantined"] + aside,)]
    assert dead == counts["dead_lettered"]
