"""The pipeline as a process of its own that notes what it commits.

    python pipeline_run.py --bootstrap HOST:PORT --data DIR --contract DIR --out FILE [--messages N]
        [--no-housekeeping] [--webhook URL] [--settings JSON]

Its settings are the defaults but for those of `--settings`; with `--no-housekeeping` it neither publishes nor seals.

It ends after `--messages` events, or by SIGTERM, as the pipeline does.  `FILE` then holds every commit as
(seconds since the start, events), CPU and memory, and the delays measured.  VmHWM is the kernel's word for
the most memory that the process ever had resident (proc(5)).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline import catalog
from pipeline.app.contract_watch import ContractWatch
from pipeline.app.lifecycle import run_until
from pipeline.app.parts import Parts
from pipeline.app.single import wire
from pipeline.ledger.store import Applied
from pipeline.settings import Settings, load_settings

NOT_WITHIN = 3600.0
"""Seconds that no run takes."""


@dataclass
class Commit:
    """Seconds since the start, events, and the CPU seconds of the whole process until then."""

    at: float
    events: int
    cpu: float


@dataclass
class Noted:
    began: float = field(default_factory=time.monotonic)
    commits: list[Commit] = field(default_factory=list)
    events: int = 0


def observe_commits(parts: Parts, noted: Noted, stop: asyncio.Event, enough: int) -> None:
    """Every transaction with events is noted; `stop` is set after `enough` of them."""
    told = parts.intake._told

    def note(applied: Applied) -> None:
        told(applied)
        if applied.events:
            at = time.monotonic() - noted.began
            noted.commits.append(Commit(at, applied.events, time.process_time()))
            noted.events += applied.events
            if enough and noted.events >= enough:
                stop.set()

    parts.intake._told = note


def peak_rss_mb() -> float:
    """The peak resident memory of this process so far, in MB (10^6 bytes)."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024 / 1e6


def result(parts: Parts, noted: Noted, peak: float) -> dict[str, Any]:
    return {
        "commits": [[c.at, c.events, c.cpu] for c in noted.commits],
        "peak_rss_mb": peak,
        "peak_rss_with_stop_mb": peak_rss_mb(),
        "freshness": list(parts.delays.freshness),
        "decision": list(parts.delays.decision),
        "fates": {f"{topic} {fate}": n for (topic, fate), n in parts.intake.counts.fates.items()},
    }


async def observe(settings: Settings, out: Path, enough: int) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    noted = Noted()
    contracts = ContractWatch(settings.contract, catalog.load(settings.schemas))
    peaks: list[float] = []

    async def peak_before_stop() -> None:
        await stop.wait()
        peaks.append(peak_rss_mb())

    watching = asyncio.create_task(peak_before_stop())
    async with wire(settings, contracts) as parts:
        observe_commits(parts, noted, stop, enough)
        await run_until(parts, stop)
    await watching
    partial = out.with_suffix(".part")
    partial.write_text(json.dumps(result(parts, noted, peaks[0])))
    partial.rename(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for name in ("bootstrap", "data", "contract", "out"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--webhook")
    parser.add_argument("--messages", type=int, default=0)
    parser.add_argument("--no-housekeeping", action="store_true")
    parser.add_argument("--settings", type=json.loads, default={}, help="others than the defaults, as JSON")
    given = parser.parse_args()
    for name in [name for name in os.environ if name.startswith("GIGAWATCH_")]:
        del os.environ[name]  # about some other pipeline; the figures are those of the default settings
    # Catching up is measured against other single processes; in real time all runs that `gigawatch run` runs.
    readers = "" if given.messages else "127.0.0.1:0"
    housekeeping = {"publish_every": NOT_WITHIN} if given.no_housekeeping else {}
    settings = load_settings(
        bootstrap=given.bootstrap, data=Path(given.data), contract=Path(given.contract), webhook=given.webhook,
        door=readers, board=readers, **housekeeping, **given.settings,
    )  # fmt: skip
    asyncio.run(observe(settings, Path(given.out), given.messages))


if __name__ == "__main__":
    main()
