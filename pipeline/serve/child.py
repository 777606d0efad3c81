"""A server of ours as a process of its own beside `run` and `demo`: it ends with us, however we end.

It says where it listens on its standard output once it does, and stops when its standard input ends.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import selectors
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from pipeline.errors import GigawatchError
from pipeline.serve import probe

START_SECONDS = 60.0
STOP_SECONDS = 10.0
PREFIX = "GIGAWATCH_"
"""Of our settings' variables: a child gets none of ours, which may be about another Kafka, and hold passwords."""


def ready(command: str) -> str:
    """What the first line on standard output of `gigawatch <command> --child` starts with; then comes the address."""
    return f"{command} ready at "


class Child(ABC):
    """`gigawatch <command>` over `data`; `arguments` are those of the command, which all users of the machine can read.

    `variables`: settings by name, for what they must not read.

    Its own words go to the file `log`, or where ours go when that is None.  Stopped and
    started again it has the same address.
    """

    what: ClassVar[str]
    command: ClassVar[str]

    def __init__(
        self,
        data: Path,
        log: Path | None,
        arguments: Sequence[str] = (),
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self._log = log
        self._variables = {f"{PREFIX}{name.upper()}": value for name, value in (variables or {}).items()}
        self._command = [
            *(sys.executable, "-P", "-m", "pipeline.cli"),
            *(self.command, "--child", "--data", str(data), *arguments),
        ]
        self._process: subprocess.Popen[bytes] | None = None
        self._port: str | None = None
        self._word = secrets.token_urlsafe(24)
        self._tls = "--tls-cert" in arguments
        self.address = ""
        """HOST:PORT once it is open."""

    @property
    def pid(self) -> int | None:
        """The process id; None while it does not run."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self) -> None:
        """Open it; returns when it takes connections.  Raises GigawatchError with its last words."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith(PREFIX)} | self._variables
        again = ["--port", self._port] if self._port else []
        self.address = ""
        with self._log.open("ab") if self._log else contextlib.nullcontext() as log:
            process = self._process = subprocess.Popen(
                [*self._command, *again], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                env=environment, start_new_session=True,  # Ctrl-C is for us; we stop it in our own order
            )  # fmt: skip
        assert process.stdin is not None
        with contextlib.suppress(OSError):  # it has ended already: its first line says so
            process.stdin.write(f"{self._word}\n".encode())
            process.stdin.flush()
        line = _first_line(process)
        if not line.startswith(ready(self.command)):
            self.stop()
            raise GigawatchError(last_words(f"the {self.what} could not be opened", self._log))
        self.address = line.removeprefix(ready(self.command)).strip()
        self._port = self.address.rpartition(":")[2]

    @property
    def ending(self) -> str | None:
        """How it ended by itself, in words; None while it runs, and after `stop`."""
        code = self._process.poll() if self._process else None
        if code is None:
            return None
        return f"it ended by itself ({f'signal {-code}' if code < 0 else f'code {code}'})"

    @abstractmethod
    def fault(self, seconds: float) -> str | None:
        """What is wrong with it, in words; None when it answers a real request within so many seconds."""

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """End of input, then SIGKILL if it has not ended after so long."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None and process.stdout is not None
        with contextlib.suppress(OSError):
            process.stdin.close()
        wait_or_kill(process, seconds)
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

    def fault(self, seconds: float) -> str | None:
        return probe.door_fault(self.address, self._word, seconds)


class Board(Child):
    """`gigawatch board`."""

    what, command = "board", "board"

    def fault(self, seconds: float) -> str | None:
        return probe.board_fault(self.address, self._tls, seconds)


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
