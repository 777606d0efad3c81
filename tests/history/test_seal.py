"""Sealing: whatever moment the process dies at, every raw row is published once."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import duckdb
import pytest

from pipeline.catalog import Catalog
from pipeline.errors import DiskFull, LedgerError, StaleGeneration
from pipeline.history import compact, query, seal
from pipeline.history.health_table import Pulse
from pipeline.history.housekeeping import Housekeeper
from pipeline.ledger import files, tables
from pipeline.ledger.transaction import Hooks

T = 1_767_225_600  # 2026-01-01T00:00:00Z
GPU_FILES = "history/telemetry.gpu/*/*/*.parquet"


def published(data: Path, catalog: Catalog, view: str = "gpu") -> list[Any]:
    """(time, source, id, idx) of every published raw row, as a reader sees them."""
    con = query.open_views(data, catalog)
    asked = query.ask(con, f"SELECT time, source, id, idx FROM {view} ORDER BY ALL")
    return list(asked.rows)


def identities(rows: list[dict[str, Any]]) -> list[Any]:
    return sorted((r["time"], r["source"], r["id"], r["idx"]) for r in rows)


def flat(deltas: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return [row for delta in deltas for row in delta]


@pytest.fixture
def two_hours(rows: Any) -> list[list[dict[str, Any]]]:
    """Three deltas over two hours of event time, one of them with a late row."""
    return [
        [rows.gpu(T + 10 * i, gpu, power_watts=700.0 + i) for i in range(20) for gpu in range(3)],
        [rows.gpu(T + 3_500 + 10 * i, gpu, cluster="c1") for i in range(20) for gpu in range(3)],
        [rows.gpu(T + 5, 99), rows.gpu(T + 3_700, 99)],
    ]


def test_segments_become_one_sorted_file_for_each_hour_and_are_gone(
    ledger: Any, catalog: Catalog, two_hours: Any
) -> None:
    for batch in two_hours:
        ledger.add("gpu", batch)
    assert published(ledger.data, catalog) == []
    assert ledger.seal() == sum(map(len, two_hours))
    assert published(ledger.data, catalog) == identities(flat(two_hours))
    hours = sorted(str(p.parent.relative_to(ledger.data)) for p in ledger.data.glob(GPU_FILES))
    assert hours == [f"history/telemetry.gpu/date=2026-01-01/hour=0{h}" for h in (0, 1)]
    assert ledger.segments() == 0
    for path in ledger.data.glob(GPU_FILES):
        order = duckdb.sql(f"SELECT cluster, sku, gpu, node, time FROM '{path}'").fetchall()
        assert order == sorted(order)


def test_alerts_and_health_are_published_while_a_bill_of_many_hours_is_sealed(
    ledger: Any, catalog: Catalog, rows: Any
) -> None:
    """The board would otherwise say nothing of what the pager said minutes ago."""
    ledger.add("billing", [rows.charge(T + 3600 * n, T + 3600 * n, "1.25", f"c{n}") for n in range(40)])
    seen: list[tuple[int, list[tuple[int]]]] = []

    def pulse() -> Pulse:
        """Asked before each publishing: how many hours are written then, and the lag that readers see."""
        with query.open_views(ledger.data, catalog) as con:
            lag = con.sql("SELECT lag FROM data_age").fetchall()
        seen.append((len(list((ledger.data / "staging").glob("*.parquet"))), lag))
        return Pulse({"telemetry.gpu": len(seen)})

    keeper = Housekeeper(ledger.ledger, 0.0, pulse, publish_every=0.0)
    asyncio.run(keeper.keep())
    keeper.close()
    assert [lag for _, lag in seen] == [[(n,)] if n else [] for n in range(len(seen))], (
        "each is published at once"
    )
    assert seen[0][0] == 0 and {n for n, _ in seen} >= set(range(1, 41)), (
        "first of all, and between any two hours"
    )
    with query.open_views(ledger.data, catalog) as con:
        assert con.sql("SELECT count(*), count(DISTINCT id) FROM billing").fetchall() == [(40, 40)]


def test_sealing_again_publishes_nothing_twice(ledger: Any, catalog: Catalog, two_hours: Any) -> None:
    ledger.add("gpu", two_hours[0])
    ledger.seal()
    assert ledger.seal() == 0
    ledger.add("gpu", two_hours[2])
    ledger.seal()
    assert published(ledger.data, catalog) == identities(two_hours[0] + two_hours[2])


@pytest.mark.parametrize(
    ("step", "nth"),
    [
        ("seal.written", 1),
        ("seal.committed", 1),
        ("seal.renamed", 1),
        ("seal.renamed", 2),
        ("seal.published", 1),
        ("seal.written", 2),
        ("seal.renamed", 3),
    ],
)
def test_a_kill_at_any_step_loses_no_row_and_doubles_none(
    step: str,
    nth: int,
    tmp_path: Path,
    make_ledger: Any,
    catalog: Catalog,
    two_hours: Any,
    rows: Any,
    kill: Any,
) -> None:
    ledger = make_ledger(tmp_path, catalog)
    for batch in two_hours:
        ledger.add("gpu", batch)
    ledger.add("queue", [rows.queue(T + i, 1.0) for i in range(5)])
    ledger.close()
    kill(tmp_path, "seal", step, nth)

    ledger = make_ledger(tmp_path, catalog)  # Opening recovers.
    between = published(tmp_path, catalog)
    wanted = identities(flat(two_hours))
    assert between in ([], wanted)
    assert list((tmp_path / "staging").iterdir()) == []
    recorded = {path for (path,) in ledger.con.execute("SELECT path FROM files").fetchall()}
    assert {str(p.relative_to(tmp_path)) for p in tmp_path.glob("history/*/*/*/*.parquet")} == recorded
    ledger.seal()
    assert published(tmp_path, catalog) == wanted
    assert len(published(tmp_path, catalog, "queue")) == 5
    assert ledger.segments() == 0
    ledger.close()


def test_a_segment_without_a_committed_record_is_deleted_at_start(
    tmp_path: Path, make_ledger: Any, catalog: Catalog, two_hours: Any
) -> None:
    ledger = make_ledger(tmp_path, catalog)
    ledger.add("gpu", two_hours[0], "committed.parquet")
    (tmp_path / "segments" / "uncommitted.parquet").write_bytes(b"half a fi")
    ledger.close()
    ledger = make_ledger(tmp_path, catalog)
    assert [p.name for p in (tmp_path / "segments").iterdir()] == ["committed.parquet"]
    ledger.seal()
    assert published(tmp_path, catalog) == identities(two_hours[0])
    ledger.close()


def test_a_committed_file_that_is_nowhere_stops_the_start_and_says_which(
    tmp_path: Path, make_ledger: Any, catalog: Catalog, two_hours: Any, kill: Any
) -> None:
    ledger = make_ledger(tmp_path, catalog)
    ledger.add("gpu", two_hours[0])
    ledger.close()
    kill(tmp_path, "seal", "seal.committed")
    for path in (tmp_path / "staging").iterdir():
        path.unlink()
    with pytest.raises(LedgerError, match="neither there nor in staging/; restore"):
        make_ledger(tmp_path, catalog)


def test_a_backlog_is_sealed_in_pieces_that_fit_in_memory(
    ledger: Any, catalog: Catalog, two_hours: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seal, "ROWS_AT_ONCE", 60)
    for batch in two_hours:
        ledger.add("gpu", batch)
    ledger.seal()
    assert len(list(ledger.data.glob(GPU_FILES))) == 5
    assert published(ledger.data, catalog) == identities(flat(two_hours))


def test_segments_that_do_not_fit_in_memory_together_are_sealed_by_halves(
    ledger: Any, catalog: Catalog, rows: Any
) -> None:
    for n in range(8):
        node = f"{n}" * 10_000
        ledger.add("gpu", [rows.gpu(T + i % 3000, 10_000 * n + i, node=f"{i}{node}") for i in range(400)])
    ledger.con.execute("SET memory_limit = '40MB'")
    assert ledger.seal() == 3_200
    assert len(list(ledger.data.glob(GPU_FILES))) > 1
    assert not list((ledger.data / "staging").iterdir())
    ledger.con.execute("SET memory_limit = '600MB'")
    assert len(published(ledger.data, catalog)) == 3_200


def test_a_quarantined_row_lies_in_the_hour_of_its_record_however_absurd_its_time(
    ledger: Any, catalog: Catalog, rows: Any
) -> None:
    absurd = [
        {
            "time": rows.moment(at),
            "record_time": rows.moment(T + 60),
            "reason": "future",
            "source": "s",
            "id": str(at),
        }
        for at in (0, T, T + 10**9)
    ]
    ledger.quarantine(absurd)
    ledger.quarantine([{"record_time": rows.moment(T + 70), "reason": "nan"}])
    ledger.seal()
    assert [str(p.parent.relative_to(ledger.data)) for p in ledger.data.glob("history/*/*/*/*.parquet")] == [
        "history/quarantine/date=2026-01-01/hour=00"
    ]
    reasons = query.ask(query.open_views(ledger.data, catalog), "SELECT reason FROM quarantine ORDER BY ALL")
    assert list(reasons.rows) == [("future",), ("future",), ("future",), ("nan",)]


def test_a_segment_of_before_keeps_the_instant_from_which_its_rows_say_that_they_count(
    ledger: Any, catalog: Catalog, rows: Any
) -> None:
    """Until version 8 the file said it, not the ledger: as it is after the upgrade."""
    said = rows.moment(T + 500)
    ledger.add("gpu", [rows.gpu(T, known_from=said), rows.gpu(T + 10, 1, known_from=said)])
    ledger.con.execute("ALTER TABLE segments DROP COLUMN known_from")
    ledger.con.execute("UPDATE meta SET value = '7' WHERE key = 'schema_version'")
    tables.create(ledger.con, catalog)
    assert ledger.con.execute("SELECT known_from FROM segments").fetchall() == [(None,)]
    ledger.seal()
    [path] = ledger.data.glob(GPU_FILES)
    assert ledger.con.execute(f"SELECT DISTINCT known_from FROM '{path}'").fetchall() == [(said,)]


def test_a_segment_of_an_undeclared_topic_is_kept_and_named(ledger: Any) -> None:
    ledger.con.execute("INSERT INTO segments VALUES ('x.parquet', 'telemetry.gone', 1, NULL, NULL, NULL)")
    with pytest.raises(LedgerError, match=r"telemetry\.gone.*put its schema back"):
        ledger.seal()
    assert ledger.con.execute("SELECT count(*) FROM segments").fetchone() == (1,)


def test_a_writer_that_was_taken_over_seals_nothing(ledger: Any, catalog: Catalog, two_hours: Any) -> None:
    ledger.add("gpu", two_hours[0])
    ledger.con.execute("UPDATE meta SET value = '99' WHERE key = 'generation'")
    with pytest.raises(StaleGeneration):
        ledger.seal(hooks=Hooks(ledger.ledger.fence))
    assert published(ledger.data, catalog) == []
    assert ledger.segments() == 1


def test_sealed_and_merged_rows_keep_every_column(ledger: Any, catalog: Catalog, rows: Any) -> None:
    sample = rows.gpu(T, utilization_ratio=0.25, xid=48, health="degraded", nvlink_domain="n1")
    sample["known_from"] = rows.moment(T + 20)
    ledger.add("gpu", [sample])
    ledger.add("gpu", [rows.gpu(T + 10)])
    ledger.seal()
    ledger.seal()
    ledger.watermark(T + 10_000)
    compact.compact_history(ledger.ledger.cursor(), ledger.data, catalog)
    con = query.open_views(ledger.data, catalog)
    first = query.ask(con, "SELECT * EXCLUDE (date) FROM gpu ORDER BY time LIMIT 1")
    seen = dict(zip(first.columns, next(first.rows), strict=True))
    assert {name: value for name, value in seen.items() if value is not None} == sample


def test_a_full_disk_is_named_and_nothing_is_lost(tmp_path: Path) -> None:
    con = duckdb.connect()
    with (
        pytest.raises(DiskFull, match=r"segments: no space left on the disk .*nothing is lost"),
        files.disk_errors(tmp_path / "segments"),
    ):
        con.execute("COPY (FROM range(1000000)) TO '/dev/full' (FORMAT csv, USE_TMP_FILE false)")
    with pytest.raises(DiskFull), files.disk_errors(tmp_path), open("/dev/full", "wb", buffering=0) as full:
        full.write(b"row")
    with pytest.raises(duckdb.OutOfMemoryException), files.disk_errors(tmp_path):
        raise duckdb.OutOfMemoryException("could not allocate block of size 256.0 KiB")
