"""Arrow tables under a name, for as long as a connection asks about them, and answers as Arrow tables."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import duckdb
import pyarrow as pa

warnings.filterwarnings("ignore", "Arrow output on a DB-API result makes an extra copy", UserWarning)

MANY = 50_000
"""Beyond so many rows of a few columns `executed` is told `much`."""


@contextlib.contextmanager
def registered(con: duckdb.DuckDBPyConnection, name: str, table: pa.Table) -> Iterator[None]:
    con.register(name, table)
    try:
        yield
    finally:
        con.unregister(name)


def executed(
    con: duckdb.DuckDBPyConnection,
    sql: str,
    params: Mapping[str, object] | None = None,
    *,
    much: bool = False,
) -> pa.Table:
    """The rows of `sql`; `much`: whether they are tens of megabytes.

    A relation (`con.sql`) is parsed and bound twice, which takes longer than to copy a few thousand rows once more.
    """
    if much:
        return con.sql(sql, params=dict(params or {})).to_arrow_table()
    found: Any = con.execute(sql, dict(params)) if params else con.execute(sql)
    table: pa.Table = found.to_arrow_table()
    return table
