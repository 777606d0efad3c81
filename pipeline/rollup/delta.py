"""The delta: what a batch of Kafka records adds up to, as a value that can cross a process, a topic, a year.

It holds Arrow tables and plain records, and knows nothing of the ledger that takes it in: from which instant its rows
count, and which bit an entity has, is decided when it is applied.  `to_ipc` and `from_ipc` are one form of it for all
places: a delta applied from its bytes changes the same bits as the delta itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

import pyarrow as pa

Place = tuple[str, int]
"""A topic and a partition."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A private file of raw rows, written and fsynced; event times naive UTC, `max_time` inclusive.

    `topic` is that of its table: `quarantine` for what is set aside.  `source` is the topic of its records.
    """

    name: str
    topic: str
    rows: int
    min_time: datetime
    max_time: datetime
    source: str


ARRIVED = "in"
"""The count that the fates aggregated, duplicate, quarantined and dead_lettered must add up to."""


@dataclass(frozen=True, slots=True)
class Fate:
    """How `n` events of a partition ended; `minute` is that of their Kafka timestamp, naive UTC.

    `fate` is `ARRIVED` for those that came in, counted independently of what became of them.
    """

    topic: str
    part: int
    minute: datetime
    fate: str
    reason: str
    n: int


@dataclass(frozen=True, slots=True)
class AsideCount:
    """How many samples of a partition were taken in without `field`, by reason; `minute` as of a `Fate`.

    These are measures, not events: none of them is among the fates.
    """

    topic: str
    part: int
    minute: datetime
    field: str
    reason: str
    n: int


@dataclass(frozen=True, slots=True)
class Addition:
    """What a delta adds to the tables of one event type; a table that has no rows is None.

    `series`: (series, dimensions) of those that its maker has not told before.  `partials`, `histogram`: 10 s roll-ups, as
    `aggregate.partials_sql` and `histogram_sql` have them.  `entities`: (series, window_start, entity, marks), a row for each
    sample.  `pulses`: (series, entity, slot, window_start, pulse), where an entity is 64 bits.  `charges`: samples of a
    retained type with `identity` and `content`.  `reports`: of what is measured for a time more than once, as
    `revised.reports_sql` has them; `partials` has none of them.  `arrivals`: (part, step, reached, appended): of the
    records whose own time lets the watermark pass the instant `step` of the grid and no later one, the latest of these
    times, and when Kafka got the first.
    """

    view: str
    series: pa.Table | None = None
    partials: pa.Table | None = None
    histogram: pa.Table | None = None
    entities: pa.Table | None = None
    pulses: pa.Table | None = None
    charges: pa.Table | None = None
    reports: pa.Table | None = None
    arrivals: pa.Table | None = None

    @property
    def tables(self) -> dict[str, pa.Table]:
        """Those that have rows, by name."""
        found = {name: getattr(self, name) for name in TABLES}
        return {name: table for name, table in found.items() if table is not None and table.num_rows}


TABLES = ("series", "partials", "histogram", "entities", "pulses", "charges", "reports", "arrivals")


@dataclass(frozen=True, slots=True)
class Delta:
    """At most one contiguous offset range `[lo, hi)` per partition, and what it adds up to.

    `written` returns the segments once they are on the disk, and raises DiskFull when they cannot be: so a delta can be
    applied while its raw rows are being written.
    """

    ranges: Mapping[Place, tuple[int, int]] = field(default_factory=dict)
    progress: Mapping[Place, datetime] = field(default_factory=dict)
    added: tuple[Addition, ...] = ()
    written: Callable[[], Sequence[Segment]] = tuple
    fates: tuple[Fate, ...] = ()
    set_aside: tuple[AsideCount, ...] = ()
    reported: Mapping[tuple[str, str], str | None] = field(default_factory=dict)
    """(topic of a source, series) → its last cumulative histogram, from which the next report counts on; None: forgotten."""

    @property
    def events(self) -> int:
        """How many events came in."""
        return sum(f.n for f in self.fates if f.fate == ARRIVED)

    def to_ipc(self) -> bytes:
        """This delta as an Arrow IPC stream of (view, name, table), each `table` a stream of its own.

        The records stand in its metadata.  Waits until the segments are written.
        """
        named = [(one.view, name, table) for one in self.added for name, table in one.tables.items()]
        views, names, tables = zip(*named, strict=True) if named else ((), (), ())
        records = json.dumps(
            {
                "ranges": [[*place, *between] for place, between in self.ranges.items()],
                "progress": [[*place, at] for place, at in self.progress.items()],
                "views": [one.view for one in self.added],
                "segments": _plain(self.written()),
                "fates": _plain(self.fates),
                "set_aside": _plain(self.set_aside),
                "reported": [[*key, text] for key, text in self.reported.items()],
            },
            default=datetime.isoformat,
        )
        columns = {
            "view": pa.array(views, pa.string()),
            "name": pa.array(names, pa.string()),
            "table": pa.array([_stream(table) for table in tables], pa.large_binary()),
        }
        return _stream(pa.table(columns).replace_schema_metadata({_RECORDS: records}))

    @classmethod
    def from_ipc(cls, data: bytes) -> Delta:
        """Reads what `to_ipc` wrote.  Raises ValueError (pyarrow's ArrowInvalid is one) or KeyError on anything else."""
        whole = _table(data)
        said = json.loads((whole.schema.metadata or {})[_RECORDS.encode()])
        tables: dict[str, dict[str, pa.Table]] = {view: {} for view in said["views"]}
        for row in whole.to_pylist():
            tables[row["view"]][row["name"]] = _table(row["table"])
        segments = tuple(Segment(**_dated(one, "min_time", "max_time")) for one in said["segments"])
        return cls(
            ranges={(topic, part): (lo, hi) for topic, part, lo, hi in said["ranges"]},
            progress={(topic, part): datetime.fromisoformat(at) for topic, part, at in said["progress"]},
            added=tuple(Addition(view, **found) for view, found in tables.items()),
            written=lambda: segments,
            fates=tuple(Fate(**_dated(one, "minute")) for one in said["fates"]),
            set_aside=tuple(AsideCount(**_dated(one, "minute")) for one in said["set_aside"]),
            reported={(topic, series): text for topic, series, text in said["reported"]},
        )


_RECORDS = "delta"


def _plain(records: Iterable[Any]) -> list[dict[str, Any]]:
    return [asdict(record) for record in records]


def _dated(record: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """`record` with its times as times."""
    return {**record, **{name: datetime.fromisoformat(record[name]) for name in names}}


def _stream(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    found: bytes = sink.getvalue().to_pybytes()
    return found


def _table(data: bytes) -> pa.Table:
    with pa.ipc.open_stream(data) as reader:
        return reader.read_all()
