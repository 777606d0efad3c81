"""The rooms of `pipeline/`: imports point only downwards, pure rooms are pure, folders two levels at most.

The checks work on any folder that looks like `pipeline/`, so that the last tests can show each of them a tree
that breaks its rule.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent / "pipeline"

# From the top down, as the architecture draws them: a room may use itself and what stands below it.
ROOMS = (
    ("cli",),
    ("app",),
    ("embed",),
    ("collect",),
    ("serve",),
    ("notify",),
    ("stream",),
    ("ledger",),
    ("rules",),
    ("readings",),
    ("formats",),
    ("contract",),
    ("rollup",),
    ("catalog",),
    ("settings", "secret", "errors"),
)
HEIGHT = {room: len(ROOMS) - level for level, rooms in enumerate(ROOMS) for room in rooms}
PURE = ("catalog", "rollup", "contract", "formats", "readings", "rules")

# A pure room is told everything: it neither asks a clock nor talks to an engine or the network.
FORBIDDEN_MODULES = {
    *("aiohttp", "aiokafka", "asyncio", "duckdb", "faust", "httpx", "kafka", "mode", "requests"),
    *("random", "secrets", "socket", "subprocess", "threading", "time", "urllib", "uuid"),
}
CLOCKS = {("datetime", "now"), ("datetime", "utcnow"), ("datetime", "today"), ("date", "today")}
# Files are for the loaders, which turn one into a value and do nothing else.
FILE_CALLS = {"open", "read_text", "read_bytes", "write_text", "write_bytes", "unlink", "mkdir", "rename"}
FILE_READERS = {"open", "read_text", "read_bytes"}
MAY_READ = ("catalog", "contract", "formats")


def sources(root: Path) -> Iterator[tuple[str, Path, ast.Module]]:
    """Each file under `root` as (room, path relative to root, syntax tree)."""
    for file in sorted(root.rglob("*.py")):
        path = file.relative_to(root)
        yield Path(path.parts[0]).stem, path, ast.parse(file.read_text(encoding="utf-8"), str(file))


def imported(tree: ast.Module, path: Path) -> Iterator[tuple[int, str]]:
    """Each (line, absolute dotted name) that a file imports, wherever in it; relative ones resolved."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = ["pipeline", *path.parent.parts]
            above = package[: len(package) - node.level + 1] if node.level else []
            start = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{start}.{alias.name}") for alias in node.names)


def arrows_up(root: Path) -> list[str]:
    """Imports of a room that stands higher than the importer, or of one that the table does not know."""
    found = []
    for room, path, tree in sources(root):
        if path == Path("__init__.py"):
            continue
        if room not in HEIGHT:
            found.append(f"{path}: the table of rooms does not know {room!r}")
            continue
        for line, name in imported(tree, path):
            target = name.split(".")[1] if name.startswith("pipeline.") else None
            if target is not None and HEIGHT.get(target, 0 if target == "__version__" else 99) > HEIGHT[room]:
                found.append(f"{path}:{line}: {room} may not import {name}")
    return found


def impurities(root: Path) -> list[str]:
    """What a pure room imports or calls, and must not."""
    found = []
    for room, path, tree in sources(root):
        if room not in PURE:
            continue
        for line, name in imported(tree, path):
            if name.split(".")[0] in FORBIDDEN_MODULES:
                found.append(f"{path}:{line}: the pure room {room} may not import {name}")
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and (fault := call_fault(node, room)):
                found.append(f"{path}:{node.lineno}: the pure room {room} may not call {fault}")
    return found


def call_fault(call: ast.Call, room: str) -> str | None:
    """The call in words, if it asks a clock or touches a file that its room may not."""
    function = call.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    owner = ast.unparse(function.value).split(".")[-1] if isinstance(function, ast.Attribute) else ""
    if (owner, name) in CLOCKS:
        return f"{owner}.{name}()"
    if name in FILE_CALLS and not (room in MAY_READ and name in FILE_READERS):
        return f"{name}()"
    return None


def too_deep(root: Path) -> list[str]:
    """Python files more than one folder below `pipeline/`."""
    return [f"{path}: more than two levels deep" for _, path, _ in sources(root) if len(path.parts) > 2]


def test_imports_point_only_downwards() -> None:
    assert arrows_up(ROOT) == []


def test_pure_rooms_read_no_clock_and_touch_no_engine() -> None:
    assert impurities(ROOT) == []


def test_rooms_are_two_levels_deep_at_most() -> None:
    assert too_deep(ROOT) == []


def test_every_pure_room_is_there_to_be_checked() -> None:
    assert set(PURE) <= {room for room, _, _ in sources(ROOT)}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree that keeps every rule, for the tests below to break one."""
    root = tmp_path / "pipeline"
    for room in ("rules", "stream", "contract", "ledger"):
        (root / room).mkdir(parents=True)
        (root / room / "__init__.py").write_text("")
    (root / "rules" / "good.py").write_text(
        "from pipeline.contract import model\nfrom pipeline import errors\n"
    )
    (root / "errors.py").write_text("")
    assert arrows_up(root) + impurities(root) + too_deep(root) == []
    return root


@pytest.mark.parametrize(
    "line",
    [
        "import pipeline.stream.topics",
        "from pipeline import stream",
        "from pipeline.stream import topics",
        "from ..stream import topics",
        "from .. import stream",
        "def later():\n    from pipeline.stream import topics",
        "from pipeline.cellar import wine",
    ],
)
def test_an_arrow_that_points_up_is_found_however_it_is_written(tree: Path, line: str) -> None:
    (tree / "rules" / "bad.py").write_text(line + "\n")
    [fault] = arrows_up(tree)
    assert fault.startswith(str(Path("rules", "bad.py")))


def test_a_room_that_nobody_drew_is_found(tree: Path) -> None:
    (tree / "utils.py").write_text("")
    assert arrows_up(tree) == ["utils.py: the table of rooms does not know 'utils'"]


@pytest.mark.parametrize(
    "line",
    [
        "import duckdb",
        "import time",
        "from time import time",
        "from aiokafka import AIOKafkaConsumer",
        "import httpx",
        "import faust",
        "import datetime; datetime.datetime.now(datetime.UTC)",
        "from datetime import datetime; datetime.utcnow()",
        "from datetime import date; date.today()",
        "open('file')",
        "from pathlib import Path; Path('file').read_text()",
    ],
)
def test_a_pure_room_that_looks_outside_is_found(tree: Path, line: str) -> None:
    (tree / "rules" / "bad.py").write_text(line + "\n")
    [fault] = impurities(tree)
    assert fault.startswith(f"{Path('rules', 'bad.py')}:1: the pure room rules may not")
    (tree / "rules" / "bad.py").rename(tree / "ledger" / "good.py")
    assert impurities(tree) == []


def test_a_loader_may_read_its_file_and_nothing_more(tree: Path) -> None:
    (tree / "contract" / "loader.py").write_text("from pathlib import Path\nPath('file').read_text()\n")
    assert impurities(tree) == []
    (tree / "contract" / "loader.py").write_text("from pathlib import Path\nPath('file').write_text('')\n")
    assert len(impurities(tree)) == 1


def test_a_third_level_is_found(tree: Path) -> None:
    (tree / "rules" / "deep").mkdir()
    (tree / "rules" / "deep" / "file.py").write_text("")
    assert too_deep(tree) == [f"{Path('rules', 'deep', 'file.py')}: more than two levels deep"]
