"""What to write instead: a sentence for each kind of reason for which a record or sample is refused."""

from __future__ import annotations

_OF_MESSAGES = {
    "null_value": "a value; these topics are not compacted, so a tombstone means nothing",
    "too_large": "fewer samples in one message, or raise max_message_bytes",
    "confluent_wire_format": "plain JSON, without a schema registry's serializer",
    "compressed_value": "the value as it is; leave compression to Kafka",
    "not_utf8": "UTF-8",
    "not_json": "one JSON value",
    "not_a_cloudevent": 'the attribute specversion "1.0", in the value or as the header ce_specversion',
    "content_type_missing": "the header content-type: application/cloudevents+json; the value is a CloudEvent",
    "unknown_type": "the type that this topic carries, of a version that `schemas/` has",
    "data_missing": "data: one sample, or an array of samples",
    "data_empty_array": "at least one sample",
    "sample_not_an_object": "each sample as a JSON object",
    "time_in_future": "the true time: this one is more than 60 s later than its Kafka record",
}
_OF_FIELDS = {
    "without_zone": "a time with its zone, such as 2026-11-23T12:00:00Z or 2026-11-23T13:00:00+01:00",
    "malformed": "a time such as 2026-11-23T12:00:00Z (RFC 3339)",
    "missing": "a value: it is required",
    "mistyped": "a value of the type that the schema gives it",
    "length": "text within the schema's length",
    "not_unicode": "text without lone surrogates",
    "nested_too_deep": "JSON of fewer levels",
    "not_in_enum": "one of the schema's words",
    "too_precise": "an amount with at most 15 digits after the point",
    "too_many": "a shorter list, more often",
    "nan": "a number, or nothing where there is none",
    "negative": "a number that is not below 0, or nothing where none was measured",
    "out_of_range": "a number within the schema's range, in the schema's unit",
}


def remedy(reason: str) -> str:
    """What to write in place of what was refused for `reason`; empty for a reason that speaks of no input.

    >>> remedy("ChargePeriodStart_malformed")
    'ChargePeriodStart: write a time such as 2026-11-23T12:00:00Z (RFC 3339)'
    """
    if reason in _OF_MESSAGES:
        return f"write {_OF_MESSAGES[reason]}"
    for suffix, words in _OF_FIELDS.items():
        if reason.endswith(f"_{suffix}"):
            return f"{reason.removesuffix(f'_{suffix}')}: write {words}"
    return ""
