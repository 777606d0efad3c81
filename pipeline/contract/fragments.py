"""The schema of contract files, merged: the frame (`schemas/contract.frame.json`) and a fragment for each kind of clause.

A fragment (`schemas/clauses/PATH.json`) has what only its kind has: title and description of the section, and under
`items` those of a clause, its required fields and its own properties.  What every clause has is the frame's definition
`clause`; a fragment may say a field of that anew (another default), or leave fields out (`x-without`).  `x-example` has
lines of YAML for the example contract: comments, then the clauses.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from pipeline.catalog import schema_directory
from pipeline.contract.section import Section

Shape = Mapping[str, Any]
AFTER = "windows"
"""The field of the frame that the sections stand after."""


@cache
def frame() -> Shape:
    """What no kind of clause has a say in."""
    return _read("contract.frame.json")


def definitions() -> Mapping[str, Shape]:
    """What every kind may refer to, by name."""
    found: Mapping[str, Shape] = frame()["$defs"]
    return found


@cache
def fragment(path: str) -> Shape:
    """What the clauses under `path` look like, as its file has it."""
    return _read(f"clauses/{path}.json")


def _read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((schema_directory() / name).read_text("utf-8"))
    return found


def merged(sections: Sequence[Section[Any]]) -> dict[str, Any]:
    """The JSON Schema of a contract file that has these sections, in their order."""
    whole = dict(frame())
    shared = whole["$defs"]["clause"]
    definitions = {name: shape for name, shape in whole["$defs"].items() if name != "clause"}
    whole["$defs"] = definitions | {each.name: _clause(shared, each) for each in sections}
    whole["properties"] = _properties(frame()["properties"], sections)
    return whole


def shared_shapes() -> Mapping[str, Shape]:
    """The fields that every clause has, by name."""
    found: Mapping[str, Shape] = frame()["$defs"]["clause"]["properties"]
    return found


def clause_shape(section: Section[Any]) -> Shape:
    """The merged schema of one of its clauses."""
    return _clause(frame()["$defs"]["clause"], section)


def _clause(shared: Shape, section: Section[Any]) -> dict[str, Any]:
    own = fragment(section.path)["items"]
    left_out = own.get("x-without", ())
    common = {name: shape for name, shape in shared["properties"].items() if name not in left_out}
    plain = {name: value for name, value in own.items() if name not in ("x-without", "properties")}
    return {**shared, **plain, "properties": common | own["properties"]}


def _properties(framed: Shape, sections: Sequence[Section[Any]]) -> dict[str, Any]:
    """The fields of a contract, with a list for each section; those of one group (`spend`) in a mapping."""
    groups = dict.fromkeys(each.keys[0] for each in sections)
    asked = {
        group: _group(framed.get(group, {}), [e for e in sections if e.keys[0] == group]) for group in groups
    }
    found: dict[str, Any] = {}
    for name, shape in framed.items():
        if name not in asked:
            found[name] = shape
        if name == AFTER:
            found |= asked
    return found


def _group(framed: Shape, sections: Sequence[Section[Any]]) -> dict[str, Any]:
    if len(sections) == 1 and len(sections[0].keys) == 1:
        return _list(sections[0])
    lists = {each.keys[1]: _list(each) for each in sections}
    later = {name: alert for name, alert in framed.get("x-later", {}).items() if name not in lists}
    least = {"required": list(lists)} if len(lists) == 1 else {"minProperties": 1}
    return {
        "title": framed["title"], "type": "object", "additionalProperties": False, **least, "properties": lists,
        **({"x-later": later} if later else {}), "x-expected": f"a mapping with {' or '.join(lists)}",
    }  # fmt: skip


def _list(section: Section[Any]) -> dict[str, Any]:
    shape = {
        name: value for name, value in fragment(section.path).items() if name not in ("items", "x-example")
    }
    expected = shape.pop("x-expected")
    items = {"$ref": f"#/$defs/{section.name}"}
    return {**shape, "type": "array", "minItems": 1, "items": items, "x-expected": expected}


def example(sections: Iterable[Section[Any]]) -> str:
    """The sections of the example contract, as text: each with its comment and its clauses."""
    lines: list[str] = []
    open_group: tuple[str, ...] = ()
    for section in sections:
        said = fragment(section.path)["x-example"]
        *group, last = section.keys
        lines += ["", *(line for line in said if line.startswith("#"))]
        if tuple(group) != open_group:
            lines += [f"{key}:" for key in group]
        open_group = tuple(group)
        depth = len(group)
        lines.append(f"{'  ' * depth}{last}:")
        lines += [("  " * (depth + 1) + line).rstrip() for line in said if not line.startswith("#")]
    return "\n".join(lines[1:]) + "\n"
