"""What a question may be: one SELECT that reads the views and computes, and nothing else.

The type of a statement is not enough.  DuckDB 2 calls `WITH a AS (COPY … TO …) SELECT 1` a SELECT, and a
published file can be overwritten with it.  So the parsed statement itself is read (DuckDB gives it as JSON), and
only what is listed here passes: what a later DuckDB adds is refused until somebody has looked at it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import duckdb
from duckdb import DuckDBPyConnection

from pipeline.door.functions import (
    CALLED,
    CONSTANTS_IN_ORDER,
    NUMBERS_IN_STEPS,
    OPERATORS,
    TABLES,
    TEXT_PATHS,
)
from pipeline.errors import QueryError

MAX_LENGTH = 64 * 1024
"""Bytes of a question.  Binding 20,000 UNIONs took DuckDB two minutes, and nothing interrupts binding."""

QUERY_NODES = {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"}
SHOWN = {"DESCRIBE", "SUMMARY"}
REFUSED_TYPES = {"variant"}
"""Functions that take anything break on it, and DuckDB's database with them."""
_FILE = re.compile(r"[/\\.*?\[:]")
_OF_ENGINE = re.compile(r"(?i)duckdb_|pragma_|sqlite_|pg_")


class Unlisted(QueryError):
    """A function that is not served; it may be one of MySQL's by another name."""


def check(con: DuckDBPyConnection, sql: str) -> frozenset[str]:
    """Passes one SELECT, and gives the schemas that it names.  Raises QueryError, and duckdb.Error about its syntax."""
    if len(sql.encode()) > MAX_LENGTH:
        raise QueryError(f"a question of {len(sql.encode()):,} bytes; expected {MAX_LENGTH:,} at most")
    statements = con.extract_statements(sql)
    kinds = [_kind(s) for s in statements]
    if kinds == ["MULTI"]:
        raise QueryError(
            "a PIVOT without its values needs a type of its own; name them: PIVOT … ON x IN ('a', 'b')"
        )
    if kinds != ["SELECT"]:
        raise QueryError(
            f"found {', '.join(kinds) or 'nothing'}; expected one SELECT: the published history is read-only"
        )
    schemas: set[str] = set()
    in_from: set[int] = set()
    for node in _nodes(_parsed(con, sql)):  # a node comes before what is in it
        if node.get("type") == "TABLE_FUNCTION":
            in_from.add(id(node.get("function")))
        if id(node) not in in_from and (fault := _fault(node)):
            raise QueryError(f"{fault}; expected one SELECT that reads the views: SHOW TABLES lists them")
        schemas.add(str(node.get("schema_name") or "").lower())
    return frozenset(schemas)


def _kind(statement: duckdb.Statement) -> str:
    try:
        return str(statement.type).rpartition(".")[2]
    except ValueError:  # a type that DuckDB has no name for in Python
        return "a statement without a name"


def _parsed(con: DuckDBPyConnection, sql: str) -> Any:
    row = con.execute("SELECT json_serialize_sql($sql::VARCHAR)", {"sql": sql}).fetchone()
    assert row is not None
    try:
        parsed = json.loads(row[0])
    except RecursionError:
        raise QueryError("the question is nested too deeply; name its parts in WITH") from None
    if parsed["error"]:
        raise QueryError(f"the statement cannot be looked through: {parsed['error_message']}")
    return parsed["statements"]


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Every object of a JSON tree; without recursion, for the tree is somebody else's."""
    left = [tree]
    while left:
        node = left.pop()
        if isinstance(node, dict):
            yield node
            left.extend(node.values())
        elif isinstance(node, list):
            left.extend(node)


def _fault(node: dict[str, Any]) -> str | None:
    """What of this node is not allowed, in words."""
    kind = str(node.get("type") or "")
    if kind.endswith("_NODE") and kind not in QUERY_NODES:
        return f"found {kind.removesuffix('_NODE').removesuffix('_QUERY')} inside the statement"
    if "info_type" in node:
        return f"found {node['info_type']} inside the statement"
    if kind == "SHOW_REF" and node.get("show_type") not in SHOWN:
        return f"found {str(node.get('show_type')).replace('_', ' ')}"
    if kind == "BASE_TABLE" and (fault := _table_fault(node)):
        return fault
    if kind == "TABLE_FUNCTION":
        return _function_fault(node.get("function") or {}, TABLES)
    if "function_name" in node:  # of a call, an operator or a window
        return _function_fault(node, OPERATORS if node.get("is_operator") else CALLED)
    if node.get("syntax_type") == "SINGLE_ARROW" and not _is_text(
        node.get("expr") or {}
    ):  # no lambda any more
        return "-> by something that is no text"
    if str(node.get("type_name")).lower() in REFUSED_TYPES:
        return f"the type {node['type_name']} is not served"
    return None


def _table_fault(node: dict[str, Any]) -> str | None:
    """A name in FROM that is a file, or one of DuckDB's own views of files, settings and databases."""
    path = (node.get("qualified_name") or {}).get("path") or []
    for name in {str(node.get("table_name") or ""), *map(str, path)}:
        if _FILE.search(name):
            return f"found {name!r} in FROM, which is no name of a view"
        if _OF_ENGINE.match(name) and name.lower() not in TABLES:
            return f"{name} is not served"
    return None


def _function_fault(function: dict[str, Any], allowed: frozenset[str]) -> str | None:
    """A function that is not listed, or one of `CONSTANTS_IN_ORDER` and `NUMBERS_IN_STEPS` with other arguments.

    Raises Unlisted.
    """
    path = (function.get("qualified_name") or {}).get("path") or []
    names = {str(function.get("function_name") or "").lower(), *(str(part).lower() for part in path[-1:])}
    refused = sorted(names - allowed)
    if refused:
        raise Unlisted(
            f"the function {refused[0] or 'without a name'}() is not served; expected one of docs/sql.md's, in one SELECT"
        )
    arguments = _arguments(function)
    method = len(path) > 1  # a.f(b) is f(a, b) where `a` is no schema
    if len(path) > 2 or (method and str(path[0]).lower() == "system"):  # past our macros of the same name
        return f"the function {'.'.join(map(str, path))}() is not served"
    ordered = (function.get("order_bys") or {}).get("orders") or function.get("arg_orders")
    if ordered and names & CONSTANTS_IN_ORDER and (method or not all(map(_is_number, arguments))):
        return f"{min(names)}() with ORDER BY, of something that is no number"
    if (
        allowed is not TABLES
        and names & NUMBERS_IN_STEPS
        and not all(map(_is_number, arguments[2 - method :]))
    ):
        return f"{min(names)}() by steps that are no numbers (FROM {min(names)}(…) takes them)"
    if names & TEXT_PATHS and not all(map(_is_text, arguments[1 - method :])):
        return f"{min(names)}() by something that is no text, such as '$[0]'"
    return None


def _arguments(function: dict[str, Any]) -> list[dict[str, Any]]:
    return [argument.get("expression") or argument for argument in function.get("arguments") or []]


def _is_text(node: dict[str, Any]) -> bool:
    """Whether it is written as a text, or as a list of texts."""
    if node.get("class") == "CONSTANT":
        return (node.get("literal") or {}).get("kind") == "STRING"
    return node.get("function_name") == "list_value" and all(map(_is_text, _arguments(node)))


def _is_number(node: dict[str, Any]) -> bool:
    """Whether it is written as a number, or as a list of numbers."""
    if node.get("class") == "CONSTANT":
        return (node.get("literal") or {}).get("kind") in {"INTEGER", "NUMERIC"}
    return node.get("function_name") == "list_value" and all(map(_is_number, _arguments(node)))
