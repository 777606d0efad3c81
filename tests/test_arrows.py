"""The rooms of `pipeline/`: imports point only downwards, pure rooms are pure, and no room outgrows its limits.

The checks work on any folder that looks like `pipeline/`, so that the last tests can show each of them a tree
that breaks its rule.
"""

from __future__ import annotations

import ast
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent / "pipeline"

# From the top down, as the architecture draws them: a room may use itself and what stands below it, and none of those
# that stand beside it.
ROOMS = (
    ("cli",),
    ("app",),
    ("demo",),
    ("simulate", "collect", "broker"),
    ("door", "board", "dashboards", "doctor"),
    ("serve",),
    ("notify",),
    ("stream",),
    ("history",),
    ("ledger",),
    ("views",),
    ("clauses",),
    ("rules",),
    ("readings",),
    ("mappings",),
    ("formats",),
    ("contract",),
    ("rollup",),
    ("catalog",),
    ("settings",),
    ("secret",),
    ("errors",),
    ("producer",),
)
HEIGHT = {room: len(ROOMS) - level for level, rooms in enumerate(ROOMS) for room in rooms}
PURE = ("catalog", "rollup", "contract", "formats", "mappings", "readings", "rules", "clauses")
MOST_LINES, MOST_FILES, MOST_LEVELS = 400, 30, 2
FOREIGN = {
    ("board/connections.py", "record"): "a filter of the standard library's logging changes the record",
    ("serve/logs.py", "record"): "the same",
    ("serve/logs.py", "root"): "the standard library's root logger",
    ("serve/last_resort.py", "timer"): "threading.Timer takes no `daemon`",
    ("serve/listening.py", "context"): "ssl.SSLContext is made by setting it",
    ("serve/probe.py", "context"): "the same",
    ("serve/terminal.py", "text"): "rich.Text that somebody else has made",
    ("demo/screen.py", "line"): "the same",
    ("dashboards/frame.py", "model"): "the dashboards' SDK has no builder for it",
    ("stream/header_names.py", "fetcher"): "aiokafka's class is replaced by one that does not fail",
}
"""Objects of libraries that have no other way: (file, owner) and why."""

# A pure room is told everything: it neither asks a clock nor talks to an engine or the network.
FORBIDDEN_MODULES = {
    *("aiohttp", "aiokafka", "asyncio", "duckdb", "faust", "httpx", "kafka", "mode", "requests"),
    *("random", "secrets", "socket", "subprocess", "threading", "time", "urllib", "uuid"),
}
CLOCKS = {("datetime", "now"), ("datetime", "utcnow"), ("datetime", "today"), ("date", "today")}
# Files are for the loaders, which turn one into a value and do nothing else.
FILE_CALLS = {"open", "read_text", "read_bytes", "write_text", "write_bytes", "unlink", "mkdir", "rename"}
FILE_READERS = {"open", "read_text", "read_bytes"}
MAY_READ = ("catalog", "contract", "mappings")


Limit = Callable[[Path], list[str]]


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
    """Imports of a room that stands above the importer or beside it, or of one that the table does not know."""
    found = []
    for room, path, tree in sources(root):
        if path == Path("__init__.py"):
            continue
        if room not in HEIGHT:
            found.append(f"{path}: the table of rooms does not know {room!r}")
            continue
        for line, name in imported(tree, path):
            target = name.split(".")[1] if name.startswith("pipeline.") else None
            if target not in (None, room, "__version__") and HEIGHT.get(str(target), 99) >= HEIGHT[room]:
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
    return [
        f"{path}: more than two levels deep" for _, path, _ in sources(root) if len(path.parts) > MOST_LEVELS
    ]


def too_long(root: Path) -> list[str]:
    """Files with more lines than somebody reads in one go."""
    counted = ((path, (root / path).read_text("utf-8").count("\n")) for _, path, _ in sources(root))
    return [f"{path}: {lines} lines" for path, lines in counted if lines > MOST_LINES]


def too_full(root: Path) -> list[str]:
    """Folders with more files than somebody has in mind."""
    files = Counter(path.parent for _, path, _ in sources(root))
    return [f"{folder}: {count} files" for folder, count in files.items() if count > MOST_FILES]


def named_twice(root: Path) -> list[str]:
    """Classes, and modules, that share their name with another one."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for _, path, tree in sources(root):
        if not path.stem.startswith("__"):
            found[f"module {path.stem}"].append(str(path))
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                found[f"class {node.name}"].append(str(path))
    return [f"{name}: {', '.join(paths)}" for name, paths in found.items() if len(paths) > 1]


def set_from_outside(root: Path) -> list[str]:
    """Attributes of an object that somebody else sets: whoever reads it cannot know who has changed it."""
    found = []
    for _, path, tree in sources(root):
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del):
                owner = ast.unparse(node.value)
                if owner != "self" and (str(path), owner) not in FOREIGN:
                    found.append(f"{path}:{node.lineno}: {owner}.{node.attr} is set from outside")
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "setattr":
                found.append(f"{path}:{node.lineno}: setattr()")
    return found


def importers(root: Path, package: str) -> list[str]:
    """The files that import a package, or anything of it."""
    return [
        str(path)
        for _, path, tree in sources(root)
        if any(name.split(".")[0] == package for _, name in imported(tree, path))
    ]


def test_imports_point_only_downwards() -> None:
    assert arrows_up(ROOT) == []


def test_pure_rooms_read_no_clock_and_touch_no_engine() -> None:
    assert impurities(ROOT) == []


def test_rooms_are_two_levels_deep_at_most() -> None:
    assert too_deep(ROOT) == []


def test_every_pure_room_is_there_to_be_checked() -> None:
    assert set(PURE) <= {room for room, _, _ in sources(ROOT)}


@pytest.mark.parametrize("limit", [too_long, too_full, named_twice])
def test_no_file_or_folder_outgrows_its_limit_and_no_name_stands_twice(limit: Limit) -> None:
    assert limit(ROOT) == []


def test_nobody_sets_another_objects_attributes() -> None:
    assert set_from_outside(ROOT) == []


def test_what_may_be_set_from_outside_still_is() -> None:
    used = {
        (str(path), ast.unparse(node.value))
        for _, path, tree in sources(ROOT)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
    }
    assert set(FOREIGN) <= used


def test_faust_is_imported_in_one_file() -> None:
    assert importers(ROOT, "faust") == [str(Path("app", "single.py"))]


LIMITS: tuple[Limit, ...] = (arrows_up, impurities, too_deep, too_long, too_full, named_twice)


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
    (root / "rules" / "long.py").write_text("\n" * MOST_LINES)
    assert [fault for limit in LIMITS for fault in limit(root)] == []
    return root


@pytest.mark.parametrize(
    "line",
    [
        "import pipeline.stream.topic_admin",
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


def test_a_room_beside_is_no_room_below(tree: Path) -> None:
    (tree / "door").mkdir()
    (tree / "door" / "login.py").write_text("from pipeline.board import web\n")
    assert arrows_up(tree) == [f"{Path('door', 'login.py')}:1: door may not import pipeline.board.web"]


def test_a_file_that_is_too_long_and_a_folder_that_is_too_full_are_found(tree: Path) -> None:
    (tree / "rules" / "long.py").write_text("\n" * (MOST_LINES + 1))
    for number in range(MOST_FILES):
        (tree / "stream" / f"file_{number}.py").write_text("")
    assert too_long(tree) == [f"{Path('rules', 'long.py')}: {MOST_LINES + 1} lines"]
    assert too_full(tree) == [f"stream: {MOST_FILES + 1} files"]


def test_a_name_that_stands_twice_is_found(tree: Path) -> None:
    (tree / "stream" / "good.py").write_text("class Window: ...\n")
    (tree / "contract" / "calendar.py").write_text("def make():\n    class Window: ...\n")
    paths = [
        Path(*parts) for parts in (("rules", "good.py"), ("stream", "good.py"), ("contract", "calendar.py"))
    ]
    assert sorted(named_twice(tree)) == [
        f"class Window: {paths[2]}, {paths[1]}",
        f"module good: {paths[0]}, {paths[1]}",
    ]


def test_who_imports_a_package_is_found_wherever_the_import_stands(tree: Path) -> None:
    (tree / "stream" / "late.py").write_text("def later():\n    from faust.app import base\n")
    assert importers(tree, "faust") == [str(Path("stream", "late.py"))]


@pytest.mark.parametrize(
    "line", ["other.x = 1", "other.x += 1", "del a.b.x", "setattr(other, 'x', 1)", "(a.x, b) = 1, 2"]
)
def test_an_attribute_that_is_set_from_outside_is_found(tree: Path, line: str) -> None:
    (tree / "stream" / "own.py").write_text("class Own:\n    def move(self):\n        self.x = 1\n")
    assert set_from_outside(tree) == []
    (tree / "stream" / "bad.py").write_text(f"def f(other, a):\n    {line}\n")
    assert len(set_from_outside(tree)) == 1
