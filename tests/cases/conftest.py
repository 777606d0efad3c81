"""Events in, alerts out: each case of `input/` is played through the real decoder, processor and ledger.

`NN.jsonl` has one Kafka value a line, in the structured mode, with the topic by `type`; `NN.yaml` is the contract, where
there is one.  Every case is played live (what is of one instant is a batch, of ten records at most, evaluated after each)
and replayed (all in one batch); both must give the same.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiokafka.structs import ConsumerRecord

from pipeline.catalog import Catalog, load
from pipeline.clauses import load_all, plan_of
from pipeline.contract.loader import dimensions_of
from pipeline.formats.times import read_time
from pipeline.history import publish, query, seal
from pipeline.ledger.store import Ledger
from pipeline.rollup.delta import Place
from pipeline.stream.batch import Batch
from pipeline.stream.process import Processor
from tests.processing import processed

INPUT = Path(__file__).parent / "input"
HEADERS = (("content-type", b"application/cloudevents+json"),)
MAX_BYTES = 1_000_000

Row = tuple[Any, ...]


class Played:
    """What the pipeline made of a case: its standing, its alerts, its history."""

    def __init__(self, data: Path, catalog: Catalog, contract: Path | None) -> None:
        self.data, self.catalog = data, catalog
        self.ledger = Ledger(data, catalog)
        self.processor = Processor(self.ledger.con, catalog, data, MAX_BYTES)
        contracts = load_all(contract, dimensions_of(catalog)) if contract else ()
        self.ledger.use(contracts, plan_of(contracts, catalog), 0.0)
        self.now = 0.0

    def feed(self, records: list[ConsumerRecord]) -> None:
        """Take records in as one batch, and evaluate what the newest of their times lets pass."""
        offsets = self.ledger.offsets()
        places: dict[Place, list[ConsumerRecord]] = {}
        for record in records:
            places.setdefault((record.topic, record.partition), []).append(record)
        ranges = {p: (offsets.get(p, 0), offsets.get(p, 0) + len(own)) for p, own in places.items()}
        batch = Batch(places, ranges)
        delta, _ = processed(self.processor, batch, self.ledger.known_from(), self.ledger.progress())
        self.now = max(self.now, *(record.timestamp / 1000 for record in records))
        self.ledger.apply(delta, self._watermarks(), self.now)

    def pass_until(self, now: float) -> None:
        """Let `now` (epoch seconds) be the newest event time of every topic, without any event."""
        self.now = max(self.now, now)
        self.ledger.tick(self._watermarks(), self.now)

    def _watermarks(self) -> dict[str, datetime]:
        return {e.topic: _naive(self.now - e.lateness) for e in self.catalog.types}

    def standing(self) -> dict[tuple[str, ...], tuple[str, float | None]]:
        """(alertname, clause, values of `by`…) → (state, observed), as it stands at the end."""
        rows = self._ledger_sql("SELECT alertname, clause, by_values, state, observed FROM standing")
        return {
            (name, clause, *json.loads(by).values()): (state, observed)
            for name, clause, by, state, observed in rows
        }

    def readings(self, alertname: str, clause: str) -> list[Row]:
        """(time, state, observed) of a clause, as kept in its history."""
        return self._ledger_sql(
            'SELECT "time", state, observed FROM readings WHERE alertname = ? AND clause = ? ORDER BY "time"',
            alertname,
            clause,
        )

    def alerts(self) -> list[tuple[str, str]]:
        """(alertname, what happened) in order of event time: pending, firing, updated, stale, resolved, …"""
        return self._ledger_sql('SELECT alertname, state FROM alerts ORDER BY "time", alertname')

    def times(self, alertname: str) -> list[tuple[datetime, str]]:
        """(time, what happened) of an alert, in order."""
        return self._ledger_sql(
            'SELECT "time", state FROM alerts WHERE alertname = ? ORDER BY "time"', alertname
        )

    def fired(self) -> set[str]:
        """The names of all alerts that ever fired."""
        return {name for name, what in self.alerts() if what == "firing"}

    def fates(self) -> dict[tuple[str, str], int]:
        """(fate, reason) → how many, without what came in."""
        rows = self._ledger_sql(
            "SELECT fate, reason, sum(n)::BIGINT FROM fates WHERE fate <> 'in' GROUP BY ALL"
        )
        return {(fate, reason): n for fate, reason, n in rows}

    def sql(self, text: str) -> list[Row]:
        """The answer of the published views, as an analyst gets it."""
        seal.seal(self.ledger.cursor(), self.data, self.catalog)
        publish.publish(self.ledger.cursor(), self.data, self.catalog)
        return list(query.ask(query.open_views(self.data, self.catalog), text).rows)

    def _ledger_sql(self, text: str, *values: object) -> list[Row]:
        return self.ledger.con.execute(text, list(values)).fetchall()


def _naive(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)


def _records(path: Path, catalog: Catalog) -> Iterator[ConsumerRecord]:
    """The lines of a case as records; the broker appended each at the newest event time by then."""
    topics = {e.type: e.topic for e in catalog.types}
    offsets: dict[str, int] = {}
    newest = 0
    for line in path.read_bytes().splitlines():
        message = json.loads(line)
        topic = topics[message["type"]]
        newest = max(newest, _milliseconds(message["time"]))
        offset = offsets[topic] = offsets.get(topic, -1) + 1
        yield ConsumerRecord(topic, 0, offset, newest, 1, None, line, None, -1, len(line), HEADERS)  # type: ignore[arg-type]


def _as_it_comes(records: Iterable[ConsumerRecord]) -> Iterator[list[ConsumerRecord]]:
    """Batches of neighbours that are of the same instant, ten at most: many GPUs report at the same time."""
    for _, same in itertools.groupby(records, lambda record: json.loads(record.value)["time"]):
        while batch := list(itertools.islice(same, 10)):
            yield batch


def _milliseconds(time: str) -> int:
    found = read_time(time)
    return 0 if isinstance(found, str) else round(found.replace(tzinfo=UTC).timestamp() * 1000)


@pytest.fixture(scope="session")
def catalog() -> Catalog:
    return load()


@pytest.fixture(params=["live", "replayed"])
def play(request: pytest.FixtureRequest, tmp_path: Path, catalog: Catalog) -> Iterator[Callable[..., Played]]:
    """`play("05", quiet=60)`: the case of that number, and then so many seconds in which nothing comes."""
    played: list[Played] = []

    def play(number: str, quiet: float = 0.0) -> Played:
        contract = INPUT / f"{number}.yaml"
        one = Played(tmp_path / f"data-{len(played)}", catalog, contract if contract.exists() else None)
        played.append(one)
        records = list(_records(INPUT / f"{number}.jsonl", catalog))
        for batch in _as_it_comes(records) if request.param == "live" else [records]:
            one.feed(batch)
        if quiet:
            one.pass_until(one.now + quiet)
        return one

    yield play
    for one in played:
        one.ledger.close()


CONTRACT = """
metadata: {id: acme, version: "1"}
parties: {customer: C, supplier: S}
term: {start: 2026-01-01, end: 2027-01-01}
currency: EUR
timezone: UTC
"""


@pytest.fixture
def play_made(play: Callable[..., Played], tmp_path: Path) -> Callable[..., Played]:
    """`play_made(events, clauses, quiet=60)`: events that a test makes, in order of time, under a contract of `clauses`."""

    def play_made(events: Iterable[Mapping[str, Any]], clauses: str, quiet: float = 0.0) -> Played:
        lines = sorted(events, key=lambda message: str(message["time"]))
        (tmp_path / "made.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (tmp_path / "made.yaml").write_text(CONTRACT + clauses)
        return play(str(tmp_path / "made"), quiet)

    return play_made
