"""What all dashboards share: variables that links carry over, markers of alerts and windows, links, UTC, refresh."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard
from grafana_foundation_sdk.models.dashboard import VariableHide, VariableRefresh, VariableSort

from pipeline.clauses import KINDS
from pipeline.dashboards.panel_sql import (
    ALL,
    CHANGES,
    LABELS_REGION,
    SOURCE,
    MysqlTarget,
    in_days,
    of_contract,
    of_region,
    plain,
)
from pipeline.dashboards.panels import BLUE, ORANGE, PURPLE, RED, Laid
from pipeline.rollup.quoting import literal

TAG = "gigawatch"
MINUTES, DAYS = "gigawatch-minutes", "gigawatch-days"
"""Of dashboards about what is measured every minute, and about what is charged by the day: no range suits both."""
PREFIX = "gigawatch-"
"""What the uid of each dashboard starts with."""
REFRESH = "30s"
Variable = builders.QueryVariable

EVERYTHING = "true"
"""The alerts that concern a dashboard: all."""


def fired(severities: str, concerning: str) -> str:
    """When alerts fired, of a condition on their severity and of those that concern the dashboard."""
    return f"""
    SELECT fired_at AS "time", concat(alertname, ' ', clause) AS title,
        arg_max(annotations ->> '$.summary', "time") AS text, concat(arg_max(severity, "time"), ',', contract) AS tags
    FROM {CHANGES}
    WHERE fired_at BETWEEN $__timeFrom() AND $__timeTo() AND {of_contract()} AND {of_region(LABELS_REGION)} AND {concerning}
    GROUP BY alertname, contract, clause, json_merge_patch(labels, '{{"severity": null}}'), fired_at
    HAVING arg_max(severity, "time") {severities}
    ORDER BY 1 DESC LIMIT 100
"""


def that_read(view: str) -> str:
    """Alerts of clauses of the kinds that read the events of `view`."""
    names = ", ".join(literal(kind.name) for kind in KINDS if view in kind.of)
    return f"clause IN (SELECT clause FROM clauses WHERE kind IN ({names}))"


MARKERS = (
    ("Critical", "= 'critical'", RED),
    ("Warnings", "= 'warning'", ORANGE),
    ("Tickets", "NOT IN ('critical', 'warning', 'info')", BLUE),
)
"""(name, condition on the severity, colour): of one question Grafana draws all in one colour."""
WINDOWS = f"""
    SELECT "time", concat("window", ' ', what) AS title, text, contract AS tags
    FROM (SELECT unnest([starts, ends]) AS "time", unnest(['begins', 'ends']) AS what, "window", text, contract
          FROM windows
          WHERE {of_contract()}
              AND 50 * (epoch(ends) - epoch(starts)) >= epoch($__timeTo()::TIMESTAMP) - epoch($__timeFrom()::TIMESTAMP))
    WHERE $__timeFilter("time") ORDER BY 1 LIMIT 50
"""
"""Where they begin and end.  Of those that are short beside the time range there would be a hedge of lines."""
CONTRACTS = "SELECT DISTINCT contract FROM clauses ORDER BY 1"
REGIONS = f"""
    SELECT DISTINCT region FROM (
        SELECT by_values ->> '$.region' AS region FROM standing
        UNION ALL SELECT region FROM energy_1d WHERE {in_days()}
        UNION ALL SELECT region FROM gpu_1d WHERE {in_days("$__timeTo() - INTERVAL 1 DAY")})
    WHERE region IS NOT NULL ORDER BY 1
"""
RESOLUTION = """
    SELECT CASE WHEN ${__to} - ${__from} <= 3600000 THEN '1m' WHEN ${__to} - ${__from} <= 86400000 THEN '15m'
        WHEN ${__to} - ${__from} <= 5 * 86400000 THEN '1h' ELSE '1d' END AS resolution
"""
"""Width of the roll-ups behind a range: a fleet of 1 GW has 8,300 series, so none of these reads over a million rows."""
RESOLUTION_MS = "CASE '${resolution}' WHEN '1m' THEN 60000 WHEN '15m' THEN 900000 WHEN '1h' THEN 3600000 ELSE 86400000 END"


def variable(name: str, label: str, sql: str, description: str) -> Variable:
    """Several values of a column, or everything; asked again when the dashboard is opened."""
    return (
        Variable(name).label(label).description(description).datasource(SOURCE).query(plain(sql)).definition(plain(sql))
        .refresh(VariableRefresh.ON_DASHBOARD_LOAD).sort(VariableSort.DISABLED).multi(True).include_all(True)
        .all_value(f"'{ALL}'").current(dashboard.VariableOption(text="All", value="$__all"))
    )  # fmt: skip


def contract() -> Variable:
    """`$contract`."""
    return variable("contract", "Contract", CONTRACTS, "The contracts in use")


def region() -> Variable:
    """`$region`."""
    return variable(
        "region", "Region", REGIONS, "Regions that promises are split by, or that report"
    ).refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)


def hidden(name: str, sql: str, description: str, first: str) -> Variable:
    """A variable that nobody chooses: it follows from the data, or the time range; `first`: before it was asked for."""
    return (
        Variable(name).datasource(SOURCE).query(plain(sql)).definition(plain(sql)).description(description)
        .hide(VariableHide.HIDE_VARIABLE).refresh(VariableRefresh.ON_TIME_RANGE_CHANGED).multi(False).include_all(False)
        .current(dashboard.VariableOption(text=first, value=first))
    )  # fmt: skip


def resolution() -> Variable:
    """`$resolution`: which roll-ups are read."""
    says = "Width of the roll-ups that panels read; it follows from the time range"
    return hidden("resolution", RESOLUTION, says, "15m")


def marker(name: str, sql: str, colour: str, panels: list[int]) -> Builder[dashboard.AnnotationQuery]:
    """Thin lines at instants, from SQL: nothing is written to Grafana's own store.  Spans would hide the series.

    States over time have none: their lanes say it better.
    """
    return (
        builders.AnnotationQuery().name(name).datasource(SOURCE).enable(True).hide(False).icon_color(colour)
        .filter(builders.AnnotationPanelFilter().exclude(False).ids(panels)).target(MysqlTarget(sql, ref="Anno"))
    )  # fmt: skip


def link_to(tag: str, keep_time: bool) -> Builder[dashboard.DashboardLink]:
    """The dashboards of a tag, with what is chosen here; a range that is kept stays as it is, relative or not."""
    return (
        builders.DashboardLink("Gigawatch").type(dashboard.DashboardLinkType.DASHBOARDS).tags([tag]).icon("external link")
        .tooltip("The other dashboards, with what is chosen here").include_vars(True).keep_time(keep_time)
    )  # fmt: skip


def frame(
    name: str, title: str, description: str, panels: Sequence[Laid], *, variables: Sequence[Variable] = (),
    back: str = "now-1h", kind: str = MINUTES, concerning: str = EVERYTHING,
) -> dashboard.Dashboard:  # fmt: skip
    """A whole dashboard: uid `gigawatch-NAME`, contract and region chosen in front of `variables`.

    `back`: the beginning of the range that it opens on, up to now; `kind`: whether that is of `MINUTES` or `DAYS`;
    `concerning`: the condition on alerts that are marked in its series.
    """
    others = [link_to(MINUTES, keep_time=kind == MINUTES)] + (
        [link_to(DAYS, keep_time=False)] if kind != DAYS else []
    )
    built = [cast(Builder[dashboard.Panel], panel).build() for panel in panels]
    series = [panel.id_val for panel in built if panel.type_val == "timeseries" and panel.id_val is not None]
    marked = [
        *(marker(of, fired(severities, concerning), colour, series) for of, severities, colour in MARKERS),
        marker("Windows", WINDOWS, PURPLE, series),
    ]
    whole = (
        builders.Dashboard(title).uid(PREFIX + name).description(description).tags([TAG, kind]).timezone("utc").readonly()
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR).time(back, "now").refresh(REFRESH).links(others)
        .variables([contract(), region(), *variables]).annotations(marked if series else [])
    )  # fmt: skip
    model = whole.build()
    model.panels = list(built)
    return model
