"""The ledger as a whole: who may open it, what refuses to be written, and what a full disk leaves behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from pipeline.catalog import Catalog
from pipeline.errors import (
    DataDirectoryInUse,
    DiskFull,
    ForeignCluster,
    GigawatchError,
    LedgerError,
    StaleGeneration,
)
from pipeline.history.recover import recover
from pipeline.history.seal import seal
from pipeline.ledger import tables
from pipeline.ledger.files import disk_errors
from pipeline.ledger.lock import DirectoryLock
from pipeline.ledger.store import Ledger
from pipeline.ledger.tables import SCHEMA_VERSION
from pipeline.ledger.transaction import transaction
from pipeline.rollup.grid import WIDTHS
from tests.patience import PATIENCE

ROOT = Path(__file__).parents[2]
MIB = 1024 * 1024


def python(code: str, *arguments: object, **options: Any) -> subprocess.Popen[str]:
    """A process of its own that runs `code`; its lines are read as they come."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )


def contents(data: Path) -> dict[str, list[Any]]:
    """Every table of a closed ledger but the generation, read without opening it as ours."""
    with duckdb.connect(str(data / "ledger.duckdb"), read_only=True) as con:
        names = con.execute("SELECT table_name FROM duckdb_tables() ORDER BY 1").fetchall()
        found = {name: con.execute(f'FROM "{name}" ORDER BY ALL').fetchall() for (name,) in names}
    found["meta"] = [row for row in found["meta"] if row[0] != "generation"]
    return found


# Who may open it


def test_a_symbolic_link_in_the_data_directory_is_refused(tmp_path: Path, catalog: Catalog) -> None:
    data, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    elsewhere.mkdir()
    Ledger(data, catalog).close()
    (data / "rollups").mkdir(exist_ok=True)
    for link in (data / "history", data / "rollups" / "telemetry.gpu", data / ".status.json.tmp"):
        link.symlink_to(elsewhere)
        with pytest.raises(
            LedgerError, match=r"found a symbolic link to .*, expected none in a data directory"
        ) as error:
            Ledger(data, catalog)
        assert str(link) in str(error.value)
        link.unlink()
    (tmp_path / "linked").symlink_to(data)
    Ledger(tmp_path / "linked", catalog).close()


def test_a_data_directory_that_others_may_enter_is_closed_to_them(tmp_path: Path, catalog: Catalog) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for before, after in ((0o777, 0o750), (0o755, 0o750), (0o700, 0o700), (0o2770, 0o2750)):
        data.chmod(before)
        Ledger(data, catalog).close()
        assert data.stat().st_mode & 0o7777 == after


def test_a_ledger_remembers_its_kafka_cluster(tmp_path: Path, catalog: Catalog) -> None:
    ledger = Ledger(tmp_path, catalog)
    ledger.bind_cluster("one")
    ledger.bind_cluster("one")
    ledger.close()
    again = Ledger(tmp_path, catalog)
    again.bind_cluster("one")
    again.close()


def test_a_ledger_of_another_cluster_is_refused_with_what_to_do(tmp_path: Path, catalog: Catalog) -> None:
    ledger = Ledger(tmp_path, catalog)
    ledger.bind_cluster("one")
    with pytest.raises(ForeignCluster) as refused:
        ledger.bind_cluster("two")
    ledger.close()
    text = str(refused.value)
    assert str(tmp_path) in text and "from Kafka cluster one, but cluster two answers" in text
    assert "--bootstrap" in text and "empty data directory" in text
    assert refused.value.exit_code != 0
    assert ("cluster_id", "one") in contents(tmp_path)["meta"]


HOLD = """
import sys
from pathlib import Path
from pipeline.catalog import load
from pipeline.ledger.store import Ledger
ledger = Ledger(Path(sys.argv[1]), load())
print("open", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the data directory open."""
    process = python(HOLD, tmp_path, stdin=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == "open\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_process_is_refused_and_told_which_one_to_stop(
    tmp_path: Path, catalog: Catalog, holder: subprocess.Popen[str]
) -> None:
    with pytest.raises(DataDirectoryInUse) as refused:
        Ledger(tmp_path, catalog)
    assert str(refused.value) == (
        f"{tmp_path}: in use by process {holder.pid}; stop that one, or give this one another --data"
    )
    assert refused.value.exit_code != 0


def test_a_process_that_was_killed_leaves_no_lock(
    tmp_path: Path, catalog: Catalog, holder: subprocess.Popen[str]
) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    ledger = Ledger(tmp_path, catalog)
    assert ledger.generation == 2
    ledger.close()


def test_a_refused_process_does_not_take_the_holders_name_out_of_the_lock(tmp_path: Path) -> None:
    lock = DirectoryLock(tmp_path)
    for _ in range(2):
        with pytest.raises(DataDirectoryInUse, match=f"process {os.getpid()};"):
            DirectoryLock(tmp_path)
    lock.release()
    DirectoryLock(tmp_path).release()


def test_a_path_that_is_no_directory_is_refused(tmp_path: Path, catalog: Catalog) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        LedgerError, match=r"file: cannot be used as a data directory .* check path and rights"
    ):
        Ledger(tmp_path / "file", catalog)


def test_a_file_that_is_no_ledger_is_refused_and_the_directory_is_free_again(
    tmp_path: Path, catalog: Catalog
) -> None:
    (tmp_path / "ledger.duckdb").write_bytes(b"not a database" * 1000)
    with pytest.raises(LedgerError, match=r"ledger.duckdb: cannot be opened .* restore it from a backup"):
        Ledger(tmp_path, catalog)
    DirectoryLock(tmp_path).release()


def test_a_ledger_of_a_newer_program_is_refused_and_not_touched(tmp_path: Path, catalog: Catalog) -> None:
    ledger = Ledger(tmp_path, catalog)
    ledger.con.execute("UPDATE meta SET value = '999' WHERE key = 'schema_version'")
    ledger.close()
    before = contents(tmp_path)
    told = rf"newer Gigawatch \(schema version 999; this program knows {SCHEMA_VERSION}\)"
    with pytest.raises(LedgerError, match=told):
        Ledger(tmp_path, catalog)
    assert contents(tmp_path) == before
    DirectoryLock(tmp_path).release()


def test_a_ledger_whose_series_were_named_by_another_hash_is_refused(
    tmp_path: Path, catalog: Catalog
) -> None:
    ledger = Ledger(tmp_path, catalog)
    ledger.con.execute("UPDATE meta SET value = '1' WHERE key = 'hash'")
    ledger.close()
    with pytest.raises(LedgerError, match="install the version that the lock file names"):
        Ledger(tmp_path, catalog)


def test_an_older_ledger_is_brought_up_to_date_once(
    tmp_path: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    Ledger(tmp_path, catalog).close()
    newer = tables.SCHEMA_VERSION + 1
    monkeypatch.setattr(tables, "SCHEMA_VERSION", newer)
    step = "CREATE TABLE came_later AS SELECT 1 AS one"  # would fail a second time
    monkeypatch.setitem(tables.MIGRATIONS, newer - 1, (step,))
    for _ in range(2):
        ledger = Ledger(tmp_path, catalog)
        assert ledger.con.execute("FROM came_later").fetchall() == [(1,)]
        ledger.close()
    assert ("schema_version", str(newer)) in contents(tmp_path)["meta"]


def test_a_ledger_of_version_8_gets_the_columns_of_energy_that_is_counted_and_a_place_for_reports(
    tmp_path: Path, catalog: Catalog
) -> None:
    def columns(ledger: Ledger) -> set[Any]:
        found = (
            "SELECT table_name, column_name, data_type FROM duckdb_columns() WHERE table_name LIKE '%energy%'"
        )
        return set(ledger.con.execute(found).fetchall())

    ledger = Ledger(tmp_path, catalog)
    expected = columns(ledger)
    ledger.con.execute("DROP TABLE revised_energy")
    for table, column, _ in expected:
        if column.startswith("energy_joules"):
            ledger.con.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
    ledger.con.execute("UPDATE meta SET value = '8' WHERE key = 'schema_version'")
    ledger.close()
    ledger = Ledger(tmp_path, catalog)
    assert columns(ledger) == expected
    ledger.close()


def test_a_ledger_of_the_first_version_gets_the_columns_that_standing_lacked(
    tmp_path: Path, catalog: Catalog
) -> None:
    ledger = Ledger(tmp_path, catalog)
    for column in ("window", "samples", "facts"):
        ledger.con.execute(f'ALTER TABLE standing DROP COLUMN "{column}"')
    ledger.con.execute("DROP TABLE readings")
    ledger.con.execute(
        "INSERT INTO standing BY NAME SELECT 'k' AS contract, 'floor' AS clause, 'CapacityShortfall' AS alertname, "
        "'{}' AS by_values, 'ok' AS state, 1.0 AS observed, 1.0 AS bound, 'GPUs' AS unit, "
        "TIMESTAMP '2026-01-01' AS since, TIMESTAMP '2026-01-01' AS \"time\""
    )
    ledger.con.execute("UPDATE meta SET value = '1' WHERE key = 'schema_version'")
    ledger.close()
    ledger = Ledger(tmp_path, catalog)
    row = ledger.con.execute('SELECT clause, "window", samples, facts FROM standing').fetchall()
    assert row == [("floor", None, None, None)]
    assert ledger.con.execute("SELECT count(*) FROM readings").fetchone() == (0,)
    ledger.close()


def test_a_ledger_of_version_4_gets_the_declared_intervals(tmp_path: Path, catalog: Catalog) -> None:
    ledger = Ledger(tmp_path, catalog)
    widths = [f"partials_{view}_{width.name}" for view in ("gpu", "queue", "energy") for width in WIDTHS]
    for table in widths:
        ledger.con.execute(f"ALTER TABLE {table} DROP COLUMN interval")
    ledger.con.execute("INSERT INTO partials_gpu_10s BY NAME SELECT 1 AS series, 7 AS samples")
    ledger.con.execute("UPDATE meta SET value = '4' WHERE key = 'schema_version'")
    ledger.close()
    ledger = Ledger(tmp_path, catalog)
    assert ledger.con.execute("SELECT samples, interval FROM partials_gpu_10s").fetchall() == [(7, None)]
    for table in widths:
        ledger.con.execute(f"SELECT max(interval) FROM {table}")
    ledger.close()


def test_a_ledger_of_version_4_knows_at_once_who_has_reported_which_measure(
    make_ledger: Any, tmp_path: Path, catalog: Catalog, rows: Any
) -> None:
    small = make_ledger(tmp_path, catalog)
    small.add("gpu", [rows.gpu(1_790_000_000, power_watts=500.0), rows.gpu(1_790_000_003)])
    expected = small.con.execute("SELECT * FROM seen_gpu ORDER BY ALL").fetchall()
    assert {(row[1], row[2]) for row in expected} == {
        ("", rows.moment(1_790_000_003)),
        ("power_watts", rows.moment(1_790_000_000)),
    }
    small.con.execute("DELETE FROM seen_gpu WHERE measure <> ''")
    for column in ("measure", "reach", "interval"):
        small.con.execute(f"ALTER TABLE seen_gpu DROP COLUMN {column}")
    small.con.execute("ALTER TABLE flow_gpu DROP COLUMN reach")
    small.con.execute("UPDATE meta SET value = '4' WHERE key = 'schema_version'")
    small.close()
    ledger = Ledger(tmp_path, catalog)
    found = ledger.con.execute(
        "SELECT series, measure, last_time, reach FROM seen_gpu ORDER BY ALL"
    ).fetchall()
    assert found == [row[:4] for row in expected]
    assert ledger.con.execute("SELECT reach - last_time FROM flow_gpu").fetchall()[0] == (
        timedelta(seconds=30),
    )
    ledger.close()


def test_a_ledger_of_version_4_knows_at_once_which_gpus_have_moved(
    make_ledger: Any, tmp_path: Path, catalog: Catalog, rows: Any
) -> None:
    small = make_ledger(tmp_path, catalog)
    for at, cluster in ((1_790_000_000, "c1"), (1_790_000_030, "c2"), (1_790_000_060, "c2")):
        small.add("gpu", [{**rows.gpu(at, gpu=n, cluster=cluster), "gpu": f"g{n}"} for n in range(3)])
    small.add("gpu", [rows.gpu(1_790_000_060, gpu=7, cluster="c1")])
    names = [f"{kind}_gpu" for kind in ("shared", "kin", "sightings", "moved")]
    newest = "SELECT entity, series, max(window_start) FROM sightings_gpu GROUP BY ALL ORDER BY ALL"
    asked = ["FROM shared_gpu ORDER BY ALL", "FROM kin_gpu ORDER BY ALL", newest]
    expected = [small.con.execute(sql).fetchall() for sql in asked]
    assert [len(found) for found in expected] == [6, 2, 6]
    for name in names:
        small.con.execute(f"DROP TABLE {name}")
    small.con.execute("UPDATE meta SET value = '4' WHERE key = 'schema_version'")
    small.close()
    ledger = Ledger(tmp_path, catalog)
    assert [ledger.con.execute(sql).fetchall() for sql in asked] == expected
    ledger.close()


def test_of_the_waits_in_a_ledger_of_version_4_the_bounds_of_their_buckets_are_known(
    make_ledger: Any, tmp_path: Path, catalog: Catalog, rows: Any
) -> None:
    small = make_ledger(tmp_path, catalog)
    small.add("queue", [rows.queue(1_790_000_000, 599.0, 0.0)])
    tables_of = [f"hist_queue_{width.name}" for width in WIDTHS]
    for table in tables_of:
        assert small.con.execute(f"SELECT least, greatest FROM {table} ORDER BY 1").fetchall() == [
            (0, 0),
            (599, 599),
        ]
        small.con.execute(f"ALTER TABLE {table} DROP COLUMN least")
        small.con.execute(f"ALTER TABLE {table} DROP COLUMN greatest")
    small.con.execute("UPDATE meta SET value = '4' WHERE key = 'schema_version'")
    small.close()
    ledger = Ledger(tmp_path, catalog)
    for table in tables_of:
        found = ledger.con.execute(
            f"SELECT round(least, 1), round(greatest, 3) FROM {table} ORDER BY 1"
        ).fetchall()
        assert found == [(0.0, 0.001), (595.8, 608.874)]
    ledger.close()


def test_a_migration_that_fails_changes_nothing(
    tmp_path: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    Ledger(tmp_path, catalog).close()
    before = contents(tmp_path)
    monkeypatch.setattr(tables, "SCHEMA_VERSION", tables.SCHEMA_VERSION + 1)
    steps = ("CREATE TABLE came_later(one INTEGER)", "SELECT * FROM nothing")
    monkeypatch.setitem(tables.MIGRATIONS, tables.SCHEMA_VERSION - 1, steps)
    with pytest.raises(duckdb.Error):
        Ledger(tmp_path, catalog)
    monkeypatch.undo()
    assert contents(tmp_path) == before
    Ledger(tmp_path, catalog).close()


def test_every_opening_is_a_generation_and_fences_the_one_before(ledger: Any, rows: Any) -> None:
    ledger.add("gpu", [rows.gpu(1_790_000_000)])
    ledger.con.execute("UPDATE meta SET value = (value::INTEGER + 1)::VARCHAR WHERE key = 'generation'")
    with pytest.raises(StaleGeneration, match="taken over by another writer"):
        ledger.add("gpu", [rows.gpu(1_790_000_010)])
    with pytest.raises(StaleGeneration):
        ledger.ledger.bind_cluster("any")
    assert ledger.con.execute("SELECT sum(samples)::INTEGER FROM partials_gpu_1d").fetchall() == [(1,)]


def test_a_transaction_that_fails_leaves_nothing(ledger: Any) -> None:
    with pytest.raises(ZeroDivisionError), transaction(ledger.con):
        ledger.con.execute("INSERT INTO meta VALUES ('half', 'done')")
        1 / 0  # noqa: B018
    assert ledger.con.execute("SELECT count(*) FROM meta WHERE key = 'half'").fetchall() == [(0,)]


# A disk that is full


@pytest.mark.parametrize("text", ["No space left on device", "Disk quota exceeded", "File too large"])
def test_what_a_full_disk_raises_says_what_to_do(tmp_path: Path, text: str) -> None:
    with pytest.raises(DiskFull) as full, disk_errors(tmp_path):
        raise duckdb.IOException(f'Could not write file "x": {text}')
    assert str(tmp_path) in str(full.value) and "with a smaller keep_raw_days less is kept" in str(full.value)
    assert full.value.exit_code != 0


def test_an_error_that_says_enough_is_not_wrapped_again(tmp_path: Path) -> None:
    with pytest.raises(GigawatchError, match=r"^own: No space left on device$"), disk_errors(tmp_path):
        raise GigawatchError("own: No space left on device")
    with pytest.raises(duckdb.OutOfMemoryException), disk_errors(tmp_path):
        raise duckdb.OutOfMemoryException("could not allocate block of size 256.0 KiB")


FILL = """
import resource, sys
from pathlib import Path
sys.path.insert(0, "tests/ledger")
from conftest import SmallLedger, gpu_row
from pipeline.catalog import load
from pipeline.errors import DiskFull
small = SmallLedger(Path(sys.argv[1]), load())
limit = int(sys.argv[2])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
done = 0
try:
    while True:
        small.add("gpu", [gpu_row(1790000000 + done, g, f"c{g}", f"{done}-{g}") for g in range(300)])
        done += 1
except DiskFull as full:
    print(done, full, flush=True)
"""
COUNTS = "SELECT (SELECT sum(samples) FROM partials_gpu_1d), (SELECT sum(rows) FROM segments), (SELECT count(*) FROM segments)"


def filled(data: Path, limit: int) -> int:
    """Deltas of 300 samples that were applied before a process found the disk full, and said so."""
    process = python(FILL, data, limit)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, output[-3000:]
    count, _, text = output.strip().splitlines()[-1].partition(" ")
    assert "no space left on the disk" in text and "with a smaller keep_raw_days less is kept" in text
    assert "nothing is lost" in text
    return int(count)


def check_nothing_lost(data: Path, catalog: Catalog, deltas: int) -> None:
    """What was applied is there, once; what was not left no trace; and it goes on."""
    ledger = Ledger(data, catalog)
    recover(ledger.cursor(), data, ledger.fence)
    try:
        assert ledger.con.execute(COUNTS).fetchall() == [(300 * deltas, 300 * deltas, deltas)]
        assert len(list((data / "segments").iterdir())) == deltas
        assert seal(ledger.cursor(), data, catalog) == 300 * deltas
        raw = f"SELECT count(*), count(DISTINCT id) FROM read_parquet('{data}/history/*/*/*/*.parquet')"
        assert ledger.con.execute(raw).fetchall() == [(300 * deltas, 300 * deltas)]
    finally:
        ledger.close()


def test_a_limit_on_the_size_of_files_is_named_and_nothing_changes(tmp_path: Path, catalog: Catalog) -> None:
    """RLIMIT_FSIZE stops the write-ahead log in the middle of a commit, as a full disk does."""
    deltas = filled(tmp_path / "data", 4 * MIB)
    assert deltas > 2
    check_nothing_lost(tmp_path / "data", catalog, deltas)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("needs root to mount a small file system; the test above does without")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_named_and_nothing_changes(small_disk: Path, catalog: Catalog) -> None:
    data = small_disk / "data"
    deltas = filled(data, 0)
    assert deltas > 2
    try:  # what the failed delta left may be just enough to start again, or not
        Ledger(data, catalog).close()
    except GigawatchError as refused:
        assert "no space left on the disk" in str(refused)
    subprocess.run(["mount", "-o", "remount,size=100m", str(small_disk)], check=True)
    check_nothing_lost(data, catalog, deltas)


# Recovery


def test_segments_without_a_committed_record_are_deleted_at_the_start(
    tmp_path: Path, catalog: Catalog, make_ledger: Any, rows: Any
) -> None:
    first = make_ledger(tmp_path, catalog)
    first.add("gpu", [rows.gpu(1_790_000_000)], segment="gpu-kept.parquet")
    first.close()
    (tmp_path / "segments" / "gpu-orphan.parquet").write_bytes(b"half")
    (tmp_path / "staging").mkdir(exist_ok=True)
    (tmp_path / "staging" / "half").write_bytes(b"half")
    again = Ledger(tmp_path, catalog)
    recover(again.cursor(), tmp_path)
    again.close()
    assert [p.name for p in (tmp_path / "segments").iterdir()] == ["gpu-kept.parquet"]
    assert list((tmp_path / "staging").iterdir()) == []
