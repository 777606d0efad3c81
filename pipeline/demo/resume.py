"""A demo that goes on where the last one stopped: time has passed, and the fleet has not stood still.

What it reported meanwhile is written first, as it would wait in a Kafka that ran on; the pipeline, started
after that, finds it as its backlog, and the fleet reports on in real time.  Event time decides what fires and
when, so what the scenario promises holds across the interruption.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from pipeline.demo.folder import DemoFolder
from pipeline.errors import SettingsError
from pipeline.simulate import scenarios
from pipeline.simulate.scenarios import Play
from pipeline.simulate.simulator import Opens, PlayPace, Progress, run
from pipeline.simulate.writer import Sent

LONGEST = 6 * 3600
"""Seconds of event time that are made up for at most: more is a wait that nobody expects of a demo."""
GRID_MS = 1000


class ResumedDemo:
    """The rest of `play`, from `since_ms` on."""

    def __init__(self, folder: DemoFolder, play: Play, since_ms: int, now: float) -> None:
        self.folder, self.play = folder, play
        self.since_ms = since_ms // GRID_MS * GRID_MS  # what was on its way is sent again, and is known
        self.until_ms = max(self.since_ms, int(now * 1000) // GRID_MS * GRID_MS)
        self.fleet = play.fleet(mode=play.mode)

    @classmethod
    def of(cls, folder: DemoFolder, scenario: str | None, pace: float | None) -> ResumedDemo | None:
        """What the last demo in `folder` left; None when it is to be a new one.  Raises SettingsError."""
        kept = folder.remembered() if folder.keep else None
        if kept is None:
            return None
        if scenario not in (None, kept["scenario"]):
            raise SettingsError(
                f"--keep: {folder.shown} holds {kept['scenario']}, found --scenario {scenario}; leave one of the "
                "two out"
            )
        if pace is not None:
            raise SettingsError("--keep: goes on in real time, found a --speed or --duration; leave that out")
        play = Play(scenarios.load(kept["scenario"]), kept["start"], kept["speed"])
        since = max(kept["written_ms"], play.start * 1000)
        if time.time() - since / 1000 > LONGEST:
            raise SettingsError(
                f"--keep: the last demo in {folder.shown} stopped more than {LONGEST // 3600} hours of event time "
                "ago; start a new one without --keep"
            )
        return cls(folder, play, since, time.time())

    @property
    def caught_up_at(self) -> float:
        """The event time (epoch seconds) from which on all is as if nothing had been interrupted."""
        return max(float(self.play.end), self.until_ms / 1000)

    async def catch_up(self, bootstrap: str, opens: Opens, step: Callable[[str, int, int], None]) -> Sent:
        """Write what the fleet has reported meanwhile, as fast as the broker takes it."""
        what, total = "writing what the fleet reported meanwhile", (self.until_ms - self.since_ms) // 1000
        step(what, 0, total)
        for at in range(self.play.start * 1000, self.since_ms, GRID_MS):
            self.fleet.step(at, at + GRID_MS)  # made and dropped: queues and counters remember

        def progress(sent: Sent) -> None:
            self.folder.remember(
                self.play, sent.event_time_ms
            )  # a second interruption must not send it twice
            step(what, max(0, sent.event_time_ms - self.since_ms) // 1000, total)

        async with opens(bootstrap) as out:
            await run(self.fleet, out, self.since_ms, self.until_ms, None, progress)
            return out.sent

    async def go_on(self, bootstrap: str, opens: Opens, progress: Progress) -> Sent:
        """Report on in real time, until cancelled."""
        pace = PlayPace(self.until_ms, 1.0, self.until_ms / 1000)
        async with opens(bootstrap) as out:
            await run(self.fleet, out, self.until_ms, None, pace, progress)
            return out.sent
