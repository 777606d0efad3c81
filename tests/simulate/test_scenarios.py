"""Scenarios: refused with the place of each fault, planned to end by now, and true to what they promise."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.clauses import load as load_contract
from pipeline.errors import ScenarioError
from pipeline.simulate.scenarios import ExpectedAlert, Play, compare, load, names, plan

NOON = 1_795_003_200.0
GOOD = """\
scenario: small
title: A small one
length: 5m
contract: small.contract.yaml
fleet:
  provider: halcyon
  regions:
    - region: north
      site: n-1
      clusters:
        - {cluster: h, sku: ND_H100_v5, gpus: 80}
      queues:
        - {queue: train, cluster: h, workload_class: training, arrivals_per_minute: 5,
           admissions_per_minute: 9}
effects:
  - {what: fail, match: {cluster: h}, from: 1m, gpus: 8}
expected:
  - {alertname: CapacityShortfall, clause: floor, onset: 1m, from: 2m, to: 3m, why: for of 1m}
"""


def write(tmp_path: Path, text: str) -> str:
    path = tmp_path / "small.yaml"
    path.write_text(text, "utf-8")
    return str(path)


@pytest.mark.parametrize("name", names())
def test_every_scenario_loads_and_its_contract_is_accepted(name: str, tmp_path: Path) -> None:
    play = plan(load(name), NOON, duration=120)
    contract = load_contract(play.write_contract(tmp_path))
    assert contract.in_force(play.start)
    clauses = {clause.id for clause in contract.clauses} | {"telemetry_silent"}
    assert {alert.clause for alert in play.expected} <= clauses


def test_nothing_is_expected_of_the_steady_one() -> None:
    assert load("steady").expected == []
    assert load("steady").effects == []


def test_the_peak_has_everything_that_it_is_to_show() -> None:
    fired = {alert.alertname for alert in load("peak-season").expected}
    assert fired == {
        "CapacityShortfall", "PowerCeilingExceeded", "QueueWaitBreach", "TelemetrySilent",
        "TrancheOverrunForecast", "WindowNotReady",
    }  # fmt: skip
    assert all(len(alert.why) > 40 for alert in load("peak-season").expected)


@pytest.mark.parametrize(
    ("wrong", "right", "message"),
    [
        ("gpus: 8}", "gpus: 88}", r"small.yaml:16:\d+ effects\[0\].gpus: found 88, expected at most 80"),
        ("{cluster: h}, from", "{cluster: hh}, from", r"effects\[0\].match.cluster: found 'hh', expected h"),
        ("what: fail", "what: fial", r":16:\d+ effects\[0\].what: found 'fial'"),
        ("length: 5m", "length: soon", r":3:9 length: found 'soon', expected a duration"),
        ("length: 5m", "length: 5m\nlenght: 5m", r":4:1 lenght: found the unknown field 'lenght'"),
        ("gpus: 80", "gpus: 81", r"found 81, expected a multiple of 8"),
        ("ND_H100_v5", "H100", r"sku: found 'H100', expected one of ND_H100_v5"),
        ("title: A small one\n", "", r"small.yaml:1:1 title: found nothing, expected the field 'title'"),
        ("to: 3m", "to: 30m", r"CapacityShortfall until 1800s, but length is 300s"),
        ("from: 2m, to", "from: 30s, to", r"expected onset <= from <= to"),
        ("region: north", "region: no rth", r"found 'no rth', expected a name"),
        ("scenario: small", "scenario: small\nscenario: small", r"'scenario' a second time"),
    ],
)  # fmt: skip
def test_a_wrong_scenario_is_refused_with_the_place(
    tmp_path: Path, wrong: str, right: str, message: str
) -> None:
    assert wrong in GOOD
    load(write(tmp_path, GOOD))
    with pytest.raises(ScenarioError, match=message):
        load(write(tmp_path, GOOD.replace(wrong, right)))


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ScenarioError, match=r"found 'peek-season', .*did you mean 'peak-season'\?"):
        load("peek-season")


def test_a_missing_file_and_a_wrong_template_are_named(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="no such file"):
        load(str(tmp_path / "none.yaml"))
    play = plan(load(write(tmp_path, GOOD)), NOON)
    with pytest.raises(ScenarioError, match=r"small\.contract\.yaml: No such file"):
        play.contract_text()
    (tmp_path / "small.contract.yaml").write_text("a: 1\nb: {{strat+10m}}\n", "utf-8")
    with pytest.raises(ScenarioError, match=r"small\.contract\.yaml:2: found '\{\{strat\+10m\}\}'"):
        play.contract_text()


def test_the_template_follows_start_day_and_scale(tmp_path: Path) -> None:
    template = "{{start}} {{start+1h30m}} {{ start-90s }} {{day-2d}} {{scaled 1200}} {{scaled 0.8}}"
    (tmp_path / "small.contract.yaml").write_text(template, "utf-8")
    play = Play(load(write(tmp_path, GOOD)), int(NOON), 1.0, scale=2.5)
    assert play.contract_text() == (
        "2026-11-18T12:00:00Z 2026-11-18T13:30:00Z 2026-11-18T11:58:30Z 2026-11-16T00:00:00Z 3000 2"
    )


@given(st.floats(1, 5000), st.floats(1.6e9, 2e9))
def test_scenario_time_never_runs_ahead_of_the_wall_clock(speed: float, now: float) -> None:
    play = plan(load("steady"), now, speed=speed)
    for share in (0, 0.25, 0.5, 1):
        wall = now + share * play.seconds
        assert play.start + share * play.scenario.length <= wall + 1e-3


def test_duration_decides_the_speed_and_rate_the_size() -> None:
    scenario = load("steady")
    assert plan(scenario, NOON, duration=120).speed == scenario.length / 120
    big = plan(scenario, NOON, rate=20_000)
    assert big.speed == 1
    assert big.scenario.fleet.gpus == pytest.approx(600_000, rel=0.01)
    quick = plan(scenario, NOON, rate=20_000, speed=60)
    assert quick.scenario.fleet.gpus == pytest.approx(10_000, rel=0.02)


def test_the_size_changes_fleet_effects_and_contract_alike(tmp_path: Path) -> None:
    play = plan(load("peak-season"), NOON, speed=20, rate=20_000)
    before, after = load("peak-season"), play.scenario
    assert after.fleet.gpus / before.fleet.gpus == pytest.approx(play.scale, rel=0.01)
    failed = [s.effects[3].gpus or 0 for s in (before, after)]
    assert failed[1] / failed[0] == pytest.approx(play.scale, rel=0.01)
    floor: Any = load_contract(play.write_contract(tmp_path)).clauses[0]
    assert floor.floor_at(play.start, {**load_contract(tmp_path / "peak-season.yaml").windows}).value == (
        pytest.approx(1200 * play.scale, rel=1e-6)
    )


@pytest.mark.parametrize(
    "wrong", [{"speed": 2, "duration": 9}, {"speed": 0.5}, {"rate": -1}, {"duration": 0}]
)
def test_a_pace_that_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ScenarioError, match="found"):
        plan(load("steady"), NOON, **wrong)


WANTED = ExpectedAlert.model_validate(
    {
        "alertname": "CapacityShortfall", "clause": "floor", "by": {"region": "west"}, "onset": 60,
        "from": 120, "to": 180, "resolves": True, "why": "because",
    }
)  # fmt: skip


def alert(**changes: Any) -> dict[str, Any]:
    labels = {"alertname": "CapacityShortfall", "region": "west", "severity": "critical"}
    return {
        "alertname": "CapacityShortfall", "clause": "floor", "labels": labels, "fired_at": 1150,
        "resolved_at": 1300,
    } | changes  # fmt: skip


def test_a_scenario_that_is_like_another_says_only_what_is_its_own(tmp_path: Path) -> None:
    peak, dcgm = load("peak-season"), load("dcgm")
    assert (dcgm.expected, dcgm.length, dcgm.seed) == (peak.expected, peak.length, peak.seed)
    assert dcgm.fleet.gpus == peak.fleet.gpus / 4 + 2, "of nodes, not of racks: two trays are 31.5"
    assert "committed_gpus: 320}" in Play(dcgm, int(NOON), 1.0).contract_text()
    path = write(tmp_path, "scenario: mine\nlike: dcgm\ntitle: Mine\nlength: 45m\n")
    assert (load(path).exporters, load(path).length, load(path).fleet.gpus) == ("dcgm", 2700, dcgm.fleet.gpus)
    with pytest.raises(ScenarioError, match=r"like: found 'dcgn', expected one of dcgm, peak-season, steady"):
        load(write(tmp_path, "scenario: mine\nlike: dcgn\ntitle: Mine\n"))


def test_what_was_expected_and_nothing_else_agrees() -> None:
    watchdog = {"alertname": "Watchdog", "clause": "watchdog", "labels": {}, "fired_at": 1000}
    pending = alert(fired_at=None)
    iso = alert(fired_at=datetime.fromtimestamp(1150, UTC).isoformat(), resolved_at="1970-01-01T00:21:40Z")
    for fired in (alert(), iso, alert(fired_at=datetime.fromtimestamp(1150, UTC).replace(tzinfo=None))):
        assert compare([WANTED], [watchdog, pending, fired], 1000).agrees


def test_a_play_compares_with_its_own_start_and_tells_its_story_in_order() -> None:
    play = plan(load("peak-season"), NOON, duration=120)
    assert play.accelerated
    assert [m["reason"] for m in play.compare([]).missing] == ["never fired"] * len(play.expected)
    story = play.scenario.story
    assert story[0][0] == 0 and story == sorted(story) and len(story) >= 5


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"fired_at": 1119}, "fired at +1m59s, expected between +2m00s and +3m00s"),
        ({"fired_at": 1181}, "fired at +3m01s, expected between +2m00s and +3m00s"),
        ({"resolved_at": None}, "has not resolved"),
    ],
)
def test_an_alert_that_comes_at_the_wrong_time_is_missing_with_the_reason(
    changes: dict[str, Any], reason: str
) -> None:
    found = compare([WANTED], [alert(**changes)], 1000)
    assert [m["reason"] for m in found.missing] == [reason]
    assert found.unexpected == []


@pytest.mark.parametrize(
    "changes", [{"labels": {"region": "east"}}, {"clause": "other"}, {"alertname": "QueueBacklog"}]
)
def test_an_alert_on_something_else_is_missing_and_unexpected(changes: dict[str, Any]) -> None:
    found = compare([WANTED], [alert(**changes)], 1000)
    assert [m["reason"] for m in found.missing] == ["never fired"]
    assert len(found.unexpected) == 1 and not found.agrees


def test_the_same_alert_twice_is_once_too_often() -> None:
    found = compare([WANTED], [alert(), alert(fired_at=1160)], 1000)
    assert not found.missing
    assert [u["reason"] for u in found.unexpected] == ["fired at +2m40s, which the scenario does not expect"]


# -- Do the events say what the scenario promises?  Read off by hand, as the design's page on readings has it,
#    with nothing of the pipeline.


class Seen:
    """The events of a scenario, in seconds since its start."""

    def __init__(self, name: str) -> None:
        play = plan(load(name), NOON, duration=120)
        self.length, self.scale = play.scenario.length, play.scenario.scale
        self.gpus: dict[str, list[tuple[float, str, bool]]] = defaultdict(list)
        self.queues: dict[str, list[tuple[float, Mapping[str, Any]]]] = defaultdict(list)
        self.feeds: dict[str, list[tuple[float, str, float]]] = defaultdict(list)
        for message in play.fleet().events(play.start, play.end):
            data, at = json.loads(message.value)["data"], message.time_ms / 1000 - play.start
            if message.topic == "telemetry.gpu":
                self.gpus[data["region"]].append((at, data["gpu"], data["health"] == "ok"))
            elif message.topic == "telemetry.queue":
                self.queues[data["queue"]].append((at, data))
            elif message.topic == "telemetry.energy":
                self.feeds[data["region"]].append((at, data["feed"], data["it_power_watts"]))

    def healthy(self, region: str, t: int) -> int:
        span = [(gpu, ok) for at, gpu, ok in self.gpus[region] if t - 90 <= at < t]
        return len({gpu for gpu, _ in span} - {gpu for gpu, ok in span if not ok})

    def wait_p95(self, queue: str, t: int) -> float:
        inside = [data for at, data in self.queues[queue] if t - 300 <= at < t]
        waits = sorted(wait for data in inside for wait in data["admission_wait_seconds"])
        if not waits:
            return float(inside[-1]["oldest_wait_seconds"])
        return float(waits[math.ceil(0.95 * len(waits)) - 1])

    def megawatts(self, region: str, t: int) -> float:
        by_feed: dict[str, list[float]] = defaultdict(list)
        for at, feed, watts in self.feeds[region]:
            if t - 300 <= at < t:
                by_feed[feed].append(watts)
        return sum(sum(watts) / len(watts) for watts in by_feed.values()) / 1e6


@cache
def seen(name: str) -> Seen:
    return Seen(name)


def in_peak(t: int) -> bool:
    return t >= 900


#: Clause → (is it in breach at `t`, its `for`).  The bounds are those of the contract beside the scenarios.
CLAUSES: dict[str, tuple[Callable[[Seen, int], bool], int]] = {
    "eu-west-floor": (lambda s, t: s.healthy("eu-west", t) < s.scale * (1280 if in_peak(t) else 1200), 60),
    "eu-north-floor": (lambda s, t: 300 <= t < 900 and s.healthy("eu-north", t) < s.scale * 640, 60),
    "replanning-wait": (lambda s, t: s.wait_p95("fleet-replanning", t) > (180 if in_peak(t) else 600), 60),
    "spot-wait": (lambda s, t: s.wait_p95("spot-training", t) > (240 if in_peak(t) else 600), 60),
    "eu-central-power": (lambda s, t: s.megawatts("eu-central", t) > s.scale * 0.8, 120),
}


@pytest.mark.parametrize("name", ["peak-season", "dcgm"])
@pytest.mark.parametrize("clause", CLAUSES)
def test_the_events_breach_each_clause_when_the_scenario_says_so(clause: str, name: str) -> None:
    breaches, hold = CLAUSES[clause]
    wanted = next(a for a in load(name).expected if a.clause == clause)
    story = seen(name)
    # The first 40 s of any feed see only a part of the fleet: shorter than every `for`.
    bad = [t for t in range(60, story.length + 1, 10) if breaches(story, t)]
    assert bad and bad == list(range(bad[0], bad[-1] + 10, 10)), "one unbroken breach"
    assert wanted.onset <= bad[0]
    assert wanted.start <= bad[0] + hold <= wanted.end
    assert bad[-1] < story.length - 120, "it must have time to resolve"


@pytest.mark.parametrize("clause", CLAUSES)
def test_the_steady_events_breach_nothing(clause: str) -> None:
    breaches, _ = CLAUSES[clause]
    story = seen("steady")
    assert not [t for t in range(60, story.length + 1, 10) if breaches(story, t)]


def test_the_silent_cluster_says_nothing_between_the_two_instants_and_all_of_it_returns() -> None:
    times = [at for at, _, _ in seen("peak-season").gpus["us-east"]]
    assert max(at for at in times if at < 1500) <= 1200
    assert min(at for at in times if at > 1500) >= 2160
    assert seen("peak-season").healthy("us-east", 2260) == 320


@pytest.mark.parametrize(("name", "over"), [("peak-season", True), ("steady", False)])
@pytest.mark.parametrize("now", [NOON, NOON + 11.9 * 3600, NOON - 11.9 * 3600])
def test_the_charges_are_on_course_to_overrun_only_where_they_should(
    name: str, over: bool, now: float
) -> None:
    play = plan(load(name), now, duration=120)
    day = 86_400
    first = (play.start // day - 20) * day
    complete = (play.start - 2 * day - first) // day * day
    spent = 0.0
    for message in play.fleet().ledger.messages(play.start * 1000, play.end * 1000):
        charge = json.loads(message.value)["data"]
        begins = datetime.fromisoformat(charge["ChargePeriodStart"]).timestamp()
        if charge["ChargeCategory"] == "Usage" and first <= begins < first + complete:
            spent += float(charge["BilledCost"])
    assert (spent / (complete / day) * 30 > 9_000_000) == over
