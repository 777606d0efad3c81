"""Nobody but `pipeline/clauses/` asks for a kind of clause: not by its class, not by its name."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest

from pipeline.catalog import schema_directory
from pipeline.clauses import KINDS, load_all
from pipeline.clauses.power import KIND as POWER
from pipeline.contract import fields as terms
from pipeline.contract import loader
from pipeline.contract.fields import READERS, TermReader, terms_of
from pipeline.contract.fragments import clause_shape, definitions, fragment, shared_shapes
from pipeline.contract.model import Clause, Contract
from pipeline.errors import ContractError

ROOT = Path(__file__).resolve().parents[2] / "pipeline"
EXAMPLE = schema_directory() / "example-contract.yaml"
CLASSES = {kind.clause.__name__ for kind in KINDS} | {rule.__name__ for kind in KINDS for rule in kind.alerts}
ALERTS = {rule.alertname for kind in KINDS for rule in kind.alerts}
NAMES = {kind.name for kind in KINDS} | {kind.path for kind in KINDS} | {kind.keys[-1] for kind in KINDS}
SQL = re.compile(r"\bkind\s*(?:=|<>|IN\b|LIKE\b)[\s(]*'", re.IGNORECASE)
IN_SQL = re.compile("|".join(rf"'{name}'" for name in sorted(ALERTS)))


def kinds_asked_for(source: str) -> list[str]:
    """What a file says that only holds for some kinds of clause."""
    return [f"{line}: {what}" for line, what in sorted(_asked(ast.parse(source)))]


def _asked(tree: ast.Module) -> Iterator[tuple[int, str]]:
    documents = {id(node) for node in _docstrings(tree)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pipeline.clauses."):
            yield node.lineno, f"imports {node.module}"
        elif isinstance(node, ast.Import):
            yield from (
                (node.lineno, f"imports {a.name}")
                for a in node.names
                if a.name.startswith("pipeline.clauses.")
            )
        elif isinstance(node, ast.Name | ast.Attribute):
            name = node.id if isinstance(node, ast.Name) else node.attr
            if name in CLASSES:
                yield node.lineno, f"names {name}"
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documents:
            if node.value in ALERTS | CLASSES or IN_SQL.search(node.value):
                yield node.lineno, f"names {node.value.strip()[:60]}"
            elif SQL.search(node.value):
                yield node.lineno, f"asks in SQL: {node.value.strip()[:60]}"
        yield from ((line, f"compares with {name!r}") for line, name in _compared(node) if name in NAMES)


def _compared(node: ast.AST) -> Iterator[tuple[int, object]]:
    """Texts that something is compared with, looked up by, or mapped from."""
    places: list[ast.expr | None] = []
    if isinstance(node, ast.Compare):
        for each in (node.left, *node.comparators):
            places += each.elts if isinstance(each, ast.Tuple | ast.List | ast.Set) else [each]
    elif isinstance(node, ast.Dict):
        places += node.keys
    elif isinstance(node, ast.Subscript):
        places.append(node.slice)
    elif isinstance(node, ast.MatchValue):
        places.append(node.value)
    elif (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("get", "at")
    ):
        places += node.args[:1]
    yield from ((each.lineno, each.value) for each in places if isinstance(each, ast.Constant))


def _docstrings(tree: ast.Module) -> Iterator[ast.Constant]:
    """Texts that stand for themselves: of modules, classes, functions, and below a constant."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield node.value


def outside() -> Iterator[Path]:
    """Everything but the room itself, and the simulator, whose columns (`power`) are those of machines."""
    rooms = ("clauses", "simulate")
    return (path for path in sorted(ROOT.rglob("*.py")) if path.relative_to(ROOT).parts[0] not in rooms)


def test_nothing_outside_its_room_asks_for_a_kind_of_clause() -> None:
    found = {str(path.relative_to(ROOT)): kinds_asked_for(path.read_text("utf-8")) for path in outside()}
    assert {path: asked for path, asked in found.items() if asked} == {}


@pytest.mark.parametrize(
    "source",
    [
        "from pipeline.clauses.capacity import CapacityClause",
        "import pipeline.clauses.power",
        "isinstance(clause, CapacityClause)",
        "isinstance(clause, model.TrancheClause)",
        "if clause.kind == 'capacity': pass",
        "if clause.kind in ('power', 'other'): pass",
        "words = {'service_level': 'waits'}",
        "bounds['tranche']",
        "root.at('service_levels')",
        "match kind:\n    case 'power': pass",
        "if rule.alertname == 'CapacityShortfall': pass",
        "sql = \"SELECT * FROM readings WHERE alertname = 'QueueBacklog'\"",
        "sql = f\"SELECT * FROM clauses WHERE kind = '{name}'\"",
    ],
)
def test_who_asks_for_a_kind_is_found(source: str) -> None:
    assert kinds_asked_for(source) != []


@pytest.mark.parametrize(
    "source",
    [
        '"""CapacityShortfall is told."""',
        "from pipeline.clauses import KINDS",
        "frame('capacity', 'GPUs')",
        "sql = 'SELECT * FROM capacity'",
    ],
)
def test_documents_and_views_are_no_question(source: str) -> None:
    assert kinds_asked_for(source) == []


# --------------------------------------------------------------------------------------------------- every kind

each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind.path))


def of_kind(kind: Any) -> list[Any]:
    return [c for contract in load_all(EXAMPLE) for c in contract.clauses if type(c) is kind.clause]


@each_kind
def test_a_kind_is_complete(kind: Any) -> None:
    assert kind.name and kind.alerts and kind.of
    for rule in kind.alerts:
        assert rule.alertname == rule.__name__
        assert rule.fires_when and rule.__doc__
        assert "{observed}" in rule.says and rule.says != "{observed} {unit} observed, the bound is {bound}"
    if kind.view:
        assert kind.view.comment and all(kind.view.columns.values())


@each_kind
def test_the_example_contract_has_every_alert_of_a_kind(kind: Any) -> None:
    asked = {
        rule for clause in of_kind(kind) for rule in (kind.asks_for(clause) if kind.asks_for else kind.alerts)
    }
    assert asked == set(kind.alerts)


@each_kind
def test_every_term_of_a_kind_stands_in_the_example_and_in_the_ledger(kind: Any) -> None:
    own = {f.name for f in fields(kind.clause)} - {f.name for f in fields(Clause)}
    for clause in of_kind(kind):
        assert set(terms_of(clause)) == own
        json.dumps(terms_of(clause), allow_nan=False)
        assert clause.asks(load_all(EXAMPLE)[0], 1_790_000_000)


@each_kind
def test_defaults_are_those_that_the_schema_tells_editors(kind: Any) -> None:
    said = {name: s["default"] for name, s in clause_shape(kind)["properties"].items() if "default" in s}
    defaults = {f.name: f.default for f in fields(kind.clause)}
    for name, default in said.items():
        shape = clause_shape(kind)["properties"][name]
        reader = READERS.get(str(shape.get("$ref", "")).rpartition("/")[2], TermReader(lambda *_: None, None))
        found = defaults[name + reader.suffix]
        if reader.suffix == "_seconds":
            count, unit = int(default[:-1]), default[-1]
            assert found == count * {"s": 1, "m": 60, "h": 3600, "d": 86_400}[unit], name
        else:
            assert (list(found) if isinstance(found, tuple) else found) == default, name


def test_every_definition_that_a_term_refers_to_has_a_reader() -> None:
    for kind in KINDS:
        for name, shape in fragment(kind.path)["items"]["properties"].items():
            referred = str(shape.get("$ref", "")).rpartition("/")[2]
            assert referred in {"", *READERS} or name in shared_shapes(), (kind.path, name)
    assert set(READERS) <= set(definitions())


# ------------------------------------------------------------------------------------- terms that cannot be kept


@dataclass(frozen=True, slots=True, kw_only=True)
class UnkeptClause(Clause):
    kind: ClassVar[str] = "power"

    ceiling_megawatts: Any
    at: str = "it"
    over_seconds: int = 900
    overhead_ratio: float = 0.0

    def asks(self, contract: Contract, t: int) -> str:
        return ""


def test_a_term_that_the_ledger_cannot_write_is_a_fault_at_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would be found when the contract is taken over, and end a running pipeline."""
    odd = {**READERS, "ramp": TermReader(lambda scope, place: timedelta(hours=place.value), None)}
    monkeypatch.setattr(terms, "READERS", odd)
    (tmp_path / "c.yaml").write_text(
        "metadata: {id: a, version: '1'}\n"
        "parties: {customer: C, supplier: S}\n"
        "term: {start: 2026-01-01, end: 2027-01-01}\n"
        "currency: EUR\n"
        "timezone: UTC\n"
        "power:\n"
        "  - id: p\n"
        "    ceiling_megawatts: 4\n"
    )
    kind = replace(POWER, clause=UnkeptClause, view=None)
    with pytest.raises(ContractError) as refused:
        loader.load(tmp_path / "c.yaml", [kind])
    assert str(refused.value) == (
        f"contract {tmp_path / 'c.yaml'}:8:24 power[0].ceiling_megawatts: found a term of type timedelta, expected one that "
        "the ledger can write: text, a number, money, a ramp, or lists and mappings of these; take it out: this version of "
        "Gigawatch cannot keep it"
    )
