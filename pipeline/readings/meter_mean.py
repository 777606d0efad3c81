"""What meters show: the mean of each feed, summed."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.catalog import EventType
from pipeline.readings.measure_sum import MeasureSum
from pipeline.readings.past import Past
from pipeline.readings.reading import By, Match
from pipeline.readings.series_sql import Columns, Worth
from pipeline.readings.spec import Group, Instant
from pipeline.rollup.quoting import quoted


@dataclass(frozen=True, slots=True)
class MeterMean(MeasureSum):
    """Mean of `measure` over `span`, for each series (a feed), then summed."""

    topic: str
    measure: str
    match: Match
    by: By
    span: int
    loss_after: int = 300

    @property
    def reports(self) -> int:
        return 1

    def columns(self) -> Columns:
        return (("sum", f"{self.measure}_count"), ("sum", f"{self.measure}_sum"))

    def worth(self, event_type: EventType, weighed: bool) -> Worth:
        count = self.column("count")
        return Worth(f"{self.column('sum')} // {count}", count, f"{count} > 0")

    def reproduce(self, event_type: EventType, group: Group, at: Instant) -> str:
        return self.summed(f"avg({quoted(self.measure)})", Past(event_type, at, self.reports), group)
