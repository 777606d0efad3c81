"""Readings from the ledger's tables, against a plain Python oracle that looks at every event at every instant."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, get_args

import duckdb
import pyarrow as pa
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from pipeline import catalog as catalogs
from pipeline.catalog import Catalog, EventType, Measure
from pipeline.clauses.tranches import TrancheClause, forecast
from pipeline.contract.money import EXACT, total
from pipeline.ledger.raw_rows import RawRows
from pipeline.ledger.reader import Reader
from pipeline.ledger.seen import fold_seen, note_seen, seen_ddl
from pipeline.ledger.sightings import fold_sightings, share_all
from pipeline.ledger.tables import create
from pipeline.readings import (
    SPECS,
    EntityCount,
    FateBalance,
    FleetPower,
    Group,
    Instant,
    LastSum,
    MeterMean,
    Reading,
    Readings,
    ReadingSpec,
    SilentSeries,
    TrancheSpend,
    WaitQuantile,
    weights,
)
from pipeline.readings.entity_count import Counts
from pipeline.readings.together import together
from pipeline.readings.whereabouts import KEPT
from pipeline.rollup.aggregate import BLOCK_BITS
from pipeline.rollup.delta import Fate
from pipeline.rollup.histogram import bucket_sql
from pipeline.views.published import raw_columns

CATALOG: Catalog = catalogs.load()
T = 1_780_000_000 - 1_780_000_000 % 86_400
GPU, QUEUE, ENERGY, BILLING = "telemetry.gpu", "telemetry.queue", "telemetry.energy", "telemetry.billing"
STOP = 35


@dataclass(frozen=True)
class Event:
    """A sample: `time` in seconds after T, `known` the instant from which it counts, in seconds after T."""

    view: str
    series: int
    time: float
    known: int
    entity: str = ""
    numbers: tuple[tuple[str, float], ...] = ()
    health: str | None = None
    waits: tuple[float, ...] = ()
    n: int = 0
    interval: int | None = None

    @property
    def window(self) -> int:
        return int(self.time // 10) * 10


DIMENSIONS: dict[str, dict[int, tuple[str | None, ...]]] = {
    "gpu": {
        1: ("azure", "eu", "s1", "c1", "H100", None, None),
        2: ("azure", "eu", "s1", "c2", "H100", "nv1", None),
        3: ("azure", "us", "s2", "c3", "GB300", None, "eu-only"),
    },
    "queue": {
        1: ("azure", "eu", "c1", "plan", "training", None),
        2: ("azure", "us", "c3", "plan", "training", None),
    },
    "energy": {1: ("azure", "eu", "s1", "a"), 2: ("azure", "eu", "s1", "b"), 3: ("azure", "us", "s2", "a")},
}


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(T + seconds, UTC).replace(tzinfo=None)


@cache
def _tables() -> duckdb.DuckDBPyConnection:
    """One in-memory ledger for the module: making its tables takes longer than an example."""
    con = duckdb.connect()
    con.execute("SET threads = 2")
    create(con, CATALOG)
    for event_type in CATALOG.types:
        for statement in () if event_type.retained else seen_ddl(event_type.view):
            con.execute(statement)
    con.execute("BEGIN")
    return con


class Told(RawRows):
    """The raw rows of the events that the module's ledger was filled with: they are in no files."""

    events: tuple[Event, ...] = ()

    def fetch(self, event: EventType, measure: Measure, start: int, end: int, series: Sequence[int]) -> None:
        names = {"series": pa.uint64(), "entity": pa.string(), "w": pa.int64(), "k": pa.int64()}
        schema = pa.schema({**names, "total": pa.int64(), "n": pa.int64()})
        rows = [
            {
                "series": e.series,
                "entity": named(e.series, e.entity),
                "w": (T + e.window) // 10,
                "k": (T + max(e.known, e.window + 10)) // 10,
                "total": int(Decimal(str(dict(e.numbers).get(measure.name, 0))) / measure.quantum),
                "n": int(measure.name in dict(e.numbers)),
            }
            for e in self.events
            if e.view == event.view and e.series in series
            if start <= T + e.window < end
        ]
        found = pa.Table.from_pylist(rows, schema=schema)  # noqa: F841 DuckDB finds it by its name
        self._con.execute(f"CREATE OR REPLACE TEMP TABLE raw_{event.view} AS SELECT * FROM found")


@cache
def told() -> Told:
    return Told(_tables(), Path("nowhere"))


def read(con: duckdb.DuckDBPyConnection, spec: ReadingSpec, t0: int, t1: int, catalog: Catalog) -> Readings:
    return Reader(con, catalog, told()).read(spec, t0, t1)


def ledger(events: Iterable[Event] = ()) -> duckdb.DuckDBPyConnection:
    """The module's ledger with `events` and nothing else: what the last example wrote is rolled back."""
    con = _tables()
    told().events = tuple(events)
    con.execute("ROLLBACK")
    con.execute("BEGIN")
    for event_type in CATALOG.types:
        fill(con, event_type, [e for e in events if e.view == event_type.view])
    return con


def fill(con: duckdb.DuckDBPyConnection, event_type: EventType, events: list[Event]) -> None:
    view = event_type.view
    for series in sorted({e.series for e in events}):
        con.execute(
            f"INSERT INTO series_{view} VALUES (?, {', '.join('?' * len(event_type.dimensions))})",
            [series, *DIMENSIONS[view][series]],
        )
    partials: dict[tuple[int, int, int], list[Event]] = defaultdict(list)
    for event in events:
        partials[event.series, event.window, max(event.known, event.window + 10)].append(event)
    for (series, window, known), found in partials.items():
        _fill_partial(con, event_type, series, window, known, found)
    if event_type.entity and not event_type.retained:
        for series, entity in sorted({(e.series, e.entity) for e in events}):
            name = named(series, entity)
            con.execute(f"INSERT INTO entities_{view} VALUES (?, ?, ?)", [series, name, int(entity[1:])])
        share_all(con, event_type)


def named(series: int, entity: str) -> str:
    """The name of a GPU: `m1` is the same GPU in every series, `g1` another one in each."""
    return entity if entity.startswith("m") else f"{series}-{entity}"


def _fill_partial(
    con: duckdb.DuckDBPyConnection,
    event_type: EventType,
    series: int,
    window: int,
    known: int,
    found: list[Event],
) -> None:
    view = event_type.view
    row: dict[str, Any] = {
        "series": series,
        "window_start": at(window),
        "known_from": at(known),
        "samples": len(found),
        "last_time": at(max(e.time for e in found)),
        "interval": max((e.interval for e in found if e.interval), default=None),
    }
    for measure in event_type.numbers:
        values = [
            (e.time, e.n, dict(e.numbers)[measure.name]) for e in found if measure.name in dict(e.numbers)
        ]
        row[f"{measure.name}_count"] = len(values)
        if values:
            quanta = [int((Decimal(str(v)) / measure.quantum).to_integral_value()) for _, _, v in values]
            row[f"{measure.name}_sum"] = sum(quanta)
            time, n, value = max(values)
            row[f"{measure.name}_last"] = {
                "time": at(time),
                "source": "s",
                "id": str(n),
                "idx": 0,
                "value": value,
            }
    con.execute(
        f"INSERT INTO partials_{view}_10s BY NAME SELECT {', '.join(f'${c} AS {c}' for c in row)}", row
    )
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE delta_partials AS SELECT * EXCLUDE (known_from) FROM partials_{view}_10s "
        "WHERE (series, window_start, known_from) = ($series, $window_start, $known_from)",
        {name: row[name] for name in ("series", "window_start", "known_from")},
    )
    note_seen(con, event_type, at(known))
    if event_type.entity:
        _fill_bits(con, view, series, window, known, found)
    for wait in (w for e in found for w in e.waits):
        con.execute(
            f"INSERT INTO hist_{view}_10s SELECT ?, ?, ?, 'admission_wait_seconds', {bucket_sql('x')}, 1, x, x "
            "FROM (SELECT ?::DOUBLE AS x)",
            [series, at(window), at(known), wait],
        )


def _fill_bits(
    con: duckdb.DuckDBPyConnection, view: str, series: int, window: int, known: int, found: list[Event]
) -> None:
    """GPU g1 is bit 1 of block 0, g5000 a bit of block 9."""
    blocks: dict[int, list[Event]] = defaultdict(list)
    for event in found:
        blocks[int(event.entity[1:]) // BLOCK_BITS].append(event)
    for block, members in blocks.items():
        sets = [
            bits(int(e.entity[1:]) % BLOCK_BITS for e in members if test(e))
            for test in (
                lambda e: True,
                lambda e: e.health in ("degraded", "failed"),
                lambda e: dict(e.numbers).get("utilization_ratio", 0) > 0.05,
            )
        ]
        con.execute(
            f"INSERT INTO bits_{view}_10s BY NAME SELECT ? AS series, ?::TIMESTAMP AS window_start, "
            "?::TIMESTAMP AS known_from, ? AS block, ?::BIT AS observed, ?::BIT AS unhealthy, ?::BIT AS in_use",
            [series, at(window), at(known), block, *sets],
        )


def bits(set_bits: Iterable[int]) -> str:
    text = ["0"] * BLOCK_BITS
    for bit in set_bits:
        text[bit] = "1"
    return "".join(text)


# --- the oracle -----------------------------------------------------------------------------------------------


def known(events: Iterable[Event], t: int) -> list[Event]:
    return [e for e in events if max(e.known, e.window + 10) <= t]


def live(events: list[Event], series: int, t: int) -> bool:
    return any(e.series == series and e.time >= t - STOP for e in known(events, t))


def within(events: list[Event], series: int, t: int, span: int) -> list[Event]:
    return [e for e in known(events, t) if e.series == series and e.window >= t - span]


def count(events: list[Event], series: int, t: int, span: int, counts: str) -> float:
    seen = within(events, series, t, span)
    gpus = {e.entity for e in seen if home(events, e.entity, t, span) in (None, series)}
    if counts == "healthy":
        gpus -= {e.entity for e in seen if e.health in ("degraded", "failed")}
    if counts == "in_use":
        gpus &= {e.entity for e in seen if dict(e.numbers).get("utilization_ratio", 0) > 0.05}
    return len(gpus)


def home(events: list[Event], entity: str, t: int, span: int) -> int | None:
    """The series that a GPU counts in, of those that saw it within `span`; None for one that is in one only."""
    if not entity.startswith("m"):
        return None
    seen = [e for e in known(events, t) if e.entity == entity and e.window >= t - KEPT]
    last = {s: max(e.window for e in seen if e.series == s) for s in {e.series for e in seen}}
    newest = max(last.values(), default=0)
    rivals = [s for s, window in last.items() if window > newest - 30 and window >= t - span]
    return max(rivals, key=lambda s: (heard(events, s, t), by_name(s)), default=None)


def heard(events: list[Event], series: int, t: int) -> float:
    """When a series was heard last, for one that is silent."""
    return (
        math.inf if live(events, series, t) else max(e.time for e in known(events, t) if e.series == series)
    )


def by_name(series: int) -> tuple[str, ...]:
    return tuple(value or "" for value in DIMENSIONS["gpu"][series])


def last_live(events: list[Event], series: int, t: int) -> int | None:
    first = int(min(e.time for e in events if e.series == series) // 10) * 10
    return next((u for u in range(t, first - 1, -10) if live(events, series, u)), None)


def last_said(events: list[Event], series: int, t: int, span: int, measure: str) -> int | None:
    """The last instant at which `measure` stood in the span, by what is known at `t`."""
    own = [e for e in known(events, t) if e.series == series and measure in dict(e.numbers)]
    counted = [
        (max(e.window + span, int(e.time + STOP) // 10 * 10), max(e.known, e.window + 10)) for e in own
    ]
    return max((until for until, known_from in counted if until >= known_from), default=None)


def oracle(
    events: list[Event], t: int, value: Any, loss_after: int = 300, measure: str = "", span: int = 0
) -> tuple[float, float, float]:
    """(delivered, silent, lost) summed over all series, by looking at everything.

    With a `measure`, a series that reports without it for the span is mute: what it said last is carried.
    """
    delivered = silent = lost = 0.0
    everyone = {e.series for e in events}
    for series in everyone:
        own = [e for e in known(events, t) if e.series == series]
        alive = live(events, series, t)
        said = last_said(events, series, t, span, measure) if measure else t
        if alive and (said is None or said < t):
            own = [e for e in own if measure in dict(e.numbers)]
        heard = [e.time for e in own]
        if not heard or t - max(heard) > 86_400:
            continue
        if alive and said is not None and said >= t:
            delivered += value(series, t)
            continue
        before = said if alive else last_live(events, series, t)
        if measure and not alive and before is not None and said is not None and said < min(t, before):
            before = said
        carried = value(series, before) if before is not None else 0.0
        flowed = all(
            any(live(events, other, u) for other in everyone) for u in range(t - loss_after + 10, t + 1, 10)
        )
        if t - max(heard) > loss_after and flowed:
            lost += carried
        else:
            silent += carried
    return delivered, silent, lost


# --- random histories -----------------------------------------------------------------------------------------

_lateness = st.sampled_from([0, 0, 0, 10, 60, 400])


@st.composite
def gpu_events(draw: st.DrawFn, names: tuple[str, ...] = ("g0", "g1", "g2", "g4095", "g5000")) -> list[Event]:
    """Bursts of samples over 15 minutes: series that stop, come back, and rows that come late."""
    events = []
    for n in range(draw(st.integers(1, 25))):
        time = draw(st.integers(0, 900)) + draw(st.sampled_from([0.0, 0.001, 0.999]))
        numbers = (("utilization_ratio", draw(st.sampled_from([0.0, 0.05, 0.051, 0.9]))),)
        if draw(st.booleans()):
            numbers = (*numbers, ("power_watts", draw(st.integers(0, 900_000)) / 1000))
        events.append(
            Event(
                "gpu",
                draw(st.integers(1, 3)),
                time,
                int(time // 10) * 10 + 10 + draw(_lateness),
                draw(st.sampled_from(names)),
                numbers,
                draw(st.sampled_from([None, "ok", "ok", "degraded", "failed"])),
                n=n,
            )
        )
    return events


RANGES = st.sampled_from([(0, 1300), (100, 110), (430, 440), (300, 700), (890, 1200), (1290, 1300)])
ORACLE = settings(max_examples=30, deadline=None, phases=[Phase.explicit, Phase.generate])
SQL = settings(max_examples=15, deadline=None, phases=[Phase.explicit, Phase.generate])


@ORACLE
@given(
    gpu_events(), RANGES, st.sampled_from([90, 30, 200]), st.sampled_from(["observed", "healthy", "in_use"])
)
def test_gpus_are_counted_exactly_with_the_silent_carried_and_the_lost_told(
    events: list[Event], instants: tuple[int, int], span: int, counts: Any
) -> None:
    con = ledger(events)
    t0, t1 = instants
    found = read(con, EntityCount(GPU, (), (), span, counts), T + t0, T + t1, CATALOG)
    for t in range(t0 + 10, t1 + 1, 10):
        expected = oracle(events, t, lambda s, u: count(events, s, u, span, counts))
        rows = found.at(T + t)
        assert len(rows) <= 1
        got = (rows[0].value, rows[0].silent, rows[0].lost) if rows else (0.0, 0.0, 0.0)
        assert got == expected, t
        for way, n in zip(
            ("observed", "healthy", "in_use"), rows[0].counts or () if rows else (), strict=False
        ):
            said, _, _ = oracle(events, t, lambda s, u, way=way: count(events, s, u, span, way))  # type: ignore[misc]
            assert n == said, (t, way)
        counted = [e for s in (1, 2, 3) if live(events, s, t) for e in within(events, s, t, span)]
        if counted:
            turn = any(e.window <= t - 40 for e in counted)
            assert rows[0].settled == (turn or span < 40), t


MOVERS = gpu_events(("g0", "m1", "m2", "m5000"))


@ORACLE
@given(MOVERS, RANGES, st.sampled_from([90, 30, 200]), st.sampled_from(["observed", "healthy", "in_use"]))
def test_a_gpu_seen_in_several_series_counts_once_where_it_was_seen_last_and_is_not_missed_elsewhere(
    events: list[Event], instants: tuple[int, int], span: int, counts: Any
) -> None:
    con = ledger(events)
    t0, t1 = instants
    found = read(con, EntityCount(GPU, (), ("cluster",), span, counts, 9000), T + t0, T + t1, CATALOG)
    quiet = read(con, SilentSeries(GPU), T + t0, T + t1, CATALOG)
    moved: set[tuple[int, float]] = set()
    for t in range(t0 + 10, t1 + 1, 10):
        rows = {row.by[0]: row for row in found.at(T + t)}
        silent = set()
        for series, names in DIMENSIONS["gpu"].items():
            row = rows.get(str(names[3]))
            delivered = carried = 0.0
            times = [e.time for e in known(events, t) if e.series == series]
            if times and live(events, series, t):
                delivered = count(events, series, t, span, counts)
            elif times and not left(events, series, t, moved):
                carried = missed(events, series, t, span, counts)
                silent.add(str(names[3]))
            assert (row.value, row.silent) == (delivered, carried) if row else not delivered, (t, series)
        assert {row.by[3] for row in quiet.at(T + t)} == silent, t


def left(events: list[Event], series: int, t: int, moved: set[tuple[int, float]]) -> bool:
    """Whether all that a silent series had in its last 90 s live on elsewhere; `moved` remembers that they did."""
    last = max(e.time for e in known(events, t) if e.series == series)
    own = {e.entity for e in known(events, t) if e.series == series and e.window > last - 90}
    if own <= away(events, series, t):
        moved.add((series, last))
    return (series, last) in moved


def away(events: list[Event], series: int, t: int) -> set[str]:
    return {e.entity for e in events if home(events, e.entity, t, KEPT) not in (None, series)}


def missed(events: list[Event], series: int, t: int, span: int, counts: str) -> float:
    """What a silent series had when it was last heard, less what is elsewhere now."""
    before = last_live(events, series, t)
    if before is None:
        return 0.0
    gone = away(events, series, t)
    return count(
        [e for e in events if e.series == series and e.entity not in gone], series, before, span, counts
    )


@SQL
@given(
    st.one_of(gpu_events(), MOVERS),
    st.sampled_from([(0, 70), (400, 470), (880, 950)]),
    st.sampled_from([1, 7, 40_000]),
)
def test_a_range_read_at_once_is_what_its_instants_read_one_by_one_say(
    events: list[Event], instants: tuple[int, int], spread: int
) -> None:
    con = ledger(events)
    t0, t1 = instants
    specs = [
        EntityCount(GPU, (), ("region", "nvlink_domain"), 90),
        FleetPower(GPU, "power_watts", (("provider", ("azure",)),), ("region",), 60),
        SilentSeries(GPU, (("power_watts", 60),)),
    ]
    for spec in specs:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("pipeline.readings.span.SPREAD", spread)
            whole = read(con, spec, T + t0, T + t1, CATALOG)
        for t in range(t0 + 10, t1 + 1, 10):
            reader = Reader(con, CATALOG, told())
            alone = reader.read(spec, T + t - 10, T + t)
            reader.note_decided()
            assert list(whole.at(T + t)) == list(alone.at(T + t)), (spec, t)
        con.execute("DELETE FROM moved_gpu")


@ORACLE
@given(st.one_of(gpu_events(), MOVERS), st.integers(10, 120).map(lambda n: n * 10))
def test_folding_what_was_seen_changes_no_later_reading(events: list[Event], folded: int) -> None:
    spec = EntityCount(GPU, (), ("cluster",), 90)
    con = ledger(events)
    before = read(con, spec, T + folded, T + 1300, CATALOG)
    silent_before = read(con, SilentSeries(GPU), T + folded, T + 1300, CATALOG)
    fold_seen(con, CATALOG.by_view("gpu"), T + folded)
    fold_sightings(con, CATALOG.by_view("gpu"), T + folded)
    after = read(con, spec, T + folded, T + 1300, CATALOG)
    silent_after = read(con, SilentSeries(GPU), T + folded, T + 1300, CATALOG)
    for t in range(T + folded + 10, T + 1301, 10):
        assert list(before.at(t)) == list(after.at(t))
        assert list(silent_before.at(t)) == list(silent_after.at(t))
    rows = con.execute(
        "SELECT coalesce(max(n), 0) FROM (SELECT count(*) AS n FROM seen_gpu WHERE known_from <= ? GROUP BY series, measure)",
        [at(folded)],
    ).fetchone()
    assert rows and rows[0] <= 2


@ORACLE
@given(gpu_events(), RANGES)
def test_fleet_power_is_the_mean_of_gpus_times_distinct_gpus_for_each_series_then_summed(
    events: list[Event], instants: tuple[int, int]
) -> None:
    con = ledger(events)
    t0, t1 = instants

    def watts(series: int, t: int) -> float:
        seen = within(events, series, t, 300)
        power: dict[str, list[float]] = defaultdict(list)
        for e in seen:
            power[e.entity] += [dict(e.numbers)["power_watts"]] if "power_watts" in dict(e.numbers) else []
        means = [math.fsum(own) / len(own) for own in power.values() if own]
        return math.fsum(means) / len(means) * len(power) if means else 0.0

    found = read(con, FleetPower(GPU, "power_watts", (), (), 300), T + t0, T + t1, CATALOG)
    for t in range(t0 + 10, t1 + 1, 10):
        rows = found.at(T + t)
        got = (rows[0].value, rows[0].silent, rows[0].lost) if rows else (0.0, 0.0, 0.0)
        # Each GPU and each series is rounded down to the quantum, 1 mW.
        assert got == pytest.approx(oracle(events, t, watts, 300, "power_watts", 300), abs=0.02), t


@st.composite
def energy_events(draw: st.DrawFn) -> list[Event]:
    events = []
    for n in range(draw(st.integers(1, 15))):
        time = float(draw(st.integers(0, 600)))
        numbers: tuple[tuple[str, float], ...] = (("carbon_gco2e_per_kwh", 400.0),)
        if draw(st.integers(0, 2)):
            numbers = (*numbers, ("it_power_watts", float(draw(st.integers(0, 10**9)))))
        known_from = int(time // 10) * 10 + 10 + draw(_lateness)
        events.append(Event("energy", draw(st.integers(1, 3)), time, known_from, "", numbers, n=n))
    return events


@ORACLE
@given(energy_events(), RANGES)
def test_metered_power_is_the_mean_of_each_feed_summed(
    events: list[Event], instants: tuple[int, int]
) -> None:
    con = ledger(events)
    t0, t1 = instants

    def watts(series: int, t: int) -> float:
        seen = [dict(e.numbers) for e in within(events, series, t, 120)]
        values = [numbers["it_power_watts"] for numbers in seen if "it_power_watts" in numbers]
        return math.fsum(values) / len(values) if values else 0.0

    found = read(con, MeterMean(ENERGY, "it_power_watts", (), (), 120), T + t0, T + t1, CATALOG)
    for t in range(t0 + 10, t1 + 1, 10):
        rows = found.at(T + t)
        got = (rows[0].value, rows[0].silent, rows[0].lost) if rows else (0.0, 0.0, 0.0)
        assert got == pytest.approx(oracle(events, t, watts, 300, "it_power_watts", 120), abs=0.004), t
        mute = {
            s
            for s in (1, 2, 3)
            if live(events, s, t)
            and any(
                dict(e.numbers).get("it_power_watts") is not None for e in known(events, t) if e.series == s
            )
            and (last_said(events, s, t, 120, "it_power_watts") or -1) < t
        }
        assert {m.series[2:] for row in rows for m in row.mute} == {
            DIMENSIONS["energy"][s][2:] for s in mute
        }, t


@st.composite
def queue_events(draw: st.DrawFn) -> list[Event]:
    events = []
    for n in range(draw(st.integers(1, 15))):
        time = float(draw(st.integers(0, 600)))
        numbers: tuple[tuple[str, float], ...] = (("running_gpus", 8.0),)
        if draw(st.integers(0, 3)):
            numbers = (*numbers, ("pending_jobs", float(draw(st.integers(0, 3)))))
        if draw(st.booleans()):
            numbers = (*numbers, ("oldest_wait_seconds", float(draw(st.integers(0, 5000)))))
        waits = st.lists(st.floats(0, 100_000, allow_nan=False) | st.floats(598, 602), max_size=4)
        known_from = int(time // 10) * 10 + 10 + draw(_lateness)
        events.append(
            Event(
                "queue", draw(st.integers(1, 2)), time, known_from, "", numbers, None, tuple(draw(waits)), n
            )
        )
    return events


def last_value(events: list[Event], series: int, t: int, span: int, measure: str) -> float | None:
    seen = [e for e in within(events, series, t, span) if measure in dict(e.numbers)]
    newest = max(seen, key=lambda e: (e.time, str(e.n)), default=None)
    return dict(newest.numbers)[measure] if newest else None


@ORACLE
@given(queue_events(), RANGES)
def test_pending_jobs_are_the_last_value_of_each_queue_summed(
    events: list[Event], instants: tuple[int, int]
) -> None:
    con = ledger(events)
    t0, t1 = instants
    found = read(con, LastSum(QUEUE, "pending_jobs", (), (), 90), T + t0, T + t1, CATALOG)
    for t in range(t0 + 10, t1 + 1, 10):
        rows = found.at(T + t)
        got = (rows[0].value, rows[0].silent, rows[0].lost) if rows else (0.0, 0.0, 0.0)
        expected = oracle(
            events,
            t,
            lambda s, u: last_value(events, s, u, 90, "pending_jobs") or 0.0,
            300,
            "pending_jobs",
            90,
        )
        assert got == expected, t


WAITS = WaitQuantile(
    QUEUE, "admission_wait_seconds", "oldest_wait_seconds", "pending_jobs", 0.95, (), (), 300, 90
)


@ORACLE
@given(queue_events(), RANGES)
def test_a_wait_quantile_is_the_value_at_its_rank_and_a_queue_that_admits_nobody_is_not_quiet(
    events: list[Event], instants: tuple[int, int]
) -> None:
    con = ledger(events)
    t0, t1 = instants
    found = read(con, WAITS, T + t0, T + t1, CATALOG)
    for t in range(t0 + 10, t1 + 1, 10):
        rows = found.at(T + t)
        waits = sorted(w for s in (1, 2) for e in within(events, s, t, 300) for w in e.waits)
        pending = [p for s in (1, 2) if (p := last_value(events, s, t, 90, "pending_jobs")) is not None]
        oldest = [o for s in (1, 2) if (o := last_value(events, s, t, 90, "oldest_wait_seconds")) is not None]
        value = rows[0].value if rows else None
        if waits:
            assert value == waits[math.ceil(len(waits) * 95 / 100) - 1], t
            assert rows[0].samples == len(waits) and rows[0].at_most is None
        elif sum(pending) > 0:
            assert value == (max(oldest) if oldest else None), t
        else:
            assert value == (0.0 if pending else None), t


def test_of_waits_whose_values_were_not_kept_the_bounds_are_told() -> None:
    con = ledger([Event("queue", 1, 5.0, 10, "", (("pending_jobs", 0.0),), None, (599.0,) * 19 + (605.0,))])
    con.execute("UPDATE hist_queue_10s SET least = 595.8, greatest = 608.9")
    (row,) = read(con, WAITS, T, T + 20, CATALOG).at(T + 20)
    assert (row.value, row.at_most, row.samples) == (595.8, 608.9, 20)
    con.execute("UPDATE hist_queue_10s SET least = 600, greatest = 'inf'")
    (row,) = read(con, WAITS, T, T + 20, CATALOG).at(T + 20)
    assert (row.value, row.at_most) == (600.0, math.inf)


def test_gpus_that_report_without_power_are_told_however_long_ago_they_had_it() -> None:
    def gpu(name: str, watts: float | None, start: int, end: int) -> list[Event]:
        numbers = () if watts is None else (("power_watts", watts),)
        return [Event("gpu", 1, float(t), t + 10, name, numbers, n=t) for t in range(start, end, 30)]

    con = ledger(
        gpu("g1", 100.0, 0, 3600)
        + gpu("g2", 700.0, 0, 300)
        + gpu("g2", None, 300, 3600)
        + gpu("g3", None, 0, 3600)
    )
    spec = FleetPower(GPU, "power_watts", (), (), 60)
    whole = read(con, spec, T + 60, T + 3600, CATALOG)

    def told(t: int) -> tuple[float | None, int, float]:
        (row,) = whole.at(T + t)
        assert [row] == list(read(con, spec, T + t - 10, T + t, CATALOG).at(T + t))
        return (row.value, row.without, row.estimated)

    assert told(100) == (1200.0, 1, 400.0)  # one that does not say it is taken at the mean of the others
    assert told(600) == told(3600) == (300.0, 2, 200.0)


def test_of_too_many_gpus_to_weigh_each_the_mean_is_that_of_samples_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def gpu(name: str, watts: float | None, every: int) -> list[Event]:
        numbers = () if watts is None else (("power_watts", watts),)
        return [Event("gpu", 1, t + 0.5, t + 10, name, numbers, n=t) for t in range(0, 600, every)]

    spec = FleetPower(GPU, "power_watts", (), (), 60)
    events = gpu("g1", 100.0, 10) + gpu("g2", 700.0, 30) + gpu("g3", None, 30)
    con = ledger(events)
    whole = read(con, spec, T + 60, T + 600, CATALOG)
    (each,) = whole.at(T + 300)
    assert (each.value, each.without, each.estimated, each.basis) == (1200.0, 1, 400.0, "")
    monkeypatch.setattr(weights, "AT_MOST", 10)  # ten samples in a minute: an instant at a time
    assert [read(con, spec, T + 60, T + 600, CATALOG).at(T + t) for t in range(70, 601, 10)] == [
        whole.at(T + t) for t in range(70, 601, 10)
    ]
    monkeypatch.setattr(weights, "AT_MOST", 9)
    (rough,) = read(con, spec, T + 60, T + 600, CATALOG).at(T + 300)
    assert (rough.value, rough.without, rough.basis) == (750.0, 1, weights.BY_SAMPLES)


def test_while_a_large_fleet_begins_its_mean_is_that_of_samples_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def gpu(name: str, watts: float, start: int) -> list[Event]:
        numbers = (("power_watts", watts),)
        return [Event("gpu", 1, t + 0.5, t + 10, name, numbers, n=t) for t in range(start, 300, 30)]

    spec = FleetPower(GPU, "power_watts", (), (), 60)
    con = ledger([*gpu("g1", 100.0, 0), *(e for n in range(2, 5) for e in gpu(f"g{n}", 700.0, 30))])
    (begun,) = read(con, spec, T, T + 60, CATALOG).at(T + 60)
    assert (begun.value, begun.basis) == (2200.0, "")
    monkeypatch.setattr(weights, "AT_MOST_BEGINNING", 4)  # there are five samples
    (begun,) = read(con, spec, T, T + 60, CATALOG).at(T + 60)
    assert (begun.value, begun.basis) == (1840.0, weights.BY_SAMPLES)
    (later,) = read(con, spec, T, T + 200, CATALOG).at(T + 200)
    assert (later.value, later.basis) == (2200.0, "")


# --- sources that report more slowly ------------------------------------------------------------------------


def slow(events: list[Event], interval: int) -> list[Event]:
    return [replace(e, interval=interval) for e in events]


def test_a_quarter_hour_source_is_read_all_the_time_and_silent_only_when_its_own_report_is_late() -> None:
    con = ledger(slow(metered(1, 0, 3600, 5.0, every=900), 900) + metered(2, 0, 5400, 7.0))
    found = read(con, MeterMean(ENERGY, "it_power_watts", (), (), 300), T + 10, T + 5400, CATALOG)
    rows = {t: found.at(T + t)[0] for t in range(20, 5401, 10)}
    assert {(r.value, r.silent, r.lost) for t, r in rows.items() if t <= 2700 + 900 + 10} == {
        (12.0, 0.0, 0.0)
    }
    assert {r.value for t, r in rows.items() if t >= 3630} == {7.0}
    assert rows[3630].silent + rows[3630].lost == 5.0
    silent = read(con, SilentSeries(ENERGY, (("it_power_watts", 300),)), T, T + 5400, CATALOG)
    assert min(t for t in range(10, 5401, 10) if silent.at(T + t)) == 3620
    assert [(r.by[3], r.due) for r in silent.at(T + 4000)] == [("a", 910.0)]


def test_gpus_and_queues_that_report_hourly_are_there_between_two_reports() -> None:
    con = ledger(slow([Event("gpu", 1, float(t), t + 10, f"g{g}") for t in (5, 3605) for g in (1, 2)], 3600))
    found = read(con, EntityCount(GPU, (), (), 90), T + 10, T + 7200, CATALOG)
    assert {found.at(T + t)[0].value for t in range(20, 7201, 10)} == {2.0}
    assert [found.at(T + t)[0].settled for t in (3600, 3620)] == [False, True]
    numbers = (("pending_jobs", 3.0), ("oldest_wait_seconds", 50.0))
    con = ledger(
        slow(
            [
                Event("queue", 1, float(t), t + 10, "", numbers, None, (20.0,) * (t < 60), t)
                for t in (5, 3605)
            ],
            3600,
        )
    )
    found = read(con, LastSum(QUEUE, "pending_jobs", (), (), 90), T + 10, T + 7200, CATALOG)
    assert {found.at(T + t)[0].value for t in range(20, 7201, 10)} == {3.0}
    found = read(con, WAITS, T + 10, T + 7200, CATALOG)
    assert [found.at(T + t)[0].value for t in (20, 3600, 3700, 7200)] == [20.0, 20.0, 50.0, 50.0]


def test_what_an_hourly_source_said_last_counts_for_as_long_as_its_reading_looks_back() -> None:
    said, lacking = (("pending_jobs", 3.0),), (("running_gpus", 8.0),)
    told = [(5, said), *((t, lacking) for t in range(3605, 14_406, 3600))]
    con = ledger(slow([Event("queue", 1, float(t), t + 10, "", numbers, n=t) for t, numbers in told], 3600))
    found = read(con, LastSum(QUEUE, "pending_jobs", (), (), 90), T + 10, T + 14_400, CATALOG)
    rows = {t: found.at(T + t)[0] for t in range(20, 14_401, 10)}
    assert {(r.value, r.mute) for t, r in rows.items() if t <= 10_800} == {(3.0, ())}
    assert [(m.measure, m.since) for m in rows[10_830].mute] == [("pending_jobs", T + 5)]


@SQL
@given(gpu_events(), st.sampled_from([60, 300, 900]), st.sampled_from([(0, 300), (400, 900)]))
def test_declared_intervals_read_at_once_are_what_their_instants_read_one_by_one_say(
    events: list[Event], interval: int, instants: tuple[int, int]
) -> None:
    con = ledger([replace(e, interval=interval if e.series == 1 or e.n % 7 == 0 else None) for e in events])
    t0, t1 = instants
    for spec in (
        EntityCount(GPU, (), ("region",), 90),
        FleetPower(GPU, "power_watts", (), (), 60),
        SilentSeries(GPU),
    ):
        whole = read(con, spec, T + t0, T + t1, CATALOG)
        for t in range(t0 + 10, t1 + 1, 50):
            alone = read(con, spec, T + t - 10, T + t, CATALOG)
            assert list(whole.at(T + t)) == list(alone.at(T + t)), (spec, t)


# --- silence, told by hand ------------------------------------------------------------------------------------


def steady(series: int, start: int, end: int, gpus: int = 4) -> list[Event]:
    return [
        Event("gpu", series, t + 0.5, t + 10, f"g{g}", (("power_watts", 500.0),), "ok", n=t)
        for t in range(start, end, 30)
        for g in range(gpus)
    ]


def test_a_series_that_stops_is_carried_as_silent_and_later_counts_as_lost() -> None:
    con = ledger(steady(1, 0, 120) + steady(2, 0, 1200))
    found = read(con, EntityCount(GPU, (), (), 90), T + 100, T + 1190, CATALOG)

    def row(t: int) -> tuple[float | None, float, float]:
        return (found.at(T + t)[0].value, found.at(T + t)[0].silent, found.at(T + t)[0].lost)

    assert row(120) == (8, 0, 0)
    assert row(130) == (4, 4, 0)  # the last sample is at 90.5: 39.5 s ago
    assert row(390) == (4, 4, 0)
    assert row(400) == (4, 0, 4)  # 309.5 s ago, and the other series has flowed all the time


def test_when_the_whole_topic_stops_nothing_counts_as_lost() -> None:
    con = ledger(steady(1, 0, 120) + steady(2, 0, 120))
    found = read(con, EntityCount(GPU, (), (), 90), T + 100, T + 2000, CATALOG)
    assert {(r.silent, r.lost) for t in range(130, 2001, 10) for r in found.at(T + t)} == {(8.0, 0.0)}


def test_after_an_outage_of_the_whole_topic_the_last_to_return_is_not_lost_at_once() -> None:
    con = ledger(steady(1, 0, 120) + steady(2, 0, 120) + steady(2, 900, 1500))
    found = read(con, EntityCount(GPU, (), (), 90), T + 900, T + 1400, CATALOG)
    lost = {t: found.at(T + t)[0].lost for t in range(910, 1401, 10)}
    assert lost[1190] == 0 and lost[1200] == 4


def test_a_series_is_expected_for_a_day_after_its_last_sample() -> None:
    con = ledger(steady(1, 0, 30) + steady(2, 86_000, 87_000))
    found = read(con, SilentSeries(GPU), T + 86_300, T + 86_500, CATALOG)
    assert [r.value for r in found.at(T + 86_400)] == [86_399.5]
    assert list(found.at(T + 86_410)) == []


def metered(series: int, start: int, end: int, watts: float | None, every: int = 30) -> list[Event]:
    numbers = (("carbon_gco2e_per_kwh", 400.0),) if watts is None else (("it_power_watts", watts),)
    return [Event("energy", series, float(t), t + 10, "", numbers, n=t) for t in range(start, end, every)]


def test_a_feed_that_turns_null_is_carried_and_named_and_one_that_never_had_the_measure_is_not() -> None:
    con = ledger(
        metered(1, 0, 600, 5.0)
        + metered(2, 0, 60, 7.0)
        + metered(2, 60, 600, None)
        + metered(3, 0, 600, None)
    )
    (before,) = read(con, MeterMean(ENERGY, "it_power_watts", (), (), 60), T + 80, T + 90, CATALOG).at(T + 90)
    assert (before.value, before.mute) == (12.0, ())
    (row,) = read(con, MeterMean(ENERGY, "it_power_watts", (), (), 60), T + 90, T + 100, CATALOG).at(T + 100)
    assert (row.value, row.silent, row.lost) == (5.0, 7.0, 0.0)
    assert [(m.series, m.measure, m.since) for m in row.mute] == [
        (("azure", "eu", "s1", "b"), "it_power_watts", T + 30)
    ]
    spec = SilentSeries(ENERGY, (("it_power_watts", 60),))
    assert [(r.by, r.value) for r in read(con, spec, T + 90, T + 100, CATALOG).at(T + 100)] == [
        (("azure", "eu", "s1", "b"), 70.0)
    ]


def test_a_measure_is_expected_for_a_day_after_its_last_value() -> None:
    con = ledger(metered(1, 86_200, 86_600, None) + metered(1, 10, 20, 5.0))
    found = read(con, MeterMean(ENERGY, "it_power_watts", (), (), 60), T + 86_300, T + 86_500, CATALOG)
    assert [r.silent + r.lost for r in found.at(T + 86_410)] == [5.0]
    assert list(found.at(T + 86_420)) == []


def test_a_queue_that_reports_without_its_pending_jobs_is_named_whatever_the_others_say() -> None:
    def told(series: int, start: int, end: int, *numbers: tuple[str, float]) -> list[Event]:
        return [Event("queue", series, float(t), t + 10, "", numbers, n=t) for t in range(start, end, 30)]

    pending, oldest = ("pending_jobs", 0.0), ("oldest_wait_seconds", 0.0)
    con = ledger(
        told(1, 0, 600, pending, oldest)
        + told(2, 0, 60, pending, oldest)
        + told(2, 60, 600, ("running_gpus", 1.0))
    )
    (row,) = read(con, WAITS, T + 290, T + 300, CATALOG).at(T + 300)
    assert row.value == 0.0
    assert {(m.series[1], m.measure) for m in row.mute} == {
        ("us", "pending_jobs"),
        ("us", "oldest_wait_seconds"),
    }


def test_a_topic_that_lacks_a_dimension_of_the_clause_has_no_reading() -> None:
    con = ledger([Event("energy", 1, 5.0, 10, "", (("it_power_watts", 1.0),))])
    spec = MeterMean(ENERGY, "it_power_watts", (("cluster", ("c1",)),), (), 90)
    assert list(read(con, spec, T, T + 20, CATALOG).at(T + 20)) == []


def test_an_absent_optional_dimension_is_a_group_of_its_own() -> None:
    con = ledger(steady(1, 0, 30) + steady(2, 0, 30))
    found = read(con, EntityCount(GPU, (), ("nvlink_domain",), 90), T, T + 20, CATALOG)
    assert [(r.by, r.value) for r in found.at(T + 20)] == [(("",), 4.0), (("nv1",), 4.0)]


def test_partitions_whose_fates_do_not_add_up_are_read_and_no_others() -> None:
    con = ledger()
    fates = [(0, 60, "in", 10), (0, 60, "aggregated", 7), (0, 60, "duplicate", 3), (1, 60, "in", 10)]
    fates += [(1, 60, "aggregated", 8), (2, 60, "aggregated", 5)]
    for part, minute, fate, n in fates:
        con.execute("INSERT INTO fates VALUES (?, ?, ?, ?, '', ?)", [GPU, part, at(minute), fate, n])
    found = read(con, FateBalance(GPU, 3600), T, T + 4000, CATALOG)
    assert [(r.by, r.value) for r in found.at(T + 100)] == [(("1",), 2.0)]
    assert list(found.at(T + 60)) == [] and list(found.at(T + 3670)) == []


# --- the SQL under an alert -----------------------------------------------------------------------------------


def publish(con: duckdb.DuckDBPyConnection, events: Iterable[Event]) -> None:
    """The same events as raw rows, under the names of the public views."""
    for event_type in CATALOG.types:
        columns = ", ".join(f'"{name}" {kind}' for name, kind in raw_columns(event_type))
        con.execute(f"CREATE TEMP TABLE IF NOT EXISTS {event_type.view}({columns})")
    for event in events:
        event_type = CATALOG.by_view(event.view)
        names = [d.name for d in event_type.dimensions]
        row: dict[str, Any] = dict(zip(names, DIMENSIONS[event.view][event.series], strict=True))
        row |= {name: value for name, value in event.numbers}
        row |= {"time": at(event.time), "known_from": at(max(event.known, event.window + 10))}
        row |= {"source": "s", "id": str(event.n), "idx": 0, "interval": event.interval}
        if event_type.entity:
            row |= {"gpu": named(event.series, event.entity), "node": "n", "health": event.health}
        if event.waits:
            row["admission_wait_seconds"] = list(event.waits)
        columns = ", ".join(f"${name} AS {name}" for name in row)
        con.execute(f"INSERT INTO {event.view} BY NAME SELECT {columns}", row)


# --- charges --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Charge:
    """`time` (issued) and `known` in seconds after T, `day` from T."""

    n: int
    time: int
    known: int
    day: int
    cost: Decimal
    category: str = "Usage"
    currency: str = "EUR"
    applied: str | None = None
    region: str = "eu"


def charge_ledger(charges: Iterable[Charge]) -> duckdb.DuckDBPyConnection:
    con = ledger()
    bill(con, charges)
    return con


def bill(con: duckdb.DuckDBPyConnection, charges: Iterable[Charge]) -> None:
    for charge in charges:
        row = {
            "source": "bill",
            "id": str(charge.n),
            "idx": 0,
            "time": at(charge.time),
            "known_from": at(charge.known),
            "ServiceProviderName": "azure",
            "RegionId": charge.region,
            "SkuId": "H100",
            "ChargeCategory": charge.category,
            "BillingCurrency": charge.currency,
            "ResourceId": "r",
            "ChargePeriodStart": at(charge.day * 86_400),
            "ChargePeriodEnd": at(charge.day * 86_400 + 3600),
            "BilledCost": charge.cost,
            "ContractApplied": charge.applied,
        }
        con.execute(f"INSERT INTO charges BY NAME SELECT {', '.join(f'${c} AS {c}' for c in row)}", row)


@st.composite
def charge_lists(draw: st.DrawFn) -> list[Charge]:
    """Charges and their revisions; a revision may become known before what it revises."""
    charges: dict[tuple[int, int], Charge] = {}
    for _ in range(draw(st.integers(0, 12))):
        time = draw(st.integers(0, 40)) * 5
        charge = Charge(
            draw(st.integers(0, 3)),
            time,
            draw(st.integers(0, 20)) * 10,
            draw(st.integers(-1, 3)),
            draw(st.decimals(-(10**15), 10**15, places=15)),
            draw(st.sampled_from(["Usage", "Usage", "Purchase", "Tax"])),
            draw(st.sampled_from(["EUR", "USD", "USD", "JPY"])),
        )
        charges[charge.n, charge.time] = charge
    return list(charges.values())


def _clauses(
    events: st.SearchStrategy[list[Event]], by: tuple[str, ...], *of: ReadingSpec
) -> st.SearchStrategy[tuple[list[Event], list[Any]]]:
    """Events, and specs that differ in whom they ask about."""
    values = {"region": ("eu", "us"), "cluster": ("c1", "c2", "c3"), "sku": ("H100",), "site": ("s1", "s2")}
    one = st.fixed_dictionaries(
        {}, optional={d: st.lists(st.sampled_from(values[d]), min_size=1, unique=True) for d in by}
    )
    match = one.map(lambda found: tuple(sorted((d, tuple(sorted(of_d))) for d, of_d in found.items())))
    spec = st.builds(
        lambda spec, match, split: replace(spec, match=match, by=split),
        st.sampled_from(of), match, st.sampled_from([by, by[:1], ()]),
    )  # fmt: skip
    return st.tuples(events, st.lists(spec, min_size=2, max_size=6, unique=True))


@SQL
@given(
    st.one_of(
        _clauses(
            st.one_of(gpu_events(), MOVERS),
            ("region", "cluster"),
            *(EntityCount(GPU, (), (), 90, counts) for counts in get_args(Counts)),
            FleetPower(GPU, "power_watts", (), (), 60),
        ),
        _clauses(queue_events(), ("region", "cluster"), LastSum(QUEUE, "pending_jobs", (), (), 90), WAITS),
        _clauses(energy_events(), ("site", "region"), MeterMean(ENERGY, "it_power_watts", (), (), 120)),
    ),
    RANGES,
)
def test_what_clauses_ask_together_is_what_each_of_them_would_be_told_alone(
    asked: tuple[list[Event], list[ReadingSpec]], instants: tuple[int, int]
) -> None:
    events, specs = asked
    con = ledger(events)
    t0, t1 = (T + t for t in instants)
    together = Reader(con, CATALOG, told()).read_all(dict.fromkeys(specs, (t0, t1)))
    assert together.keys() == set(specs)
    for spec in specs:
        alone = read(con, spec, t0, t1, CATALOG)
        for t in range(t0 + 10, t1 + 1, 10):
            assert list(together[spec].at(t)) == list(alone.at(t)), (spec, t)
            assert together[spec].slowest(t) == alone.slowest(t)


def test_forty_clauses_that_ask_the_same_of_other_queues_are_one_question() -> None:
    queues = [LastSum(QUEUE, "pending_jobs", (("queue", (f"q{n}",)),), ("queue",), 90) for n in range(40)]
    whole = LastSum(QUEUE, "pending_jobs", (("queue", ("q1",)),), (), 90)
    power = [FleetPower(GPU, "power_watts", (("site", (s,)),), ("site",), 60) for s in ("s1", "s2")]
    found = {shared.wide: list(shared.specs) for shared in together([*queues, whole, *power])}
    every = tuple(sorted(f"q{n}" for n in range(40)))
    assert found == {
        replace(queues[0], match=(("queue", every),)): queues,
        whole: [whole],
        **{spec: [spec] for spec in power},
    }


# --- one law over every quantity ------------------------------------------------------------------------------


@st.composite
def fates(draw: st.DrawFn) -> list[Fate]:
    """What came in, and what became of it: mostly all, at times less."""
    found = []
    for part, minute in draw(st.sets(st.tuples(st.integers(0, 2), st.integers(0, 60)), max_size=6)):
        came = draw(st.integers(1, 20))
        known_of = draw(st.sampled_from([came, came, 0, came - 1]))
        found += [Fate(GPU, part, at(minute * 60), "in", "", came)]
        found += [Fate(GPU, part, at(minute * 60), "aggregated", "", known_of)]
    return found


@dataclass(frozen=True)
class History:
    """What there is to read."""

    events: list[Event]
    charges: list[Charge]
    fates: list[Fate]

    def lay(self) -> duckdb.DuckDBPyConnection:
        """The ledger and the published views of it."""
        con = ledger(self.events)
        bill(con, self.charges)
        for f in self.fates:
            row = [f.topic, f.part, f.minute, f.fate, f.reason, f.n]
            con.execute("INSERT INTO fates VALUES (?, ?, ?, ?, ?, ?)", row)
        publish(con, self.events)
        columns = ", ".join(f'"{name}"' for name, _ in raw_columns(CATALOG.by_view("billing")))
        con.execute(f"INSERT INTO billing BY NAME SELECT {columns} FROM charges")
        return con


@st.composite
def histories(draw: st.DrawFn, topic: str) -> History:
    """A history of one topic; for a balance also its fates."""
    kinds = {GPU: st.one_of(gpu_events(), MOVERS), QUEUE: queue_events(), ENERGY: energy_events()}
    events = draw(kinds[topic]) if topic in kinds else []
    interval = draw(st.sampled_from([None, None, 60, 300, 900]))
    events = [replace(e, interval=interval if e.series == 1 else None) for e in events]
    charges = draw(charge_lists()) if topic == BILLING else []
    return History(events, charges, draw(fates()) if topic == GPU else [])


def tranche(**changed: Any) -> TrancheSpend:
    values: dict[str, Any] = {
        "topic": BILLING,
        "match": (),
        "by": (),
        "from_t": T,
        "to_t": T + 3 * 86_400,
        "categories": ("Purchase", "Usage"),
        "cost_column": "BilledCost",
        "commitment_id": None,
        "currency": "EUR",
        "fx": (("USD", ((T, Decimal("0.9")), (T + 86_400, Decimal("0.8")))),),
    }
    return TrancheSpend(**{**values, **changed})


QUESTIONS: tuple[ReadingSpec, ...] = (
    *(
        EntityCount(GPU, (("region", ("eu", "us")),), ("sku", "data_class"), 90, counts)
        for counts in get_args(Counts)
    ),
    *(EntityCount(GPU, (), (), 20, counts) for counts in get_args(Counts)),
    FleetPower(GPU, "power_watts", (), ("region",), 300),
    FleetPower(GPU, "power_watts", (), ("region",), 60),
    MeterMean(ENERGY, "it_power_watts", (), ("site",), 120),
    LastSum(QUEUE, "pending_jobs", (), ("queue",), 90),
    WAITS,
    replace(WAITS, by=("region",), q=0.99),
    tranche(),
    tranche(by=("RegionId",), match=(("RegionId", ("eu", "us")),)),
    tranche(fx=(), categories=("Tax",), commitment_id="mine"),
    tranche(purchases="burn"),
    SilentSeries(GPU),
    SilentSeries(GPU, (("power_watts", 60), ("in_use", 90))),
    SilentSeries(QUEUE, (("pending_jobs", 90), ("oldest_wait_seconds", 90))),
    SilentSeries(ENERGY, (("it_power_watts", 120),)),
    FateBalance(GPU, 3600),
)


def test_every_quantity_is_asked_for() -> None:
    assert {type(question) for question in QUESTIONS} == set(SPECS)


def groups(spec: ReadingSpec, row: Reading) -> Group:
    """The group that a reading is of, by name: what a clause splits by, else what the quantity does."""
    by = getattr(spec, "by", None)
    if by is None:
        dimensions = tuple(d.name for d in CATALOG.by_topic(spec.topic).dimensions)
        by = ("partition",) if isinstance(spec, FateBalance) else dimensions
    return dict(zip(by, row.by, strict=True))


@pytest.mark.parametrize("spec", QUESTIONS, ids=lambda spec: type(spec).__name__)
@settings(SQL, max_examples=6)
@given(data=st.data(), step=st.sampled_from([10, 100, 300, 440, 610, 900, 1300, 3600]))
def test_query_equals_reproduce(spec: ReadingSpec, data: st.DataObject, step: int) -> None:
    """What is read from roll-ups is what its SQL gives over the raw rows, for every quantity."""
    con, t = data.draw(histories(spec.topic)).lay(), T + step
    found = read(con, spec, t - 10, t, CATALOG)
    for row in found.at(t):
        asked = spec.lacking({m.measure for m in row.mute}) if isinstance(spec, SilentSeries) else spec
        at_t = Instant(t, found.slowest(t), row.basis)
        sql = asked.reproduce(CATALOG.by_topic(spec.topic), groups(spec, row), at_t)
        (value,) = con.execute(sql).fetchone() or (None,)
        if row.amount is not None:
            assert value == row.amount, sql
        elif row.value is not None and row.basis != "nothing is pending and none was admitted":
            assert float(value) == pytest.approx(row.value, rel=1e-9, abs=0.02), sql


def test_the_sql_under_an_alert_carries_hostile_names_as_plain_text() -> None:
    hostile = "eu'; DROP TABLE gpu; --\n\"\\\0x"
    events = [Event("gpu", 1, 5.0, 10, "g1")]
    con = ledger(events)
    con.execute("UPDATE series_gpu SET region = ?, cluster = ?", [hostile, hostile])
    publish(con, events)
    con.execute("UPDATE gpu SET region = ?, cluster = ?", [hostile, hostile])
    spec = EntityCount(GPU, (("region", (hostile,)),), ("cluster",), 90)
    (row,) = read(con, spec, T, T + 10, CATALOG).at(T + 10)
    sql = spec.reproduce(CATALOG.by_topic(GPU), {"cluster": row.by[0]}, Instant(T + 10))
    assert row.by == (hostile,) and con.execute(sql).fetchone() == (1,)
    assert len(con.extract_statements(sql)) == 1


# --- spend ----------------------------------------------------------------------------------------------------


def spend_oracle(charges: list[Charge], t: int) -> Decimal:
    newest: dict[int, Charge] = {}
    for charge in sorted(charges, key=lambda c: c.time):
        if charge.time <= t and charge.known <= t:
            newest[charge.n] = charge
    total = Decimal(0)
    for charge in newest.values():
        if 0 <= charge.day < 3 and charge.category in ("Usage", "Purchase") and charge.currency != "JPY":
            rate = Decimal(1) if charge.currency == "EUR" else Decimal("0.9" if charge.day == 0 else "0.8")
            total = EXACT.add(total, EXACT.multiply(charge.cost, rate))
    return total


@ORACLE
@given(charge_lists(), st.sampled_from([(0, 300), (50, 60), (90, 200), (0, 10)]))
def test_spend_counts_the_newest_revision_that_is_issued_and_known_to_the_last_digit(
    charges: list[Charge], instants: tuple[int, int]
) -> None:
    con = charge_ledger(charges)
    t0, t1 = instants
    found = read(con, tranche(), T + t0, T + t1, CATALOG)
    for t in range(t0 + 10, t1 + 1, 10):
        (row,) = found.at(T + t)
        assert row.amount == spend_oracle(charges, t), t
        assert total(each for d in row.days for each in (d.usage, d.other)) == row.amount


@SQL
@given(charge_lists(), st.integers(0, 5), st.sampled_from(["UTC", "Europe/Berlin", "America/St_Johns"]))
def test_the_sql_under_a_forecast_gives_its_number_to_the_last_digit(
    charges: list[Charge], days: int, zone: str
) -> None:
    con = charge_ledger(charges)
    con.execute("CREATE TEMP TABLE billing AS SELECT * FROM charges")
    t = T + days * 86_400 + 43_210
    clause = TrancheClause(
        id="t", from_t=T, to_t=T + 3 * 86_400, ceiling=Decimal(1), complete_after_seconds=0
    )
    (row,) = read(con, tranche(zone=zone), t - 10, t, CATALOG).at(t)
    course = forecast(row.days, t, clause, zone)
    if course is not None:
        sql = tranche().forecast_sql({}, t, course.horizon, course.complete_days, course.total_days)
        assert con.execute(sql).fetchone() == (course.amount,)
        assert row.amount is not None and course.amount >= row.amount


@SQL
@given(charge_lists(), charge_lists())
def test_remembered_spend_is_what_a_fresh_reader_reads(first: list[Charge], more: list[Charge]) -> None:
    con = charge_ledger(first)
    reader = Reader(con, CATALOG, told())
    for t in range(0, 150, 10):
        remembered = reader.read(tranche(), T + t, T + t + 10).at(T + t + 10)
        fresh = read(con, tranche(), T + t, T + t + 10, CATALOG).at(T + t + 10)
        assert [r.amount for r in remembered] == [r.amount for r in fresh]
        if t == 70:
            bill(con, more)


def applied(*elements: tuple[str | None, str], key: str = "ContractId") -> str:
    inner = ",".join(
        f'{{"{key}":"K"{"" if c is None else f",{chr(34)}ContractCommitmentId{chr(34)}:{chr(34)}{c}{chr(34)}"}'
        f',"ContractCommitmentAppliedCost":{cost}}}'
        for c, cost in elements
    )
    return f'{{"Elements":[{inner}]}}'


def test_a_charge_that_names_commitments_counts_only_for_the_one_named_by_its_applied_cost() -> None:
    con = charge_ledger(
        [
            Charge(1, 0, 0, 0, Decimal(100), applied=applied(("mine", '"30.0000000001"'), ("other", "70"))),
            Charge(2, 0, 0, 0, Decimal(50), applied=applied(("other", "50"), key="ContractID")),
            Charge(3, 0, 0, 0, Decimal(7), applied=applied((None, "1"))),
            Charge(4, 0, 0, 0, Decimal(5), applied='{"Elements":[]}'),
            Charge(5, 0, 0, 0, Decimal(2)),
        ]
    )

    def spent(commitment: str | None) -> Decimal | None:
        return read(con, tranche(commitment_id=commitment), T, T + 10, CATALOG).at(T + 10)[0].amount

    assert spent("mine") == Decimal("44.0000000001")
    assert spent("other") == Decimal(70 + 50 + 7 + 5 + 2)
    assert spent(None) == Decimal(14)
    con.execute("CREATE TEMP TABLE billing AS SELECT * FROM charges")
    for commitment in ("mine", "other", None):
        sql = tranche(commitment_id=commitment, fx=()).reproduce(
            CATALOG.by_topic(BILLING), {}, Instant(T + 10)
        )
        assert con.execute(sql).fetchone() == (spent(commitment),)


def test_what_has_no_rate_is_left_out_and_named_and_the_rest_counts() -> None:
    charges = [
        Charge(1, 0, 0, 1, Decimal(1), currency="GBP"),
        Charge(2, 0, 0, 0, Decimal(2)),
        Charge(3, 0, 0, 2, Decimal("0.5"), currency="GBP"),
    ]
    con = charge_ledger(charges)
    (row,) = read(con, tranche(), T, T + 10, CATALOG).at(T + 10)
    assert row.amount == 2 and row.samples == 3
    assert row.left_out.startswith("2 charges of 1.50 GBP (no rate from GBP to EUR on 2026-")
    bill(con, [Charge(n, 5, 20, 0, Decimal(0)) for n in (1, 3)])  # both are revised, and in EUR then
    (row,) = read(con, tranche(), T + 10, T + 20, CATALOG).at(T + 20)
    assert (row.amount, row.left_out) == (2, "")


def test_a_charge_without_the_cost_that_counts_is_left_out_and_named() -> None:
    con = charge_ledger([Charge(1, 0, 0, 1, Decimal(1)), Charge(2, 0, 0, 0, Decimal(2))])
    con.execute("UPDATE charges SET \"EffectiveCost\" = 3 WHERE id = '2'")
    (row,) = read(con, tranche(cost_column="EffectiveCost"), T, T + 10, CATALOG).at(T + 10)
    assert (row.amount, row.left_out) == (3, "1 charge in EUR without EffectiveCost or the cost applied")


@pytest.mark.parametrize(
    "applied",
    ['{"Elements":{}}', '{"Elements":7}', '{"Elements":[7,null,"x",[]]}', '{"Elements":null}', '{"a":1}'],
)
def test_no_form_of_what_was_applied_stops_the_reading(applied: str) -> None:
    con = charge_ledger([Charge(1, 0, 0, 1, Decimal(1), applied=applied), Charge(2, 0, 0, 0, Decimal(2))])
    for commitment in ("mine", None):
        (row,) = read(con, tranche(commitment_id=commitment), T, T + 10, CATALOG).at(T + 10)
        assert (row.amount, row.left_out) == (3, "")


def test_a_sum_beyond_any_decimal_is_still_exact() -> None:
    most = Decimal("9999999999999999999999.999999999999999")
    con = charge_ledger(Charge(n, 0, 0, 0, most) for n in range(20))
    (row,) = read(con, tranche(), T, T + 10, CATALOG).at(T + 10)
    assert row.amount == EXACT.multiply(most, Decimal(20))


def test_a_commitment_with_a_quantity_alone_counts_for_the_whole_cost() -> None:
    quantity = '{"ContractCommitmentID":"mine","ContractCommitmentAppliedQuantity":"3"}'
    other = '{"ContractCommitmentId":"other","ContractCommitmentAppliedCost":"1"}'
    con = charge_ledger(
        [
            Charge(1, 0, 0, 0, Decimal(5), applied=f'{{"Elements":[{quantity}]}}'),
            Charge(2, 0, 0, 0, Decimal(7), applied=f'{{"Elements":[{quantity},{other}]}}'),
        ]
    )
    (row,) = read(con, tranche(commitment_id="mine"), T, T + 10, CATALOG).at(T + 10)
    assert (row.amount, row.left_out) == (5, "1 charge in EUR without BilledCost or the cost applied")


def test_a_purchase_that_funds_a_commitment_is_not_its_consumption() -> None:
    charges = [
        Charge(1, 0, 0, 0, Decimal("37.50"), category="Purchase"),
        Charge(2, 0, 0, 0, Decimal(50)),
        Charge(3, 0, 0, 0, Decimal(-50), category="Credit"),
        Charge(4, 0, 0, 0, Decimal(500_000), category="Purchase"),
        Charge(5, 0, 0, 0, Decimal(2), category="Purchase"),
        Charge(6, 0, 0, 0, Decimal(9), category="Purchase", applied=applied(("mine", '"9"'))),
    ]
    con = charge_ledger(charges)
    con.execute("UPDATE charges SET \"CommitmentDiscountId\" = 'block' WHERE id IN ('4', '5')")
    con.execute("UPDATE charges SET \"ChargeFrequency\" = 'Recurring' WHERE id = '5'")

    def spent(**values: Any) -> Decimal | None:
        categories = ("Adjustment", "Credit", "Purchase", "Usage")
        return read(con, tranche(categories=categories, **values), T, T + 10, CATALOG).at(T + 10)[0].amount

    assert spent() == Decimal("37.50") + 2
    assert spent(purchases="burn") == Decimal("37.50") + 500_000 + 2
    assert spent(commitment_id="mine") == 2
    assert spent(commitment_id="mine", purchases="burn") == Decimal("37.50") + 500_000 + 2 + 9


def test_days_are_those_of_the_contracts_zone() -> None:
    # Berlin goes back to winter time on 25 October 2026, a day of 25 hours.
    begin = int(datetime(2026, 10, 24, 22, tzinfo=UTC).timestamp())
    hours = (begin - T) // 3600
    con = charge_ledger([])
    for n in range(-1, 26):
        bill(con, [Charge(n + 1, 0, 0, 0, Decimal(1))])
        con.execute(
            f"UPDATE charges SET \"ChargePeriodStart\" = ? WHERE id = '{n + 1}'", [at((hours + n) * 3600)]
        )
    spec = tranche(from_t=begin - 86_400, to_t=begin + 3 * 86_400 + 3600, zone="Europe/Berlin")
    (row,) = read(con, spec, T, T + 10, CATALOG).at(T + 10)
    days = [(datetime.fromtimestamp(d.day, UTC).day, d.usage) for d in row.days]
    assert days == [(24, 1), (25, 25), (26, 1)]


def test_a_tranche_splits_by_dimension_and_matches_on_it() -> None:
    con = charge_ledger([Charge(1, 0, 0, 1, Decimal(1)), Charge(2, 0, 0, 0, Decimal(2), region="us")])
    by = read(con, tranche(by=("RegionId",)), T, T + 10, CATALOG).at(T + 10)
    assert [(r.by, r.amount) for r in by] == [(("eu",), 1), (("us",), 2)]
    matched = read(con, tranche(match=(("RegionId", ("us",)),)), T, T + 10, CATALOG).at(T + 10)
    assert [r.amount for r in matched] == [2]
