"""What a run makes is for its owner and its group."""

from __future__ import annotations

from typing import Any


def test_directories_are_750_and_files_640(kafka: Any, telemetry_topics: Any, worker_factory: Any) -> None:
    telemetry_topics()
    worker = worker_factory(kafka.bootstrap).start().await_begun()
    assert worker.stop() == 0, worker.said()
    found = {path: path.stat().st_mode & 0o777 for path in [worker.data, *worker.data.rglob("*")]}
    assert len(found) > 5
    assert {
        path: oct(mode) for path, mode in found.items() if mode & ~(0o750 if path.is_dir() else 0o640)
    } == {}
