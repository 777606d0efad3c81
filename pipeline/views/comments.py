"""What every view and column says of itself, for whoever meets it in a schema browser: `COMMENT ON …` text.

Of the event types it follows from the schema files: descriptions, units, ranges.  Of our own tables it stands here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pipeline.catalog import Catalog, EventType, Measure
from pipeline.clauses import KINDS
from pipeline.rollup.quoting import literal, quoted
from pipeline.rules.ready_view import DATE
from pipeline.views.published import (
    WIDTHS,
    PublishedTable,
    distinct_columns,
    measure_aggregates,
    minutes_table,
    published_tables,
)

SHARED: Mapping[str, str] = {
    "time": "Event time, UTC",
    "source": "CloudEvents source: who sent it",
    "id": "CloudEvents id: unique for its source",
    "idx": "Place in the message's array of samples; 0 for a single one",
    "interval": "Seconds between two reports of its source, where the source declares them",
    "known_from": "First instant of evaluation that could see the row, UTC",
    "contract": "Contract, by its id",
    "clause": "Clause, by its id",
    "alertname": "What is wrong when it fires",
    "by_values": "The values that the clause is split by, as a JSON object",
    "severity": "critical, warning, ticket or info",
    "observed": "What was read",
    "bound": "What is allowed or promised, in force at that time",
    "unit": "Unit of observed and bound",
    "window": "Business-critical window, by its name; NULL outside",
    "samples": "Samples that the number rests on",
    "topic": "Kafka topic",
    "part": "Kafka partition",
    "reason": "Why it is not aggregated",
    "facts": "What else the reading says, as a JSON object: healthy, silent, basis, …",
    "text": "In the contract's words",
    DATE: "Day of the row's time, UTC: by a condition on it the files of other days are not opened",
}
ALERT: Mapping[str, str] = {
    "time": "Instant of the change, UTC",
    "labels": "All labels, as a JSON object",
    "state": "pending, firing, updated, stale, fresh, resolved or inactive",
    "active_at": "First instant of the unbroken run of breaches, UTC",
    "fired_at": "When it fired, UTC",
    "resolved_at": "When it was over, UTC",
    "annotations": "Everything the alert says, as a JSON object: summary, text, runbook, sql, …",
    "trusted": "Whether the telemetry could vouch for the number",
}
"""Of every change of an alert, in both of their tables."""
OWN: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "quarantine": (
        "Events that were understood but are not credible, in no roll-up; and measures that were set aside, whose samples "
        "count without them",
        {
            "reason": "Why it is not aggregated, or why the field is set aside",
            "field": "The measure or label that is set aside; NULL: the whole sample is quarantined",
            "record_offset": "Kafka offset of its record",
            "sample": "The sample as it came, or of a field that is set aside it alone; at most 65,536 characters",
            "record_time": "When Kafka got its record, UTC",
            DATE: "Day of the record_time, UTC: by a condition on it the files of other days are not opened",
        },
    ),
    "alerts": ("Alerts: a row for each change of state", ALERT),
    "alerts_now": ("Alerts that are pending or fire now: the newest change of each", ALERT),
    "standing": (
        "How each promise stands now: a row for each clause and what it is split by",
        {
            "state": "ok, breach or unknown",
            "since": "First instant of that state, UTC",
            "time": "Instant of the reading, UTC",
            "labels": "Labels of the alert that is open on it, as a JSON object; NULL: none is",
            "fired_at": "When that fired, UTC",
            "fired_observed": "What was read when it fired",
        },
    ),
    "readings": (
        "How each promise stood: a row for each full minute, and one for each instant at which its state changed",
        {"time": "Instant of the reading, UTC", "state": "ok, breach or unknown"},
    ),
    "forecasts": (
        "The forecast of each tranche as it stood on each day, by what was known then: what the day's last evaluated "
        "minute said",
        {
            "day": "Day, in the contract's time zone",
            "time": "Instant of that reading, UTC",
            "currency": "Currency of all amounts: the contract's",
            "spent": "Charges from the tranche's start that were known by then",
            "forecast": "What the tranche was on course to come to; NULL before its first complete day",
            "ceiling": "What must not be passed, as the contract said then",
            "crosses": "Date, in the contract's time zone, on which the ceiling was to be passed; NULL: not at all",
            "complete_days": "Days of charges that the forecast rests on",
            "total_days": "Days of the tranche, to which it is projected",
            "state": "breach: the forecast is above the ceiling; ok or unknown",
            "left_out": "Charges that could not be counted, in words; all amounts are those without them",
        },
    ),
    "clauses": (
        "The clauses of the contracts in use, of every kind",
        {
            "version": "Version of the contract",
            "supplier": "Who promised",
            "customer": "Whom it was promised to",
            "currency": "Currency of all amounts",
            "term_start": "First instant of the contract, UTC",
            "term_end": "Instant at which it is over, UTC",
            "kind": ", ".join(kind.name for kind in KINDS),
            "by_dimensions": "Dimensions that it is split by, as a JSON array",
            "match": "Dimension values that it covers, as a JSON object; empty: all",
            "severity": "Severity outside windows",
            "runbook": "What to do",
            "contact": "Whom to call",
            "route": "Labels for routing, as a JSON object",
            "risk_per_hour": "What an hour of breach is said to cost",
            "terms": "What only its kind has: bounds, ramps, indicator, …, as a JSON object",
        },
    ),
    "windows": (
        "Business-critical windows within a year of now: a row for each occurrence",
        {"starts": "First instant, UTC", "ends": "Instant at which it is over, UTC"},
    ),
    "aliases": (
        "What suppliers call things in their bills, as the contracts say",
        {
            "dimension": "What is named: provider, region or sku",
            "billed": "Its name in bills",
            "name": "Its name in telemetry",
        },
    ),
    "health": (
        "The pipeline itself, by the wall clock: a row for each topic and minute",
        {
            "time": "When it was noted, UTC",
            "next_offset": "Records taken in so far, over all partitions",
            "lag": "Records that wait in Kafka",
            "watermark": "Event time up to which everything is taken in, UTC",
            "events_per_second": "Events taken in, all topics, over the last ten seconds",
            "freshness_p99_seconds": "From a record's append to the alert's acceptance, 99th percentile",
            "decision_delay_p99_seconds": "From when an alert was due to its acceptance, 99th percentile",
            "undelivered": "Alert changes that no destination has accepted yet",
            "state": "well, stalled or stopped",
            "since": "Since when it has been stalled or stopped, UTC; NULL while it is well",
            "why": "Why it is stalled, in the words of the alert PipelineStalled; NULL while it is well",
        },
    ),
    "fates": (
        "What became of every event: in = aggregated + duplicate + quarantined + dead_lettered",
        {
            "minute": "Minute in which Kafka got the records, UTC",
            "fate": "in, aggregated, duplicate, quarantined or dead_lettered",
            "n": "Events",
        },
    ),
    "set_aside": (
        "How many samples were taken in without a measure or label that was not what the schema says; of each partition, "
        "minute, field and reason the first are in quarantine",
        {
            "minute": "Minute in which Kafka got the records, UTC",
            "field": "The measure or label that was set aside",
            "reason": "Why",
            "n": "Samples that are aggregated without it",
        },
    ),
}
AGGREGATES: Mapping[str, str] = {
    "count": "values",
    "mean": "mean",
    "min": "least",
    "max": "greatest",
    "last": "last",
    "sum": "sum",
    "p50": "median",
    "p95": "95th percentile",
    "p99": "99th percentile",
}


def comments_sql(catalog: Catalog) -> str:
    """`COMMENT ON` text for every published view and each of its columns."""
    return "\n".join(_statements(catalog))


def _statements(catalog: Catalog) -> Iterator[str]:
    for table in published_tables(catalog):
        view, columns = described(table, catalog)
        yield comment("VIEW", quoted(table.view), view)
        for name, _ in table.shown:
            yield comment("COLUMN", f"{quoted(table.view)}.{quoted(name)}", columns[name])


def comment(kind: str, name: str, text: str) -> str:
    return f"COMMENT ON {kind} {name} IS {literal(text)};"


def described(table: PublishedTable, catalog: Catalog) -> tuple[str, Mapping[str, str]]:
    """What a view is, and what each of its columns is."""
    if table.view in OWN:
        view, columns = OWN[table.view]
        return view, {**SHARED, **columns}
    for event in catalog.types:
        if table.view == event.view:
            return f"{event.title}: every sample. {event.description}".strip(), {
                **SHARED,
                **dict(_raw(event)),
            }
        if table == minutes_table(event):
            return f"{event.title}: GPU-minutes of each quarter of an hour", {
                **SHARED,
                **dict(_minutes(event)),
            }
        for width in WIDTHS:
            if table.view == f"{event.view}_{width.name}":
                return f"{event.title}: roll-ups of {width.name}", dict(_rolled(event, width.name))
    raise KeyError(table.view)


def _minutes(event: EventType) -> Iterator[tuple[str, str]]:
    yield "window_start", "Start of the quarter of an hour, UTC"
    for dimension in event.dimensions:
        yield dimension.name, dimension.description or dimension.name
    yield "delivered", "GPU-minutes of GPUs that reported in that minute, each once"
    yield "healthy", "Those of GPUs that were not degraded or failed in it"
    yield "used", "Those of GPUs that were at work in it"
    yield (
        "silent",
        "GPU-minutes of GPUs whose source as a whole had stopped, for a day after it was last heard, and that do not report "
        "from elsewhere; known once the quarter of an hour is over",
    )
    yield "covered", "Minutes in which any of these GPUs reported"
    yield (
        "step_seconds",
        "60: counted by the minute; 900: by the quarter of an hour, of days before GPU-minutes were kept",
    )
    yield DATE, "Day of the window's start, UTC: by a condition on it the files of other days are not opened"


def _raw(event: EventType) -> Iterator[tuple[str, str]]:
    for field in event.fields:
        yield field.name, field.description or field.name
    for measure in event.measures:
        yield measure.name, _with_unit(measure)
    yield "x_columns", "Custom columns x_…, as a JSON object"


def _with_unit(measure: Measure) -> str:
    text = measure.description or measure.name
    return f"{text} ({measure.unit})" if measure.unit else text


def _rolled(event: EventType, width: str) -> Iterator[tuple[str, str]]:
    yield "window_start", f"Start of the {width} window, UTC; it ends before the next one's"
    for dimension in event.dimensions:
        yield dimension.name, dimension.description or dimension.name
    yield "samples", "Samples in the window"
    yield DATE, "Day of the window's start, UTC: by a condition on it the files of other days are not opened"
    for name, bits in distinct_columns(event):
        what = "Distinct entities in the window"
        yield name, what if bits == "observed" else f"{what} that were {bits.replace('_', ' ')} in it"
    for measure in event.measures:
        for aggregate in measure_aggregates(measure):
            yield (
                f"{measure.name}_{aggregate}",
                f"{_with_unit(measure)}: {_said(event, measure, aggregate, width)}",
            )


def _said(event: EventType, measure: Measure, aggregate: str, width: str) -> str:
    """What an aggregate is, and what it rests on where that is not the obvious."""
    text = AGGREGATES[aggregate]
    if aggregate == "mean" and event.entity and not event.retained:
        return f"{text} of the samples; for a fleet average each {event.entity.name} first: some report more often"
    if measure.kind == "histogram" and aggregate != "count":
        exact = "" if width == WIDTHS[0].name else " or the greatest within 2.2 % above it"
        return f"{text}: the value at its rank{exact}"
    return text
