"""A data directory as a running pipeline leaves it, made row by row: what the board and the doctor are shown."""

from __future__ import annotations

import json
import os
import runpy
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.catalog import load
from pipeline.clauses import load_all, plan_of
from pipeline.history.health_table import Pulse, note
from pipeline.ledger import status as written

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "schemas" / "example-contract.yaml"


class Stage:
    """A data directory as a running pipeline leaves it: a real ledger with its lock, a contract, what is published.

    Alerts, readings and standing are rows of the ledger's own tables; times are epoch seconds.
    """

    def __init__(self, data: Path) -> None:
        ledgers = runpy.run_path(str(ROOT / "tests" / "ledger" / "conftest.py"))
        self.data, self.small = data, ledgers["SmallLedger"](data, load())
        self.con, self.moment = self.small.con, ledgers["moment"]
        self.gpu, self.charge = ledgers["gpu_row"], ledgers["charge_row"]
        self.now = int(time.time()) // 10 * 10
        contracts = load_all(EXAMPLE)
        self.small.ledger.use(contracts, plan_of(contracts, load()), self.now)

    def row(self, table: str, **values: Any) -> None:
        """One row of `alerts`, `readings` or `standing`; mappings become JSON."""
        row = {"contract": "northwind-aurora", **values}
        moments = ("time", "active_at", "fired_at", "resolved_at", "since")
        cells = [
            self.moment(v) if k in moments and v is not None
            else json.dumps(v) if isinstance(v, dict) else v
            for k, v in row.items()
        ]  # fmt: skip
        names = ", ".join(f'"{name}"' for name in row)
        self.con.execute(f"INSERT INTO {table}({names}) VALUES ({', '.join('?' * len(row))})", cells)
        at = None if table == "standing" else self.moment(values["time"])
        self.con.execute("INSERT INTO dirty VALUES (?, ?)", [table, at])

    def alert(self, state: str = "firing", region: str = "eu-west", ago: int = 600, **values: Any) -> None:
        """A change of state of a capacity alert, `ago` seconds before now."""
        at = self.now - ago
        severity = values.pop("severity", "critical")
        own = {"alertname": "CapacityShortfall", "clause": "eu-fleet", **values.pop("labels", {})}
        labels = {**own, "contract": "northwind-aurora", "region": region, "severity": severity}
        notes = {
            "summary": f"eu-fleet: 3,900 GPUs delivered, at least 4,096 promised ({region})",
            "text": "Aurora keeps the committed number of healthy GPUs available to Northwind in each region.",
            "at_risk": "18,000 EUR an hour; 196 GPUs", "contact": "Aurora desk, +49 30 555 0100",
            "runbook": "https://runbooks.example/capacity", "sql": "SELECT count(DISTINCT gpu)\nFROM gpu",
            **values.pop("annotations", {}),
        }  # fmt: skip
        row = {
            "time": at, "alertname": own["alertname"], "clause": own["clause"], "labels": labels, "state": state,
            "active_at": at - 120, "fired_at": None if state == "pending" else at, "severity": severity,
            "observed": 3900.0, "bound": 4096.0, "unit": "GPUs", "window": "peak-season", "annotations": notes,
            "trusted": True, "samples": 3900, **values,
        }  # fmt: skip
        self.row("alerts", **row)

    def stands(self, state: str = "ok", region: str = "eu-west", **values: Any) -> None:
        """A row of the standing, and three hours of readings behind it."""
        row = {
            "clause": "eu-fleet", "alertname": "CapacityShortfall", "by_values": {"region": region}, "state": state,
            "observed": 3900.0 if state == "breach" else 4200.0, "bound": 4096.0, "unit": "GPUs",
            "window": "peak-season", "samples": 3900, "facts": {}, **values,
        }  # fmt: skip
        self.row("standing", **row, since=self.now - 720, time=self.now)
        before = (row["observed"] or 0) + 150
        self.con.execute(
            "INSERT INTO readings BY NAME SELECT * EXCLUDE (n, since) "
            "REPLACE (CASE WHEN n < 12 THEN observed ELSE $2 + 40 * (n * 7 % 5) END AS observed, "
            '"time" - to_minutes(n) AS "time") '
            "FROM (SELECT * FROM standing ORDER BY rowid DESC LIMIT 1), (SELECT unnest(range($1)) AS n)",
            [180, before],
        )
        self.con.execute(
            "INSERT INTO dirty SELECT 'readings', $1::TIMESTAMP - to_minutes(unnest(range(180)))",
            [self.moment(self.now)],
        )

    def spend(self) -> None:
        """A tranche with 300 days of charges, and what it is on course to."""
        days = [
            {"day": 1_767_225_600 + 86_400 * n, "usage": f"{98_000 + 400 * n}.10", "other": "0"}
            for n in range(300)
        ]
        common = {"clause": "year-1", "by_values": {}, "bound": 42e6, "unit": "EUR", "samples": 300}
        self.row("standing", alertname="TrancheExhausted", observed=47.3e6 * 0.8, state="ok", time=self.now,
                 since=self.now - 9000, facts={"days": days}, **common)  # fmt: skip
        self.row("standing", alertname="TrancheOverrunForecast", observed=58_000_000.0, state="breach",
                 time=self.now, since=self.now - 9000,
                 facts={"forecast": "58000000.00", "crosses": "2026-11-08"}, **common)  # fmt: skip

    def publish(self, **status: Any) -> None:
        """What readers see, and the status, both as of now; `status` in place of what it would say."""
        now = time.time()
        note(self.con.cursor(), Pulse({"telemetry.gpu": 7}, 12_500.0, 0.5, 9.0), now)
        self.small.publish()
        quiet = {"p50": 0.4, "p99": 1.6}
        written.StatusFile(self.data).write({
            "state": "running", "written_at": datetime.fromtimestamp(now, UTC).isoformat(), "pid": os.getpid(),
            "bootstrap": "127.0.0.1:1", "contracts": [{"id": "northwind-aurora", "version": "2026.2"}],
            "contract_error": None, **written.snapshot(self.con),
            "watermarks": {"telemetry.gpu": datetime.fromtimestamp(now - 2, UTC).isoformat()},
            "lag": {"telemetry.gpu": {"0": 7}}, "rate_events_per_s": 12_500.0, "freshness_s": quiet,
            "decision_delay_s": quiet, **status,
        })  # fmt: skip

    def close(self) -> None:
        """The pipeline ends; the files stay."""
        self.small.close()
