"""Logs, to stderr: lines for people on a terminal, JSON lines for everything else."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from typing import Any

import structlog

from pipeline.secret import hidden

CHATTY = ("kafka", "aiokafka", "faust", "mode", "httpx", "httpcore", "asyncio")
SILENT = ("aiokafka.cluster", "kafka.net.selector")
"""Ten lines a second for each topic that is not there, which the source, the dead letters and the delivery say; and each
moment in which the machine was slow."""

SAID_BY_US = ("Sending username and password in the clear",)
"""What clients say of every connection, and `run` once."""
SAME_AGAIN = 60.0
"""Seconds for which a library says the same thing once: a client that cannot connect says it many times a second, and
whoever sends a board nonsense decides how often."""


class Seldom(logging.Filter):
    """Of what libraries say in one place of their code, one line a minute, and how many it stands for."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._said: dict[tuple[str, int | str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.partition(".")[0] == "pipeline":
            return True
        if record.msg in SAID_BY_US:
            return False
        event = dict(record.msg) if isinstance(record.msg, dict) else None  # a line of a server of ours
        place = (record.name, str(event["event"])) if event else (record.pathname, record.lineno)
        now = self._clock()
        at, unsaid = self._said.get(place, (-SAME_AGAIN, 0))
        if now - at < SAME_AGAIN:
            self._said[place] = (at, unsaid + 1)
            return False
        self._said[place] = (now, 0)
        if unsaid and event:
            record.msg = {**event, "event": f"{event['event']} (and {unsaid} times more before)"}
        elif unsaid:
            record.msg, record.args = f"{record.getMessage()} (and {unsaid} times more before)", None
        return True


class WithoutSecrets(structlog.stdlib.ProcessorFormatter):
    """Lines of structlog's and the libraries', as they leave: without what `pipeline.secret` keeps."""

    def format(self, record: logging.LogRecord) -> str:
        return hidden(super().format(record))


def log_to_stderr(level: str) -> None:
    """Human lines where stderr is a terminal, JSON lines where a machine reads them.

    Libraries log through the same lines: those that are chatty from `warning` on, and each thing once a minute, unless
    `level` is debug.
    """
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    human = sys.stderr.isatty()
    last: list[Any] = (
        [structlog.dev.ConsoleRenderer()]
        if human
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(ensure_ascii=False)]
    )
    lines = logging.StreamHandler(sys.stderr)
    lines.setFormatter(
        WithoutSecrets(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers = [lines]
    root.setLevel(level.upper())
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    if level != "debug":
        lines.addFilter(Seldom())
        for name in CHATTY:
            logging.getLogger(name).setLevel(logging.WARNING)
        for name in SILENT:
            logging.getLogger(name).setLevel(logging.CRITICAL)
