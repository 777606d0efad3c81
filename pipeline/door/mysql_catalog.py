"""What MySQL's clients look for and DuckDB has not: functions as macros, and the catalog as MySQL shows it.

All of it is text for the database file of views.  The catalog is in a schema of its own, `mysql_catalog`;
questions to `information_schema` are pointed there.  It shows whatever views and comments are in the file, so a new
view needs no change here.
"""

from __future__ import annotations

DATABASE = "gigawatch"
"""The one database, by which `gigawatch.gpu` is the view too: it is the name of DuckDB's file."""
CATALOG_SCHEMA = "mysql_catalog"
VERSION = "8.0.36-gigawatch"
"""What @@version says.  Clients read the number in front and choose their SQL by it."""

MACROS = (
    # DATETIME has whole seconds in MySQL, and so has its UNIX_TIMESTAMP.
    "unix_timestamp() AS epoch_ms(current_timestamp) // 1000, (x) AS epoch_us(x::TIMESTAMP) // 1000000",
    "from_unixtime(x) AS make_timestamp((x::DOUBLE * 1000000)::BIGINT)",
    # DIV drops the fraction also of numbers that have one; DuckDB's // divides those exactly.
    "mysql_div(a, b) AS (a - a % b) // b",
    "curdate() AS current_date",
    "curtime() AS current_localtime()",
    "sysdate() AS current_timestamp::TIMESTAMP",
    "utc_timestamp() AS current_timestamp::TIMESTAMP, (p) AS current_timestamp::TIMESTAMP",
    "utc_date() AS current_date",
    "locate(part, whole) AS instr(whole, part)",
    "ucase(x) AS upper(x)",
    "lcase(x) AS lower(x)",
    "rand() AS random()",
    "json_unquote(x) AS x ->> '$'",
    # Of a text they say that it is no JSON; of JSON that is none, such as a DECIMAL's `.1`, they end the database.
    *(
        f"{name}(j) AS system.main.{name}(j::VARCHAR), (j, p) AS system.main.{name}(j::VARCHAR, p::VARCHAR)"
        for name in ("json_array_length", "json_keys", "json_type")
    ),
    *(
        f"{name}(a, b) AS system.main.{name}(a::VARCHAR, b::VARCHAR)"
        for name in ("json_contains", "json_merge_patch")
    ),
    "substring_index(x, d, n) AS CASE WHEN n < 0 THEN array_to_string(string_split(x, d)[n:], d) "
    "ELSE array_to_string(string_split(x, d)[:n], d) END",
)

_MYSQL_TYPE = """CASE
    WHEN data_type = 'BOOLEAN' THEN 'tinyint(1)'
    WHEN data_type = 'TINYINT' THEN 'tinyint'
    WHEN data_type = 'SMALLINT' THEN 'smallint'
    WHEN data_type = 'INTEGER' THEN 'int'
    WHEN data_type = 'BIGINT' THEN 'bigint'
    WHEN data_type IN ('UTINYINT', 'USMALLINT', 'UINTEGER', 'UBIGINT')
        THEN CASE data_type WHEN 'UTINYINT' THEN 'tinyint' WHEN 'USMALLINT' THEN 'smallint'
             WHEN 'UINTEGER' THEN 'int' ELSE 'bigint' END || ' unsigned'
    WHEN data_type IN ('HUGEINT', 'UHUGEINT') THEN 'decimal(39,0)'
    WHEN data_type LIKE 'DECIMAL%' THEN lower(data_type)
    WHEN data_type = 'FLOAT' THEN 'float'
    WHEN data_type = 'DOUBLE' THEN 'double'
    WHEN data_type LIKE 'TIMESTAMP%' THEN 'datetime(6)'
    WHEN data_type = 'DATE' THEN 'date'
    WHEN data_type = 'TIME' THEN 'time(6)'
    WHEN data_type = 'BLOB' THEN 'longblob'
    WHEN data_type = 'JSON' THEN 'json'
    ELSE 'longtext' END"""

_OURS = f"(database_name = current_database() AND NOT internal AND schema_name <> '{CATALOG_SCHEMA}')"
_UTF8 = "'utf8mb4'"
_COLLATION = "'utf8mb4_bin'"


def _empty(*columns: str) -> str:
    return "SELECT " + ", ".join(f"NULL::VARCHAR AS {c}" for c in columns) + " WHERE false"


CATALOG_VIEWS = {
    "schemata": f"""SELECT 'def' AS catalog_name, unnest(['{DATABASE}', 'information_schema']) AS schema_name,
        {_UTF8} AS default_character_set_name, {_COLLATION} AS default_collation_name, NULL::VARCHAR AS sql_path,
        'NO' AS default_encryption""",
    "tables": f"""SELECT 'def' AS table_catalog, '{DATABASE}' AS table_schema, view_name AS table_name,
        'VIEW' AS table_type, NULL::VARCHAR AS engine, NULL::BIGINT AS version, NULL::VARCHAR AS row_format,
        NULL::BIGINT AS table_rows, NULL::BIGINT AS avg_row_length, NULL::BIGINT AS data_length,
        NULL::BIGINT AS max_data_length, NULL::BIGINT AS index_length, NULL::BIGINT AS data_free,
        NULL::BIGINT AS auto_increment, NULL::TIMESTAMP AS create_time, NULL::TIMESTAMP AS update_time,
        NULL::TIMESTAMP AS check_time, {_COLLATION} AS table_collation, NULL::BIGINT AS checksum,
        NULL::VARCHAR AS create_options, coalesce(comment, '') AS table_comment
        FROM duckdb_views() WHERE {_OURS}""",
    "columns": f"""SELECT 'def' AS table_catalog, '{DATABASE}' AS table_schema, table_name, column_name,
        column_index AS ordinal_position, NULL::VARCHAR AS column_default, 'YES' AS is_nullable,
        regexp_replace(column_type, '[( ].*', '') AS data_type,
        CASE WHEN column_type = 'longtext' THEN 4294967295 END AS character_maximum_length,
        CASE WHEN column_type = 'longtext' THEN 4294967295 END AS character_octet_length,
        numeric_precision, numeric_scale,
        CASE WHEN column_type IN ('datetime(6)', 'time(6)') THEN 6 END AS datetime_precision,
        CASE WHEN column_type = 'longtext' THEN {_UTF8} END AS character_set_name,
        CASE WHEN column_type = 'longtext' THEN {_COLLATION} END AS collation_name,
        column_type, '' AS column_key, '' AS extra, 'select' AS privileges, coalesce(comment, '') AS column_comment,
        '' AS generation_expression, NULL::BIGINT AS srs_id, data_type AS duckdb_type
        FROM (SELECT *, {_MYSQL_TYPE} AS column_type FROM duckdb_columns() WHERE {_OURS})""",
    "views": f"""SELECT 'def' AS table_catalog, '{DATABASE}' AS table_schema, view_name AS table_name,
        '' AS view_definition, 'NONE' AS check_option, 'NO' AS is_updatable, 'root@localhost' AS definer,
        'DEFINER' AS security_type, {_UTF8} AS character_set_client, {_COLLATION} AS collation_connection
        FROM duckdb_views() WHERE {_OURS}""",
    "character_sets": f"""SELECT {_UTF8} AS character_set_name, {_COLLATION} AS default_collate_name,
        'UTF-8 Unicode' AS description, 4 AS maxlen""",
    "collations": f"""SELECT {_COLLATION} AS collation_name, {_UTF8} AS character_set_name, 46 AS id,
        'Yes' AS is_default, 'Yes' AS is_compiled, 1 AS sortlen, 'PAD SPACE' AS pad_attribute""",
    "engines": """SELECT 'DuckDB' AS engine, 'DEFAULT' AS support, 'Published Parquet, read-only' AS comment,
        'NO' AS transactions, 'NO' AS xa, 'NO' AS savepoints""",
    "statistics": _empty(
        "table_catalog", "table_schema", "table_name", "non_unique", "index_schema", "index_name", "seq_in_index",
        "column_name", "collation", "cardinality", "sub_part", "packed", "nullable", "index_type", "comment",
        "index_comment", "is_visible", "expression",
    ),
    "key_column_usage": _empty(
        "constraint_catalog", "constraint_schema", "constraint_name", "table_catalog", "table_schema", "table_name",
        "column_name", "ordinal_position", "position_in_unique_constraint", "referenced_table_schema",
        "referenced_table_name", "referenced_column_name",
    ),
    "table_constraints": _empty(
        "constraint_catalog", "constraint_schema", "constraint_name", "table_schema", "table_name",
        "constraint_type", "enforced",
    ),
    "referential_constraints": _empty(
        "constraint_catalog", "constraint_schema", "constraint_name", "unique_constraint_catalog",
        "unique_constraint_schema", "unique_constraint_name", "match_option", "update_rule", "delete_rule",
        "table_name", "referenced_table_name",
    ),
    "check_constraints": _empty("constraint_catalog", "constraint_schema", "constraint_name", "check_clause"),
    "routines": _empty(
        "specific_name", "routine_catalog", "routine_schema", "routine_name", "routine_type", "data_type",
        "routine_definition", "routine_comment", "definer", "created", "last_altered", "security_type",
        "character_set_client", "collation_connection", "database_collation",
    ),
    "parameters": _empty(
        "specific_catalog", "specific_schema", "specific_name", "ordinal_position", "parameter_mode",
        "parameter_name", "data_type", "dtd_identifier", "routine_type",
    ),
    "triggers": _empty(
        "trigger_catalog", "trigger_schema", "trigger_name", "event_manipulation", "event_object_schema",
        "event_object_table", "action_statement", "action_timing", "created", "sql_mode", "definer",
    ),
    "events": _empty("event_catalog", "event_schema", "event_name", "status", "event_comment"),
    "partitions": _empty("table_catalog", "table_schema", "table_name", "partition_name", "partition_method"),
    "plugins": _empty("plugin_name", "plugin_version", "plugin_status", "plugin_type"),
    "processlist": _empty("id", "user", "host", "db", "command", "time", "state", "info"),
    "schema_privileges": _empty("grantee", "table_catalog", "table_schema", "privilege_type", "is_grantable"),
    "table_privileges": _empty(
        "grantee", "table_catalog", "table_schema", "table_name", "privilege_type", "is_grantable"
    ),
    "user_privileges": _empty("grantee", "table_catalog", "privilege_type", "is_grantable"),
}  # fmt: skip


def names_sql() -> str:
    """Macros and catalog as statements, for a file that holds the views already."""
    macros = [f"CREATE OR REPLACE MACRO {text}" for text in MACROS]
    views = [f"CREATE VIEW {CATALOG_SCHEMA}.{name} AS {select}" for name, select in CATALOG_VIEWS.items()]
    return ";\n".join([*macros, f"CREATE SCHEMA {CATALOG_SCHEMA}", *views]) + ";"
