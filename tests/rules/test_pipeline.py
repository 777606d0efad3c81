"""The two alerts that go by the wall clock."""

from __future__ import annotations

from pipeline.contract.model import PipelineAlert
from pipeline.rules.pipeline_alerts import Stall, stalled, watchdog

ALERT = PipelineAlert(severity="critical", route={"team": "noc"}, runbook="https://runbooks/stalled")


def test_the_watchdog_fires_from_the_start_and_says_what_its_silence_means() -> None:
    state = watchdog(ALERT, 1000)
    assert (state.phase, state.active_at, state.fired_at) == ("firing", 1000, 1000)
    assert dict(state.labels) == {
        "alertname": "Watchdog", "contract": "gigawatch", "clause": "watchdog", "severity": "critical", "team": "noc",
    }  # fmt: skip
    assert "nothing is being watched" in state.annotations["description"]


def test_a_standstill_is_one_alert_until_it_is_over_and_is_told_again_when_its_cause_changes() -> None:
    topics = ("telemetry.gpu", "telemetry.queue")
    stall = Stall(970, "the broker does not answer", topics)
    assert stalled(None, ALERT, None, 30.0, 1000) == (None, None)
    state, change = stalled(None, ALERT, stall, 30.0, 1001)
    assert state and change and change.kind == "firing" and (state.fired_at, state.observed) == (1001, 31.0)
    assert state.annotations["runbook"] == "https://runbooks/stalled" and state.by == ()
    assert state.annotations["summary"] == f"T{str(stall)[1:]}"
    assert str(stall).endswith("stalled since 1970-01-01 00:16:10 UTC: the broker does not answer")
    assert "Nothing of telemetry.gpu, telemetry.queue is taken in" in state.annotations["description"]
    again, change = stalled(state, ALERT, stall, 30.0, 1011)
    assert again and again.identity == state.identity and change is None
    assert again.annotations == state.annotations
    other, change = stalled(again, ALERT, Stall(970, "records wait", topics), 30.0, 1012)
    assert other and change and change.kind == "updated" and other.annotations["why"] == "records wait"
    over, change = stalled(other, ALERT, None, 30.0, 1020)
    assert over is None and change and change.kind == "resolved" and change.state.resolved_at == 1020
    assert change.state.annotations["summary"] == "The pipeline progresses again"
