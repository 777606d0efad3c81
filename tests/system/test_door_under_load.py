"""Twenty clients at the SQL door while a fleet of 1 GW reports: no error, no wrong answer, and the pipeline keeps up."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pymysql
import pytest

from pipeline.broker.kafka import LAUNCHER
from pipeline.serve.child import Door
from tests.patience import PATIENCE

ROOT = Path(__file__).parents[2]
RATE, SECONDS, CLIENTS = 20_000, 30, 20

Rows = Sequence[tuple[Any, ...]]
Check = Callable[[Rows], bool]


def _whole_is_its_parts(rows: Rows) -> bool:
    """Of a ROLLUP, the whole in the row without a name."""
    whole = [row[1:] for row in rows if row[0] is None]
    parts = [row[1:] for row in rows if row[0] is not None]
    return not rows or whole == [tuple(map(sum, zip(*parts, strict=True)))]


QUIET = "nothing but the watchdog fires"

QUESTIONS: dict[str, tuple[str, Check]] = {
    "in = the sum of all fates, in every minute": (
        "SELECT topic, minute, sum(CASE fate WHEN 'in' THEN n ELSE -n END) AS missing FROM fates GROUP BY 1, 2",
        lambda rows: all(missing == 0 for *_, missing in rows),
    ),
    "a roll-up's regions add up": (
        "SELECT region, sum(samples), sum(gpus) FROM gpu_1m GROUP BY ROLLUP (region)",
        _whole_is_its_parts,
    ),
    "no more GPUs are at work or ill than there are": (
        "SELECT count(*) FROM gpu_10s WHERE gpus_in_use > gpus OR gpus_unhealthy > gpus OR samples < gpus",
        lambda rows: rows[0][0] == 0,
    ),
    "headroom is what is left of a promise": (
        "SELECT delivered, committed, headroom FROM capacity WHERE committed IS NOT NULL",
        lambda rows: all(headroom == delivered - committed for delivered, committed, headroom in rows),
    ),
    "a site draws at least what its IT does": (
        "SELECT count(*) FROM energy_mix WHERE pue < 1 OR facility_megawatts < it_megawatts",
        lambda rows: rows[0][0] == 0,
    ),
    "as Grafana writes it, in MySQL's words": (
        "SELECT UNIX_TIMESTAMP(`time`) DIV 60 * 60 AS `time`, min(observed) AS observed FROM queue_wait "
        "WHERE `time` BETWEEN FROM_UNIXTIME(0) AND FROM_UNIXTIME(4102444800) GROUP BY 1 ORDER BY 1",
        lambda rows: [at for at, _ in rows] == sorted({at for at, _ in rows}),
    ),
    "ages are ages": (
        "SELECT topic, lag, silent_seconds FROM data_age",
        lambda rows: all(lag >= 0 and silent > -1 for _, lag, silent in rows),
    ),
    QUIET: (
        "SELECT alertname FROM alerts_open WHERE state = 'firing' AND alertname <> 'Watchdog'",
        lambda rows: not rows,
    ),
}
GROWING = {
    view: f"SELECT CAST(coalesce(sum({what}), 0) AS SIGNED) FROM {view}"
    for view, what in (
        ("gpu_10s", "samples"),
        ("gpu_1h", "samples"),
        ("queue_1m", "samples"),
        ("gpu", "1"),
        ("fates", "n"),
        ("readings", "1"),
    )
}
"""Each of these only ever grows, also while its files are replaced."""


class Client(threading.Thread):
    """Asks one question after the other, each at least once, beginning with another one than its neighbours.

    Notes what is wrong.
    """

    def __init__(self, address: str, number: int, over: threading.Event) -> None:
        super().__init__(daemon=True)
        self.faults: list[str] = []
        self.answers = 0
        self._address, self._number, self._over = address, number, over
        self._highest: dict[str, int] = {}

    def run(self) -> None:
        try:
            connection = connect(self._address)
            asks = [*QUESTIONS, *GROWING]
            for what in itertools.islice(itertools.cycle(asks), self._number, None):
                if self._over.is_set() and self.answers > len(asks):
                    break
                self._ask(connection, what)
                self.answers += 1
            connection.close()
        except Exception as error:
            self.faults.append(repr(error))

    def _ask(self, connection: pymysql.Connection, what: str) -> None:
        sql, right = QUESTIONS.get(what, (GROWING.get(what, ""), lambda rows: self._grown(what, rows)))
        with connection.cursor() as cursor:
            cursor.execute(sql)
            rows = cursor.fetchall()
        if what == QUIET and self._over.is_set():
            return  # a flow that is over is silent, and that is told
        if not right(rows):
            self.faults.append(f"{what}: {list(rows)[:5]}")

    def _grown(self, what: str, rows: Rows) -> bool:
        found, before = int(rows[0][0]), self._highest.get(what, 0)
        self._highest[what] = max(found, before)
        return found >= before


def connect(address: str) -> pymysql.Connection:
    host, _, port = address.rpartition(":")
    return pymysql.connect(host=host, port=int(port), user="tester", database="gigawatch")


class Flow:
    """`flow.py` as a process: the contract is there at once, events from `begin` on."""

    def __init__(self, bootstrap: str, folder: Path) -> None:
        self.contract, self._report = folder / "contract", folder / "sent.json"
        command = [str(Path(__file__).with_name("flow.py")), bootstrap, str(RATE), str(SECONDS)]
        whole = [sys.executable, *command, str(self.contract), str(self._report)]
        if sys.platform == "linux":  # it ends with the test run, also when that is killed
            whole = [sys.executable, "-ISc", LAUNCHER, str(os.getpid()), *whole]
        self.process = subprocess.Popen(
            whole, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n"

    def begin(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"now\n")
        self.process.stdin.flush()

    def sent(self) -> dict[str, int]:
        """Samples that Kafka has, by topic, once all are written."""
        assert self.process.wait(PATIENCE) == 0
        found: dict[str, int] = json.loads(self._report.read_text())["samples"]
        return found


@contextmanager
def flowing(bootstrap: str, folder: Path) -> Iterator[Flow]:
    flow = Flow(bootstrap, folder)
    try:
        yield flow
    finally:
        if flow.process.poll() is None:
            flow.process.kill()
            flow.process.wait()
        for pipe in (flow.process.stdin, flow.process.stdout):
            assert pipe is not None
            pipe.close()


@pytest.mark.slow
def test_twenty_clients_get_right_answers_while_twenty_thousand_events_flow_in_a_second(
    kafka: Any, telemetry_topics: Any, worker_factory: Any, tmp_path: Path, eventually: Any
) -> None:
    telemetry_topics()
    with flowing(kafka.bootstrap, tmp_path) as flow:
        worker = worker_factory(kafka.bootstrap, contract=flow.contract).start().await_begun()
        with Door(worker.data, tmp_path / "door.log", ["--port", "0"]) as door:
            flow.begin()
            eventually("something to ask for", lambda: worker.one("SELECT count(*) FROM readings"))
            clients = _asked_until(flow, door)
            sent = flow.sent()
            worker.await_taken_in().await_published()
            _stayed_small(door)
            _all_there(door, sent)
            assert worker.stop() == 0, worker.said()
    assert [fault for client in clients for fault in client.faults] == []
    assert all(client.answers > len(QUESTIONS) + len(GROWING) for client in clients)


def _asked_until(flow: Flow, door: Door) -> list[Client]:
    """Twenty clients that ask until the flow is over, and each has asked everything."""
    over = threading.Event()
    clients = [Client(door.address, number, over) for number in range(CLIENTS)]
    for client in clients:
        client.start()
    while flow.process.poll() is None and any(client.is_alive() for client in clients):
        time.sleep(0.2)
    over.set()
    for client in clients:
        client.join(PATIENCE)
        assert not client.is_alive(), "a question was never answered"
    return clients


def _stayed_small(door: Door) -> None:
    """What the door ever had, resident or only mapped, is below the limit that it gave itself."""
    if sys.platform != "linux":
        return
    proc = Path(f"/proc/{door.pid}")
    limit = re.search(r"Max address space\s+(\d+)", (proc / "limits").read_text())
    assert limit, "the door has no hard limit of memory"
    status = (proc / "status").read_text()
    peaks = {name: int(kib) * 1024 for name, kib in re.findall(r"(VmPeak|VmHWM):\s+(\d+) kB", status)}
    assert peaks.keys() == {"VmPeak", "VmHWM"}
    assert max(peaks.values()) < int(limit[1]), peaks


def _all_there(door: Door, sent: dict[str, int]) -> None:
    """The pipeline has kept up: every sample that Kafka has is in every table, once, and in the balance."""
    assert sent["telemetry.gpu"] >= RATE * SECONDS * 0.99  # the fleet is of whole racks
    connection = connect(door.address)
    with connection.cursor() as cursor:
        for table, what in (
            ("gpu", "1"),
            *((f"gpu_{w}", "samples") for w in ("10s", "1m", "15m", "1h", "1d")),
        ):
            cursor.execute(f"SELECT CAST(sum({what}) AS SIGNED) FROM {table}")
            assert cursor.fetchall() == ((sent["telemetry.gpu"],),), table
        cursor.execute(
            "SELECT topic, CAST(sum(n) AS SIGNED) FROM fates WHERE fate IN ('in', 'aggregated') GROUP BY fate, topic"
        )
        assert sorted(cursor.fetchall()) == sorted((topic, n) for topic, n in sent.items() for _ in range(2))
    connection.close()
