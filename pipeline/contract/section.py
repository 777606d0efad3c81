"""A section of a contract file: the clauses of one kind, as values.

Its shape is a file of its own, `schemas/clauses/PATH.json`; `fields` reads a clause by it, `fragments` merges all
shapes into the schema that editors know.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pipeline.contract.build import Scope
from pipeline.contract.cursor import Cursor
from pipeline.contract.model import Clause

C = TypeVar("C", bound=Clause)


def no_check(place: Cursor, clause: Any, scope: Scope) -> None:
    """For clauses each of whose terms can mean what it says, whatever the others say."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Section(Generic[C]):
    """The clauses under `path` (`spend.tranches`), each of which becomes a `clause`.

    `of`: the views of the event types that its clauses read; `match` and `by` may name the dimensions that all of them
    have, in the order of the first.  `check`: notes the faults that no single term shows.
    """

    path: str
    clause: type[C]
    of: tuple[str, ...]
    check: Callable[[Cursor, C, Scope], None] = no_check

    @property
    def name(self) -> str:
        """What its clauses are called in the view `clauses` and in the schema: their kind."""
        return self.clause.kind

    @property
    def keys(self) -> tuple[str, ...]:
        """`path`, step by step."""
        return tuple(self.path.split("."))
