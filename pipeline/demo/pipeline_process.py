"""`gigawatch run` as a process of its own, as its users have it; it ends with us, however we end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from pipeline.broker.kafka import LAUNCHER
from pipeline.errors import GigawatchError
from pipeline.ledger import status
from pipeline.serve.child import PREFIX, last_words, wait_or_kill

STOP_SECONDS = 15.0
START_SECONDS = 90.0


class PipelineProcess:
    """A pipeline over `data`; `arguments` are those of `gigawatch run`, `settings` go over the environment.

    Our own GIGAWATCH_ variables are kept from it: they are about some other Kafka.
    """

    def __init__(
        self, data: Path, log: Path, arguments: Sequence[str], settings: Mapping[str, str] | None = None
    ) -> None:
        self._data, self._log = data, log
        self._arguments = ["run", "--data", str(data), *arguments]
        self._settings = {f"{PREFIX}{name.upper()}": value for name, value in (settings or {}).items()}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process id; None while it does not run."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self) -> None:
        """Start it; it has begun when `begun` says so."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith(PREFIX)} | self._settings
        # -P: a directory `pipeline` where the user happens to stand is not ours.
        command = [sys.executable, "-P", "-m", "pipeline.cli", *self._arguments]
        if sys.platform == "linux":
            command = [sys.executable, "-ISc", LAUNCHER, str(os.getpid()), *command]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment,
                start_new_session=True,  # Ctrl-C is for us; we stop it in our own order
            )  # fmt: skip

    def begun(self) -> bool:
        """Whether it has written its status.  Raises GigawatchError when it has ended, with its last words."""
        self.check()
        found = status.read(self._data)
        return found is not None and found["pid"] == self.pid and found["state"] == "running"

    def await_begun(self) -> None:
        """Wait until it has begun, 90 s at most.  Raises GigawatchError."""
        deadline = time.monotonic() + START_SECONDS
        while not self.begun():
            if time.monotonic() > deadline:
                raise GigawatchError(
                    last_words(f"the pipeline has not begun after {START_SECONDS:.0f} s", self._log)
                )
            time.sleep(0.1)

    def await_servers(self) -> dict[str, Any]:
        """What its status says of its servers once each is open or has failed to.  Raises GigawatchError."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            self.check()
            servers: dict[str, Any] = (status.read(self._data) or {}).get("servers") or {}
            settled = all(server["address"] or server["error"] for server in servers.values())
            if settled or time.monotonic() > deadline:
                return servers
            time.sleep(0.1)

    def check(self) -> None:
        """Raises GigawatchError when it has ended by itself."""
        code = self._process.poll() if self._process else None
        if code is not None:
            raise GigawatchError(last_words(f"the pipeline ended by itself with code {code}", self._log))

    def stop(self) -> None:
        """SIGTERM, so that it seals and publishes; SIGKILL if it has not ended after 15 s."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGTERM)
        wait_or_kill(process, STOP_SECONDS)

    def __enter__(self) -> PipelineProcess:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
