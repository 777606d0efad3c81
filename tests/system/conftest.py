"""The pipeline as a user has it: a process of its own, against a real broker, watched from outside.

Everything is compared with what was written to Kafka, never with what the pipeline says of itself alone.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from duckdb import DuckDBPyConnection

from pipeline.broker.kafka import LAUNCHER
from pipeline.catalog import load
from pipeline.history.query import ask, open_views
from pipeline.ledger import status
from pipeline.simulate import scenarios
from pipeline.simulate.cloud_events import STRUCTURED
from pipeline.simulate.simulator import PlayPace, run
from pipeline.simulate.writer import Sent, writer
from pipeline.stream.topic_admin import describe_topics
from tests.patience import PATIENCE, eventually

ROOT = Path(__file__).parents[2]


@pytest.fixture(name="eventually")
def _eventually() -> Callable[..., Any]:
    return eventually


class Worker:
    """`gigawatch run` as a process: `start`, `kill` (-9), `stop` (SIGTERM), `pause` (SIGSTOP), `resume`.

    `settings` are the pipeline's own by name; quick intervals are the default, so that little time shows all.
    """

    def __init__(self, folder: Path, bootstrap: str, **settings: object) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.data = folder / "data"
        self.log = folder / "worker.log"
        self.bootstrap = bootstrap
        quick = {"seal_every": 2, "publish_every": 1, "page_max_age": 30 * 86_400, "door": "", "board": ""}
        given = {"bootstrap": bootstrap, "data": self.data, **quick, **settings}
        self.data = Path(str(given["data"]))
        self.settings = {f"GIGAWATCH_{name.upper()}": str(value) for name, value in given.items()}
        self.process: subprocess.Popen[bytes] | None = None
        self.command = [sys.executable, "-m", "pipeline.cli", "run"]
        self.starts = 0

    def start(self) -> Worker:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("GIGAWATCH_")}
        command = self.command
        if sys.platform == "linux":  # it ends with the test run, also when that is killed
            command = [sys.executable, "-ISc", LAUNCHER, str(os.getpid()), *command]
        environment |= self.settings | {"PYTHONPATH": str(ROOT)}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=environment,
                cwd=self.log.parent,
            )
        self.starts += 1
        return self

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def _send(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def pause(self) -> None:
        self._send(signal.SIGSTOP)

    def resume(self) -> None:
        self._send(signal.SIGCONT)

    def kill(self) -> None:
        self._send(signal.SIGKILL)
        self.wait()

    def stop(self) -> int:
        """SIGTERM; its exit code."""
        self._send(signal.SIGTERM)
        return self.wait()

    def wait(self, within: float = PATIENCE) -> int:
        """The exit code, when it ends by itself."""
        assert self.process is not None
        try:
            return self.process.wait(within)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            pytest.fail(f"still running after {within:.0f} s:\n{self.said()}")

    def end(self) -> None:
        """Whatever state it is in: gone afterwards."""
        if self.running:
            self.kill()
        if "_views" in vars(self):
            self._views.close()

    def said(self, characters: int = 4000) -> str:
        """The end of its output."""
        return self.log.read_text(errors="replace")[-characters:] if self.log.exists() else ""

    def status(self) -> dict[str, Any]:
        """What it last wrote of itself; empty before the first time."""
        return status.read(self.data) or {}

    def await_status(
        self,
        what: str,
        true: Callable[[dict[str, Any]], Any],
        within: float = PATIENCE,
        every: float = 0.1,
    ) -> Any:
        """The first truthy value of `true(status)`, while it runs."""

        def look() -> Any:
            assert self.running, f"ended while it should have come to: {what}\n{self.said()}"
            found = self.status()
            return found and found["pid"] == self._pid() and true(found)

        return eventually(lambda: f"{what}; it says\n{self.said()}", look, within, every)

    def _pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def await_begun(self) -> Worker:
        """It has connected, and knows all partitions."""
        self.await_status("begun", lambda s: s["state"] == "running")
        return self

    def await_taken_in(self, within: float = PATIENCE) -> Worker:
        """Every record that is in the telemetry topics now is in the ledger."""
        ends = {
            state.name: {str(part): end for part, (_, end) in state.offsets.items()}
            for state in describe_topics(self.bootstrap, load().topics)
        }

        def reached(found: dict[str, Any]) -> bool:
            at = found["offsets"]
            return all(
                at.get(t, {}).get(p, 0) >= end for t, parts in ends.items() for p, end in parts.items() if end
            )

        self.await_status(f"offsets {ends}", reached, within)
        return self

    def await_published(self, within: float = PATIENCE) -> Worker:
        """All that is in the ledger is in the history: a stop publishes only what it can in its few seconds."""
        views = {event.topic: event.view for event in load().types}
        last = ""

        def readable(found: dict[str, Any]) -> bool:
            """Asks first what was last answered with less: until that has come, nothing else need be asked."""
            nonlocal last
            there = {"SELECT coalesce(sum(n) FILTER (fate = 'in'), 0) FROM fates": found["events"]["in"]}
            for topic, counts in found["by_topic"].items():
                there[f"SELECT count(*) FROM {views[topic]}"] = counts["aggregated"]
                if views[topic] not in ("billing", "deliveries"):
                    summed = f"SELECT coalesce(sum(samples), 0) FROM {views[topic]}_1d"
                    there[summed] = counts["aggregated"]
            for sql in sorted(there, key=lambda sql: sql != last):
                if self.one(sql) != there[sql]:
                    last = sql
                    return False
            return True

        self.await_status("published", readable, within, every=0.25)
        return self

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows of one SELECT over the published history."""
        return list(ask(self._views, sql).rows)

    @cached_property
    def _views(self) -> DuckDBPyConnection:
        """Made once: they take half a second, and tests ask again and again until something is there."""
        return open_views(self.data)

    def one(self, sql: str) -> Any:
        return self.ask(sql)[0][0]


WorkerFactory = Callable[..., Worker]


@pytest.fixture
def worker_factory(tmp_path: Path) -> Iterator[WorkerFactory]:
    """A function that gives a pipeline that does not run yet: `worker_factory(bootstrap, **settings)`."""
    made: list[Worker] = []

    def make(bootstrap: str, **settings: object) -> Worker:
        made.append(Worker(tmp_path / f"worker-{len(made)}", bootstrap, **settings))
        return made[-1]

    yield make
    for worker in made:
        worker.end()


class Background:
    """A coroutine in a thread of its own: what writes to Kafka while the test does something to the pipeline."""

    def __init__(self, work: Coroutine[Any, Any, Any]) -> None:
        self._result: list[Any] = []
        self._error: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()

    def _run(self, work: Coroutine[Any, Any, Any]) -> None:
        try:
            self._result.append(asyncio.run(work))
        except BaseException as error:
            self._error.append(error)

    @property
    def done(self) -> bool:
        return not self._thread.is_alive()

    def result(self, within: float = PATIENCE) -> Any:
        self._thread.join(within)
        assert self.done, f"still writing after {within:.0f} s"
        if self._error:
            raise self._error[0]
        return self._result[0]


@pytest.fixture
def background() -> Callable[[Coroutine[Any, Any, Any]], Background]:
    return Background


@dataclass
class Live:
    """A fleet that reports in real time: its contract, and the writing of it, whose result is what was sent."""

    contract: Path
    writing: Background


@pytest.fixture
def live(tmp_path: Path) -> Callable[..., Live]:
    """`live(bootstrap, seconds, **client)`: the fleet of `steady`, from now on, under its contract; all is well.

    Like an agent on a node it keeps what the broker does not take, and sends it later, with its own time.
    """

    def begin(bootstrap: str, seconds: int, **client: Any) -> Live:
        scenario = scenarios.load("steady")
        # A day of past charges: the twenty of the demo would be most of what these tests publish.
        fleet = scenario.fleet
        billing = fleet.billing.model_copy(update={"history": 86_400})
        scenario = scenario.model_copy(update={"fleet": fleet.model_copy(update={"billing": billing})})
        play = scenarios.plan(scenario, time.time())

        async def write() -> Sent:
            async with writer(bootstrap, {"request_timeout_ms": 300_000, **client}) as out:
                pace = PlayPace(play.start * 1000, 1.0, float(play.start))
                await run(play.fleet(), out, play.start * 1000, (play.start + seconds) * 1000, pace)
                return out.sent

        return Live(play.write_contract(tmp_path / "contract"), Background(write()))

    return begin


Raw = tuple[bytes | None, Sequence[tuple[str, bytes]]]


@pytest.fixture
def send() -> Callable[..., None]:
    """`send(bootstrap, topic, values, partition=0, **producer_settings)`: records as they are, acknowledged.

    A value is bytes (structured mode's header is put on) or a pair of bytes or None and headers.
    """
    from kafka import KafkaProducer

    def send(
        bootstrap: str, topic: str, values: Iterable[bytes | Raw], partition: int = 0, **settings: Any
    ) -> None:
        producer = KafkaProducer(bootstrap_servers=bootstrap, acks="all", linger_ms=5, **settings)
        try:
            sent = []
            for value in values:
                body, headers = value if isinstance(value, tuple) else (value, STRUCTURED)
                sent.append(
                    producer.send(topic, value=body, headers=list(headers), partition=partition, key=b"key")
                )
            producer.flush()
            for future in sent:
                future.get(PATIENCE)
        finally:
            producer.close()

    return send


@pytest.fixture
def gpu_event() -> Callable[..., bytes]:
    """`gpu_event(id, at, data_changes={}, **envelope_changes)`: one structured GPU event; None drops a field."""

    def make(id_: object, at: float, data: Mapping[str, Any] | None = None, **envelope: Any) -> bytes:
        sample = {
            "provider": "halcyon", "region": "eu-west", "site": "ams-02", "cluster": "ams-h1",
            "sku": "ND_H100_v5", "node": "n0001", "gpu": f"GPU-{id_}", "utilization_ratio": 0.5,
            "engine_active_ratio": 0.4, "memory_used_bytes": 1 << 30, "memory_total_bytes": 80 << 30,
            "power_watts": 500.0, "energy_joules_total": 1e6, "temperature_celsius": 60.5, "xid": 0,
            "health": "ok",
        } | dict(data or {})  # fmt: skip
        millis = int(at * 1000)
        event = {
            "specversion": "1.0", "id": str(id_), "source": "/gigawatch/test/n0001",
            "type": "gpu.utilization.v1",
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(millis // 1000)) + f".{millis % 1000:03d}Z",
            "datacontenttype": "application/json",
            "data": {name: value for name, value in sample.items() if value is not None},
        } | envelope  # fmt: skip
        return json.dumps({name: value for name, value in event.items() if value is not None}).encode()

    return make
