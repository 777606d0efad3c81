"""Dead letters as a terminal shows them; their bytes are somebody else's, and steer nothing here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from rich.table import Table

from pipeline.serve.terminal import add, clean, plain_table
from pipeline.stream.deadletter_tools import Letter
from pipeline.stream.remedies import remedy


def letters_table(letters: Iterable[Letter]) -> Table:
    """One row for each: record, reason, size, time, and whether it was kept whole."""
    table = plain_table("record", "reason", "bytes", "time (UTC)", "kept", right=("bytes",))
    for letter in letters:
        size = "null" if letter.size is None else f"{letter.size:,}"
        kept = "in part" if letter.cut else "whole"
        add(table, clean(letter.name), clean(letter.reason), size, utc_text(letter.time_ms), kept)
    return table


def described(letter: Letter, now: Counter[tuple[str, str]], max_bytes: int) -> Iterator[str]:
    """Lines about one letter; `now`: how this version would read it; at most `max_bytes` of its value."""
    yield f"record     {clean(letter.name)}, {utc_text(letter.time_ms)} UTC"
    yield f"reasons    {clean(letter.reasons)}"
    found = dict.fromkeys(remedy(part.partition(":")[2]) for part in letter.reasons.split(","))
    yield from (f"to do      {clean(words)}" for words in found if words)
    verdicts = (f"{n} {fate}{f' ({why})' if why else ''}" for (fate, why), n in sorted(now.items()))
    yield f"read now   {clean(', '.join(verdicts))}" + (f"; not whole: {letter.cut}" if letter.cut else "")
    yield f"key        {escaped(letter.key)}"
    for name, value in letter.headers:
        yield f"header     {clean(name)}: {escaped(value)}"
    yield f"value      {'null' if letter.size is None else f'{letter.size:,} bytes'}"
    value = letter.value or b""
    if value:
        more = f" … and {len(value) - max_bytes:,} bytes more" if len(value) > max_bytes else ""
        yield escaped(value[:max_bytes]) + more


def letter_document(letter: Letter) -> dict[str, Any]:
    """A letter as `--json` lists it; `bytes` is null where the record had no value, `lost` what was not kept of it."""
    return {
        "record": letter.name,
        "time": f"{datetime.fromtimestamp(max(letter.time_ms, 0) / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}",
        "reason": letter.reason,
        "reasons": letter.reasons.split(","),
        "bytes": letter.size,
        "lost": letter.cut or None,
    }


def whole_document(letter: Letter, now: Counter[tuple[str, str]], max_bytes: int) -> dict[str, Any]:
    """One letter with what is in it: bytes as text, `\\\\x..` where they are no UTF-8."""
    remedies = dict.fromkeys(remedy(part.partition(":")[2]) for part in letter.reasons.split(","))
    return {
        **letter_document(letter),
        "to_do": [words for words in remedies if words],
        "read_now": [{"fate": fate, "reason": why or None, "n": n} for (fate, why), n in sorted(now.items())],
        "key": _text(letter.key),
        "headers": [[name, _text(value)] for name, value in letter.headers],
        "value": _text(letter.value[:max_bytes] if letter.value is not None else None),
    }


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "backslashreplace")


def utc_text(time_ms: int) -> str:
    """A Kafka timestamp as date and time in UTC."""
    return f"{datetime.fromtimestamp(max(time_ms, 0) / 1000, UTC):%Y-%m-%d %H:%M:%S}"


def escaped(value: bytes | None) -> str:
    """Bytes as one printable line: UTF-8 where they are that, `\\\\x..` where they are not."""
    return "none" if value is None else clean(value.decode("utf-8", "backslashreplace"))
