"""Raw rows with the first instant at which each counts, which their segment was given when its delta was applied.

A segment is written before that is known.  Sealing writes the instant into the published file; until then it follows from
the segment's record.  Files that have it themselves (published ones, and segments of before) keep theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from pipeline.rollup.grid import GRID
from pipeline.rollup.quoting import literal
from pipeline.views.published import PublishedTable, pattern, scan

Stamped = tuple[Path, datetime | None]
"""A file of raw rows, and the topic's first unevaluated instant when it was taken in; None where the file says it."""


def stamped_rows(
    files: Sequence[Stamped], table: PublishedTable, windowed: bool = True, only: str = "true"
) -> str:
    """SELECT of the rows of `files` for which `only` is true, with the columns of `table`.

    `windowed`: a row counts from its window's end at the earliest, as the partial roll-ups do that it is in (`append.py`);
    charges and what is quarantined have no window.
    """
    paths = [pattern(path.parent, path.name) for path, _ in files]
    stamps = ", ".join(
        f"({literal(path.name)}, {'NULL' if at is None else literal(str(at))}::TIMESTAMP)"
        for path, at in files
    )
    window = f'time_bucket(INTERVAL {GRID} SECOND, "time") + INTERVAL {GRID} SECOND'
    known = f"greatest(stamp, {window})" if windowed else "stamp"
    return (
        f"SELECT * EXCLUDE (filename, file, stamp) REPLACE (coalesce(known_from, {known}) AS known_from) "
        f"FROM (SELECT * FROM {scan(paths, table.columns, filename=True)} WHERE {only}) "
        f"LEFT JOIN (VALUES {stamps}) given(file, stamp) ON parse_filename(filename) = file"
    )
