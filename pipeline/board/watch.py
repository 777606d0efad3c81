"""The thread that looks: it reads what has changed, makes the page, and lays it where requests find it.

Requests never wait for DuckDB.  A second thread asks Alertmanager, so that a slow one delays nothing.  The threads are
not nicer than the one that answers: one that is put aside while it holds the interpreter's lock holds up every request.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import structlog

from pipeline.board.card_links import NOWHERE, Elsewhere
from pipeline.board.metrics import GrowingTotals, MetricsInput
from pipeline.board.page_model import Body, Page, body_of, page_of
from pipeline.board.pages import Answer, Pages
from pipeline.board.problems import Life, Problem
from pipeline.board.published_rows import Published, fingerprint, look, open_history
from pipeline.board.silences import AlertmanagerStatus, Routing
from pipeline.catalog import Catalog
from pipeline.errors import GigawatchError
from pipeline.ledger import status as written
from pipeline.serve.status_report import well

log = structlog.get_logger("board")

EVERY = 2.0
ASK_EVERY = 5.0
STUCK_AFTER = 30.0
"""Seconds without a look, after which the page says that it is dead."""
STOP_SECONDS = 3.0
"""For each thread; a DuckDB that is still at work when Python ends leaves complaints in the log."""
SWITCH = 0.001
"""Seconds after which a request may take the interpreter's lock from a look; 5 ms each time is Python's habit."""
AT_LEAST = 60.0
"""Seconds after which the history is read again although no file has changed: windows open by the clock."""


class Watch:
    """`page` and `seen` are the newest; each is replaced as a whole, so that any thread may read them."""

    def __init__(
        self,
        data: Path,
        catalog: Catalog,
        pages: Pages,
        alertmanager: AlertmanagerStatus | None,
        elsewhere: Elsewhere = NOWHERE,
    ) -> None:
        self._elsewhere = elsewhere
        self._data, self._catalog, self._pages, self._alertmanager = data, catalog, pages, alertmanager
        self._con: duckdb.DuckDBPyConnection | None = None
        self._print: int | None = None
        self._read_at = 0.0
        self._published = Published()
        self._reading = ""
        self._mark: float | None = None
        self._moved = time.monotonic()
        self._tally = GrowingTotals()
        self._routing = Routing(alertmanager.address if alertmanager else "")
        self._body: Body | None = None
        self._made_of = (self._published, self._routing)
        self._model: Page | None = None
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self.static = pages.static
        self.seen = MetricsInput(Life(None, None), self._published, 0.0)
        self.page: Answer
        self._looked = 0.0
        self.look()

    def start(self) -> None:
        """The threads begin; they end with `stop`."""
        sys.setswitchinterval(SWITCH)
        work = [(EVERY, self.look)]
        if self._alertmanager is not None:
            work.append((ASK_EVERY, self.ask))
        self._threads = [threading.Thread(target=self._run, args=one, daemon=True) for one in work]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Both threads end after what they are doing, and the history is closed."""
        self._stop.set()
        for thread in self._threads:
            thread.join(STOP_SECONDS)
        if self._con is not None and not any(thread.is_alive() for thread in self._threads):
            self._con.close()

    def current(self) -> Answer:
        """The page; should the thread have stopped looking, one that says so."""
        if time.monotonic() - self._looked <= STUCK_AFTER or self._model is None:
            return self.page
        stuck = Problem("bad", "The board has stopped looking", "Restart it; what is below is old.")
        return self._pages.render(_with(self._model, stuck))

    def ready(self, now: float) -> tuple[bool, str]:
        """Whether the pipeline's status is fresh and the history could be read, in a line; `now`: epoch seconds."""
        if time.monotonic() - self._looked > STUCK_AFTER:
            return False, "the board has stopped looking"
        if self._reading:
            return False, f"the published history cannot be read: {self._reading}"
        return well(self._data, now)

    def ask(self) -> None:
        """What Alertmanager says; takes a few seconds at most."""
        if self._alertmanager is not None:
            self._routing = self._alertmanager.ask()

    def look(self) -> None:
        """Read what has changed, and make the page anew if anything on it has."""
        now = time.time()
        self._read(now)
        life = self._life()
        self.seen = MetricsInput(life, self._published, now, dict(self._tally.total))
        routing = self._routing
        made_of = (self._published, routing)
        if self._body is None or made_of[0] is not self._made_of[0] or made_of[1] != self._made_of[1]:
            self._body, self._made_of = body_of(*made_of, now, self._elsewhere), made_of
        model = page_of(str(self._data), life, self._body, routing, now)
        if model != self._model:
            self.page = self._pages.render(model)
            self._model = model
        self._looked = time.monotonic()

    def _life(self) -> Life:
        try:
            status = written.read(self._data)
            still = self._stood_still(status)
            published_at = self._published.published_at
            return Life(status, written.writer_of(self._data), published_at, self._reading, still)
        except GigawatchError as error:
            return Life(None, None, None, str(error))

    def _stood_still(self, status: Mapping[str, Any] | None) -> float:
        """Seconds since evaluation was last seen to move."""
        mark = written.least_watermark(status) if status else None
        if mark != self._mark:
            self._mark, self._moved = mark, time.monotonic()
        return time.monotonic() - self._moved

    def _read(self, now: float) -> None:
        """The history, if a file of it has changed; what went wrong stands on the page until it is right."""
        stamp = fingerprint(self._data)
        if stamp == self._print and not self._reading and now - self._read_at < AT_LEAST:
            return
        try:
            if self._con is None:
                self._con = open_history(self._data, self._catalog)
            self._published = look(self._con, now)
            self._tally.note(self._published.fates)
            self._print, self._read_at, self._reading = stamp, now, ""
        except GigawatchError as error:
            self._reading = str(error)
        except duckdb.Error as error:  # a file that is no Parquet, too little memory
            self._reading = str(error).splitlines()[0]
            self._con = None

    def _run(self, every: float, work: Callable[[], None]) -> None:
        while not self._stop.wait(every):
            try:
                work()
            except Exception:  # the next look may be right; until then the page grows old, and says so
                log.exception("a look has failed")


def _with(page: Page, problem: Problem) -> Page:
    return replace(page, problems=(problem, *page.problems))
