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

from pipeline.embed.kafka import LAUNCHER
from pipeline.errors import GigawatchError
from pipeline.ledger import status

STOP_SECONDS = 15.0
START_SECONDS = 90.0
PREFIX = "GIGAWATCH_"


class Pipeline:
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
                raise GigawatchError(self._last_words(f"has not begun after {START_SECONDS:.0f} s"))
            time.sleep(0.1)

    def check(self) -> None:
        """Raises GigawatchError when it has ended by itself."""
        code = self._process.poll() if self._process else None
        if code is not None:
            raise GigawatchError(self._last_words(f"ended by itself with code {code}"))

    def stop(self) -> None:
        """SIGTERM, so that it seals and publishes; SIGKILL if it has not ended after 15 s."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def __enter__(self) -> Pipeline:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _last_words(self, what: str) -> str:
        tail = self._log.read_text(errors="replace").splitlines()[-8:]
        return f"the pipeline {what}; the end of {self._log}:\n" + "\n".join(tail)
