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

from pipeline.errors import QueryError

MAX_LENGTH = 64 * 1024
"""Bytes of a question.  Binding 20,000 UNIONs took DuckDB two minutes, and nothing interrupts binding."""

QUERY_NODES = {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"}
SHOWN = {"DESCRIBE", "SUMMARY"}
TABLE_FUNCTIONS = {
    "duckdb_columns", "duckdb_functions", "duckdb_keywords", "duckdb_types", "generate_series", "histogram",
    "histogram_values", "json_each", "json_tree", "range", "repeat", "repeat_row", "summary", "unnest",
}  # fmt: skip
"""The others read files, settings or secrets, run SQL from a string (`query`), or take raw pointers
(`arrow_scan`, `pandas_scan`)."""
_FILE = re.compile(r"[/\\.*?\[:]")
_OF_ENGINE = re.compile(r"(?i)duckdb_|pragma_|sqlite_|pg_")
NOT_CALLED = {
    "combine", "create_sort_key", "current_setting", "finalize", "getenv", "getvariable", "pg_sleep", "setseed",
    "sleep_ms", "write_log",
}  # fmt: skip
"""Functions that tell of the process, change it, wait, or read states that a caller could forge."""


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
    schemas = set()
    for node in _nodes(_parsed(con, sql)):
        if fault := _fault(node):
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
    """What of this node is not for asking, in words."""
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
        return _function_fault(node.get("function") or {}, of_tables=True)
    if node.get("class") == "FUNCTION":
        return _function_fault(node, of_tables=False)
    return None


def _table_fault(node: dict[str, Any]) -> str | None:
    """A name in FROM that is a file, or one of DuckDB's own views of files, settings and databases."""
    path = (node.get("qualified_name") or {}).get("path") or []
    for name in {str(node.get("table_name") or ""), *map(str, path)}:
        if _FILE.search(name):
            return f"found {name!r} in FROM, which is no name of a view"
        if _OF_ENGINE.match(name) and name.lower() not in TABLE_FUNCTIONS:
            return f"{name} is not served"
    return None


def _function_fault(function: dict[str, Any], of_tables: bool) -> str | None:
    path = (function.get("qualified_name") or {}).get("path") or []
    names = {str(function.get("function_name") or "").lower(), *(str(part).lower() for part in path[-1:])}
    for name in sorted(names):
        refused = name in NOT_CALLED or name.startswith("__internal")
        if refused or (of_tables and name not in TABLE_FUNCTIONS):
            return f"the function {name or 'without a name'}() is not served"
    return None
