"""An event format that the product does not have, in one file: `[type, source, id, time, sample]` as a JSON list."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from pipeline.catalog import EventType
from pipeline.formats.event_format import DecodeSql, EventFormat, Headers, json_of
from pipeline.formats.json_samples_sql import names_sql, records_sql, sample_structure, single_sql
from pipeline.formats.measures import Unfit
from tests.stream.json_messages import ODD_VALUES, envelope, samples

NAMES = ("type", "source", "id", "time")
HEADERS = [("content-type", b"application/x-toy")]


def _opened(value: bytes, headers: Headers) -> tuple[Mapping[str, Any], Any]:
    found = json_of(value)
    if not isinstance(found, list) or len(found) != 5 or isinstance(found[4], list):
        raise Unfit("dead_lettered", "not_a_toy")
    return {"specversion": "1.0", **dict(zip(NAMES, found[:4], strict=True))}, found[4]


def _decode(event: EventType) -> DecodeSql:
    places = {name: f"j[{place}]" for place, name in enumerate(NAMES, 1)}
    attributes = {"specversion": "'\"1.0\"'", "interval": "NULL::JSON", **places}
    opened = (
        """json_transform(value, '["JSON"]') AS j, """
        f"CASE WHEN len(j) = 5 THEN json_transform(j[5], '{json.dumps(sample_structure(event))}') END AS sample"
    )
    return DecodeSql(single_sql(event, attributes, "sample", records_sql(opened)), names_sql(event, "$[4]"))


FORMAT = EventFormat(
    "toy",
    "a list of type, source, id, time and sample",
    "toy",
    _opened,
    _decode,
    content_type=b"application/x-toy",
)


def message(sample: Mapping[str, Any], ident: str) -> tuple[bytes, Any]:
    """(value, headers) of a good one."""
    value = ["gpu.utilization.v1", "/toy", ident, "2026-09-21T13:33:20Z", sample]
    return json.dumps(value).encode(), HEADERS


@st.composite
def messages(draw: st.DrawFn, event: EventType) -> tuple[bytes, Any]:
    """(value, headers) of any, good or broken."""
    attributes = envelope(event, draw(st.sampled_from([False] * 4 + [True])))
    texts = [json.dumps(draw(attributes[name])) for name in NAMES] + [draw(samples(event))]
    for _ in range(draw(st.sampled_from([0] * 5 + [1]))):
        place = draw(st.integers(0, 4))
        texts[place : place + 1] = draw(st.lists(ODD_VALUES, max_size=2))
    return f"[{','.join(texts)}]".encode("utf-8", "surrogatepass"), HEADERS
