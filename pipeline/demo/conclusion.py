"""The end of the demo in words: what had to fire and did, where the data is, what to try next."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from pipeline.catalog import Catalog
from pipeline.demo.play_result import PlayResult, Told
from pipeline.serve.supervisor import split_address
from pipeline.serve.terminal import STYLES, about, add, clean, duration, equation, plain_table, quantity
from pipeline.views.published import published_tables

WIDE_SUMMARY = 104
"""Columns from which the table has room for clause and delivery."""

SERVERS = {
    "board": ("Board", "http://{host}:{port}/"),
    "door": (
        "SQL door",
        "mysql -h {host} -P {port} -u demo gigawatch -e "
        "'SELECT fired_at, severity, alertname, about, observed, bound, unit FROM alerts_open'",
    ),
}
"""What each server is called, and one line to paste."""

QUESTIONS = {
    "alerts": "SELECT time, alertname, clause, state, observed, bound, unit FROM alerts ORDER BY time",
    "gpu_15m": "SELECT window_start, region, sum(gpus) AS gpus FROM gpu_15m GROUP BY ALL ORDER BY ALL",
}
"""What to ask next, by the view that answers."""


def summary_of(result: PlayResult, data: Path, report: Path | None, width: int) -> RenderableType:
    """What happened, what had to fire and did, what did not, and where the data is."""
    play, status = result.play, result.status
    verdict = (
        Text("Exactly the promised alerts came.", "bold green")
        if result.agrees
        else Text("Not exactly the promised alerts came: see below.", "bold red")
    )
    parts: list[RenderableType] = [
        Text(f"{play.scenario.title}: {play.scenario.scenario} is over", "bold"),
        Text(" ".join(play.scenario.text.split())),
        Text(""),
        verdict,
        _told_table(result, width),
    ]
    parts += [Text(f"unexpected: {_surprise(found)}", "red") for found in result.comparison.unexpected]
    parts += [
        Text(""),
        Text(f"Events     {equation(status)}: every one is accounted for"),
        Text(f"Pace       {result.rate:,.0f} events/s"),
        Text(f"Delays     {_delays(result)}"),
        Text(f"Data       {data}/history (raw rows) and {data}/rollups: Parquet that any tool reads"),
        Text(
            f"Contract   {data}/contracts/{play.scenario.scenario}.yaml; pipeline's log {data}/pipeline.log"
        ),
        *([Text(f"Report     {report}")] if report else []),
    ]
    return Group(*parts)


def addresses(servers: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    """(what, one line to paste) for each server of a status, or why it is not open."""
    found = []
    for command, server in servers.items():
        what, line = SERVERS[command]
        if server["address"]:
            host, port = split_address(server["address"])
            found.append((what, line.format(host=host, port=port)))
        else:
            found.append((what, f"not open: {clean(server['error'] or 'not yet')}"))
    return found


def published(data: Path, catalog: Catalog) -> set[str]:
    """The views of `QUESTIONS` of which anything is published."""
    roots = {table.view: data / table.root for table in published_tables(catalog)}
    return {view for view in QUESTIONS if next(roots[view].rglob("*.parquet"), None)}


def try_next(data: Path, views: Container[str] = tuple(QUESTIONS)) -> list[str]:
    """Commands that show something on the data of a demo; questions only about `views`, which are published."""
    command, at = _command(), shlex.quote(str(data))
    asked = (query for view, query in QUESTIONS.items() if view in views)
    return [f"{command} status --data {at}", *(f'{command} sql --data {at} "{query}"' for query in asked)]


def _command() -> str:
    """How this program is called here: by name where it is on the path, else as it was."""
    called = Path(sys.argv[0])
    return (
        "gigawatch" if shutil.which("gigawatch") or called.name != "gigawatch" else shlex.quote(str(called))
    )


def _told_table(result: PlayResult, width: int) -> RenderableType:
    """Each promised alert beside what came; clause and delivery only where there is room."""
    if not result.told:
        return Text("Nothing had to fire: every promise was kept.")
    times = ("began", "fired", "took", "resolved")
    wide = ("delivered",) if width >= WIDE_SUMMARY else ()
    table = plain_table("", "had to fire", "on", *times, *wide, right=times)
    for told in result.told:
        promised, known = told.promised, told.promised.onset >= 0
        name = Text(promised.alertname) + Text(f" {promised.clause}" if wide else "", "dim")
        add(
            table,
            Text("missing", STYLES["firing"]) if told.reason else Text("ok", STYLES["ok"]),
            name,
            about(promised.by).rpartition("=")[2] if promised.by else "all",
            duration(promised.onset) if known else "before",
            "never" if told.fired is None else duration(told.fired),
            "-" if told.took is None or not known else duration(told.took),
            "-" if told.alert is None else "still on" if told.resolved is None else duration(told.resolved),
            *([_delivered(told, result)] if wide else ()),
        )
    reasons = [
        Text(f"missing: {told.promised.alertname} {told.promised.clause}: {told.reason}", STYLES["firing"])
        for told in result.told
        if told.reason
    ]
    note = Text("Times are event time since the start of the scenario; a clause waits as long as the contract "
                "says before it calls anybody.", "dim")  # fmt: skip
    return Group(table, *reasons, note)


def _delivered(told: Told, result: PlayResult) -> Text:
    if told.delivered:
        return Text("yes")
    return Text("earlier") if told.alert and result.went_on else Text("no", STYLES["firing"])


def _surprise(found: dict[str, Any]) -> str:
    return clean(f"{found['alertname']} {found['clause']} on {about(found['labels'])}: {found['reason']}")


def _delays(result: PlayResult) -> str:
    first = result.first_alert_after
    begin = "" if first is None else f"first alert {duration(round(first))} after the pipeline's start; "
    if result.accelerated:
        return f"{begin}delays of an accelerated run ({result.play.speed:.3g} x) are not meaningful: try --speed 1"
    fresh, decision = result.status["freshness_s"], result.status["decision_delay_s"]
    return f"{begin}freshness p99 {quantity(fresh['p99'], 's')}, decision delay p99 {quantity(decision['p99'], 's')}"
