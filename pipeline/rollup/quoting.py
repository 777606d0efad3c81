"""Names, texts and instants as DuckDB SQL: the one place in which they are quoted."""

from __future__ import annotations

from datetime import UTC, datetime


def quoted(name: str) -> str:
    """A name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as an SQL string: no escape but the doubled quote; SQL text cannot hold a NUL."""
    parts = ["'" + part.replace("'", "''") + "'" for part in text.split("\0")]
    return parts[0] if len(parts) == 1 else "(" + " || chr(0) || ".join(parts) + ")"


def moment(t: int) -> str:
    """The instant `t` (epoch seconds) as a TIMESTAMP literal in UTC, for people to read."""
    return f"TIMESTAMP '{datetime.fromtimestamp(t, UTC):%Y-%m-%d %H:%M:%S}'"


def timestamp(t: int) -> str:
    """The instant `t` (epoch seconds) as a TIMESTAMP expression."""
    return f"make_timestamp({t * 1_000_000})"
