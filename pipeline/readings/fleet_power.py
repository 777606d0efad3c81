"""What a fleet draws by its own telemetry: the mean of its entities (GPUs), times how many there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from pipeline.catalog import EventType
from pipeline.readings.at_home import at_home_sql
from pipeline.readings.measure_sum import MeasureSum
from pipeline.readings.past import Past, all_of, entity_name, series_names, within_sql
from pipeline.readings.reading import By, Match
from pipeline.readings.series_sql import Bits, Columns, Worth, counted_bits
from pipeline.readings.span import Span
from pipeline.readings.spec import Group, Inquiry, Instant
from pipeline.readings.weights import Ask, Weighed, weigh, weigh_asked
from pipeline.rollup.quoting import quoted


@dataclass(frozen=True, slots=True)
class FleetPower(MeasureSum):
    """Mean of `measure` times distinct entities over `span`, for each series, then summed."""

    topic: str
    measure: str
    match: Match
    by: By
    span: int
    loss_after: int = 300
    of_entities: ClassVar[bool] = True
    alone: ClassVar[bool] = True  # how many samples are weighed one by one is bounded for each clause

    @property
    def reports(self) -> int:
        return 1

    def columns(self) -> Columns:
        return (("sum", f"{self.measure}_count"), ("sum", f"{self.measure}_sum"))

    def bits(self, event_type: EventType) -> Bits:
        return Bits(("observed",), {"entities": counted_bits(event_type)["observed"]})

    def worth(self, event_type: EventType, weighed: bool) -> Worth:
        count, total = self.column("count"), self.column("sum")
        mean = f"{total} * entities // {count}"
        if weighed:
            mean = f"CASE WHEN den IS NULL THEN {mean} ELSE num * entities // den END"
        return Worth(mean, count, f"{count} > 0")

    def weigh(self, event_type: EventType, span: Span) -> Inquiry[list[Weighed]]:
        return (yield from weigh(self, event_type, span))

    def weigh_asked(self, event_type: EventType, asks: Sequence[Ask], span: Span) -> Inquiry[bool]:
        return (yield from weigh_asked(self, event_type, asks, span))

    def reproduce(self, event_type: EventType, group: Group, at: Instant) -> str:
        """For each series that is not silent the mean of its entities' means, times its entities."""
        event_type = event_type if at.frozen else replace(event_type, frozen=None)
        past = Past(event_type, at, self.reports)
        names, entity = series_names(event_type), entity_name(event_type)
        dimensions = (quoted(d.name) for d in event_type.dimensions)
        same = all_of(f"fleet.{each} IS NOT DISTINCT FROM home.{each}" for each in dimensions)
        within = within_sql(self.match, group, at.t, past.rows(self.span))
        return (
            f"SELECT coalesce(sum(mean * entities), 0) AS value FROM (\n  SELECT {names}, avg(mean) AS mean FROM (\n"
            f"    SELECT {names}, {entity}, {past.last()} AS last,\n"
            f"      avg({quoted(self.measure)}) FILTER ({past.since(self.span)}) AS mean\n"
            f"    FROM {event_type.view}\n    WHERE {within}\n    GROUP BY {names}, {entity})\n"
            f"  GROUP BY {names}\n  HAVING max(last) >= {past.stop()}) AS fleet\n"
            f"JOIN (SELECT {names}, count(*) AS entities FROM (\n{at_home_sql(past, self.span)})\n"
            f"  GROUP BY ALL) AS home ON {same}"
        )
