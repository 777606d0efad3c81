"""Dead letters: what could not be understood goes to a topic with its bytes, its headers and the reason."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from aiokafka import AIOKafkaProducer

from pipeline.stream.process import DeadLetter

VALUE_LIMIT = 900_000
"""Bytes of the original value that are kept: a dead letter must itself fit into a message."""
HEADER_LIMIT = 16_384
HEADERS_LIMIT = 400_000
"""Bytes of all its headers that are kept: they come on top of the value, and may be most of a record."""
PREFIX = "gigawatch-"


class DeadLetters:
    """Writes dead letters to `topic`, and returns only when the broker has them all.

    The caller commits the delta afterwards: a crash in between writes them twice, never not at all; a reader
    knows them by `gigawatch-topic`, `-partition` and `-offset`.
    """

    def __init__(self, producer: AIOKafkaProducer, topic: str) -> None:
        self._producer = producer
        self._topic = topic

    async def write(self, letters: Iterable[DeadLetter]) -> None:
        sends = [
            await self._producer.send(
                self._topic,
                key=f"{letter.topic}/{letter.record.partition}/{letter.record.offset}".encode(),
                value=_value(letter),
                headers=headers_of(letter),
            )
            for letter in letters
        ]
        await asyncio.gather(*sends)


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
