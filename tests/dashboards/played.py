"""The peak season, played into a real data directory: simulator, decoder, ledger, rules and publishing, without Kafka."""

from __future__ import annotations

import runpy
import time
from pathlib import Path
from typing import Any

from pipeline.catalog import load
from pipeline.clauses import load_all, plan_of
from pipeline.contract.model import PipelineAlerts
from pipeline.history import health_table, publish, seal
from pipeline.history.health_table import Pulse
from pipeline.ledger.evaluation import utc
from pipeline.rules.alerts import AlertChange
from pipeline.rules.pipeline_alerts import watchdog
from pipeline.simulate.scenarios import Play, plan
from pipeline.simulate.scenarios import load as load_scenario

ROOT = Path(__file__).resolve().parents[2]
SCALE = 0.1
STEP_MS = 10_000
STEPS_A_BATCH = 12
HOURS_AHEAD = 2
"""The pipeline has said that it is well, and up to when, for so long ahead: for as long as tests may take."""


def play_into(data: Path, folder: Path) -> Play:
    """Forty minutes of the peak season with a tenth of its fleet, ended by now; a dead letter, a quarantined sample
    and a measure that is set aside among them.  Everything but Kafka and the clock is the pipeline's own."""
    made = runpy.run_path(str(ROOT / "tests" / "stream" / "conftest.py"))
    catalog, scenario, now = load(), load_scenario("peak-season"), time.time()
    play = plan(scenario, now, rate=SCALE * scenario.fleet.gpus * 20 / 30, speed=20)
    contracts = load_all(play.write_contract(folder))
    pipeline = made["Pipeline"](data, catalog)
    pipeline.ledger.use(contracts, plan_of(contracts, catalog), play.end)
    fleet, waiting = play.fleet(arrays=True), []
    for n, at in enumerate(range(play.start * 1000, play.end * 1000, STEP_MS), 1):
        for block in fleet.step(at, at + STEP_MS):
            waiting += [_record(made, m) for m in block.messages()]
        if n % STEPS_A_BATCH == 0:
            reached = (at + STEP_MS) / 1000
            waiting.sort(key=lambda record: record.timestamp)
            pipeline.take(*waiting, watermarks=dict.fromkeys(catalog.topics, reached))
            waiting = []
    _wrong(made, pipeline, play.end)
    _publish(pipeline, catalog, now)
    pipeline.close()
    return play


def _record(made: dict[str, Any], message: Any) -> Any:
    return made["record"](
        message.value, message.headers, topic=message.topic, appended=message.time_ms / 1000 + 0.2
    )


def _wrong(made: dict[str, Any], pipeline: Any, at: float) -> None:
    """What is refused, so that every fate has rows."""
    event = made["event"]
    pipeline.take(
        made["record"](b"{", topic="telemetry.gpu", appended=at),
        event(at=at + 3600, id="early", appended=at),
        event(at=at - 1, id="hot", power_watts=-5.0),
        event(at=at - 1, id="twice"),
        event(at=at - 1, id="twice"),
    )


def _publish(pipeline: Any, catalog: Any, now: float) -> None:
    ledger = pipeline.ledger
    state = watchdog(PipelineAlerts().watchdog, int(now))
    ledger.record_own({state.identity: state}, [AlertChange("firing", int(now), state)], now)
    for at in (now, now + HOURS_AHEAD * 3600):
        health_table.note(ledger.cursor(), Pulse(dict.fromkeys(catalog.topics, 3), 512.0, 0.9, 1.4), at)
        ledger.cursor().execute("UPDATE frontier SET watermark = ?", [utc(now + HOURS_AHEAD * 3600)])
    seal.seal(ledger.cursor(), pipeline.data, catalog)
    publish.publish(ledger.cursor(), pipeline.data, catalog)
