"""A data directory that the doctor may look at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.board.stage import Stage


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """A data directory of the test's own, with a pipeline's lock on it."""
    made = Stage(tmp_path / "data")
    yield made
    made.close()
