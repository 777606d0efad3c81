"""A place in a contract file, and how to read what stands there.

The shape check has already spoken about what is missing or of the wrong type, so a reading that finds such a
thing answers None in silence and goes on: one run finds every fault.  It leaves a note in `Document.unread`,
and the loader refuses a file that has such notes and no fault: that would be a term dropped in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeVar

from pipeline.contract.document import Document
from pipeline.contract.faults import DocumentPath, Unreadable, shown

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Cursor:
    """The value at `path` of a document; `present` is False where the file has nothing."""

    document: Document
    path: DocumentPath
    value: Any
    present: bool = True

    def at(self, key: str) -> Cursor:
        """The field `key`."""
        fields = self.value if isinstance(self.value, dict) else {}
        return Cursor(self.document, (*self.path, key), fields.get(key), key in fields)

    def entries(self) -> Iterator[tuple[str, Cursor]]:
        """The fields of a mapping, in the file's order."""
        if isinstance(self.value, dict):
            yield from ((key, self.at(key)) for key in self.value)
        else:
            self._unread()

    def each(self) -> Iterator[Cursor]:
        """The items of a list."""
        if isinstance(self.value, list):
            yield from (Cursor(self.document, (*self.path, i), v) for i, v in enumerate(self.value))
        else:
            self._unread()

    def text(self) -> str | None:
        """Text, or a whole number taken as text (`version: 3`)."""
        if isinstance(self.value, str | int) and not isinstance(self.value, bool):
            return str(self.value)
        self._unread()
        return None

    def texts(self) -> tuple[str, ...]:
        """One text or a list of them."""
        found = [self] if isinstance(self.value, str) else list(self.each())
        return tuple(text for item in found if (text := item.text()) is not None)

    def number(self) -> float | None:
        if isinstance(self.value, int | Decimal) and not isinstance(self.value, bool):
            return float(self.value)
        self._unread()
        return None

    def parse(self, reader: Callable[[str], T]) -> T | None:
        """What `reader` makes of the text here; its complaint becomes a fault of this place."""
        if isinstance(self.value, str):
            return self.read(reader, self.value)
        self._unread()
        return None

    def read(self, reader: Callable[[Any], T], value: object) -> T | None:
        try:
            return reader(value)
        except Unreadable as error:
            self.fault(error.found or shown(value), error.expected, error.hint)
            return None

    def sound(self, *names: str) -> bool:
        """Whether each of these fields is there, and nothing wrong has been found in it."""
        return all(self.at(name).present and not self.document.faulty((*self.path, name)) for name in names)

    def fault(self, found: str, expected: str, hint: str = "", key: bool = False) -> None:
        self.document.fault(self.path, found, expected, hint, key)

    def _unread(self) -> None:
        if self.present:
            self.document.unread.append(self.path)
