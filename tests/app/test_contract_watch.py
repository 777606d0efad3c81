"""Contracts while the pipeline runs: taken over when their bytes change, parsed only then, refused as a whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.app import contract_watch
from pipeline.app.contract_watch import ContractWatch
from pipeline.catalog import load, schema_directory
from pipeline.errors import ContractError

EXAMPLE = (schema_directory() / "example-contract.yaml").read_text("utf-8")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A contract in a directory of its own."""
    path = tmp_path / "contracts" / "one.yaml"
    path.parent.mkdir()
    path.write_text(EXAMPLE, "utf-8")
    return path


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """What was parsed, time after time."""
    seen: list[Path] = []
    load_all = contract_watch.load_all

    def note(path: Path, *given: object) -> object:
        seen.append(path)
        return load_all(path, *given)

    monkeypatch.setattr(contract_watch, "load_all", note)
    return seen


def test_a_contract_is_parsed_again_only_when_its_bytes_changed(file: Path, parsed: list[Path]) -> None:
    watch = ContractWatch(file.parent, load())
    for _ in range(3):
        file.touch()
        assert watch.look() is None
    assert parsed == [file.parent]
    file.write_text(f"{EXAMPLE}# a comment\n", "utf-8")
    found = watch.look()
    assert found is not None and found[0].digest != watch.current[0].digest
    watch.take(found)
    assert watch.look() is None and watch.current == found
    assert len(parsed) == 2


def test_a_wrong_contract_is_refused_once_and_the_old_one_goes_on(file: Path, parsed: list[Path]) -> None:
    watch = ContractWatch(file, load())
    before = watch.current
    file.write_text(EXAMPLE.replace("currency:", "currrency:"), "utf-8")
    for _ in range(3):
        assert watch.look() is None
    assert watch.current == before and watch.error is not None and "currrency" in watch.error
    assert len(parsed) == 2
    file.write_text(EXAMPLE, "utf-8")
    assert watch.look() is None, "it is the one in force"
    assert watch.error is None


def test_a_second_contract_and_a_directory_that_vanishes_are_seen(file: Path) -> None:
    watch = ContractWatch(file.parent, load())
    other = file.with_name("two.yaml")
    second = EXAMPLE.replace("northwind-aurora", "northwind-other").partition("\npipeline:")[0]
    other.write_text(f"{second}\n", "utf-8")
    found = watch.look()
    assert found is not None and len(found) == 2
    watch.take(found)
    for each in (file, other):
        each.unlink()
    assert watch.look() is None and watch.error is not None and "no contract in this directory" in watch.error
    assert watch.current == found


def test_the_first_contract_must_be_right(file: Path) -> None:
    file.write_text("metadata: {}\n", "utf-8")
    with pytest.raises(ContractError, match=r"one\.yaml:1"):
        ContractWatch(file, load())
    assert ContractWatch(None, load()).look() is None
