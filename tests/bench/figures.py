"""The figures as tables: for the terminal, and for docs/performance.md.

    python tests/bench/figures.py [build/bench.json]

puts the figures of a run into docs/performance.md, between the marks: the table, and above it, unseen by the
reader, the figures it was made from.  A test makes the table again from those, so the page cannot drift.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
PANELS_BEGIN, PANELS_END = "<!-- panels: begin -->", "<!-- panels: end -->"
_DATA = "<!-- figures of build/bench.json:\n"
_KEPT = 4
"""Significant digits on the page: more would be noise."""

ROWS: tuple[tuple[str, str, str, str], ...] = (
    # key, what, unit, goal
    ("faust_events_per_s", "plain Faust agent that only reads", "events/s", ""),
    ("getmany_events_per_s", "bare aiokafka `getmany`", "events/s", ""),
    ("ingest_events_per_s", "the pipeline, one sample a message", "events/s", ""),
    ("ingest_to_faust", "against the plain Faust agent", "times", "≥ 10"),
    ("ingest_to_getmany", "against bare `getmany`", "times", "≥ 0.25"),
    ("ingest_cpu_us_per_event", "CPU of the whole process", "µs/event", ""),
    ("ingest_peak_rss_mb", "peak memory", "MB", ""),
    ("one_percent_bad_ratio", "with 1 % bad records, against clean", "times", "≥ 0.8"),
    ("array_samples_per_s", "the pipeline, arrays of 72", "samples/s", ""),
    ("arrays_to_singles", "against one sample a message", "times", "≥ 2"),
    ("real_time_samples_per_s", "real time: samples sent", "samples/s", "20,000"),
    ("freshness_p50_s", "freshness, median", "s", ""),
    ("freshness_p99_s", "freshness, 99th percentile", "s", "≤ 2"),
    ("decision_delay_p50_s", "decision delay, median", "s", ""),
    ("decision_delay_p99_s", "decision delay, 99th percentile", "s", "≤ 20"),
    ("real_time_cpu_cores", "CPU in real time", "cores", ""),
    ("peak_rss_mb", "peak memory in real time", "MB", "≤ 1,500"),
    ("backlog_events_per_s", "start on a backlog", "events/s", ""),
    ("backlog_peak_rss_mb", "peak memory until caught up", "MB", "≤ 1,500"),
    ("history_bytes_per_event", "raw history, sealed and compacted", "bytes/event", ""),
    ("panels_day_p95_ms", "the slowest panel over a day, 95th percentile", "ms", "≤ 150"),
    ("panels_day_typical_p95_ms", "the median of all panels' 95th percentiles", "ms", ""),
    ("panels_day_cpu_ms", "CPU of the door for every panel once", "ms", ""),
    ("panels_all_days_p95_ms", "the slowest panel over all days, 95th percentile", "ms", "≤ 1,500"),
    ("panels_all_days_typical_p95_ms", "the median of all panels' 95th percentiles", "ms", ""),
    ("panels_all_days_cpu_ms", "CPU of the door for every panel once", "ms", ""),
    ("board_first_byte_p95_ms", "the board's first byte, 95th percentile", "ms", "≤ 50"),
    ("panels_samples_per_s", "samples that the pipeline took meanwhile", "samples/s", "20,000"),
    ("panels_days", "days of history", "", ""),
    ("panels_history_gb", "its size", "GB", ""),
    ("panels_history_files", "its files", "", ""),
)


def text(value: float) -> str:
    """A figure with as many digits as it is worth."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.{_KEPT}g}" if value >= 10 else f"{value:.2f}"


def rows(found: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """(what, figure, unit, goal) of every figure that was taken."""
    for key, what, unit, goal in ROWS:
        if key in found:
            yield what, text(found[key]), unit, goal


def tables(found: Mapping[str, Any]) -> Iterator[Table]:
    """For the terminal."""
    main = Table("what", "figure", "unit", "goal", title=f"Gigawatch {found.get('commit', '')}")
    main.columns[1].justify = "right"
    for row in rows(found):
        main.add_row(*row)
    if main.row_count:
        yield main
    for key, title in _PROFILES.items():
        if key in found:
            profile = Table(title, "µs/event")
            profile.columns[1].justify = "right"
            for name, value in found[key].items():
                profile.add_row(name, f"{value:.3f}")
            profile.add_row("[bold]together[/bold]", f"[bold]{sum(found[key].values()):.3f}[/bold]")
            yield profile
    if "panels" in found:
        waits = Table(*_PANEL_COLUMNS, title="panels, ms")
        for row in slowest(found["panels"]):
            waits.add_row(*row)
        yield waits


_PROFILES = {
    "profile_us_per_event": "step",
    "profile_statements_us_per_event": "the dearest statements",
}


_PANEL_COLUMNS = ("dashboard", "panel", "day p50", "p95", "CPU", "all days p50", "p95", "CPU")


def slowest(panels: Sequence[Sequence[Any]]) -> Iterator[tuple[str, ...]]:
    """The panels as text, the slowest over a day first."""
    for dashboard, title, *times in sorted(panels, key=lambda row: -row[3]):
        yield dashboard, title.replace("|", "/"), *(f"{each:,.0f}" for each in times)


def markdown(found: Mapping[str, Any]) -> str:
    """For the page."""
    lines = [f"Taken {found['taken_at']} at {found['commit']} on {_machine(found['machine'])}.", ""]
    lines += ["| what | figure | unit | goal |", "| --- | ---: | --- | --- |"]
    lines += [f"| {' | '.join(row)} |" for row in rows(found)]
    if "freshness_samples" in found:
        taken = f"{found['freshness_samples']} and {found['decision_delay_samples']}"
        lines += ["", f"The delays are those of {taken} deliveries in {found['real_time_seconds']} s."]
    for key, title in _PROFILES.items():
        if key in found:
            lines += ["", f"| {title} | µs of CPU for each event |", "| --- | ---: |"]
            lines += [f"| {name} | {value:.3f} |" for name, value in found[key].items()]
            lines += [f"| together | {sum(found[key].values()):.3f} |"]
    if "panels" in found:
        lines += ["", f"| {' | '.join(_PANEL_COLUMNS)} |", f"| --- | --- |{' ---: |' * 6}"]
        lines += [f"| {' | '.join(row)} |" for row in slowest(found["panels"])]
    return "\n".join(lines)


def _machine(machine: Mapping[str, Any]) -> str:
    return (
        f"{machine['cores']} cores of {machine['cpu']}, {machine['memory_gb']:.0f} GB, {machine['system']}, "
        f"Python {machine['python']}, DuckDB {machine['duckdb']}, aiokafka {machine['aiokafka']}, "
        f"load {machine['load_before']} before"
    )


def section(found: Mapping[str, Any], begin: str = BEGIN, end: str = END) -> str:
    """What stands between the marks."""
    return f"{begin}\n{_DATA}{json.dumps(found, indent=1)}\n-->\n\n{markdown(found)}\n\n{end}"


def on_page(page: str, begin: str = BEGIN, end: str = END) -> tuple[str, Mapping[str, Any] | None]:
    """The section as it stands on the page, and the figures it says it was made from (None: no run yet).

    Raises ValueError when the marks are not there once each.
    """
    if page.count(begin) != 1 or page.count(end) != 1:
        raise ValueError(f"expected {begin} and {end} once each")
    inside = begin + page.split(begin)[1].split(end)[0] + end
    if _DATA not in inside:
        return inside, None
    return inside, json.loads(inside.split(_DATA)[1].split("-->")[0])


def put(page: str, found: Mapping[str, Any]) -> str:
    """The page with the figures of this run: those of the panels have a section of their own."""
    of_panels = {key: value for key, value in found.items() if key.startswith(("panels", "board"))}
    others = {key: value for key, value in found.items() if key not in of_panels}
    for part, marks in ((others, (BEGIN, END)), (_head(found) | of_panels, (PANELS_BEGIN, PANELS_END))):
        if part.keys() - _head(found).keys():
            page = page.replace(on_page(page, *marks)[0], section(part, *marks))
    return page


def _head(found: Mapping[str, Any]) -> dict[str, Any]:
    """What a run says of itself."""
    return {key: found[key] for key in ("commit", "taken_at", "quick", "machine")}


def main() -> None:
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "bench.json"
    found = json.loads(source.read_text())
    if found["quick"]:
        sys.exit(f"{source} is of a --quick run: its figures are no measurement; run `make bench`")
    PAGE.write_text(put(PAGE.read_text("utf-8"), found), "utf-8")


if __name__ == "__main__":
    main()
