"""Compaction and its readers: fewer files and fewer rows, the same answers, at every moment."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest

from pipeline.catalog import Catalog
from pipeline.history import compact, query
from pipeline.ledger import files
from tests.patience import PATIENCE

T = 1_767_225_600  # 2026-01-01T00:00:00Z
LATER = T + 90_000
HISTORY = "history/telemetry.gpu/*/*/*.parquet"

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="directories are exchanged by renameat2 of Linux"
)


def asked(data: Path, catalog: Catalog, sql: str) -> list[Any]:
    return list(query.ask(query.open_views(data, catalog), sql).rows)


def sealed_apart(ledger: Any, rows: Any, count: int = 4) -> int:
    """Raw rows of one hour in `count` files, and a next hour in one; returns how many rows."""
    for n in range(count):
        ledger.add("gpu", [rows.gpu(T + 60 * n + i, i, power_watts=700.0) for i in range(10)])
        ledger.seal()
    ledger.add("gpu", [rows.gpu(T + 3700)])
    ledger.seal()
    return count * 10 + 1


def merge(ledger: Any, **options: Any) -> int:
    return compact.compact_history(ledger.ledger.cursor(), ledger.data, ledger.catalog, **options)


def test_a_settled_hour_becomes_one_file_with_the_same_rows(ledger: Any, catalog: Catalog, rows: Any) -> None:
    sealed_apart(ledger, rows)
    before = asked(ledger.data, catalog, "SELECT * FROM gpu ORDER BY ALL")
    ledger.watermark(T + 3600 + compact.SETTLED_AFTER - 1)
    assert merge(ledger) == 0
    ledger.watermark(T + 3600 + compact.SETTLED_AFTER)
    assert merge(ledger) == 1
    assert len(list(ledger.data.glob(HISTORY))) == 2
    assert asked(ledger.data, catalog, "SELECT * FROM gpu ORDER BY ALL") == before
    assert merge(ledger) == 0


def test_a_late_file_is_merged_into_an_hour_that_was_merged_before(
    ledger: Any, catalog: Catalog, rows: Any
) -> None:
    count = sealed_apart(ledger, rows)
    ledger.watermark(LATER)
    merge(ledger)
    ledger.add("gpu", [rows.gpu(T + 7, 500)])
    ledger.seal()
    assert asked(ledger.data, catalog, "SELECT count(*) FROM gpu") == [(count + 1,)]
    assert merge(ledger) == 1
    assert asked(ledger.data, catalog, "SELECT count(*), count(DISTINCT id) FROM gpu") == [
        (count + 1, count + 1)
    ]
    recorded = ledger.con.execute("SELECT path, rows, state FROM files ORDER BY ALL").fetchall()
    assert [(r, s) for _, r, s in recorded] == [(41, "published"), (1, "published")]
    assert all((ledger.data / path).exists() for path, _, _ in recorded)


def test_a_large_file_stays_as_it_is(
    ledger: Any, catalog: Catalog, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compact, "LARGE_FILE", 20)
    ledger.add("gpu", [rows.gpu(T + i) for i in range(30)])
    ledger.seal()
    (large,) = ledger.data.glob(HISTORY)
    inode = large.stat().st_ino
    count = 30 + sealed_apart(ledger, rows, 3)
    ledger.watermark(LATER)
    assert merge(ledger) == 1
    assert large.stat().st_ino == inode
    assert len(list(ledger.data.glob(HISTORY))) == 3
    assert asked(ledger.data, catalog, "SELECT count(*) FROM gpu") == [(count,)]
    assert ledger.con.execute("SELECT sum(rows) FROM files").fetchone() == (count,)


def test_an_hour_is_merged_as_many_rows_at_once_as_are_sorted_at_once(
    ledger: Any, catalog: Catalog, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compact, "LARGE_FILE", 15)
    monkeypatch.setattr(compact, "ROWS_AT_ONCE", 30)
    count = sealed_apart(ledger, rows, 7)
    before = asked(ledger.data, catalog, "SELECT * FROM gpu ORDER BY ALL")
    ledger.watermark(LATER)
    assert merge(ledger) == 1
    recorded = ledger.con.execute("SELECT path, rows FROM files WHERE rows > 1 ORDER BY rows").fetchall()
    assert [n for _, n in recorded] == [10, 30, 30]
    assert {path for path, _ in recorded} < {
        str(p.relative_to(ledger.data)) for p in ledger.data.glob(HISTORY)
    }
    assert len(list(ledger.data.glob(HISTORY))) == 4
    assert asked(ledger.data, catalog, "SELECT * FROM gpu ORDER BY ALL") == before
    assert len(before) == count
    assert merge(ledger) == 0


def test_an_hour_that_does_not_fit_into_memory_stays_in_its_files(
    ledger: Any, catalog: Catalog, rows: Any
) -> None:
    for n in range(8):
        node = f"{n}" * 10_000
        ledger.add("gpu", [rows.gpu(T + i, 10_000 * n + i, node=f"{i}{node}") for i in range(400)])
        ledger.seal()
    ledger.watermark(LATER)
    ledger.con.execute("SET memory_limit = '40MB'")
    assert merge(ledger) == 0
    ledger.con.execute("SET memory_limit = '600MB'")
    assert len(list(ledger.data.glob(HISTORY))) == 8
    assert list((ledger.data / "staging").iterdir()) == []
    assert asked(ledger.data, catalog, "SELECT count(*) FROM gpu") == [(3_200,)]


@pytest.mark.parametrize("step", ["merge.written", "merge.committed", "merge.exchanged", "merge.published"])
def test_a_kill_while_merging_leaves_every_row_once(
    step: str, tmp_path: Path, make_ledger: Any, catalog: Catalog, rows: Any, kill: Any
) -> None:
    ledger = make_ledger(tmp_path, catalog)
    count = sealed_apart(ledger, rows)
    ledger.watermark(LATER)
    ledger.close()
    kill(tmp_path, "compact", step)
    everything = "SELECT count(*), count(DISTINCT id) FROM gpu"
    assert asked(tmp_path, catalog, everything) == [(count, count)]
    ledger = make_ledger(tmp_path, catalog)  # Opening recovers.
    recorded = {path for (path,) in ledger.con.execute("SELECT path FROM files").fetchall()}
    assert {str(p.relative_to(tmp_path)) for p in tmp_path.glob(HISTORY)} == recorded
    assert ledger.con.execute("SELECT DISTINCT state, staged FROM files").fetchall() == [("published", None)]
    assert list((tmp_path / "staging").iterdir()) == []
    merge(ledger)
    assert asked(tmp_path, catalog, everything) == [(count, count)]
    assert len(list(tmp_path.glob(HISTORY))) == 2
    ledger.close()


@pytest.mark.parametrize("step", ["settle.written", "settle.exchanged"])
def test_a_kill_while_roll_ups_settle_leaves_every_window_once(
    step: str, tmp_path: Path, make_ledger: Any, catalog: Catalog, rows: Any, kill: Any
) -> None:
    ledger = make_ledger(tmp_path, catalog)
    ledger.add("gpu", [rows.gpu(T + 10 * i) for i in range(60)])
    ledger.publish()
    ledger.watermark(LATER)
    ledger.close()
    kill(tmp_path, "settle", step)
    everything = "SELECT count(*), count(DISTINCT window_start), sum(samples) FROM gpu_10s"
    assert asked(tmp_path, catalog, everything) == [(60, 60, 60)]
    ledger = make_ledger(tmp_path, catalog)
    compact.settle_rollups(ledger.ledger.cursor(), tmp_path, catalog)
    assert asked(tmp_path, catalog, everything) == [(60, 60, 60)]
    assert [p.name for p in tmp_path.glob("rollups/telemetry.gpu/10s/*/*/*")] == ["all.parquet"]
    ledger.close()


def test_minutes_of_queues_are_a_file_for_each_day_also_of_a_ledger_that_published_them_by_the_hour(
    tmp_path: Path, make_ledger: Any, catalog: Catalog, rows: Any
) -> None:
    small = make_ledger(tmp_path, catalog)
    small.add("queue", [rows.queue(T + 1800 * n, 1.0) for n in range(10)])
    small.publish()
    # of waits taken in before version 5 the bounds of their bucket are known, not the values
    values = ", ".join(f"admission_wait_seconds_p{q}" for q in (50, 95, 99))
    everything = f"SELECT * EXCLUDE ({values}) FROM queue_1m ORDER BY ALL"
    before = asked(tmp_path, catalog, everything)
    day = tmp_path / "rollups/telemetry.queue/1m/date=2026-01-01"
    assert len(list(day.glob("*.parquet"))) == 5
    (day / "hour=00").mkdir()
    for file in day.glob("*.parquet"):  # as version 2 had them
        file.rename(day / "hour=00" / file.name)
    small.con.execute("UPDATE meta SET value = '2' WHERE key = 'schema_version'")
    small.close()
    again = make_ledger(tmp_path, catalog)
    again.publish()
    assert asked(tmp_path, catalog, everything) == before
    again.watermark(LATER)
    compact.settle_rollups(again.ledger.cursor(), tmp_path, catalog)
    assert [file.name for file in day.iterdir()] == ["all.parquet"]
    assert asked(tmp_path, catalog, everything) == before
    again.close()


def test_a_file_put_there_by_hand_is_not_taken_from_its_owner(ledger: Any, rows: Any) -> None:
    sealed_apart(ledger, rows)
    ledger.watermark(LATER)
    first = next(ledger.data.glob(HISTORY))
    (first.parent / "notes.txt").write_text("mine")
    assert merge(ledger) == 0
    assert (first.parent / "notes.txt").read_text() == "mine"


def test_where_directories_cannot_be_exchanged_the_files_stay_and_it_is_said_once(
    ledger: Any,
    catalog: Catalog,
    rows: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    count = sealed_apart(ledger, rows)
    ledger.publish()
    ledger.watermark(LATER)
    monkeypatch.setattr(files, "exchange", lambda one, other: False)
    assert merge(ledger) == 0
    assert compact.settle_rollups(ledger.ledger.cursor(), ledger.data, catalog) == 0
    assert asked(ledger.data, catalog, "SELECT count(*) FROM gpu") == [(count,)]
    assert asked(ledger.data, catalog, "SELECT sum(samples) FROM gpu_10s") == [(count,)]
    assert capsys.readouterr().out.count("cannot exchange two directories") == 1


def test_rows_of_one_key_are_merged_while_a_wide_window_is_still_open(
    ledger: Any, catalog: Catalog, rows: Any
) -> None:
    for n in range(compact.OPEN_DELTAS):
        ledger.add("gpu", [rows.gpu(T + n)])
        ledger.publish()
    ledger.watermark(T + 40)
    compact.compact_partials(ledger.ledger.cursor(), catalog)
    for table in ("partials", "bits"):
        assert ledger.con.execute(f"SELECT count(*) FROM {table}_gpu_1d").fetchone() == (1,)
    assert asked(ledger.data, catalog, "SELECT samples FROM gpu_1d") == [(compact.OPEN_DELTAS,)]


def test_a_row_keeps_the_instant_from_which_it_is_known(ledger: Any, catalog: Catalog, rows: Any) -> None:
    """Merging never makes a late row look as if it had been known in time."""
    ledger.add("gpu", [rows.gpu(T + 1)])
    ledger.watermark(T + 100)
    for n in range(2):
        ledger.add("gpu", [rows.gpu(T + 2 + n)])
    ledger.publish()
    ledger.watermark(LATER)
    compact.compact_partials(ledger.ledger.cursor(), catalog)
    known = ledger.con.execute(
        f"SELECT epoch(known_from)::BIGINT - {T}, samples FROM partials_gpu_10s ORDER BY ALL"
    )
    assert known.fetchall() == [(10, 1), (110, 2)]


def test_the_ledgers_file_does_not_grow_with_the_number_of_deltas(
    ledger: Any, catalog: Catalog, rows: Any
) -> None:
    def used() -> int:
        ledger.con.execute("CHECKPOINT")
        size = ledger.con.execute("SELECT used_blocks FROM pragma_database_size()").fetchone()
        return int(size[0])

    ledger.add("gpu", [rows.gpu(T, g, f"c{g}", power_watts=1.0) for g in range(1000)])
    ledger.con.execute("CREATE TEMP TABLE reports AS FROM given")

    def deltas(count: int) -> None:
        for n in range(count):
            ledger.con.execute(
                "CREATE OR REPLACE TEMP TABLE given AS "
                f"SELECT * REPLACE (time + INTERVAL {n % 10} SECOND AS time, random() AS power_watts) FROM reports"
            )
            ledger.add_given(catalog.by_view("gpu"))
            if n % 20 == 19:
                ledger.publish()
                compact.compact_partials(ledger.ledger.cursor(), catalog)

    deltas(40)
    at_first = used()
    deltas(80)
    assert used() <= at_first * 1.5


POLL = """
import sys, time
from pathlib import Path
from pipeline.catalog import load
from pipeline.history import query
data, stop = Path(sys.argv[1]), Path(sys.argv[2])
con = query.open_views(data, load())
print("ready", flush=True)
polls = 0
before = (0, 0, 0)
stopping = False
while not stopping:
    stopping = stop.exists()  # One more poll after the last change.
    now = []
    for sql in ("SELECT count(*), count(DISTINCT id) FROM gpu", "SELECT sum(samples), count(*) FROM gpu_10s",
                "SELECT sum(samples), count(*) FROM gpu_1d"):
        count, second = next(query.ask(con, sql).rows)
        now.append(count or 0)
        if "DISTINCT" in sql and count != second:
            sys.exit(f"twice: {count} rows, {second} identities")
    if any(b < a for a, b in zip(before, now)):
        sys.exit(f"went down: {before} to {now}")
    before = tuple(now)
    polls += 1
    time.sleep(0.01)
print(polls, *before)
"""


def test_a_reader_beside_sealing_publishing_and_merging_never_sees_a_count_go_down(
    ledger: Any, catalog: Catalog, rows: Any, tmp_path: Path
) -> None:
    stop = tmp_path / "stop"
    reader = subprocess.Popen(
        [sys.executable, "-c", POLL, str(ledger.data), str(stop)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert reader.stdout and reader.stdout.readline() == "ready\n"
        count = 0
        for n in range(25):
            at = T + 900 * n
            ledger.add("gpu", [rows.gpu(at + 10 * i, i) for i in range(20)])
            count += 20
            if n >= 8:  # A late row into an hour that has settled.
                ledger.add("gpu", [rows.gpu(at - 7200 + n, 1000 + n)])
                count += 1
            ledger.publish()
            ledger.seal()
            ledger.watermark(at)
            compact.settle_rollups(ledger.ledger.cursor(), ledger.data, catalog)
            merge(ledger)
            compact.compact_partials(ledger.ledger.cursor(), catalog)
        stop.touch()
        out, err = reader.communicate(timeout=PATIENCE)
    finally:
        reader.kill()
    assert reader.returncode == 0, err
    polls, *seen = map(int, out.split())
    assert seen == [count] * 3
    assert polls > 5


def test_the_counts_of_minutes_that_are_over_are_merged_and_none_is_lost() -> None:
    con = duckdb.connect()
    con.execute(
        "CREATE TABLE fates(topic VARCHAR, part INTEGER, minute TIMESTAMP, fate VARCHAR, reason VARCHAR, n BIGINT)"
    )
    con.execute(
        "INSERT INTO fates SELECT 'telemetry.gpu', i % 2, TIMESTAMP '2026-11-23 10:00' + INTERVAL (i // 100) MINUTE, "
        "'aggregated', '', i FROM range(600) t(i)"
    )
    con.execute("CREATE TABLE set_aside AS SELECT topic, part, minute, 'f' AS field, reason, n FROM fates")
    totals = [
        f"SELECT part, minute, sum(n) FROM {t} GROUP BY ALL ORDER BY ALL" for t in ("fates", "set_aside")
    ]
    before = [con.execute(total).fetchall() for total in totals]
    assert compact.merge_fates(con) == 3 + 3
    assert [con.execute(total).fetchall() for total in totals] == before
    for table in ("fates", "set_aside"):
        assert con.execute(f"SELECT count(*) FROM {table}").fetchone() == (3 * 2 + 300,)
