"""Text as Alertmanager, its webhook receivers and the eyes of an operator can take it.

Labels come from telemetry, so from outside: they may hold newlines, escape sequences, SQL or megabytes.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import urlsplit

# Receivers put labels into subjects, chat lines and URLs; the longest real one (an ARM resource id) is < 300.
MAX_LABEL_VALUE = 1024
# The longest annotation is the SQL that reproduces a number.
MAX_ANNOTATION_VALUE = 8192
# What Alertmanager itself writes for "not ended" in a webhook body (Go's zero time).
ZERO_TIME = "0001-01-01T00:00:00Z"

_NOT_IN_NAME = re.compile(r"[^a-zA-Z0-9_]")
# Bidirectional overrides and isolates make text read as something else than it is.
_BIDI = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def rfc3339(at: float) -> str:
    """Epoch seconds as RFC 3339 in UTC with milliseconds and `Z`."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def label_name(name: str) -> str:
    """The nearest name that Prometheus allows: `[a-zA-Z_][a-zA-Z0-9_]*`."""
    clean = _NOT_IN_NAME.sub("_", name) or "_"
    return f"_{clean}" if clean[0].isdigit() else clean


def _visible(char: str) -> str:
    """A character that could steer a terminal, a header or a reading direction, as a visible escape."""
    if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") or char in _BIDI:
        return char.encode("unicode_escape", "surrogatepass").decode("ascii")
    return char


def _shortened(text: str, limit: int) -> str:
    """At most `limit` characters; what is cut is replaced by a digest, so that two values stay two."""
    if len(text) <= limit:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"{text[: limit - 14]}… {digest}"


def label_value(value: object) -> str:
    """One line of at most MAX_LABEL_VALUE characters, without control characters."""
    return _shortened("".join(map(_visible, str(value))), MAX_LABEL_VALUE)


def annotation_value(value: object) -> str:
    """At most MAX_ANNOTATION_VALUE characters; newlines and tabs stay, for SQL is read in lines."""
    text = "".join(c if c in "\n\t" else _visible(c) for c in str(value).replace("\r\n", "\n"))
    return _shortened(text, MAX_ANNOTATION_VALUE)


def _named(pairs: Mapping[str, str]) -> dict[str, str]:
    """Sorted, with allowed names; two names that become one get a number, the same one every time."""
    named: dict[str, str] = {}
    for name, value in sorted(pairs.items()):
        clean = unique = label_name(name)
        turn = 1
        while unique in named:
            turn += 1
            unique = f"{clean}_{turn}"
        named[unique] = value
    return named


def wire_labels(labels: Mapping[str, str], alertname: str) -> dict[str, str]:
    """A label set that Alertmanager accepts.  To it an empty value is an absent label: left out."""
    clean = _named({name: label_value(value) for name, value in labels.items() if str(value) != ""})
    return {**clean, "alertname": label_value(alertname)}


def wire_annotations(annotations: Mapping[str, str]) -> dict[str, str]:
    """Annotations that Alertmanager accepts, empty ones left out."""
    return _named({name: annotation_value(value) for name, value in annotations.items() if str(value) != ""})


def wire_url(url: str) -> str:
    """The URL if it is one that a receiver may open, else an empty string: Alertmanager refuses others."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    sound = parts.scheme in ("http", "https") and parts.netloc and url.isascii() and url.isprintable()
    return url if sound and " " not in url and len(url) <= MAX_ANNOTATION_VALUE else ""


def fingerprint(labels: Mapping[str, str]) -> str:
    """Alertmanager's fingerprint of a label set: FNV-1a, 64 bit, over the sorted names and values, each
    closed by 0xff (prometheus/common, model.LabelsToSignature), as 16 hexadecimal digits."""
    digest = 0xCBF29CE484222325
    for name, value in sorted(labels.items()):
        for byte in b"\xff".join((name.encode(), value.encode(), b"")):
            digest = ((digest ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return f"{digest:016x}"
