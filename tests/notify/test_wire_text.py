from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.notify.wire_text import (
    MAX_ANNOTATION_VALUE,
    MAX_LABEL_VALUE,
    annotation_value,
    fingerprint,
    label_value,
    rfc3339,
    wire_annotations,
    wire_labels,
    wire_url,
)

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=60)


@given(st.dictionaries(ANY_TEXT, ANY_TEXT, max_size=6))
def test_whatever_comes_in_every_label_is_one_that_prometheus_allows(labels: dict[str, str]) -> None:
    clean = wire_labels(labels, "CapacityShortfall")
    assert all(re.fullmatch("[a-zA-Z_][a-zA-Z0-9_]*", name) for name in clean)
    assert clean["alertname"] == "CapacityShortfall"
    for value in clean.values():
        assert value
        assert len(value) <= MAX_LABEL_VALUE
        assert not any(unicodedata.category(c) in ("Cc", "Cs") for c in value)
        value.encode()


@given(st.dictionaries(ANY_TEXT, ANY_TEXT, max_size=6))
def test_no_label_is_lost_when_two_names_become_one(labels: dict[str, str]) -> None:
    labels.pop("alertname", None)
    kept = {k: v for k, v in labels.items() if v}
    clean = wire_labels(labels, "A")
    clean.pop("alertname")
    assert sorted(clean.values()) == sorted(map(label_value, kept.values()))


def test_names_that_collide_are_numbered_the_same_way_in_any_order() -> None:
    assert wire_labels({"a.b": "1", "a-b": "2"}, "A") == wire_labels({"a-b": "2", "a.b": "1"}, "A")
    assert wire_labels({"a.b": "1", "a-b": "2"}, "A") == {"a_b": "2", "a_b_2": "1", "alertname": "A"}


def test_two_long_values_stay_two() -> None:
    left, right = label_value("x" * 5000 + "left"), label_value("x" * 5000 + "right")
    assert left != right
    assert len(left) == len(right) == MAX_LABEL_VALUE


def test_a_label_cannot_steer_a_terminal_or_forge_a_line() -> None:
    assert label_value("a\x1b[2Jb\r\nX-Evil: 1\u202e\u2028") == "a\\x1b[2Jb\\r\\nX-Evil: 1\\u202e\\u2028"
    assert label_value("<b>'; DROP TABLE alerts; --") == "<b>'; DROP TABLE alerts; --"


def test_sql_in_an_annotation_keeps_its_lines_and_has_an_end() -> None:
    assert annotation_value("SELECT 1\r\n\tFROM gpu\x00") == "SELECT 1\n\tFROM gpu\\x00"
    assert len(wire_annotations({"sql": "x" * 10**6})["sql"]) == MAX_ANNOTATION_VALUE
    assert wire_annotations({"empty": ""}) == {}


def test_time_is_rfc_3339_in_utc() -> None:
    assert rfc3339(0) == "1970-01-01T00:00:00.000Z"
    assert rfc3339(1767225599.9994) == "2025-12-31T23:59:59.999Z"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "gigawatch",
        "javascript:alert(1)",
        "http://",
        "http://a b/",
        "http://[",
        "http://a/\n",
        "http://ä/",
    ],
)
def test_a_link_that_no_receiver_should_open_is_left_out(url: str) -> None:
    assert wire_url(url) == ""
    assert wire_url("https://noc.example/d/1?from=1") == "https://noc.example/d/1?from=1"


def test_the_fingerprint_of_no_labels_is_the_seed_of_fnv() -> None:
    assert fingerprint({}) == "cbf29ce484222325"
