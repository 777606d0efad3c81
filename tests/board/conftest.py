"""Boards over a stage, as processes of their own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.board.stage import Stage
from tests.patience import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
BOARD_READY = "board ready at "


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """A data directory of the test's own, with a pipeline's lock on it."""
    made = Stage(tmp_path / "data")
    yield made
    made.close()


@dataclass
class Board:
    """`gigawatch board` as a child process."""

    process: subprocess.Popen[bytes]
    log: Path
    address: str = ""

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def stop(self) -> int:
        assert self.process.stdin is not None
        if not self.process.stdin.closed:
            self.process.stdin.close()
        return self.process.wait(PATIENCE)


def start_board(data: Path, log: Path, *arguments: str) -> Board:
    """A board on a free port, ready."""
    command = [sys.executable, "-P", "-m", "pipeline.cli", "board", "--child", "--data", str(data)]
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [*command, "--port", "0", *arguments], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=errors,
        )  # fmt: skip
    assert process.stdout is not None
    line = process.stdout.readline().decode()
    assert line.startswith(BOARD_READY), log.read_text()
    return Board(process, log, line.removeprefix(BOARD_READY).strip())


@pytest.fixture
def open_board(tmp_path: Path) -> Iterator[Callable[..., Board]]:
    """`open_board(data, *arguments)`: a board of the test's own."""
    opened: list[Board] = []

    def make(data: Path, *arguments: str) -> Board:
        opened.append(start_board(data, tmp_path / f"board-{len(opened)}.log", *arguments))
        return opened[-1]

    yield make
    for board in opened:
        board.stop()


@pytest.fixture(scope="session")
def full_stage() -> Callable[[Stage], None]:
    """A function that puts alerts of every severity on a stage, a hostile one among them, and a tranche."""

    def fill(stage: Stage) -> None:
        evil = "<script>alert(1)</script>" + "W" * 10_000
        stage.alert(region="eu-west")
        stage.alert("pending", region="us-east", severity="warning", ago=30)
        notes = {"runbook": "javascript:alert(1)", "text": evil, "sql": evil}
        stage.alert(region=evil, severity="ticket", annotations=notes)
        stage.stands("breach", region="eu-west")
        stage.stands("unknown", region="us-west", observed=None)
        stage.stands("ok", region=evil)
        stage.spend()
        stage.publish()

    return fill


@pytest.fixture(scope="session")
def _shared(
    tmp_path_factory: pytest.TempPathFactory, full_stage: Callable[[Stage], None]
) -> Iterator[tuple[Stage, Board]]:
    folder = tmp_path_factory.mktemp("board")
    stage = Stage(folder / "data")
    full_stage(stage)
    board = start_board(stage.data, folder / "board.log")
    yield stage, board
    board.stop()
    stage.close()


@pytest.fixture
def shared_board(_shared: tuple[Stage, Board]) -> Board:
    """A board over a full stage, for tests that change nothing; its pipeline has just spoken."""
    _shared[0].publish()
    return _shared[1]
