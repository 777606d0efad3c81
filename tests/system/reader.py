"""A reader beside the pipeline: asks every view for its counts, over and over, and notes what must not be.

    python reader.py DATA REPORT.json      until SIGTERM

It is a process of its own, as `gigawatch sql` is.  A count that goes down, a file that cannot be read and any
error are faults; each is written down with the question.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

from pipeline.catalog import load
from pipeline.errors import QueryError
from pipeline.history.query import ask, open_views
from pipeline.views.published import published_tables

QUESTIONS = {"fates": "SELECT sum(n)::BIGINT FROM fates WHERE fate = 'in'"} | {
    f"gpu_{width}": f"SELECT sum(samples)::BIGINT FROM gpu_{width}"
    for width in ("10s", "1m", "15m", "1h", "1d")
}
"""Beyond the number of rows: what a roll-up's rows add up to never goes down either."""
REPLACED = {"standing", "clauses", "windows"}
"""What is written anew as a whole: its rows come and go with the contract."""


def main(data: Path, report: Path) -> None:
    stopped = False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True

    signal.signal(signal.SIGTERM, stop)
    catalog = load()
    questions = {t.view: f"SELECT count(*) FROM {t.view}" for t in published_tables(catalog)}
    questions |= {f"{name} (sum)": sql for name, sql in QUESTIONS.items()}
    questions |= {
        "gpu (whole rows)": "SELECT count(*) FROM gpu WHERE power_watts + utilization_ratio >= 0 AND length(source) > 0"
    }
    highest: dict[str, int] = {}
    faults: list[str] = []
    rounds = 0
    while not data.is_dir():
        time.sleep(0.05)
    con = open_views(data, catalog)
    while not stopped:
        for name, sql in questions.items():
            try:
                found: Any = next(ask(con, sql).rows)[0] or 0
            except QueryError as error:
                faults.append(f"{name}: {error}")
                continue
            if found < highest.get(name, 0) and name not in REPLACED:
                faults.append(f"{name}: {found} after {highest[name]}")
            highest[name] = max(found, highest.get(name, 0))
        rounds += 1
        report.write_text(json.dumps({"rounds": rounds, "faults": faults, "highest": highest}, indent=1))
        time.sleep(0.1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
