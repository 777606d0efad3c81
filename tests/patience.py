"""How long a test waits for what must come: until it comes, for no test is about speed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

PATIENCE = 600.0
"""Seconds that anything may take which takes one or two on an idle machine: a hang ends the test, not a load."""


def eventually(
    what: str | Callable[[], str], true: Callable[[], Any], within: float = PATIENCE, every: float = 0.1
) -> Any:
    """The first truthy value of `true`; fails the test when it stays false for `within` seconds, and says `what` did not come."""
    deadline = time.monotonic() + within
    while not (found := true()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within:.0f} s: {what if isinstance(what, str) else what()}")
        time.sleep(every)
    return found
