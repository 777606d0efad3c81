"""Settings: where they come from, and what is refused before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import SettingsError
from pipeline.serve.listening import tls_context
from pipeline.settings import read_secret


@pytest.mark.parametrize("mode", [0o666, 0o620, 0o602])
def test_a_secret_that_others_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "secret"
    file.write_text("let-me-in\n")
    file.chmod(mode)
    for read in (read_secret, lambda file: tls_context(file, file)):
        with pytest.raises(SettingsError, match=f"{file}: found rights {mode:o}, .* chmod go-w"):
            read(file)


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o440])
def test_a_secret_that_others_may_at_most_read_is_taken(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "secret"
    file.write_text("let-me-in\n")
    file.chmod(mode)
    assert read_secret(file) == "let-me-in"


def test_a_secret_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="the secret cannot be read"):
        read_secret(tmp_path / "none")
