"""This checkout against another one, in turns over the same topics: is a change slower?

    git worktree add --detach ../before COMMIT
    python tests/bench/turns.py ../before [--turns 3] [--events 2000000] [--arrays 3000000] [--real-time] [--out FILE]

Each turn runs the other checkout's pipeline and then this one's, with this Python and its packages; what is told is the
median of each and this one's as a share of the other's.  A machine that others use too is not as fast now as it was five
minutes ago, so single figures of two runs say little.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import parts
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parent


@contextmanager
def running_from(checkout: Path) -> Iterator[None]:
    """While it holds, `parts` runs the scripts and the package of `checkout`."""
    before, path = parts.HERE, os.environ.get("PYTHONPATH")
    parts.HERE, os.environ["PYTHONPATH"] = checkout / "tests" / "bench", str(checkout)
    try:
        yield
    finally:
        parts.HERE = before
        os.environ.pop("PYTHONPATH") if path is None else os.environ.update(PYTHONPATH=path)


def caught_up(bench: parts.Bench, kind: str, kafka: str, samples: int) -> dict[str, float]:
    with bench.data(kind) as data:
        found = bench.catch_up(kafka, samples, data, housekeeping=False)
    return {
        "samples_per_s": found["events_per_s"],
        "cpu_us_per_sample": found["cpu_us_per_event"],
        "peak_rss_mb": found["peak_rss_mb"],
    }


def in_real_time(checkout: Path, scratch: Path) -> dict[str, float]:
    """Its own bench, whose load it knows."""
    out = scratch / "real-time.json"
    command = [sys.executable, str(checkout / "tests/bench/run.py"), "--only", "real-time", "--out", str(out)]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PYTHONPATH": str(checkout)})
    found = json.loads(out.read_text())
    names = (
        "freshness_p50_s",
        "freshness_p99_s",
        "decision_delay_p99_s",
        "real_time_cpu_cores",
        "peak_rss_mb",
    )
    return {name: found[name] for name in names}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("other", type=Path, help="a checkout of the commit to compare with")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--events", type=int, default=2_000_000, help="single samples; 0: none")
    parser.add_argument("--arrays", type=int, default=3_000_000, help="samples in arrays of 72; 0: none")
    parser.add_argument(
        "--real-time", action="store_true", help="20,000 samples a second for two minutes, too"
    )
    parser.add_argument("--out", type=Path)
    given, console = parser.parse_args(), Console()
    checkouts = {"other": given.other.resolve(), "this": HERE.parents[1]}
    found: dict[str, dict[str, list[dict[str, float]]]] = {}
    with tempfile.TemporaryDirectory(prefix="turns-") as scratch:
        bench = parts.Bench(Path(scratch), parts.Sizes(), lambda text: console.print(f"[dim]{text}[/dim]"))
        for kind, count in (("singles", given.events), ("arrays", given.arrays)):
            if not count:
                continue
            runs = found.setdefault(kind, {name: [] for name in checkouts})
            with bench.filled(kind, count, arrays=kind == "arrays") as (kafka, filled):
                for _ in range(given.turns):
                    for name, checkout in checkouts.items():
                        with running_from(checkout):
                            runs[name].append(caught_up(bench, kind, kafka.bootstrap, filled.samples))
                        console.print(f"[dim]{kind} {name}: {runs[name][-1]}[/dim]")
        if given.real_time:
            runs = found.setdefault("real time", {name: [] for name in checkouts})
            for _ in range(given.turns):
                for name, checkout in checkouts.items():
                    runs[name].append(in_real_time(checkout, Path(scratch)))
                    console.print(f"[dim]real time {name}: {runs[name][-1]}[/dim]")
    console.print(table(found))
    if given.out:
        given.out.write_text(json.dumps({"taken_at": time.time(), **found}, indent=2) + "\n")
    return 0


def table(found: Mapping[str, Mapping[str, list[dict[str, float]]]]) -> Table:
    """Medians, and this one's share of the other's: above 1 is better for rates, below 1 for all else."""
    shown = Table("what", "other", "this", "this / other")
    for kind, runs in found.items():
        for name in runs["this"][0]:
            other, this = (statistics.median(run[name] for run in runs[who]) for who in ("other", "this"))
            shown.add_row(f"{kind}: {name}", f"{other:,.2f}", f"{this:,.2f}", f"{this / other:.2f}")
    return shown


if __name__ == "__main__":
    sys.exit(main())
