"""What tests of several rooms share: real engines (Apache Kafka, Alertmanager), on the loopback, stopped by their pid;
a small published history; a certificate and users.

`kafka` is one broker for the whole session; a test that writes to it takes `telemetry_topics` and starts with
empty ones.  A test that pauses, stops or kills a broker takes `fresh_kafka`, which is its own.
"""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import settings
from kafka.errors import UnknownTopicOrPartitionError

from pipeline.broker.kafka import LAUNCHER, EmbeddedKafka, free_port
from pipeline.catalog import load
from pipeline.stream.topic_admin import admin, create_topics, default_specs
from tests.patience import PATIENCE

ROOT = Path(__file__).resolve().parents[1]
ON_CI = os.environ.get("CI") == "true"
TELEMETRY = (
    "telemetry.billing",
    "telemetry.deliveries",
    "telemetry.energy",
    "telemetry.gpu",
    "telemetry.queue",
)

# No deadline: the machine is shared, and time is not what these tests are about.  On CI the same examples
# each time, so that a red run is about the change.
settings.register_profile("here", deadline=None, print_blob=True)
settings.register_profile("ci", deadline=None, print_blob=True, derandomize=True, max_examples=50)
settings.load_profile("ci" if ON_CI else "here")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from tests.by_room import ByRoom

    config.option.loadscopereorder = (
        False  # by the number of tests, which says little: the system's would come last
    )
    return ByRoom(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        from tests.by_room import system_first

        system_first(items)


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    """One real broker for the whole session: for tests that leave it running."""
    with EmbeddedKafka(tmp_path_factory.mktemp("kafka")) as broker:
        yield broker


@pytest.fixture
def fresh_kafka(tmp_path: Path) -> Iterator[EmbeddedKafka]:
    """A broker of the test's own, running: to be paused, stopped, killed, started again."""
    with EmbeddedKafka(tmp_path / "kafka", heap="256m") as broker:
        yield broker


TopicsFactory = Callable[..., tuple[str, ...]]


@pytest.fixture
def telemetry_topics(request: pytest.FixtureRequest) -> TopicsFactory:
    """A function that makes the telemetry topics anew, empty, with the dead letters and the alerts.

    `telemetry_topics(partitions=4, bootstrap=None, topics=TELEMETRY)` gives the names of the telemetry ones;
    without a `bootstrap` it works on the session's broker.
    """

    def recreate(
        partitions: int = 4, bootstrap: str | None = None, topics: Sequence[str] = TELEMETRY
    ) -> tuple[str, ...]:
        bootstrap = bootstrap or request.getfixturevalue("kafka").bootstrap
        specs = default_specs(topics, partitions)
        _delete(bootstrap, [spec.name for spec in specs])
        made = create_topics(bootstrap, specs)
        assert all(topic.what == "created" for topic in made), made
        return tuple(topics)

    return recreate


def _delete(bootstrap: str, names: list[str]) -> None:
    """Delete what exists of `names`, and wait until the broker has forgotten them."""
    with admin(bootstrap) as client:
        for name in set(names) & set(client.list_topics()):
            try:
                client.delete_topics([name])
            except UnknownTopicOrPartitionError:
                continue
        deadline = time.monotonic() + PATIENCE
        while left := set(names) & set(client.list_topics()):
            assert time.monotonic() < deadline, f"still there after {PATIENCE:.0f} s: {left}"
            time.sleep(0.05)


MINIMAL = """\
route: {receiver: nobody, group_wait: 1s, group_interval: 1s}
receivers: [{name: nobody}]
"""


@dataclass
class Alertmanager:
    """Debian's Alertmanager, which keeps its port and its data when it is stopped and started again."""

    command: str
    folder: Path
    config: str = MINIMAL
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it listens, without a path."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and return when it says that it is ready."""
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / "alertmanager.yml"
        file.write_text(self.config)
        arguments = [
            self.command,
            f"--config.file={file}",
            f"--storage.path={self.folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--cluster.listen-address=",
        ]
        if sys.platform == "linux":  # it ends with the test run, also when that is killed
            arguments = [sys.executable, "-ISc", LAUNCHER, str(os.getpid()), *arguments]
        with (self.folder / "output.log").open("ab") as log:
            self.process = subprocess.Popen(arguments, stdout=log, stderr=log)
        self._await_ready()

    def stop(self) -> None:
        """SIGTERM to its own pid, SIGKILL after 10 s."""
        process, self.process = self.process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def restart(self) -> None:
        """Stop and start, on the same port and data."""
        self.stop()
        self.start()

    def _await_ready(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and self.process and self.process.poll() is None:
            try:
                if httpx.get(f"{self.url}/-/ready", trust_env=False).is_success:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        self.stop()
        pytest.fail(f"Alertmanager did not come up:\n{(self.folder / 'output.log').read_text()[-2000:]}")


@pytest.fixture
def alertmanager_factory(tmp_path: Path) -> Iterator[Callable[..., Alertmanager]]:
    """A function that gives a running Alertmanager, `alertmanager_factory(config=MINIMAL)`."""
    made: list[Alertmanager] = []

    def make(config: str = MINIMAL) -> Alertmanager:
        made.append(Alertmanager(_alertmanager_command(), tmp_path / f"alertmanager-{len(made)}", config))
        made[-1].start()
        return made[-1]

    yield make
    for one in made:
        one.stop()


@pytest.fixture
def alertmanager(alertmanager_factory: Callable[..., Alertmanager]) -> Alertmanager:
    """A real Alertmanager that keeps what it is sent and notifies nobody: `.url`, `.stop()`, `.start()`."""
    return alertmanager_factory()


def _alertmanager_command() -> str:
    for name in ("prometheus-alertmanager", "alertmanager"):
        if command := shutil.which(name):
            return command
    missing = "needs a real Alertmanager: apt-get install --no-install-recommends prometheus-alertmanager"
    if ON_CI:
        pytest.fail(missing)
    pytest.skip(missing)


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DATA with 240 samples of two GPUs over four minutes, a queue and three charges, sealed and published."""
    ledgers = runpy.run_path(str(ROOT / "tests" / "ledger" / "conftest.py"))
    data: Path = tmp_path_factory.mktemp("door") / "data"
    start = 1_767_225_600  # 2026-01-01T00:00:00Z
    small = ledgers["SmallLedger"](data, load())
    gpu, queue, charge = ledgers["gpu_row"], ledgers["queue_row"], ledgers["charge_row"]
    small.add(
        "gpu",
        [gpu(start + 2 * n, g, power_watts=700.5 + n, health="ok") for n in range(120) for g in range(2)],
    )
    small.add("queue", [queue(start + 10 * n, 1.5, 20.0, queue='it\'s \\ "quoted"') for n in range(3)])
    small.add("billing", [charge(start, start + 7200 + n, f"{n}.1234567891", f"c{n}") for n in range(3)])
    small.watermark(start + 7200)
    small.seal()
    small.publish()
    small.close()
    (data / "secret.txt").write_text("do not read me")
    return data


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
