"""The demo: broker, pipeline and a scenario on this machine, shown while it plays, compared with its promises.

    folder → Kafka → topics → receiver → contract → pipeline → play → compare → summary

Each is started when the one before it stands, and stopped in the opposite order, whatever happens.  The
pipeline is `gigawatch run` in a process of its own and the broker the real one: what is seen here is what a
user has, but for its settings, which seal and publish often and let alerts of any age page.
"""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from pipeline import catalog
from pipeline.broker.kafka import HOST, EmbeddedKafka, port_or_free
from pipeline.demo.conclusion import QUESTIONS, published
from pipeline.demo.folder import DemoFolder
from pipeline.demo.pipeline_process import PipelineProcess
from pipeline.demo.play_result import PlayResult, outcome
from pipeline.demo.receiver import ReceivedAlert, Receiver
from pipeline.demo.resume import ResumedDemo
from pipeline.demo.scraping import scraping
from pipeline.demo.screen import Screen, View
from pipeline.errors import SettingsError
from pipeline.ledger import status
from pipeline.rollup.grid import DAY
from pipeline.simulate import scenarios
from pipeline.simulate.scenarios import Play
from pipeline.simulate.simulator import Opens, simulate
from pipeline.simulate.writer import Sent, writer
from pipeline.stream.topic_admin import create_topics, default_specs

SCENARIO = "peak-season"
DURATION = 120.0
PARTITIONS = 4
LOOK_EVERY = 0.25
BOARD, DOOR = 8420, 3306
"""Their usual ports; where one is taken, as by a MySQL, a free one serves."""
SETTINGS = {
    "seal_every": "10",
    "publish_every": "2",
    # Event time of an accelerated play ends before now: its first alerts are as old as the scenario is long.
    "page_max_age": str(30 * DAY),
    "alerts_topic": "gigawatch.alerts",
}
SETTLED_WITHIN = 20
"""Seconds of event time before the play's end that must be evaluated: the steady tail is longer."""
PATIENCE = 60.0
"""Seconds for which watermarks may stand still, and that telling and sealing may take after them."""
INTERRUPTED = 130
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, a supervisor, and a terminal that is closed."""


@dataclass(frozen=True)
class DemoOptions:
    """`duration` (s) and `speed` exclude each other; `stay`: go on after the play, until Ctrl-C.

    `keep`: go on with what the last demo in `data` left, which says the scenario, too.
    """

    scenario: str | None = None
    data: Path = Path("gigawatch-demo")
    duration: float | None = None
    speed: float | None = None
    port: int = 0
    report: Path | None = None
    stay: bool = False
    keep: bool = False


def run_demo(options: DemoOptions, screen: Screen) -> int:
    """The demo from start to end; 0 when exactly the promised alerts came, 1 when not, 130 after Ctrl-C.

    Raises GigawatchError.
    """
    if not options.keep:
        _planned(options)  # refused before all else
    _refuse_unwritable(options.report)
    demo = Demo(options, screen)
    with _interruptible(), ExitStack() as running:
        running.callback(screen.close)
        try:
            demo.begin(running)
            asyncio.run(demo.play_it())
        except KeyboardInterrupt:
            screen.note("interrupted")
    return demo.code


def _planned(options: DemoOptions) -> Play:
    """The play from now on.  Raises ScenarioError."""
    duration = DURATION if options.duration is None and options.speed is None else options.duration
    scenario = scenarios.load(options.scenario or SCENARIO)
    return scenarios.plan(scenario, time.time(), speed=options.speed, duration=duration)


class Demo:
    """One demo under way; `code` is what the process should end with."""

    def __init__(self, options: DemoOptions, screen: Screen) -> None:
        self.options, self.screen = options, screen
        self.code = INTERRUPTED
        self.catalog = catalog.load()
        self._told = 0

    def begin(self, running: ExitStack) -> None:
        """Start everything but the play; `running` stops it in the opposite order."""
        screen, options = self.screen, self.options
        running.callback(screen.note, "stopped; the data stays where it is")
        self.folder = running.enter_context(DemoFolder(options.data, options.keep))
        self.resumed = ResumedDemo.of(self.folder, options.scenario, options.speed or options.duration)
        screen.title(
            self.resumed.play.scenario if self.resumed else scenarios.load(options.scenario or SCENARIO)
        )
        self.kafka = running.enter_context(
            EmbeddedKafka(self.folder.kafka, port=options.port, progress=screen.step)
        )
        screen.step("making topics", 0, 0)
        create_topics(self.kafka.bootstrap, default_specs(self.catalog.topics, PARTITIONS))
        self.receiver = running.enter_context(Receiver())
        self.play = self.resumed.play if self.resumed else _planned(options)
        self.play.write_contract(self.folder.contracts)
        self.before = (status.read(self.folder.data) or {"events": {"in": 0}})["events"]["in"]
        if self.resumed:
            asyncio.run(self.resumed.catch_up(self.kafka.bootstrap, self._opens, screen.step))
        self.pipeline = running.enter_context(self._pipeline())
        self.started = time.time()
        screen.step("starting the pipeline", 0, 0)
        self.pipeline.await_begun()
        screen.step("opening the board and the SQL door", 0, 0)
        screen.opened(self.pipeline.await_servers())
        running.callback(screen.note, "stopping the pipeline, then Kafka …")

    def _pipeline(self) -> PipelineProcess:
        arguments = [
            *("--bootstrap", self.kafka.bootstrap),
            *("--contract", str(self.folder.contracts)),
            *("--webhook", self.receiver.url),
            *("--board", f"{HOST}:{port_or_free(BOARD)}"),
            *("--door", f"{HOST}:{port_or_free(DOOR)}"),
        ]
        return PipelineProcess(self.folder.data, self.folder.log, arguments, SETTINGS)

    async def play_it(self) -> None:
        """Play the scenario and watch; when its end is evaluated, compare and tell; then end, or go on."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in ENDING:
            loop.add_signal_handler(number, stop.set)
        written = Sent(event_time_ms=self.resumed.until_ms) if self.resumed else Sent()
        self.view = View(self.play, time.time(), sent=written)
        playing = asyncio.create_task(self._simulate())
        try:
            await self._watch(stop, playing, self._settled())
            if stop.is_set():
                return
            self._tell()
            if self.options.stay:
                await self._watch(stop, playing, lambda: False)
        finally:
            playing.cancel()
            with suppress(asyncio.CancelledError):
                await playing
            # asyncio gives Ctrl-C back to Python: from here on it would interrupt the stopping
            for number in ENDING:
                loop.remove_signal_handler(number)
                signal.signal(number, signal.SIG_IGN)

    async def _simulate(self) -> Sent:
        """Play, and report on until cancelled: a fleet that stops with the scenario would be silence."""
        if self.resumed:
            return await self.resumed.go_on(self.kafka.bootstrap, self._opens, self.view.note_sent)
        return await simulate(
            self.kafka.bootstrap, self.play, mode=self.play.mode, linger=True, progress=self.view.note_sent,
            opens=self._opens,
        )  # fmt: skip

    @property
    def _opens(self) -> Opens:
        """How the fleet's telemetry gets to Kafka."""
        if self.play.scenario.exporters is None:
            return writer
        return scraping(self.play, self.catalog, self.folder.targets, self.screen.note)

    async def _watch(
        self, stop: asyncio.Event, playing: asyncio.Task[Sent], done: Callable[[], bool]
    ) -> None:
        """Look and show until `done` or `stop`.  Raises what ended the play or the pipeline."""
        while not stop.is_set() and not done():
            if playing.done():
                playing.result()
            self.pipeline.check()
            self._look()
            self.folder.remember(self.play, self.view.sent.event_time_ms)
            self.screen.show(self.view)
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), LOOK_EVERY)

    def _look(self) -> None:
        """What the pipeline says, and what was delivered since the last look."""
        heard: list[ReceivedAlert] = self.receiver.deliveries
        self.view.note(status.read(self.folder.data), heard)
        for delivery in heard[self._told :]:
            self._told += 1
            self.screen.delivered(delivery, self.play)

    def _settled(self) -> Callable[[], bool]:
        """Whether the play's end is evaluated, told and, if this is the end, readable; or nothing moves any more.

        The pipeline would seal when it is stopped, but not for long: twenty days of charges are 480 files.
        """
        end = self.resumed.caught_up_at if self.resumed else self.play.end
        sealed, segments, stood_at, since = self.options.stay, 0, 0.0, 0.0

        def settled() -> bool:
            nonlocal sealed, segments, stood_at, since
            found = self.view.status
            if found is None or self.view.event_time < end:
                since = time.monotonic()
                return False
            reached = status.least_watermark(found) or 0.0
            complete = reached >= end - SETTLED_WITHIN
            if reached != stood_at and not complete:
                stood_at, since = reached, time.monotonic()
            told = not any(row["destination"] == "webhook" for row in found["undelivered"])
            sealed = sealed or (complete and found["segments"] < segments)
            segments = found["segments"]
            readable = complete and len(self._published()) == len(QUESTIONS)
            return (readable and told and sealed) or time.monotonic() - since > PATIENCE

        return settled

    def _published(self) -> set[str]:
        return published(self.folder.data, self.catalog)

    def _tell(self) -> None:
        result = self._outcome()
        if self.options.report:
            self.options.report.write_text(json.dumps(result.report, indent=1, ensure_ascii=False), "utf-8")
        self.screen.summary(result, self.folder.shown, self.options.report, self._published())
        self.code = 0 if result.agrees else 1

    def _outcome(self) -> PlayResult:
        assert self.view.status is not None
        heard = self.receiver.deliveries
        first = next((d.received_at for d in heard if d.alertname != "Watchdog"), None)
        after = None if first is None else first - self.started
        events = self.view.status["events"]["in"] - self.before
        rate = events / max(self.view.elapsed, 1e-3)
        return outcome(self.play, self.view.status, heard, rate, after, went_on=self.resumed is not None)


def _refuse_unwritable(report: Path | None) -> None:
    """Say at once, and not after two minutes, that the report cannot be written."""
    if report is None:
        return
    try:
        with report.open("a"):
            pass
    except OSError as error:
        raise SettingsError(
            f"--report {report}: cannot be written ({error.strerror}); expected a file in a directory that exists"
        ) from error


@contextmanager
def _interruptible() -> Iterator[None]:
    """Each of ENDING interrupts like Ctrl-C, and only the first: a second would interrupt the stopping."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        for each in ENDING:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
