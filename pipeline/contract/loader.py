"""Loading contracts: the whole file, or a refusal that names every fault with its place.

`load` and `load_all` raise ContractError; `check` returns the faults instead.  Only this module,
`document.py` and `fragments.py` touch files, and neither asks what time it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from functools import cache, partial
from pathlib import Path
from typing import Any

from pipeline import catalog
from pipeline.contract import values
from pipeline.contract.build import UTC, Scope, read_pipeline, read_term, read_windows
from pipeline.contract.clause_reader import read_clauses
from pipeline.contract.cursor import Cursor
from pipeline.contract.document import Document, digest_of, read
from pipeline.contract.faults import ContractRefused, Fault, shown
from pipeline.contract.model import Contract, Parties, Term
from pipeline.contract.section import Section
from pipeline.contract.shape import check_shape

SUFFIXES = (".yaml", ".yml", ".json")

Dimensions = Mapping[str, Sequence[str]]
Sections = Sequence[Section[Any]]


@cache
def shipped_dimensions() -> Dimensions:
    """`dimensions_of` the schemas that ship with Gigawatch."""
    return dimensions_of(catalog.load())


def dimensions_of(types: catalog.Catalog) -> Dimensions:
    """Short topic → the dimensions that its events carry."""
    return {event.view: tuple(d.name for d in event.dimensions) for event in types.types}


def load(path: Path, sections: Sections, dimensions: Dimensions | None = None) -> Contract:
    """The contract in the file at `path`, whose clauses are those of `sections`.

    `dimensions`: short topic → names that `match` and `by` may use (default: those of the shipped schemas).
    Raises ContractError with every fault of the file.
    """
    contract, _, faults = _load(path, sections, dimensions or shipped_dimensions())
    if contract is None or faults:
        raise ContractRefused(faults)
    return contract


def load_all(path: Path, sections: Sections, dimensions: Dimensions | None = None) -> tuple[Contract, ...]:
    """The contract at `path`, or all of the directory `path` (*.yaml, *.yml, *.json; not below it), by name.

    Raises ContractError when one of them is wrong, when two share an id or a `pipeline:` section, or when
    there is none.
    """
    contracts, faults = _load_each(_files(path), sections, dimensions)
    if faults:
        raise ContractRefused(faults)
    return tuple(contracts)


def fingerprint(path: Path) -> str:
    """Another one whenever the bytes of a contract at `path`, or which there are, have changed.

    What cannot be read counts as it is: with the reason.
    """
    digest = hashlib.sha256()
    try:
        for file in _files(path):
            digest.update(f"{file}\0{digest_of(file)}\0".encode())
    except ContractRefused as error:
        digest.update(str(error).encode())
    return digest.hexdigest()


def check(paths: Iterable[Path], sections: Sections, dimensions: Dimensions | None = None) -> list[Fault]:
    """Every fault of the files and directories `paths`, taken as contracts that run together."""
    files: list[Path] = []
    faults: list[Fault] = []
    for path in paths:
        try:
            files += _files(path)
        except ContractRefused as error:
            faults += error.faults
    return faults + _load_each(dict.fromkeys(files), sections, dimensions)[1]


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    try:
        found = sorted(p for p in path.iterdir() if p.suffix in SUFFIXES and not p.name.startswith("."))
    except OSError as error:
        what = (error.strerror or str(error)).lower()
        raise ContractRefused([Fault(str(path), 0, 0, "", what, "a directory that can be read")]) from error
    if not found:
        raise ContractRefused(
            [Fault(str(path), 0, 0, "", "no contract in this directory", f"a file *{', *'.join(SUFFIXES)}")]
        )
    return found


def _load_each(
    files: Iterable[Path], sections: Sections, dimensions: Dimensions | None
) -> tuple[list[Contract], list[Fault]]:
    contracts: list[Contract] = []
    faults: list[Fault] = []
    for file in files:
        contract, document, found = _load(file, sections, dimensions or shipped_dimensions())
        faults += found
        if contract and document:
            faults += _clashes(contract, document, contracts)
            contracts.append(contract)
    return contracts, faults


def _clashes(contract: Contract, document: Document, others: Sequence[Contract]) -> list[Fault]:
    """What this contract may not share with one that runs beside it."""
    found = []
    for other in others:
        if other.id == contract.id:
            place = document.place(("metadata", "id"))
            expected = f"an id of its own ({other.path} has this one)"
            found.append(Fault(contract.path, *place, "metadata.id", repr(contract.id), expected))
        if other.pipeline and contract.pipeline:
            place = document.place(("pipeline",), key=True)
            expected = f"it in one contract only ({other.path} has one)"
            found.append(Fault(contract.path, *place, "pipeline", "a second pipeline section", expected))
        found += _other_aliases(contract, document, other)
    return found


def _other_aliases(contract: Contract, document: Document, other: Contract) -> Iterator[Fault]:
    """A charge says nothing of contracts: a name in it can stand for one thing only."""
    for dimension, names in contract.aliases.items():
        for billed, name in names.items():
            theirs = other.aliases.get(dimension, {}).get(billed, name)
            if theirs != name:
                path = ("aliases", dimension, billed)
                expected = f"{theirs!r}, as {other.path} says of the same name in bills"
                yield Fault(contract.path, *document.place(path), ".".join(path), repr(name), expected)


def _load(
    path: Path, sections: Sections, dimensions: Dimensions
) -> tuple[Contract | None, Document | None, list[Fault]]:
    """The contract and the document it was read from, or the faults."""
    try:
        document = read(path)
    except ContractRefused as error:
        return None, None, list(error.faults)
    check_shape(document, sections)
    contract = _contract(document, sections, dimensions)
    if document.unread and not document.faults:
        raise AssertionError(f"{path}: the schema allows what the loader does not read: {document.unread}")
    return (None if document.faults else contract), document, document.faults


def _contract(document: Document, sections: Sections, dimensions: Dimensions) -> Contract:
    """The contract as far as it can be read; worthless when the document has faults."""
    root = Cursor(document, (), document.value)
    zone = root.at("timezone").parse(values.zone) or UTC
    term = read_term(root.at("term"), zone)
    scope = Scope(document, dimensions, zone, term, root.at("currency").text() or "")
    fx = _fx(scope, root.at("fx"))
    read_windows(scope, root.at("windows"))
    clauses = read_clauses(scope, root, sections)
    pipeline = read_pipeline(scope, root.at("pipeline"))
    if not clauses and not document.faults:
        root.fault("no clause", f"at least one under {_any_of(sections)}")
    _note_unused_windows(scope)
    metadata, parties = root.at("metadata"), root.at("parties")
    supersedes = metadata.at("supersedes")
    return Contract(
        id=metadata.at("id").text() or "",
        version=metadata.at("version").text() or "",
        supersedes=supersedes.text() if supersedes.present else None,
        parties=Parties(parties.at("customer").text() or "", parties.at("supplier").text() or ""),
        term=scope.term or Term(0, 0),
        currency=scope.currency,
        timezone=scope.zone.key,
        fx=fx,
        windows=scope.windows,
        clauses=clauses,
        pipeline=pipeline,
        aliases=_aliases(root.at("aliases")),
        path=document.file,
        digest=document.digest,
        notices=tuple(scope.notices),
    )


def _any_of(sections: Sections) -> str:
    *names, last = dict.fromkeys(section.keys[0] for section in sections)
    return f"{', '.join(names)} or {last}" if names else last


def _fx(scope: Scope, cursor: Cursor) -> dict[str, tuple[tuple[int, Decimal], ...]]:
    table: dict[str, list[tuple[int, Decimal]]] = {}
    for item in cursor.each() if cursor.present else ():
        begin, rate = item.at("from"), item.at("rate")
        code, t = item.at("currency").text(), begin.parse(partial(values.instant, local=scope.zone))
        factor = rate.read(values.money, rate.value) if rate.present else None
        if code is None or t is None or factor is None:
            continue
        if code == scope.currency:
            item.at("currency").fault(shown(code), "a currency other than the contract's own")
        if factor <= 0:
            rate.fault(shown(rate.value), "a rate above 0 such as '1.0842'")
        steps = table.setdefault(code, [])
        if steps and t <= steps[-1][0]:
            begin.fault(shown(begin.value), f"a date after that of the {code} rate before it")
        steps.append((t, factor))
    return {code: tuple(steps) for code, steps in table.items()}


def _aliases(cursor: Cursor) -> dict[str, dict[str, str]]:
    return {
        dimension: {billed: item.text() or "" for billed, item in names.entries()}
        for dimension, names in (cursor.entries() if cursor.present else ())
    }


def _note_unused_windows(scope: Scope) -> None:
    for name in scope.windows.keys() - scope.used_windows:
        line, _ = scope.document.place(("windows", name), key=True)
        scope.notices.append(f"{scope.document.file}:{line} windows.{name}: no clause names this window")
