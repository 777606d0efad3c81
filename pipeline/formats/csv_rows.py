"""CSV with a header: each number of a row is a point, named by its column; the texts of the row are its labels.

A mapping says which label is the time.  A number with a decimal comma is a text, and so no point: nothing is guessed.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator

from pipeline.formats.point import UNKNOWN, Point, Undecodable, bounded

NAME = "csv"
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?", re.ASCII)


def points(raw: bytes) -> Iterator[Point]:
    """The numbers of every row.  Raises Undecodable with the line whose cells are not those of the header."""
    try:
        rows = csv.reader(io.StringIO(raw.decode("utf-8-sig"), newline=""), strict=True)
        yield from bounded(_points(rows))
    except UnicodeDecodeError as error:
        raise Undecodable("not_utf8") from error
    except csv.Error as error:
        raise Undecodable("not_csv", "", str(error), "CSV") from error


def _points(rows: Iterator[list[str]]) -> Iterator[Point]:
    header = [name.strip() for name in next(rows, [])]
    for number, row in enumerate(rows, 2):
        if not row:
            continue
        if len(row) != len(header):
            raise Undecodable(
                "not_csv", f"line {number}", f"{len(row)} cells", f"{len(header)}, as the header has"
            )
        cells = {name: cell.strip() for name, cell in zip(header, row, strict=True)}
        labels = {name: cell for name, cell in cells.items() if not _NUMBER.fullmatch(cell)}
        for name, cell in cells.items():
            if name not in labels:
                yield Point(name, labels, float(cell) if "." in cell or "e" in cell.lower() else int(cell))
            elif cell == "":
                yield Point(name, labels, UNKNOWN)
