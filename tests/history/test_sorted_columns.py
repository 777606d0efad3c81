"""Segments sorted as columns become the rows that SQL makes of them, and in an order that readers and zstd can use."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.catalog import Catalog, EventType
from pipeline.catalog.arrow_types import ARROW_TYPES
from pipeline.history import seal, sorted_columns
from pipeline.history.sorted_columns import columns_writer
from pipeline.ledger.stamped import stamped_rows
from pipeline.stream.segments import write_segment
from pipeline.views.published import raw_table

NOON = datetime(2026, 1, 1, 12)
TEXTS = st.sampled_from([None, "c1", "c2", "GPU-1", "São Paulo", 'a"b', ""])
VALUES = {
    "VARCHAR": TEXTS,
    "DOUBLE": st.none() | st.floats(0, 1),
    "BIGINT": st.none() | st.integers(0, 2**40),
    "INTEGER": st.none() | st.integers(0, 86_400),
    "TIMESTAMP": st.integers(0, 3_599_999_999).map(lambda n: NOON + timedelta(microseconds=n)),
    "DOUBLE[]": st.none() | st.lists(st.floats(0, 1e6), max_size=3),
}
STAMPS = st.integers(0, 7200).map(lambda seconds: NOON + timedelta(seconds=seconds))


def event_types(catalog: Catalog) -> Iterator[EventType]:
    return (event for event in catalog.types if not event.retained)


@st.composite
def segments(draw: st.DrawFn, event: EventType) -> list[tuple[pa.Table, datetime]]:
    """Rows as the stream writes them, dimensions in dictionaries, and when each segment was taken in."""
    columns = [(name, kind) for name, kind in raw_table(event).columns if name != "known_from"]
    repeated = {d.name for d in event.dimensions}
    found = []
    for count in draw(st.lists(st.integers(1, 12), min_size=1, max_size=3)):
        made = {
            n: pa.array(draw(st.lists(VALUES[k], min_size=count, max_size=count)), ARROW_TYPES[k])
            for n, k in columns
        }
        made |= {name: made[name].dictionary_encode() for name in repeated}
        found.append((pa.table(made), draw(STAMPS)))
    return found


def content(path: Path) -> list[Any]:
    return duckdb.sql(f"FROM '{path}' ORDER BY ALL").fetchall()


@pytest.mark.parametrize("view", ["gpu", "queue", "energy"])
@pytest.mark.parametrize("few", [2, 10_000])
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(draw=st.data())
def test_columns_and_sql_write_the_same_rows(
    tmp_path: Path,
    catalog: Catalog,
    monkeypatch: pytest.MonkeyPatch,
    view: str,
    few: int,
    draw: st.DataObject,
) -> None:
    monkeypatch.setattr(sorted_columns, "FEW", few)
    event = catalog.by_view(view)
    table = raw_table(event)
    stamped = []
    for rows, at in draw.draw(segments(event)):
        found = write_segment(tmp_path, event, view, event.topic, rows, rows["time"])
        stamped.append((tmp_path / found.name, at))
    write = columns_writer(stamped, event, table)
    assert write is not None
    write(tmp_path / "columns.parquet")
    con = duckdb.connect()
    seal.write_sorted(con, tmp_path / "sql.parquet", event.topic, table, f"({stamped_rows(stamped, table)})")
    assert content(tmp_path / "columns.parquet") == content(tmp_path / "sql.parquet")
    described = [
        duckdb.sql(f"DESCRIBE FROM '{tmp_path / name}.parquet'").fetchall() for name in ("columns", "sql")
    ]
    assert described[0] == described[1]
    in_order(tmp_path / "columns.parquet", event, few)


def in_order(path: Path, event: EventType, few: int) -> None:
    """Few dimensions lie in their order, of many equal ones side by side, and within them the rows of one entity."""
    rows = duckdb.sql(f"FROM '{path}'").fetchall()
    names = [name for name, *_ in duckdb.sql(f"DESCRIBE FROM '{path}'").fetchall()]
    dimensions = [names.index(d.name) for d in event.dimensions]
    key = [tuple((row[n] is None, row[n]) for n in dimensions) for row in rows]
    if few > len(rows):
        assert key == sorted(key)
    entity = [names.index(event.entity.name)] if event.entity else []
    runs = [one for one, _ in groupby(tuple(row[n] for n in [*dimensions, *entity]) for row in rows)]
    assert len(runs) == len(set(runs))


def test_a_segment_of_an_earlier_version_is_left_to_sql(tmp_path: Path, catalog: Catalog) -> None:
    event = catalog.by_view("gpu")
    con = duckdb.connect()
    names = ", ".join(f'NULL::{kind} AS "{name}"' for name, kind in raw_table(event).columns if name != "xid")
    con.execute(f"COPY (SELECT {names}) TO '{tmp_path / 'old.parquet'}' (FORMAT parquet)")
    assert columns_writer([(tmp_path / "old.parquet", NOON)], event, raw_table(event)) is None
    assert columns_writer([(tmp_path / "gone.parquet", NOON)], event, raw_table(event)) is None
    (tmp_path / "torn.parquet").write_bytes(b"PAR1" + bytes(20))
    assert columns_writer([(tmp_path / "torn.parquet", NOON)], event, raw_table(event)) is None


def test_what_63_bits_cannot_number_is_left_to_sql(tmp_path: Path, catalog: Catalog) -> None:
    event = catalog.by_view("gpu")
    columns = {n: pa.array([f"{n}-{i}" for i in range(600)] if k == "VARCHAR" else [None] * 600, ARROW_TYPES[k])
               for n, k in raw_table(event).columns if n != "known_from"}  # fmt: skip
    columns["time"] = pa.array([NOON] * 600, ARROW_TYPES["TIMESTAMP"])
    pq.write_table(pa.table(columns), tmp_path / "wide.parquet")
    assert columns_writer([(tmp_path / "wide.parquet", NOON)], event, raw_table(event)) is None
