"""A real data directory with a little of everything, and a real door before it, as a process of its own."""

from __future__ import annotations

import hashlib
import json
import os
import runpy
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pymysql
import pytest

from pipeline.catalog import load
from pipeline.contract.loader import load_all
from pipeline.ledger import status as written
from pipeline.ledger.health import Pulse, note
from pipeline.rules.evaluate import plan_of
from pipeline.serve.child import Door

ROOT = Path(__file__).resolve().parents[2]
T = 1_767_225_600  # 2026-01-01T00:00:00Z
ROWS = 240


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DATA with 240 samples of two GPUs over four minutes, a queue and three charges, sealed and published."""
    ledgers = runpy.run_path(str(ROOT / "tests" / "ledger" / "conftest.py"))
    data: Path = tmp_path_factory.mktemp("door") / "data"
    small = ledgers["SmallLedger"](data, load())
    gpu, queue, charge = ledgers["gpu_row"], ledgers["queue_row"], ledgers["charge_row"]
    small.add(
        "gpu", [gpu(T + 2 * n, g, power_watts=700.5 + n, health="ok") for n in range(120) for g in range(2)]
    )
    small.add("queue", [queue(T + 10 * n, 1.5, 20.0, queue='it\'s \\ "quoted"') for n in range(3)])
    small.add("billing", [charge(T, T + 7200 + n, f"{n}.1234567891", f"c{n}") for n in range(3)])
    small.watermark(T + 7200)
    small.seal()
    small.publish()
    small.close()
    (data / "secret.txt").write_text("do not read me")
    return data


@pytest.fixture(scope="session")
def season(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """(DATA, its last instant): the peak season, played."""
    folder = tmp_path_factory.mktemp("season")
    played = runpy.run_path(str(Path(__file__).parent / "played.py"))
    play = played["play_into"](folder / "data", folder / "contracts")
    return folder / "data", play.end


@pytest.fixture(scope="session")
def checksums(published: Path) -> Callable[[], dict[str, str]]:
    """A function that gives the SHA-256 of every file under DATA, by its path."""

    def now() -> dict[str, str]:
        files = sorted(path for path in published.rglob("*") if path.is_file())
        return {str(f.relative_to(published)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}

    return now


@pytest.fixture(scope="session")
def open_door(tmp_path_factory: pytest.TempPathFactory, published: Path) -> Iterator[Callable[..., Door]]:
    """A function that opens a door before DATA with these arguments, on a free port."""
    opened: list[Door] = []

    def make(*arguments: str) -> Door:
        log = tmp_path_factory.mktemp("log") / "door.log"
        opened.append(Door(published, log, ["--port", "0", *arguments]))
        opened[-1].start()
        return opened[-1]

    yield make
    for one in opened:
        one.stop()


@pytest.fixture(scope="session")
def door(open_door: Callable[..., Door]) -> Door:
    """The door that most tests share."""
    return open_door("--memory-limit", "300MB")


def connect(door: Door, **how: Any) -> pymysql.Connection:
    host, _, port = door.address.rpartition(":")
    return pymysql.connect(host=host, port=int(port), **{"user": "tester", **how})


@pytest.fixture(scope="session")
def call() -> Callable[..., pymysql.Connection]:
    """`call(door, **how)`: a new connection."""
    return connect


@pytest.fixture
def client(door: Door) -> Iterator[pymysql.Connection]:
    """A connection to the shared door."""
    connection = connect(door)
    yield connection
    connection.close()


@pytest.fixture
def ask(client: pymysql.Connection) -> Callable[..., list[tuple[Any, ...]]]:
    """`ask(sql, parameters=None)`: all rows of an answer."""

    def asked(sql: str, parameters: Any = None) -> list[tuple[Any, ...]]:
        with client.cursor() as cursor:
            cursor.execute(sql, parameters)
            return list(cursor.fetchall())

    return asked


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 and its key, made by openssl."""
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", "-keyout", str(key), "-out", str(cert)],
        check=True, capture_output=True,
    )  # fmt: skip
    return cert, key


@pytest.fixture(scope="session")
def users(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A users file with alice and bob, and their passwords, made by the command."""
    file, passwords = tmp_path_factory.mktemp("users") / "users", {}
    for name in ("alice", "bob"):
        done = subprocess.run(
            [sys.executable, "-P", "-m", "pipeline.cli", "door", "--users", str(file), "--new-user", name],
            cwd=ROOT, check=True, capture_output=True, text=True,
        )  # fmt: skip
        passwords[name] = done.stdout.split(": ")[1].strip()
    return file, passwords


# ------------------------------------------------------------------------------------------------- the board

EXAMPLE = ROOT / "schemas" / "example-contract.yaml"
BOARD_READY = "board ready at "


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


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """A data directory of the test's own, with a pipeline's lock on it."""
    made = Stage(tmp_path / "data")
    yield made
    made.close()


@dataclass
class Board:
    """`gigawatch board` as a child process."""

    process: subprocess.Popen[bytes]
    log: Path
    address: str = ""

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def stop(self) -> int:
        assert self.process.stdin is not None
        if not self.process.stdin.closed:
            self.process.stdin.close()
        return self.process.wait(20)


def start_board(data: Path, log: Path, *arguments: str) -> Board:
    """A board on a free port, ready."""
    command = [sys.executable, "-P", "-m", "pipeline.cli", "board", "--child", "--data", str(data)]
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [*command, "--port", "0", *arguments], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=errors,
        )  # fmt: skip
    assert process.stdout is not None
    line = process.stdout.readline().decode()
    assert line.startswith(BOARD_READY), log.read_text()
    return Board(process, log, line.removeprefix(BOARD_READY).strip())


@pytest.fixture
def open_board(tmp_path: Path) -> Iterator[Callable[..., Board]]:
    """`open_board(data, *arguments)`: a board of the test's own."""
    opened: list[Board] = []

    def make(data: Path, *arguments: str) -> Board:
        opened.append(start_board(data, tmp_path / f"board-{len(opened)}.log", *arguments))
        return opened[-1]

    yield make
    for board in opened:
        board.stop()


@pytest.fixture(scope="session")
def full_stage() -> Callable[[Stage], None]:
    """A function that puts alerts of every severity on a stage, a hostile one among them, and a tranche."""

    def fill(stage: Stage) -> None:
        evil = "<script>alert(1)</script>" + "W" * 10_000
        stage.alert(region="eu-west")
        stage.alert("pending", region="us-east", severity="warning", ago=30)
        notes = {"runbook": "javascript:alert(1)", "text": evil, "sql": evil}
        stage.alert(region=evil, severity="ticket", annotations=notes)
        stage.stands("breach", region="eu-west")
        stage.stands("unknown", region="us-west", observed=None)
        stage.stands("ok", region=evil)
        stage.spend()
        stage.publish()

    return fill


@pytest.fixture(scope="session")
def _shared(
    tmp_path_factory: pytest.TempPathFactory, full_stage: Callable[[Stage], None]
) -> Iterator[tuple[Stage, Board]]:
    folder = tmp_path_factory.mktemp("board")
    stage = Stage(folder / "data")
    full_stage(stage)
    board = start_board(stage.data, folder / "board.log")
    yield stage, board
    board.stop()
    stage.close()


@pytest.fixture
def shared_board(_shared: tuple[Stage, Board]) -> Board:
    """A board over a full stage, for tests that change nothing; its pipeline has just spoken."""
    _shared[0].publish()
    return _shared[1]
