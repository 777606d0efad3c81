"""The two alerts that go by the wall clock."""

from __future__ import annotations

from pipeline.contract.model import PipelineAlert
from pipeline.rules.pipeline import stalled, watchdog

ALERT = PipelineAlert(severity="critical", route={"team": "noc"}, runbook="https://runbooks/stalled")


def test_the_watchdog_fires_from_the_start_and_says_what_its_silence_means() -> None:
    state = watchdog(ALERT, 1000)
    assert (state.phase, state.active_at, state.fired_at) == ("firing", 1000, 1000)
    assert dict(state.labels) == {
        "alertname": "Watchdog", "contract": "gigawatch", "clause": "watchdog", "severity": "critical", "team": "noc",
    }  # fmt: skip
    assert "nothing is being watched" in state.annotations["description"]


def test_a_topic_that_does_not_progress_for_longer_than_the_limit_is_stalled_until_it_does() -> None:
    state, change = stalled(None, ALERT, "telemetry.gpu", 30.0, 30.0, "the broker does not answer", 1000)
    assert (state, change) == (None, None)
    state, change = stalled(state, ALERT, "telemetry.gpu", 31.0, 30.0, "the broker does not answer", 1001)
    assert state and change and change.kind == "firing" and state.fired_at == 1001
    assert state.annotations["runbook"] == "https://runbooks/stalled"
    assert "the broker does not answer" in state.annotations["description"]
    again, change = stalled(state, ALERT, "telemetry.gpu", 41.0, 30.0, "the broker does not answer", 1011)
    assert again and again.identity == state.identity and change is None
    assert again.annotations == state.annotations
    over, change = stalled(again, ALERT, "telemetry.gpu", 1.0, 30.0, "", 1020)
    assert over is None and change and change.kind == "resolved" and change.state.resolved_at == 1020
    assert change.state.annotations["summary"] == "telemetry.gpu progresses again"
