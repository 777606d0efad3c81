"""Scenarios: what a fleet does for an hour, and which alerts must come of it, both as data.

A scenario is a YAML file; its contract is a template beside it, whose instants follow the start:
`{{start+10m}}` an instant, `{{day-20d}}` a midnight (UTC), `{{scaled 1200}}` a number that grows with the
fleet.  `plan` fixes the start, so that the scenario ends at or before now; all else follows from it.  A scenario may be
`like` another: what it does not say itself is the other's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from pipeline.contract.checked_parts import Duration, fault_text, parse_duration
from pipeline.contract.document import Document, read
from pipeline.contract.faults import DocumentPath, did_you_mean, dotted, one_of
from pipeline.errors import ContractError, ScenarioError
from pipeline.rollup.grid import DAY
from pipeline.simulate.cloud_events import Mode
from pipeline.simulate.fleet import Fleet
from pipeline.simulate.fleet_spec import INTERVAL, Effect, FleetSpec, Name, Spec
from pipeline.simulate.scenario_alerts import Comparison, ExpectedAlert, compare

__all__ = ["Comparison", "ExpectedAlert", "Play", "Scenario", "compare", "load", "names", "plan"]

DIRECTORY = Path(__file__).parent / "scenarios"
#: Seconds of wall clock that an accelerated scenario ends before now, at least.
_MARGIN = 2
_FIELD = re.compile(r"\{\{\s*(\w+)\s*([+-]?)\s*([^}\s]*)\s*\}\}")


class Scenario(Spec):
    """One scenario file.

    `scale` is how much larger (or smaller) fleet and contract are than they are written; that of the fleet is done.
    `exporters`: its GPUs are behind exporters of that kind, one on each node, and have to be scraped.
    """

    scenario: Name
    title: str
    text: str = ""
    seed: int = 1
    length: Duration
    scale: float = Field(1.0, gt=0)
    exporters: Literal["dcgm"] | None = None
    contract: str
    fleet: FleetSpec
    effects: list[Effect] = Field(default_factory=list)
    expected: list[ExpectedAlert] = Field(default_factory=list)
    path: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> Scenario:
        if self.length < 60:
            raise ValueError(f"length: found {self.length}s, expected at least 60s")
        late = [alert for alert in self.expected if alert.end > self.length]
        if late:
            raise ValueError(
                f"expected: {late[0].alertname} until {late[0].end}s, but length is {self.length}s"
            )
        return self

    @property
    def story(self) -> list[tuple[int, str]]:
        """`(seconds since the start, what begins then)`, in order, for whoever watches."""
        return sorted((effect.start, effect.text) for effect in self.effects if effect.text)

    def scaled(self, scale: float) -> Scenario:
        """The same with about `scale` times the GPUs, in the fleet as in what happens to it."""
        effects = [effect.scaled(scale) for effect in self.effects]
        return self.model_copy(update={"fleet": self.fleet.scaled(scale), "effects": effects})


def names() -> list[str]:
    """The scenarios that come with the program."""
    return sorted(path.stem for path in DIRECTORY.glob("*.yaml") if not path.stem.endswith(".contract"))


def load(name: str) -> Scenario:
    """A scenario by name, or by the path of its file.

    Raises ScenarioError with each fault's file, line, column, what was found and what was expected.
    """
    if name in names():
        path = DIRECTORY / f"{name}.yaml"
    elif "/" in name or name.endswith((".yaml", ".yml")):
        path = Path(name)
    else:
        hint = did_you_mean(name, names())
        raise ScenarioError(
            f"scenario: found {name!r}, expected {one_of(names())} or the path of a file"
            + (hint and f"; {hint}")
        )
    try:
        document = read(path, str(path) if path.parent != DIRECTORY else path.name)
    except ContractError as error:
        raise ScenarioError(str(error).replace("contract", "scenario", 1)) from error
    return _checked(document, path)


def _checked(document: Document, path: Path) -> Scenario:
    faults = [str(fault) for fault in document.faults]
    if not faults and not isinstance(document.value, dict):
        faults = [f"{document.file}:1:1: found no mapping, expected the fields of a scenario"]
    if not faults:
        try:
            scenario = Scenario.model_validate({**_like(document.value), "path": str(path)})
            faults = list(_unmatched(scenario, document))
        except ValidationError as error:
            faults = [fault_text(document, problem) for problem in error.errors()]
    if faults:
        raise ScenarioError("scenario refused:\n  " + "\n  ".join(faults))
    if scenario.exporters:
        scenario = scenario.model_copy(update={"fleet": scenario.fleet.by_node()})
    return scenario if scenario.scale == 1 else scenario.scaled(scenario.scale)


def _like(value: dict[str, Any]) -> dict[str, Any]:
    """The fields of a scenario, with those of the shipped one that it is like.  Raises ScenarioError."""
    if "like" not in value:
        return value
    path = DIRECTORY / f"{value['like']}.yaml"
    if value["like"] not in names():
        raise ScenarioError(f"scenario: like: found {value['like']!r}, expected {one_of(names())}")
    other = _like(read(path, path.name).value)
    own = {name: each for name, each in value.items() if name != "like"}
    return {**other, "contract": str(path.parent / other["contract"]), **own}


def _unmatched(scenario: Scenario, document: Document) -> Iterable[str]:
    """What an effect asks for and the fleet has not: a misspelt cluster would make nothing happen at all."""
    sources = _sources(scenario.fleet)
    for i, effect in enumerate(scenario.effects):
        here = [s for s in sources if ("queue" in s) == (effect.what == "queue")]
        for name, value in effect.match.items():
            known = {source[name] for source in here if name in source}
            if value not in known:
                place = _place(document, ("effects", i, "match", name))
                hint = did_you_mean(value, known)
                yield f"{place}: found {value!r}, expected {one_of(sorted(known))}" + (hint and f"; {hint}")
        hit = [s for s in here if effect.concerns(s)]
        if effect.gpus is not None and (len(hit) != 1 or effect.gpus > int(hit[0]["gpus"])):
            most = f"at most {hit[0]['gpus']}" if len(hit) == 1 else "match to name exactly one cluster"
            yield f"{_place(document, ('effects', i, 'gpus'))}: found {effect.gpus}, expected {most}"


def _place(document: Document, path: DocumentPath) -> str:
    line, column = document.place(path)
    return f"{document.file}:{line}:{column} {dotted(path)}"


def _sources(fleet: FleetSpec) -> list[dict[str, str]]:
    """The dimensions of every cluster (with its GPUs) and every queue."""
    found = []
    for region in fleet.regions:
        at = {"provider": fleet.provider, "region": region.region, "site": region.site}
        for c in region.clusters:
            found.append({**at, "cluster": c.cluster, "sku": c.sku, "gpus": str(c.gpus)})
        for q in region.queues:
            del_site = {k: v for k, v in at.items() if k != "site"}
            found.append(
                {**del_site, "cluster": q.cluster, "queue": q.queue, "workload_class": q.workload_class}
            )
    return found


@dataclass(frozen=True)
class Play:
    """A scenario with a start (epoch seconds), a speed (event seconds for each second) and a scale."""

    scenario: Scenario
    start: int
    speed: float
    scale: float = 1.0

    @property
    def end(self) -> int:
        return self.start + self.scenario.length

    @property
    def seconds(self) -> float:
        """How long it takes, in seconds of wall clock."""
        return self.scenario.length / self.speed

    @property
    def accelerated(self) -> bool:
        """Whether event time runs faster than the wall clock: delays measured then mean nothing."""
        return self.speed > 1

    @property
    def expected(self) -> list[ExpectedAlert]:
        return self.scenario.expected

    def compare(self, alerts: Iterable[Mapping[str, Any]]) -> Comparison:
        """What is missing and what is unexpected among `alerts` (see `compare`)."""
        return compare(self.expected, alerts, self.start)

    @property
    def mode(self) -> Mode:
        """How its events are written where nothing else is asked for."""
        return "scraped" if self.scenario.exporters else "structured"

    def fleet(self, *, arrays: bool = False, mode: Mode = "structured") -> Fleet:
        scenario = self.scenario
        return Fleet(
            scenario.fleet, scenario.seed, self.start, effects=scenario.effects, arrays=arrays, mode=mode
        )

    def contract_text(self) -> str:
        """The scenario's contract with the instants of this play.  Raises ScenarioError."""
        path = Path(self.scenario.path).parent / self.scenario.contract
        try:
            text = path.read_text("utf-8")
        except OSError as error:
            raise ScenarioError(
                f"scenario {self.scenario.path}: contract {path}: {error.strerror}"
            ) from error
        return _FIELD.sub(lambda found: self._rendered(found, path, text), text)

    def write_contract(self, directory: Path) -> Path:
        """Writes `contract_text` as `NAME.yaml` into `directory`, which is made if absent."""
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"{self.scenario.scenario}.yaml"
        path.write_text(self.contract_text(), "utf-8")
        return path

    def _rendered(self, found: re.Match[str], path: Path, text: str) -> str:
        what, sign, rest = found.groups()
        try:
            if what == "scaled":
                return f"{round(float(rest) * self.scale * self.scenario.scale, 6):.10g}"
            shift = parse_duration(rest) if rest else 0
            base = {"start": self.start, "day": self.start - self.start % DAY}[what]
            at = datetime.fromtimestamp(base + (-shift if sign == "-" else shift), UTC)
            return f"{at:%Y-%m-%dT%H:%M:%SZ}"
        except (KeyError, ValueError) as error:
            line = text.count("\n", 0, found.start()) + 1
            raise ScenarioError(
                f"{path.name}:{line}: found {found[0]!r}, expected {{{{start+10m}}}}, {{{{day-20d}}}} or "
                "{{scaled 1200}}"
            ) from error


def plan(
    scenario: Scenario, now: float, *, speed: float | None = None, duration: float | None = None,
    rate: float | None = None,
) -> Play:  # fmt: skip
    """Fixes start, speed and size.  `now`: wall clock, epoch seconds; `duration`: wall seconds that it takes.

    `rate` (GPU samples a second of wall clock) scales the fleet, at real time unless told otherwise.
    Raises ScenarioError for a speed below real time, or two ways to say the speed.
    """
    if speed is not None and duration is not None:
        raise ScenarioError("found both a speed and a duration, expected one of them: each decides the other")
    for name, value in (("speed", speed), ("duration", duration), ("rate", rate)):
        if value is not None and not 0 < value < float("inf"):
            raise ScenarioError(f"{name}: found {value:g}, expected a number above 0")
    pace = speed or (scenario.length / duration if duration else 1.0)
    if pace < 1:
        raise ScenarioError(
            f"found a speed of {pace:.3g}, expected at least 1 (a scenario of {scenario.length} s "
            f"cannot take longer than that)"
        )
    scale = rate * INTERVAL / (pace * scenario.fleet.gpus) if rate else 1.0
    return Play(scenario.scaled(scale) if rate else scenario, _start(now, scenario.length, pace), pace, scale)


def _start(now: float, length: int, speed: float) -> int:
    """In real time it starts now; faster, early enough to end before now, on a full minute."""
    if speed == 1:
        return int(now)
    start = now + length / speed - length - _MARGIN
    return int(start // 60 * 60)
