"""Logs, to stderr: lines for people on a terminal, JSON lines for everything else."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog

CHATTY = ("kafka", "aiokafka", "faust", "mode", "httpx", "httpcore", "asyncio")
SILENT = ("aiokafka.cluster",)
"""Ten lines a second for each topic that is not there; the source, the dead letters and the delivery say it."""


def log_to_stderr(level: str) -> None:
    """Human lines where stderr is a terminal, JSON lines where a machine reads them.

    Libraries log through the same lines; those that are chatty from `warning` on, unless `level` is debug.
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
        structlog.stdlib.ProcessorFormatter(
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
        for name in CHATTY:
            logging.getLogger(name).setLevel(logging.WARNING)
        for name in SILENT:
            logging.getLogger(name).setLevel(logging.CRITICAL)
