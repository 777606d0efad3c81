"""Odd arguments for every function that the door lets through; a program, for what breaks may end the process.

    python function_hunt.py SEED EACH     # prints what has ended a database, one JSON list a line, then "end"

Each statement is named on the standard error before it runs: the last one there is what ended the process.
"""

from __future__ import annotations

import json
import random
import sys
import threading

import duckdb

from pipeline.door import query_check
from pipeline.door.functions import AGGREGATES, OPERATORS, SCALARS, TABLES, WINDOWS
from pipeline.door.mysql_catalog import MACROS
from pipeline.errors import QueryError

TYPES = [
    "BOOLEAN", "TINYINT", "BIGINT", "HUGEINT", "UBIGINT", "FLOAT", "DOUBLE", "DECIMAL(38,38)", "DECIMAL(4,2)",
    "VARCHAR", "BLOB", "BIT", "DATE", "TIME", "TIMESTAMP", "TIMESTAMP_NS", "TIMESTAMPTZ", "INTERVAL", "UUID", "JSON",
    "INT[]", "VARCHAR[]", "INT[3]", "STRUCT(a INT)", "MAP(VARCHAR, INT)", "ENUM('a', 'b')", "JSON[]",
]  # fmt: skip
COMPARISONS = [
    "=",
    "<>",
    "<",
    ">=",
    "IS DISTINCT FROM",
    "IS NOT DISTINCT FROM",
    "LIKE",
    "SIMILAR TO",
    "IN",
    "GLOB",
]
VALUES = {
    "VARCHAR": ["''", "'x'", "'%s %d'", "'{:>99}'", "'%Y-%m-%d'", "'day'", "'$.a'", "'$[*]'", "repeat('é', 300)",
                "'(a*)*'", "'['", "'g'", "'UTC'", "'DESC'", "i::VARCHAR", "chr(0)", "'123'", "'-1e400'", "NULL"],
    "BIGINT": ["0", "1", "-1", "64", "2147483648", "9223372036854775807", "(-9223372036854775807 - 1)", "i", "NULL"],
    "DOUBLE": ["-0.0::DOUBLE", "'nan'::DOUBLE", "'-inf'::DOUBLE", "1e308::DOUBLE", "5e-324::DOUBLE", "i::DOUBLE", "NULL"],
    "BOOLEAN": ["true", "false", "NULL"],
    "DATE": ["DATE '2026-01-31'", "'infinity'::DATE", "DATE '5881580-07-10'", "DATE '5877642-06-25 (BC)'", "NULL"],
    "TIMESTAMP": ["TIMESTAMP '2026-01-31 12:00:00.123456'", "'-infinity'::TIMESTAMP",
                  "TIMESTAMP '290309-12-22 (BC) 00:00:00'", "TIMESTAMP '294247-01-10 04:00:54.775806'", "NULL"],
    "TIMESTAMP WITH TIME ZONE": ["now()", "'infinity'::TIMESTAMPTZ", "TIMESTAMPTZ '290309-12-22 (BC) 00:00:00+00'", "NULL"],
    "INTERVAL": ["INTERVAL 1 DAY", "INTERVAL 0 DAY", "INTERVAL '-1' MONTH", "to_months(2147483647)",
                 "to_microseconds(9223372036854775807)", "NULL"],
    "TIME": ["TIME '23:59:59.999999'", "TIME '24:00:00'", "NULL"], "UUID": ["uuid()", "NULL"],
    "BLOB": ["''::BLOB", "'\\xFF\\x00'::BLOB", "NULL"], "BIT": ["'101'::BIT", "repeat('1', 200)::BIT", "NULL"],
    "JSON": ["'{\"a\": [1, {\"b\": null}]}'::JSON", "'null'::JSON", "'1e999'::JSON", "0.1::DECIMAL(18, 18)::JSON", "NULL"],
    "HUGEINT": ["170141183460469231731687303715884105727::HUGEINT", "0::HUGEINT", "NULL"],
    "DECIMAL": ["99999999999999999999999999999999999999::DECIMAL(38, 0)", "0.1::DECIMAL(38, 38)", "-9.9::DECIMAL(2, 1)"],
    "LIST": ["[]", "[NULL]", "[1, 2, NULL]", "['a', 'b']", "[[1], []]", "[0.5, 'nan'::DOUBLE]", "[1, 2, 3]::INT[3]",
             "[1.0, NULL]::DOUBLE[2]", "NULL::INT[]", "[i]", "range(5000)", "[{'a': 1}]", "[-1, 0.5]", "[2.0]"],
    "STRUCT": ["{'a': 1, 'b': 'x'}", "row(1, 2)", "{'a': NULL}"], "MAP": ["MAP {}", "MAP {'a': 1}", "MAP {1: [1]}"],
    "LAMBDA": ["(lambda x: x)", "(lambda x, y: x)", "(lambda x: NULL)", "(lambda x, y: x + y)", "(lambda x: i)"],
    "UNION": ["union_value(k := 1)"], "ENUM": ["'a'::ENUM('a', 'b')"],
}  # fmt: skip
ALL = [value for values in VALUES.values() for value in values]
LONG = 2.0


def of_type(kind: str, rng: random.Random) -> str:
    """Mostly a value of that type, sometimes any."""
    kind = kind.upper()
    if rng.random() < 0.12:
        return rng.choice(ALL)
    if "->" in kind or "LAMBDA" in kind:
        return rng.choice(VALUES["LAMBDA"])
    if kind.endswith("]"):
        return rng.choice(VALUES["LIST"])
    if kind in {"INTEGER", "SMALLINT", "UINTEGER"}:
        return rng.choice(VALUES["BIGINT"])
    named = next((name for name in VALUES if kind == name), None) or next(
        (name for name in VALUES if kind.startswith(name)), None
    )
    return rng.choice(VALUES[named] if named else VALUES["LIST"] if rng.random() < 0.4 else ALL)


def arguments(
    name: str, signatures: dict[str, list[tuple[list[str], str | None]]], rng: random.Random
) -> list[str]:
    if name in signatures and rng.random() < 0.9:
        kinds, more = rng.choice(signatures[name])
        kinds = kinds + [more] * rng.randrange(3) if more else kinds
        return [of_type(kind or "ANY", rng) for kind in kinds]
    return [rng.choice(ALL) for _ in range(rng.randrange(5))]


def call(kind: str, name: str, given: list[str], rng: random.Random) -> str:
    rows = rng.choice(["range(5) t(i)", "range(1) t(i)", "range(2100) t(i)", "range(0) t(i)"])
    frame = rng.choice([
        "ROWS BETWEEN 1 PRECEDING AND CURRENT ROW", "RANGE BETWEEN 1 PRECEDING AND 1 FOLLOWING",
        "GROUPS BETWEEN 1 PRECEDING AND CURRENT ROW EXCLUDE TIES", "ROWS BETWEEN i PRECEDING AND i FOLLOWING",
    ])  # fmt: skip
    args = ", ".join(given)
    if kind == "operator":
        a, b = rng.choice(ALL), rng.choice(ALL)
        text = f"{name} ({a})" if rng.random() < 0.1 else f"({a}) {name} ({b})"
        return rng.choice(
            [f"SELECT {text} FROM {rows}", f"SELECT i FROM {rows} WHERE {text} ORDER BY {text}"]
        )
    if kind == "cast":
        return f"SELECT {rng.choice(['CAST', 'TRY_CAST'])}({rng.choice(ALL)} AS {name}) FROM {rows}"
    if kind == "table":
        return f'SELECT * FROM range(2) t(i), "{name}"({args}) LIMIT 10'
    if kind == "window":
        return f'SELECT "{name}"({args}{rng.choice(["", " IGNORE NULLS"])}) OVER (ORDER BY i {frame}) FROM {rows}'
    if kind == "aggregate":
        distinct, order = (
            (rng.choice(["", "", "DISTINCT "]), rng.choice(["", "", " ORDER BY i"])) if given else ("", "")
        )
        over = rng.choice(["", " FILTER (WHERE i > 1)", " OVER (ORDER BY i)", f" OVER (ORDER BY i {frame})"])
        return f'SELECT "{name}"({distinct}{args}{order}){over} FROM {rows}'
    text = f'"{name}"({args})'
    return rng.choice([
        f"SELECT {text} FROM {rows}", f"SELECT i FROM {rows} WHERE {text} IS NOT NULL ORDER BY {text}",
        f"SELECT max({text}) FROM {rows}", f"SELECT {text}, count(*) FROM {rows} GROUP BY ALL",
    ])  # fmt: skip


def opened() -> duckdb.DuckDBPyConnection:
    con = duckdb.connect(config={"memory_limit": "300MB", "threads": 1})
    for macro in MACROS:
        con.execute(f"CREATE MACRO {macro}")
    con.execute(
        "SET enable_progress_bar = false; SET enable_external_access = false; SET lock_configuration = true"
    )
    return con


def hunt(seed: int, each: int) -> None:
    con, broken = opened(), 0
    signatures: dict[str, list[tuple[list[str], str | None]]] = {}
    known = "SELECT function_name, parameter_types, varargs FROM duckdb_functions() ORDER BY ALL"
    for name, kinds, more in con.execute(known).fetchall():
        signatures.setdefault(name.lower(), []).append((list(kinds or []), more))
    for kind, names in {
        "scalar": SCALARS, "aggregate": AGGREGATES, "window": WINDOWS, "table": TABLES, "cast": TYPES,
        "operator": [*OPERATORS, *COMPARISONS],
    }.items():  # fmt: skip
        for name in sorted(names):
            rng = random.Random(f"{seed} {kind} {name}")
            for _ in range(each):
                sql = call(kind, name, arguments(name, signatures, rng), rng)
                print(sql, file=sys.stderr, flush=True)
                if fault := ended(con, sql):
                    print(json.dumps([kind, name, sql, fault]), flush=True)
                    con, broken = opened(), broken + 1
    print("end", flush=True)


def ended(con: duckdb.DuckDBPyConnection, sql: str) -> str | None:
    """What has ended the database, if anything has; what the door's check refuses is not tried."""
    late = threading.Timer(LONG, con.interrupt)
    late.start()
    try:
        query_check.check(con, sql)
        con.execute(sql).fetchmany(100)
    except (duckdb.FatalException, duckdb.InternalException) as error:
        return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    except (duckdb.Error, QueryError, OverflowError, ValueError):
        return None
    finally:
        late.cancel()
    return None


if __name__ == "__main__":
    hunt(int(sys.argv[1]), int(sys.argv[2]))
