"""What real sources send becomes the right samples: each folder of `cases/` is one kind of fault."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline import catalog
from pipeline.formats.registry import point_formats
from pipeline.mappings.mapping_file import load_source_mapping, shipped
from pipeline.mappings.trial import Trial, given_of, tried

CASES = Path(__file__).parent / "cases"
CATALOG = catalog.load()
OTHERS = Path(__file__).resolve().parents[3] / "shared" / "data"


def every() -> list[Any]:
    found = []
    for path in sorted(CASES.glob("*/expected.json")):
        for one in json.loads(path.read_text()):
            name = f"{path.parent.name}: {' '.join(one['files'])} by {one['mapping']}"
            found.append(pytest.param(path.parent, one, id=name))
    return found


def attempt(folder: Path, one: dict[str, Any]) -> Trial:
    mapping = load_source_mapping(one["mapping"], CATALOG)
    files = [(name, (folder / name).read_bytes()) for name in one["files"]]
    constants = [f"{name}={value}" for name, value in one.get("constants", {}).items()]
    return tried(mapping, files, one["format"], CATALOG, given_of(constants, []))


@pytest.mark.parametrize(("folder", "one"), every())
def test_what_a_source_sends_becomes_these_samples(folder: Path, one: dict[str, Any]) -> None:
    trial = attempt(folder, one)
    assert list(trial.documents()) == one["samples"]
    remarks = "\n".join(trial.remarks())
    for words in one.get("says", []):
        assert words in remarks


def test_every_shipped_mapping_and_format_is_tried() -> None:
    tries = [one for path in CASES.glob("*/expected.json") for one in json.loads(path.read_text())]
    assert {one["mapping"] for one in tries} == set(shipped())
    assert {f.name for f in point_formats()} - {one["format"] for one in tries} == {
        "otlp_proto"
    }  # by the law of forms


def test_gpus_of_a_slurm_cluster_are_counted_by_what_takes_work() -> None:
    folder = CASES / "slurm-compound-node-states"
    one = {"mapping": "slurm", "files": ["scontrol_show_nodes.txt"], "format": "scontrol"}
    samples = list(attempt(folder, one).documents())
    gpus = [s for s in samples if "gpu" in s]
    assert len(gpus) == len({s["gpu"] for s in gpus}) == 73
    assert sum(s["health"] == "ok" for s in gpus) == 41
    assert sum(s["running_gpus"] for s in samples if "queue" in s) == 23
    by_type = {sku: [s["health"] for s in gpus if s["sku"] == sku] for sku in {s["sku"] for s in gpus}}
    assert {sku: (len(h), h.count("ok")) for sku, h in by_type.items()} == {
        "h100": (68, 36),
        "a100": (4, 4),
        "nvidia_a100_80gb": (1, 1),
    }


@pytest.mark.parametrize(
    ("file", "mapping", "wire", "expected"),
    [
        (
            "gpu/nvidia_gpu_exporter_linux-x86_64__nvidia-h100-80gb-hbm3__590.48.01__load.prom",
            "nvidia_gpu_exporter",
            "prometheus",
            {
                "node": "n",
                "index": "0",
                "gpu": "n/0",
                "utilization_ratio": 1.0,
                "memory_used_bytes": 20_780_679_168,
                "memory_total_bytes": 85_520_809_984,
                "power_watts": 631.95,
                "temperature_celsius": 59.0,
            },
        ),
        (
            "gpu/nvidia_gpu_exporter_linux-x86_64__nvidia-h100-mig__590.48.01__load.prom",
            "nvidia_gpu_exporter",
            "prometheus",
            {
                "node": "n",
                "index": "0",
                "gpu": "n/0",
                "memory_used_bytes": 11_665_408_000,
                "memory_total_bytes": 85_520_809_984,
                "power_watts": 433.78,
                "temperature_celsius": 53.0,
            },
        ),
        ("energy/redfish_dell_power.json", "redfish", "json", {"feed": "n", "it_power_watts": 429.0}),
    ],
)
def test_captures_of_real_programs_become_their_known_answers(
    file: str, mapping: str, wire: str, expected: dict[str, Any]
) -> None:
    if not (OTHERS / file).exists():
        pytest.skip("others' captures are not here")
    name = "node" if "node" in expected else "feed"
    trial = tried(
        load_source_mapping(mapping, CATALOG),
        [(file, (OTHERS / file).read_bytes())],
        wire,
        CATALOG,
        given_of([f"{name}=n"], []),
    )
    assert list(trial.documents()) == [expected]
