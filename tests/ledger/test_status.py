"""`status.json`: whole at every moment, and the last word stays."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import pytest

from pipeline.ledger import status
from pipeline.ledger.status import FILE, StatusFile, read


def test_what_a_thread_has_to_say_after_the_end_is_not_heard(tmp_path: Path) -> None:
    said = StatusFile(tmp_path)
    said.write({"state": "running"})
    said.end({"state": "stopped"})
    said.write({"state": "running"})
    assert read(tmp_path) == {"state": "stopped"}
    said.end({"state": "stopped", "sealed": True})
    assert read(tmp_path) == {"state": "stopped", "sealed": True}


def test_threads_that_write_at_once_leave_a_whole_status_and_no_other_file(tmp_path: Path) -> None:
    said = StatusFile(tmp_path)
    with ThreadPoolExecutor(8) as threads:
        for result in [threads.submit(said.write, {"n": n, "long": "x" * 50_000}) for n in range(200)]:
            result.result()
    assert (read(tmp_path) or {}).keys() == {"n", "long"}
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_a_failure_is_said_in_the_last_status_and_stays(tmp_path: Path) -> None:
    said = StatusFile(tmp_path)
    said.fail("nothing was written yet")
    assert read(tmp_path) is None
    said.write({"state": "running", "in": 7})
    said.fail("the disk is full")
    said.write({"state": "running", "in": 8})
    assert read(tmp_path) == {"state": "failed", "in": 7, "error": "the disk is full"}


def test_a_topic_whose_first_events_come_between_two_questions_is_no_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    con = duckdb.connect()
    con.execute(
        "CREATE TABLE offsets(topic VARCHAR); CREATE TABLE set_aside(topic VARCHAR, reason VARCHAR, n BIGINT)"
    )
    con.execute("CREATE TABLE fates(topic VARCHAR, fate VARCHAR, reason VARCHAR, n BIGINT)")

    class Between:
        """A connection whose ledger takes in a topic's first events after the first question."""

        def execute(self, query: str) -> duckdb.DuckDBPyConnection:
            found = con.cursor().execute(query)
            con.execute("INSERT INTO fates VALUES ('telemetry.gpu', 'in', '', 3)")
            return found

    assert status._by_topic(Between())["telemetry.gpu"]["in"] == 3  # type: ignore[arg-type]
