"""The SELECTs behind published roll-ups: partial roll-ups, or charges, to the columns that readers see.

Sums stay integers in the schema's quantum until the last step, where one division gives physical units;
rows come in the order of window and dimensions.  Same ledger rows, same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

from pipeline.catalog import EventType, Measure
from pipeline.ledger.deliveries import counts_now, revision
from pipeline.readings.charges_sql import sum_sql
from pipeline.rollup.aggregate import merge_bits_sql, merge_sql
from pipeline.rollup.histogram import BUCKET_KEY, MERGE_BUCKET, VALUE_KEY
from pipeline.rollup.quoting import quoted
from pipeline.rollup.revised import extremes_sql
from pipeline.views.published import PublishedWidth, distinct_columns, measure_aggregates


def bounds(column: str, start: int, end: int) -> str:
    """`column` in `[start, end)`, epoch seconds."""
    return (
        f"{column} >= make_timestamp({start}::BIGINT * 1000000) "
        f"AND {column} < make_timestamp({end}::BIGINT * 1000000)"
    )


def partials_select(event_type: EventType, width: PublishedWidth, start: int, end: int) -> str:
    """One row for each series and window that starts in `[start, end)`, from the partial roll-ups."""
    t, w, inside = event_type.view, width.name, bounds("window_start", start, end)
    steps = [
        f"rolled AS (SELECT series, window_start, {merge_sql(event_type)} FROM partials_{t}_{w} "
        f"WHERE {inside} GROUP BY ALL)"
    ]
    rows, joins = "rolled", [f"JOIN series_{t} USING (series)"]
    if event_type.revision:
        rows = "revised"
        reported, replaced = _reported(event_type, width, start, end)
        steps += [f"reported AS ({reported})", f"revised AS ({replaced})"]
    if event_type.entity:
        distinct = distinct_columns(event_type)
        counts = ", ".join(f"sum(bit_count({bits}))::BIGINT AS {quoted(name)}" for name, bits in distinct)
        ored = ", ".join(f"bit_or({bits}) AS {bits}" for _, bits in distinct)
        steps.append(
            f"distinct_entities AS (SELECT series, window_start, {counts} "
            f"FROM (SELECT series, window_start, block, {ored} FROM bits_{t}_{w} "
            f"WHERE {inside} GROUP BY ALL) GROUP BY ALL)"
        )
        joins.append("LEFT JOIN distinct_entities USING (series, window_start)")
    for m in event_type.histograms:
        key, merged = _hist(f"hist_{t}_{w}")
        source = f"SELECT window_start, {key}, {merged} FROM hist_{t}_{w} WHERE {inside} "
        steps.append(_quantiles(m, f"{source} AND measure = '{m.name}' GROUP BY ALL"))
        joins.append(f"LEFT JOIN {quoted(m.name + ' quantiles')} USING (series, window_start)")
    dimensions = [quoted(d.name) for d in event_type.dimensions]
    columns = ["window_start", *dimensions, "samples::BIGINT AS samples"]
    columns += [f"coalesce({quoted(name)}, 0) AS {quoted(name)}" for name, _ in distinct_columns(event_type)]
    columns += [c for m in event_type.measures for c in _finish(m)]
    return (
        f"WITH {', '.join(steps)} SELECT {', '.join(columns)} FROM {rows} {' '.join(joins)} "
        f"ORDER BY {', '.join(['window_start', *dimensions])}"
    )


def _reported(event_type: EventType, width: PublishedWidth, start: int, end: int) -> tuple[str, str]:
    """The least and greatest values of reports that count, and what is `rolled` with them: partial rows have none of these."""
    assert event_type.revision
    reports = f"(FROM revised_{event_type.view} WHERE {bounds('time', start, end)})"
    both = ", ".join(
        f"{aggregate}(rolled.{name}, reported.{name}) AS {name}"
        for m in event_type.revision.of
        for aggregate, name in (("least", f"{m}_min"), ("greatest", f"{m}_max"))
    )
    return (
        extremes_sql(event_type, reports, width.seconds),
        f"SELECT rolled.* REPLACE ({both}) FROM rolled LEFT JOIN reported USING (series, window_start)",
    )


def merge_select(event_type: EventType, table: str) -> str:
    """SELECT list that merges the rows of one key of a partial table (`GROUP BY ALL` is the caller's)."""
    key = "series, window_start" + (", known_from" if table.endswith("_10s") else "")
    if table.startswith("bits_"):
        return f"{key}, block, {merge_bits_sql(event_type)}"
    if table.startswith("hist_"):
        of, merged = _hist(table)
        return f"{key.removeprefix('series, ')}, {of}, {merged}"
    return f"{key}, {merge_sql(event_type)}"


def _hist(table: str) -> tuple[str, str]:
    """The key of a histogram's rows, and what merges those of one key: in 10 s values stay apart."""
    return (VALUE_KEY, "sum(n)::BIGINT AS n") if table.endswith("_10s") else (BUCKET_KEY, MERGE_BUCKET)


def _finish(measure: Measure) -> Iterator[str]:
    """The published columns of a measure, from merged ones."""
    name = measure.name
    count, total = quoted(name + "_count"), f"{quoted(name + '_sum')}::DOUBLE"
    forms = {
        "mean": physical(total, measure.quantum, count),
        "sum": f"CASE WHEN {count} > 0 THEN {physical(total, measure.quantum)} END",
        "last": f'{quoted(name + "_last")}."value"',
    }
    for aggregate in measure_aggregates(measure):
        column = quoted(f"{name}_{aggregate}")
        if measure.kind == "histogram" and aggregate == "count":
            yield f"coalesce({column}, 0) AS {column}"
        elif aggregate in forms:
            yield f"{forms[aggregate]} AS {column}"
        else:
            yield column


def physical(total: str, quantum: Decimal, count: str = "") -> str:
    """A sum of quanta (over a count) in the measure's unit.

    A quantum like 1e-6 is no binary fraction but its inverse is an integer: dividing by that rounds once.
    """
    inverse = 1 / quantum
    if inverse == int(inverse):
        factors = [f"{int(inverse)}::DOUBLE"] if inverse != 1 else []
        divisor = " * ".join([*factors, *([f"nullif({count}, 0)"] if count else [])])
        return f"{total} / ({divisor})" if divisor else total
    scaled = f"{total} * {quantum}::DOUBLE"
    return f"{scaled} / nullif({count}, 0)" if count else scaled


def _quantiles(measure: Measure, buckets: str) -> str:
    """A CTE with the count and quantiles of one histogram.

    `buckets` gives (series, window_start, bucket, least, greatest, n) once for each.

    A quantile is a value that was observed: the one at rank ceil(q * n), or where several share its row the greatest of
    them, which is above it by less than a bucket.
    """
    name = measure.name
    columns = [f"any_value(total)::BIGINT AS {quoted(name + '_count')}"]
    for aggregate in measure.aggregates:
        rank = f"({int(aggregate[1:])} * total + 99) // 100"
        value = f"CASE WHEN {rank} = upto - n + 1 THEN least ELSE greatest END"
        columns.append(f"min({value}) FILTER (upto >= {rank}) AS {quoted(f'{name}_{aggregate}')}")
    ranked = (
        f"SELECT *, sum(n) OVER (PARTITION BY series, window_start ORDER BY bucket, greatest, least) AS upto, "
        f"sum(n) OVER (PARTITION BY series, window_start) AS total FROM ({buckets})"
    )
    select = (
        f"SELECT series, window_start, {', '.join(columns)} FROM ({ranked}) GROUP BY series, window_start"
    )
    return f"{quoted(name + ' quantiles')} AS ({select})"


def newest_charges(event_type: EventType, start: int, end: int) -> str:
    """The newest revision of each charge that counts, or once did, in `[start, end)`, by the time that it is for.

    A revision may have moved a charge out of these bounds: the newest of all decides, then the bounds.
    """
    moment = quoted(event_type.window_time or "time")
    return (
        f"SELECT * FROM charges SEMI JOIN (SELECT source, id, idx FROM charges WHERE {bounds(moment, start, end)}) "
        f"USING (source, id, idx) WHERE {counts_now(event_type)} QUALIFY row_number() "
        f'OVER (PARTITION BY {revision(event_type)} ORDER BY "time" DESC, known_from DESC) = 1 '
        f"ORDER BY {moment}"
    )


def charges_select(event_type: EventType, width: PublishedWidth, start: int, end: int) -> str:
    """One row for each dimensions and window that starts in `[start, end)`, from a table `newest` of the newest revisions."""
    moment = quoted(event_type.window_time or "time")
    inside = bounds(moment, start, end)
    dimensions = [quoted(d.name) for d in event_type.dimensions]
    columns = [
        f"time_bucket(INTERVAL {width.seconds} SECONDS, {moment}) AS window_start",
        *dimensions,
        "count(*)::BIGINT AS samples",
        *([f"count(DISTINCT {quoted(event_type.entity.name)})::BIGINT AS gpus"] if event_type.entity else []),
        *(c for m in event_type.measures for c in _of_charges(m)),
    ]
    return (
        f"SELECT {', '.join(columns)} FROM newest WHERE {inside} "
        f"GROUP BY ALL ORDER BY {', '.join(['window_start', *dimensions])}"
    )


def _of_charges(measure: Measure) -> Iterator[str]:
    """Money sums are exact decimals; sums of other numbers are counted in the schema's quantum."""
    column = quoted(measure.name)
    quanta = f"sum(round({column} / {measure.quantum})::HUGEINT)::DOUBLE"
    forms = {
        "mean": physical(quanta, measure.quantum, f"count({column})"),
        "sum": physical(quanta, measure.quantum),
        "min": f"min({column})::DOUBLE",
        "max": f"max({column})::DOUBLE",
        "last": f'arg_max({column}, ("time", source, id, idx))',
    }
    if measure.kind == "money":
        forms |= {"sum": sum_sql(column), "min": f"min({column})", "max": f"max({column})"}
    for aggregate in measure_aggregates(measure):
        if aggregate in forms:
            yield f"{forms[aggregate]} AS {quoted(f'{measure.name}_{aggregate}')}"
