"""Bills through a real Kafka: imported, imported again, and an import that is killed in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from pipeline.broker.kafka import EmbeddedKafka, free_port
from pipeline.stream.topic_admin import describe_topics
from tests.patience import PATIENCE

ROOT = Path(__file__).parents[2]
BILLING, DELIVERIES = "telemetry.billing", "telemetry.deliveries"
HEAD = "ProviderName,ChargeCategory,BillingCurrency,ChargePeriodStart,ChargePeriodEnd,BilledCost,ResourceId\n"
ROWS = 150_000


def bill(path: Path, rows: int, cost: str) -> Path:
    line = f"Halcyon,Usage,USD,2026-11-01T00:00:00Z,2026-11-02T00:00:00Z,{cost},"
    path.write_text(HEAD + "".join(f"{line}vm-{n}\n" for n in range(rows)))
    return path


def importing(bootstrap: str, *arguments: object) -> subprocess.Popen[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIGAWATCH_")}
    command = [
        sys.executable,
        "-m",
        "pipeline.cli",
        "import",
        "focus",
        *map(str, arguments),
        "--bootstrap",
        bootstrap,
    ]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment
    )


def imported(bootstrap: str, *arguments: object, code: int = 0) -> str:
    """The output of an import that ends by itself."""
    process = importing(bootstrap, *arguments)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == code and "Traceback" not in err, f"{out}\n{err}"
    return out if code == 0 else err


def records(bootstrap: str, topic: str) -> int:
    return sum(end for _, end in describe_topics(bootstrap, [topic])[0].offsets.values())


def test_a_killed_import_counts_nothing_and_the_same_file_again_replaces_the_bill_in_one_step(
    kafka: EmbeddedKafka,
    telemetry_topics: Any,
    worker_factory: Any,
    tmp_path: Path,
    eventually: Callable[..., Any],
) -> None:
    telemetry_topics(2)
    imported(kafka.bootstrap, bill(tmp_path / "first.csv", 3, "7.00"))
    worker = worker_factory(kafka.bootstrap, seal_every=1).start().await_taken_in()
    spent = "SELECT sum(BilledCost), count(*) FROM charges"
    eventually("the first bill is published", lambda: worker.ask(spent) == [(Decimal(21), 3)])

    before = records(kafka.bootstrap, BILLING)
    process = importing(kafka.bootstrap, bill(tmp_path / "second.csv", ROWS, "0.01"))
    try:
        eventually("some of it is sent", lambda: records(kafka.bootstrap, BILLING) > before, every=0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert process.returncode == -signal.SIGKILL and records(kafka.bootstrap, DELIVERIES) == 1
    worker.await_taken_in().await_published()
    assert worker.ask(spent) == [(Decimal(21), 3)]
    ((state, there),) = worker.ask("SELECT state, rows_there FROM bills WHERE issuer IS NULL")
    assert state == "not_closed" and 0 < there < ROWS

    out = json.loads(imported(kafka.bootstrap, tmp_path / "second.csv", "--json"))
    assert out["sent"] and out["sums"]["by_currency"][0]["BilledCost"] == "1500.00"
    seen = set()

    def replaced() -> bool:
        seen.add(worker.ask(spent)[0])
        return (Decimal(1500), ROWS) in seen

    eventually("the second bill counts", replaced)
    assert seen <= {(Decimal(21), 3), (Decimal(1500), ROWS)}
    imported(kafka.bootstrap, tmp_path / "second.csv")
    worker.await_taken_in().await_published()
    assert worker.ask(spent) == [(Decimal(1500), ROWS)]
    assert worker.ask("SELECT change FROM bills WHERE state = 'counts'") == [(Decimal(1479),)]
    assert worker.stop() == 0


@pytest.mark.parametrize("there", [(), (BILLING,)])
def test_an_import_without_its_topics_is_refused_before_a_row_is_sent(
    kafka: EmbeddedKafka, telemetry_topics: Any, tmp_path: Path, there: tuple[str, ...]
) -> None:
    from pipeline.stream.topic_admin import admin

    telemetry_topics(1)
    with admin(kafka.bootstrap) as client:
        client.delete_topics([topic for topic in (BILLING, DELIVERIES) if topic not in there])
        deadline = time.monotonic() + PATIENCE
        while (BILLING in client.list_topics()) != (BILLING in there) or DELIVERIES in client.list_topics():
            assert time.monotonic() < deadline
            time.sleep(0.05)
    err = imported(kafka.bootstrap, bill(tmp_path / "bill.csv", 1, "1"), code=2)
    assert f"{DELIVERIES} does not exist; make it with: gigawatch topics create" in err
    assert not there or records(kafka.bootstrap, BILLING) == 0


def test_an_import_without_a_broker_says_so_and_a_dry_run_needs_none(tmp_path: Path) -> None:
    nobody, file = f"127.0.0.1:{free_port()}", bill(tmp_path / "bill.csv", 2, "1.25")
    assert "no Kafka broker answers" in imported(nobody, file, code=3)
    report = json.loads(imported(nobody, file, "--dry-run", "--json"))
    assert (report["rows"], report["refused"], report["sent"]) == (2, 0, False)
    assert report["sums"]["by_currency"] == [
        {"currency": "USD", "rows": 2, "BilledCost": "2.50", "EffectiveCost": None}
    ]


def test_a_bill_with_a_bad_cell_is_told_and_not_sent(
    kafka: EmbeddedKafka, telemetry_topics: Any, tmp_path: Path
) -> None:
    telemetry_topics(1)
    file = bill(tmp_path / "bill.csv", 3, "1.25")
    file.write_text(file.read_text() + 'Halcyon,Usage,USD,2026-11-01,2026-11-02,"1,25",vm\n')
    process = importing(kafka.bootstrap, file, "--json")
    out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    report = json.loads(out)
    assert (report["rows"], report["accepted"], report["refused"], report["sent"]) == (4, 3, 1, False)
    assert [(r["line"], r["column"], r["found"]) for r in report["refusals"]] == [(5, "BilledCost", "1,25")]
    assert records(kafka.bootstrap, BILLING) == 0
