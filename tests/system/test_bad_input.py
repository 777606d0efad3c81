"""Bad input through a real Kafka: each record ends where it can be found again, and its neighbours live."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from pipeline.simulate.cloud_events import STRUCTURED, binary_headers, rfc3339
from pipeline.stream.deadletter_writer import VALUE_LIMIT
from tests.records import records_of

GPU = "telemetry.gpu"
OVERSIZED = 1_500_000
Case = tuple[bytes | None, list[tuple[str, bytes]], dict[tuple[str, str], int]]
"""Value, headers, and the fates that must come of it: (fate, reason) → events."""
DEAD, DOUBTED = "dead_lettered", "quarantined"

ASIDE = {
    "p": ("power_watts", "hot"),
    "r": ("utilization_ratio", 4294967295),
    "n": ("utilization_ratio", float("nan")),
    "s": ("utilization_ratio", "0.5"),
    "b": ("utilization_ratio", True),
}
"""Event → a measure that is set aside while the event lives."""


def _cases(event: Callable[..., bytes], at: float) -> Iterator[Case]:
    def case(
        value: bytes | None, fate: str, reason: str, headers: list[tuple[str, bytes]] = STRUCTURED
    ) -> Case:
        return value, headers, {(fate, reason): 1}

    good = event("template", at)
    yield case(b"gpu=1,power=700", DEAD, "not_json")
    yield case(b'{"hello": "world"}', DEAD, "not_a_cloudevent")
    yield case(good, DEAD, "content_type_missing", [])
    yield case(event("t", at, type="gpu.utilization.v9"), DEAD, "unknown_type")
    yield case(event("m", at, {"gpu": None}), DEAD, "gpu_missing")
    for id, (field, value) in ASIDE.items():
        yield case(event(id, at, {field: value}), "aggregated", "")
    yield case(event("z", at, time="2026-09-21T13:33:20"), DEAD, "time_without_zone")
    yield case(event("f", time.time() + 3600), DOUBTED, "time_in_future")
    yield case(event("g-0-0", at), "duplicate", "identity_seen")
    yield case(event("o", at, {"node": "n" * OVERSIZED}), DEAD, "too_large")
    yield case(None, DEAD, "null_value")
    yield case(b"\x00\x00\x00\x00\x07" + good, DEAD, "confluent_wire_format")
    yield case(gzip.compress(b"0" * 200_000_000), DEAD, "compressed_value")
    yield case(good[:-40] + b"\xff\xfe" + good[-38:], DEAD, "not_utf8")
    yield case(b"", DEAD, "not_json")
    yield case(b"[" * 100_000, DEAD, "not_json")
    # Nothing in these is ours to judge: whoever is named in headers, however many there are, it is not an event.
    yield case(b"", DEAD, "not_json", [(f"x-{i}", b"\xff" * 12_000) for i in range(250)])
    for text in (
        "'; DROP TABLE offsets; --",
        "<script>alert(1)</script>",
        "two\nlines\ttabs",
        "\u202egnp.exe",
        "{{7*7}}",
    ):
        yield event(f"label {text}", at, {"cluster": text, "node": text}), STRUCTURED, {("aggregated", ""): 1}
    samples = [json.loads(event(f"a{i}", at, {"gpu": f"GPU-a{i}"}))["data"] for i in range(73)]
    samples[40]["region"] = 7
    yield (
        json.dumps(json.loads(good) | {"id": "array", "data": samples}).encode(),
        STRUCTURED,
        {
            ("aggregated", ""): 72,
            (DEAD, "region_mistyped"): 1,
        },
    )
    binary = binary_headers("binary", "/gigawatch/test/n0001", "gpu.utilization.v1", rfc3339(int(at * 1000)))
    yield json.dumps(json.loads(good)["data"]).encode(), binary, {("aggregated", ""): 1}
    yield b"{", binary, {(DEAD, "not_json"): 1}


def test_every_bad_record_ends_counted_and_kept_among_good_neighbours(
    kafka: Any, telemetry_topics: Any, worker_factory: Any, send: Any, gpu_event: Any
) -> None:
    telemetry_topics(partitions=2)
    now = time.time() - 30
    cases = list(_cases(gpu_event, now))
    records: list[tuple[bytes | None, list[tuple[str, bytes]]]] = []
    fates: Counter[tuple[str, str]] = Counter()
    for number, (value, headers, outcome) in enumerate(cases):
        records += [(gpu_event(f"g-{number}-{i}", now), STRUCTURED) for i in range(3)]
        records.append((value, headers))
        fates.update(outcome)
        fates["aggregated", ""] += 3
    send(kafka.bootstrap, GPU, records, partition=1, max_request_size=4 * 2**20)
    worker = worker_factory(kafka.bootstrap).start().await_begun().await_taken_in().await_published()
    assert worker.stop() == 0, worker.said()
    found = worker.ask(
        f"SELECT part, fate, reason, sum(n)::BIGINT FROM fates WHERE topic = '{GPU}' GROUP BY ALL"
    )
    assert {part for part, *_ in found} == {1}
    counted = {(fate, reason): n for _, fate, reason, n in found}
    assert counted.pop(("in", "")) == fates.total()
    assert counted == dict(fates)
    assert worker.one("SELECT count(*) FROM gpu") == fates["aggregated", ""]
    assert worker.one("SELECT count(*) FROM quarantine WHERE field IS NULL") == sum(
        n for (f, _), n in fates.items() if f == DOUBTED
    )
    aside = sorted((id, field) for id, (field, _) in ASIDE.items())
    assert worker.ask("SELECT id, field FROM quarantine WHERE field IS NOT NULL ORDER BY id") == aside
    assert worker.one("SELECT sum(n)::BIGINT FROM set_aside") == len(ASIDE)
    assert worker.status()["by_topic"][GPU]["set_aside"] == len(ASIDE)
    assert worker.one("SELECT count(*) FROM gpu WHERE cluster = '''; DROP TABLE offsets; --'") == 1
    _letters_hold_the_originals(kafka.bootstrap, records, cases)


def _letters_hold_the_originals(bootstrap: str, records: list[Any], cases: list[Case]) -> None:
    dead = {
        4 * number + 3: reason
        for number, (_, _, outcome) in enumerate(cases)
        for fate, reason in outcome
        if fate == DEAD
    }
    letters = {
        int(_ours(letter)["offset"]): letter for letter in records_of(bootstrap, "telemetry.deadletter")
    }
    assert letters.keys() == dead.keys()
    for offset, letter in letters.items():
        value, headers = records[offset]
        ours = _ours(letter)
        assert (ours["topic"], ours["partition"], ours["reason"]) == (GPU, "1", dead[offset])
        assert letter.value == (value or b"")[:VALUE_LIMIT], dead[offset]
        assert ours["value-bytes"] == ("null" if value is None else str(len(value)))
        kept = [(name, content) for name, content in letter.headers if not name.startswith("gigawatch-")]
        assert kept == headers[: len(kept)], dead[offset]
        assert int(ours["headers-dropped"]) == len(headers) - len(kept) <= max(0, len(headers) - 30), dead[
            offset
        ]


def _ours(letter: Any) -> dict[str, str]:
    prefix = "gigawatch-"
    return {n.removeprefix(prefix): v.decode() for n, v in letter.headers if n.startswith(prefix)}


class _Bytes(str):
    """A header's name that goes over the wire as bytes that are no UTF-8: not every client checks."""

    def encode(self, *_: Any) -> bytes:
        return b"\xff\xfe"


def test_a_header_name_that_is_no_text_holds_nothing_up(
    kafka: Any, telemetry_topics: Any, worker_factory: Any, send: Any, gpu_event: Any
) -> None:
    telemetry_topics(partitions=2)
    now = time.time() - 30
    odd: list[tuple[str, bytes]] = [*STRUCTURED, (_Bytes("odd"), b"1")]
    for part in (0, 1):
        good = [(gpu_event(f"{part}-{i}", now), STRUCTURED) for i in range(200)]
        records = [*good[:100], (gpu_event(f"{part}-odd", now), odd), *good[100:], (b"bad", odd)]
        send(kafka.bootstrap, GPU, records, partition=part, compression_type="gzip")
    worker = worker_factory(kafka.bootstrap).start().await_begun().await_taken_in().await_published()
    assert worker.stop() == 0, worker.said()
    assert worker.one("SELECT count(*) FROM gpu") == worker.one("SELECT count(DISTINCT id) FROM gpu") == 402
    letters = records_of(kafka.bootstrap, "telemetry.deadletter")
    assert [letter.value for letter in letters] == [b"bad", b"bad"]
    assert all(("\ufffd\ufffd", b"1") in letter.headers for letter in letters)


@pytest.mark.slow
def test_a_compressed_log_that_inflates_a_thousandfold_is_taken_in_with_bounded_memory(
    kafka: Any, telemetry_topics: Any, worker_factory: Any, send: Any, gpu_event: Any
) -> None:
    """200 kB of gzip become 200 records of a megabyte each."""
    telemetry_topics(partitions=1)
    now = time.time() - 30
    worker = worker_factory(kafka.bootstrap).start().await_begun()
    send(kafka.bootstrap, GPU, [gpu_event(i, now) for i in range(10)])
    asyncio.run(_send_bomb(kafka.bootstrap, [b"0" * 1_000_000] * 200))
    send(kafka.bootstrap, GPU, [gpu_event(10 + i, now) for i in range(10)])
    worker.await_taken_in()
    peak = _peak_megabytes(worker.process.pid)
    print(f"peak resident memory: {peak} MB")
    assert worker.status()["by_topic"][GPU]["reasons"] == {"not_json": 200}
    assert worker.status()["by_topic"][GPU]["aggregated"] == 20
    assert peak < 1_500
    assert worker.stop() == 0, worker.said()


async def _send_bomb(bootstrap: str, values: list[bytes]) -> None:
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap, compression_type="gzip", max_batch_size=2**30, max_request_size=2**30
    )
    await producer.start()
    try:
        batch = producer.create_batch()
        for value in values:
            assert batch.append(timestamp=None, key=None, value=value, headers=STRUCTURED) is not None
        batch.close()
        await (await producer.send_batch(batch, GPU, partition=0))
    finally:
        await producer.stop()


def _peak_megabytes(pid: int) -> int:
    line = next(x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if x.startswith("VmHWM"))
    return int(line.split()[1]) // 1024
