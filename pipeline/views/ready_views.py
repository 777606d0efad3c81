"""Views that answer the questions people come with, over the published ones: no table of their own.

Each is a SELECT over the views of `published.py` and has a comment for itself and for every column, as those have.
Clauses of any kind stand in `readings`, `standing`, `alerts_open` and `clauses`; the view of a kind, which stands with
it in `pipeline.clauses`, only adds names for its numbers.
"""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.catalog import Catalog
from pipeline.clauses import KINDS
from pipeline.rules.ready_view import ABOUT, ReadyView
from pipeline.views.bill_views import BILLS, charges_view
from pipeline.views.money_views import GPU_HOURS, SINCE_YESTERDAY
from pipeline.views.sql_files import ready_view

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
    billed = (charges_view(event) for event in catalog.types if event.delivery and not event.closes)
    return (view for view in (*ALL, *billed) if view.needs <= known)
