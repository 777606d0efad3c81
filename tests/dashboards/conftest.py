"""The peak season, played into a data directory."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def season(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """(DATA, its last instant): the peak season, played."""
    folder = tmp_path_factory.mktemp("season")
    played = runpy.run_path(str(Path(__file__).parent / "played.py"))
    play = played["play_into"](folder / "data", folder / "contracts")
    return folder / "data", play.end
