"""deploy/alertmanager.yml as a real Alertmanager reads it: who gets what, in which groups, and what holds what back."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipeline.rules.telemetry import OWN
from tests.patience import PATIENCE

SHIPPED = Path(__file__).resolve().parents[2] / "deploy" / "alertmanager.yml"
Labels = dict[str, str]


def alert(alertname: str, **labels: str) -> Labels:
    """A contract alert of eu-west, unless `labels` say otherwise; one with an empty value is left out."""
    given = {
        "alertname": alertname,
        "contract": "azure",
        "region": "eu-west",
        "severity": "warning",
        **labels,
    }
    return {name: value for name, value in given.items() if value}


STALLED = alert("PipelineStalled", contract=OWN, region="", severity="critical")
SHORT = alert("CapacityShortfall", severity="critical")


@pytest.fixture
def post(alertmanager_factory: Callable[..., Any]) -> Callable[..., Any]:
    """`post(alert, …)`: an Alertmanager with the shipped file that holds these alerts."""

    def send(*alerts: Labels) -> Any:
        am = alertmanager_factory(SHIPPED.read_text("utf-8"))
        end = (datetime.now(UTC) + timedelta(minutes=4)).isoformat()
        body = [{"labels": labels, "endsAt": end} for labels in alerts]
        httpx.post(f"{am.url}/api/v2/alerts", json=body, trust_env=False, timeout=PATIENCE).raise_for_status()
        return am

    return send


def held_back(am: Any) -> set[str]:
    """`alertname/region` of what Alertmanager says is inhibited."""
    answer = httpx.get(f"{am.url}/api/v2/alerts", trust_env=False, timeout=PATIENCE).raise_for_status().json()
    return {
        f"{a['labels']['alertname']}/{a['labels'].get('region', '')}"
        for a in answer
        if a["status"]["state"] == "suppressed" and a["status"]["inhibitedBy"]
    }


def test_a_shortfall_holds_back_the_queue_alerts_of_its_region_and_contract_only(post: Any) -> None:
    am = post(
        SHORT,
        alert("QueueWaitBreach", queue="training"),
        alert("QueueBacklog", queue="training"),
        alert("QueueWaitBreach", region="eu-north"),
        alert("QueueBacklog", region="us-east", contract="other"),
        alert("PowerCeilingExceeded"),
    )
    assert held_back(am) == {"QueueWaitBreach/eu-west", "QueueBacklog/eu-west"}


def test_a_shortfall_of_no_region_holds_back_nothing(post: Any) -> None:
    assert (
        held_back(post(alert("CapacityShortfall", region=""), alert("QueueWaitBreach", region=""))) == set()
    )


def test_a_shortfall_of_another_contract_holds_back_nothing(post: Any) -> None:
    assert held_back(post(alert("CapacityShortfall", contract="other"), alert("QueueWaitBreach"))) == set()


def test_a_stalled_pipeline_holds_back_contract_alerts_and_none_of_its_own(post: Any) -> None:
    own = {"contract": OWN, "region": ""}
    am = post(
        STALLED,
        SHORT,
        alert("TrancheExhausted", region="", severity="ticket"),
        alert("TelemetrySilent", **own),
        alert("LossImbalance", **own),
        alert("Watchdog", severity="info", **own),
    )
    assert held_back(am) == {"CapacityShortfall/eu-west", "TrancheExhausted/"}


def test_without_a_stall_or_a_shortfall_nothing_is_held_back(post: Any) -> None:
    assert held_back(post(alert("QueueWaitBreach"), alert("WindowNotReady"))) == set()


def test_alerts_are_grouped_by_contract_and_region_for_who_is_called_by_severity(post: Any) -> None:
    am = post(
        SHORT,
        alert("WindowNotReady", severity="critical"),
        alert("WindowNotReady", severity="critical", region="eu-north"),
        alert("QueueBacklog"),
        alert("TrancheExhausted", severity="ticket", region=""),
        alert("Watchdog", contract=OWN, severity="info", region=""),
    )
    groups = (
        httpx.get(f"{am.url}/api/v2/alerts/groups", trust_env=False, timeout=PATIENCE)
        .raise_for_status()
        .json()
    )
    found = {
        (
            group["receiver"]["name"],
            tuple(group["labels"].values()),
            tuple(sorted(a["labels"]["alertname"] for a in group["alerts"])),
        )
        for group in groups
    }
    assert found == {
        ("on-call", ("azure", "eu-west"), ("CapacityShortfall", "WindowNotReady")),
        ("on-call", ("azure", "eu-north"), ("WindowNotReady",)),
        ("shift", ("azure", "eu-west"), ("QueueBacklog",)),
        ("tickets", ("azure",), ("TrancheExhausted",)),
        ("dead-mans-switch", ("Watchdog",), ("Watchdog",)),
    }


def test_amtool_finds_no_fault_in_the_file() -> None:
    if (amtool := shutil.which("amtool")) is None:
        pytest.skip("needs amtool, which comes with Alertmanager")
    done = subprocess.run([amtool, "check-config", SHIPPED], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 receivers" in done.stdout and "2 inhibit rules" in done.stdout
