"""Our own clock is set an hour or a day forward and back while records come, in a process of its own."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from pipeline.broker.kafka import EmbeddedKafka

GPU = "telemetry.gpu"

# Every module asks `time.time`: a file says by how much it is wrong.  What never steps stays as it is.
SET_WRONG = """
import sys, time
from pathlib import Path

off, right = Path(sys.argv.pop(1)), time.time
time.time = lambda: right() + float(off.read_text())

from pipeline.cli import main
sys.exit(main())
"""


@pytest.mark.parametrize("step", [86_400, -3_600])
def test_a_clock_that_is_set_wrong_for_a_while_is_told_and_ends_nothing(
    kafka: EmbeddedKafka,
    telemetry_topics: Any,
    worker_factory: Any,
    send: Any,
    gpu_event: Callable[..., bytes],
    tmp_path: Path,
    step: int,
) -> None:
    telemetry_topics(1)
    off, script = tmp_path / "off", tmp_path / "wrong.py"

    def set_wrong_by(seconds: int) -> None:
        """At once: who asks the time meanwhile never finds half a file."""
        (new := tmp_path / "new").write_text(str(seconds))
        new.replace(off)

    set_wrong_by(0)
    script.write_text(SET_WRONG)
    worker = worker_factory(kafka.bootstrap, stalled_after=10, give_up_after=30)
    worker.command = [sys.executable, str(script), str(off), "run"]
    worker.start().await_begun()
    sent = 0

    def flow(count: int) -> None:
        nonlocal sent
        for _ in range(count):
            send(kafka.bootstrap, GPU, [gpu_event(sent, time.time())])
            sent += 1
            time.sleep(0.2)

    flow(5)
    worker.await_taken_in()
    set_wrong_by(step)
    flow(5)

    def skew(status: dict[str, Any]) -> Any:
        return [a for a in status["alerts"] if a["alertname"] == "ClockSkew"]

    (alert,) = worker.await_status("it is told", skew)
    assert alert["labels"]["clock"] == "own"
    way = "ahead of that of the broker" if step > 0 else "behind that of the broker"
    assert way in alert["annotations"]["description"] and "was set" in alert["annotations"]["description"]
    flow(20)
    assert _mark(worker) <= time.time() + 1, "no watermark runs ahead"
    set_wrong_by(0)
    worker.await_status("it is over", lambda s: skew(s)[0]["state"] == "resolved")
    flow(5)
    worker.await_taken_in()
    now = time.time()
    worker.await_status("the watermark has come to now", lambda s: _mark(worker) > now - 10)
    assert worker.status()["events"]["aggregated"] == sent, "nothing was quarantined"
    assert worker.stop() == 0
    fired = {name for (name,) in worker.ask("SELECT DISTINCT alertname FROM alerts WHERE state = 'firing'")}
    assert fired - {"TelemetrySilent"} == {"Watchdog", "ClockSkew"}


def _mark(worker: Any) -> float:
    return datetime.fromisoformat(worker.status()["watermarks"][GPU]).timestamp()
