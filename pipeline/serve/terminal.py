"""A status as a terminal shows it: figures, topics, standing, alerts; worst first.

Used by `gigawatch status` and by the demo.  Everything that came from outside is made printable here: a label
must not draw on somebody's terminal.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from pipeline.rollup.grid import DAY

Status = Mapping[str, Any]
Mood = Literal["firing", "pending", "unknown", "ok"]

MOODS: tuple[Mood, ...] = ("firing", "pending", "unknown", "ok")
STYLES: Mapping[str, str] = {
    "firing": "bold red",
    "pending": "yellow",
    "unknown": "magenta",
    "ok": "green",
    "resolved": "green",
    "running": "green",
    "stopped": "dim",
}
DIMENSIONS = ("provider", "region", "site", "cluster", "sku", "queue", "workload_class", "topic", "feed")


@dataclass(frozen=True, slots=True)
class Line:
    """One row of the standing: a promise, on what, how it stands."""

    mood: Mood
    alertname: str
    clause: str
    about: str
    observed: float | None
    bound: float | None
    unit: str
    since: str


def stdout() -> Console:
    """Standard output: the terminal as wide as it is, and lines as long as they come for other programs."""
    return Console() if sys.stdout.isatty() else Console(width=1000)


def clean(text: object) -> str:
    """`text` with everything that could steer a terminal as a visible escape."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(text))


def quantity(value: float | None, unit: str) -> str:
    """A number with its unit as people say it: `640 GPUs`, `4m12s`, `0.82 MW`, `9.74M USD`."""
    if value is None:
        return "-"
    if unit == "s":
        return duration(value)
    if abs(value) >= 1e6:
        return f"{value / 1e6:,.2f}M {unit}"
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f} {unit}"
    return f"{value:,.3g} {unit}"


def duration(seconds: float) -> str:
    """`45s`, `4m12s`, `1h03m`, `3d04h`; `0.4s` below ten seconds where it matters."""
    if 0 < abs(seconds) < 10 and seconds != int(seconds):
        return f"{seconds:.1f}s"
    sign, whole = ("-" if seconds < 0 else ""), round(abs(seconds))
    days, rest = divmod(whole, DAY)
    hours, rest = divmod(rest, 3600)
    minutes, left = divmod(rest, 60)
    if days:
        return f"{sign}{days}d{hours:02d}h"
    if hours:
        return f"{sign}{hours}h{minutes:02d}m"
    return f"{sign}{minutes}m{left:02d}s" if minutes else f"{sign}{left}s"


def clock(at: str | None) -> str:
    """The time of day (UTC) of an RFC 3339 instant."""
    return "-" if at is None else f"{datetime.fromisoformat(at):%H:%M:%S}"


def about(labels: Mapping[str, str]) -> str:
    """What an alert is about, the telling dimensions only: `region=eu-west`."""
    telling = [f"{name}={labels[name]}" for name in DIMENSIONS if name in labels]
    if "cluster" in labels:
        telling = [t for t in telling if t.startswith(("cluster=", "queue="))]
    return clean(" ".join(telling) or "everything it covers")


def firing(status: Status) -> list[Mapping[str, Any]]:
    """The alerts that fire now, newest first."""
    alerts = [alert for alert in status["alerts"] if alert["state"] == "firing"]
    return sorted(alerts, key=lambda alert: str(alert["fired_at"]), reverse=True)


def standing(status: Status) -> list[Line]:
    """Every promise and how it stands, worst first; a breach that does not fire yet is pending."""
    loud = {_key(a["alertname"], a["clause"], a["labels"]) for a in firing(status)}
    lines = []
    for row in status["standing"]:
        by = {name: value for name, value in json.loads(row["by_values"]).items() if value}
        fires = any(k[:2] == (row["alertname"], row["clause"]) and set(by.items()) <= k[2] for k in loud)
        calm: Mood = {"breach": "pending", "ok": "ok"}.get(row["state"], "unknown")  # type: ignore[assignment]
        lines.append(
            Line(
                "firing" if fires else calm,
                row["alertname"],
                row["clause"],
                about(by),
                row["observed"],
                row["bound"],
                row["unit"],
                row["since"],
            )
        )
    return sorted(lines, key=lambda line: (MOODS.index(line.mood), line.clause, line.alertname))


def _key(
    alertname: str, clause: str, labels: Mapping[str, str]
) -> tuple[str, str, frozenset[tuple[str, str]]]:
    return alertname, clause, frozenset(labels.items())


def plain_table(*columns: str, title: str = "", right: Iterable[str] = (), keep: Iterable[str] = ()) -> Table:
    """A table without lines, for rows by `add`; where room is short, cells are cut and never wrapped.

    `right`: columns of numbers; they, `keep` and the nameless ones are cut last.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), title=title or None, title_justify="left",
                  title_style="bold", header_style="dim", expand=False)  # fmt: skip
    aligned = set(right)
    kept = {"", *aligned, *keep}
    for name in columns:
        table.add_column(
            name, justify="right" if name in aligned else "left", no_wrap=name in kept, overflow="ellipsis"
        )
    return table


def add(table: Table, *cells: str | Text) -> None:
    """One row; each cell on one line."""
    texts = [cell if isinstance(cell, Text) else Text(cell) for cell in cells]
    for text in texts:
        text.no_wrap, text.overflow = True, "ellipsis"
    table.add_row(*texts)


def standing_table(lines: Sequence[Line], limit: int | None = None) -> Table:
    """Clause, observed, bound; what does not fit into `limit` rows is counted in the last one."""
    table = plain_table(
        "", "clause", "on", "observed", "bound", title="Contract", right=("observed", "bound")
    )
    shown = lines if limit is None or len(lines) <= limit else lines[: limit - 1]
    for line in shown:
        add(
            table,
            Text(line.mood, STYLES[line.mood]),
            Text(clean(line.clause)) + Text(f" {line.alertname}", "dim"),
            Text(line.about.partition("=")[2] or "all"),
            Text(quantity(line.observed, line.unit), STYLES[line.mood] if line.mood != "ok" else ""),
            Text(quantity(line.bound, line.unit), "dim"),
        )
    if len(shown) < len(lines):
        rest = lines[len(shown) :]
        worst = rest[0].mood
        what = "ok" if worst == "ok" else f"{worst} or better"
        add(table, "", Text(f"and {len(rest)} more, {what}", "dim"))
    return table


def topics_table(status: Status) -> Table:
    """Each topic with its fates, its lag and how far it has been evaluated."""
    fates = ("in", "aggregated", "duplicate", "quarantined", "dead_lettered")
    table = plain_table(
        "topic", "in", "aggregated", "duplicate", "quarantined", "dead-lettered", "next offset", "lag", "evaluated to",
        right=("in", "aggregated", "duplicate", "quarantined", "dead-lettered", "next offset", "lag"),
    )  # fmt: skip
    for topic in sorted({*status["by_topic"], *status["lag"]}):
        counts = status["by_topic"].get(topic, {})
        lag = sum(status["lag"].get(topic, {}).values())
        cells = [f"{counts.get(fate, 0):,}" for fate in fates]
        offset = f"{sum(status['offsets'].get(topic, {}).values()):,}"
        add(table, 
            clean(topic), *cells, offset, Text(f"{lag:,}", "yellow" if lag else ""),
            clock(status["watermarks"].get(topic)),
        )  # fmt: skip
    return table


def reasons_table(status: Status) -> Table | None:
    """Why events were not aggregated, most frequent first; None when all were."""
    found = [
        (n, topic, reason)
        for topic, counts in status["by_topic"].items()
        for reason, n in counts.get("reasons", {}).items()
    ]
    if not found:
        return None
    table = plain_table("events", "topic", "reason", title="Not aggregated, and why", right=("events",))
    for n, topic, reason in sorted(found, reverse=True)[:20]:
        add(table, f"{n:,}", clean(topic), clean(reason))
    return table


def aside_table(status: Status) -> Table | None:
    """Which measures of aggregated events were set aside, most frequent first; None when none was."""
    found = [
        (n, topic, reason)
        for topic, counts in status["by_topic"].items()
        for reason, n in counts.get("aside_reasons", {}).items()
    ]
    if not found:
        return None
    title = "Measures set aside, and why: their events count without them"
    table = plain_table("events", "topic", "reason", title=title, right=("events",))
    for n, topic, reason in sorted(found, reverse=True)[:20]:
        add(table, f"{n:,}", clean(topic), clean(reason))
    return table


def alerts_table(alerts: Sequence[Mapping[str, Any]], title: str) -> Table:
    """Alerts as rows: what, on what, since when, how bad."""
    table = plain_table("severity", "alert", "on", "observed", "bound", "fired at (UTC)", title=title)
    for alert in alerts:
        add(
            table,
            Text(clean(alert["labels"].get("severity", "")), STYLES["firing"]),
            Text(alert["alertname"]) + Text(f" {clean(alert['clause'])}", "dim"),
            about(alert["labels"]),
            quantity(alert["observed"], alert["unit"]),
            "-" if alert["observed"] is None else quantity(alert["bound"], alert["unit"]),
            f"{datetime.fromisoformat(alert['fired_at']):%Y-%m-%d %H:%M:%S}",
        )
    return table


def undelivered_table(status: Status) -> Table | None:
    """What waits for each destination; None when everything was delivered."""
    if not status["undelivered"]:
        return None
    table = plain_table("destination", "waiting", "refused", "oldest", "last error", title="Not delivered yet",
                        right=("waiting", "refused"))  # fmt: skip
    for row in status["undelivered"]:
        error = clean(row["last_error"] or "")
        add(
            table, row["destination"], f"{row['count']:,}", f"{row['refused']:,}", clock(row["oldest"]), error
        )
    return table


def equation(status: Status) -> str:
    """Every event and its one fate, as a sum that must come out."""
    e = status["events"]
    parts = [
        f"{e['aggregated']:,} aggregated", f"{e['duplicate']:,} duplicate", f"{e['quarantined']:,} quarantined",
        f"{e['dead_lettered']:,} dead-lettered",
    ]  # fmt: skip
    return f"{e['in']:,} in = " + " + ".join(parts)


def delays_text(status: Status) -> str:
    """The two measured delays, p50 and p99."""

    def pair(found: Mapping[str, float | None]) -> str:
        values = [found["p50"], found["p99"]]
        return " / ".join("-" if value is None else duration(value) for value in values)

    return f"freshness {pair(status['freshness_s'])}, decision delay {pair(status['decision_delay_s'])} (p50 / p99)"


def status_page(status: Status, head: Sequence[Text]) -> RenderableType:
    """All of it, under the lines of `head`."""
    parts: list[RenderableType] = [*head, Text(f"{equation(status)}; {status['rate_events_per_s']:,.0f}/s")]
    parts += [Text(delays_text(status)), Text(""), topics_table(status)]
    if (reasons := reasons_table(status)) is not None:
        parts += [Text(""), reasons]
    if (aside := aside_table(status)) is not None:
        parts += [Text(""), aside]
    if lines := standing(status):
        parts += [Text(""), standing_table(lines)]
    parts += [Text(""), alerts_table(firing(status), "Firing")]
    if (waiting := undelivered_table(status)) is not None:
        parts += [Text(""), waiting]
    return Group(*parts)
