"""CloudEvents as Kafka messages, in blocks: the unit that the simulator hands on is many messages, not one.

Structured mode puts the envelope around the data; binary mode puts it into `ce_` headers
(CloudEvents 1.0, Kafka protocol binding).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, NamedTuple

import msgspec

Mode = Literal["structured", "binary", "scraped"]
"""How events are written.  `scraped`: GPUs are not; exporters show them, and all else is structured."""
Headers = list[tuple[str, bytes]]

STRUCTURED: Headers = [("content-type", b"application/cloudevents+json; charset=UTF-8")]


class Message(NamedTuple):
    """One Kafka message; `time_ms` is the event time in epoch milliseconds, `samples` how many it carries."""

    topic: str
    time_ms: int
    key: bytes
    headers: Headers
    value: bytes
    samples: int


@dataclass(frozen=True, slots=True)
class Block:
    """Messages of one topic as parallel columns; `headers` is one list for all, or one for each message."""

    topic: str
    times_ms: list[int]
    keys: list[bytes]
    values: list[bytes]
    samples: Sequence[int]
    headers: list[Headers] | None = None

    def messages(self) -> Iterator[Message]:
        headers = self.headers or [STRUCTURED] * len(self.values)
        rows = zip(self.times_ms, self.keys, headers, self.values, self.samples, strict=True)
        for time_ms, key, header, value, samples in rows:
            yield Message(self.topic, time_ms, key, header, value, samples)


def rfc3339(time_ms: int) -> str:
    """Epoch milliseconds → `2026-11-20T10:00:12.345Z`."""
    return f"{datetime.fromtimestamp(time_ms // 1000, UTC):%Y-%m-%dT%H:%M:%S}.{time_ms % 1000:03d}Z"


def binary_headers(id_: str, source: str, type_: str, time: str) -> Headers:
    """The envelope of one event as headers."""
    return [
        ("ce_specversion", b"1.0"), ("ce_id", id_.encode()), ("ce_source", source.encode()),
        ("ce_type", type_.encode()), ("ce_time", time.encode()), ("content-type", b"application/json"),
    ]  # fmt: skip


def cloud_event(
    topic: str, type_: str, source: str, id_: str, time_ms: int, data: object, mode: Mode = "structured"
) -> Message:
    """One event of few: `data` is one sample (a dict) or a list of them.  The key is the source."""
    time = rfc3339(time_ms)
    samples = len(data) if isinstance(data, list) else 1
    if mode == "binary":
        headers = binary_headers(id_, source, type_, time)
        return Message(topic, time_ms, source.encode(), headers, msgspec.json.encode(data), samples)
    envelope = {
        "specversion": "1.0", "id": id_, "source": source, "type": type_, "time": time,
        "datacontenttype": "application/json", "data": data,
    }  # fmt: skip
    return Message(topic, time_ms, source.encode(), STRUCTURED, msgspec.json.encode(envelope), samples)


def as_block(messages: Iterable[Message]) -> Block | None:
    """Messages of one topic as a block; None if there are none."""
    rows = list(messages)
    if not rows:
        return None
    return Block(
        rows[0].topic, [m.time_ms for m in rows], [m.key for m in rows], [m.value for m in rows],
        [m.samples for m in rows], [m.headers for m in rows],
    )  # fmt: skip
