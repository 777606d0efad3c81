"""Folders that processes spill into: gone with them, or with the next one."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pipeline.door import scratch

PREFIX = "gigawatch-test-"
LIVE = (
    f"from pipeline.door.scratch import scratch\nwith scratch({PREFIX!r}) as f: print(f, flush=True); input()"
)


@pytest.fixture(autouse=True)
def _temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)


def process() -> tuple[subprocess.Popen[str], Path]:
    started = subprocess.Popen(
        [sys.executable, "-c", LIVE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert started.stdout is not None
    return started, Path(started.stdout.readline().strip())


def test_a_folder_goes_with_its_process_and_that_of_a_killed_one_with_the_next() -> None:
    first, folder = process()
    second, other = process()
    assert folder.is_dir() and other.is_dir(), "one that lives is left alone"
    first.kill()
    first.wait()
    (folder / "spilled").write_text("x")
    assert folder.is_dir()
    with scratch.scratch(PREFIX) as mine:
        assert mine.stat().st_mode & 0o777 == 0o700
        assert not folder.exists() and other.is_dir()
    assert not mine.exists()
    second.communicate("\n")
    assert not other.exists()


def test_what_is_not_ours_or_just_being_made_stays(tmp_path: Path) -> None:
    young, old, elsewhere = tmp_path / f"{PREFIX}young", tmp_path / f"{PREFIX}old", tmp_path / "elsewhere"
    for each in (young, old, elsewhere):
        each.mkdir()
    (tmp_path / f"{PREFIX}link").symlink_to(elsewhere)
    os.utime(old, (0, 0))
    os.utime(elsewhere, (0, 0))
    scratch.sweep(PREFIX)
    assert young.is_dir() and elsewhere.is_dir() and not old.exists()
