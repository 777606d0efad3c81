"""A folder for a process to spill into, which does not outlive it: what a killed one left goes when the next one comes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ALIVE = "alive"
"""A file in it that is locked as long as its process lives."""
YOUNG = 60.0
"""Seconds that one without it may be just being made."""


@contextlib.contextmanager
def scratch(prefix: str) -> Iterator[Path]:
    """A new folder among the system's temporary ones, called `prefix` and something, for the user alone."""
    sweep(prefix)
    with tempfile.TemporaryDirectory(prefix=prefix) as name, open(Path(name) / ALIVE, "w") as alive:
        fcntl.flock(alive, fcntl.LOCK_EX)
        yield Path(name).resolve()


def sweep(prefix: str) -> None:
    """Remove those of our user whose process has ended."""
    for folder in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        with contextlib.suppress(OSError):
            found = folder.lstat()
            if found.st_uid == os.getuid() and not folder.is_symlink() and _left(folder, found.st_mtime):
                shutil.rmtree(folder, ignore_errors=True)


def _left(folder: Path, changed: float) -> bool:
    """Whether nobody holds it."""
    try:
        with open(folder / ALIVE) as alive:
            fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    except FileNotFoundError:
        return time.time() - changed > YOUNG
    except BlockingIOError:
        return False
