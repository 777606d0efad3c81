"""What fleet power, meters and last values share: the measure that they are of."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from pipeline.catalog import EventType
from pipeline.readings.past import Past, series_names, within_sql
from pipeline.readings.series_sum import SeriesSum
from pipeline.readings.spec import Group
from pipeline.rollup.quoting import quoted


class MeasureSum(SeriesSum):
    """One value of `measure` for each series."""

    __slots__ = ()
    measure: str

    def said(self) -> Mapping[str, int]:
        return {self.measure: self.span}

    def quantum(self, event_type: EventType) -> Decimal:
        return event_type.measure(self.measure).quantum

    def column(self, aggregate: str) -> str:
        """A column of partial rows, quoted."""
        return quoted(f"{self.measure}_{aggregate}")

    def summed(self, value: str, past: Past, group: Group) -> str:
        """The SQL that reproduces it where each series has a `value` of its rows in the span."""
        event_type = past.event_type
        within = within_sql(self.match, group, past.t, past.rows(self.span))
        return (
            f"SELECT coalesce(sum(value), 0) AS value FROM (\n"
            f"  SELECT {value} FILTER ({past.since(self.span)}) AS value\n"
            f"  FROM {event_type.view}\n  WHERE {within}\n"
            f"  GROUP BY {series_names(event_type)}\n  HAVING {past.last()} >= {past.stop()})"
        )
