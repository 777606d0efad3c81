"""A mapping is checked before it is used: every fault at its line and column, with the nearest right name."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import catalog
from pipeline.errors import MappingError
from pipeline.formats.registry import point_formats
from pipeline.mappings.mapping_file import check_given, check_mapping, load_source_mapping, shipped
from pipeline.mappings.mapping_spec import Given

CATALOG = catalog.load()
GOOD = """\
mapping: ours
source: our meters 1.0
formats: [prometheus]
samples:
  - topic: telemetry.energy
    key: [feed]
    fields:
      feed: [meter]
    measures:
      it_power_watts: {metric: meter_power, unit: 0.1 kW}
"""


def faults(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "ours.yaml"
    path.write_text(text)
    return [str(fault).removeprefix(f"{path}:") for fault in check_mapping(str(path), CATALOG)[1]]


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_mapping_is_without_fault_and_names_its_formats(name: str) -> None:
    mapping, found = check_mapping(name, CATALOG)
    assert found == [] and mapping is not None
    assert mapping.mapping == name
    assert set(mapping.formats) <= {f.name for f in point_formats()}


def test_a_good_mapping_has_no_fault(tmp_path: Path) -> None:
    assert faults(tmp_path, GOOD) == []


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        (
            "telemetry.energy",
            "telemetry.enrgy",
            "5:12 samples[0].topic: found 'telemetry.enrgy', expected one of "
            "telemetry.billing, telemetry.deliveries, telemetry.energy, telemetry.gpu, telemetry.queue; "
            "did you mean 'telemetry.energy'?",
        ),
        (
            "it_power_watts",
            "it_power",
            "10:7 samples[0].measures.it_power: found 'it_power', expected one of",
        ),
        (
            "0.1 kW",
            "0.1 kV",
            "10:51 samples[0].measures.it_power_watts.unit: found '0.1 kV', expected one of",
        ),
        (
            "      feed: [meter]",
            "      fed: [meter]",
            "8:7 samples[0].fields.fed: found 'fed', expected one of",
        ),
        ("    key: [feed]", "    keys: [feed]", "6:5 samples[0].keys: found the unknown field 'keys'"),
        ("source: our meters 1.0\n", "", "1:1 source: found nothing, expected the field 'source'"),
        (
            "[meter]",
            "[{label: meter, pattern: '('}]",
            "8:38 samples[0].fields.feed[0].pattern: found '(', expected a regular expression",
        ),
        (
            "{metric: meter_power",
            "{parts: half, metric: meter_power",
            "10:31 samples[0].measures.it_power_watts.parts: found 'half'",
        ),
        ("metric: meter_power,", "", "expected metric or add"),
    ],
)
def test_a_fault_is_told_at_its_place(tmp_path: Path, old: str, new: str, fault: str) -> None:
    found = faults(tmp_path, GOOD.replace(old, new))
    assert any(each.startswith(fault) or fault in each for each in found), found


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    assert (
        len(faults(tmp_path, GOOD.replace("it_power_watts", "x").replace("feed: [meter]", "y: [meter]"))) == 2
    )


def test_a_file_that_is_not_there_and_a_name_that_is_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MappingError, match="no such file"):
        load_source_mapping(str(tmp_path / "none.yaml"), CATALOG)
    with pytest.raises(MappingError, match=r"found 'dcmg', expected .*did you mean 'dcgm'"):
        load_source_mapping("dcmg", CATALOG)


def test_a_constant_of_no_field_and_a_word_of_no_setting_are_told() -> None:
    mapping = load_source_mapping("dcgm", CATALOG)
    wrong = Given(
        constants={"regoin": "eu", "gpu_util_ratio_unit": "percents"}, from_label={"skku": ["modelName"]}
    )  # type: ignore[dict-item]
    assert [text.partition(", expected")[0] for text in check_given(wrong, [mapping], CATALOG)] == [
        "constants.regoin: found 'regoin'",
        "constants.gpu_util_ratio_unit: found 'percents'",
        "from_label.skku: found 'skku'",
    ]


def test_where_a_source_stands_may_be_said_whole_though_its_samples_have_less_of_it() -> None:
    queues = load_source_mapping("kueue", CATALOG)
    place = Given(constants={"provider": "p", "region": "r", "site": "s", "cluster": "c", "sku": "k"})
    assert list(check_given(place, [queues], CATALOG)) == []
