"""Dead letters from a person's side: look through them, read one, send them where they came from once more.

The counterpart of `deadletter.py`: that module writes the headers, this one reads them.  A letter is named by
the record that it is about, `TOPIC/PARTITION/OFFSET`; a crash can have written it twice, under one name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import duckdb
import pyarrow as pa
from aiokafka.structs import ConsumerRecord
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from pipeline.catalog import Catalog
from pipeline.errors import BrokerUnreachable, GigawatchError
from pipeline.formats.event_format import ENVELOPE
from pipeline.stream.deadletter_writer import PREFIX
from pipeline.stream.decode import Decoder
from pipeline.stream.inspect import inspect
from pipeline.stream.source_topics import SourceTopic, source_decoder
from pipeline.stream.topic_admin import HEADER_LIMIT, Settings, TopicState, describe_topics

OWN = (
    *("topic", "partition", "offset", "timestamp", "reason", "reasons", "value-bytes", "truncated"),
    *("headers-dropped", "key"),
)
"""Our headers, each at most once, in front of the record's own."""
WHOLE = {
    *("null_value", "too_large", "confluent_wire_format", "compressed_value", "not_utf8", "not_json"),
    *("not_a_cloudevent", "content_type_missing", "unknown_type", "data_missing", "data_empty_array"),
}
"""Reasons that are about the message and not about one sample of it, beside those of its attributes."""
POLL_MS = 500
FETCH_BYTES = 6 * 2**20
SEND_SECONDS = 30.0

Header = tuple[str, bytes]


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter.

    `part`, `at`: its own partition and offset in the dead-letter topic; the rest is the record that it is
    about.  `size`: bytes of that record's value (None: it had none); `time_ms`: its Kafka timestamp;
    `headers`: its own headers, as they were, without the `dropped` last ones.
    """

    part: int
    at: int
    topic: str
    partition: int
    offset: int
    reason: str
    reasons: str
    size: int | None
    time_ms: int
    truncated: bool
    dropped: int
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...]

    @property
    def name(self) -> str:
        """`TOPIC/PARTITION/OFFSET` of the record."""
        return f"{self.topic}/{self.partition}/{self.offset}"

    @property
    def cut(self) -> str:
        """What of the record was not kept, in words; empty when it is whole."""
        if self.truncated:
            return f"its value ({self.size:,} bytes) was too large to keep as a whole"
        if self.dropped > 0:
            return f"its last headers ({self.dropped:,}) were too large to keep"
        parts = [
            ("its key", self.key or b""),
            *((f"its header {name}", value) for name, value in self.headers),
        ]
        return next((f"{what} was too large to keep" for what, v in parts if len(v) >= HEADER_LIMIT), "")


@dataclass(frozen=True, slots=True)
class Replayed:
    """What became of one letter: sent (or would be), or refused and why."""

    letter: Letter
    outcome: Literal["sent", "would be sent", "refused"]
    why: str = ""


def letters(
    bootstrap: str,
    dead_topic: str,
    client_settings: Settings | None = None,
    *,
    topic: str | None = None,
    reason: str | None = None,
    names: Iterable[str] = (),
) -> Iterator[Letter]:
    """Every dead letter that is there now, oldest first; only those of one `topic`, `reason`, or `names`.

    Raises BrokerUnreachable, GigawatchError (no such topic).
    """
    state = _described(bootstrap, dead_topic, client_settings)
    wanted = set(names)
    for letter in _read(bootstrap, state, client_settings):
        right_topic = topic is None or letter.topic == topic
        right_reason = reason is None or reason in _reasons(letter)
        if right_topic and right_reason and (not wanted or letter.name in wanted):
            yield letter


def find(bootstrap: str, dead_topic: str, name: str, client_settings: Settings | None = None) -> Letter:
    """The letter about the record `TOPIC/PARTITION/OFFSET`.  Raises GigawatchError when there is none."""
    checked_name(name)
    for letter in letters(bootstrap, dead_topic, client_settings, names=[name]):
        return letter
    raise GigawatchError(
        f"{dead_topic}: no dead letter about {name}; `gigawatch deadletter list` shows what is there"
    )


def checked_name(name: str) -> str:
    """The name itself.  Raises GigawatchError unless it is `TOPIC/PARTITION/OFFSET`."""
    topic, _, rest = name.partition("/")
    partition, _, offset = rest.partition("/")
    if not topic or not partition.isdigit() or not offset.isdigit():
        raise GigawatchError(
            f"dead letter {name!r}: expected TOPIC/PARTITION/OFFSET as `gigawatch deadletter list` prints it, "
            "such as telemetry.gpu/0/1234"
        )
    return name


def replay(
    bootstrap: str,
    chosen: Iterable[Letter],
    client_settings: Settings | None = None,
    *,
    catalog: Catalog,
    max_message_bytes: int,
    sources: Sequence[SourceTopic] = (),
    dry_run: bool = False,
    partial: bool = False,
) -> Iterator[Replayed]:
    """Send each record again to the topic and partition that it came from: its bytes, its key, its headers.

    Refused is a record that was not kept whole, and, unless `partial`, an array of which good samples were
    taken in: beyond the two minutes in which duplicates are known they would count twice.  A name that comes
    twice is sent once.  What is yielded as `sent` has been acknowledged by every replica in sync.
    """
    sent: set[str] = set()
    with _producer(bootstrap, client_settings) as producer:
        for letter in chosen:
            if letter.name in sent:
                continue
            sent.add(letter.name)
            good = 0 if partial else taken_in(letter, catalog, max_message_bytes, sources)
            if letter.cut:
                yield Replayed(letter, "refused", letter.cut)
            elif good:
                yield Replayed(letter, "refused", _counted_twice(good))
            elif dry_run:
                yield Replayed(letter, "would be sent")
            else:
                yield _send(producer, letter)


def _counted_twice(good: int) -> str:
    samples = "1 sample of it was" if good == 1 else f"{good} samples of it were"
    return f"{samples} taken in already and would count twice; --partial sends it nevertheless"


def verdicts(
    letter: Letter, catalog: Catalog, max_message_bytes: int, sources: Iterable[SourceTopic] = ()
) -> Counter[tuple[str, str]]:
    """How this version of the pipeline would read the record now: samples by (fate, reason).

    The reason of one that would be taken in says what of it would be set aside.
    """
    for source in sources:
        if source.topic == letter.topic:
            return _of_source(letter, source, catalog, max_message_bytes)
    if letter.topic not in catalog.topics:
        return Counter({("dead_lettered", "unknown_topic"): 1})
    value = letter.value if letter.size is not None else None
    at = datetime.fromtimestamp(max(letter.time_ms, 0) / 1000, UTC).replace(tzinfo=None)
    outcomes = inspect(catalog.by_topic(letter.topic), value, letter.headers, at, max_message_bytes)
    return Counter((o.fate, o.reason or _aside(one.reason for one in o.aside)) for o in outcomes)


def _of_source(
    letter: Letter, source: SourceTopic, catalog: Catalog, max_message_bytes: int
) -> Counter[tuple[str, str]]:
    """The same for a record of a source's topic, by its format and its mappings."""
    value = letter.value if letter.size is not None else None
    record: Any = ConsumerRecord(
        letter.topic, letter.partition, letter.offset, letter.time_ms, 0, letter.key, value, None,
        len(letter.key or b""), -1 if value is None else len(value), letter.headers,
    )  # fmt: skip
    found: Counter[tuple[str, str]] = Counter()
    with duckdb.connect() as con:
        decoders = {e.topic: Decoder(con.cursor(), e, max_message_bytes) for e in catalog.types}
        decoder = source_decoder(source, catalog, decoders, max_message_bytes)
        for decoded in decoder.decode([(letter.partition, [record])], max(letter.time_ms, 0) / 1000):
            lacking = _lacking(decoded.aside)
            for place in zip(*(decoded.samples[name].to_pylist() for name in ("row", "idx")), strict=True):
                found["aggregated", _aside(lacking.get(place, ()))] += 1
            found.update((r.outcome.fate, r.outcome.reason) for r in decoded.refusals)
    return found


def _lacking(aside: pa.Table) -> dict[tuple[int, int], list[str]]:
    """(row, idx) of a sample → why each of its measures was set aside."""
    found: dict[tuple[int, int], list[str]] = {}
    for each in aside.to_pylist():
        found.setdefault((each["row"], each["idx"]), []).append(each["reason"])
    return found


def _aside(reasons: Iterable[str]) -> str:
    listed = ", ".join(reasons)
    return f"set aside: {listed}" if listed else ""


def taken_in(
    letter: Letter, catalog: Catalog, max_message_bytes: int, sources: Sequence[SourceTopic] = ()
) -> int:
    """Samples of the record that were no part of what is wrong: the good neighbours in its array."""
    whole = letter.reason in WHOLE or letter.reason.partition("_")[0] in ENVELOPE
    if letter.cut or whole or not _of_a_sample(letter, catalog):
        return 0
    found = verdicts(letter, catalog, max_message_bytes, sources)
    return max(0, found.total() - len(letter.reasons.split(",")))


def _of_a_sample(letter: Letter, catalog: Catalog) -> bool:
    """Whether the reason is about a field of a sample; others are about a message that could not be read as its format."""
    fields = {field.name for event in catalog.types for field in event.fields}
    names = fields | {measure.name for event in catalog.types for measure in event.measures}
    return letter.reason.startswith(("sample_", *(f"{name}_" for name in names)))


def _send(producer: KafkaProducer, letter: Letter) -> Replayed:
    try:
        producer.send(
            letter.topic,
            partition=letter.partition,
            value=letter.value if letter.size is not None else None,
            key=letter.key,
            headers=list(letter.headers),
        ).get(SEND_SECONDS)
    except (KafkaError, ValueError) as error:  # ValueError: the partition does not exist (any more)
        return Replayed(letter, "refused", f"Kafka does not take it: {error}")
    return Replayed(letter, "sent")


def _described(bootstrap: str, dead_topic: str, client_settings: Settings | None) -> TopicState:
    found = describe_topics(bootstrap, [dead_topic], client_settings)
    if not found:
        raise GigawatchError(
            f"kafka {bootstrap}: no topic {dead_topic}; `gigawatch topics create` makes it, "
            "GIGAWATCH_DEADLETTER_TOPIC names another"
        )
    return found[0]


def _read(bootstrap: str, state: TopicState, client_settings: Settings | None) -> Iterator[Letter]:
    """All that lies before the ends of `state`, one partition after the other."""
    with _consumer(bootstrap, client_settings) as consumer:
        for part, (first, end) in sorted(state.offsets.items()):
            place = TopicPartition(state.name, part)
            consumer.assign([place])
            consumer.seek(place, first)
            while consumer.position(place) < end:
                for record in consumer.poll(POLL_MS).get(place, ()):
                    if record.offset < end:
                        yield letter_of(record)


def letter_of(record: Any) -> Letter:
    """A record of the dead-letter topic as kafka-python gives it, read by its headers.

    Our headers stand in front, each once: one of the record's own that has such a name comes later, and is
    kept as the record's.
    """
    own: dict[str, bytes] = {}
    headers = [(str(name), bytes(value or b"")) for name, value in record.headers]
    for name, value in headers:
        short = name.removeprefix(PREFIX)
        if not name.startswith(PREFIX) or short not in OWN or short in own:
            break
        own[short] = value
    text = {name: value.decode("utf-8", "replace") for name, value in own.items()}
    size = text.get("value-bytes", "null")
    return Letter(
        part=record.partition,
        at=record.offset,
        topic=text.get("topic", ""),
        partition=_number(text.get("partition")),
        offset=_number(text.get("offset")),
        reason=text.get("reason", "unknown"),
        reasons=text.get("reasons", ""),
        size=_number(size) if size != "null" else None,
        time_ms=_number(text.get("timestamp")),
        truncated=text.get("truncated") == "true",
        dropped=_number(text.get("headers-dropped", "0")),
        key=own.get("key"),
        value=record.value,
        headers=tuple(headers[len(own) :]),
    )


def _number(text: str | None) -> int:
    return int(text) if text and text.lstrip("-").isdigit() else -1


def _reasons(letter: Letter) -> set[str]:
    """Every reason of a record: an array has one for each bad sample."""
    return {letter.reason, *(part.partition(":")[2] for part in letter.reasons.split(","))}


@contextmanager
def _consumer(bootstrap: str, client_settings: Settings | None) -> Iterator[KafkaConsumer]:
    """A consumer of no group, which commits nothing."""
    settings: Mapping[str, Any] = client_settings or {}
    with _kafka_errors(bootstrap):
        consumer = KafkaConsumer(
            bootstrap_servers=bootstrap.split(","), group_id=None, enable_auto_commit=False,
            auto_offset_reset="earliest", max_partition_fetch_bytes=FETCH_BYTES, **settings,
        )  # fmt: skip
        try:
            yield consumer
        finally:
            consumer.close()


@contextmanager
def _producer(bootstrap: str, client_settings: Settings | None) -> Iterator[KafkaProducer]:
    settings: Mapping[str, Any] = client_settings or {}
    with _kafka_errors(bootstrap):
        producer = KafkaProducer(
            bootstrap_servers=bootstrap.split(","), acks="all", max_request_size=2 * 2**20, **settings
        )
        try:
            yield producer
        finally:
            producer.close(timeout=5)


@contextmanager
def _kafka_errors(bootstrap: str) -> Iterator[None]:
    try:
        yield
    except KafkaError as error:
        raise BrokerUnreachable(
            f"kafka {bootstrap}: the broker went away, or refuses us: {error}; check that it runs and that "
            "its security settings (TLS, SASL) are ours, then start again"
        ) from error
