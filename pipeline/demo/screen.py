"""What the demo shows: a full screen while it plays on a terminal, lines otherwise, and the summary.

`dashboard` turns a view into something Rich can draw; `Screen` decides where that goes.
"""

from __future__ import annotations

import time
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, SpinnerColumn, Task, TaskID, TextColumn
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pipeline.demo.conclusion import addresses, summary_of, try_next
from pipeline.demo.play_result import PlayResult
from pipeline.demo.receiver import ReceivedAlert
from pipeline.ledger.status import least_watermark
from pipeline.serve.terminal import (
    STYLES,
    about,
    add,
    clean,
    duration,
    equation,
    plain_table,
    quantity,
    standing,
    standing_table,
)
from pipeline.simulate.scenarios import Play, Scenario
from pipeline.simulate.writer import Sent

WIDE = 170
"""Columns from which the standing and the alerts stand side by side."""
PLAIN_WIDTH = 110


@dataclass(slots=True)
class View:
    """What there is to show: the play, the pipeline's last status, what was sent and what was delivered."""

    play: Play
    began: float
    status: dict[str, Any] | None = None
    sent: Sent = field(default_factory=Sent)
    deliveries: tuple[ReceivedAlert, ...] = ()
    ended: float | None = None

    def note_sent(self, sent: Sent) -> None:
        """More is written."""
        self.sent = sent

    def note(self, status: dict[str, Any] | None, deliveries: Sequence[ReceivedAlert]) -> None:
        """What the pipeline says, and what has arrived, as of now."""
        self.status, self.deliveries = status, tuple(deliveries)

    @property
    def event_time(self) -> float:
        """How far the scenario has come, epoch seconds of event time."""
        return self.sent.event_time_ms / 1000

    @property
    def elapsed(self) -> float:
        """Seconds of wall clock since the play began, until its last event was written."""
        if self.ended is None and self.event_time >= self.play.end:
            self.ended = time.time()
        return (self.ended or time.time()) - self.began

    @property
    def at(self) -> float:
        """Seconds of event time since the play's start, 0 before it."""
        return max(0.0, self.event_time - self.play.start)

    @property
    def lag(self) -> int:
        """Records that wait in Kafka."""
        return sum(sum(parts.values()) for parts in self.status["lag"].values()) if self.status else 0

    @property
    def behind(self) -> float | None:
        """Seconds of event time between what was sent last and what is evaluated."""
        reached = least_watermark(self.status) if self.status else None
        return None if reached is None else max(0.0, self.event_time - reached)

    @property
    def story(self) -> str:
        """What the scenario is doing, in its own words."""
        told = [e for e in self.play.scenario.effects if e.text and e.start <= self.at]
        return max(told, key=lambda effect: effect.start).text if told else "Everything as promised so far."


def offset(seconds: float) -> str:
    """Event time since the play's start: `+16m20s`."""
    return f"{'+' if seconds >= 0 else ''}{duration(round(seconds))}"


def dashboard(view: View, width: int, height: int) -> RenderableType:
    """The whole screen, at most `width` by `height`; the worst stays visible where room is short."""
    head = [_title(view), _clock(view, width), Text(view.story, "italic", no_wrap=True, overflow="ellipsis")]
    if view.status is None:
        return Group(*head, Text("waiting for the pipeline …", "dim"))
    head += [Text(""), *_figures(view, width), Text("")]
    foot = _foot(view, width)
    left = height - len(head) - 2  # the foot, and the last line, which a terminal scrolls for
    lines, alerts = standing(view.status), alert_rows(view)
    if width >= WIDE:
        grid = Table.grid(padding=(0, 3))
        grid.add_row(standing_table(lines, left - 2), alert_table(view, alerts, left - 2))
        return Group(*head, grid, foot)
    mine = max(3, min(len(alerts), (left - 5) // 2))
    rest = left - 5 - mine
    return Group(*head, standing_table(lines, rest), Text(""), alert_table(view, alerts, mine), foot)


def _foot(view: View, width: int) -> Text:
    """How it ends, and where else it can be seen, as far as there is room."""
    line = "Ctrl-C stops everything; the data stays."
    for what, where in addresses((view.status or {}).get("servers") or {}):
        more = f"{line}   {what} {where}"
        line = more if len(more) <= width else line
    return Text(line, "dim", no_wrap=True, overflow="ellipsis")


def _title(view: View) -> Text:
    scenario = view.play.scenario
    name = Text(f"Gigawatch demo  {scenario.scenario}  ", "bold", no_wrap=True, overflow="ellipsis")
    return name + Text(scenario.title)


def _clock(view: View, width: int) -> RenderableType:
    """Event time, how much of the scenario has been played, and how fast."""
    play, at = view.play, datetime.fromtimestamp(max(view.event_time, view.play.start), UTC)
    speed = "real time" if play.speed == 1 else f"{play.speed:.3g} x real time"
    words = f"event time {at:%H:%M:%S} UTC  {offset(view.at)} of {duration(play.scenario.length)}  {speed} "
    if view.event_time > play.end:
        return Text(f"event time {at:%H:%M:%S} UTC; the scenario is over, the fleet reports on in real time")
    grid = Table.grid(padding=0)
    bar = ProgressBar(play.scenario.length, view.at, width=max(8, width - len(words) - 2))
    grid.add_row(words, bar)
    return grid


def _figures(view: View, width: int) -> list[Text]:
    assert view.status is not None
    status, behind = view.status, view.behind
    lag = Text(f"{view.lag:,}", "yellow" if view.lag > 10_000 else "bold")
    age = max(0.0, time.time() - datetime.fromisoformat(status["written_at"]).timestamp())
    evaluated = "not yet" if behind is None else f"{behind:.0f}s behind"
    firing = sum(row["state"] == "firing" for row in alert_rows(view))
    gap = "   " if width >= 90 else "  "
    figures = Text.assemble(
        (f"{status['rate_events_per_s']:,.0f}", "bold"), f" events/s{gap}lag ", lag, f"{gap}evaluated ",
        (evaluated, "bold"), f"{gap}data ", (f"{age:.0f}s", "bold"), f" old{gap}",
        (str(firing), "bold red" if firing else "bold"), " firing",
    )  # fmt: skip
    total = Text(equation(status))
    if total.cell_len > width:
        total = Text(equation(status).replace(" + 0 duplicate", "").replace("-lettered", " letters"))
    for line in (figures, total):
        line.no_wrap, line.overflow = True, "ellipsis"
    return [figures, total]


def alert_rows(view: View) -> list[dict[str, Any]]:
    """Alerts newest first, those that are pending before them; Watchdog is not news."""
    assert view.status is not None
    found = [alert for alert in view.status["alerts"] if alert["alertname"] != "Watchdog"]
    rows = [{**alert, "at": alert["resolved_at"] or alert["fired_at"]} for alert in found]
    rows.sort(key=lambda row: str(row["at"]), reverse=True)
    pending: list[dict[str, Any]] = [
        {"state": "pending", "alertname": line.alertname, "clause": line.clause, "about": line.about,
         "at": line.since, "observed": line.observed, "bound": line.bound, "unit": line.unit, "labels": {}}
        for line in standing(view.status) if line.mood == "pending"
    ]  # fmt: skip
    return [*pending, *rows]


def alert_table(view: View, rows: Sequence[dict[str, Any]], limit: int) -> Table:
    """State, since when in event time, what on what, and whether the receiver was told of just that."""
    table = plain_table("", "since", "alert", "on", "observed", "told", title="Alerts", right=("observed",))
    for row in rows[:limit]:
        heard = [d.status for d in view.deliveries if row["labels"] and d.is_of(row["labels"])]
        since = datetime.fromisoformat(row["at"]).timestamp() - view.play.start
        add(
            table,
            Text(row["state"], STYLES[row["state"]]),
            offset(since),
            Text(row["alertname"]),
            row.get("about", about(row["labels"])).partition("=")[2] or "all",
            quantity(row["observed"], row["unit"]),
            "" if row["state"] == "pending" else "yes" if row["state"] in heard else "not yet",
        )
    if not rows:
        add(table, "", "", Text("none so far", "dim"))
    return table


class _Bar(BarColumn):
    """A bar for steps that can be counted, nothing for the others."""

    def render(self, task: Task) -> Any:
        return super().render(task) if task.total and task.total > 1 else Text("")


class Screen:
    """Where the demo is shown: `live` on a terminal, line by line otherwise."""

    def __init__(self, live: bool) -> None:
        self._live = live
        self._console = Console() if live else Console(width=PLAIN_WIDTH, force_terminal=False)
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._step = ""
        self._display: Live | None = None
        self._over = False
        self._states: dict[frozenset[tuple[str, str]], str] = {}

    def title(self, scenario: Scenario) -> None:
        """The first words: what is going to be played."""
        self._print(Text(f"Gigawatch demo: {scenario.scenario}. {scenario.title}.", "bold"))

    def step(self, what: str, done: int, total: int) -> None:
        """A step of the start: `done` of `total`, 0 of 0 where that is not known."""
        new, self._step = what != self._step, what
        if not self._live:
            if new:
                self._print(Text(f"  {what}"))
            return
        if self._progress is None:
            columns = (
                SpinnerColumn(finished_text="[green]ok[/]"),
                TextColumn("{task.description}"),
                _Bar(30),
            )
            self._progress = Progress(*columns, console=self._console)
            self._progress.start()
        if new:
            self._finish_step()
            self._task = self._progress.add_task(what, total=total or None)
        elif self._task is not None:
            self._progress.update(self._task, completed=done, total=total or None)

    def opened(self, servers: Mapping[str, Mapping[str, Any]]) -> None:
        """Where the board and the SQL door are, each as one line to paste."""
        self._end_progress()
        for what, line in addresses(servers):
            self._console.print(Text(f"  {what:9} {line}", "bold"), soft_wrap=True)

    def show(self, view: View) -> None:
        """The play as it is now."""
        self._end_progress()
        if not self._live:
            return
        if self._display is None:
            self._display = Live(console=self._console, auto_refresh=False, screen=not self._over)
            self._display.start()
        size = self._console.size
        content = _goes_on(view) if self._over else dashboard(view, size.width, size.height)
        self._display.update(content, refresh=True)

    def delivered(self, delivery: ReceivedAlert, play: Play) -> None:
        """One alert reached the receiver; without a terminal each change of state is a line."""
        key = frozenset((k, v) for k, v in delivery.labels.items() if k != "severity")
        if self._states.get(key) == delivery.status:
            return
        self._states[key] = delivery.status
        if not self._live and delivery.alertname != "Watchdog":
            at = offset(delivery.happened_at - play.start)
            summary = delivery.annotations.get("summary") or about(delivery.labels)
            line = f"{at:>9}  {delivery.status:8}  {delivery.alertname}: {summary}"
            self._print(Text(clean(line), STYLES.get(delivery.status, "")))

    def summary(self, result: PlayResult, data: Path, report: Path | None, views: Container[str]) -> None:
        """The end of the play, on the normal screen; what follows is shown below it.  `views`: what is published."""
        self._end_display()
        self._over = True
        self._print(Text(""))
        self._print(summary_of(result, data, report, self._console.width))
        self._print(Text("\nTry next", "bold"))
        for line in try_next(data, views):  # wrapped by the terminal: it has to stay one line to be pasted
            self._console.print(Text(f"  {line}"), soft_wrap=True)

    def note(self, text: str) -> None:
        """A remark on what is being done."""
        self._end_progress()
        self._end_display()
        self._print(Text(text, "dim"))

    def close(self) -> None:
        """Give the terminal back."""
        self._end_progress()
        self._end_display()

    def _print(self, content: RenderableType) -> None:
        self._console.print(content, soft_wrap=not self._live)

    def _finish_step(self) -> None:
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=1, total=1)
            self._task = None

    def _end_progress(self) -> None:
        if self._progress is not None:
            self._finish_step()
            self._progress.stop()
            self._progress = None

    def _end_display(self) -> None:
        if self._display is not None:
            self._display.stop()
            self._display = None


def _goes_on(view: View) -> RenderableType:
    """The lines under the summary while the demo stays up."""
    if view.status is None:
        return Text("")
    firing = sum(row["state"] == "firing" for row in alert_rows(view))
    at = datetime.fromtimestamp(view.event_time, UTC)
    return Text(
        f"\nIt goes on in real time: event time {at:%H:%M:%S} UTC, {view.status['rate_events_per_s']:,.0f} events/s, "
        f"{view.status['events']['in']:,} in, {firing} firing. Ctrl-C stops everything.",
        "dim",
    )
