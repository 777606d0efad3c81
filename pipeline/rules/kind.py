"""A kind of clause: its section of the contract, the alerts it asks for, and its view.  `clauses.KINDS` has them all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic

from pipeline.catalog import Catalog
from pipeline.contract.model import Contract
from pipeline.contract.section import Section
from pipeline.rules.ready_view import ReadyView
from pipeline.rules.rule import C, ClauseRule


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Kind(Section[C], Generic[C]):
    """`alerts`: the rules that a clause of it can ask for; `asks_for`: those of them that this clause does.

    `view`: names for the numbers of its readings, where the views of all kinds do not say enough.
    """

    alerts: tuple[type[ClauseRule[C]], ...]
    asks_for: Callable[[C], Sequence[type[ClauseRule[C]]]] | None = None
    view: ReadyView | None = None

    def rules(self, clause: C, contract: Contract, catalog: Catalog) -> Iterator[ClauseRule[C]]:
        """The rules of one clause, in the order of `alerts`."""
        asked = self.alerts if self.asks_for is None else self.asks_for(clause)
        return (rule(clause, contract, catalog) for rule in asked)
