"""The client that asks what the dashboards ask, as a process of its own: whoever measures must not be held up.

    python panels_client.py ADDRESS PID ROUNDS DAYS OUT.json

OUT gets a list of `{dashboard, panel, rows, ms, cpu_ms}`: for each question the milliseconds until its last row, and
those of CPU that the door, whose process is PID, took for it: one for each round.  They are asked one after the other
over one connection.  A question is what Grafana sends as one: that of a panel (of each letter, where a panel has
several), of a variable or of an annotation.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pymysql
from pymysql.converters import encoders

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "dashboards"))

from grafana_macros import expand, interval_of  # noqa: E402  # the tests of the dashboards have it too

DAY, MOVED = 86_400, 1800
"""A round's times end up to half an hour before the newest."""
Document = Mapping[str, Any]
Ask = Any


def documents() -> Iterator[Document]:
    """The dashboards as they are shipped."""
    for path in sorted((ROOT / "dashboards").glob("*.json")):
        yield json.loads(path.read_text("utf-8"))


def questions(document: Document) -> Iterator[tuple[str, Mapping[str, Any], str]]:
    """(title, its panel if it is one's, SQL) of everything that a dashboard asks when it is opened."""
    for variable in document["templating"]["list"]:
        if variable["type"] == "query":
            yield f"(variable {variable['name']})", {}, variable["query"]
    for annotation in document["annotations"]["list"]:
        yield f"(annotation {annotation['name']})", {}, annotation["target"]["rawSql"]
    for panel in document["panels"]:
        targets = panel.get("targets", [])
        for target in targets:
            letter = f" ({target['refId']})" if len(targets) > 1 else ""
            yield panel["title"] + letter, panel, target["rawSql"]


class Opened(NamedTuple):
    """What one question took: milliseconds until its last row, and those of CPU that the door spent."""

    title: str
    ms: float
    cpu_ms: float
    rows: int


class Client:
    """One connection; `newest` is the end of the history in epoch seconds.

    Values stay the texts that they come as: to make objects of them took longer than to get them.
    """

    def __init__(self, address: str, door: int) -> None:
        host, _, port = address.rpartition(":")
        self._connection = pymysql.connect(
            host=host, port=int(port), user="bench", database="gigawatch", conv=encoders
        )
        self._clock = (~door << 3) | 2  # clock_getcpuclockid(3): of a process, all its threads together
        self.newest = int(self.ask('SELECT UNIX_TIMESTAMP(max("time")) FROM standing')[0][0])

    def ask(self, sql: str) -> Any:
        with self._connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall()

    def open(self, document: Document, start: int, end: int) -> Iterator[Opened]:
        """Each question of a dashboard over a range."""
        values = self._single_values(document, start, end)
        for title, panel, question in questions(document):
            interval = interval_of(panel, start, end)
            sql = expand(question, start, end, document=document, variables=values, interval_ms=interval)
            began, cpu = time.perf_counter(), time.clock_gettime(self._clock)
            try:
                rows = len(self.ask(sql))
            except pymysql.Error as error:
                raise RuntimeError(f"{document['uid']}, {title}: {error}\n{sql}") from error
            took, spent = time.perf_counter() - began, time.clock_gettime(self._clock) - cpu
            yield Opened(title, took * 1000, spent * 1000, rows)

    def _single_values(self, document: Document, start: int, end: int) -> dict[str, str]:
        """Variables of one value that follow from the range, such as the width of the roll-ups."""
        found: dict[str, str] = {}
        for variable in document["templating"]["list"]:
            if variable["type"] == "query" and not variable.get("multi") and not variable.get("includeAll"):
                rows = self.ask(expand(variable["query"], start, end, document=document, variables=found))
                found[variable["name"]] = str(rows[0][0])
        return found


def measure(address: str, door: int, rounds: int, days: int) -> list[dict[str, Any]]:
    """Every question once in each round, so that what else runs disturbs all of them alike."""
    client, moved, shipped = Client(address, door), random.Random(1), list(documents())
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for _ in range(rounds):
        end = client.newest - moved.randrange(MOVED)
        for document in shipped:
            uid = document["uid"].removeprefix("gigawatch-")
            for asked in client.open(document, end - days * DAY, end):
                new = {"dashboard": uid, "panel": asked.title, "rows": asked.rows, "ms": [], "cpu_ms": []}
                one = found.setdefault((uid, asked.title), new)
                one["ms"].append(asked.ms)
                one["cpu_ms"].append(asked.cpu_ms)
    return list(found.values())


if __name__ == "__main__":
    address, door, rounds, days, out = sys.argv[1:]
    Path(out).write_text(json.dumps(measure(address, int(door), int(rounds), int(days))))
