"""YAML files that pydantic checks, such as scenarios and mappings of recordings: durations, and how a problem is told."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from pipeline.contract.document import Document
from pipeline.contract.faults import dotted

_DURATION = re.compile(r"(-?)(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")


def parse_duration(text: object) -> int:
    """`90`, `"90s"`, `"1h30m"`, `"-20d"` → seconds.  Raises ValueError for anything else."""
    if isinstance(text, int) and not isinstance(text, bool):
        return text
    found = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if not found or not any(found.groups()[1:]):
        raise ValueError(f"found {text!r}, expected a duration such as 90s, 15m or 1h30m")
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups()[1:])
    total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    return -total if found[1] else total


Moment = Annotated[int, BeforeValidator(parse_duration)]
Duration = Annotated[Moment, Field(ge=0)]


def fault_text(document: Document, problem: Mapping[str, Any]) -> str:
    """A problem as pydantic tells it, with the place in the file."""
    path = tuple(problem["loc"])
    line, column = document.place(path, key=problem["type"] == "extra_forbidden")
    text = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        text = f"found the unknown field {path[-1]!r}, expected a field of this place"
    elif problem["type"] == "missing":
        text = f"found nothing, expected the field {path[-1]!r}"
    elif not text.startswith("found") and ": found" not in text:
        text = f"found {problem['input']!r}: {text}"
    return f"{document.file}:{line}:{column} {dotted(path)}: {text}"
