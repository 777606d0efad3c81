"""Published files are the ones that the ledger knows: what was changed by another hand is named."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.catalog import Catalog
from pipeline.errors import LedgerError
from pipeline.history import compact, verify
from pipeline.ledger.store import Ledger
from pipeline.ledger.transaction import Hooks
from tests.ledger.conftest import killed_at

T = 1_767_225_600  # 2026-01-01T00:00:00Z
HOUR = 3600


@pytest.fixture
def two_hours(ledger: Any, rows: Any) -> Any:
    """GPU samples of two hours, sealed and published."""
    ledger.add("gpu", [rows.gpu(T + at) for at in (0, 30, 60)])
    ledger.add("gpu", [rows.gpu(T + HOUR + at) for at in (0, 30)])
    ledger.seal()
    ledger.publish()
    return ledger


def raw_files(data: Path) -> list[Path]:
    return sorted((data / "history" / "telemetry.gpu").rglob("*.parquet"))


def look(
    ledger: Any, catalog: Catalog, turns: verify.ChecksumRotation | None = None
) -> dict[str, tuple[str, int | None]]:
    found = verify.look(
        ledger.ledger.cursor(), ledger.data, catalog, turns or verify.ChecksumRotation(), ledger.ledger.fence
    )
    return {one.path: (one.what, one.rows) for one in found}


def test_what_was_published_is_as_it_was_published(two_hours: Any, catalog: Catalog) -> None:
    assert look(two_hours, catalog) == {}


def test_missing_extra_copied_and_changed_files_are_named_with_their_rows(
    two_hours: Any, catalog: Catalog
) -> None:
    first, second = raw_files(two_hours.data)
    copy = second.with_name("copy.parquet")
    shutil.copy(second, copy)
    text = second.read_bytes()
    second.write_bytes(text[:100] + bytes([text[100] ^ 1]) + text[101:])
    first.unlink()
    name = {path: str(path.relative_to(two_hours.data)) for path in (first, second, copy)}
    assert look(two_hours, catalog) == {
        name[first]: ("missing", 3), name[copy]: ("copy", 2), name[second]: ("changed", 2)
    }  # fmt: skip
    second.write_bytes(text[:-1])
    assert look(two_hours, catalog)[name[second]] == ("changed", 2)


def test_checksums_are_compared_in_turns_what_was_written_last_first(
    two_hours: Any, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "LOOK_SECONDS", -1.0)  # one a look
    turns, (_, second) = verify.ChecksumRotation(), raw_files(two_hours.data)
    files = sum(1 for _ in two_hours.data.rglob("*.parquet"))
    for _ in range(files + 1):
        assert look(two_hours, catalog, turns) == {}
    text = second.read_bytes()
    second.write_bytes(text[:100] + bytes([text[100] ^ 1]) + text[101:])
    name = str(second.relative_to(two_hours.data))
    assert look(two_hours, catalog) == {name: ("changed", 2)}, "after a start it is the first to be compared"
    seen = [look(two_hours, catalog, turns) for _ in range(2 * files)]
    first = seen.index({name: ("changed", 2)})
    assert first < files and all(each == {name: ("changed", 2)} for each in seen[first:])


def test_a_roll_up_that_is_missing_or_changed_is_named_and_written_anew(
    two_hours: Any, catalog: Catalog
) -> None:
    minutes = sorted((two_hours.data / "rollups/telemetry.gpu/1m").rglob("*.parquet"))
    whole = minutes[0].read_bytes()
    minutes[0].write_bytes(whole[:-20])
    minutes[1].unlink()
    assert {what for what, _ in look(two_hours, catalog).values()} == {"missing", "changed"}
    two_hours.publish()
    assert minutes[0].read_bytes() == whole and minutes[1].exists()
    assert look(two_hours, catalog) == {}


def test_merging_settling_and_forgetting_are_no_tampering(
    two_hours: Any, catalog: Catalog, rows: Any
) -> None:
    two_hours.add("gpu", [rows.gpu(T + 90)])
    two_hours.seal()
    two_hours.watermark(T + 4 * HOUR)
    con, data = two_hours.ledger.cursor(), two_hours.data
    assert compact.compact_history(con, data, catalog, Hooks(two_hours.ledger.fence)) == 1
    two_hours.publish()
    assert look(two_hours, catalog) == {}
    assert compact.settle_rollups(con, data, catalog, Hooks(two_hours.ledger.fence)) > 0
    two_hours.publish()
    assert look(two_hours, catalog) == {}


def test_a_changed_file_is_not_merged_away(two_hours: Any, catalog: Catalog, rows: Any) -> None:
    two_hours.add("gpu", [rows.gpu(T + 90)])
    two_hours.seal()
    two_hours.watermark(T + 4 * HOUR)
    raw_files(two_hours.data)[0].write_bytes(b"PAR1")
    con = two_hours.ledger.cursor()
    assert compact.compact_history(con, two_hours.data, catalog, Hooks(two_hours.ledger.fence)) == 0


@pytest.mark.parametrize("action, step", [("publish", "publish.renamed"), ("settle", "settle.exchanged")])
def test_a_kill_between_files_and_their_record_is_no_tampering(
    action: str, step: str, two_hours: Any, catalog: Catalog, rows: Any, make_ledger: Any
) -> None:
    two_hours.add("gpu", [rows.gpu(T + 95)])
    if action == "settle":
        two_hours.publish()
    two_hours.watermark(T + 4 * HOUR)
    two_hours.close()
    killed_at(two_hours.data, action, step)
    again = make_ledger(two_hours.data, catalog)
    try:
        con = again.ledger.cursor()
        assert verify.tampered(con, again.data, catalog) == []
        again.publish()
        assert look(again, catalog) == {}
    finally:
        again.close()


def test_a_ledger_without_its_write_ahead_log_does_not_take_published_rows_in_again(
    ledger: Any, rows: Any, catalog: Catalog
) -> None:
    ledger.add("gpu", [rows.gpu(T)])
    ledger.close()
    killed_at(ledger.data, "seal", "seal.published")
    (ledger.data / "ledger.duckdb.wal").unlink()
    before = {p: p.read_bytes() for p in ledger.data.rglob("*.parquet")}
    with pytest.raises(
        LedgerError, match=r"older than the published files beside it.*nothing was changed"
    ) as told:
        Ledger(ledger.data, catalog)
    assert told.value.exit_code == 5
    assert {p: p.read_bytes() for p in ledger.data.rglob("*.parquet")} == before


def test_files_of_before_sizes_were_noted_are_taken_as_they_stand(
    two_hours: Any, catalog: Catalog, make_ledger: Any
) -> None:
    for statement in (
        "DELETE FROM published",
        "UPDATE files SET bytes = NULL, checksum = NULL",
        f"INSERT INTO meta VALUES ('{verify.ADOPT}', 'yes')",
    ):
        two_hours.con.execute(statement)
    assert verify.tampered(two_hours.ledger.cursor(), two_hours.data, catalog) == []
    assert look(two_hours, catalog) == {}
    raw_files(two_hours.data)[0].write_bytes(b"PAR1")
    assert [what for what, _ in look(two_hours, catalog).values()] == ["changed"]
