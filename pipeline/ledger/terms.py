"""Contracts as tables: what was promised stands beside what was measured, for whoever asks in SQL.

`clauses` has a row for each clause, whatever its kind: what every clause has in columns of their own, what only its
kind has in `terms`, a JSON object with the names of the contract model.  `windows` has the occurrences of each
named window within a year and a day around now, `aliases` what the suppliers call things in their bills.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import duckdb

from pipeline.contract.fields import terms_of, written
from pipeline.contract.model import Clause, Contract
from pipeline.ledger.dirty import mark_dirty
from pipeline.ledger.instants import utc
from pipeline.ledger.tables import insert
from pipeline.rollup.grid import DAY

AROUND = 366 * DAY
"""Seconds before and after now of which `windows` has the occurrences."""


def write_contracts(con: duckdb.DuckDBPyConnection, contracts: Iterable[Contract], now: float) -> None:
    """Replaces the tables by what `contracts` say, in the caller's transaction; `now` is epoch seconds."""
    contracts = tuple(contracts)
    for table, rows in (
        ("clauses", [_clause(contract, clause) for contract in contracts for clause in contract.clauses]),
        ("windows", [row for contract in contracts for row in _windows(contract, int(now))]),
        ("aliases", [row for contract in contracts for row in _aliases(contract)]),
    ):
        con.execute(f"DELETE FROM {table}")
        insert(con, table, rows)
        mark_dirty(con, table, [None])


def _clause(contract: Contract, clause: Clause) -> list[Any]:
    risk = clause.money_at_risk
    return [
        contract.id, contract.version, contract.parties.supplier, contract.parties.customer, contract.currency,
        utc(contract.term.start), utc(contract.term.end), clause.id, clause.kind, _json(clause.by),
        _json(clause.match), clause.severity, clause.text, clause.runbook, clause.contact, _json(clause.route),
        risk.per_hour if risk else None, _json(terms_of(clause)),
    ]  # fmt: skip


def _windows(contract: Contract, now: int) -> Iterable[list[Any]]:
    for name, window in contract.windows.items():
        for start, end in window.intervals(now - AROUND, now + AROUND):
            yield [contract.id, name, window.text, utc(start), utc(end)]


def _aliases(contract: Contract) -> Iterable[list[Any]]:
    for dimension, names in contract.aliases.items():
        for billed, name in names.items():
            yield [contract.id, dimension, billed, name]


def _json(value: Any) -> str:
    return json.dumps(written(value), ensure_ascii=False)
