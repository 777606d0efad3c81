"""What collectors write to Kafka, consumed by a running pipeline: roll-ups, an alert for each format, and a restart."""

from __future__ import annotations

import json
import runpy
import time
from pathlib import Path
from typing import Any

from pipeline.stream.topic_admin import APPENDED, TopicSpec, create_topics

TESTS = Path(__file__).resolve().parents[1]
FORMS = runpy.run_path(str(TESTS / "mappings" / "test_forms_agree.py"))["FORMS"]
CONTRACT = """
metadata: {id: sources, version: "1"}
parties: {customer: Northline, supplier: Halcyon}
term: {start: 2026-01-01, end: 2030-01-01}
currency: USD
timezone: UTC
capacity:
  - {id: fleet, match: {provider: halcyon}, by: [region], committed_gpus: 3, for: 0s, severity: critical}
"""


def test_every_format_becomes_rollups_and_an_alert_and_a_restart_counts_nothing_twice(
    kafka: Any, telemetry_topics: Any, worker_factory: Any, send: Any, tmp_path: Path
) -> None:
    telemetry_topics(partitions=1)
    topics = {
        form: f"have-{form.strip().replace('_', '-')}{'-2' if form.endswith(' ') else ''}" for form in FORMS
    }
    create_topics(kafka.bootstrap, [TopicSpec(topic, config=APPENDED) for topic in topics.values()])
    sources = [
        {
            "topic": topic,
            "format": form.strip(),
            "mapping": "dcgm",
            "constants": {"provider": "halcyon", "region": topic, "site": "s", "cluster": "c", "sku": "H100"},
        }
        for form, topic in topics.items()
    ]
    contract = tmp_path / "contract.yaml"
    contract.write_text(CONTRACT)
    worker = worker_factory(kafka.bootstrap, sources=json.dumps(sources), contract=contract)

    def report(second: int) -> None:
        for place, (form, topic) in enumerate(topics.items()):
            series = [
                (metric, {"gpu": str(gpu), "UUID": f"GPU-{place}-{gpu}", "Hostname": "node-0042"}, value)
                for gpu in (0, 1)
                for metric, value in (("DCGM_FI_DEV_GPU_UTIL", 81), ("DCGM_FI_DEV_POWER_USAGE", 634.5))
            ]
            ignored = [
                (
                    "DCGM_FI_DEV_SM_CLOCK",
                    {"gpu": "0", "UUID": f"GPU-{place}-0", "Hostname": "node-0042"},
                    1980,
                )
            ]
            for _ in range(2):  # an HA pair, or a collector that tries again
                send(
                    kafka.bootstrap,
                    topic,
                    [(value, []) for value in FORMS[form]([*series, *ignored], second)],
                )
            send(kafka.bootstrap, topic, [(b"\x00broken", [])])

    begun = int(time.time()) - 150
    for second in range(begun, begun + 150, 30):
        report(second)
    worker.start().await_begun()
    firing = "SELECT count(*) FROM alerts_open WHERE alertname = 'CapacityShortfall'"

    def all_fire(_: Any) -> bool:
        return bool(worker.one(firing) == len(topics))

    worker.await_status("an alert for each format", all_fire)
    seen = "SELECT region, count(DISTINCT gpu), min(utilization_ratio), max(power_watts) FROM gpu GROUP BY ALL ORDER BY 1"
    expected = [(topic, 2, 0.81, 634.5) for topic in sorted(topics.values())]
    worker.await_status("their samples can be read", lambda _: worker.ask(seen) == expected)
    fates = dict(worker.ask("SELECT fate, sum(n) FROM fates GROUP BY ALL"))
    assert fates["in"] == fates["aggregated"] + fates["duplicate"] + fates["dead_lettered"]
    assert fates["aggregated"] == fates["duplicate"] and fates["dead_lettered"] == 5 * len(topics)
    status = worker.status()
    assert {
        topic: names["DCGM_FI_DEV_SM_CLOCK"] for topic, names in status["ignored"].items()
    } == dict.fromkeys(topics.values(), 10)
    assert worker.stop() == 0, worker.said()
    report(begun + 120)  # known already: the last minutes are remembered
    worker.start().await_begun()
    worker.await_status("the re-sent are duplicates", lambda s: s["events"]["duplicate"] > fates["duplicate"])
    worker.await_status(
        "all is taken in", lambda s: not any(n for parts in s["lag"].values() for n in parts.values())
    )
    again = dict(worker.ask("SELECT fate, sum(n) FROM fates GROUP BY ALL"))
    assert again["aggregated"] == fates["aggregated"]
    assert worker.stop() == 0, worker.said()
