"""A ledger that hangs in one statement: it is told, the answers to supervisors are true, and the process ends."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipeline.broker.kafka import EmbeddedKafka
from pipeline.errors import Stalled
from pipeline.serve.status_report import well
from tests.patience import PATIENCE

ROOT = Path(__file__).parents[2]

# What keeps the ledger's thread: a statement that can be interrupted, and a call that cannot.
STATEMENT = "ledger.con.execute('SELECT count(*) FROM range(1000000000000) a, range(1000) b').fetchall()"
CALL = "time.sleep(100_000)"

HANGING = """
import sys, time
from pathlib import Path
from pipeline.ledger.store import Ledger
from pipeline.cli import main

cue, tick = Path(sys.argv.pop(1)), Ledger.tick

def hang(ledger, *args):
    if cue.exists():
        {work}
    return tick(ledger, *args)

Ledger.tick = hang
sys.exit(main())
"""


@pytest.fixture
def hanging(tmp_path: Path, worker_factory: Any) -> Callable[..., Any]:
    """`hanging(bootstrap, work, **settings)`: a pipeline whose ledger's thread does `work` once `cue` exists."""

    def make(bootstrap: str, work: str, **settings: object) -> Any:
        worker = worker_factory(bootstrap, **settings)
        worker.cue = tmp_path / "cue"
        script = tmp_path / "hanging.py"
        script.write_text(HANGING.format(work=work))
        worker.command = [sys.executable, str(script), str(worker.cue), "run"]
        return worker

    return make


def _active(url: str) -> dict[str, dict[str, Any]]:
    found = httpx.get(f"{url}/api/v2/alerts", trust_env=False, timeout=PATIENCE).json()
    return {alert["labels"]["alertname"]: alert for alert in found}


@pytest.mark.parametrize("work", [STATEMENT, CALL])
def test_a_ledger_that_hangs_is_told_and_ends_the_process_with_code_6(
    kafka: EmbeddedKafka,
    telemetry_topics: Any,
    hanging: Callable[..., Any],
    alertmanager: Any,
    eventually: Callable[..., Any],
    work: str,
) -> None:
    telemetry_topics(1)
    board = "https://noc.example"
    worker = hanging(
        kafka.bootstrap,
        work,
        alertmanager=alertmanager.url,
        stalled_after=6,
        give_up_after=25,
        public_url=board,
    ).start()
    worker.await_begun()
    eventually("Watchdog is there", lambda: "Watchdog" in _active(alertmanager.url))
    assert _active(alertmanager.url)["Watchdog"]["generatorURL"] == f"{board}/"
    assert well(worker.data, time.time())[0]
    worker.cue.touch()
    stalled = eventually("it is told", lambda: _active(alertmanager.url).get("PipelineStalled"))
    assert stalled["generatorURL"].startswith(f"{board}/#alert-"), "also what goes past the ledger"
    cause = stalled["annotations"]["why"]
    assert (
        cause.startswith("the ledger is busy with one statement")
        and cause in stalled["annotations"]["summary"]
    )
    line = eventually("the status says so", lambda: worker.status()["stalled"])
    assert f"T{line[1:]}" == stalled["annotations"]["summary"], "the same words"
    good, why = well(worker.data, time.time())
    assert not good and line in why
    assert worker.wait() == Stalled.exit_code
    assert cause in worker.said()
    assert worker.status()["state"] == "failed" and cause in worker.status()["error"]
    # nothing is lost: the next start goes on, and the alert is over
    worker.cue.unlink()
    worker.start().await_begun()
    eventually("it is over", lambda: "PipelineStalled" not in _active(alertmanager.url))


def test_a_stop_interrupts_a_statement_that_hangs(
    kafka: EmbeddedKafka, telemetry_topics: Any, hanging: Callable[..., Any]
) -> None:
    telemetry_topics(1)
    worker = hanging(kafka.bootstrap, STATEMENT).start()
    worker.await_begun()
    worker.cue.touch()
    time.sleep(2)
    assert worker.stop() == 0
    assert worker.status()["state"] == "stopped"
