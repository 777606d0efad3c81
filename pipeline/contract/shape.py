"""The contract file against its schema (`fragments.merged`), with every fault in the words of the contract.

The schema library says what a validator thinks ("is not valid under any of the given schemas"); this module
says what the author of the file has to know.  The schema helps with two annotations: `x-expected` (what a
place asks for, in words) and `x-later` (fields that the design names and nothing evaluates yet: refused
by name, so that nobody believes a promise is being watched when it is not).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from pipeline.contract.document import Document
from pipeline.contract.faults import DocumentPath, did_you_mean, one_of, shown
from pipeline.contract.fragments import definitions, frame, merged
from pipeline.contract.section import Section

_TYPES = {
    "object": "a mapping",
    "array": "a list",
    "string": "text",
    "number": "a number",
    "integer": "a whole number",
}


@dataclass(frozen=True, slots=True)
class Complaint:
    """What the schema library found: `rule` (a JSON Schema keyword) asked for `wanted` and got `value`."""

    path: DocumentPath
    rule: str
    wanted: Any
    value: Any
    schema: Mapping[str, Any]
    of_key: bool

    @classmethod
    def of(cls, error: ValidationError) -> Complaint:
        schema = error.schema if isinstance(error.schema, Mapping) else {}
        of_key = "propertyNames" in error.absolute_schema_path
        path: DocumentPath = tuple(error.absolute_path)
        return cls(path, str(error.validator), error.validator_value, error.instance, schema, of_key)


def check_shape(document: Document, sections: Sequence[Section[Any]]) -> None:
    """Adds a fault to `document` for everything that the schema of a contract with these sections does not allow."""
    validator = _validator(tuple(sections))
    known = merged(sections)["properties"]
    if isinstance(document.value, dict) and not document.value.keys() & known.keys():
        # Some other file: to list it field by field would help nobody, and might show what is private.
        document.fault((), "no field of a contract", one_of(known))
        return
    if not isinstance(document.value, dict):
        document.fault((), _kind(document.value), frame()["x-expected"])
        return
    for error in _meant(validator.iter_errors(document.value)):
        _report(document, Complaint.of(error))


@cache
def _validator(sections: tuple[Section[Any], ...]) -> Draft202012Validator:
    return Draft202012Validator(merged(sections))


def _kind(value: object) -> str:
    """What a file holds that is no mapping, without quoting it."""
    if isinstance(value, str):
        return "text"
    return shown(value) if value is None or isinstance(value, list) else "a single value"


def _meant(errors: Iterable[ValidationError]) -> Iterator[ValidationError]:
    """The errors that matter: of alternatives, those of the one that the value was meant to be."""
    for error in errors:
        branches = _branches(error) if error.validator == "anyOf" else {}
        meant = [branch for branch in branches.values() if not any(_wrong_type(e, error) for e in branch)]
        if len(meant) == 1:
            yield from _meant(meant[0])
        else:
            yield error


def _branches(error: ValidationError) -> dict[Any, list[ValidationError]]:
    found: dict[Any, list[ValidationError]] = {}
    for inner in error.context or ():
        found.setdefault(inner.schema_path[0], []).append(inner)
    return found


def _wrong_type(inner: ValidationError, outer: ValidationError) -> bool:
    return inner.validator == "type" and len(inner.absolute_path) == len(outer.absolute_path)


def _report(document: Document, it: Complaint) -> None:
    if it.rule == "additionalProperties":
        for key in sorted(set(it.value) - set(it.schema["properties"])):
            _unknown(document, (*it.path, key), key, it.schema)
    elif it.rule == "required":
        for key in it.wanted:
            if key not in it.value:
                document.fault((*it.path, key), "nothing", _field(it.schema, key), _misspelt(it, key))
    elif it.of_key:
        document.fault((*it.path, it.value), shown(it.value), _expected(it), key=True)
    elif it.rule == "uniqueItems":
        twice = next(v for i, v in enumerate(it.value) if v in it.value[:i])
        document.fault(it.path, f"{shown(twice)} twice", _expected(it))
    else:
        document.fault(it.path, shown(it.value), _expected(it), _hint(it))


def _unknown(document: Document, path: DocumentPath, key: str, schema: Mapping[str, Any]) -> None:
    later = schema.get("x-later", {})
    if key in later:
        found = f"{key!r}, which nothing watches yet"
        hint = f"take it out until there is {later[key]}"
        document.fault(path, found, "only terms that are watched", hint, key=True)
        return
    near = did_you_mean(key, schema["properties"])
    expected = "a field that belongs here" if near else one_of(schema["properties"])
    document.fault(path, f"the unknown field {key!r}", expected, near, key=True)


def _misspelt(it: Complaint, missing: str) -> str:
    """Points from a missing field to the unknown one beside it that was probably meant."""
    near = did_you_mean(missing, set(it.value) - set(it.schema["properties"]))
    return near.replace("did you mean", "is it misspelt as")


def _field(schema: Mapping[str, Any], name: str) -> str:
    """What a missing field should hold."""
    spec = _resolved(schema["properties"][name])
    return str(spec.get("x-expected") or _choices(spec) or _TYPES.get(str(spec.get("type")), ""))


def _resolved(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    """A property with what its `$ref` says (every reference of a property is to a definition of the frame)."""
    name = str(spec.get("$ref", "")).rpartition("/")[2]
    return {**definitions()[name], **spec} if name else spec


def _choices(schema: Mapping[str, Any]) -> str:
    return one_of(map(str, schema["enum"])) if "enum" in schema else ""


def _expected(it: Complaint) -> str:
    bounds = {"minimum": "at least", "maximum": "at most", "exclusiveMinimum": "more than"}
    if "x-expected" in it.schema or it.rule == "enum":
        return str(it.schema.get("x-expected") or _choices(it.schema))
    if it.rule == "type":
        return " or ".join(
            _TYPES[kind] for kind in ([it.wanted] if isinstance(it.wanted, str) else it.wanted)
        )
    if it.rule in bounds:
        return f"{bounds[it.rule]} {it.wanted}"
    return f"what the schema asks for ({it.rule}: {it.wanted})"


def _hint(it: Complaint) -> str:
    if it.rule == "enum" and isinstance(it.value, str):
        return did_you_mean(it.value, [v for v in it.wanted if isinstance(v, str)])
    if it.rule in ("type", "anyOf"):
        return _type_hint(it.value, it.schema)
    return ""


def _type_hint(value: object, schema: Mapping[str, Any]) -> str:
    """How to write a value whose type is the trouble."""
    kinds = [schema.get("type")] if isinstance(schema.get("type"), str) else schema.get("type", ())
    kinds = [*kinds, *(inner.get("type") for inner in schema.get("anyOf", ()))]
    if isinstance(value, bool) or not isinstance(value, int | Decimal | str):
        return ""
    if kinds == ["array"]:
        return f"did you mean [{value}]?"
    if isinstance(value, str):
        plain = value.replace("_", "").replace(",", "").strip()
        number = plain.replace(".", "", 1).isdigit() and plain.isascii()
        return f"did you mean {plain}?" if number and "number" in kinds else ""
    if str(schema.get("x-expected", "")).startswith("a duration"):
        return f"did you mean '{value}s'?"
    return f"put it in quotes: '{value}'" if "string" in kinds else ""
