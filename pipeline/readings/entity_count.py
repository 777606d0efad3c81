"""How many entities (GPUs) are there: observed, healthy or in use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import ClassVar, Literal

from pipeline.catalog import EventType
from pipeline.readings.at_home import at_home_sql
from pipeline.readings.past import Past, all_of, entity_name, series_names, where, within_sql
from pipeline.readings.reading import GRID, By, Match
from pipeline.readings.series_sql import Bits, Columns, Worth, counted_bits
from pipeline.readings.series_sum import SeriesSum
from pipeline.readings.span import Span
from pipeline.readings.spec import Group, Instant
from pipeline.rollup.aggregate import marked_sql
from pipeline.rollup.quoting import moment, quoted

Counts = Literal["observed", "healthy", "in_use"]
MISSED = 3_600
"""An entity that is not delivered is listed if it was there in so many seconds before."""


@dataclass(frozen=True, slots=True)
class EntityCount(SeriesSum):
    """Distinct entities (GPUs) seen in the `span` seconds before an instant.

    Read as delivered (`value`), `silent` and `lost`; silence becomes loss after `loss_after` seconds.
    """

    topic: str
    match: Match
    by: By
    span: int
    counts: Counts = "healthy"
    loss_after: int = 300
    of_entities: ClassVar[bool] = True
    counting: ClassVar[bool] = True

    def said(self) -> Mapping[str, int]:
        return {"in_use": self.span} if self.counts == "in_use" else {}

    def quantum(self, event_type: EventType) -> Decimal:
        return Decimal(1)

    def columns(self) -> Columns:
        return (("sum", "samples"), ("min", "window_start"))

    def bits(self, event_type: EventType) -> Bits:
        marks = (mark.name for mark in event_type.marks if mark.name in ("unhealthy", "in_use"))
        counted = counted_bits(event_type)
        return Bits(("observed", *marks), {"entities": counted[self.counts], **counted})

    def worth(self, event_type: EventType, weighed: bool) -> Worth:
        return Worth("entities", "samples")

    def settled(self, event_type: EventType, span: Span) -> str:
        """A series has been heard for a whole interval and a window: each of its entities had its turn."""
        if self.span < event_type.interval + GRID:
            return "true"
        return f"epoch(window_start) <= t::BIGINT * {GRID} - {GRID} - {span.interval_sql(event_type)}"

    def reproduce(self, event_type: EventType, group: Group, at: Instant) -> str:
        """Entities seen in the span, of series that are not silent; healthy means never marked unhealthy in it."""
        event_type = event_type if at.frozen else replace(event_type, frozen=None)
        past = Past(event_type, at, self.reports)
        marks = {mark.name: mark for mark in event_type.marks}
        mark, keep = "true", "true"
        if self.counts == "in_use":
            mark, keep = marked_sql(marks["in_use"]), "marked"
        elif self.counts == "healthy" and "unhealthy" in marks:
            mark, keep = marked_sql(marks["unhealthy"]), "NOT marked"
        recent = f"FILTER ({past.since(self.span)})"
        at_home = at_home_sql(past, self.span, f", coalesce(bool_or({mark}) {recent}, false) AS marked")
        return (
            f"SELECT count(*) AS value FROM (\n{at_home})\nWHERE {all_of([keep, *where(self.match, group)])}"
        )

    def rows_sql(self, event_type: EventType, group: Group, at: Instant) -> str:
        """Each entity of `group` that was there in the hour before and is not delivered.

        Where it is, its labels (the node), when it was last seen, and why: failed, idle, gone or silent.
        """
        past = Past(event_type, at, self.reports)
        entity, series = entity_name(event_type), series_names(event_type)
        labels = "".join(
            f', arg_max({quoted(each.name)}, "time") AS {quoted(each.name)}' for each in event_type.labels
        )
        own = ", ".join([*(quoted(d) for d in event_type.within), entity])
        recent = f"FILTER ({past.since(self.span)})"
        gone = (
            f"NOT bool_or({past.since(self.span)})"
            if at.slow
            else f'max("time") < {moment(at.t - self.span)}'
        )
        return (
            f'SELECT * FROM (\n  SELECT {series}, {entity}{labels}, max("time") AS last_seen,\n'
            f"    CASE WHEN max({past.last()}) OVER (PARTITION BY {series}) < {past.stop()} THEN 'silent'\n"
            f"      WHEN {gone} THEN 'gone'{self._marked(event_type, recent)} END AS why\n"
            f"  FROM {event_type.view} WHERE {within_sql((), {}, at.t, past.rows(MISSED))}\n  GROUP BY {series}, {entity}\n"
            f'  QUALIFY row_number() OVER (PARTITION BY {own} ORDER BY max("time") DESC) = 1)\n'
            f"WHERE {all_of(['why IS NOT NULL', *where(self.match, group)])} ORDER BY ALL"
        )

    def _marked(self, event_type: EventType, recent: str) -> str:
        """The WHEN for those that are there, and do not count."""
        marks = {mark.name: mark for mark in event_type.marks}
        if self.counts == "healthy" and "unhealthy" in marks:
            return f"\n      WHEN bool_or({marked_sql(marks['unhealthy'])}) {recent} THEN 'failed'"
        if self.counts == "in_use":
            marked = f"bool_or({marked_sql(marks['in_use'])}) {recent}"
            return f"\n      WHEN NOT coalesce({marked}, false) THEN 'idle'"
        return ""
