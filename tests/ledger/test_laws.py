"""The law of the whole: what comes out follows from the events, not from how they came.

The same events in any partitions, any batches, any order within the allowed lateness, with kills between, give
the same roll-ups, standing and alerts, bit for bit; and the roll-ups are those of a few lines of plain Python.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from shutil import copytree
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from aiokafka.structs import ConsumerRecord
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pipeline.catalog import EventType, Mark, MarkTest, Measure, load
from pipeline.clauses import load as load_contract
from pipeline.clauses import plan_of
from pipeline.errors import LedgerError, StaleGeneration
from pipeline.history import seal
from pipeline.history.recover import recover
from pipeline.history.rollup_select import merge_select, partials_select
from pipeline.ledger.store import Applied, Ledger
from pipeline.rollup.delta import Addition, AsideCount, Delta, Fate, Place, Segment
from pipeline.rollup.histogram import bucket_sql, upper_bound_sql
from pipeline.rules.evaluate import Plan
from pipeline.stream.batch import Batch
from pipeline.stream.process import Processor
from pipeline.stream.watermark import Watermarks
from pipeline.views.published import WIDTHS
from tests.processing import processed

ON_CI = os.environ.get("CI") == "true"
CATALOG = load()
START = 1_790_000_000
LENGTH = 420
LATENESS = 5.0
HEADERS = (("content-type", b"application/cloudevents+json"),)
GPU, QUEUE, ENERGY, BILLING = "telemetry.gpu", "telemetry.queue", "telemetry.energy", "telemetry.billing"
TYPES = {t.topic: t.type for t in CATALOG.types}

CONTRACT = """
metadata: {id: acme, version: "1"}
parties: {customer: Carrier, supplier: Acme}
term: {start: 2026-01-01, end: 2027-01-01}
currency: EUR
timezone: UTC
capacity:
  - {id: floor, by: [cluster], committed_gpus: 3, ceiling_gpus: 4, for: 0s, keep_firing_for: 0s}
  - {id: fleet, committed_gpus: 6, for: 20s, keep_firing_for: 20s}
power:
  - {id: it, at: it, ceiling_megawatts: 0.004, over: 60s, for: 0s}
  - {id: facility, at: facility, ceiling_megawatts: 6, over: 60s, for: 10s}
service_levels:
  - {id: wait, indicator: queue_wait_p95, bound: 60s, over: 60s, for: 0s}
  - {id: pending, by: [queue], indicator: pending_jobs, bound: 20, for: 10s}
spend:
  tranches: [{id: t1, from: 2026-09-01, to: 2026-10-01, ceiling: 100, for: 0s}]
"""


@dataclass(frozen=True)
class Event:
    """One event: `at` epoch seconds; `delay` how long after it the broker appended it."""

    topic: str
    at: float
    source: str
    id: str
    sample: Mapping[str, Any]
    delay: float = 0.0
    key: str = ""

    @property
    def value(self) -> bytes:
        message = {"specversion": "1.0", "id": self.id, "source": self.source, "type": TYPES[self.topic]}
        return json.dumps({**message, "time": rfc3339(self.at), "data": self.sample}).encode()


def rfc3339(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def naive(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC).replace(tzinfo=None)


WORLDS = [random.Random(n if ON_CI else None).randrange(2**32) for n in range(6)]
SEEDS = st.sampled_from(WORLDS)
"""Few worlds and many ways for each: to take a world in as a whole, to compare with, is half of the work."""


def world(seed: int) -> list[Event]:
    """Seven minutes of a small fleet in which GPUs fall ill, fall silent and come back, as the seed has it."""
    rng = random.Random(seed)
    return [*gpus(rng), *queues(rng), *meters(rng), *charges(rng)]


def times(rng: random.Random) -> Iterator[float]:
    """Every 30 s with jitter, in whole milliseconds; ties at the second are common."""
    phase = rng.randrange(30)
    for n in range(LENGTH // 30):
        yield START + phase + 30 * n + rng.choice([0, 0, 0, rng.randrange(4000) / 1000])


def gpus(rng: random.Random) -> Iterator[Event]:
    for cluster in ("c1", "c2"):
        quiet = (rng.randrange(LENGTH), rng.randrange(LENGTH * 2))
        for gpu in range(4):
            dims = {"provider": "acme", "region": "eu", "site": "s", "cluster": cluster, "sku": "gb300"}
            for n, at in enumerate(times(rng)):
                if (rng.random() < 0.1 or quiet[0] < at - START < quiet[1]) and n > 1:
                    continue
                sample: dict[str, Any] = {**dims, "gpu": f"{cluster}-{gpu}", "node": f"n{gpu // 2}"}
                sample["power_watts"] = rng.choice([0.1, 700.123, 1200, 0.0, -0.0])
                sample["xid"] = rng.randrange(3)
                if rng.random() < 0.9:
                    sample["utilization_ratio"] = rng.choice([0.0, 0.1, 0.3, 1e-6, 1])
                if rng.random() < 0.5:
                    sample["health"] = rng.choice(["ok", "ok", "ok", "degraded", "failed"])
                sample["energy_joules_total"] = 1000.0 * n + 1
                if gpu == 3:  # frozen
                    sample |= {
                        "power_watts": 1.0,
                        "xid": 0,
                        "utilization_ratio": 0.1,
                        "energy_joules_total": 9.0,
                    }
                source = f"/{cluster}/n{gpu // 2}"
                yield Event(GPU, at, source, f"{gpu}-{n}", sample, rng.random() * LATENESS * 0.99, source)
    yield from roamers(rng)


def roamers(rng: random.Random) -> Iterator[Event]:
    """GPUs that report now from one cluster and now from another, two of which have nothing else."""
    for gpu in range(2):
        cluster = "c1"
        for n, at in enumerate(times(rng)):
            if rng.random() < 0.25:
                cluster = rng.choice(["c1", "c2", "c3", "c4"])
            dims = {"provider": "acme", "region": "eu", "site": "s", "cluster": cluster, "sku": "gb300"}
            sample = {**dims, "gpu": f"roamer-{gpu}", "node": "r", "power_watts": 700.0}
            yield Event(GPU, at, "/r", f"r{gpu}-{n}", sample, rng.random() * LATENESS * 0.99, "/r")


def queues(rng: random.Random) -> Iterator[Event]:
    for queue in ("q1", "q2"):
        dims: dict[str, Any] = {
            "provider": "acme",
            "region": "eu",
            "cluster": "c1",
            "queue": queue,
            "workload_class": "w",
        }
        for n, at in enumerate(times(rng)):
            waits = [rng.choice([0, 0.0005, 1, 59.9, 60, 61, 4000.5]) for _ in range(rng.randrange(4))]
            sample = {**dims, "pending_jobs": rng.randrange(40), "oldest_wait_seconds": rng.random() * 100}
            sample["admission_wait_seconds"] = waits
            yield Event(QUEUE, at, f"/{queue}", str(n), sample, rng.random() * LATENESS * 0.99, queue)


def meters(rng: random.Random) -> Iterator[Event]:
    for feed in ("f1", "f2"):
        for n, at in enumerate(times(rng)):
            sample = {"provider": "acme", "region": "eu", "site": "s", "feed": feed}
            sample |= {"facility_power_watts": rng.choice([2e6, 3e6, 3.5e6]), "it_power_watts": 1e6 / 3}
            yield Event(ENERGY, at, f"/{feed}", str(n), sample, rng.random() * LATENESS * 0.99, feed)


def charges(rng: random.Random) -> Iterator[Event]:
    """Issued before the telemetry begins: billing holds nothing back, so when it is read would decide."""
    for n in range(rng.randrange(1, 8)):
        sample = {
            "ServiceProviderName": "acme",
            "RegionId": "eu",
            "SkuId": "gb300",
            "ChargeCategory": "Usage",
        }
        sample |= {
            "BillingCurrency": "EUR",
            "ResourceId": f"r{n % 2}",
            "BilledCost": f"{rng.randrange(40)}.10",
        }
        sample |= {
            "ChargePeriodStart": f"2026-09-{n + 1:02}T00:00:00Z",
            "ChargePeriodEnd": "2026-09-30T00:00:00Z",
        }
        yield Event(BILLING, START - 3600 + n, "/bill", str(rng.randrange(4)), sample, 0.0, "bill")


@dataclass
class Way:
    """One way for the events to come: partitions, order, batches, kills; and DuckDB's threads that take them in."""

    partitions: int = 1
    seed: int = 0
    order: bool = False
    pieces: int = 1
    kills: bool = False
    duplicates: bool = False
    threads: int = 1
    at_once: int | None = None
    records: dict[Place, list[ConsumerRecord]] = field(default_factory=dict)

    def lay_out(self, events: Iterable[Event]) -> None:
        """Append the events to partitions: by key, in the order of their times or of their delays."""
        rng = random.Random(self.seed)
        where: dict[str, int] = defaultdict(lambda: rng.randrange(self.partitions))
        late = (lambda e: e.at + e.delay) if self.order else (lambda e: e.at)
        for event in sorted(events, key=lambda e: (late(e), rng.random() if self.order else e.id)):
            again = 1 + (self.duplicates and rng.random() < 0.3)
            for _ in range(again):
                place = (event.topic, where[event.topic + event.key])
                own = self.records.setdefault(place, [])
                at = int((event.at + event.delay) * 1000)
                own.append(ConsumerRecord(*place, len(own), at, 1, None, event.value, None, -1, 1, HEADERS))

    def batches(self) -> Iterator[dict[Place, int]]:
        """How many records to take from each partition, until all are taken.  Charges come first."""
        rng = random.Random(self.seed + 1)
        left = {place: len(own) for place, own in self.records.items()}
        most = max(2, 2 * max(left.values()) // self.pieces)
        while any(left.values()):
            taken = dict(left)
            if self.pieces > 1:
                some = {p: rng.randrange(most) if rng.random() < 0.8 else 0 for p in left}
                taken = {p: n if p[0] == BILLING else min(n, some[p]) for p, n in left.items()}
            left = {p: n - taken[p] for p, n in left.items()}
            yield {p: n for p, n in taken.items() if n}


class Run:
    """Takes a `Way` into a ledger, as the intake does, and says what came of it."""

    def __init__(self, data: Path, plan: Plan | None, way: Way) -> None:
        self.data, self.plan, self.way = data, plan, way
        self.rng = random.Random(way.seed + 2)
        self.watermarks = Watermarks(CATALOG)
        self.open()
        for place in way.records:
            self.watermarks.assign(place, 0)
        self.answer()

    def open(self) -> None:
        self.ledger = Ledger(self.data, CATALOG, destinations=["somewhere"], threads=self.way.threads)
        self.ledger.plan = self.plan
        self.processor = Processor(self.ledger.con, CATALOG, self.data, 1_000_000)
        for event in CATALOG.types:
            reached = {
                part: at for (topic, part), at in self.ledger.progress().items() if topic == event.topic
            }
            self.processor.seen[event.topic].rebuild(self.data, reached)

    def answer(self) -> None:
        self.watermarks.answered({p: len(own) for p, own in self.way.records.items()}, START)

    def all(self) -> Run:
        for taken in self.way.batches():
            if self.way.kills and self.rng.random() < 0.3:
                self.process(taken)  # and killed before it is applied
                self.ledger.close()
                self.open()
            self.apply(self.process(taken))
        end = START + LENGTH + 600
        self.evaluate(self.ledger.tick, {t.topic: naive(end) for t in CATALOG.types})
        return self

    def evaluate(self, first: Callable[..., Applied], marks: Mapping[str, datetime]) -> None:
        """A transaction, and as many more as there are instants left, as the intake does it."""
        applied = first(marks, START, self.way.at_once)
        while applied.behind:
            applied = self.ledger.tick(marks, START, self.way.at_once)

    def process(self, taken: Mapping[Place, int]) -> Any:
        at = self.ledger.offsets()
        ranges = {p: (at.get(p, 0), at.get(p, 0) + n) for p, n in taken.items()}
        batch = Batch({p: self.way.records[p][lo:hi] for p, (lo, hi) in ranges.items()}, ranges)
        return processed(self.processor, batch, self.ledger.known_from(), self.ledger.progress())[0]

    def apply(self, delta: Any) -> None:
        reached = {place: at.replace(tzinfo=UTC).timestamp() for place, at in delta.progress.items()}
        self.watermarks.applied(delta.ranges, reached, START)
        marks = {topic: naive(at) for topic, at in self.watermarks.current(START).items()}
        self.evaluate(partial(self.ledger.apply, delta), marks)

    def rows(self, sql: str) -> list[Any]:
        return self.ledger.con.execute(sql).fetchall()

    def rollups(self) -> dict[str, list[Any]]:
        """Published roll-ups of every telemetry type and width, and what they are made of (with known_from)."""
        found = {}
        for event in CATALOG.types:
            if event.retained:
                continue
            for width in WIDTHS:
                name = f"{event.view}_{width.name}"
                found[name] = self.rows(partials_select(event, width, 0, 2**33))
                tables = [f"partials_{name}"] + [f"hist_{name}"] * bool(event.histograms)
                for table in tables:
                    merged = merge_select(event, table)
                    found[table] = self.rows(f"SELECT {merged} FROM {table} GROUP BY ALL ORDER BY ALL")
        charges = "SELECT * EXCLUDE (known_from) FROM charges ORDER BY source, id, idx, time"
        return {**found, "charges": self.rows(charges)}

    def judgements(self) -> dict[str, list[Any]]:
        """Alert history, live alerts, standing and its history, and what was to be delivered.

        What is told beside an alert (who is missing now, what the meters show) is what is known when it is told.
        """
        outbox = [json.loads(body) for (body,) in self.rows("SELECT body FROM outbox ORDER BY seq")]
        told = [{k: v for k, v in body.items() if k != "appended_at"} for body in outbox]
        for body in told:
            for beside in ("missing", "worst", "meters", "at_risk"):
                body["annotations"].pop(beside, None)
        return {
            "alerts": self.rows("SELECT * FROM alerts ORDER BY ALL"),
            "states": self.rows("FROM alert_state ORDER BY ALL"),
            "standing": self.rows("FROM standing ORDER BY ALL"),
            "readings": self.rows("FROM readings ORDER BY ALL"),
            "outbox": sorted(told, key=lambda body: json.dumps(body, sort_keys=True)),
        }


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    path = tmp_path_factory.mktemp("contract") / "acme.yaml"
    path.write_text(CONTRACT)
    return plan_of([load_contract(path)], CATALOG)


def run(base: pytest.TempPathFactory, plan: Plan | None, events: Sequence[Event], way: Way) -> Run:
    way = replace(way, records={})
    way.lay_out(events)
    done = Run(base.mktemp("run"), plan, way).all()
    return done


@contextlib.contextmanager
def runs(
    base: pytest.TempPathFactory, plan: Plan | None, events: Sequence[Event], *ways: Way
) -> Iterator[tuple[Run, ...]]:
    """The finished runs of the same events in each of these ways."""
    done: list[Run] = []
    try:
        for way in ways:
            way = replace(way, records={})
            way.lay_out(events)
            done.append(Run(base.mktemp("run"), plan, way).all())
        yield tuple(done)
    finally:
        for one in done:
            one.ledger.close()


@dataclass(frozen=True)
class Outcome:
    """What came of a world that was taken in whole."""

    rollups: str
    judgements: dict[str, list[Any]]
    changes: list[Any]


CHANGES = (
    "SELECT time, alertname, clause, labels, state, active_at, fired_at, resolved_at, observed, bound, samples "
    "FROM alerts ORDER BY ALL"
)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, plan: Plan) -> Callable[[int], Outcome]:
    """`reference(seed)`: what comes of that world at one go, from one partition."""

    @cache
    def found(seed: int) -> Outcome:
        with runs(tmp_path_factory, plan, world(seed), Way()) as (one,):
            outcome = Outcome(repr(one.rollups()), one.judgements(), one.rows(CHANGES))
        assert len(outcome.judgements["alerts"]) > 5, "a world in which nothing happens proves nothing"
        return outcome

    return found


VIEWS = {f"{event.view}_{width.name}" for event in CATALOG.types for width in WIDTHS}
WAYS = st.builds(
    Way,
    partitions=st.integers(1, 4),
    seed=st.integers(0, 2**32),
    order=st.booleans(),
    pieces=st.integers(2, 8),
    kills=st.booleans(),
    threads=st.sampled_from([1, 3]),
)
# a seed has no smaller form: shrinking would only take its time
HERE = {"suppress_health_check": list(HealthCheck), "phases": (Phase.explicit, Phase.reuse, Phase.generate)}


@settings(max_examples=8, **HERE)  # type: ignore[arg-type]
@given(seed=SEEDS, way=WAYS)
def test_partitions_batches_order_and_kills_change_no_bit_of_roll_ups_and_alerts(
    tmp_path_factory: pytest.TempPathFactory, plan: Plan, reference: Any, seed: int, way: Way
) -> None:
    with runs(tmp_path_factory, plan, world(seed), way) as (other,):
        expected, found = reference(seed), other.judgements()
        for name in expected.judgements:
            assert found[name] == expected.judgements[name], name
        assert repr(other.rollups()) == expected.rollups


@settings(max_examples=3, **HERE)  # type: ignore[arg-type]
@given(seed=SEEDS, way=WAYS, at_once=st.integers(1, 20))
def test_however_few_instants_a_transaction_evaluates_the_alerts_are_the_same(
    tmp_path_factory: pytest.TempPathFactory, plan: Plan, reference: Any, seed: int, way: Way, at_once: int
) -> None:
    with runs(tmp_path_factory, plan, world(seed), replace(way, at_once=at_once)) as (other,):
        expected, found = reference(seed).judgements, other.judgements()
        for name in expected:
            assert found[name] == expected[name], name


@settings(max_examples=3, **HERE)  # type: ignore[arg-type]
@given(seed=SEEDS, way=WAYS)
def test_what_is_sent_again_changes_nothing_but_the_note_on_it(
    tmp_path_factory: pytest.TempPathFactory, plan: Plan, reference: Any, seed: int, way: Way
) -> None:
    with runs(tmp_path_factory, plan, world(seed), replace(way, duplicates=True)) as (often,):
        once = reference(seed)
        assert often.rows("SELECT count(*) > 0 FROM fates WHERE fate = 'duplicate'") == [(True,)]
        assert repr(often.rollups()) == once.rollups
        assert often.rows(CHANGES) == once.changes
        assert often.judgements()["standing"] == once.judgements["standing"]


@settings(max_examples=3, **HERE)  # type: ignore[arg-type]
@given(seed=SEEDS, way=WAYS)
def test_late_events_give_the_same_roll_ups(
    tmp_path_factory: pytest.TempPathFactory, plan: Plan, seed: int, way: Way
) -> None:
    rng = random.Random(seed)
    late = [
        replace(e, delay=rng.choice([e.delay, 30, 3600]) if e.topic != BILLING else 0) for e in world(seed)
    ]
    with runs(tmp_path_factory, plan, late, Way(), replace(way, order=True)) as (reference, other):
        published, found = reference.rollups(), other.rollups()
        for name in [n for n in published if not n.endswith("_10s") or n in VIEWS]:  # all but known_from
            assert repr(found[name]) == repr(published[name]), name


@settings(max_examples=4, **HERE)  # type: ignore[arg-type]
@given(seed=SEEDS, way=WAYS)
def test_roll_ups_are_those_of_plain_python(
    tmp_path_factory: pytest.TempPathFactory, seed: int, way: Way
) -> None:
    rng = random.Random(seed)
    # in one delta windows of all widths begin and end, or of a few, or none
    apart = rng.choice([[0], [0, 900], [0, 3600, 40_000], [0, 86_400, 200_000]])
    events = [replace(e, at=e.at + rng.choice(apart)) for e in world(seed)]
    with runs(tmp_path_factory, None, events, way) as (done,):
        for topic in (GPU, QUEUE, ENERGY):
            event = CATALOG.by_topic(topic)
            own = [e for e in events if e.topic == topic]
            for width in WIDTHS:
                found = done.rows(partials_select(event, width, 0, 2**33))
                expected = list(by_hand(event, own, width.seconds))
                assert repr(found) == repr(expected), (topic, width.name)


def by_hand(event: EventType, events: Iterable[Event], seconds: int) -> Iterator[tuple[Any, ...]]:
    """Rows as published: window_start, dimensions, samples, distinct entities, then each measure's aggregates."""
    groups: dict[tuple[Any, ...], list[Event]] = defaultdict(list)
    for e in events:
        dims = tuple(e.sample.get(d.name) for d in event.dimensions)
        groups[(naive(int(e.at // seconds) * seconds), *dims)].append(e)
    absent_last = lambda key: [key[0], *((v is None, v or "") for v in key[1:])]  # noqa: E731
    for key in sorted(groups, key=absent_last):
        own = groups[key]
        distinct = list(distinct_by_hand(event, own))
        yield (
            *key,
            len(own),
            *distinct,
            *(v for m in event.measures for v in aggregates(m, own, seconds == 10)),
        )


def distinct_by_hand(event: EventType, events: Sequence[Event]) -> Iterator[int]:
    """Entities seen; and for each mark those that any of their samples gives it."""
    if event.entity:
        name = event.entity.name
        yield len({e.sample[name] for e in events})
        for mark in event.marks:
            yield len({e.sample[name] for e in events if marked(mark, e.sample)})


def marked(mark: Mark, sample: Mapping[str, Any]) -> bool:
    return any(passes(test, sample) for test in mark.tests)


def passes(test: MarkTest, sample: Mapping[str, Any]) -> bool:
    values = [sample[name] for name in test.of if name in sample]
    if any(name in sample for name in test.without):
        return False
    return any(v > test.above if test.above is not None else v in test.values for v in values)


def aggregates(measure: Measure, events: Sequence[Event], exact: bool) -> list[Any]:
    """mean, min, max, last, sum of a number; last of a text; count and quantiles of waits."""
    present = [e for e in events if measure.name in e.sample]
    newest = max(present, key=lambda e: (e.at, e.source, e.id), default=None)
    last = newest.sample[measure.name] if newest else None
    if measure.kind == "text":
        return [last]
    if measure.kind == "histogram":
        return quantiles(sorted(float(v) for e in present for v in e.sample[measure.name]), exact)
    if not present:
        return [None] * 5
    values = [float(e.sample[measure.name]) + 0.0 for e in present]
    inverse = int(1 / measure.quantum)
    quanta = sum(half_away(v * float(inverse)) for v in values)
    mean, total = float(quanta) / (float(inverse) * len(values)), float(quanta) / float(inverse)
    return [mean, min(values), max(values), float(last) + 0.0, total]


def half_away(value: float) -> int:
    return int(math.copysign(math.floor(abs(value) + 0.5), value))


def quantiles(ordered: list[float], exact: bool) -> list[Any]:
    """Nearest rank; where only a row a bucket is kept, the greatest that shares it, or the first if it is that."""
    if not ordered:
        return [0, None, None, None]
    found = []
    for q in (50, 95, 99):
        at = -(-q * len(ordered) // 100) - 1
        shared = [i for i, v in enumerate(ordered) if upper_bound(v) == upper_bound(ordered[at])]
        found.append(ordered[at] if exact or at == shared[0] else ordered[shared[-1]])
    return [len(ordered), *found]


def upper_bound(value: float) -> float:
    """Of the bucket `(2^(b/32), 2^((b+1)/32)]` that holds the value; up to 1 ms are one."""
    return 0.001 if value <= 0.001 else 2.0 ** ((math.ceil(math.log2(value) * 32) - 1 + 1) / 32.0)


@settings(max_examples=60, **HERE)  # type: ignore[arg-type]
@given(values=st.lists(st.floats(0, 31536000), min_size=1, max_size=60), q=st.sampled_from([50, 95, 99]))
def test_a_quantile_is_above_the_true_one_by_less_than_a_bucket(values: list[float], q: int) -> None:
    con = duckdb.connect()
    given_values = ", ".join(f"{v!r}::DOUBLE" for v in values)
    buckets = f"SELECT {bucket_sql('v')} AS bucket, count(*) AS n FROM (SELECT unnest([{given_values}]) AS v) GROUP BY 1"
    ranked = f"SELECT bucket, sum(n) OVER (ORDER BY bucket) AS upto FROM ({buckets})"
    rank = -(-q * len(values) // 100)
    row = con.execute(
        f"SELECT {upper_bound_sql('min(bucket)')} FROM ({ranked}) WHERE upto >= {rank}"
    ).fetchall()
    true, found = sorted(values)[rank - 1], row[0][0]
    width = 2 ** (1 / 32)
    assert true <= found * (1 + 1e-12)
    assert found == 0.001 if true <= 0.001 else found < true * width * (1 + 1e-12)


class Logged(Run):
    """A run that keeps what it applied: deltas and ticks, each with its watermarks."""

    def __init__(self, data: Path, plan: Plan | None, way: Way) -> None:
        self.log: list[tuple[Delta, Mapping[str, datetime]]] = []
        super().__init__(data, plan, way)

    def evaluate(self, first: Callable[..., Applied], marks: Mapping[str, datetime]) -> None:
        self.log.append((first.args[0] if isinstance(first, partial) else Delta(), marks))
        super().evaluate(first, marks)


class Replica:
    """A ledger that applies what another has logged; it has a copy of the segments, as if from a store."""

    def __init__(self, data: Path, origin: Logged) -> None:
        self.ledger = Ledger(data, CATALOG, destinations=["somewhere"], threads=origin.way.threads)
        self.ledger.plan, self._origin = origin.plan, origin

    def follow(self, through: Callable[[Delta], Delta]) -> Replica:
        copytree(self._origin.data / "segments", self.ledger.data / "segments", dirs_exist_ok=True)
        for delta, marks in self._origin.log:
            applied = self.ledger.apply(through(delta), marks, START, self._origin.way.at_once)
            while applied.behind:
                applied = self.ledger.tick(marks, START, self._origin.way.at_once)
        return self

    def rows(self, sql: str) -> list[Any]:
        return self.ledger.con.execute(sql).fetchall()


@settings(max_examples=3, **HERE)  # type: ignore[arg-type]
@given(seed=SEEDS, way=WAYS.map(lambda way: replace(way, kills=False)))
def test_ledgers_that_apply_the_same_deltas_and_ticks_are_bit_equal_and_a_delta_is_its_bytes(
    tmp_path_factory: pytest.TempPathFactory, plan: Plan, seed: int, way: Way
) -> None:
    way = replace(way, records={})
    way.lay_out(world(seed))
    origin = Logged(tmp_path_factory.mktemp("origin"), plan, way)
    replicas = [Replica(tmp_path_factory.mktemp("replica"), origin) for _ in range(2)]
    try:
        origin.all()
        expected = contents(origin)
        assert expected["alerts"] and expected["bits_gpu_10s"] and expected["charges"]
        for replica, through in zip(replicas, (lambda d: d, again), strict=True):
            found = contents(replica.follow(through))
            for table in expected:
                assert repr(found[table]) == repr(expected[table]), table
    finally:
        for each in (origin, *replicas):
            each.ledger.close()


def again(delta: Delta) -> Delta:
    return Delta.from_ipc(delta.to_ipc())


@pytest.fixture
def begun(tmp_path: Path, plan: Plan) -> Iterator[Run]:
    """A run of one small world, of which nothing is taken in yet."""
    way = Way()
    way.lay_out(list(gpus(random.Random(1))))
    run = Run(tmp_path / "data", plan, way)
    yield run
    run.ledger.close()


def contents(run: Run | Replica) -> dict[str, list[Any]]:
    """Everything that the ledger holds."""
    tables = run.rows("SELECT table_name FROM duckdb_tables() WHERE NOT temporary ORDER BY 1")
    return {name: run.rows(f"FROM {name} ORDER BY ALL") for (name,) in tables}


def test_a_delta_applied_before_is_refused_without_effect(begun: Run) -> None:
    place = (GPU, 0)
    delta = begun.process({place: 5})
    begun.apply(delta)
    before = contents(begun)
    with pytest.raises(
        LedgerError, match=r"covers offsets \[0, 5\), but the ledger stands at 5; nothing was changed"
    ):
        begun.apply(delta)
    assert contents(begun) == before
    begun.apply(begun.process({place: 5}))
    assert begun.ledger.offsets() == {place: 10}


def test_a_delta_that_leaves_a_gap_is_refused_without_effect(begun: Run) -> None:
    place = (GPU, 0)
    begun.apply(begun.process({place: 5}))
    later = replace(begun.process({place: 5}), ranges={place: (7, 12)})
    before = contents(begun)
    with pytest.raises(LedgerError, match=r"\[7, 12\), but the ledger stands at 5"):
        begun.apply(later)
    assert contents(begun) == before


def test_a_writer_whose_generation_is_gone_changes_nothing_any_more(begun: Run) -> None:
    place = (GPU, 0)
    delta = begun.process({place: 5})
    begun.rows("UPDATE meta SET value = '99' WHERE key = 'generation'")
    before = contents(begun)
    with pytest.raises(StaleGeneration, match=r"generation 99, this one is 1.*stop one of the two"):
        begun.apply(delta)
    with pytest.raises(StaleGeneration):
        begun.ledger.tick({GPU: naive(START + 1000)}, START)
    with pytest.raises(StaleGeneration):
        begun.ledger.record_own({}, [], START)
    assert contents(begun) == before


def test_a_batch_processed_again_after_a_kill_counts_once(begun: Run) -> None:
    place = (GPU, 0)
    n = len(begun.way.records[place])
    for _ in range(3):
        begun.process({place: n})  # its segment is written, its delta never applied
        begun.ledger.close()
        begun.open()
        recover(begun.ledger.cursor(), begun.data)  # the next step of every start
        assert list((begun.data / "segments").iterdir()) == []
    begun.apply(begun.process({place: n}))
    assert begun.rows("SELECT sum(samples)::INTEGER FROM partials_gpu_1d") == [(n,)]
    counted = "SELECT DISTINCT sum(n)::INTEGER FROM fates GROUP BY fate, reason"
    assert begun.rows(counted) == [(n,)]
    assert begun.rows("SELECT sum(rows)::INTEGER, count(*) FROM segments") == [(n, 1)]


def test_rows_count_from_the_instant_at_which_their_delta_is_applied_not_made(begun: Run) -> None:
    delta = begun.process({(GPU, 0): 5})
    begun.ledger.tick({GPU: naive(START + 900)}, START)
    begun.ledger.apply(again(delta), {}, START)
    counts = [(naive(START + 900 // 10 * 10 + 10),)]
    for table in ("partials_gpu_10s", "bits_gpu_10s", "seen_gpu", "flow_gpu", "segments"):
        assert begun.rows(f"SELECT DISTINCT known_from FROM {table}") == counts, table
    seal.seal(begun.ledger.cursor(), begun.data, CATALOG)
    [path] = (begun.data / "history" / GPU).rglob("*.parquet")
    assert begun.rows(f"SELECT DISTINCT known_from FROM '{path}'") == counts


@given(
    texts=st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=4),
    at=st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31)),
    rows=st.lists(st.integers(0, 2**64 - 1), max_size=5),
)
def test_a_delta_is_what_its_bytes_say(texts: list[str], at: datetime, rows: list[int]) -> None:
    [topic, *_, last] = [texts[0], *texts]
    delta = Delta(
        ranges={(topic, 3): (5, 2**62)},
        progress={(topic, 3): at},
        added=(Addition("gpu", series=pa.table({"series": pa.array(rows, pa.uint64())})), Addition("queue")),
        written=lambda: (Segment(last, topic, 7, at, at, topic),),
        fates=tuple(Fate(topic, 0, at, "in", text, n) for n, text in enumerate(texts)),
        set_aside=(AsideCount(topic, 1, at, last, topic, 2),),
        reported={(topic, last): last},
    )
    assert all(getattr(delta, each.name) for each in fields(Delta)), "a field that is empty proves nothing"
    found = again(delta)
    assert found.written() == delta.written()
    assert (found.ranges, found.progress) == (delta.ranges, delta.progress)
    assert (found.fates, found.set_aside) == (delta.fates, delta.set_aside)
    assert found.reported == delta.reported
    assert [one.view for one in found.added] == ["gpu", "queue"]
    assert [one.tables for one in found.added] == [one.tables for one in delta.added]


@pytest.mark.parametrize("data", [b"", b"not a delta", b"{}" * 99])
def test_bytes_that_are_no_delta_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        Delta.from_ipc(data)


def test_a_watermark_never_goes_back(begun: Run) -> None:
    begun.ledger.tick({GPU: naive(START + 60)}, START)
    begun.ledger.tick({GPU: naive(START + 30)}, START)
    assert begun.ledger.watermarks() == {GPU: naive(START + 60)}
    assert begun.ledger.known_from()[GPU] == naive(START + 60 // 10 * 10 + 10)


# Where evaluation begins


def take(run: Run, *events: Event, **marks: float) -> Mapping[str, tuple[int, int]]:
    """Take in a batch of these events of one topic, and move the watermarks of `gpu=…, energy=…`."""
    watermarks = {CATALOG.by_view(view).topic: naive(at) for view, at in marks.items()}
    place = (events[0].topic, 0)
    lo = run.ledger.offsets().get(place, 0)
    records = [
        ConsumerRecord(*place, lo + n, int(START * 1000), 1, None, e.value, None, -1, 1, HEADERS)
        for n, e in enumerate(events)
    ]
    batch = Batch({place: records}, {place: (lo, lo + len(records))})
    delta = processed(run.processor, batch, run.ledger.known_from(), run.ledger.progress())[0]
    return run.ledger.apply(delta, watermarks, START).due


def gpu_event(at: float, id: str = "1") -> Event:
    sample = {
        "provider": "a",
        "region": "eu",
        "site": "s",
        "cluster": "c1",
        "sku": "x",
        "gpu": "g",
        "node": "n",
    }
    return Event(GPU, at, "/n", id, sample)


def meter_event(at: float) -> Event:
    sample = {"provider": "a", "region": "eu", "site": "s", "feed": "f1", "facility_power_watts": 1.0}
    return Event(ENERGY, at, "/f", "1", sample)


def group_of(due: Mapping[str, Any], *topics: str) -> Any:
    """The range of the group that reads exactly these topics."""
    return next((span for group, span in due.items() if set(group.split("+")) == set(topics)), None)


def test_evaluation_begins_where_the_data_does_however_much_comes_at_once(begun: Run) -> None:
    due = take(begun, gpu_event(START + 3), gpu_event(START + 200, "2"), gpu=START + 195)
    assert group_of(due, GPU) == (START, START + 190)


def test_a_clause_waits_for_a_topic_whose_first_records_wait_and_then_begins_where_the_data_does(
    begun: Run,
) -> None:
    due = take(begun, gpu_event(START + 3), gpu_event(START + 200, "2"), gpu=START + 195, energy=0)
    assert group_of(due, GPU) == (START, START + 190)
    assert group_of(due, GPU, ENERGY) is None
    due = take(begun, meter_event(START + 25), gpu=START + 195, energy=START + 100)
    assert group_of(due, GPU, ENERGY) == (START, START + 100)


def test_a_clause_does_not_wait_for_a_topic_that_is_empty(begun: Run) -> None:
    due = take(begun, gpu_event(START + 3), gpu=START + 95)
    assert group_of(due, GPU, ENERGY) == (START, START + 90)


def test_a_clause_that_is_new_to_a_running_pipeline_begins_where_the_pipeline_is(begun: Run) -> None:
    begun.ledger.plan, full = plan_of([], CATALOG), begun.ledger.plan
    take(begun, gpu_event(START + 3), gpu=START + 95)
    begun.ledger.plan = full
    due = take(begun, gpu_event(START + 103, "2"), gpu=START + 105)
    assert group_of(due, GPU, ENERGY) == (START + 90, START + 100)


def test_a_clock_that_starts_in_1970_does_not_make_the_first_evaluation_walk_through_decades(
    begun: Run,
) -> None:
    due = take(begun, gpu_event(7), gpu_event(START + 3, "2"), gpu=START + 95)
    assert group_of(due, GPU) == (START, START + 90)
    assert begun.rows("SELECT sum(samples)::INTEGER FROM partials_gpu_1d") == [(2,)]


def test_delays_count_from_the_record_that_moved_the_watermark_and_from_active_at_plus_for(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """The log is read in one go or in many; what a delay is measured from does not change."""
    path = tmp_path_factory.mktemp("contract") / "acme.yaml"
    path.write_text(
        CONTRACT[: CONTRACT.index("capacity:")] + "capacity: [{id: none, ceiling_gpus: 0, for: 25s}]"
    )
    dims = {
        "provider": "acme",
        "region": "eu",
        "site": "s",
        "cluster": "c",
        "sku": "gb300",
        "gpu": "g",
        "node": "n",
    }
    events = [Event(GPU, START + 3 * n, "/c", str(n), dims, 0.25 + n % 3) for n in range(60)]
    with runs(
        tmp_path_factory, plan_of([load_contract(path)], CATALOG), events, Way(), Way(pieces=9)
    ) as done:
        for one in done:
            [body] = [
                found
                for (text,) in one.rows("SELECT body FROM outbox")
                if (found := json.loads(text))["kind"] == "firing" and found["alertname"] != "TelemetrySilent"
            ]
            assert body["fired_at"] == body["active_at"] + 30, "the first instant of the grid after 25 s"
            assert body["due_at"] == body["active_at"] + 25
            moved = next(e for e in events if e.at >= body["fired_at"] + LATENESS)
            assert body["appended_at"] == moved.at + moved.delay
