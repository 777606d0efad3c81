"""CloudEvents in binary mode: the attributes are headers, the value is the data, a single sample or an array of them.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md, 3.2
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.catalog import EventType
from pipeline.formats.event_format import (
    ATTRIBUTES,
    CLOUDEVENTS,
    DecodeSql,
    EventFormat,
    Headers,
    json_of,
    text_of,
)
from pipeline.formats.json_samples_sql import (
    array_sql,
    envelope_sql,
    names_sql,
    records_sql,
    sample_structure,
    single_sql,
    transformed_sql,
)
from pipeline.formats.measures import Unfit

_ENVELOPE = {name: f"e_{name}" for name in ATTRIBUTES}
# in quotes, as the structured form has them; NULL when they are no UTF-8
_LIFTED = ", ".join(f"'\"' || try(decode(ce_{name})) || '\"' AS e_{name}" for name in ATTRIBUTES)
_STARTS_ARRAY = "starts_with(ltrim(value), '[')"


def attributes_of(value: bytes, headers: Headers) -> Mapping[str, str]:
    """The attributes of a CloudEvent in binary mode.  Raises Unfit, for a record that is none with what it may be."""
    # a name in the binding's own spelling counts before another spelling of it
    named = {name.lower(): content for name, content in headers if name != name.lower()}
    named |= {name: content for name, content in headers if name == name.lower()}
    if "ce_specversion" not in named and "ce_type" not in named:
        found = json_of(value)
        said = isinstance(found, dict) and "specversion" in found
        raise Unfit("dead_lettered", "content_type_missing" if said else "not_a_cloudevent")
    return {name: text_of(content) for name in ATTRIBUTES if (content := named.get(f"ce_{name}")) is not None}


def header_envelope_sql(event: EventType) -> str:
    """The message's own columns, as `envelope_sql` has them, of a message whose value is no text."""
    return envelope_sql(
        event, _ENVELOPE, "value", f"(SELECT row, part, record_time, '' AS value, {_LIFTED} FROM {{records}})"
    )


def _opened(value: bytes, headers: Headers) -> tuple[Mapping[str, Any], Any]:
    return attributes_of(value, headers), json_of(value)


def _decode(event: EventType) -> DecodeSql:
    sample = sample_structure(event)
    single, array = (records_sql(f"{_LIFTED}, {transformed_sql(data)}") for data in (sample, [sample]))
    return DecodeSql(
        single_sql(event, _ENVELOPE, "j", single),
        names_sql(event, "$"),
        array_sql(event, _ENVELOPE, "j", array),
        _STARTS_ARRAY,
    )


FORMAT = EventFormat(
    "cloudevents_binary",
    "CloudEvents, JSON with the attributes in the headers",
    CLOUDEVENTS,
    _opened,
    _decode,
    attributes_in_headers=True,
)
