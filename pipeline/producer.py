"""Sends telemetry of your own to Kafka with the headers, keys and ids that Gigawatch reads.  It needs nothing else of it.

    from pipeline.producer import Producer

    with Producer("kafka:9092", source="/agents/node-0042") as out:
        out.send("gpu.utilization.v1", [{"provider": "halcyon", ..., "gpu": "GPU-1", "power_watts": 634.5}])

Any number of samples of one time are one message: a node's GPUs, a rack's.  `message` makes the same for a client of
your own, with no Kafka in it.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, NamedTuple

TOPICS = {
    "gpu.utilization.v1": "telemetry.gpu",
    "queue.depth.v1": "telemetry.queue",
    "energy.reading.v1": "telemetry.energy",
    "billing.charge.v1": "telemetry.billing",
}
"""The topic of each type of event."""
CONTENT_TYPE = (("content-type", b"application/cloudevents+json; charset=UTF-8"),)


class KafkaMessage(NamedTuple):
    """One Kafka record.  The key is the source, so that the events of a source stay in order."""

    topic: str
    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...]


def message(
    type_: str, source: str, samples: Sequence[Mapping[str, Any]], time: datetime, interval: int | None = None
) -> KafkaMessage:
    """The record of samples of one type, source and time (with a zone); `interval`: seconds to the next, if not the schema's.

    The id follows from time and samples: what is sent again is known as the same, and counts once.  Raises ValueError.

    >>> from datetime import UTC, datetime
    >>> found = message("queue.depth.v1", "/q", [{"queue": "train", "pending_jobs": 3}], datetime(2026, 11, 23, tzinfo=UTC))
    >>> found.topic, found.key
    ('telemetry.queue', b'/q')
    """
    if type_ not in TOPICS:
        raise ValueError(f"type: found {type_!r}, expected one of {', '.join(TOPICS)}")
    if time.tzinfo is None:
        raise ValueError(
            f"time: found {time.isoformat()} without a zone, expected one with a zone, such as UTC"
        )
    if not samples:
        raise ValueError("samples: found none, expected at least one")
    data = [dict(sample) for sample in samples]
    text = json.dumps(
        data, allow_nan=False, sort_keys=True
    )  # NaN is no JSON: leave out what was not measured
    event: dict[str, Any] = {
        "specversion": "1.0",
        "id": f"{int(time.timestamp() * 1000)}-{zlib.crc32(text.encode()):08x}",
        "source": source,
        "type": type_,
        "time": time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        "data": data if len(data) > 1 else data[0],
    }
    if interval is not None:
        event["interval"] = interval
    return KafkaMessage(
        TOPICS[type_], source.encode(), json.dumps(event, allow_nan=False).encode(), CONTENT_TYPE
    )


def arrow_message(
    type_: str, source: str, samples: Sequence[Mapping[str, Any]], time: datetime, interval: int | None = None
) -> KafkaMessage:
    """The same as an Arrow IPC stream, with the attributes as headers.  Needs pyarrow.  Raises ValueError."""
    import pyarrow as pa

    plain = message(type_, source, samples, time, interval)
    attributes = json.loads(plain.value)
    names = dict.fromkeys(name for sample in samples for name in sample)
    table = pa.table({name: [sample.get(name) for sample in samples] for name in names})
    out = pa.BufferOutputStream()
    with pa.ipc.new_stream(out, table.schema) as stream:
        stream.write_table(table)
    named = [
        (f"ce_{name}", str(value).encode())
        for name, value in attributes.items()
        if not name.startswith("data")
    ]
    headers = (*named, ("content-type", b"application/vnd.apache.arrow.stream"))
    return KafkaMessage(plain.topic, plain.key, out.getvalue().to_pybytes(), headers)


class Producer:
    """Sends messages of one source with kafka-python; `settings` are its own, for TLS and SASL."""

    def __init__(self, bootstrap: str, source: str, **settings: Any) -> None:
        from kafka import KafkaProducer

        self._source = source
        self._producer = KafkaProducer(
            **{"bootstrap_servers": bootstrap, "acks": "all", "linger_ms": 20, **settings}
        )

    def send(
        self,
        type_: str,
        samples: Sequence[Mapping[str, Any]],
        time: datetime | None = None,
        interval: int | None = None,
        arrow: bool = False,
    ) -> None:
        """Hand samples over to be sent, as JSON or `arrow`; `time` is now where it is not given.  Raises ValueError."""
        make = arrow_message if arrow else message
        record = make(type_, self._source, samples, time or datetime.now(UTC), interval)
        self._producer.send(record.topic, key=record.key, value=record.value, headers=list(record.headers))

    def close(self) -> None:
        """Send what waits, and end."""
        self._producer.flush()
        self._producer.close()

    def __enter__(self) -> Producer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
