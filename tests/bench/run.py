"""`make bench`: rates, delays and memory of the pipeline on this machine, as a table and `build/bench.json`.

    python tests/bench/run.py [--quick] [--only PART …] [--profile] [--out FILE]

Ratios are taken within one run, on one machine, on the same topic.  Run it on a quiet machine: everything
else that runs is in the figures.  `--profile` alone says where the time goes (see hot_path.py).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import bills
import figures
import hot_path
import panels
import parts
import scrapes
import sources
from rich.console import Console

ROOT = Path(__file__).resolve().parents[2]
PARTS: dict[str, Callable[[parts.Bench], parts.Figures]] = {
    "catch-up": parts.catch_up,
    "real-time": parts.real_time,
    "backlog": parts.backlog,
    "sources": sources.figures,
    "bills": bills.figures,
    "collect": scrapes.figures,
    "panels": panels.figures,
    "profile": hot_path.figures,
}
"""In this order; each starts with a broker and a data directory of its own."""


def machine() -> parts.Figures:
    """What the figures were taken on and with."""
    model = next(
        (line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    names = ("duckdb", "pyarrow", "aiokafka", "faust-streaming")
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_gb": round(memory, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{name: version(name) for name in names},
        "load_before": round(os.getloadavg()[0], 2),
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def commit() -> str:
    """The commit measured, with a mark when the checkout differs from it."""
    try:
        command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a fifth of it, once: shows that it runs")
    parser.add_argument("--only", action="append", choices=list(PARTS), help="this part (may be repeated)")
    parser.add_argument("--profile", action="store_true", help="short for --only profile")
    parser.add_argument("--events", type=int, help="events of the catch-up, in place of two million")
    parser.add_argument("--history", type=Path, help="for panels: a history that history.py made before")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench.json")
    return parser.parse_args()


def main() -> int:
    given, console = arguments(), Console()
    sizes = parts.Sizes.quick() if given.quick else parts.Sizes()
    if given.events:
        sizes = replace(sizes, events=given.events)
    chosen = given.only or (["profile"] if given.profile else list(PARTS))
    found: parts.Figures = {
        "commit": commit(),
        "taken_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "quick": given.quick,
        "machine": machine(),
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=given.out.parent, prefix="bench-") as scratch:
        bench = parts.Bench(
            Path(scratch), sizes, lambda text: console.print(f"[dim]{text}[/dim]"), given.history
        )
        for name in (name for name in PARTS if name in chosen):
            began = time.monotonic()
            console.print(f"[bold]{name}[/bold]")
            found |= PARTS[name](bench)
            console.print(f"[dim]{name}: {time.monotonic() - began:.0f} s[/dim]")
    given.out.write_text(json.dumps(found, indent=2) + "\n")
    for table in figures.tables(found):
        console.print(table)
    console.print(f"written to {given.out}; put into the docs with: python tests/bench/figures.py")
    return 0


if __name__ == "__main__":
    sys.exit(main())
