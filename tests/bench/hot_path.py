"""Where the time goes: CPU of each step from records to a committed delta, in µs for each event.

The fleet's records are made in this process and taken in as the pipeline takes a batch, with the steady
scenario's contract; Kafka is left out (the reader's `getmany` has its own figure).  CPU time is that of all
threads, DuckDB's too, so that what else runs on the machine disturbs it little.  A step's time is its own:
what it calls and what is listed itself is taken off.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from aiokafka.partitioner import murmur2
from aiokafka.structs import ConsumerRecord
from load import PARTITIONS, TOPIC, fleet, write_steady_contract

from pipeline import catalog
from pipeline.clauses import load_all, plan_of
from pipeline.ledger.evaluation import utc
from pipeline.ledger.store import Ledger
from pipeline.settings import load_settings
from pipeline.simulate.cloud_events import STRUCTURED
from pipeline.stream import process
from pipeline.stream.batch import Batch

if TYPE_CHECKING:
    from parts import Bench

R = TypeVar("R")
WARM_UP = 1
"""Batches that are not counted: the first meets every series."""
_TARGET = re.compile(
    r"\s*(CREATE OR REPLACE TEMP TABLE|INSERT INTO|DELETE FROM|UPDATE|COPY|COMMIT|WITH|SELECT|FROM)\s*(\w*)",
    re.I,
)
_WIDTH = re.compile(r"_(10s|1m|15m|1h|1d)$")


@dataclass
class Spent:
    """Seconds of CPU and calls, by name; nested measurements are taken off those around them."""

    cpu: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    calls: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    _inner: list[float] = field(default_factory=list)

    @contextlib.contextmanager
    def on(self, name: str) -> Iterator[None]:
        began = time.process_time()
        self._inner.append(0.0)
        try:
            yield
        finally:
            took = time.process_time() - began
            self.cpu[name] += took - self._inner.pop()
            self.calls[name] += 1
            if self._inner:
                self._inner[-1] += took

    def clear(self) -> None:
        self.cpu.clear()
        self.calls.clear()

    def wrap(self, name: str, work: Callable[..., R]) -> Callable[..., R]:
        def measured(*args: Any, **kwargs: Any) -> R:
            with self.on(name):
                return work(*args, **kwargs)

        return measured


class Statements:
    """A DuckDB connection that measures each statement by what it does to which table."""

    def __init__(self, con: Any, spent: Spent) -> None:
        self._con, self._spent = con, spent

    def __getattr__(self, name: str) -> Any:
        return getattr(self._con, name)

    def execute(self, sql: str, *args: Any) -> Any:
        with self._spent.on(what(sql)):
            return self._con.execute(sql, *args)

    def executemany(self, sql: str, *args: Any) -> Any:
        with self._spent.on(what(sql)):
            return self._con.executemany(sql, *args)

    def cursor(self) -> Statements:
        return Statements(self._con.cursor(), self._spent)

    def sql(self, sql: str, **kwargs: Any) -> Query:
        return Query(self._con.sql(sql, **kwargs), self._spent)


@dataclass
class Query:
    """A relation of the decoder, which is worked out when its columns are asked for."""

    relation: Any
    spent: Spent

    def to_arrow_table(self) -> Any:
        with self.spent.on("decode to Arrow"):
            return self.relation.to_arrow_table()


def what(sql: str) -> str:
    """`INSERT INTO partials_gpu` of a statement: its verb and its table, whatever the width."""
    found = _TARGET.match(sql)
    if not found:
        return " ".join(sql.split()[:2])
    verb, table = found[1].upper().replace("CREATE OR REPLACE TEMP TABLE", "make"), _WIDTH.sub("", found[2])
    return f"{verb} {table}" if verb in ("make", "INSERT INTO", "DELETE FROM", "UPDATE") else verb


def figures(bench: Bench) -> dict[str, Any]:
    """µs of CPU for each event: by step, and by statement within the steps."""
    events = bench.sizes.events // 2
    data = bench.scratch / "data-profile"
    data.mkdir()
    try:
        steps = take_in(data / "a", events, by_statement=False)
        statements = take_in(data / "b", events, by_statement=True)
    finally:
        shutil.rmtree(data, ignore_errors=True)
    return {
        "profile_us_per_event": steps,
        "profile_total_us_per_event": sum(steps.values()),
        "profile_statements_us_per_event": dict(sorted(statements.items(), key=lambda kv: -kv[1])[:16]),
    }


def take_in(data: Path, events: int, *, by_statement: bool) -> dict[str, float]:
    """Take about `events` in, a batch after the other; µs of CPU per event, without the first batch."""
    data.mkdir()
    start = int(time.time()) // 60 * 60 - 600
    types, spent = catalog.load(), Spent()
    ledger = Ledger(data, types)
    steps = process.STEPS
    try:
        contract = write_steady_contract(data / "contracts", start + 300)
        ledger.plan = plan_of(load_all(contract.parent), types)
        if by_statement:
            ledger.con = Statements(ledger.con, spent)  # type: ignore[assignment]
        else:
            process.STEPS = tuple(  # type: ignore[assignment]
                spent.wrap(step.__name__.strip("_").replace("_", " "), step) for step in steps
            )
        counted = 0
        with _measured(spent, by_statement):
            processor = process.Processor(ledger.con, types, data, load_settings().max_message_bytes)
            for number, batch in enumerate(_batches(start, events)):
                if number == WARM_UP:
                    spent.clear()
                counted += len(batch) if number >= WARM_UP else 0
                _take(ledger, processor, batch, spent)
    finally:
        process.STEPS = steps
        ledger.close()
    return {name: cpu / counted * 1e6 for name, cpu in spent.cpu.items() if name}


@contextlib.contextmanager
def _measured(spent: Spent, by_statement: bool) -> Iterator[None]:
    """What is neither a step nor a statement; segments are written in line, or their CPU would be anybody's."""
    plain = {name: getattr(process, name) for name in ("topic_records", "write_raw", "ThreadPoolExecutor")}
    process.topic_records = spent.wrap("records to Arrow", process.topic_records)  # type: ignore[attr-defined]
    process.ThreadPoolExecutor = _AtOnce  # type: ignore[attr-defined]
    if by_statement:
        process.write_raw = spent.wrap("write segment", process.write_raw)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for name, value in plain.items():
            setattr(process, name, value)


class _AtOnce(Executor):
    """Runs what it is given when it is given it."""

    def __init__(self, *_: Any) -> None:
        pass

    def submit(self, work: Callable[..., R], /, *args: Any, **kwargs: Any) -> Future[R]:
        done = Future[R]()
        done.set_result(work(*args, **kwargs))
        return done


def _take(ledger: Ledger, processor: process.Processor, batch: Batch, spent: Spent) -> None:
    with spent.on("decode"):
        decoded = processor.decode(batch)
    assert not decoded.letters
    with spent.on("process, the rest"):
        delta = processor.take(decoded, ledger.known_from(), ledger.progress())
    reached = min(delta.progress.values()).replace(tzinfo=UTC).timestamp()
    with spent.on("apply"):
        ledger.apply(delta, {TOPIC: utc(reached - 5)}, reached)


def _batches(start: int, events: int) -> Iterator[Batch]:
    """Batches as large as the default settings make them, each a little later than its events."""
    settings, waiting, offsets = load_settings(), list[ConsumerRecord[bytes, bytes]](), [0] * PARTITIONS
    what, at, done = fleet(start), start * 1000, 0
    while done < events:
        for block in what.gpu_blocks(at, at + 1000):
            for message in block.messages():
                waiting.append(_record(message.key, message.value, message.time_ms + 100, offsets))
        at += 1000
        size = min(settings.batch_records, int(settings.batch_bytes / len(waiting[0].value or b"")))
        while len(waiting) >= size:
            yield _batch(waiting[:size])
            del waiting[:size]
            done += size


def _record(key: bytes, value: bytes, timestamp: int, offsets: list[int]) -> ConsumerRecord[bytes, bytes]:
    part = (murmur2(key) & 0x7FFFFFFF) % len(offsets)
    offsets[part] += 1
    return ConsumerRecord(
        TOPIC,
        part,
        offsets[part] - 1,
        timestamp,
        1,
        key,
        value,
        None,
        len(key),
        len(value),
        tuple(STRUCTURED),
    )


def _batch(records: Sequence[ConsumerRecord[bytes, bytes]]) -> Batch:
    by_place: dict[tuple[str, int], list[ConsumerRecord[bytes, bytes]]] = defaultdict(list)
    for record in records:
        by_place[TOPIC, record.partition].append(record)
    return Batch(by_place, {place: (r[0].offset, r[-1].offset + 1) for place, r in by_place.items()})
