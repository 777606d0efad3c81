"""Dead letters: what could not be understood goes to a topic with its bytes, its headers and the reason."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from aiokafka.producer.message_accumulator import BatchBuilder

from pipeline.stream.process import DeadLetter
from pipeline.stream.topic_admin import HEADER_LIMIT, HEADERS_LIMIT, VALUE_LIMIT

log = structlog.get_logger()

PREFIX = "gigawatch-"
AGAIN_AFTER = 1.0
"""Seconds until what the broker did not take is sent again."""
ASKED_AFTER, ASKED_EVERY = 3.0, 10.0
"""Seconds after which it is asked what keeps the topic shut, and again."""


class DeadLetters:
    """Writes dead letters to `topic`, and returns only when the broker has them all, however long that takes.

    The caller commits the delta afterwards: a crash in between writes them twice, never not at all; a reader
    knows them by `gigawatch-topic`, `-partition` and `-offset`.

    `mended` is asked, on a thread, when they wait for long: it mends what it can, and says what keeps the topic shut.
    Meanwhile that is `held_up`.
    """

    def __init__(
        self, producer: AIOKafkaProducer, topic: str, mended: Callable[[], str] = lambda: ""
    ) -> None:
        self._producer = producer
        self._topic = topic
        self._turn = itertools.count()
        self._mended = mended
        self.held_up = ""

    async def write(self, letters: Iterable[DeadLetter]) -> None:
        waiting = list(letters)
        asking = asyncio.create_task(self._ask())
        try:
            while waiting and (waiting := await self._attempt(waiting)):
                await asyncio.sleep(AGAIN_AFTER)
        finally:
            asking.cancel()
            self.held_up = ""

    async def _ask(self) -> None:
        await asyncio.sleep(ASKED_AFTER)
        while True:
            if said := await asyncio.to_thread(self._mended):
                log.error("dead letters are not taken and nothing goes on without them", why=said)
            self.held_up = said
            await asyncio.sleep(ASKED_EVERY)

    async def _attempt(self, letters: Sequence[DeadLetter]) -> list[DeadLetter]:
        """Those that the broker did not take: it is away, or the topic is missing, closed to us or too narrow."""
        sent: list[tuple[Sequence[DeadLetter], asyncio.Future[object]]] = []
        faults: list[KafkaError] = []
        try:
            parts = sorted(await self._producer.partitions_for(self._topic))
            for held, batch in self._batches(letters):
                part = parts[next(self._turn) % len(parts)]
                sent.append((held, await self._producer.send_batch(batch, self._topic, partition=part)))
        except KafkaError as error:
            faults.append(error)
        found = await asyncio.gather(*(ack for _, ack in sent), return_exceptions=True)
        for fault in (each for each in found if isinstance(each, BaseException)):
            if not isinstance(fault, KafkaError):
                raise fault
            faults.append(fault)
        if faults:
            log.error(
                "dead letters are not taken and nothing goes on without them; is the topic there, and open to us?",
                topic=self._topic,
                error=repr(faults[0]),
            )
        refused = [
            letter
            for (held, _), ack in zip(sent, found, strict=True)
            if isinstance(ack, KafkaError)
            for letter in held
        ]
        return [*refused, *letters[sum(len(held) for held, _ in sent) :]]

    def _batches(self, letters: Sequence[DeadLetter]) -> Iterator[tuple[Sequence[DeadLetter], BatchBuilder]]:
        """The letters with the producer's batches that hold them; one that is larger than a batch has its own.

        Sending them one by one was most of what a bad record costs: each waits for its place and its answer.
        """
        batch, held = self._producer.create_batch(), list[DeadLetter]()
        for letter in letters:
            if _append(batch, letter) is None:
                yield held, batch
                batch, held = self._producer.create_batch(), []
                _append(batch, letter)
            held.append(letter)
        if held:
            yield held, batch


def _append(batch: BatchBuilder, letter: DeadLetter) -> object:
    """None when there is no room for it."""
    key = f"{letter.topic}/{letter.record.partition}/{letter.record.offset}".encode()
    return batch.append(timestamp=None, key=key, value=_value(letter), headers=headers_of(letter))


def _value(letter: DeadLetter) -> bytes | None:
    value = letter.record.value
    # an empty value stands for a null one: in a compacted topic null would be a tombstone
    return b"" if value is None else value[:VALUE_LIMIT]


def headers_of(letter: DeadLetter) -> list[tuple[str, bytes]]:
    """Where the record came from, why it is here, and its own headers as they were."""
    record = letter.record
    size = len(record.value) if record.value is not None else None
    kept = _kept(record.headers)
    own = {
        "topic": letter.topic,
        "partition": str(record.partition),
        "offset": str(record.offset),
        "timestamp": str(record.timestamp),
        "reason": next(iter(letter.reasons.values())),
        "reasons": ",".join(f"{idx}:{reason}" for idx, reason in letter.reasons.items())[:HEADER_LIMIT],
        "value-bytes": "null" if size is None else str(size),
        "truncated": str(size is not None and size > VALUE_LIMIT).lower(),
        "headers-dropped": str(len(record.headers) - len(kept)),
    }
    ours = [(PREFIX + name, text.encode()) for name, text in own.items()]
    if record.key is not None:
        ours.append((PREFIX + "key", record.key[:HEADER_LIMIT]))  # as it was: a replay has to give it back
    return ours + kept


def _kept(headers: Iterable[tuple[str, bytes | None]]) -> list[tuple[str, bytes]]:
    """The first of a record's own headers, as many as there is room for."""
    kept: list[tuple[str, bytes]] = []
    room = HEADERS_LIMIT
    for name, content in headers:
        content = (content or b"")[:HEADER_LIMIT]
        room -= len(name.encode()) + len(content)
        if room < 0:
            break
        kept.append((name, content))
    return kept
