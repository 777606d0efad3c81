"""How patient the delivery is, and the outside that it measures patience with."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Policy:
    """Timing of the delivery, in seconds of wall clock.

    `page_max_age`: older changes go to the alert topic only (None: no limit, for replays of recorded time).
    `hold`: how long an old firing change waits at most while the pipeline catches up.
    `resend_every`: the longest time between two posts of a firing alert; at most 60.
    `backoff_first`, `backoff_cap`: bounds of the exponential backoff, from which full jitter draws.
    `idle_poll`: how often the outbox is read without a nudge; `send_timeout`: for one `send` as a whole.
    `stop_grace`: how long a send under way may take to end at a stop.
    `read_limit`: how many rows of the outbox are looked at together.
    """

    page_max_age: float | None = 600.0
    hold: float = 120.0
    resend_every: float = 60.0
    backoff_first: float = 1.0
    backoff_cap: float = 60.0
    idle_poll: float = 10.0
    send_timeout: float = 60.0
    stop_grace: float = 2.0
    read_limit: int = 10_000

    def backoff(self, failures: int, rng: random.Random, asked: float | None = None) -> float:
        """Full jitter: anywhere between 0 and the exponential bound, so that restarts spread out; not before
        the receiver's Retry-After (`asked`), but that is believed only up to the cap."""
        bound = min(self.backoff_cap, self.backoff_first * 2 ** min(failures - 1, 32))
        return max(rng.uniform(0, bound), min(asked or 0.0, self.backoff_cap))

    def until_resend(self, rng: random.Random) -> float:
        """75 to 95 % of `resend_every`: jittered, with room for the request itself."""
        return self.resend_every * rng.uniform(0.75, 0.95)


@dataclass(frozen=True)
class Timing:
    """The outside that a test may replace.

    `clock` is the wall clock, for what is written and for ages; the re-send goes by `monotonic`, since a wall
    clock that is set back an hour would let every alert look resolved.
    """

    clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    rng: random.Random = field(default_factory=random.Random)
