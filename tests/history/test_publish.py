"""Published roll-ups: the same from any batching, equal to what plain Python adds up, whole at any moment."""

from __future__ import annotations

import math
import tempfile
from collections import defaultdict
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.catalog import Catalog
from pipeline.history import compact, publish, query
from pipeline.rollup.delta import Fate
from pipeline.views import published

T = 1_767_225_600  # 2026-01-01T00:00:00Z
WIDTHS = {"10s": 10, "1m": 60, "15m": 900, "1h": 3600, "1d": 86400}
fixtures_are_only_read = settings(
    max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)


def answers(data: Path, catalog: Catalog, sql: str) -> list[Any]:
    return list(query.ask(query.open_views(data, catalog), sql).rows)


def content(data: Path) -> dict[str, bytes]:
    """Every published file, byte for byte."""
    trees = [data / "rollups", data / "alerts", data / "fates", data / "standing"]
    return {
        str(p.relative_to(data)): p.read_bytes() for tree in trees for p in sorted(tree.rglob("*.parquet"))
    }


times = st.integers(0, 7_300_000).map(lambda ms: T + ms / 1000)
gpu_samples = st.lists(
    st.tuples(
        times,
        st.integers(0, 3),
        st.sampled_from(["c0", "c1"]),
        st.one_of(st.none(), st.integers(0, 10**6).map(lambda n: n / 10**6)),
        st.sampled_from(["ok", "degraded", None]),
    ),
    min_size=1,
    max_size=30,
    unique_by=lambda s: (s[0], s[1], s[2]),
)


def batches_of(draw: st.DataObject, rows: list[Any]) -> list[list[Any]]:
    """The rows in some order, cut into some batches."""
    shuffled = draw.draw(st.permutations(rows))
    cuts = sorted(draw.draw(st.sets(st.integers(1, len(rows)), max_size=4)) | {len(rows)})
    return [shuffled[a:b] for a, b in zip([0, *cuts], cuts, strict=False) if a < b]


@fixtures_are_only_read
@given(samples=gpu_samples, data=st.data())
def test_any_order_and_batching_publishes_the_same_bytes(
    samples: list[Any], data: st.DataObject, catalog: Catalog, rows: Any, make_ledger: Any
) -> None:
    made = [rows.gpu(at, gpu, c, utilization_ratio=u, health=h) for at, gpu, c, u, h in samples]
    contents = []
    for batches in ([made], batches_of(data, made)):
        with tempfile.TemporaryDirectory() as directory:
            ledger = make_ledger(Path(directory), catalog)
            for batch in batches:
                ledger.add("gpu", batch)
                if data.draw(st.booleans()):
                    ledger.publish()
            ledger.publish()
            contents.append(content(ledger.data))
            ledger.close()
    assert contents[0] == contents[1]


@fixtures_are_only_read
@given(samples=gpu_samples, data=st.data(), width=st.sampled_from(list(WIDTHS)))
def test_roll_ups_equal_what_plain_python_adds_up(
    samples: list[Any], data: st.DataObject, width: str, catalog: Catalog, rows: Any, make_ledger: Any
) -> None:
    made = [rows.gpu(at, gpu, c, utilization_ratio=u, health=h) for at, gpu, c, u, h in samples]
    with tempfile.TemporaryDirectory() as directory:
        ledger = make_ledger(Path(directory), catalog)
        for batch in batches_of(data, made):
            ledger.add("gpu", batch)
        ledger.publish()
        seen = answers(
            ledger.data,
            catalog,
            "SELECT window_start, cluster, samples, gpus, utilization_ratio_sum, utilization_ratio_mean, "
            "utilization_ratio_min, utilization_ratio_max, utilization_ratio_last, health_last "
            f"FROM gpu_{width} ORDER BY ALL",
        )
        ledger.close()
    assert seen == added_up(samples, WIDTHS[width], rows)


def added_up(samples: list[Any], width: int, rows: Any) -> list[Any]:
    windows = defaultdict(list)
    for sample in samples:
        windows[sample[0] // width * width, sample[2]].append(sample)
    return sorted((rows.moment(start), c, *figures(inside, rows)) for (start, c), inside in windows.items())


def figures(inside: list[Any], rows: Any) -> tuple[Any, ...]:
    def newest(position: int) -> Any:
        known = [s for s in inside if s[position] is not None]
        # Ties by time, source, id, as text: the makers of rows give GPU and time as the id.
        return max(known, key=lambda s: (rows.moment(s[0]), f"{s[1]}-{s[0]}"))[position] if known else None

    ratios = [s[3] for s in inside if s[3] is not None]
    total = sum(Fraction(Decimal(repr(r))) for r in ratios)
    exact = (float(total), float(total / len(ratios)), min(ratios), max(ratios)) if ratios else (None,) * 4
    return len(inside), len({s[1] for s in inside}), *exact, newest(3), newest(4)


@fixtures_are_only_read
@given(
    waits=st.lists(
        st.lists(st.floats(0, 1e6, allow_nan=False), max_size=20).map(lambda w: [round(v, 6) for v in w]),
        min_size=1,
        max_size=6,
    ),
    quantile=st.sampled_from([50, 95, 99]),
)
def test_a_quantile_is_a_value_that_was_observed_at_most_one_bucket_above_the_exact_one(
    waits: list[list[float]], quantile: int, catalog: Catalog, rows: Any, make_ledger: Any
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        ledger = make_ledger(Path(directory), catalog)
        for number, reported in enumerate(waits):
            ledger.add("queue", [rows.queue(T + number, *reported)])
        ledger.publish()
        found = answers(
            ledger.data,
            catalog,
            f"SELECT admission_wait_seconds_count, admission_wait_seconds_p{quantile} FROM queue_1m",
        )
        ledger.close()
    values = sorted(v for reported in waits for v in reported)
    (count, seen), *others = found
    assert (count, others) == (len(values), [])
    if not values:
        assert seen is None
        return
    exact = values[math.ceil(quantile * len(values) / 100) - 1]
    assert seen in values
    assert exact <= seen <= max(exact * 2 ** (1 / 32) * (1 + 1e-12), 0.001)


def test_the_newest_revision_of_a_charge_counts_and_its_old_window_forgets_it(
    ledger: Any, catalog: Catalog, rows: Any
) -> None:
    ledger.add("billing", [rows.charge(T, T + 10, "0.1", "a"), rows.charge(T, T + 10, "0.2", "b")])
    ledger.publish()
    hourly = "SELECT window_start, samples, BilledCost_sum FROM billing_1h WHERE samples > 0 ORDER BY ALL"
    first = (rows.moment(T), 2, Decimal("0.3"))
    assert answers(ledger.data, catalog, hourly) == [first]
    ledger.add("billing", [rows.charge(T + 3600, T + 20, "1.0000000001", "a")])
    ledger.publish()
    assert answers(ledger.data, catalog, hourly) == [
        (rows.moment(T), 1, Decimal("0.2")),
        (rows.moment(T + 3600), 1, Decimal("1.0000000001")),
    ]


def test_publishing_a_bill_in_parts_gives_the_files_of_publishing_it_at_once(
    tmp_path: Path, catalog: Catalog, make_ledger: Any, rows: Any
) -> None:
    """Weeks apart, and one charge that a revision moves from one part into another."""
    found = []
    for name in ("at once", "in parts"):
        made = make_ledger(tmp_path / name, catalog)
        bill = [rows.charge(T + 86400 * n + 3600, T + 99 * 86400, "1.25", f"c{n}") for n in range(0, 90, 3)]
        made.add("billing", bill)
        made.add("gpu", [rows.gpu(T + 86400 * n, gpu=n) for n in range(3)])
        made.add("billing", [rows.charge(T + 40 * 86400, T + 100 * 86400, "2.50", "c6")])
        parts = publish.parts(made.con, catalog) if name == "in parts" else [publish.EVERYTHING]
        for part in parts:
            made.publish(part=part)
        assert made.con.execute("SELECT count(*) FROM dirty").fetchone() == (0,)
        # rows and not bytes: a file that is left without a row has no row group, or an empty one
        paths = sorted((made.data / "rollups").rglob("*.parquet"))
        found.append({str(p.relative_to(made.data)): duckdb.sql(f"FROM '{p}'").fetchall() for p in paths})
        made.close()
    assert len(parts) > 10 and len(found[0]) > 150
    assert found[0] == found[1]


def test_only_files_that_a_delta_touched_are_written_again(ledger: Any, rows: Any) -> None:
    ledger.add("gpu", [rows.gpu(T), rows.gpu(T + 1200)])
    ledger.publish()
    before = {p: p.stat().st_ino for p in ledger.data.glob("rollups/*/*/**/*.parquet")}
    assert ledger.publish() == 0
    ledger.add("gpu", [rows.gpu(T + 1230)])
    ledger.publish()
    changed = {
        str(p.relative_to(ledger.data / "rollups/telemetry.gpu"))
        for p, inode in before.items()
        if p.stat().st_ino != inode
    }
    assert changed == {
        "10s/date=2026-01-01/hour=00/0020.parquet",
        "1m/date=2026-01-01/hour=00/0020.parquet",
        "15m/date=2026-01-01/0000.parquet",
        "1h/date=2026-01-01/0000.parquet",
        "1d/date=2026-01-01/all.parquet",
        "minutes/date=2026-01-01/0015.parquet",
    }


def test_a_late_row_enters_an_hour_that_has_settled(ledger: Any, catalog: Catalog, rows: Any) -> None:
    ledger.add("gpu", [rows.gpu(T + 60 * i, i) for i in range(30)])
    ledger.publish()
    ledger.watermark(T + 90_000)
    assert compact.settle_rollups(ledger.ledger.cursor(), ledger.data, catalog) == 5
    ledger.add("gpu", [rows.gpu(T + 65, 77)])
    ledger.publish()
    for width in WIDTHS:
        samples = answers(ledger.data, catalog, f"SELECT sum(samples) FROM gpu_{width}")
        assert samples == [(31,)]
    found = list(ledger.data.glob("rollups/*/*/date=2026-01-01/**/*.parquet"))
    assert len(found) == len(WIDTHS) + 1  # and the GPU-minutes


def test_a_backlog_of_settled_hours_is_written_as_whole_files_at_once(
    ledger: Any, catalog: Catalog, rows: Any
) -> None:
    ledger.add("gpu", [rows.gpu(T + 600 * i) for i in range(18)])
    ledger.watermark(T + 2.5 * 3600)
    ledger.publish()
    names = sorted(p.name for p in ledger.data.glob("rollups/telemetry.gpu/10s/*/*/*"))
    assert (
        names
        == ["0200.parquet", "0210.parquet", "0220.parquet", "0230.parquet", "0240.parquet", "0250.parquet"]
        + ["all.parquet"] * 2
    )
    assert answers(ledger.data, catalog, "SELECT sum(samples) FROM gpu_10s") == [(18,)]


def test_the_order_of_rows_is_window_then_dimensions(ledger: Any, catalog: Catalog, rows: Any) -> None:
    made = [rows.gpu(T + 10 * i, 0, f"c{(i * 7) % 10}") for i in range(60)]
    ledger.add("gpu", made)
    ledger.publish()
    ledger.watermark(T + 90_000)
    compact.settle_rollups(ledger.ledger.cursor(), ledger.data, catalog)
    path = next(ledger.data.glob("rollups/telemetry.gpu/10s/*/*/*.parquet"))
    keys = ledger.con.execute(f"SELECT window_start, cluster FROM '{path}'").fetchall()
    assert len(keys) == 60
    assert keys == sorted(keys)


@pytest.mark.parametrize("step", ["publish.written", "publish.renamed", "publish.committed"])
def test_a_kill_while_publishing_is_made_good_at_the_next(
    step: str, tmp_path: Path, make_ledger: Any, catalog: Catalog, rows: Any, kill: Any
) -> None:
    ledger = make_ledger(tmp_path / "a", catalog)
    calm = make_ledger(tmp_path / "b", catalog)
    for one in (ledger, calm):
        one.add("gpu", [rows.gpu(T + 10 * i) for i in range(20)])
        one.publish()
        one.add("gpu", [rows.gpu(T + 205), rows.gpu(T - 5)])
    ledger.close()
    kill(tmp_path / "a", "publish", step)
    samples = answers(tmp_path / "a", catalog, "SELECT sum(samples) FROM gpu_1d")
    assert samples in ([(20,)], [(21,)], [(22,)])
    ledger = make_ledger(tmp_path / "a", catalog)
    for one in (ledger, calm):
        one.publish()
    assert content(tmp_path / "a") == content(tmp_path / "b")
    ledger.close()
    calm.close()


def test_merging_partials_changes_no_published_byte(ledger: Any, catalog: Catalog, rows: Any) -> None:
    for i in range(12):
        ledger.add("gpu", [rows.gpu(T + i, g, utilization_ratio=i / 100, health="ok") for g in range(4)])
        ledger.add("queue", [rows.queue(T + i, 0.5 * i, 2.0)])
    ledger.watermark(T + 90_000)
    ledger.publish()
    before = content(ledger.data)
    counted = ledger.con.execute("SELECT count(*) FROM partials_gpu_1d").fetchone()
    assert compact.compact_partials(ledger.ledger.cursor(), catalog) == 10
    assert (counted, ledger.con.execute("SELECT count(*) FROM partials_gpu_1d").fetchone()) == ((12,), (1,))
    ledger.con.execute(f"INSERT INTO dirty SELECT unnest(['gpu', 'queue']), make_timestamp({T}000000)")
    assert ledger.publish() == 11  # the GPU-minutes too
    assert content(ledger.data) == before


def test_fates_are_added_up_by_minute(ledger: Any, catalog: Catalog, rows: Any) -> None:
    minute = rows.moment(T)
    ledger.fates(Fate("telemetry.gpu", 0, minute, "aggregated", "", 5))
    ledger.publish()
    ledger.fates(
        Fate("telemetry.gpu", 0, minute, "aggregated", "", 7),
        Fate("telemetry.gpu", 1, rows.moment(T + 86_400), "dead_lettered", "not_json", 1),
    )
    ledger.publish()
    assert answers(ledger.data, catalog, "SELECT * EXCLUDE (date) FROM fates ORDER BY ALL") == [
        ("telemetry.gpu", 0, minute, "aggregated", "", 12),
        ("telemetry.gpu", 1, rows.moment(T + 86_400), "dead_lettered", "not_json", 1),
    ]


def test_alerts_and_standing_are_published_when_marked(ledger: Any, catalog: Catalog, rows: Any) -> None:
    at = rows.moment(T)
    run = ledger.con.execute
    run(
        "INSERT INTO alerts BY NAME SELECT ?::TIMESTAMP AS \"time\", 'Watchdog' AS alertname, 'c' AS contract, "
        "'watchdog' AS clause, '{}' AS labels, 'firing' AS state",
        [at],
    )
    run(
        "INSERT INTO standing BY NAME SELECT 'floor' AS clause, 'ok' AS state, ?::TIMESTAMP AS \"time\"", [at]
    )
    for view in ("alerts", "standing"):
        run(f"INSERT INTO dirty SELECT '{view}', ?::TIMESTAMP", [at])
    assert ledger.publish() == 3
    assert answers(ledger.data, catalog, "SELECT time, alertname, state FROM alerts") == [
        (at, "Watchdog", "firing")
    ]
    assert answers(ledger.data, catalog, "SELECT time, alertname, state FROM alerts_now") == [
        (at, "Watchdog", "firing")
    ]
    assert answers(ledger.data, catalog, "SELECT clause, state FROM standing") == [("floor", "ok")]
    run("DELETE FROM standing")
    run("INSERT INTO dirty SELECT 'standing', ?::TIMESTAMP", [at])
    ledger.publish()
    assert answers(ledger.data, catalog, "FROM standing") == []


def test_open_alerts_of_a_ledger_of_the_third_version_are_published_when_it_is_opened(
    tmp_path: Path, make_ledger: Any, catalog: Catalog, rows: Any
) -> None:
    small = make_ledger(tmp_path / "old", catalog)
    for clause, state in (("floor", "firing"), ("power", "firing"), ("power", "resolved")):
        small.con.execute(
            "INSERT INTO alerts BY NAME SELECT ?::TIMESTAMP AS \"time\", 'A' AS alertname, 'c' AS contract, "
            "? AS clause, '{}' AS labels, ? AS state",
            [rows.moment(T + 86_400 * (state == "resolved")), clause, state],
        )
    small.con.execute("UPDATE meta SET value = '3' WHERE key = 'schema_version'")
    small.close()
    small = make_ledger(tmp_path / "old", catalog)
    small.publish()
    assert answers(small.data, catalog, "SELECT clause, state FROM alerts_now") == [("floor", "firing")]
    small.close()


def test_columns_of_the_files_are_those_of_the_view(ledger: Any, catalog: Catalog, rows: Any) -> None:
    ledger.add("gpu", [rows.gpu(T)])
    ledger.add("billing", [rows.charge(T, T, "1", "a")])
    ledger.publish()
    for view in ("gpu", "billing"):
        table = published.rollup_table(catalog.by_view(view), published.WIDTHS[0])
        path = next((ledger.data / table.root).rglob("*.parquet"))
        described = ledger.con.execute(
            f"DESCRIBE FROM read_parquet('{path}', hive_partitioning = false)"
        ).fetchall()
        assert tuple((name, kind) for name, kind, *_ in described) == table.columns


def test_before_the_first_publishing_it_is_said_that_there_is_nothing_yet(
    ledger: Any, rows: Any, catalog: Catalog, make_ledger: Any
) -> None:
    assert query.nothing_yet(ledger.data / "elsewhere", catalog) is None
    ledger.add("gpu", [rows.gpu(T)])
    assert "nothing is published yet" in (query.nothing_yet(ledger.data, catalog) or "")
    ledger.close()
    again = make_ledger(ledger.data, catalog)
    assert "nothing is published yet" in (query.nothing_yet(again.data, catalog) or "")
    again.publish()
    assert query.nothing_yet(again.data, catalog) is None
    assert answers(again.data, catalog, "SELECT samples FROM gpu_1m") == [(1,)]
    again.close()
