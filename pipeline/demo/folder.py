"""The demo's directory: the pipeline's data directory, with the broker's log and the contract beside it.

A demo begins anew, so it deletes: only in a directory that carries its mark, and only what it makes itself.
The mark is also the lock that keeps two demos out of one directory.
"""

from __future__ import annotations

import fcntl
import json
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any

from pipeline.errors import DataDirectoryInUse, LedgerError
from pipeline.ledger import counter
from pipeline.ledger.status import writer_of
from pipeline.simulate.scenarios import Play, names
from pipeline.views.published import OWN_TABLES

MARK = ".gigawatch-demo"
MADE = (
    *("kafka", "contracts", "pipeline.log", "targets.json"),
    *("ledger.duckdb", "ledger.duckdb.wal", counter.FILE, "lock", "status.json", ".status.json.tmp"),
    *("segments", "staging", "spill", "faust", "history", "rollups"),
    *(table.root for table in OWN_TABLES),
)


class DemoFolder:
    """`data`, taken for a demo while the `with` lasts; emptied of an earlier demo's files unless `keep`.

    Raises DataDirectoryInUse when a demo or a pipeline works in it, LedgerError when it holds something else
    or cannot be written; nothing is changed then.
    """

    def __init__(self, data: Path, keep: bool = False) -> None:
        self.data = data.absolute()
        self.shown = data
        self.keep = keep
        self._kept: dict[str, Any] | None = None

    @property
    def kafka(self) -> Path:
        return self.data / "kafka"

    @property
    def contracts(self) -> Path:
        return self.data / "contracts"

    @property
    def log(self) -> Path:
        """What the pipeline logs."""
        return self.data / "pipeline.log"

    @property
    def targets(self) -> Path:
        """What is scraped, where the scenario has exporters."""
        return self.data / "targets.json"

    def __enter__(self) -> DemoFolder:
        try:
            self._refuse_foreign()
            self.data.mkdir(parents=True, exist_ok=True)
            self._mark = (self.data / MARK).open("a+")
        except OSError as error:
            raise LedgerError(
                f"{self.shown}: cannot be used for the demo ({error.strerror}); name another directory with --data"
            ) from error
        self._lock()
        if not self.keep:
            self._clear()
        (self.data / ".gitignore").write_text("*\n")  # made beside somebody's work, and no part of it
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._mark.close()

    def _refuse_foreign(self) -> None:
        if self.data.is_dir() and any(self.data.iterdir()) and not (self.data / MARK).is_file():
            raise LedgerError(
                f"{self.shown}: not empty, and not made by a demo; expected a new directory, an empty one, or an "
                "earlier demo's: name another with --data"
            )

    def _lock(self) -> None:
        try:
            fcntl.flock(self._mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._mark.close()
            raise DataDirectoryInUse(
                f"{self.shown}: another demo runs there; stop it (Ctrl-C), or name another directory with --data"
            ) from error
        writer = writer_of(self.data)
        if writer is not None:
            self._mark.close()
            raise DataDirectoryInUse(
                f"{self.shown}: a pipeline (process {writer}) works there; stop it, or name another directory with "
                "--data"
            )

    def _clear(self) -> None:
        self._mark.truncate(0)
        for name in MADE:
            path = self.data / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def remember(self, play: Play, written_ms: int) -> None:
        """Keep what a later `--keep` has to know: the play, and up to where its events are in Kafka."""
        name = play.scenario.path if play.scenario.scenario not in names() else play.scenario.scenario
        now = {"scenario": name, "start": play.start, "speed": play.speed, "written_ms": written_ms}
        if now != self._kept:
            self._kept = now
            self._mark.seek(0)
            self._mark.truncate(0)
            json.dump(now, self._mark)
            self._mark.flush()

    def remembered(self) -> dict[str, Any] | None:
        """What the last demo in this directory kept; None when it kept nothing."""
        self._mark.seek(0)
        try:
            found: dict[str, Any] = json.load(self._mark)
            return found
        except ValueError:
            return None
