"""The engine that is asked, and the next one when it has died or stays full; only the question that did it notices.

A function of DuckDB's that breaks ends the database: what runs goes on to its end, but each new question gets an error
of its own class.  A new database, with a file of its own, takes a fraction of a second.
"""

from __future__ import annotations

import shutil
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import duckdb
import structlog

from pipeline.door.engine import Engine, EngineQuery

log = structlog.get_logger("door")

ERRORS = 5
"""So many errors for want of memory while others ask, too, and a full engine is left to them."""
_OVER = "database has been invalidated"
"""DuckDB's words to everybody but the one whose question broke it."""


class Engines:
    """`make` opens an engine in a folder.  All but `question` and `over` is called where DuckDB's threads may start."""

    def __init__(self, make: Callable[[Path], Engine], folder: Path) -> None:
        self._make, self._folder = make, folder
        self._lock = threading.Lock()
        self._made = self._short = 0
        self._asked: Counter[Engine] = Counter()
        self._folders: dict[Engine, Path] = {}
        self._engine = self._another()

    def question(self) -> EngineQuery:
        """A question of its own to the engine of the moment; `over` gives it back."""
        with self._lock:
            engine = self._engine
            self._asked[engine] += 1
        return engine.question()

    def over(self, question: EngineQuery) -> None:
        """Close a question, and its engine when that has been replaced and nobody else asks it."""
        question.close()
        with self._lock:
            self._asked[question.engine] -= 1
        self._put_away(question.engine)

    def look(self, question: EngineQuery, error: duckdb.Error) -> bool:
        """Make a new engine if this one has died of an error, or stays full after it.

        Whether it has died of another question than this one, which may then be asked again.  Raises QueryError and
        duckdb.Error when no new one can be made.
        """
        with self._lock:
            engine = question.engine
            if isinstance(error, duckdb.FatalException | duckdb.InternalException):
                if engine is self._engine and engine.is_over():
                    self._replace("it has died", error)
                return _OVER in str(error)
            if isinstance(error, duckdb.OutOfMemoryException) and engine is self._engine:
                self._short += 1
                alone = self._asked[engine] == 1
                if (alone or (self._short >= ERRORS and len(self._folders) == 1)) and engine.is_full():
                    self._replace("it stays full", error)
                elif alone:
                    self._short = 0
            return False

    def close(self) -> None:
        """Close the newest; one that is still asked stays open until the process ends."""
        self._engine.close()

    def _replace(self, why: str, error: duckdb.Error) -> None:
        log.error("the engine is made anew", why=why, error=str(error).partition("\n")[0])
        old, self._engine, self._short = self._engine, self._another(), 0
        self._put_away(old)

    def _another(self) -> Engine:
        self._made += 1
        folder = self._folder / str(self._made)
        folder.mkdir()
        engine = self._make(folder)
        self._folders[engine] = folder
        return engine

    def _put_away(self, engine: Engine) -> None:
        if engine is not self._engine and not self._asked[engine] and engine in self._folders:
            folder = self._folders.pop(engine)
            del self._asked[engine]
            engine.close()
            shutil.rmtree(folder, ignore_errors=True)
