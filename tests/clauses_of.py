"""The clauses of one kind, in the file's order."""

from __future__ import annotations

from typing import TypeVar

from pipeline.contract.model import Contract

C = TypeVar("C")


def clauses_of(contract: Contract, kind: type[C]) -> tuple[C, ...]:
    return tuple(clause for clause in contract.clauses if isinstance(clause, kind))
