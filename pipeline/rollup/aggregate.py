"""The mergeable aggregates of an event type: table columns, the roll-up of samples, the merge of partials.

A partial row holds, for a series and a window: `samples`, `last_time`, `interval` (the longest that a source declared,
in seconds; NULL where none did), and for each number `m`: `m_count`,
`m_sum` (HUGEINT, in the schema's quantum, so that no order of addition changes a bit), `m_min`, `m_max` and
`m_last`, a struct `(time, source, id, idx, value)` whose maximum is the newest sample, ties broken by identity.
"""

from __future__ import annotations

from collections.abc import Collection

from pipeline.catalog import EventType, Mark, MarkTest, Measure
from pipeline.rollup.grid import GRID, floor_sql
from pipeline.rollup.histogram import bucket_sql
from pipeline.rollup.quoting import literal

BLOCK_BITS = 512
"""Entities in one bit set: `bitstring_agg` needs constant bounds and `bit_or` equal widths."""


def last_type(measure: Measure) -> str:
    """SQL type of `m_last`."""
    value = "VARCHAR" if measure.kind == "text" else "DOUBLE"
    return f'STRUCT("time" TIMESTAMP, source VARCHAR, id VARCHAR, idx INTEGER, "value" {value})'


def partial_columns(event: EventType) -> tuple[tuple[str, str], ...]:
    """(name, SQL type) of the aggregate columns of a partial row, without series, window and known_from."""
    columns: list[tuple[str, str]] = [
        ("samples", "BIGINT"),
        ("last_time", "TIMESTAMP"),
        ("interval", "INTEGER"),
    ]
    for m in event.numbers:
        columns += [
            (f"{m.name}_count", "BIGINT"),
            (f"{m.name}_sum", "HUGEINT"),
            (f"{m.name}_min", "DOUBLE"),
            (f"{m.name}_max", "DOUBLE"),
            (f"{m.name}_last", last_type(m)),
        ]
    for m in event.texts:
        columns += [(f"{m.name}_count", "BIGINT"), (f"{m.name}_last", last_type(m))]
    return tuple(columns)


def merge_sql(event: EventType) -> str:
    """Select list that merges partial rows of one key (`GROUP BY` is the caller's)."""
    return ", ".join(f"{_merge(name)}({name}) AS {name}" for name, _ in partial_columns(event))


def _merge(column: str) -> str:
    if column == "samples" or column.endswith(("_count", "_sum")):
        return "sum"
    return "min" if column.endswith("_min") else "max"


def partials_sql(event: EventType, samples: str, whole: Collection[str] = ()) -> str:
    """SELECT of 10 s partials from the relation `samples`; `whole`: measures that none of them lacks.

    Mostly a fleet reports the same measures always, and to look for those that lack one is a third of the work.

    The last values are found in steps: the newest time, the greatest identity only among the rows tied on it,
    once for those that have the same measures, and each measure's value only in that identity's rows.  Comparing
    a struct for every sample and measure costs more than the whole roll-up.
    """
    measures = (*event.numbers, *event.texts)
    grouped = ["count(*) AS samples", "max(time) AS last_time", "max(interval) AS interval"]
    for m in event.numbers:
        grouped += [
            f"{_count(m, whole)} AS {m.name}_count",
            f"sum({quanta_sql(m)}) AS {m.name}_sum",
            f"min({m.name})::DOUBLE AS {m.name}_min",
            f"max({m.name})::DOUBLE AS {m.name}_max",
        ]
    grouped += [f"{_count(m, whole)} AS {m.name}_count" for m in event.texts]
    having = {m.name: "" if m.name in whole else f" FILTER ({m.name} IS NOT NULL)" for m in measures}
    grouped += [f"max(time){having[m.name]} AS {m.name}_time" for m in measures]
    windowed = f"SELECT *, {floor_sql('time', GRID)} AS window_start FROM {samples}"
    if not measures:
        return f"SELECT series, window_start, {', '.join(grouped)} FROM ({windowed}) GROUP BY ALL"
    lasts = ", ".join(f"max({_last(m)}) FILTER ({m.name} IS NOT NULL) AS {m.name}_last" for m in measures)
    times = ", ".join(f"{m.name}_time" for m in measures)
    absent = ", ".join(f"{m.name} IS NULL" for m in measures)
    columns = ", ".join(("l." if c.endswith("_last") else "g.") + c for c, _ in partial_columns(event))
    return (
        f"WITH windowed AS ({windowed}), "
        f"grouped AS MATERIALIZED (SELECT series, window_start, {', '.join(grouped)} FROM windowed GROUP BY ALL), "
        f"newest AS (SELECT DISTINCT series, window_start, unnest([{times}]) AS time FROM grouped), "
        f"tied AS MATERIALIZED (SELECT *, [{absent}] AS absent, {_IDENTITY} AS who FROM windowed "
        "SEMI JOIN newest USING (series, window_start, time)), "
        "greatest AS (SELECT series, window_start, time, absent, max(who) AS who FROM tied GROUP BY ALL), "
        f"lasts AS (SELECT series, window_start, {lasts} FROM tied "
        "SEMI JOIN greatest USING (series, window_start, time, absent, who) GROUP BY ALL) "
        f"SELECT series, window_start, {columns} FROM grouped g LEFT JOIN lasts l USING (series, window_start)"
    )


def _count(measure: Measure, whole: Collection[str]) -> str:
    return "count(*)" if measure.name in whole else f"count({measure.name})"


def quanta_sql(measure: Measure) -> str:
    """SQL for a value as a whole number of the measure's quanta."""
    if measure.integer and measure.quantum == 1:
        return measure.name
    return f"round({measure.name} * {(1 / measure.quantum).normalize():f}::DOUBLE)::BIGINT"


_IDENTITY = "{'source': source, 'id': id, 'idx': idx}"


def _last(m: Measure) -> str:
    value = m.name if m.kind == "text" else f"{m.name}::DOUBLE"
    return f"{{'time': time, 'source': source, 'id': id, 'idx': idx, 'value': {value}}}"


def histogram_sql(event: EventType, samples: str) -> str | None:
    """SELECT of 10 s histogram rows, None without such a measure.

    A row `(series, window_start, measure, bucket, least, greatest, n)` is n values from `least` to `greatest`, all in
    one bucket.  In 10 s they are one value, so that what clauses read is exact; wider windows have a row a bucket.
    """
    parts = [
        f"SELECT series, window_start, '{m.name}' AS measure, {bucket_sql('value')} AS bucket, value AS least, "
        f"value AS greatest, count(*) AS n "
        f"FROM (SELECT series, {floor_sql('time', GRID)} AS window_start, unnest({m.name}) AS value "
        f"FROM {samples}) GROUP BY ALL"
        for m in event.histograms
    ]
    return " UNION ALL ".join(parts) or None


def unbounded_sql(samples: str, histogram: str) -> str:
    """SELECT of the rows of `histogram` in which the values of `beyond(row, idx, measure, least, n)` have no upper bound.

    They were counted as `least`, which is all that is known of them.
    """
    return (
        f"WITH open AS (SELECT series, {floor_sql('time', GRID)} AS window_start, measure, "
        f"b.least + 0.0 AS least, sum(b.n)::BIGINT AS n FROM beyond b JOIN {samples} USING (row, idx) GROUP BY ALL) "
        f"SELECT h.series, h.window_start, h.measure, h.bucket, h.least, h.greatest, h.n - coalesce(o.n, 0) AS n "
        f"FROM {histogram} h LEFT JOIN open o ON h.series = o.series AND h.window_start = o.window_start "
        "AND h.measure = o.measure AND h.least = o.least WHERE h.n > coalesce(o.n, 0) "
        f"UNION ALL SELECT series, window_start, measure, {bucket_sql('least')}, least, 'inf'::DOUBLE, n FROM open"
    )


def marks_sql(event: EventType) -> str:
    """Select list of the entity's marks as BOOLEAN columns; an absent measure is no mark."""
    return ", ".join(f"coalesce({marked_sql(mark)}, false) AS {mark.name}" for mark in event.marks)


def marked_sql(mark: Mark) -> str:
    """SQL for whether a sample gives its entity the mark; NULL where it has none of the measures."""
    tests = [_test(test) for test in mark.tests]
    return tests[0] if len(tests) == 1 else " OR ".join(f"({test})" for test in tests)


def _test(test: MarkTest) -> str:
    listed = ", ".join(_literal(value) for value in test.values)
    passes = f"> {test.above!r}" if test.above is not None else f"IN ({listed})"
    found = " OR ".join(f'"{measure}" {passes}' for measure in test.of)
    absent = [f'"{measure}" IS NULL' for measure in test.without]
    return " AND ".join([f"({found})" if absent and len(test.of) > 1 else found, *absent])


def _literal(value: str | int) -> str:
    return str(value) if isinstance(value, int) else literal(value)


def entities_sql(event: EventType, samples: str) -> str:
    """SELECT (series, window_start, entity, marks) of each sample: who was there, and how."""
    assert event.entity
    marks = f", {marks_sql(event)}" if event.marks else ""
    window = f"{floor_sql('time', GRID)} AS window_start"
    return f"SELECT series, {window}, {event.entity.name} AS entity{marks} FROM {samples}"


def pulses_sql(event: EventType, samples: str) -> str | None:
    """SELECT (series, entity, slot, window_start, pulse) of the samples that tell who is frozen; None where none do.

    `entity` is 64 bits of series and name, `pulse` of all numbers; they are of one interval of every `x-frozen.intervals`.
    """
    rule = event.frozen
    if rule is None or event.entity is None:
        return None
    numbers = ", ".join(f'"{m.name}"' for m in event.numbers)
    return (
        f'SELECT series, hash(series, "{event.entity.name}") AS entity, epoch("time")::BIGINT // {rule.every} AS slot, '
        f'time_bucket(INTERVAL {GRID} SECOND, "time") AS window_start, hash({numbers}) AS pulse FROM {samples} '
        f'WHERE "{rule.counter}" > 0 AND epoch_us("time") % {rule.every * 1_000_000} < {event.interval * 1_000_000}'
    )


def charges_sql(event: EventType, samples: str) -> str:
    """SELECT of the charges of a retained type, each with its identity and 64 bits of its content."""
    own = ", ".join(f'"{name}"' for name, _ in event.columns())
    return f'SELECT identity, {content_sql(event)} AS content, "time", source, id, idx, {own} FROM {samples}'


def arrivals_sql(event: EventType, samples: str) -> str:
    """SELECT (part, step, reached, appended): what lets the watermark pass which instant, `lateness` behind it.

    `step` is the last such instant in steps of the grid (before 1970 it may be one more).
    """
    own, step = "least(time, record_time)", GRID * 1_000_000
    return (
        f"SELECT part, (epoch_us({own}) - {event.lateness * 1_000_000}) // {step} AS step, "
        f"max({own}) AS reached, min(record_time) AS appended FROM {samples} GROUP BY ALL"
    )


def bits_sql(event: EventType, indexed: str) -> str:
    """SELECT of 10 s bit sets from `indexed(series, window_start, entity_idx, <marks>)`."""
    bit = f"entity_idx % {BLOCK_BITS}"
    sets = [f"{_bit_set(bit)} AS observed"]
    sets += [f"{_bit_set(bit, mark.name)} AS {mark.name}" for mark in event.marks]
    return (
        f"SELECT series, window_start, (entity_idx // {BLOCK_BITS})::INTEGER AS block, {', '.join(sets)} "
        f"FROM {indexed} GROUP BY series, window_start, block"
    )


def _bit_set(bit: str, only: str | None = None) -> str:
    empty = f"repeat('0', {BLOCK_BITS})::BIT"
    if only is None:
        return f"bitstring_agg({bit}, 0, {BLOCK_BITS - 1})"
    return f"coalesce(bitstring_agg({bit}, 0, {BLOCK_BITS - 1}) FILTER ({only}), {empty})"


def merge_bits_sql(event: EventType) -> str:
    """Select list that merges bit sets of one key."""
    return ", ".join(f"bit_or({name}) AS {name}" for name in ("observed", *(m.name for m in event.marks)))


def content_sql(event: EventType, series: str = "series") -> str:
    """SQL for 64 bits of a sample's data: two issues of a charge with the same content are one."""
    own = [name for name, _ in event.columns()][len(event.dimensions) :]
    return f"hash({series}, {', '.join(own)})"
