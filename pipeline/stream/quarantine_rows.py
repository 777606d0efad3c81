"""Rows of the quarantine: samples that were understood and are not taken in, and why."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pipeline.catalog.arrow_types import arrow_schema
from pipeline.stream.batch import stamp_of
from pipeline.stream.decoded import Refusal
from pipeline.views.published import QUARANTINE_COLUMNS

ROWS = arrow_schema((name, kind) for name, kind in QUARANTINE_COLUMNS if name != "known_from")
"""From which instant they count is decided when their delta is applied."""
SAMPLE_LIMIT = 65_536
"""Characters of a quarantined sample that are kept."""


def doubted_row(topic: str, refusal: Refusal) -> dict[str, Any]:
    """A sample that was refused as not credible."""
    record, outcome = refusal.record, refusal.outcome
    return {
        "time": outcome.time,
        "topic": topic,
        "part": record.partition,
        "record_offset": record.offset,
        "reason": outcome.reason,
        "field": None,
        "source": outcome.source,
        "id": outcome.id,
        "idx": outcome.idx,
        "sample": json.dumps(outcome.sample, ensure_ascii=True)[:SAMPLE_LIMIT],
        "record_time": stamp_of(record.timestamp),
    }


def beyond_row(topic: str, reason: str, kept: Mapping[str, Any]) -> dict[str, Any]:
    """A sample of a series or entity beyond the limit; its record is gone by then, and so is its offset."""
    named = {name: kept[name] for name in ("time", "part", "source", "id", "idx", "record_time")}
    sample = json.dumps(kept["sample"], ensure_ascii=True)[:SAMPLE_LIMIT]
    head = {"topic": topic, "record_offset": None, "reason": reason}
    return {**head, **named, "sample": sample}
