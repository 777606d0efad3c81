"""The one definition of everything that readers see: published views, ready views over them, and their comments.

`gigawatch sql`, the SQL door, the dashboards and the board all open these, and a DuckDB of one's own can.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pipeline.catalog import Catalog
from pipeline.rollup.quoting import quoted
from pipeline.views.comments import comment, comments_sql
from pipeline.views.published import published_sql, published_tables
from pipeline.views.ready_views import ready_views


def names(catalog: Catalog) -> tuple[str, ...]:
    """Names of all views: those of tables first."""
    return (*(t.view for t in published_tables(catalog)), *(v.name for v in ready_views(catalog)))


def views_sql(data: Path, catalog: Catalog, comments: bool = True) -> str:
    """All views, with or without their comments, as `CREATE VIEW` and `COMMENT ON` text, for a DuckDB of one's own.

    Comments are most of the work: 0.8 of 1.4 s.
    """
    said = [comments_sql(catalog), *_said_of_ready(catalog)] if comments else []
    return "\n".join([published_sql(data, catalog), *_ready(catalog), *said])


def _ready(catalog: Catalog) -> Iterator[str]:
    for view in ready_views(catalog):
        yield f"CREATE OR REPLACE VIEW {quoted(view.name)} AS {view.select};"


def _said_of_ready(catalog: Catalog) -> Iterator[str]:
    for view in ready_views(catalog):
        yield comment("VIEW", quoted(view.name), view.comment)
        for name, text in view.columns.items():
            yield comment("COLUMN", f"{quoted(view.name)}.{quoted(name)}", text)
