"""Windows, histograms, bit sets and mergeable aggregates, each asked of the engine."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.catalog import load
from pipeline.rollup import aggregate
from pipeline.rollup.grid import WIDTHS, floor_sql, grid_floor
from pipeline.rollup.histogram import ZERO_BUCKET, bucket_sql, upper_bound_sql

GPU = load().by_view("gpu")
HERE = {"suppress_health_check": list(HealthCheck), "max_examples": 40}


@pytest.fixture(scope="module")
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        yield con


def one(con: duckdb.DuckDBPyConnection, sql: str, *values: Any) -> Any:
    (row,) = con.execute(sql, list(values)).fetchall()
    return row[0] if len(row) == 1 else row


def test_windows_nest_and_lie_on_the_grid() -> None:
    for narrow, wide in itertools.pairwise(WIDTHS):
        assert wide.seconds % narrow.seconds == 0
    assert all(w.seconds % 10 == 0 and w.per_file % w.seconds == 0 for w in WIDTHS)


@settings(**HERE)  # type: ignore[arg-type]
@given(time=st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)), width=st.sampled_from(WIDTHS))
def test_a_window_is_half_open_and_holds_its_time(
    con: duckdb.DuckDBPyConnection, time: datetime, width: Any
) -> None:
    start = one(con, f"SELECT {floor_sql('t', width.seconds)} FROM (SELECT ?::TIMESTAMP AS t)", time)
    assert start <= time < start + timedelta(seconds=width.seconds)
    assert (start - datetime(1970, 1, 1)) % timedelta(seconds=width.seconds) == timedelta()


@given(st.floats(-1e9, 4e9))
def test_the_grid_is_reached_from_above(t: float) -> None:
    assert grid_floor(t) % 10 == 0 and grid_floor(t) <= t < grid_floor(t) + 10


@settings(**HERE)  # type: ignore[arg-type]
@given(value=st.floats(0, 31536000) | st.integers(-320, 800).map(lambda b: 2.0 ** (b / 32)))
def test_a_value_lies_in_its_bucket(con: duckdb.DuckDBPyConnection, value: float) -> None:
    bucket = one(con, f"SELECT {bucket_sql('v')} FROM (SELECT ?::DOUBLE AS v)", value)
    if value <= 0.001:
        assert bucket == ZERO_BUCKET
        return
    assert 2 ** (bucket / 32) < value * (1 + 1e-12) and value <= 2 ** ((bucket + 1) / 32) * (1 + 1e-12)
    bound = one(con, f"SELECT {upper_bound_sql('b')} FROM (SELECT ?::INTEGER AS b)", bucket)
    assert value <= bound * (1 + 1e-12) and bound < value * 2 ** (1 / 32) * (1 + 1e-12)


def test_exact_powers_are_the_upper_bound_of_their_bucket(con: duckdb.DuckDBPyConnection) -> None:
    values = [0.0, 0.001, 0.0010001, 0.5, 1.0, 2.0, 4096.0]
    found = [one(con, f"SELECT {bucket_sql('v')} FROM (SELECT ?::DOUBLE AS v)", v) for v in values]
    assert found == [ZERO_BUCKET, ZERO_BUCKET, -319, -33, -1, 31, 383]


SAMPLE = st.tuples(
    st.integers(0, 2),  # series
    st.integers(0, 39),  # second: many ties
    st.sampled_from(["/a", "/b"]),
    st.sampled_from(["1", "2", "10"]),
    st.integers(0, 3),
    st.one_of(st.none(), st.floats(0, 20000), st.sampled_from([0.1, 0.0005, 0.0015, 1e-9, 20000.0])),
    st.sampled_from([None, "ok", "failed"]),
    st.sampled_from([None, None, 60, 900]),  # declared interval
)
TABLE = (
    "CREATE OR REPLACE TEMP TABLE s(series UBIGINT, time TIMESTAMP, source VARCHAR, id VARCHAR, idx INTEGER, interval INTEGER, "
    + ", ".join(f"{m.name} {m.sql_type}" for m in GPU.measures)
    + ")"
)


def fill(con: duckdb.DuckDBPyConnection, samples: list[Any]) -> None:
    con.execute(TABLE)
    for series, second, source, id, idx, power, health, interval in samples:
        con.execute(
            "INSERT INTO s(series, time, source, id, idx, interval, power_watts, health) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [series, datetime(2026, 9, 21, 13, 0, second), source, id, idx, interval, power, health],
        )


@settings(**HERE)  # type: ignore[arg-type]
@given(
    samples=st.lists(SAMPLE, min_size=1, max_size=30),
    cut=st.integers(0, 30),
    order=st.randoms(use_true_random=False),
)
def test_partials_of_pieces_merge_to_the_partials_of_the_whole(
    con: duckdb.DuckDBPyConnection, samples: list[Any], cut: int, order: Any
) -> None:
    merge = f"SELECT series, window_start, {aggregate.merge_sql(GPU)} FROM ({{}}) GROUP BY ALL ORDER BY ALL"
    fill(con, samples)
    whole = con.execute(merge.format(aggregate.partials_sql(GPU, "s"))).fetchall()
    order.shuffle(samples)
    pieces = []
    for piece in (samples[:cut], samples[cut:]):
        fill(con, piece)
        name = f"piece_{len(pieces)}"
        held = {m: [sample[place] for sample in piece] for m, place in (("power_watts", 5), ("health", 6))}
        known = [measure for measure, values in held.items() if None not in values]
        con.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS {aggregate.partials_sql(GPU, 's', known)}")
        pieces.append(f"SELECT * FROM {name}")
    assert repr(con.execute(merge.format(" UNION ALL ".join(pieces))).fetchall()) == repr(whole)
    by_hand = {(s[0], s[1] // 10) for s in samples}
    assert len(whole) == len(by_hand)


def test_of_samples_at_the_same_time_the_greatest_source_id_and_index_is_the_last_and_the_longest_interval_counts(
    con: duckdb.DuckDBPyConnection,
) -> None:
    fill(
        con,
        [
            (1, 5, "/a", "9", 9, 5.0, "failed", 60),
            (1, 5, "/b", "1", 9, 1.0, None, None),
            (1, 5, "/b", "2", 0, 2.0, None, 900),
            (1, 5, "/b", "2", 1, 3.0, "ok", None),
            (1, 5, "/b", "2", 2, None, None, None),
            (1, 4, "/z", "9", 9, 4.0, "failed", None),
        ],
    )
    rows = con.execute(
        f"SELECT power_watts_last, health_last, samples, power_watts_count, interval FROM ({aggregate.partials_sql(GPU, 's')})"
    ).fetchall()
    identity = {"time": datetime(2026, 9, 21, 13, 0, 5), "source": "/b", "id": "2", "idx": 1}
    assert rows == [({**identity, "value": 3.0}, {**identity, "value": "ok"}, 6, 5, 900)]


@settings(**HERE)  # type: ignore[arg-type]
@given(values=st.lists(st.floats(0, 20000), min_size=1, max_size=40), order=st.randoms(use_true_random=False))
def test_no_order_changes_a_bit_of_a_sum(
    con: duckdb.DuckDBPyConnection, values: list[float], order: Any
) -> None:
    """A thousand doubles give other sums in other orders; whole numbers of a quantum do not."""
    power = next(m for m in GPU.measures if m.name == "power_watts")
    found = set()
    for _ in range(3):
        order.shuffle(values)
        total = f"SELECT sum({aggregate.quanta_sql(power)}) FROM (SELECT unnest(?::DOUBLE[]) AS power_watts)"
        found.add(one(con, total, values))
    assert len(found) == 1
    assert math.isclose(found.pop(), sum(values) * 1000, abs_tol=0.5 * len(values) + 1)


def test_bit_sets_count_distinct_entities_over_blocks_and_batches(con: duckdb.DuckDBPyConnection) -> None:
    bits, size = aggregate.BLOCK_BITS, aggregate.BLOCK_BITS * 2 + 5
    con.execute(
        "CREATE OR REPLACE TEMP TABLE seen AS SELECT 1::UBIGINT AS series, TIMESTAMP '2026-09-21' AS window_start, "
        f"i::INTEGER AS entity_idx, i % 10 = 0 AS unhealthy, i % 2 = 0 AS in_use FROM range({size}) t(i)"
    )
    halves = []
    for name, where in (("low", f"entity_idx < {bits + 3}"), ("high", f"entity_idx >= {bits - 3}")):
        indexed = f"(SELECT * FROM seen WHERE {where})"
        con.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS {aggregate.bits_sql(GPU, indexed)}")
        halves.append(f"FROM {name}")
    merged = (
        f"SELECT block, {aggregate.merge_bits_sql(GPU)} FROM ({' UNION ALL '.join(halves)}) GROUP BY block"
    )
    counts = "sum(bit_count(observed)), sum(bit_count(unhealthy)), sum(bit_count(in_use)), count(*)"
    assert one(con, f"SELECT {counts} FROM ({merged})") == (size, -(-size // 10), -(-size // 2), 3)


@pytest.mark.parametrize(
    ("sample", "unhealthy", "in_use"),
    [
        ("'ok', 0, 0.0, 1.0", False, True),
        ("'ok', 0, 1.0, 0.0", False, True),
        ("NULL, NULL, NULL, 0.06", False, True),
        ("'failed', 0, NULL, 0.05", True, False),
        ("'degraded', NULL, NULL, NULL", True, False),
        ("NULL, 79, NULL, NULL", True, False),
        ("NULL, 31, NULL, NULL", False, False),
        ("'ok', 79, NULL, NULL", False, False),
    ],
)
def test_a_gpu_is_in_use_by_any_activity_and_unhealthy_by_its_health_else_by_a_fatal_xid(
    con: duckdb.DuckDBPyConnection, sample: str, unhealthy: bool, in_use: bool
) -> None:
    row = f"(VALUES ({sample})) t(health, xid, engine_active_ratio, utilization_ratio)"
    assert one(con, f"SELECT {aggregate.marks_sql(GPU)} FROM {row}") == (unhealthy, in_use)


def test_times_before_1970_have_windows_too(con: duckdb.DuckDBPyConnection) -> None:
    time = datetime(1969, 12, 31, 23, 59, 55)
    assert one(con, f"SELECT {floor_sql('?::TIMESTAMP', 10)}", time, time) == datetime(
        1969, 12, 31, 23, 59, 50
    )
    assert time.replace(tzinfo=UTC).timestamp() < 0
