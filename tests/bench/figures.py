"""The figures as tables: for the terminal, and for docs/performance.md.

    python tests/bench/figures.py [build/bench.json]

keeps the figures of a run in docs/figures/, puts their tables into docs/performance.md between the marks, and writes the
table of all panels to docs/figures/panels.md.  A test makes the tables again from the kept figures, so they cannot drift.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "performance.md"
FIGURES = PAGE.parent / "figures"
PARTS = ("bench", "panels")
"""Each has a file `{part}.json` of its figures, and a section between its marks on the page."""
SLOWEST = 8
"""So many panels are on the page; all of them are in panels.md."""
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
    ("otlp_json_points_per_s", "OTLP JSON, dcgm-exporter's metrics", "points/s", "≥ 200,000"),
    ("telegraf_points_per_s", "the same as Telegraf's JSON", "points/s", "≥ 200,000"),
    ("otlp_proto_points_per_s", "the same as OTLP protobuf", "points/s", "≥ 50,000"),
    ("arrow_samples_per_s", "Arrow batches of 1,000 GPUs, housekeeping included", "samples/s", "≥ 600,000"),
    ("arrow_peak_rss_mb", "peak memory", "MB", ""),
    ("import_seconds", "`import focus` of a million rows", "s", "≤ 60"),
    ("import_peak_rss_mb", "its peak memory", "MB", "≤ 500"),
    ("collect_cpu_cores_every_30s", "`collect`: 100 nodes of 8 GPUs every 30 s", "cores", "≤ 0.05"),
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
    lines = [_taken(found), "", "| what | figure | unit | goal |", "| --- | ---: | --- | --- |"]
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
        lines += ["", *_panels(list(slowest(found["panels"]))[:SLOWEST])]
    return "\n".join(lines)


def panels_page(found: Mapping[str, Any]) -> str:
    """The page with all panels, the slowest first."""
    lines = [
        "# What each panel waits for",
        "",
        f"{_taken(found)} Milliseconds; see [performance](../performance.md).",
        "",
    ]
    return "\n".join([*lines, *_panels(slowest(found["panels"]))]) + "\n"


def _panels(panels: Iterable[Sequence[str]]) -> list[str]:
    head = [f"| {' | '.join(_PANEL_COLUMNS)} |", f"| --- | --- |{' ---: |' * 6}"]
    return [*head, *(f"| {' | '.join(row)} |" for row in panels)]


def _taken(found: Mapping[str, Any]) -> str:
    return f"Taken {found['taken_at']} at {found['commit']} on {_machine(found['machine'])}."


def _machine(machine: Mapping[str, Any]) -> str:
    return (
        f"{machine['cores']} cores of {machine['cpu']}, {machine['memory_gb']:.0f} GB, {machine['system']}, "
        f"Python {machine['python']}, DuckDB {machine['duckdb']}, aiokafka {machine['aiokafka']}, "
        f"load {machine['load_before']} before"
    )


def section(part: str, found: Mapping[str, Any]) -> str:
    """What stands between the marks of `part`."""
    return f"{_begin(part)}\n{markdown(found)}\n\n{_end(part)}"


def on_page(page: str, part: str) -> str:
    """The section as it stands on the page.  Raises ValueError when its marks are not there once each."""
    begin, end = _begin(part), _end(part)
    if page.count(begin) != 1 or page.count(end) != 1:
        raise ValueError(f"expected {begin} and {end} once each")
    return begin + page.split(begin)[1].split(end)[0] + end


def _begin(part: str) -> str:
    return f"<!-- {part}: begin -->"


def _end(part: str) -> str:
    return f"<!-- {part}: end -->"


def of_parts(found: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The figures of a run by part, of those parts that it took."""
    panels = {key: value for key, value in found.items() if key.startswith(("panels", "board"))}
    others = {key: value for key, value in found.items() if key not in panels}
    parts = {"bench": others, "panels": _head(found) | panels}
    return {name: own for name, own in parts.items() if own.keys() - _head(found).keys()}


def put(page: str, found: Mapping[str, Any]) -> str:
    """The page with the tables of this run."""
    for part, own in of_parts(found).items():
        page = page.replace(on_page(page, part), section(part, own))
    return page


def _head(found: Mapping[str, Any]) -> dict[str, Any]:
    """What a run says of itself."""
    return {key: found[key] for key in ("commit", "taken_at", "quick", "machine")}


def main() -> None:
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "bench.json"
    found = json.loads(source.read_text())
    if found["quick"]:
        sys.exit(f"{source} is of a --quick run: its figures are no measurement; run `make bench`")
    for part, own in of_parts(found).items():
        (FIGURES / f"{part}.json").write_text(json.dumps(own, indent=1, ensure_ascii=False) + "\n", "utf-8")
        if part == "panels":
            (FIGURES / "panels.md").write_text(panels_page(own), "utf-8")
    PAGE.write_text(put(PAGE.read_text("utf-8"), found), "utf-8")


if __name__ == "__main__":
    main()
