"""The page on performance says what its own figures say, and the bench spoils records as it promises."""

from __future__ import annotations

import importlib.util
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import pytest

from pipeline import catalog
from pipeline.simulate.cloud_events import STRUCTURED
from pipeline.stream.inspect import inspect

HERE = Path(__file__).parent
FOUND = {
    "commit": "abc1234",
    "taken_at": "2026-11-20T10:00:00Z",
    "quick": False,
    "machine": {
        **{"cores": 2, "cpu": "a processor", "memory_gb": 25.3, "system": "Linux 6", "python": "3.11.7"},
        **{"duckdb": "2.0.0", "aiokafka": "0.14.0", "load_before": 0.1},
    },
    "faust_events_per_s": 14_123.456,
    "ingest_events_per_s": 212_345.6,
    "ingest_to_faust": 15.0349,
    "profile_us_per_event": {"decode": 2.25, "apply": 1.5},
}


def load(name: str) -> ModuleType:
    """A file of the bench, which is no package: its files find each other beside the script that is run."""
    sys.path.insert(0, str(HERE))
    try:
        spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(HERE))
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def figures() -> ModuleType:
    return load("figures")


EMPTY = "".join(
    f"<!-- {part}: begin -->\nnothing yet\n<!-- {part}: end -->\n" for part in ("bench", "panels")
)


def test_the_tables_on_the_pages_are_those_of_the_kept_figures(figures: ModuleType) -> None:
    page = figures.PAGE.read_text("utf-8")
    kept = {part: json.loads((figures.FIGURES / f"{part}.json").read_text("utf-8")) for part in figures.PARTS}
    for part, found in kept.items():
        assert figures.on_page(page, part) == figures.section(part, found)
    assert (figures.FIGURES / "panels.md").read_text("utf-8") == figures.panels_page(kept["panels"])


def test_a_run_is_put_on_the_page(figures: ModuleType) -> None:
    once = figures.put(f"before\n{EMPTY}after\n", FOUND)
    assert figures.on_page(once, "bench") == figures.section("bench", FOUND)
    assert figures.put(once, FOUND) == once
    assert once.startswith("before\n") and once.endswith("\nafter\n")
    assert "| the pipeline, one sample a message | 212,346 | events/s |" in once
    assert "| against the plain Faust agent | 15.03 | times | ≥ 10 |" in once
    assert "| together | 3.750 |" in once


def test_the_panels_of_a_run_are_a_part_of_their_own_and_the_page_shows_the_slowest(
    figures: ModuleType,
) -> None:
    head = {key: FOUND[key] for key in ("commit", "taken_at", "quick", "machine")}
    quick = [["noc", f"Quick {n}", 1.0, 2.0, 3.0, 4, 5, 6] for n in range(figures.SLOWEST)]
    panels = {
        **head,
        "panels_day_p95_ms": 123.4,
        "panels": [*quick, ["noc", "A|B", 7.0, 90.0, 9.0, 10, 11, 12]],
    }
    assert figures.of_parts(FOUND | panels) == {"bench": FOUND, "panels": panels}
    assert list(figures.of_parts(FOUND)) == ["bench"]
    page, all_of_them = figures.put(EMPTY, FOUND | panels), figures.panels_page(panels)
    for text in (page, all_of_them):
        assert text.index("| noc | A/B | 7 | 90 | 9 | 10 | 11 | 12 |") < text.index(
            "| noc | Quick 0 | 1 | 2 |"
        )
    last = f"Quick {figures.SLOWEST - 1}"
    assert last in all_of_them and last not in page


def test_a_figure_changed_by_hand_is_seen(figures: ModuleType) -> None:
    page = figures.put(EMPTY, FOUND).replace("212,346", "999,999")
    assert figures.on_page(page, "bench") != figures.section("bench", FOUND)


def test_a_page_without_marks_is_refused(figures: ModuleType) -> None:
    with pytest.raises(ValueError, match="once each"):
        figures.put("no marks", FOUND)


def test_every_hundredth_record_is_bad_and_no_other() -> None:
    bench, event = load("load"), catalog.load().by_topic("telemetry.gpu")
    start = 1_795_000_020
    block = bench.fleet(start).gpu_blocks(start * 1000, (start + 1) * 1000)[0]
    spoilt = bench.spoil(block, 100)
    assert len(spoilt.values) == len(block.values) >= 700
    changed = [i for i, (a, b) in enumerate(zip(block.values, spoilt.values, strict=True)) if a != b]
    assert changed == list(range(99, len(block.values), 100))
    for i in changed:
        when = datetime.fromtimestamp(block.times_ms[i] / 1000, UTC).replace(tzinfo=None)
        (found,) = inspect(event, spoilt.values[i], STRUCTURED, when, 2**20)
        assert found.aside or found.fate == "dead_lettered", (found, spoilt.values[i])
