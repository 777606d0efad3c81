"""How long the panels of the dashboards wait for their answers, over a day and over 90 days of a 1 GW fleet.

The SQL door stands before a made history (`history.py`), and a client asks what Grafana asks: every panel's questions,
with the macros filled in and the times moved a little at each turn.  While a day is asked for, a pipeline beside it
takes 20,000 samples a second in: processor and disk are shared, as in life.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import history
from load import TOPIC, restless_fleet, write_restless_contract

from pipeline.broker.kafka import free_port
from pipeline.serve.child import Door
from pipeline.simulate.simulator import PlayPace, run
from pipeline.simulate.writer import writer

if TYPE_CHECKING:
    from parts import Bench, Figures

HERE = Path(__file__).parent
BOARD_SECONDS = 20.0


def figures(bench: Bench) -> Figures:
    """The slowest panel of each range, the board's first byte, and all panels for the table."""
    with _history(bench) as data:
        sizes = [path.stat().st_size for path in data.rglob("*.parquet")]
        bench.say(f"panels: a history of {len(sizes):,} files, {sum(sizes) / 1e9:.2f} GB")
        with Door(data, bench.scratch / "door.log", ["--port", "0"]) as door:
            day, board, rate = _beside_the_pipeline(bench, data, door)
            quarter = bench.ask_panels(door, bench.sizes.rounds, bench.sizes.days)
    bench.say(f"panels: {rate:,.0f} samples/s meanwhile")
    return {
        **_summary("panels_day", day),
        **_summary("panels_all_days", quarter),
        "board_first_byte_p95_ms": board,
        "panels_days": bench.sizes.days,
        "panels_rounds": bench.sizes.rounds,
        "panels_samples_per_s": rate,
        "panels_history_gb": sum(sizes) / 1e9,
        "panels_history_files": len(sizes),
        "panels": _table(day, quarter),
    }


@contextlib.contextmanager
def _history(bench: Bench) -> Iterator[Path]:
    """The one that was made before, if the bench was given one, or a new one."""
    if bench.history is not None:
        yield bench.history
        return
    with bench.data("history") as data:
        history.make(data, int(time.time()), bench.sizes.days)
        yield data


def _beside_the_pipeline(bench: Bench, data: Path, door: Door) -> tuple[Any, float, float]:
    """Panels over a day and the board's first byte, while the fleet reports; and the samples a second that it sent."""
    with bench.broker("panels") as kafka, bench.data("panels-live") as live:
        load = restless_fleet(int(time.time()), 3600)
        contract = write_restless_contract(live / "contracts", load.spec, time.time())
        with bench.pipeline(kafka.bootstrap, live, contract), Flow(kafka.bootstrap, load) as flow:
            day = bench.ask_panels(door, bench.sizes.rounds, 1)
            board = _board(bench, data)
        return day, board, flow.rate


class Flow:
    """The fleet's samples in real time, written by a thread for as long as the `with` lasts."""

    def __init__(self, bootstrap: str, load: Any) -> None:
        self.rate = 0.0
        self._bootstrap, self._load = bootstrap, load
        self._over = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._write()))

    async def _write(self) -> None:
        start = int(time.time()) + 1
        async with writer(self._bootstrap) as out:
            pace = PlayPace(start * 1000, 1.0, float(start))
            writing = asyncio.create_task(run(self._load, out, start * 1000, None, pace))
            while not self._over.is_set() and not writing.done():
                await asyncio.sleep(0.1)
            self.rate = out.sent.samples[TOPIC] / (time.time() - start)
            writing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await writing

    def __enter__(self) -> Flow:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def _board(bench: Bench, data: Path) -> float:
    """Milliseconds to the first byte of the board's page, the 95th percentile."""
    from board import board_first_byte_p95_ms

    address = f"127.0.0.1:{free_port()}"
    command = ["-P", "-m", "pipeline.cli", "board", "--data", str(data), "--port", address.partition(":")[2]]
    with bench.process(command, "board.log") as process:
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                board_first_byte_p95_ms(address, 1.0)  # it is there, and has its first page
                return board_first_byte_p95_ms(address, BOARD_SECONDS)
            time.sleep(0.2)
    raise RuntimeError(f"the board has not begun:\n{(bench.scratch / 'board.log').read_text()[-3000:]}")


def quantile(took: Sequence[float], q: float) -> float:
    """The value at rank ⌈q·n⌉."""
    return sorted(took)[math.ceil(q * len(took)) - 1]


def _summary(name: str, asked: Sequence[dict[str, Any]]) -> Figures:
    """Of the slowest panel its 95th percentile; of all, how many there are and what they cost together."""
    slowest = sorted(quantile(each["ms"], 0.95) for each in asked)
    return {
        f"{name}_p95_ms": slowest[-1],
        f"{name}_typical_p95_ms": statistics.median(slowest),
        f"{name}_cpu_ms": sum(statistics.median(each["cpu_ms"]) for each in asked),
    }


def _table(day: Sequence[dict[str, Any]], quarter: Sequence[dict[str, Any]]) -> list[list[Any]]:
    """A row for each panel: dashboard, title; p50, p95, CPU over a day; the same over all days; milliseconds."""
    wide = {(each["dashboard"], each["panel"]): each for each in quarter}
    return [
        [each["dashboard"], each["panel"], *_times(each), *_times(wide[each["dashboard"], each["panel"]])]
        for each in day
    ]


def _times(each: dict[str, Any]) -> list[float]:
    waits = [round(quantile(each["ms"], q), 1) for q in (0.5, 0.95)]
    return [*waits, round(statistics.median(each["cpu_ms"]), 1)]
