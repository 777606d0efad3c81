"""What all dashboards share: variables that links carry over, regions of alerts and windows, links, UTC, refresh."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard
from grafana_foundation_sdk.models.dashboard import VariableHide, VariableRefresh, VariableSort

from pipeline.serve.dashboards_panels import BLUE, RED, Laid
from pipeline.serve.dashboards_sql import (
    ALL,
    CHANGES,
    LABELS_REGION,
    NOW,
    SOURCE,
    Asked,
    in_days,
    of_contract,
    of_region,
    plain,
)

TAG = "gigawatch"
PREFIX = "gigawatch-"
"""What the uid of each dashboard starts with."""
REFRESH = "30s"
Variable = builders.QueryVariable

ALERTS = f"""
    SELECT active_at AS "time", coalesce(max(resolved_at), least({NOW}, $__timeTo())) AS timeend,
        concat(alertname, ' ', clause) AS title, arg_max(annotations ->> '$.summary', "time") AS text,
        concat(arg_max(severity, "time"), ',', contract) AS tags
    FROM {CHANGES}
    WHERE severity <> 'info' AND active_at <= $__timeTo() AND {of_contract()} AND {of_region(LABELS_REGION)}
    GROUP BY alertname, contract, clause, json_merge_patch(labels, '{{"severity": null}}'), active_at
    HAVING count(fired_at) > 0 AND coalesce(max(resolved_at), {NOW}) >= $__timeFrom()
    ORDER BY 1 DESC LIMIT 200
"""
WINDOWS = f"""
    SELECT starts AS "time", ends AS timeend, "window" AS title, text, contract AS tags
    FROM windows
    WHERE starts <= $__timeTo() AND ends >= $__timeFrom() AND {of_contract()}
    ORDER BY starts LIMIT 200
"""
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


def resolution() -> Variable:
    """`$resolution`, hidden: which roll-ups are read follows from the time range."""
    return (
        Variable("resolution").datasource(SOURCE).query(plain(RESOLUTION)).definition(plain(RESOLUTION))
        .description("Width of the roll-ups that panels read; it follows from the time range")
        .hide(VariableHide.HIDE_VARIABLE).refresh(VariableRefresh.ON_TIME_RANGE_CHANGED).multi(False).include_all(False)
        .current(dashboard.VariableOption(text="15m", value="15m"))
    )  # fmt: skip


def regions_in_time(name: str, sql: str, colour: str) -> builders.AnnotationQuery:
    """Spans drawn behind every series, from SQL: nothing is written to Grafana's own store."""
    return (
        builders.AnnotationQuery().name(name).datasource(SOURCE).enable(True).hide(False).icon_color(colour)
        .target(Asked(sql, ref="Anno"))
    )  # fmt: skip


def frame(
    name: str, title: str, description: str, panels: Sequence[Laid], *, variables: Sequence[Variable] = (),
    back: str = "now-24h", ahead: str = "now",
) -> dashboard.Dashboard:  # fmt: skip
    """A whole dashboard: uid `gigawatch-NAME`, contract and region chosen in front of `variables`."""
    others = (
        builders.DashboardLink("Gigawatch").type(dashboard.DashboardLinkType.DASHBOARDS).tags([TAG]).icon("external link")
        .tooltip("The other dashboards, with what is chosen here").include_vars(True).keep_time(True)
    )  # fmt: skip
    whole = (
        builders.Dashboard(title).uid(PREFIX + name).description(description).tags([TAG]).timezone("utc").readonly()
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR).time(back, ahead).refresh(REFRESH).link(others)
        .variables([contract(), region(), *variables])
        .annotations([
            regions_in_time("Alerts", ALERTS, RED), regions_in_time("Business-critical windows", WINDOWS, BLUE),
        ])
    )  # fmt: skip
    model = whole.build()
    model.panels = [cast(Builder[dashboard.Panel], panel).build() for panel in panels]
    return model
