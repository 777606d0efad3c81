"""The parts of the benchmark: each gives its figures as a dict, and leaves nothing behind but that."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from load import (
    RATE,
    TOPIC,
    Filled,
    fill,
    fleet,
    make_topics,
    restless_fleet,
    write_restless_contract,
    write_steady_contract,
)

from pipeline import catalog
from pipeline.broker.kafka import LAUNCHER, EmbeddedKafka
from pipeline.demo.receiver import Receiver
from pipeline.history import compact, seal
from pipeline.ledger import status
from pipeline.ledger.store import Ledger
from pipeline.ledger.transaction import Hooks
from pipeline.serve.child import Door
from pipeline.simulate.simulator import PlayPace, run
from pipeline.simulate.writer import writer

HERE = Path(__file__).parent
Say = Callable[[str], None]
Figures = dict[str, Any]
FAUST_SECONDS = 20.0
PATIENCE = 900.0


@dataclass(frozen=True)
class Sizes:
    """How much each part does: events to catch up on, of the backlog, repetitions, seconds of real time; how often
    each panel asks, and of how many days; rows of a bill; seconds of scraping; points of each form of a source, and
    the records of a batch of them; samples in Arrow batches.

    A million events of 600,000 GPUs are the first of most of them, and arrays of them are caught up in three seconds.
    Housekeeping begins after ten seconds, in which ten million Arrow samples may be taken in.
    """

    events: int = 2_000_000
    backlog: int = 5_000_000
    repeat: int = 3
    real_time: int = 120
    rounds: int = 20
    days: int = 90
    bill_rows: int = 1_000_000
    scrape_seconds: int = 60
    points: int = 4_000_000
    source_batch: int = 20_000
    arrow_samples: int = 24_000_000

    @staticmethod
    def quick() -> Sizes:
        return Sizes(
            events=200_000,
            backlog=1_000_000,
            repeat=1,
            real_time=60,
            rounds=3,
            days=3,
            bill_rows=100_000,
            scrape_seconds=15,
            points=300_000,
            source_batch=2_000,
            arrow_samples=1_200_000,
        )


@dataclass
class Bench:
    """Where the parts work (`scratch`, emptied by each), how much, and whom they tell what they do."""

    scratch: Path
    sizes: Sizes
    say: Say
    history: Path | None = None
    """A large history that was made before (history.py)."""

    @contextlib.contextmanager
    def broker(self, name: str) -> Iterator[EmbeddedKafka]:
        """A Kafka of its own with empty topics; its data is deleted afterwards."""
        directory = self.scratch / f"kafka-{name}"
        shutil.rmtree(directory, ignore_errors=True)
        try:
            with EmbeddedKafka(directory) as kafka:
                make_topics(kafka.bootstrap)
                yield kafka
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    @contextlib.contextmanager
    def filled(
        self, name: str, events: int, *, arrays: bool = False, bad_every: int = 0
    ) -> Iterator[tuple[EmbeddedKafka, Filled]]:
        """A broker whose GPU topic holds at least `events` samples, the last of them a minute old."""
        start = int(time.time()) - events // RATE - 60
        with self.broker(name) as kafka:
            began = time.monotonic()
            what = fleet(start, arrays=arrays)
            filled = asyncio.run(fill(kafka.bootstrap, what, start, events, bad_every=bad_every))
            rate = filled.samples / (time.monotonic() - began)
            self.say(f"{name}: {filled.samples:,} events in {filled.messages:,} messages, {rate:,.0f}/s in")
            yield kafka, filled

    @contextlib.contextmanager
    def data(self, name: str) -> Iterator[Path]:
        """An empty data directory, deleted afterwards."""
        directory = self.scratch / f"data-{name}"
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def reader(self, kind: str, bootstrap: str, messages: int) -> Figures:
        """Events per second and CPU of one of the readers we are compared with."""
        out = self.scratch / "reader.json"
        out.unlink(missing_ok=True)
        arguments = ["faust", "worker", "-l", "error"] if kind == "faust" else ["getmany"]
        environment = {
            "BENCH_BOOTSTRAP": bootstrap, "BENCH_EVENTS": str(messages // 100 * 100), "BENCH_OUT": str(out),
            "BENCH_SECONDS": str(FAUST_SECONDS if kind == "faust" else PATIENCE),
        }  # fmt: skip
        self._run([str(HERE / "readers.py"), *arguments], environment)
        shutil.rmtree(out.with_suffix(".faust"), ignore_errors=True)
        found = json.loads(out.read_text())
        return {
            "events_per_s": found["events"] / found["seconds"],
            "cpu_us_per_event": found["cpu_seconds"] / found["events"] * 1e6,
        }

    def catch_up(
        self,
        bootstrap: str,
        events: int,
        data: Path,
        *,
        housekeeping: bool,
        **settings: Any,
    ) -> Figures:
        """The pipeline over what stands in the topic, until the last event is committed; `settings`: others than the defaults.

        The rate is that between the first and the last commit, over the events committed after the first.
        Housekeeping publishes and seals, ten seconds after the start for the first time, all that came in until then.
        """
        out = self.scratch / "pipeline.json"
        out.unlink(missing_ok=True)
        contract = write_steady_contract(data / "contracts", time.time())
        self._run(
            [
                *(str(HERE / "pipeline_run.py"), "--bootstrap", bootstrap, "--data", str(data)),
                *("--contract", str(contract.parent), "--out", str(out), "--messages", str(events)),
                *(() if housekeeping else ("--no-housekeeping",)),
                *(("--settings", json.dumps(settings)) if settings else ()),
            ],
            {},
        )
        found = json.loads(out.read_text())
        return {**_rate(found["commits"]), "peak_rss_mb": found["peak_rss_mb"], "fates": found["fates"]}

    @contextlib.contextmanager
    def pipeline(self, bootstrap: str, data: Path, contract: Path, webhook: str = "") -> Iterator[Path]:
        """The pipeline as a process that has begun and is told to stop afterwards; where its figures will be."""
        out = self.scratch / "pipeline.json"
        out.unlink(missing_ok=True)
        command = [
            *(str(HERE / "pipeline_run.py"), "--bootstrap", bootstrap, "--data", str(data)),
            *("--contract", str(contract.parent), "--out", str(out)),
            *(("--webhook", webhook) if webhook else ()),
        ]
        with self.process(command, "process.log") as process:
            _await_begun(data, process, self.scratch / "process.log")
            yield out

    def process(
        self, command: list[str], log: str
    ) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
        """A Python process for the `with`; what it says goes to a file of that name."""
        return _process(command, {}, self.scratch / log)

    def ask_panels(self, door: Door, rounds: int, days: int) -> list[Figures]:
        """What panels_client.py finds at the door."""
        out = self.scratch / "panels.json"
        out.unlink(missing_ok=True)
        with self.process(
            [
                *(str(HERE / "panels_client.py"), door.address, str(door.pid)),
                *(str(rounds), str(days), str(out)),
            ],
            "panels.log",
        ) as process:
            if process.wait(PATIENCE):
                raise RuntimeError((self.scratch / "panels.log").read_text(errors="replace")[-3000:])
        found: list[Figures] = json.loads(out.read_text())
        return found

    def _run(self, command: list[str], environment: Mapping[str, str]) -> None:
        """A Python script to its end; its last words if it fails."""
        with _process(command, environment, self.scratch / "process.log") as process:
            code = process.wait(PATIENCE)
        if code:
            tail = (self.scratch / "process.log").read_text(errors="replace")[-3000:]
            raise RuntimeError(f"{' '.join(command)} ended with code {code}:\n{tail}")


@contextlib.contextmanager
def _process(
    command: list[str], environment: Mapping[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A Python process that ends with us, however we end."""
    whole = [sys.executable, *command]
    if sys.platform == "linux":
        whole = [sys.executable, "-ISc", LAUNCHER, str(os.getpid()), *whole]
    with log.open("wb") as to:
        process = subprocess.Popen(
            whole, stdin=subprocess.DEVNULL, stdout=to, stderr=to, env={**os.environ, **environment}
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _rate(commits: list[list[float]]) -> Figures:
    if len(commits) < 2:
        raise RuntimeError("one batch held all events: a rate needs more of them")
    (first, n, cpu), (last, _, cpu_then) = commits[0], commits[-1]
    events = sum(c[1] for c in commits) - n
    return {
        "events_per_s": events / (last - first),
        "cpu_us_per_event": (cpu_then - cpu) / events * 1e6,
        "cpu_cores": (cpu_then - cpu) / (last - first),
        "batches": len(commits),
    }


def _medians(runs: list[Figures]) -> Figures:
    names = [name for name, value in runs[0].items() if isinstance(value, int | float)]
    return {name: statistics.median(run[name] for run in runs) for name in names}


def catch_up(bench: Bench) -> Figures:
    """Plain Faust, bare getmany, the pipeline over the same topic, over one with 1 % bad records and over arrays.

    They take turns: a machine that others use as well is not as fast now as it was five minutes ago.
    """
    n, kinds = bench.sizes.events, ("faust", "getmany", "ingest", "bad", "arrays")
    runs: dict[str, list[Figures]] = {kind: [] for kind in kinds}
    with (
        bench.filled("singles", n) as (clean, whole),
        bench.filled("bad", n, bad_every=100) as (spoilt, part),
        # a batch holds about 100,000 samples, the first perhaps more, and a rate needs several
        bench.filled("arrays", max(n, 800_000), arrays=True) as (racks, listed),
    ):
        for turn in range(bench.sizes.repeat):
            for kind in ("faust", "getmany"):
                runs[kind].append(bench.reader(kind, clean.bootstrap, whole.messages))
            topics = (("ingest", clean, whole), ("bad", spoilt, part), ("arrays", racks, listed))
            for kind, kafka, filled in topics:
                with bench.data(kind) as data:
                    # two million events take about the ten seconds until it begins: into the ledger and raw
                    # segments, or a run that ends before that would be compared with one that does not
                    found = bench.catch_up(kafka.bootstrap, filled.samples, data, housekeeping=False)
                    runs[kind].append(found)
            told = ", ".join(f"{kind} {r[-1]['events_per_s']:,.0f}" for kind, r in runs.items())
            bench.say(f"events/s, turn {turn + 1}: {told}")
    faust, getmany, ingest, bad, arrays = (_medians(runs[kind]) for kind in kinds)
    rate = ingest["events_per_s"]
    return {
        "faust_events_per_s": faust["events_per_s"],
        "getmany_events_per_s": getmany["events_per_s"],
        "ingest_events_per_s": rate,
        "ingest_to_faust": rate / faust["events_per_s"],
        "ingest_to_getmany": rate / getmany["events_per_s"],
        "one_percent_bad_ratio": bad["events_per_s"] / rate,
        "faust_cpu_us_per_event": faust["cpu_us_per_event"],
        "getmany_cpu_us_per_event": getmany["cpu_us_per_event"],
        "ingest_cpu_us_per_event": ingest["cpu_us_per_event"],
        "ingest_cpu_cores": ingest["cpu_cores"],
        "ingest_peak_rss_mb": ingest["peak_rss_mb"],
        "one_percent_bad_fates": runs["bad"][-1]["fates"],
        "array_samples_per_s": arrays["events_per_s"],
        "arrays_to_singles": arrays["events_per_s"] / rate,
        "array_cpu_us_per_sample": arrays["cpu_us_per_event"],
        "array_peak_rss_mb": arrays["peak_rss_mb"],
    }


def real_time(bench: Bench) -> Figures:
    """`RATE` samples a second as they happen, under clauses that change state all the time."""
    seconds = bench.sizes.real_time
    with bench.broker("real-time") as kafka, bench.data("real-time") as data, Receiver() as receiver:
        start = int(time.time()) + 12
        load = restless_fleet(start, seconds)
        contract = write_restless_contract(data / "contracts", load.spec, start)
        with bench.pipeline(kafka.bootstrap, data, contract, receiver.url) as out:
            sent = asyncio.run(_play(kafka.bootstrap, load, max(start, int(time.time()) + 1), seconds))
            time.sleep(6)  # the last instants are decided when the lateness has passed
    found = json.loads(out.read_text())
    (first, _, cpu), (last, _, cpu_then) = found["commits"][0], found["commits"][-1]
    bench.say(f"{sent:,.0f} samples/s sent; {len(receiver.deliveries)} alert changes received")
    return {
        "real_time_samples_per_s": sent,
        "real_time_seconds": seconds,
        **_quantiles("freshness", found["freshness"]),
        **_quantiles("decision_delay", found["decision"]),
        "real_time_cpu_cores": (cpu_then - cpu) / (last - first),
        "peak_rss_mb": found["peak_rss_mb"],
    }


async def _play(bootstrap: str, load: Any, start: int, seconds: int) -> float:
    """Samples per second that the broker took, at the pace of the clock."""
    async with writer(bootstrap) as out:
        pace = PlayPace(start * 1000, 1.0, float(start))
        await run(load, out, start * 1000, (start + seconds) * 1000, pace)
        return out.sent.samples[TOPIC] / seconds


def _await_begun(data: Path, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while status.read(data) is None:
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the pipeline has not begun:\n{log.read_text(errors='replace')[-3000:]}")
        time.sleep(0.1)


def _quantiles(name: str, delays: list[float]) -> Figures:
    """Seconds at the median and the 99th percentile (nearest rank), and how many there were."""
    ordered = sorted(delays)
    if not ordered:
        raise RuntimeError(f"no {name} was measured: no alert changed state")
    rank = {"p50": -(-50 * len(ordered) // 100), "p99": -(-99 * len(ordered) // 100)}
    return {
        **{f"{name}_{q}_s": ordered[at - 1] for q, at in rank.items()},
        f"{name}_samples": len(ordered),
    }


def backlog(bench: Bench) -> Figures:
    """A start on a large backlog: the most memory until it is caught up; then the history it left."""
    n = bench.sizes.backlog
    free, wanted = shutil.disk_usage(bench.scratch).free, n * 1500
    if free < wanted:
        raise RuntimeError(
            f"{bench.scratch}: {free / 1e9:.1f} GB are free, the backlog needs {wanted / 1e9:.1f} GB"
        )
    with bench.filled("backlog", n) as (kafka, filled), bench.data("backlog") as data:
        found = bench.catch_up(kafka.bootstrap, filled.samples, data, housekeeping=True)
        bench.say(f"backlog: {found['events_per_s']:,.0f}/s, {found['peak_rss_mb']:,.0f} MB at most")
        return {
            "backlog_events": filled.samples,
            "backlog_events_per_s": found["events_per_s"],
            "backlog_peak_rss_mb": found["peak_rss_mb"],
            **history(data, filled.samples),
        }


def history(data: Path, events: int) -> Figures:
    """Bytes of raw history for each event, sealed and compacted.

    The hours settle when the watermark is long past them; here it is moved there by hand.
    """
    types = catalog.load()
    ledger = Ledger(data, types)
    try:
        with contextlib.closing(ledger.cursor()) as con:
            seal.seal(con, data, types, Hooks(ledger.fence))
            con.execute("UPDATE frontier SET watermark = watermark + INTERVAL 3 HOUR")
            compact.compact_history(con, data, types, Hooks(ledger.fence))
            files = list((data / "history" / TOPIC).rglob("*.parquet"))
            row = con.execute("SELECT count(*) FROM read_parquet(?)", [[str(f) for f in files]]).fetchone()
    finally:
        ledger.close()
    rows = row[0] if row else 0
    if rows != events:
        raise RuntimeError(f"{rows:,} rows of history for {events:,} events")
    return {
        "history_bytes_per_event": sum(f.stat().st_size for f in files) / rows,
        "history_files": len(files),
    }
