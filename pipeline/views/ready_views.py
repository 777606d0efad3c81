"""Views that answer the questions people come with, over the published ones: no table of their own.

Each is a SELECT over the views of `published.py` and has a comment for itself and for every column, as those have.
Clauses of any kind stand in `readings`, `standing`, `alerts_open` and `clauses`; the view of a kind, which stands with
it in `pipeline.clauses`, only adds names for its numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from pipeline.catalog import Catalog, EventType
from pipeline.clauses import KINDS, alerts_that_add_up_to
from pipeline.readings.charges_sql import sum_sql
from pipeline.readings.deliveries_sql import REVISION, ROWS, WHOLE, counting
from pipeline.rollup.quoting import literal
from pipeline.rules.ready_view import ABOUT, ReadyView
from pipeline.views.sql_files import ready_view


def _alerts(quantity: str) -> str:
    """The names of the alerts whose readings come to a quantity over a day, to stand after IN."""
    return ", ".join(map(literal, alerts_that_add_up_to(quantity)))


_COUNTING = counting("billing", "deliveries")
BILLS = ready_view("bills", counting=_COUNTING, rows=ROWS, whole=WHOLE, billed_cost=sum_sql('"BilledCost"'))
CHARGES = ready_view("charges", counting=_COUNTING, revision=REVISION)
GPU_HOURS = ready_view("gpu_hours")
SINCE_YESTERDAY = ready_view(
    "since_yesterday", gpu_hours_alerts=_alerts("gpu_hours"), forecast_alerts=_alerts("forecast")
)
ENERGY_MIX = ready_view("energy_mix")
ALERTS_OPEN = ready_view("alerts_open", about=ABOUT.replace("labels", "a.labels"))
DATA_AGE = ready_view("data_age")
PIPELINE_HEALTH = ready_view("pipeline_health")

ALL = (
    *(kind.view for kind in KINDS if kind.view is not None),
    BILLS, GPU_HOURS, SINCE_YESTERDAY, ENERGY_MIX, ALERTS_OPEN, DATA_AGE, PIPELINE_HEALTH,
)  # fmt: skip


def ready_views(catalog: Catalog) -> Iterator[ReadyView]:
    """Those whose event types the catalog has."""
    known = {event.view for event in catalog.types}
    billed = (_charges_of(event) for event in catalog.types if event.delivery and not event.closes)
    return (view for view in (*ALL, *billed) if view.needs <= known)


def _charges_of(event: EventType) -> ReadyView:
    """CHARGES with the columns of the bill, which are those of the schema, after the time."""
    fields = {field.name: field.description for field in event.fields}
    measures = {measure.name: measure.description for measure in event.measures}
    columns = {"time": CHARGES.columns["time"], **fields, **measures, **CHARGES.columns}
    return replace(CHARGES, columns=columns)
