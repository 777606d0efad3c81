"""A law: the fast way to samples agrees with the specification, for every format and mapping, met before or not."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import catalog
from pipeline.formats.point import Point
from pipeline.formats.registry import format_named
from pipeline.mappings.gather import Gathered, Gatherer
from pipeline.mappings.mapping_file import load_source_mapping
from pipeline.mappings.mapping_spec import Given
from pipeline.mappings.plans import PlannedGatherer

CATALOG = catalog.load()
FORMS = runpy.run_path(str(Path(__file__).parent / "test_forms_agree.py"))
CASES = Path(__file__).parent / "cases"
DCGM = load_source_mapping("dcgm", CATALOG)
values = st.integers(-5, 2**33) | st.floats(0, 1e9) | st.sampled_from([4294967295, 0.5, 1, 140737488355328.0])
RATIO = (
    "DCGM_FI_DEV_GPU_UTIL_RATIO",
    {"UUID": "GPU-1", "gpu": "0", "DCGM_FI_SYSTEM_DRIVER_VERSION": "580"},
)


def said(found: Gathered) -> Any:
    samples = [(s.topic, dict(s.data), s.time, s.interval, list(s.lacks)) for s in found.samples]
    return samples, dict(found.ignored)


@given(st.lists(FORMS["series"], min_size=1, max_size=4), st.sampled_from(sorted(FORMS["FORMS"])))
def test_what_is_remembered_of_a_series_changes_nothing(batches: list[Any], form: str) -> None:
    planned, specification = PlannedGatherer(DCGM, CATALOG), Gatherer(DCGM, CATALOG)
    for found in [*batches, *batches]:
        for message in FORMS["FORMS"][form](found):
            points = list(format_named(form.strip()).points(message))
            assert said(planned.gather(points)) == said(specification.gather(points))


@given(st.lists(st.lists(values, min_size=3, max_size=3), min_size=2, max_size=6))
def test_a_plan_holds_for_other_numbers_of_the_same_series(reports: list[list[float]]) -> None:
    labels = {"UUID": "GPU-7", "gpu": "0", "Hostname": "n"}
    given_ = Given(constants={"region": "eu"})
    planned, specification = PlannedGatherer(DCGM, CATALOG, given_), Gatherer(DCGM, CATALOG, given_)
    for time, (power, used, ratio) in enumerate(reports):
        points = [
            Point("DCGM_FI_DEV_POWER_USAGE", labels, power, time),
            Point("DCGM_FI_DEV_FB_USED", labels, used, time),
            Point(*RATIO, ratio, time),
        ]
        assert said(planned.gather(points)) == said(specification.gather(points))


@pytest.mark.parametrize("path", sorted(CASES.glob("*/expected.json")), ids=lambda p: p.parent.name)
def test_it_agrees_on_every_case(path: Path) -> None:
    for one in json.loads(path.read_text()):
        mapping, wire = load_source_mapping(one["mapping"], CATALOG), format_named(one["format"])
        given_ = Given(constants=one.get("constants", {}))
        planned, specification = PlannedGatherer(mapping, CATALOG, given_), Gatherer(mapping, CATALOG, given_)
        for name in one["files"] * 2:
            for message in wire.messages((path.parent / name).read_bytes()):
                points = list(wire.points(message))
                assert said(planned.gather(points)) == said(specification.gather(points))
