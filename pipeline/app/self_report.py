"""What the running process says of itself: in `status.json`, in the table `health`, and on every alert."""

from __future__ import annotations

from typing import Any

from pipeline.app.contract_watch import ContractWatch
from pipeline.history import verify
from pipeline.history.health_table import Pulse
from pipeline.history.housekeeping import Housekeeper
from pipeline.ledger.store import Ledger
from pipeline.notify.delays import Delays, quantiles
from pipeline.serve.supervisor import Servers
from pipeline.stream.clocks import Clocks
from pipeline.stream.health import Health
from pipeline.stream.intake import Intake
from pipeline.stream.source import BatchSource
from pipeline.stream.watermark import Watermarks


def notes(contracts: ContractWatch, health: Health) -> dict[str, str]:
    """Annotations for every alert that goes out."""
    found = {"contract_refused": contracts.error or "", "pipeline_stalled": str(health.stall or "")}
    return {name: words for name, words in found.items() if words}


def pulse(watermarks: Watermarks, intake: Intake, delays: Delays, health: Health) -> Pulse:
    """A row of `health` for each topic follows from it."""
    lag = {topic: sum(parts.values()) for topic, parts in watermarks.lags().items()}
    fresh, decided = quantiles(delays.freshness), quantiles(delays.decision)
    return Pulse(lag, intake.rate(), fresh["p99"], decided["p99"], health.stall)


def live_status(
    bootstrap: str,
    contracts: ContractWatch,
    clocks: Clocks,
    source: BatchSource,
    watermarks: Watermarks,
    intake: Intake,
    ledger: Ledger,
    delays: Delays,
    health: Health,
    housekeeper: Housekeeper,
    servers: Servers,
) -> dict[str, Any]:
    """The part of `status.json` that no table has."""
    return {
        "bootstrap": bootstrap,
        "contracts": [{"id": c.id, "version": c.version, "digest": c.digest} for c in contracts.current],
        "contract_error": contracts.error,
        "servers": servers.status(),
        "unmatched": [str(one) for one in housekeeper.unmatched or ()],
        "absent_topics": source.absent,
        "ignored": intake.ignored(),
        "tampered": verify.told(housekeeper.tampered),
        "stalled": str(health.stall or ""),
        "clocks": [skew.words for skew in clocks.skews(ledger.reached)],
        "lag": watermarks.lags(),
        "rate_events_per_s": round(intake.rate(), 1),
        "freshness_s": quantiles(delays.freshness),
        "decision_delay_s": quantiles(delays.decision),
    }
