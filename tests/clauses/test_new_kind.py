"""A kind of clause that the product does not have is one Python file, one fragment and one line in a registry.

That is shown in a copy of the project: nothing else in it is touched, but what `python tests/test_docs.py` and
`gigawatch dashboards build` write.
"""

from __future__ import annotations

import filecmp
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ADDED = Path(__file__).parent / "added"
REGISTRY = "pipeline/clauses/__init__.py"
BY_HAND = {REGISTRY, "pipeline/clauses/temperature.py", "schemas/clauses/temperature.json"}
MADE = {"docs/alerts.md", "docs/contracts.md", "schemas/contract.json", "schemas/example-contract.yaml"}
CHECK = "tests/board/test_temperature.py"


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with a kind `temperature`."""
    to = tmp_path_factory.mktemp("gigawatch")
    for path in runpy.run_path(str(ROOT / "tests" / "test_docs.py"))["committed"]():
        place = to / path.relative_to(ROOT)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
    shutil.copyfile(ADDED / "temperature.py", to / "pipeline/clauses/temperature.py")
    shutil.copyfile(ADDED / "temperature.json", to / "schemas/clauses/temperature.json")
    registry = (to / REGISTRY).read_text("utf-8")
    assert registry.count('        "tranches",\n') == 1
    (to / REGISTRY).write_text(
        registry.replace('        "tranches",\n', '        "tranches",\n        "temperature",\n')
    )
    run(to, "tests/test_docs.py")
    run(to, "-m", "pipeline.cli", "dashboards", "build", "--out", "dashboards")
    shutil.copyfile(ADDED / "check_temperature.py", to / CHECK)
    return to


def run(folder: Path, *arguments: str) -> None:
    """Python with these arguments, on the copy's own code."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-3000:]}"


def test_nothing_else_is_touched(copy: Path) -> None:
    files = {str(path.relative_to(copy)) for path in copy.rglob("*") if path.is_file()}
    changed = {
        name
        for name in files
        if not (ROOT / name).exists() or not filecmp.cmp(copy / name, ROOT / name, shallow=False)
    }
    made = {name for name in changed if name.startswith("dashboards/")}
    assert changed - made - {CHECK} == BY_HAND | MADE


def test_it_is_checked_judged_told_shown_and_documented_like_any_other(copy: Path) -> None:
    run(copy, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", CHECK)


def test_the_tests_of_every_kind_hold_for_it(copy: Path) -> None:
    documents = ["tests/test_docs.py", "-k", "table or schema or example or fragment"]
    run(copy, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "tests/clauses/test_kinds.py")
    run(copy, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "tests/contract/test_schema.py")
    run(copy, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *documents)
