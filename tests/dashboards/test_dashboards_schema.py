"""The committed dashboards against Grafana's own schema: the types that Grafana publishes of itself, by TypeScript.

`grafana_schema/` pins them and closes what they leave open.  TypeScript refuses in a literal what its type does not
have, so each dashboard is one.  What that is worth is tried out: every place of every dashboard is spoilt in turn.
"""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent / "grafana_schema"
INSTALLED = HERE / "node_modules"
ON_CI = os.environ.get("CI") == "true"
DASHBOARDS = {path.stem: path.read_text("utf-8") for path in sorted((ROOT / "dashboards").glob("*.json"))}

Way = tuple[str | int, ...]
"""Keys and indices from the document down to a place."""
Place = tuple[str, ...]
"""The same for all places of one kind: of a list's items only what they are is told, such as `<table>`."""
Faults = Callable[[Mapping[str, str]], dict[str, list[str]]]

OPEN = re.compile(r".+ (matcher|transformations <\w+>) options\b.*")
"""Places that Grafana's schema leaves open: they belong to the matcher or the transformation."""
MAPPED = re.compile(r".+\bmappings\b.* <value> options \S+")
"""Places whose key is data: a text that is mapped."""
WORDS = re.compile(
    r".*(?<!datasource )(?<!\S)(type|\w*mode|format|align|alignValue|cellHeight|fill|orientation|placement|repeatDirection"
    r"|showPoints|showValue|sort|hide|<query> refresh|graphTooltip|properties <\S+> id"
    r"|properties <custom\.(drawStyle|lineInterpolation)> value)",
    re.IGNORECASE,
)
"""Places that hold one of a few words or numbers."""


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Faults:
    """`faults({name: text of a dashboard})`: what TypeScript finds in each, as `line:column message`; one run for all."""
    node = shutil.which("node") or shutil.which("nodejs")
    compiler = INSTALLED / "typescript" / "lib" / "tsc.js"
    missing = "" if node else "needs Node.js and npm: apt-get install --no-install-recommends nodejs npm"
    if node and not compiler.is_file():
        missing = f"needs Grafana's schema: npm ci --ignore-scripts --prefix {HERE.relative_to(ROOT)}"
    if node is None or missing:
        if ON_CI:
            pytest.fail(missing)
        pytest.skip(missing)

    def check(texts: Mapping[str, str]) -> dict[str, list[str]]:
        folder = tmp_path_factory.mktemp("literals")
        for name, text in texts.items():
            # All in the first line, so that lines are those of the JSON.
            head = f"import type {{ Classic }} from '{HERE / 'classic'}'; export const dashboard: Classic = "
            (folder / f"{name}.ts").write_text(head + text, "utf-8")
        settings = {"extends": str(HERE / "tsconfig.json"), "include": ["*.ts"]}
        (folder / "tsconfig.json").write_text(json.dumps(settings))
        command = [node, str(compiler), "--pretty", "false", "-p", "."]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        found = re.findall(r"^(\S+?)\((\d+,\d+)\): error (.*)$", done.stdout, re.MULTILINE)
        assert done.returncode == (2 if found else 0), done.stdout + done.stderr
        assert {file for file, _, _ in found} <= {f"{name}.ts" for name in texts}, done.stdout
        return {name: [f"{at} {said}" for file, at, said in found if file == f"{name}.ts"] for name in texts}

    return check


def test_every_dashboard_is_what_grafanas_schema_allows(faults: Faults) -> None:
    assert len(DASHBOARDS) == 7
    assert faults(DASHBOARDS) == {name: [] for name in DASHBOARDS}


def test_the_schema_is_that_of_the_grafana_that_compose_starts(faults: Faults) -> None:
    image = YAML(typ="safe", pure=True).load((ROOT / "docker-compose.yml").read_text("utf-8"))
    wanted = image["services"]["grafana"]["image"].partition(":")[2]
    for file in (HERE / "package.json", INSTALLED / "@grafana" / "schema" / "package.json"):
        read = json.loads(file.read_text("utf-8"))
        assert wanted == (read.get("dependencies", {}).get("@grafana/schema") or read["version"]), file
    assert (
        json.loads((INSTALLED / "@grafana" / "schema" / "package.json").read_text())["license"]
        == "Apache-2.0"
    )


# ----------------------------------------------------------------------------------------- what it finds


def walk(value: Any, way: Way = (), place: Place = ()) -> Iterator[tuple[Way, Place]]:
    """Every place below, each before what is in it."""
    yield way, place
    if isinstance(value, dict):
        for key, each in value.items():
            yield from walk(each, (*way, key), (*place, key))
    elif isinstance(value, list):
        for n, each in enumerate(value):
            kinds = (each.get("type"), each.get("id")) if isinstance(each, dict) else ()
            kind = next((kind for kind in kinds if isinstance(kind, str)), "")
            yield from walk(each, (*way, n), (*place, f"<{kind}>"))


def places() -> dict[str, tuple[Any, Way]]:
    """Place → (the least of a dashboard that has it, the way to it there), for every kind of place that there is."""
    found: dict[str, tuple[Any, Way]] = {}
    for text in DASHBOARDS.values():
        document = json.loads(text)
        for way, place in walk(document):
            least, at = document, way
            if way[:1] == ("panels",) and len(way) > 1:
                least, at = {**document, "panels": [document["panels"][way[1]]]}, ("panels", 0, *way[2:])
            elif way:
                least = {**document, "panels": []} if way != ("panels",) else document
            if place:
                found.setdefault(" ".join(place), (least, at))
    return found


PLACES = places()


def spoilt(place: str, spoil: Callable[[Any, str | int], None]) -> str:
    """The least dashboard with that place as JSON, after `spoil(what the place is in, its key)`."""
    least, way = PLACES[place]
    document = copy.deepcopy(least)
    around = document
    for key in way[:-1]:
        around = around[key]
    spoil(around, way[-1])
    return json.dumps(document, indent=1)


def misspell(around: Any, key: str | int) -> None:
    """The right one stays, so that it is not its absence that is found."""
    around[f"{key}s"] = around[key]


def mistype(around: Any, key: str | int) -> None:
    """A truth value where there was none: a text may be right for a number, such as the width of a legend."""
    around[key] = "7" if isinstance(around[key], bool) else True


def unknown(around: Any, key: str | int) -> None:
    around[key] = "of no kind" if isinstance(around[key], str) else 77


def not_found(faults: Faults, kinds: list[str], spoil: Callable[[Any, str | int], None]) -> list[str]:
    """The places where what was spoilt goes unnoticed."""
    found = faults({f"n{n}": spoilt(place, spoil) for n, place in enumerate(kinds)})
    return [place for n, place in enumerate(kinds) if not found[f"n{n}"]]


def test_a_misspelt_property_is_found_wherever_it_stands(faults: Faults) -> None:
    keys = [place for place, (_, way) in PLACES.items() if isinstance(way[-1], str)]
    named = [place for place in keys if not OPEN.fullmatch(place) and not MAPPED.fullmatch(place)]
    assert len(named) > 200
    assert not_found(faults, named, misspell) == []


def test_a_wrong_type_is_found_wherever_it_stands(faults: Faults) -> None:
    typed = [place for place in PLACES if not OPEN.fullmatch(place)]
    assert len(typed) > 200
    assert not_found(faults, typed, mistype) == []


def test_an_unknown_word_is_found_where_only_some_are_allowed(faults: Faults) -> None:
    chosen = [place for place in PLACES if WORDS.fullmatch(place)]
    assert len(chosen) > 60
    assert not_found(faults, chosen, unknown) == []


FOREIGN: tuple[tuple[str, dict[str, Any]], ...] = (
    ("panels <stat> options", {"legend": {"calcs": [], "placement": "bottom", "showLegend": True}}),
    ("panels <stat> options", {"cellHeight": "sm"}),
    ("panels <stat> fieldConfig defaults", {"custom": {"lineWidth": 1}}),
    ("panels <table> fieldConfig defaults custom", {"drawStyle": "line"}),
    ("panels <timeseries> fieldConfig defaults custom", {"align": "left"}),
    ("panels <state-timeline> options", {"textMode": "auto"}),
    ("panels <stat> fieldConfig overrides <> properties <thresholds>", {"id": "custom.width", "value": 90}),
)
"""What is right, but for another kind of panel."""


def test_what_belongs_to_another_kind_of_panel_is_found(faults: Faults) -> None:
    def with_foreign(place: str, foreign: dict[str, Any]) -> str:
        return spoilt(place, lambda around, key: around[key].update(foreign))

    found = faults({f"n{n}": with_foreign(*each) for n, each in enumerate(FOREIGN)})
    assert [each for n, each in enumerate(FOREIGN) if not found[f"n{n}"]] == []


def test_a_fault_is_told_by_its_line_in_the_file(faults: Faults) -> None:
    lines = DASHBOARDS["noc"].splitlines()
    at = next(n for n, line in enumerate(lines) if '"cellHeight": "sm"' in line)
    lines[at] = lines[at].replace('"sm"', '"tiny"')
    [fault] = faults({"noc": "\n".join(lines)})["noc"]
    assert fault.startswith(f"{at + 1},") and '"tiny"' in fault
