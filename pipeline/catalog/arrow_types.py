"""The Arrow types of the SQL types that columns of events, and of what is published of them, have."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from pipeline.catalog.schema import MONEY, MONEY_DECIMALS

ARROW_TYPES: dict[str, pa.DataType] = {
    "VARCHAR": pa.string(),
    "DOUBLE": pa.float64(),
    "INTEGER": pa.int32(),
    "BIGINT": pa.int64(),
    "TIMESTAMP": pa.timestamp("us"),
    "DOUBLE[]": pa.list_(pa.float64()),
    MONEY: pa.decimal128(38, MONEY_DECIMALS),
}


def arrow_schema(columns: Iterable[tuple[str, str]]) -> pa.Schema:
    """The Arrow schema of columns that are given as (name, SQL type)."""
    return pa.schema([(name, ARROW_TYPES[kind]) for name, kind in columns])
