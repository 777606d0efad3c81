"""Measures that are reported for a time more than once: which report counts, and what a new one adds to the roll-ups.

A sample is a *report* when it says how final it is, or when it was issued, and measures nothing but what is revised
(`x-revision`).  All reports of one series, source and time are of one *reading*.  Of each measure the report counts that is
most final, of those the one that was issued last; the others stay in the raw history.  Which one that is follows from
the reports alone, so their order and their batches change nothing.

Sums and counts are whole numbers, so what counted before can be taken away exactly: a new report is rolled up as the
difference of what its reading says now to what it said before.  A least and a greatest value cannot be taken back:
partial roll-ups of reports have none, and they are found among the reports that count when they are asked for.
"""

from __future__ import annotations

from dataclasses import replace

from pipeline.catalog import EventType
from pipeline.rollup.aggregate import partial_columns, partials_sql
from pipeline.rollup.grid import floor_sql

_HEAD = (
    ("reading", "UBIGINT"),
    ("series", "UBIGINT"),
    ("time", "TIMESTAMP"),
    ("source", "VARCHAR"),
    ("id", "VARCHAR"),
    ("idx", "INTEGER"),
    ("interval", "INTEGER"),
    ("finality", "INTEGER"),
    ("issued", "TIMESTAMP"),
    ("said", "VARCHAR"),
    ("content", "UBIGINT"),
)


def reports_columns(event: EventType) -> tuple[tuple[str, str], ...]:
    """(name, SQL type) of what is kept of a report: `finality` is the place of its status among the words, 0 without one;
    `issued` that of its record where it names none itself; `said` which measures it has, `content` 64 bits of their values."""
    assert event.revision
    return (*_HEAD, *((name, "DOUBLE") for name in event.revision.of))


def is_report_sql(event: EventType) -> str:
    """Whether a sample is a report."""
    rule = event.revision
    assert rule
    others = [m.name for m in event.measures if m.name not in rule.of]
    tests = [
        f"(coalesce({rule.status}, '') <> '' OR {rule.issued} IS NOT NULL)",
        f"coalesce({', '.join(rule.of)}) IS NOT NULL",
        *(f"{name} IS NULL" for name in others),
    ]
    return f"({' AND '.join(tests)})"


def reports_sql(event: EventType, samples: str, also: str = "") -> str:
    """SELECT of the reports among `samples`, with the columns `also` before those of `reports_columns`."""
    rule = event.revision
    assert rule
    words = ", ".join(f"'{word}'" for word in rule.words)
    of = ", ".join(rule.of)
    said = " || ".join(f"if({name} IS NULL, '-', '+')" for name in rule.of)
    finality = f"coalesce(list_position([{words}], {rule.status}), 0)"
    return (
        f"SELECT {also}hash(series, source, time) AS reading, series, time, source, id, idx, interval, "
        f"{finality}::INTEGER AS finality, coalesce({rule.issued}, record_time) AS issued, {said} AS said, "
        f"hash({finality}, {of}) AS content, {of} FROM {samples} WHERE {is_report_sql(event)}"
    )


def counting_sql(event: EventType, reports: str) -> str:
    """SELECT of the reports that count, as samples of what is revised: a measure that another report says is NULL.

    Their `id` goes up as reports become newer, so that the last of a window is the newest too.
    """
    rule = event.revision
    assert rule
    order = "{'finality': finality, 'issued': issued, 'id': id, 'idx': idx, 'content': content}"
    newest = ", ".join(
        f"max(mark) FILTER ({name} IS NOT NULL) OVER (PARTITION BY reading) AS newest_{name}"
        for name in rule.of
    )
    kept = ", ".join(f"if(mark = newest_{name}, {name}, NULL) AS {name}" for name in rule.of)
    marked = f"SELECT *, {newest} FROM (SELECT *, {order} AS mark FROM {reports})"
    return (
        "SELECT * FROM (SELECT series, time, source, finality || '/' || issued::VARCHAR || '/' || id AS id, idx, interval, "
        f"{kept} FROM ({marked})) WHERE coalesce({', '.join(rule.of)}) IS NOT NULL"
    )


def difference_sql(event: EventType, before: str, after: str) -> str:
    """SELECT of partial rows: those of the reports `after` less those of the reports `before`, of the same readings.

    Each window that `before` has `after` has too.
    """
    assert event.revision
    revised = replace(event, measures=tuple(m for m in event.measures if m.name in event.revision.of))
    known = {name for name, _ in partial_columns(revised)}
    columns = []
    for name, kind in partial_columns(event):
        if name not in known:
            found = "0" if name.endswith("_count") else "NULL"
        elif name == "samples" or name.endswith(("_count", "_sum")):
            found = f"sum(sign * {name})"
        elif name.endswith(("_min", "_max")):
            found = "NULL"
        else:
            found = f"max({name}) FILTER (sign > 0)"
        columns.append(f"({found})::{kind} AS {name}")
    signed = " UNION ALL ".join(
        f"SELECT {sign} AS sign, * FROM ({partials_sql(revised, f'({counting_sql(event, reports)})')})"
        for sign, reports in ((1, after), (-1, before))
    )
    return f"SELECT series, window_start, {', '.join(columns)} FROM ({signed}) GROUP BY ALL"


def extremes_sql(event: EventType, reports: str, width: int) -> str:
    """SELECT (series, window_start, <measure>_min, <measure>_max) of the reports that count, in windows of `width` seconds."""
    rule = event.revision
    assert rule
    columns = ", ".join(f"min({name}) AS {name}_min, max({name}) AS {name}_max" for name in rule.of)
    start = floor_sql("time", width)
    return f"SELECT series, {start} AS window_start, {columns} FROM ({counting_sql(event, reports)}) GROUP BY ALL"
