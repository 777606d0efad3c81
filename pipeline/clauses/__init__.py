"""The kinds of clause that a contract can have, one file for each: its terms, its rules, its words, its SQL, its view.

Whatever lists kinds goes through `KINDS`: loader, JSON Schema, views, alerts, documents.  A new kind is a file here, its
fragment `schemas/clauses/PATH.json`, and its place in this list.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

from pipeline.catalog import Catalog
from pipeline.contract import loader
from pipeline.contract.faults import Fault
from pipeline.contract.loader import Dimensions
from pipeline.contract.model import Contract
from pipeline.rules import evaluate
from pipeline.rules.evaluate import Plan
from pipeline.rules.kind import Kind

KINDS: tuple[Kind[Any], ...] = tuple(
    import_module(f"pipeline.clauses.{name}").KIND
    for name in (
        "capacity",
        "power",
        "service_levels",
        "tranches",
    )
)


def load(path: Path, dimensions: Dimensions | None = None) -> Contract:
    """The contract in the file at `path`; see `loader.load`.  Raises ContractError."""
    return loader.load(path, KINDS, dimensions)


def load_all(path: Path, dimensions: Dimensions | None = None) -> tuple[Contract, ...]:
    """The contract at `path`, or all of the directory; see `loader.load_all`.  Raises ContractError."""
    return loader.load_all(path, KINDS, dimensions)


def check(paths: Iterable[Path], dimensions: Dimensions | None = None) -> list[Fault]:
    """Every fault of the files and directories `paths`, taken as contracts that run together."""
    return loader.check(paths, KINDS, dimensions)


def plan_of(contracts: Iterable[Contract], catalog: Catalog) -> Plan:
    """The rules of all clauses of `contracts`, and those that watch the telemetry itself."""
    return evaluate.plan_of(contracts, catalog, KINDS)


def alerts_that_add_up_to(quantity: str) -> tuple[str, ...]:
    """The names of the alerts whose readings come to `quantity` over a day: `gpu_hours` or `forecast`."""
    return tuple(rule.alertname for kind in KINDS for rule in kind.alerts if rule.adds_up_to == quantity)
