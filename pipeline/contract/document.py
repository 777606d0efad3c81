"""A YAML 1.2 (or JSON) file as plain values, with the line and column of every one of them.

The file is composed to nodes and walked here, not constructed by the YAML library: scalars follow YAML 1.2's
core schema to the letter (`12_000` is text, `yes` is text, a date is text), a number with a point becomes a
`Decimal` (never a binary float), a key that is given twice is a fault, and aliases are counted while
they are followed, so that a few lines cannot unfold into a billion.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from pipeline.contract.faults import ContractRefused, DocumentPath, Fault, dotted, shown
from pipeline.contract.syntax import compose

MAX_BYTES = 1 << 20
MAX_VALUES = 50_000
MAX_DEPTH = 30

_CORE_TAGS = tuple(
    f"tag:yaml.org,2002:{kind}" for kind in ["str", "int", "float", "bool", "null", "timestamp", "seq", "map"]
)
_INT = re.compile(r"[-+]?[0-9]+")
_HEX_OR_OCTAL = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


@dataclass(slots=True)
class Document:
    """The values of one file, where each stands, and the faults found in it so far."""

    file: str
    digest: str
    value: Any = None
    places: dict[DocumentPath, tuple[int, int]] = field(default_factory=dict)
    keys: dict[DocumentPath, tuple[int, int]] = field(default_factory=dict)
    found: dict[tuple[str, int, int], Fault] = field(default_factory=dict)
    unread: list[DocumentPath] = field(default_factory=list)

    def take(self, root: Node) -> None:
        """The values below `root`, each with its place and its faults.  Raises ContractRefused where there are too many."""
        self.value = _walk(self, root, (), 0)

    def place(self, path: DocumentPath, key: bool = False) -> tuple[int, int]:
        """Line and column of the value (or the key) at `path`, or of the nearest thing around it."""
        while path:
            found = (self.keys.get(path) if key else None) or self.places.get(path)
            if found:
                return found
            path = path[:-1]
        return self.places.get((), (1, 1))

    def fault(self, path: DocumentPath, found: str, expected: str, hint: str = "", key: bool = False) -> None:
        """Notes what is wrong at `path`: one fault for each place, the first or the first with a hint."""
        self.note(Fault(self.file, *self.place(path, key), dotted(path), found, expected, hint))

    def note(self, fault: Fault) -> None:
        place = (fault.path, fault.line, fault.column)
        before = self.found.get(place)
        if before is None or (fault.hint and not before.hint):
            self.found[place] = fault

    def faulty(self, path: DocumentPath) -> bool:
        """Whether a fault has been found at `path` or below it."""
        name = dotted(path)
        return any(f.path == name or f.path.startswith((f"{name}.", f"{name}[")) for f in self.found.values())

    @property
    def faults(self) -> list[Fault]:
        """Every fault, in the order of the file."""
        return sorted(self.found.values())


def read(path: Path, file: str | None = None) -> Document:
    """The file at `path`, called `file` in its faults.

    Raises ContractError when it cannot be read at all (missing, no permission, too large, not UTF-8, not
    YAML); what is wrong inside it is left in `Document.faults`.
    """
    name = file or str(path)
    raw = _bytes(path, name)
    document = Document(name, hashlib.sha256(raw).hexdigest())
    root = compose(raw, name)
    if root is None or (isinstance(root, ScalarNode) and not root.value):
        raise ContractRefused([Fault(name, 1, 1, "", "an empty file", "a contract")])
    document.take(root)
    return document


def digest_of(path: Path) -> str:
    """SHA-256 of a file's bytes.  Raises ContractRefused where `read` would not get them."""
    return hashlib.sha256(_bytes(path, str(path))).hexdigest()


def _bytes(path: Path, name: str) -> bytes:
    try:
        if path.is_dir():
            raise ContractRefused([Fault(name, 0, 0, "", "a directory", "a file")])
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        what = (error.strerror or str(error)).lower()
        raise ContractRefused([Fault(name, 0, 0, "", what, "a contract file that can be read")]) from error
    if len(raw) > MAX_BYTES:
        raise ContractRefused([Fault(name, 0, 0, "", "more than 1 MiB", "a contract of at most 1 MiB")])
    return raw


def _walk(document: Document, node: Node, path: DocumentPath, depth: int) -> Any:
    """The value of `node`; its place and faults go to `document`."""
    document.places[path] = _start(node)
    if len(document.places) > MAX_VALUES or depth > MAX_DEPTH:
        most = f"{MAX_VALUES:,} values" if depth <= MAX_DEPTH else f"{MAX_DEPTH} levels"
        hint = "does an alias repeat itself (&name, *name)?"
        raise ContractRefused(
            [Fault(document.file, *_start(node), "", f"more than {most}", "a contract", hint)]
        )
    if node.tag is not None and str(node.tag) not in _CORE_TAGS:
        tag = str(node.tag).replace("tag:yaml.org,2002:", "!!")
        document.fault(path, f"the tag {tag}", "a plain value", "take the tag away")
        return None
    if isinstance(node, MappingNode):
        return _mapping(document, node, path, depth)
    if isinstance(node, SequenceNode):
        return [_walk(document, item, (*path, i), depth + 1) for i, item in enumerate(node.value)]
    assert isinstance(node, ScalarNode)  # YAML has three kinds of nodes
    return _scalar(document, node, path)


def _start(node: Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1


def _mapping(document: Document, node: MappingNode, path: DocumentPath, depth: int) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line, column = _start(key_node)
        key = key_node.value
        if not isinstance(key_node, ScalarNode) or key in ("", "<<"):
            found = "the merge key '<<'" if key == "<<" else "a key that is not text"
            hint = "write the fields out; YAML 1.2 has no merge" if key == "<<" else ""
            document.note(Fault(document.file, line, column, dotted(path), found, "a name", hint))
            continue
        here = (*path, key)
        if key in values:
            first = document.keys[here][0]
            found, expected = f"{key!r} a second time", f"each name once (the first is on line {first})"
            document.note(Fault(document.file, line, column, dotted(here), found, expected))
            continue
        document.keys[here] = (line, column)
        values[key] = _walk(document, value_node, here, depth + 1)
        if value_node.value == "":  # an absent value has no place of its own
            document.places[here] = (line, column)
    return values


def _scalar(document: Document, node: ScalarNode, path: DocumentPath) -> Any:
    text: str = node.value
    if node.style == ">":  # the YAML library marks where it folded a line
        text = text.replace("\a", "")
    if node.style or str(node.tag).endswith(":str"):
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text) if len(text) <= 40 else _endless(document, path, text)
    if _HEX_OR_OCTAL.fullmatch(text):
        return int(text, 0) if len(text) <= 40 else _endless(document, path, text)
    if _FLOAT.fullmatch(text):
        number = Decimal(text)
        return number if abs(number.adjusted()) <= 40 else _endless(document, path, text)
    if _NOT_FINITE.fullmatch(text):
        document.fault(path, text, "a finite number")
    return text


def _endless(document: Document, path: DocumentPath, text: str) -> str:
    document.fault(path, shown(text), "a number of at most 40 digits")
    return text
