"""What stands at the end of a span: the last value of each queue, summed."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.catalog import EventType
from pipeline.readings.measure_sum import MeasureSum
from pipeline.readings.past import Past, last_value
from pipeline.readings.reading import By, Match
from pipeline.readings.series_sql import Columns, Worth
from pipeline.readings.spec import Group, Instant


@dataclass(frozen=True, slots=True)
class LastSum(MeasureSum):
    """The last value of `measure` within `span`, for each series (a queue), then summed."""

    topic: str
    measure: str
    match: Match
    by: By
    span: int
    loss_after: int = 300

    def columns(self) -> Columns:
        return (("sum", f"{self.measure}_count"), ("max", f"{self.measure}_last"))

    def worth(self, event_type: EventType, weighed: bool) -> Worth:
        count = self.column("count")
        value = f"""round({self.column("last")}."value" / {self.quantum(event_type)})"""
        return Worth(value, count, f"{count} > 0")

    def reproduce(self, event_type: EventType, group: Group, at: Instant) -> str:
        return self.summed(last_value(self.measure), Past(event_type, at, self.reports), group)
