"""Loading: the example, JSON, directories, and that nothing half-loads."""

from __future__ import annotations

import hashlib
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.catalog import schema_directory
from pipeline.clauses import KINDS, check, load, load_all
from pipeline.clauses.capacity import CapacityClause
from pipeline.clauses.power import PowerClause
from pipeline.clauses.service_levels import ServiceLevelClause
from pipeline.clauses.tranches import TrancheClause
from pipeline.contract import Contract, pipeline_alerts
from pipeline.contract.document import read
from pipeline.contract.model import MoneyAtRisk, PipelineAlerts
from pipeline.errors import ContractError
from tests.clauses_of import clauses_of

EXAMPLE = schema_directory() / "example-contract.yaml"
MINIMAL: dict[str, Any] = {
    "metadata": {"id": "small", "version": "1"},
    "parties": {"customer": "C", "supplier": "S"},
    "term": {"start": "2026-01-01", "end": "2027-01-01"},
    "currency": "EUR",
    "timezone": "UTC",
    "capacity": [{"id": "floor", "committed_gpus": 8}],
}


@pytest.fixture(scope="module")
def example() -> Contract:
    return load(EXAMPLE)


def written(path: Path, **changes: object) -> Path:
    path.write_text(json.dumps({**MINIMAL, **changes}))
    return path


def test_the_example_uses_every_kind_of_clause_and_every_indicator(example: Contract) -> None:
    assert {type(clause) for clause in example.clauses} == {kind.clause for kind in KINDS}
    assert {c.at for c in clauses_of(example, PowerClause)} == {"it", "facility"}
    indicators = {c.indicator for c in clauses_of(example, ServiceLevelClause)}
    assert indicators == {"queue_wait_p95", "queue_wait_p99", "pending_jobs"}
    assert example.notices == ()


def test_the_example_means_what_it_says(example: Contract) -> None:
    assert (example.id, example.version, example.supersedes) == ("northwind-aurora", "2026.2", "2026.1")
    assert example.digest == hashlib.sha256(EXAMPLE.read_bytes()).hexdigest()
    fleet = clauses_of(example, CapacityClause)[0]
    assert fleet.match == {"provider": ("aurora",), "sku": ("GB300", "H200")}
    assert (fleet.by, fleet.counts, fleet.span_seconds, fleet.lead_seconds) == (
        ("region",),
        "healthy",
        90,
        7200,
    )
    assert (fleet.for_seconds, fleet.keep_firing_for_seconds) == (120, 300)
    assert fleet.money_at_risk == MoneyAtRisk(Decimal(18_000), "EUR")
    year, other = clauses_of(example, TrancheClause)
    assert (year.ceiling, year.commitment_id, year.severity) == (
        Decimal("42000000.00"),
        "AUR-COMMIT-1",
        "ticket",
    )
    assert (other.categories, other.cost_column) == (
        ("Usage", "Purchase", "Adjustment", "Credit"),
        "BilledCost",
    )
    assert year.to_t == other.from_t == 1_798_758_000  # midnight in Berlin, 23:00 UTC


def test_json_is_read_as_well_as_yaml(tmp_path: Path, example: Contract) -> None:
    path = tmp_path / "same.json"
    path.write_text(json.dumps(read(EXAMPLE).value, default=float, indent="\t"))
    same = load(path)
    assert (same.clauses, same.windows, same.fx) == (example.clauses, example.windows, example.fx)


def test_money_is_read_exactly_however_it_is_written(tmp_path: Path) -> None:
    text = (
        "metadata: {id: a, version: '1'}\nparties: {customer: c, supplier: s}\n"
        "term: {start: 2026-01-01, end: 2027-01-01}\n"
        "currency: EUR\ntimezone: UTC\nspend:\n  tranches:\n"
    )
    amounts = {
        "0.1": "0.1",
        "'0.10'": "0.10",
        "12345678901234567.89": "12345678901234567.89",
        "4.2e7": "42000000",
    }
    for i, amount in enumerate(amounts):
        text += f"    - {{id: t{i}, from: 2026-01-01, to: 2027-01-01, ceiling: {amount}}}\n"
    path = tmp_path / "money.yaml"
    path.write_text(text)
    assert [format(c.ceiling, "f") for c in clauses_of(load(path), TrancheClause)] == list(amounts.values())


def test_rates_of_other_currencies_are_kept_by_the_day_they_begin(example: Contract) -> None:
    rates = [rate for _, rate in example.fx["USD"]]
    assert rates == [Decimal("0.9214"), Decimal("0.9087")]
    assert [t for t, _ in example.fx["USD"]] == sorted(t for t, _ in example.fx["USD"])


def test_anchors_may_be_used_for_what_is_the_same(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    capacity = (
        "capacity:\n  - {id: a, committed_gpus: 1, route: &r {team: x}}\n"
        "  - {id: b, committed_gpus: 1, route: *r}\n"
    )
    head = {name: value for name, value in MINIMAL.items() if name != "capacity"}
    path.write_text(
        "\n".join(f"{name}: {json.dumps(value)}" for name, value in head.items()) + "\n" + capacity
    )
    assert [clause.route for clause in load(path).clauses] == [{"team": "x"}, {"team": "x"}]


def test_a_contract_without_a_clause_is_refused(tmp_path: Path) -> None:
    content = {name: value for name, value in MINIMAL.items() if name != "capacity"}
    path = tmp_path / "c.json"
    path.write_text(json.dumps(content))
    with pytest.raises(
        ContractError, match=r":1:1: found no clause, expected at least one under capacity, power"
    ):
        load(path)


def test_what_is_kept_but_not_watched_is_said(tmp_path: Path) -> None:
    tranche = {"id": "t", "from": "2026-01-01", "to": "2027-01-01", "ceiling": 2, "commit": 1}
    window = {"idle": {"ranges": [{"start": "2026-02-01", "end": "2026-03-01"}]}}
    path = written(tmp_path / "c.json", spend={"tranches": [tranche]}, windows=window)
    assert load(path).notices == (
        f"{path}:1 't' commit: kept for the record; nothing watches yet whether it is reached",
        f"{path}:1 windows.idle: no clause names this window",
    )


def test_dimensions_come_from_the_schemas_unless_they_are_given(tmp_path: Path) -> None:
    path = written(tmp_path / "c.json", capacity=[{"id": "a", "committed_gpus": 1, "by": ["rack"]}])
    assert load(path, {"gpu": ["rack", "row"]}).clauses[0].by == ("rack",)
    with pytest.raises(
        ContractError, match="found the unknown dimension 'rack', expected one of provider, region"
    ):
        load(path)


def test_all_contracts_of_a_directory_load_by_name(tmp_path: Path) -> None:
    written(tmp_path / "b.json", metadata={"id": "b", "version": 2})
    written(tmp_path / "a.yml", metadata={"id": "a", "version": "1"})
    written(tmp_path / ".hidden.yaml", metadata={"id": "a", "version": "1"})
    (tmp_path / "README.md").write_text("not a contract")
    assert [(c.id, c.version) for c in load_all(tmp_path)] == [("a", "1"), ("b", "2")]
    assert [c.id for c in load_all(tmp_path / "b.json")] == ["b"]
    assert check([tmp_path, tmp_path / "b.json"]) == []


def test_contracts_that_run_together_share_neither_id_nor_pipeline_section(tmp_path: Path) -> None:
    pipeline = {"watchdog": {"severity": "warning"}}
    written(tmp_path / "a.json", pipeline=pipeline)
    written(tmp_path / "b.json", pipeline=pipeline)
    found = [(fault.path, fault.found, fault.expected) for fault in check([tmp_path])]
    assert found == [
        ("metadata.id", "'small'", f"an id of its own ({tmp_path}/a.json has this one)"),
        ("pipeline", "a second pipeline section", f"it in one contract only ({tmp_path}/a.json has one)"),
    ]
    with pytest.raises(ContractError, match="refused as a whole, 2 faults"):
        load_all(tmp_path)


def test_a_name_in_bills_stands_for_one_thing_in_all_contracts_that_run_together(tmp_path: Path) -> None:
    names = {"EU": "eu-west", "US": "us-east"}
    written(tmp_path / "a.json", aliases={"region": names, "sku": {"EU": "H200"}})
    other = {"metadata": {"id": "other", "version": "1"}}
    written(tmp_path / "b.json", **other, aliases={"region": names})
    assert [contract.aliases["region"] for contract in load_all(tmp_path)] == [names, names]
    written(tmp_path / "b.json", **other, aliases={"region": {**names, "EU": "eu-north"}})
    [fault] = check([tmp_path])
    assert (fault.path, fault.found) == ("aliases.region.EU", "'eu-north'")
    assert fault.expected == f"'eu-west', as {tmp_path}/a.json says of the same name in bills"


def test_one_wrong_contract_refuses_the_whole_directory(tmp_path: Path) -> None:
    written(tmp_path / "a.json")
    written(tmp_path / "b.json", currency="€")
    written(tmp_path / "c.json", currency="£")
    with pytest.raises(ContractError) as error:
        load_all(tmp_path)
    assert str(error.value).startswith(
        f"contract {tmp_path}/b.json, {tmp_path}/c.json: refused as a whole, 2 faults:"
    )


def test_a_directory_without_a_contract_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ContractError, match=r"found no contract in this directory, expected a file \*.yaml, \*.yml"
    ):
        load_all(tmp_path)
    assert [fault.found for fault in check([tmp_path, tmp_path / "none.yaml"])] == [
        "no contract in this directory", "no such file or directory"
    ]  # fmt: skip


def test_the_pipeline_section_tunes_what_it_names_and_leaves_the_rest(tmp_path: Path) -> None:
    tuned = {
        "telemetry_silent": {"severity": "critical", "route": {"team": "x"}},
        "watchdog": {"contact": "me"},
    }
    contracts = [load(written(tmp_path / "a.json")), load(written(tmp_path / "b.json", pipeline=tuned))]
    found = pipeline_alerts(contracts)
    assert (found.telemetry_silent.severity, found.telemetry_silent.route) == ("critical", {"team": "x"})
    assert (found.watchdog.severity, found.watchdog.contact) == ("info", "me")
    assert found.loss_imbalance == PipelineAlerts().loss_imbalance
    assert pipeline_alerts(contracts[:1]) == PipelineAlerts()


TREE = json.loads(json.dumps(read(EXAMPLE).value, default=float))
JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 10**12), st.text(max_size=8),
    st.sampled_from([[], {}, [[]], [{}], 0.5]),
    st.sampled_from(["10m", "2026-06-01", "FREQ=DAILY", "UTC", "critical", "peak-season", "P1D", "region"]),
)  # fmt: skip


def places(tree: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path, *(place for key, value in items for place in places(value, (*path, key)))]


#: Mappings whose keys are the author's own words.
FREE = ("match", "route", "severity_in_window", "windows", "in_window", "aliases")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.sampled_from(places(TREE)[1:]), junk=JUNK, how=st.sampled_from(["replace", "remove", "add"]))
def test_whatever_is_written_anywhere_is_read_or_refused_with_a_place_in_the_file(
    tmp_path: Path, place: tuple[str | int, ...], junk: object, how: str
) -> None:
    tree = json.loads(json.dumps(TREE))
    inner = tree
    for key in place[:-1]:
        inner = inner[key]
    if how == "remove":
        del inner[place[-1]]
    elif how == "add" and isinstance(inner, dict):
        inner["unheard-of"] = junk
    else:
        inner[place[-1]] = junk
    path = tmp_path / "mutant.json"
    text = json.dumps(tree, indent=1)
    path.write_text(text)
    faults = check([path])
    for fault in faults:
        assert 1 <= fault.line <= text.count("\n") + 1
        assert 1 <= fault.column <= len(text.split("\n")[fault.line - 1]) + 1
        assert str(fault).startswith(f"{path}:{fault.line}:{fault.column} ")
    if how == "add" and isinstance(inner, dict) and not faults:
        assert any(part in FREE for part in place)
    if not faults:
        assert load(path).clauses


def test_a_folded_text_is_read_as_one_line(tmp_path: Path) -> None:
    path = tmp_path / "folded.yaml"
    path.write_text("text: >-\n  one two\n  three\n")
    assert read(path).value == {"text": "one two three"}
