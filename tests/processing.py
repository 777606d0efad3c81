"""What the intake does with a batch, in one call."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from pipeline.rollup.delta import Delta, Place
from pipeline.stream.batch import Batch
from pipeline.stream.process import DeadLetter, Processor


def processed(
    processor: Processor, batch: Batch, known_from: Mapping[str, datetime], progress: Mapping[Place, datetime]
) -> tuple[Delta, list[DeadLetter]]:
    """The delta of `batch`, and its dead letters."""
    decoded = processor.decode(batch)
    return processor.take(decoded, known_from, progress), list(decoded.letters)
