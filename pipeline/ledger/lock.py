"""One writer for a data directory: an advisory lock that dies with its process."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import IO

from pipeline.errors import DataDirectoryInUse, LedgerError
from pipeline.ledger import files


class DirectoryLock:
    """Holds `DATA/lock` until `release`.  Raises DataDirectoryInUse, naming the other process.

    From then on `data` is closed to others than owner and group, and has no symbolic link in it: LedgerError names one.
    """

    def __init__(self, data: Path) -> None:
        try:
            data.mkdir(parents=True, exist_ok=True)
            files.keep_private(data)
            files.refuse_links(data)
            self._file: IO[str] = open(data / "lock", "a+")  # noqa: SIM115 - held for the life of the process
        except OSError as error:
            raise LedgerError(
                f"{data}: cannot be used as a data directory ({error}); check path and rights"
            ) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.seek(0)
            holder = self._file.read().strip() or "unknown"
            self._file.close()
            raise DataDirectoryInUse(
                f"{data}: in use by process {holder}; stop that one, or give this one another --data"
            ) from error
        try:
            with files.disk_errors(data):
                self._file.truncate(0)
                self._file.write(str(os.getpid()))
                self._file.flush()
        except LedgerError:
            self.release()
            raise

    def release(self) -> None:
        """Let another process in; what could not be written before cannot be now."""
        with contextlib.suppress(OSError):
            self._file.close()
