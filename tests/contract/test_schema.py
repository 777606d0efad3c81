"""`schemas/contract.json` is what editors read: valid, explained, and in step with the loader."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from jsonschema import Draft202012Validator

from pipeline.catalog import schema_directory
from pipeline.clauses import KINDS
from pipeline.contract.document import read

SCHEMA: dict[str, Any] = json.loads((schema_directory() / "contract.json").read_text("utf-8"))


def objects(schema: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(schema, dict):
        if schema.get("type") == "object":
            yield path, schema
        for key, value in schema.items():
            yield from objects(value, f"{path}/{key}")
    elif isinstance(schema, list):
        for i, value in enumerate(schema):
            yield from objects(value, f"{path}/{i}")


def test_the_schema_is_valid_2020_12() -> None:
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    Draft202012Validator.check_schema(SCHEMA)


def test_no_mapping_accepts_a_field_that_nothing_reads() -> None:
    found = list(objects(SCHEMA))
    assert len(found) > 20
    for path, schema in found:
        assert "additionalProperties" in schema, path
        assert schema["additionalProperties"] is not True, path


def test_every_field_of_a_clause_explains_itself() -> None:
    for kind in (each.name for each in KINDS):
        for name, spec in SCHEMA["$defs"][kind]["properties"].items():
            resolved = {**SCHEMA["$defs"].get(spec.get("$ref", "").rpartition("/")[2], {}), **spec}
            assert resolved.get("description"), (kind, name)


def test_every_place_says_in_words_what_it_expects() -> None:
    for path, schema in objects(SCHEMA):
        assert schema.get("x-expected"), path


def test_every_reference_leads_to_a_definition_and_every_definition_is_used() -> None:
    text = json.dumps(SCHEMA)
    used = {name for name in SCHEMA["$defs"] if f'"#/$defs/{name}"' in text}
    assert used == set(SCHEMA["$defs"])
    assert text.count('"$ref"') == sum(text.count(f'"#/$defs/{name}"') for name in used)


def test_the_example_is_valid_for_an_editor_that_knows_only_the_schema() -> None:
    Draft202012Validator(SCHEMA).validate(read(schema_directory() / "example-contract.yaml").value)
