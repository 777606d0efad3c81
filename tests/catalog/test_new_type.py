"""A fifth event type is one new schema file: topic, tables, roll-ups, history and views come with no code."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiokafka.structs import ConsumerRecord

from pipeline.catalog import Catalog, load, schema_directory
from pipeline.clauses import plan_of
from pipeline.history.publish import publish
from pipeline.history.query import ask, open_views
from pipeline.history.seal import seal
from pipeline.ledger.store import Ledger
from pipeline.stream.batch import Batch
from pipeline.stream.process import Processor
from pipeline.stream.topic_admin import default_specs
from tests.processing import processed

T0 = 1_790_000_000
COOLING: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Coolant loop",
    "x-topic": "telemetry.cooling",
    "x-view": "cooling",
    "x-interval": 15,
    "x-lateness": 2,
    "x-marks": {
        "leaking": {"of": ["state"], "in": ["leak"]},
        "hot": {"of": ["supply", "position"], "above": 30},
    },
    "type": "object",
    "required": ["site", "loop"],
    "properties": {
        "site": {"type": "string", "x-role": "dimension"},
        "Hall": {"type": "string", "x-role": "dimension"},
        "loop": {"type": "string", "x-role": "entity", "maxLength": 20, "x-within": ["site"]},
        "pump": {"type": "string", "x-role": "label"},
        "notes": {"type": "object", "x-role": "label"},
        "supply": {"type": "number", "minimum": -10, "maximum": 90, "x-role": "measure", "x-quantum": "5e-2"},
        "position": {"type": "integer", "minimum": 0, "maximum": 100, "x-role": "measure"},
        "state": {"type": "string", "enum": ["ok", "leak", "it's"], "x-role": "measure"},
        "delays": {
            "type": "array",
            "items": {"type": "integer", "minimum": 0, "maximum": 60},
            "maxItems": 3,
            "x-role": "measure",
        },
    },
}
HEADERS = (("content-type", b"application/cloudevents+json"),)


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    """The shipped schemas and one more."""
    schemas = tmp_path / "schemas"
    shutil.copytree(schema_directory(), schemas)
    (schemas / "cooling.loop.v1.json").write_text(json.dumps(COOLING))
    return load(schemas)


def record(offset: int, at: float, data: Any) -> ConsumerRecord:
    time = datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")
    value = {
        "specversion": "1.0",
        "id": str(offset),
        "source": "/bms",
        "type": "cooling.loop.v1",
        "time": time,
    }
    text = json.dumps({**value, "data": data}).encode()
    return ConsumerRecord("telemetry.cooling", 0, offset, int(at * 1000), 1, None, text, None, -1, 1, HEADERS)


RECORDS = [
    record(0, T0 + 1, {"site": "s1", "Hall": "A", "loop": "l1", "supply": 20.05, "position": 7, "state": "ok"}),
    record(1, T0 + 2, {"site": "s1", "Hall": "A", "loop": "l2", "supply": 20.15, "state": "leak", "pump": "p"}),
    record(2, T0 + 3, [{"site": "s1", "Hall": "A", "loop": "l1", "supply": 40, "delays": [1, 2, 60]}, {"site": "s1"}]),
    record(3, T0 + 4, {"site": "s2", "loop": "l1", "state": "it's", "notes": {"a": "\u00fc"}}),
    record(4, T0 + 5, {"site": "s1", "Hall": "A", "loop": "l2", "delays": [1.5]}),
    record(5, T0 + 6, {"site": "s1", "Hall": "A", "loop": "l2", "delays": [1, 1, 1, 1]}),
    record(6, T0 + 7, {"site": "s1", "Hall": "A", "loop": "l2", "supply": 91}),
]  # fmt: skip


@pytest.fixture
def published(tmp_path: Path, catalog: Catalog) -> Iterator[tuple[Ledger, Any]]:
    """The records, taken in, sealed and published; the ledger and a view of what readers see."""
    data = tmp_path / "data"
    ledger = Ledger(data, catalog)
    ledger.plan = plan_of([], catalog)
    place = ("telemetry.cooling", 0)
    processor = Processor(ledger.con, catalog, data, 1_000_000)
    batch = Batch({place: RECORDS}, {place: (0, len(RECORDS))})
    delta, _ = processed(processor, batch, ledger.known_from(), ledger.progress())
    ledger.apply(delta, {place[0]: datetime.fromtimestamp(T0 + 200, UTC).replace(tzinfo=None)}, T0)
    seal(ledger.cursor(), data, catalog)
    publish(ledger.cursor(), data, catalog)
    views = open_views(data, catalog)
    yield ledger, lambda sql: list(ask(views, sql).rows)
    views.close()
    ledger.close()


def test_it_has_a_topic(catalog: Catalog) -> None:
    assert "telemetry.cooling" in catalog.topics
    specs = default_specs(catalog.topics, 4)
    assert "telemetry.cooling" in [spec.name for spec in specs]


def test_its_events_have_their_fates(published: Any) -> None:
    ledger, ask_views = published
    fates = "SELECT fate, reason, sum(n)::INTEGER FROM fates WHERE fate <> 'in' GROUP BY ALL ORDER BY ALL"
    expected = [
        ("aggregated", "", 7),
        ("dead_lettered", "loop_missing", 1),
    ]
    assert ledger.con.execute(fates).fetchall() == expected
    assert ask_views(fates) == expected
    aside = [("delays", "delays_mistyped"), ("delays", "delays_too_many"), ("supply", "supply_out_of_range")]
    assert ask_views("SELECT field, reason FROM quarantine ORDER BY ALL") == aside
    assert ask_views("SELECT field, reason FROM set_aside WHERE n = 1 ORDER BY ALL") == aside


def test_its_history_has_a_column_for_every_property(published: Any) -> None:
    _, ask_views = published
    rows = ask_views(
        'SELECT site, "Hall", loop, pump, notes, supply, position, state, delays, id FROM cooling ORDER BY id'
    )
    assert rows == [
        ("s1", "A", "l1", None, None, 20.05, 7, "ok", None, "0"),
        ("s1", "A", "l2", "p", None, 20.15, None, "leak", None, "1"),
        ("s1", "A", "l1", None, None, 40.0, None, None, [1.0, 2.0, 60.0], "2"),
        ("s2", None, "l1", None, '{"a":"\u00fc"}', None, None, "it's", None, "3"),
        ("s1", "A", "l2", None, None, None, None, None, [], "4"),
        ("s1", "A", "l2", None, None, None, None, None, None, "5"),
        ("s1", "A", "l2", None, None, None, None, None, None, "6"),
    ]


@pytest.mark.parametrize("width", ["10s", "1m", "15m", "1h", "1d"])
def test_its_roll_ups_follow_from_its_measures(published: Any, width: str) -> None:
    _, ask_views = published
    names = "samples, gpus, supply_mean, supply_sum, supply_min, supply_max, supply_last, position_last, state_last"
    waits = "delays_count, delays_p50 BETWEEN 2 AND 2.05, delays_p99 BETWEEN 60 AND 61.4"
    rows = ask_views(f"SELECT site, {names}, {waits} FROM cooling_{width} ORDER BY site")
    assert rows == [
        ("s1", 6, 2, 80.2 / 3, 80.2, 20.05, 40.0, 40.0, 7.0, "leak", 3, True, True),
        ("s2", 1, 1, None, None, None, None, None, None, "it's", 0, None, None),
    ]


def test_its_marks_are_kept_as_bit_sets(published: Any) -> None:
    ledger, _ = published
    sets = "SELECT site, bit_count(observed), bit_count(leaking), bit_count(hot) FROM bits_cooling_1m"
    rows = ledger.con.execute(f"{sets} JOIN series_cooling USING (series) ORDER BY site").fetchall()
    assert rows == [("s1", 2, 1, 1), ("s2", 1, 0, 0)]


def test_its_silence_is_noticed(published: Any) -> None:
    _, ask_views = published
    alerts = ask_views("SELECT alertname, labels FROM alerts WHERE state = 'firing' ORDER BY labels")
    assert [name for name, _ in alerts] == ["TelemetrySilent", "TelemetrySilent"]
    assert {json.loads(labels)["site"] for _, labels in alerts} == {"s1", "s2"}


def test_a_type_that_is_new_to_an_old_ledger_adds_its_tables(tmp_path: Path, catalog: Catalog) -> None:
    Ledger(tmp_path / "old", load()).close()
    ledger = Ledger(tmp_path / "old", catalog)
    assert ledger.con.execute("SELECT count(*) FROM partials_cooling_10s").fetchall() == [(0,)]
    ledger.close()
