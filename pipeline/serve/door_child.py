"""The door as a process of its own beside `run` and `demo`; it ends with us, however we end.

It says where it listens on its standard output once it does, and stops when its standard input ends.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from pipeline.errors import GigawatchError

READY = "door ready at "
"""What its first line on standard output starts with; the rest is the address."""
START_SECONDS = 60.0
STOP_SECONDS = 10.0
PREFIX = "GIGAWATCH_"


class Door:
    """`gigawatch door` over `data`; `arguments` are those of the command, its own words go to `log`.

    A door that has ended by itself is opened again at the same address by `keep`: what a question did to it is no
    reason for the pipeline to end.
    """

    def __init__(self, data: Path, log: Path, arguments: Sequence[str] = ()) -> None:
        self._log = log
        self._command = [
            *(sys.executable, "-P", "-m", "pipeline.cli"),
            *("door", "--child", "--data", str(data), *arguments),
        ]
        self._process: subprocess.Popen[bytes] | None = None
        self._port: str | None = None
        self.address = ""
        """HOST:PORT once it is open."""

    @property
    def pid(self) -> int | None:
        """The process id; None while it does not run."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self) -> None:
        """Open it; returns when it takes connections.  Raises GigawatchError with its last words."""
        # It is told everything on its command line: our own settings may be about another Kafka, and hold passwords.
        environment = {k: v for k, v in os.environ.items() if not k.startswith(PREFIX)}
        again = ["--port", self._port] if self._port else []
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._command, *again], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                env=environment, start_new_session=True,  # Ctrl-C is for us; we stop it in our own order
            )  # fmt: skip
        line = self._first_line(self._process)
        if not line.startswith(READY):
            self.stop()
            raise GigawatchError(self._last_words("could not be opened"))
        self.address = line.removeprefix(READY).strip()
        self._port = self.address.rpartition(":")[2]

    def keep(self) -> bool:
        """Opens it again if it has ended by itself; whether that was so."""
        if self._process is None or self._process.poll() is None:
            return False
        self.stop()
        self.start()
        return True

    def stop(self) -> None:
        """End of input, then SIGKILL if it has not ended after 10 s."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None and process.stdout is not None
        with contextlib.suppress(OSError):
            process.stdin.close()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()

    def __enter__(self) -> Door:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @staticmethod
    def _first_line(process: subprocess.Popen[bytes]) -> str:
        """What it says first; what it has said so far when it ends or the time is over."""
        assert process.stdout is not None
        said, deadline = b"", time.monotonic() + START_SECONDS
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while not said.endswith(b"\n") and selector.select(max(0.0, deadline - time.monotonic())):
                piece = os.read(process.stdout.fileno(), 4096)
                if not piece:
                    break
                said += piece
        return said.decode("utf-8", "replace")

    def _last_words(self, what: str) -> str:
        tail = self._log.read_text(errors="replace").splitlines()[-8:]
        return f"the SQL door {what}; the end of {self._log}:\n" + "\n".join(tail)
