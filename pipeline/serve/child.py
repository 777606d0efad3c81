"""A server of ours as a process of its own beside `run` and `demo`: it ends with us, however we end.

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
from typing import ClassVar, Self

from pipeline.errors import GigawatchError

START_SECONDS = 60.0
STOP_SECONDS = 10.0
PREFIX = "GIGAWATCH_"
"""Of our settings' variables: a child is told everything on its command line, for ours may be about another Kafka,
and hold passwords."""


def ready(command: str) -> str:
    """What the first line on standard output of `gigawatch <command> --child` starts with; then comes the address."""
    return f"{command} ready at "


class Child:
    """`gigawatch <command>` over `data`; `arguments` are those of the command.

    Its own words go to the file `log`, or where ours go when that is None.  Stopped and
    started again it has the same address.
    """

    what: ClassVar[str]
    command: ClassVar[str]

    def __init__(self, data: Path, log: Path | None, arguments: Sequence[str] = ()) -> None:
        self._log = log
        self._command = [
            *(sys.executable, "-P", "-m", "pipeline.cli"),
            *(self.command, "--child", "--data", str(data), *arguments),
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
        environment = {k: v for k, v in os.environ.items() if not k.startswith(PREFIX)}
        again = ["--port", self._port] if self._port else []
        self.address = ""
        with self._log.open("ab") if self._log else contextlib.nullcontext() as log:
            process = self._process = subprocess.Popen(
                [*self._command, *again], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                env=environment, start_new_session=True,  # Ctrl-C is for us; we stop it in our own order
            )  # fmt: skip
        line = _first_line(process)
        if not line.startswith(ready(self.command)):
            self.stop()
            raise GigawatchError(last_words(f"the {self.what} could not be opened", self._log))
        self.address = line.removeprefix(ready(self.command)).strip()
        self._port = self.address.rpartition(":")[2]

    def stop(self) -> None:
        """End of input, then SIGKILL if it has not ended after 10 s."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None and process.stdout is not None
        with contextlib.suppress(OSError):
            process.stdin.close()
        wait_or_kill(process, STOP_SECONDS)
        process.stdout.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class Door(Child):
    """`gigawatch door`."""

    what, command = "SQL door", "door"


class Board(Child):
    """`gigawatch board`."""

    what, command = "board", "board"


def wait_or_kill(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Wait for a process that was asked to end; SIGKILL if it has not after so long."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def last_words(what: str, log: Path | None, lines: int = 8) -> str:
    """`what` happened, with the last lines of a child's log."""
    if log is None:
        return f"{what}; what it said of that stands before this line"
    tail = log.read_text(errors="replace").splitlines()[-lines:]
    return f"{what}; the end of {log}:\n" + "\n".join(tail)


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
