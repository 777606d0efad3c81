"""SHOW as a SELECT over the catalog: each form with the columns and names that MySQL gives it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.door.mysql_catalog import CATALOG_SCHEMA, DATABASE
from pipeline.rollup.quoting import literal, quoted


def select(
    kind: str, *, target: str, full: bool, variables: Mapping[str, Any], user: str
) -> str | None:  # fmt: skip
    """The SELECT for SHOW `kind`; None for a form that is not served."""
    if kind in {"COLUMNS", "FIELDS"}:
        return columns(target, full)
    if kind in {"CREATE TABLE", "CREATE VIEW"}:
        return _create(target)
    if kind in {"VARIABLES", "GLOBAL VARIABLES", "SESSION VARIABLES"}:
        return _pairs(variables)
    if kind == "TABLES":
        kinds = ', table_type AS "Table_type"' if full else ""
        return f'SELECT table_name AS "Tables_in_{DATABASE}"{kinds} FROM {CATALOG_SCHEMA}.tables ORDER BY 1'
    if kind == "GRANTS":
        words = literal(f"GRANT SELECT ON {DATABASE}.* TO {user}")
        return f"SELECT {words} AS {quoted(f'Grants for {user}')}"
    if kind in _EMPTY:
        return "SELECT " + ", ".join(f"NULL::VARCHAR AS {quoted(c)}" for c in _EMPTY[kind]) + " WHERE false"
    return _SELECTS.get(kind)


def filtered(shown: str, like: str, condition: str | None) -> str:
    """With LIKE on the first column, without regard to case, or with a condition on any."""
    if like:
        first = shown.split('"', 2)[1]  # these texts write no other name in double quotes before it
        return f"SELECT * FROM ({shown}) AS shown WHERE {quoted(first)} ILIKE {literal(like)} ESCAPE '\\'"
    return f"SELECT * FROM ({shown}) AS shown WHERE {condition}" if condition else shown


def columns(view: str, full: bool) -> str:
    """SHOW [FULL] COLUMNS and DESCRIBE; the comment is shown by both, for DESCRIBE is what people type."""
    more = 'collation_name AS "Collation", privileges AS "Privileges", ' if full else ""
    return (
        f'SELECT column_name AS "Field", column_type AS "Type", is_nullable AS "Null", column_key AS "Key", '
        f'column_default AS "Default", extra AS "Extra", {more}column_comment AS "Comment" '
        f"FROM {CATALOG_SCHEMA}.columns WHERE lower(table_name) = lower({literal(view)}) ORDER BY ordinal_position"
    )


def _create(view: str) -> str:
    names = "string_agg('`' || column_name || '`', ', ' ORDER BY ordinal_position)"
    return (
        'SELECT any_value(table_name) AS "View", '
        "'CREATE ALGORITHM=UNDEFINED VIEW `' || any_value(table_name) || '` AS SELECT ' || "
        f"{names} || ' FROM published' AS \"Create View\", 'utf8mb4' AS character_set_client, "
        f"'utf8mb4_bin' AS collation_connection FROM {CATALOG_SCHEMA}.columns "
        f"WHERE lower(table_name) = lower({literal(view)}) HAVING count(*) > 0"
    )


def _pairs(variables: Mapping[str, Any]) -> str:
    rows = ", ".join(
        f"({literal(name)}, {'NULL' if value is None else literal(_shown(value))})"
        for name, value in sorted(variables.items())
    )
    return f'SELECT "Variable_name", "Value" FROM (VALUES {rows}) AS pairs("Variable_name", "Value")'


def _shown(value: Any) -> str:
    return ("ON" if value else "OFF") if isinstance(value, bool) else str(value)


_ROUTINES = ("Db", "Name", "Type", "Definer", "Modified", "Created", "Security_type", "Comment")
_EMPTY: Mapping[str, tuple[str, ...]] = {
    "STATUS": ("Variable_name", "Value"),
    "WARNINGS": ("Level", "Code", "Message"),
    "ERRORS": ("Level", "Code", "Message"),
    "INDEX": (
        "Table", "Non_unique", "Key_name", "Seq_in_index", "Column_name", "Collation", "Cardinality", "Sub_part",
        "Packed", "Null", "Index_type", "Comment", "Index_comment", "Visible", "Expression",
    ),
    "TRIGGERS": ("Trigger", "Event", "Table", "Statement", "Timing", "Created", "sql_mode", "Definer"),
    "EVENTS": ("Db", "Name", "Definer", "Time zone", "Type", "Status"),
    "FUNCTION STATUS": _ROUTINES,
    "PROCEDURE STATUS": _ROUTINES,
    "PLUGINS": ("Name", "Status", "Type", "Library", "License"),
    "PRIVILEGES": ("Privilege", "Context", "Comment"),
    "PROCESSLIST": ("Id", "User", "Host", "db", "Command", "Time", "State", "Info"),
}  # fmt: skip
COLLATION = (
    'SELECT collation_name AS "Collation", character_set_name AS "Charset", id AS "Id", is_default AS "Default", '
    f'is_compiled AS "Compiled", sortlen AS "Sortlen" FROM {CATALOG_SCHEMA}.collations'
)
_SELECTS: Mapping[str, str] = {
    "DATABASES": f'SELECT schema_name AS "Database" FROM {CATALOG_SCHEMA}.schemata ORDER BY 1',
    "TABLE STATUS": f"""SELECT table_name AS "Name", engine AS "Engine", version AS "Version",
        row_format AS "Row_format", table_rows AS "Rows", table_collation AS "Collation",
        table_comment AS "Comment" FROM {CATALOG_SCHEMA}.tables ORDER BY 1""",
    "ENGINES": f"""SELECT engine AS "Engine", support AS "Support", comment AS "Comment",
        transactions AS "Transactions", xa AS "XA", savepoints AS "Savepoints" FROM {CATALOG_SCHEMA}.engines""",
    "COLLATION": COLLATION,
    "CHARACTER SET": f"""SELECT character_set_name AS "Charset", description AS "Description",
        default_collate_name AS "Default collation", maxlen AS "Maxlen" FROM {CATALOG_SCHEMA}.character_sets""",
}
