"""What is wrong in a contract file, and where: one line for each fault, all of them at once.

The form is `FILE:LINE:COL PATH: found …, expected …; did you mean '…'?`, so that an editor can jump to the
place and a person can mend it without opening the manual.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from difflib import get_close_matches

from pipeline.errors import ContractError

PathKey = str | int
DocumentPath = tuple[PathKey, ...]

#: A file that is wrong in hundreds of places is the wrong file.
MAX_SHOWN = 50


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """One thing that is wrong.  `line` and `column` count from 1; 0 means the file as a whole."""

    file: str
    line: int
    column: int
    path: str
    found: str
    expected: str
    hint: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        where = f"{place} {self.path}".rstrip()
        hint = f"; {self.hint}" if self.hint else ""
        return f"{where}: found {self.found}, expected {self.expected}{hint}"


class Unreadable(ValueError):
    """A piece of text that does not mean what its place asks for; the reader of the file adds the place."""

    def __init__(self, expected: str, hint: str = "", found: str | None = None) -> None:
        super().__init__(expected)
        self.expected = expected
        self.hint = hint
        self.found = found


class ContractRefused(ContractError):
    """The one error for a contract (or several) with `faults`."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__(_message(faults))
        self.faults = tuple(faults)


def _message(faults: Sequence[Fault]) -> str:
    if len(faults) == 1:
        return f"contract {faults[0]}"
    files = sorted({fault.file for fault in faults})
    lines = [f"contract {', '.join(files)}: refused as a whole, {len(faults)} faults:"]
    lines += [f"  {fault}" for fault in faults[:MAX_SHOWN]]
    if len(faults) > MAX_SHOWN:
        lines.append(f"  … and {len(faults) - MAX_SHOWN} more")
    return "\n".join(lines)


def dotted(path: DocumentPath) -> str:
    """`('capacity', 2, 'sku')` as `capacity[2].sku`."""
    text = ""
    for key in path:
        text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else key
    return text


def shown(value: object) -> str:
    """A value of the file as a fault quotes it: strings in quotes, containers by name, nothing endless."""
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value) if isinstance(value, int | Decimal) else repr(value)
    return text if len(text) <= 80 else f"{text[:76]}…{text[-1]}"


def did_you_mean(found: str, valid: Iterable[str]) -> str:
    """`did you mean 'peak-season'?` for the valid name nearest to `found`; empty when none is near."""
    folded = {_folded(name): name for name in sorted(valid)}
    near = get_close_matches(_folded(found), folded, n=1, cutoff=0.6)
    return f"did you mean {folded[near[0]]!r}?" if near else ""


def _folded(name: str) -> str:
    return name.casefold().replace("-", "_").replace(" ", "_")


MOST_NAMED = 20
"""Names that a fault lists at most."""


def one_of(names: Iterable[str]) -> str:
    """`one of a, b, c` in the order given; long lists are cut."""
    every = list(names)
    if not every:
        return "none (there is none here)"
    if len(every) == 1:
        return every[0]
    more = f", … ({len(every) - MOST_NAMED} more)" if len(every) > MOST_NAMED else ""
    return "one of " + ", ".join(every[:MOST_NAMED]) + more
