"""A real Apache Kafka on this machine, for the demo and the tests: one KRaft node, loopback only.

It is the broker's own jars in their own process (see `java.py`): what it does, a Kafka in production does.
The process is in a session of its own, so that Ctrl-C reaches us and not it; on Linux it dies with us,
however we end.

    with EmbeddedKafka(Path("data/kafka")) as kafka:
        print(kafka.bootstrap)
"""

from __future__ import annotations

import base64
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType

from pipeline.broker.java import Progress, class_path, java
from pipeline.errors import BrokerUnreachable, GigawatchError
from pipeline.serve.child import last_words, wait_or_kill
from pipeline.stream.topic_admin import cluster_id

HOST = "127.0.0.1"
START_SECONDS = 90.0
STOP_SECONDS = 20.0
# Below Linux's range for outgoing connections (32768 up): from inside it, a client that reconnects while the
# broker is down can be given the broker's port as its own, connect to itself, and keep the broker from it.
PORTS = range(20_000, 32_000)

DEFAULTS: Mapping[str, str] = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "auto.create.topics.enable": "false",
    "group.initial.rebalance.delay.ms": "0",
    "message.max.bytes": str(4 * 1024 * 1024),
    "replica.fetch.max.bytes": str(4 * 1024 * 1024),
    "num.partitions": "1",
    # One node cannot hold the three replicas that these ask for, and a trial needs no 50 partitions of them.
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    # The default of 128 MiB is a quarter of the heap.
    "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),
}

LOG4J = """\
rootLogger.level = WARN
rootLogger.appenderRef.console.ref = console
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{ISO8601} %-5p %c{1}: %m%n
"""

# The parent's death must end the broker, also one that is stopped by SIGSTOP: hence SIGKILL.  Asked for in a
# process of its own, for code that runs between fork and exec is not safe in a program with threads.
LAUNCHER = """\
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


class EmbeddedKafka:
    """One broker over one data directory; it can be stopped and started again, with its data and its port.

    `port` 0 takes a free one, and keeps it for the life of this object.  `heap` is in Java's own notation,
    `config` goes over `DEFAULTS`, `progress` hears of the long steps.
    """

    def __init__(
        self,
        data_dir: Path,
        port: int = 0,
        heap: str = "512m",
        config: Mapping[str, str] | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.data_dir = data_dir.absolute()
        self.port = port or free_port()
        self._heap = heap
        self._config = dict(config or {})
        self._progress: Progress = progress or (lambda what, done, total: None)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        """`HOST:PORT` for clients."""
        return f"{HOST}:{self.port}"

    @property
    def pid(self) -> int | None:
        """The broker's process id; None while it does not run."""
        return self._process.pid if self._process and self._process.poll() is None else None

    @property
    def log_file(self) -> Path:
        """What the broker writes to its output: warnings and errors."""
        return self.data_dir / "broker.log"

    def start(self) -> None:
        """Start the broker and return when it answers a request for metadata; no effect while it runs.

        Raises GigawatchError if the port is taken, the jars cannot be had, or the broker does not come up
        (with its last words).
        """
        if self.pid is not None:
            return
        jars = class_path(self._progress)
        self._refuse_taken_port()
        self._write_files()
        if not (self.data_dir / "log" / "meta.properties").exists():
            self._format(jars)
        self._progress("starting Apache Kafka", 0, 0)
        self._process = self._spawn(self._command(jars, "kafka.Kafka", str(self._properties)))
        try:
            self._await_answer()
        except BaseException:  # Ctrl-C too: a broker that nobody knows of must not stay
            self.stop()
            raise

    def stop(self) -> None:
        """SIGTERM, and SIGKILL if it has not ended after 20 s; no effect while it does not run."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.terminate()
        process.send_signal(signal.SIGCONT)  # a stopped process receives SIGTERM only when it goes on
        wait_or_kill(process, STOP_SECONDS)

    def kill(self) -> None:
        """SIGKILL: the crash of a broker."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def pause(self) -> None:
        """SIGSTOP: the broker's connections stay open, and nothing answers."""
        self._running().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT, after `pause`."""
        self._running().send_signal(signal.SIGCONT)

    def __enter__(self) -> EmbeddedKafka:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def _properties(self) -> Path:
        return self.data_dir / "server.properties"

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            raise GigawatchError(f"the embedded Kafka in {self.data_dir} is not running; start it first")
        return self._process

    def _refuse_taken_port(self) -> None:
        if not _is_free(self.port):
            raise GigawatchError(
                f"port {self.port} of {HOST} is in use by another process; end that, or name another port"
            )

    def _write_files(self) -> None:
        controller = free_port(other_than=self.port)
        places = {
            "listeners": f"PLAINTEXT://{HOST}:{self.port},CONTROLLER://{HOST}:{controller}",
            "advertised.listeners": f"PLAINTEXT://{HOST}:{self.port}",
            "controller.quorum.voters": f"1@{HOST}:{controller}",
            "log.dirs": str(self.data_dir / "log"),
        }
        settings = {**DEFAULTS, **places, **self._config}
        scratch = self.data_dir / "tmp"  # Java unpacks its native libraries here, anew at each start
        shutil.rmtree(scratch, ignore_errors=True)
        try:
            scratch.mkdir(parents=True)
            self._properties.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
            (self.data_dir / "log4j2.properties").write_text(LOG4J)
        except OSError as error:
            raise GigawatchError(
                f"the embedded Kafka cannot write to {self.data_dir} ({error.strerror}); name another folder"
            ) from error

    def _command(self, jars: list[Path], main: str, *arguments: str) -> list[str]:
        # The optimising compiler is left out: it took half of the 3.4 s of CPU that a start costs, and gave
        # nothing back in rates or CPU over the first million records.  Kafka's libraries reach for native
        # code and Unsafe, which Java 25 warns of on every start.
        return [
            str(java()),
            f"-Xmx{self._heap}",
            "-XX:TieredStopAtLevel=1",
            "-XX:+UseSerialGC",
            "-XX:+ExitOnOutOfMemoryError",
            "-XX:-UsePerfData",
            "--enable-native-access=ALL-UNNAMED",
            "--sun-misc-unsafe-memory-access=allow",
            "-Djava.awt.headless=true",
            f"-Djava.io.tmpdir={self.data_dir / 'tmp'}",
            f"-Dlog4j2.configurationFile={self.data_dir / 'log4j2.properties'}",
            "-cp",
            os.pathsep.join(map(str, jars)),
            main,
            *arguments,
        ]

    def _format(self, jars: list[Path]) -> None:
        """Give the new data directory its cluster id."""
        self._progress("formatting a new Kafka log", 0, 0)
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        arguments = ("format", f"--cluster-id={cluster}", f"--config={self._properties}")
        command = self._command(jars, "kafka.tools.StorageTool", *arguments)
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        if done.returncode:
            raise GigawatchError(
                f"Kafka's storage tool could not format {self.data_dir}:\n{done.stdout[-2000:]}"
            )

    def _spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        """The process, started from a thread that lives as long as it: Linux takes the death of the *thread*
        that forked for the parent's death."""
        if sys.platform == "linux":
            command = [sys.executable, "-ISc", LAUNCHER, str(os.getpid()), *command]
        started: Future[subprocess.Popen[bytes]] = Future()

        def keep() -> None:
            try:
                with self.log_file.open("wb") as log:
                    started.set_result(_popen(command, log.fileno()))
            except BaseException as error:
                started.set_exception(error)
            else:
                started.result().wait()

        threading.Thread(target=keep, name="embedded-kafka", daemon=True).start()
        return started.result()

    def _await_answer(self) -> None:
        process, deadline = self._running(), time.monotonic() + START_SECONDS
        while process.poll() is None:
            # The port first: it is closed for the first seconds, and a client would log every attempt.
            if not _is_free(self.port):
                try:
                    cluster_id(self.bootstrap, timeout=5.0)
                    return
                except BrokerUnreachable:
                    pass
            if time.monotonic() > deadline:
                raise GigawatchError(self._last_words(f"does not answer after {START_SECONDS:.0f} s"))
            time.sleep(0.1)
        raise GigawatchError(self._last_words(f"ended with code {process.returncode} while it started"))

    def _last_words(self, what: str) -> str:
        return last_words(f"the embedded Kafka in {self.data_dir} {what}", self.log_file, lines=15)


def free_port(other_than: int = 0) -> int:
    """A TCP port of the loopback that nothing listens on, outside the range of outgoing connections."""
    ports = random.sample(PORTS, k=1000)
    return next(port for port in ports if port != other_than and _is_free(port))


def port_or_free(port: int) -> int:
    """The port if nothing listens on it, else one like `free_port`'s."""
    return port if _is_free(port) else free_port()


def prefetch(progress: Progress | None = None) -> None:
    """Have all that a start needs on this machine, so that it needs no network."""
    class_path(progress)


def _is_free(port: int) -> bool:
    """Whether a listener could be opened on the port now."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
        except OSError:
            return False
        return True


def _popen(command: list[str], output: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
    )
