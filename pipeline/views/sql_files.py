"""Ready views that are plain SQL: a file for each in `sql/`, with what it says of itself in its header.

-- What the view is.
--
-- needs: the event types that it reads, by view, where it reads any
--
-- column: what it says
--     and how it goes on
SELECT …
"""

from __future__ import annotations

from itertools import takewhile
from pathlib import Path

from pipeline.rules.ready_view import ReadyView

FOLDER = Path(__file__).with_name("sql")


def ready_view(name: str, **fragments: str) -> ReadyView:
    """The view of `sql/NAME.sql`; `fragments` stand in its SQL in braces.

    >>> ready_view("data_age").columns["lag"]
    'Records that wait in Kafka'
    """
    lines = (FOLDER / f"{name}.sql").read_text("utf-8").splitlines()
    head = list(takewhile(lambda line: line.startswith("--"), lines))
    select = "\n".join(lines[len(head) :]).strip()
    comment, *middle, columns = "\n".join(head).split("\n--\n")
    needs = [found for part in middle for found in _fields(part)["needs"].split(", ")]
    for fragment, text in fragments.items():
        select = select.replace(f"{{{fragment}}}", text)
    return ReadyView(name, _text(comment), _fields(columns), select, frozenset(needs))


def _fields(part: str) -> dict[str, str]:
    """`name: text`, each on a line that may go on."""
    whole = part.replace("\n--     ", " ").splitlines()
    return dict(line.removeprefix("-- ").split(": ", 1) for line in whole)


def _text(part: str) -> str:
    return " ".join(line.removeprefix("-- ") for line in part.splitlines())
