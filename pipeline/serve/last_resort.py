"""The end of a process whose orderly end does not come: a thread that hangs in a call cannot be made to stop."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable


def end_within(seconds: float, code: int, words: str, last: Callable[[], None]) -> threading.Timer:
    """After `seconds`, unless it is cancelled: call `last`, say `words` on stderr, and end with `code` at once."""

    def end() -> None:
        try:
            last()
        finally:
            sys.stderr.write(f"{words}\n")
            sys.stderr.flush()
            os._exit(code)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    return timer
