"""What names a sample: the user's labels and tables, the mapping's places, constants; and what is ignored or told."""

from __future__ import annotations

import pytest

from pipeline import catalog
from pipeline.formats import prometheus
from pipeline.mappings.gather import Gathered, samples_of
from pipeline.mappings.mapping_file import load_source_mapping
from pipeline.mappings.mapping_spec import Given
from pipeline.mappings.units import unit_of

CATALOG = catalog.load()
DCGM = load_source_mapping("dcgm", CATALOG)
UUID = "GPU-00000001-0c43-4e0a-8a6e-61d9f0a2c001"


def scrape(text: str, given: Given | None = None) -> Gathered:
    return samples_of(text.encode(), DCGM, prometheus.points, CATALOG, given or Given())


def test_a_label_counts_before_a_table_before_the_mapping_before_a_constant() -> None:
    text = (
        f'DCGM_FI_DEV_GPU_UTIL{{UUID="{UUID}",gpu="0",Hostname="ams-node-1",rack="r7",modelName="H100"}} 50'
    )
    given = Given.model_validate(
        {
            "constants": {"site": "nowhere", "cluster": "spare", "provider": "halcyon", "node": "never"},
            "from_label": {"sku": "modelName", "cluster": "cluster_name"},
            "where": [
                {"label": "Hostname", "matches": "^fra-", "set": {"site": "fra-01"}},
                {"label": "Hostname", "matches": "^ams-", "set": {"site": "ams-02"}},
            ],
        }
    )
    [sample] = scrape(text, given).samples
    assert {name: sample.data[name] for name in ("provider", "site", "cluster", "sku", "node")} == {
        "provider": "halcyon",
        "site": "ams-02",
        "cluster": "spare",
        "sku": "H100",
        "node": "ams-node-1",
    }
    assert list(sample.lacks) == ["region"]


def test_what_no_part_reads_is_counted_by_name_and_is_no_gpu() -> None:
    found = scrape('up 1\ngo_goroutines 12\nup{a="b"} 1\n')
    assert found.samples == [] and dict(found.ignored) == {"up": 2, "go_goroutines": 1}


def test_a_series_that_says_nothing_of_whose_it_is_makes_no_sample_and_is_told() -> None:
    found = scrape("DCGM_FI_DEV_GPU_UTIL 50\n")
    assert found.samples == []
    assert found.notes["DCGM_FI_DEV_GPU_UTIL", "nothing says whose it is"] == 1


def test_a_gpu_whose_every_value_is_gone_is_no_sample_and_one_whose_values_are_blank_is_there() -> None:
    assert scrape(f'DCGM_FI_DEV_GPU_UTIL{{UUID="{UUID}"}} NaN').samples == []
    [sample] = scrape(f'DCGM_FI_DEV_GPU_UTIL{{UUID="{UUID}"}} 4294967295').samples
    assert dict(sample.data) == {"gpu": UUID}


@pytest.mark.parametrize(
    ("unit", "of", "value", "expected"),
    [
        ("percent", "ratio", 81, 0.81),
        ("MiB", "bytes", 40960, 42949672960),
        ("mJ", "joules", 88410233125, 88410233.125),
        ("uJ", "joules", 88410233125000, 88410233.125),
        ("kWh", "joules", 18342.117, 66_031_621_200.0),
        ("0.01 kW", "watts", 613, 6130),
        ("0.1 W", "watts", 1234, 123.4),
        ("lb/MWh", "gCO2e/kWh", 1000, 453.592),
        ("ms", "seconds", 1500, 1.5),
    ],
)
def test_units_are_converted_to_the_quantum(unit: str, of: str, value: float, expected: float) -> None:
    found = unit_of(unit, of)
    assert found is not None and round(found.of(value), 3) == expected
