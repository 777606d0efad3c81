"""Panels as functions: each gives one of Grafana's built-in panels with a unit, a description and one question.

Bounds come as series and columns of the answers, never as thresholds typed into a panel: what is promised changes with
the contract, the date and the window.  The only thresholds here colour counts (zero is good) and the age of the data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from grafana_foundation_sdk.builders import common as parts
from grafana_foundation_sdk.builders import dashboard as dashboards
from grafana_foundation_sdk.builders import stat as stats
from grafana_foundation_sdk.builders import statetimeline, table, timeseries
from grafana_foundation_sdk.models import common, dashboard, units
from grafana_foundation_sdk.models.dashboard import DynamicConfigValue, ValueMapping

from pipeline.serve.dashboards_sql import FRESH, SOURCE, Asked, Form

GREEN, ORANGE, RED, BLUE, GREY = "green", "orange", "red", "blue", "#8e8e8e"
MEGAWATTS, WATTS, ENERGY, SECONDS, SHARE = (
    units.MegaWatt,
    units.Watt,
    units.MegaWattHour,
    units.Seconds,
    units.PercentUnit,
)
KILOGRAMS, COUNT, NUMBER, AGO = units.Kilogram, units.LocaleFormat, units.Short, units.DateTimeFromNow
STATES = {"breach": RED, "unknown": ORANGE, "ok": GREEN}
SEVERITIES = {"critical": RED, "warning": ORANGE, "ticket": BLUE, "info": GREY}
BOUNDS = r"/(committed|ceiling|contracted|bound|commit|promised)\b/"
"""Names of series that are a bound: dashed, stepped and red."""
Properties = Mapping[str, Any]


class Laid(Protocol):
    """What every panel of the SDK can do."""

    def id(self, id_val: int) -> Any: ...
    def grid_pos(self, grid_pos: dashboard.GridPos) -> Any: ...
    def build(self) -> dashboard.Panel: ...


def settings(values: Properties) -> list[DynamicConfigValue]:
    """Settings of a field by their ids, such as `unit` and `custom.width`."""
    return [DynamicConfigValue(id_val=name, value=value) for name, value in values.items()]


def steps(*pairs: tuple[float | None, str]) -> dashboards.ThresholdsConfig:
    """(from, colour); the first from None."""
    return dashboards.ThresholdsConfig().steps([dashboard.Threshold(at, colour) for at, colour in pairs])


def coloured(colours: Mapping[str, str]) -> list[ValueMapping]:
    """A colour for each text."""
    results = {
        text: dashboard.ValueMappingResult(color=colour, index=n)
        for n, (text, colour) in enumerate(colours.items())
    }
    return [dashboard.ValueMap(results)]


def stat(
    title: str, description: str, sql: str, unit: str, *, fields: Mapping[str, Properties] | None = None,
    decimals: float | None = None, rows: bool = False, bad_above: float | None = None, nothing: str = "none",
) -> Laid:  # fmt: skip
    """Large numbers: every column of the first row, or with `rows` every row; above `bad_above` they are red."""
    reduced = parts.ReduceDataOptions().values(rows).calcs(["lastNotNull"]).fields("" if rows else "/.*/")
    panel = (
        stats.Panel().title(title).description(description).datasource(SOURCE).with_target(Asked(sql)).unit(unit)
        .reduce_options(reduced).graph_mode(common.BigValueGraphMode.NONE).no_value(nothing)
        .text_mode(common.BigValueTextMode.AUTO).orientation(common.VizOrientation.AUTO)
        .color_mode(common.BigValueColorMode.VALUE)
        .thresholds(steps((None, GREEN), (bad_above, RED)) if bad_above is not None else steps((None, "text")))
    )  # fmt: skip
    if decimals is not None:
        panel.decimals(decimals)
    for name, values in (fields or {}).items():
        panel.override_by_name(name, settings(values))
    return panel


POINTS = 180
"""A day in steps of ten minutes.  In steps of five, forty series are 11,560 rows: they take the door as long as finding
them takes DuckDB."""


def lines(
    title: str, description: str, sql: str, unit: str, *, fields: Mapping[str, Properties] | None = None,
    bars: bool = False, decimals: float | None = None, least: str = "1m", zero: bool = False,
    more: Sequence[tuple[str, str, Form]] = (), transformations: Sequence[dashboard.DataTransformerConfig] = (),
) -> Laid:  # fmt: skip
    """Series over time: the answer has `time`, `metric` and `value`; a bound among them is dashed.

    `bars` stacks them; `more` are further questions (ref, SQL, form) for `transformations`.
    """
    legend = (
        parts.VizLegendOptions().display_mode(common.LegendDisplayMode.TABLE).placement(common.LegendPlacement.BOTTOM)
        .show_legend(True).calcs(["lastNotNull", "mean", "max"])
    )  # fmt: skip
    tooltip = (
        parts.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING)
    )
    panel = (
        timeseries.Panel().title(title).description(description).datasource(SOURCE)
        .with_target(Asked(sql, "time_series")).unit(unit).interval(least).max_data_points(POINTS).legend(legend)
        .tooltip(tooltip).span_nulls(False).show_points(common.VisibilityMode.AUTO).line_width(1)
        .color_scheme(dashboards.FieldColor().mode(dashboard.FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
        .override_by_regexp(BOUNDS, settings(DASHED))
    )  # fmt: skip
    if bars:
        panel.draw_style(common.GraphDrawStyle.BARS).fill_opacity(80)
        panel.stacking(parts.StackingConfig().mode(common.StackingMode.NORMAL).group("A"))
    if decimals is not None:
        panel.decimals(decimals)
    if zero:
        panel.axis_soft_min(0)
    for ref, asked, form in more:
        panel.with_target(Asked(asked, form, ref))
    for name, values in (fields or {}).items():
        panel.override_by_name(name, settings(values))
    return panel.transformations(list(transformations)) if transformations else panel


DASHED: Properties = {
    "color": {"mode": "fixed", "fixedColor": RED},
    "custom.lineStyle": {"fill": "dash", "dash": [10, 8]},
    "custom.lineWidth": 2,
    "custom.lineInterpolation": "stepAfter",
    "custom.drawStyle": "line",
    "custom.fillOpacity": 0,
    "custom.stacking": {"mode": "none", "group": "A"},
}


def timeline(title: str, description: str, sql: str) -> Laid:
    """States over time, a lane for each `metric`, in the colours of ok, breach and unknown."""
    legend = parts.VizLegendOptions().show_legend(False).display_mode(common.LegendDisplayMode.LIST)
    return (
        statetimeline.Panel().title(title).description(description).datasource(SOURCE)
        .with_target(Asked(sql, "time_series")).unit(NUMBER).interval("1m").max_data_points(POINTS)
        .mappings([dashboard.ValueMap({
            str(value): dashboard.ValueMappingResult(text=name, color=STATES[name], index=value)
            for value, name in enumerate(("ok", "unknown", "breach"))
        })])
        .color_scheme(dashboards.FieldColor().mode(dashboard.FieldColorModeId.FIXED).fixed_color(GREY))
        .show_value(common.VisibilityMode.NEVER).row_height(0.85).merge_values(True).fill_opacity(90).legend(legend)
    )  # fmt: skip


def rows(
    title: str, description: str, sql: str, *, fields: Mapping[str, Properties] | None = None, unit: str = NUMBER,
    links: Mapping[str, str] | None = None,
) -> Laid:  # fmt: skip
    """A table; `links`: a column → the dashboard its cells lead to, at the address in the hidden column `link`."""
    panel = (
        table.Panel().title(title).description(description).datasource(SOURCE).with_target(Asked(sql)).unit(unit)
        .show_header(True).cell_height(common.TableCellHeight.SM).cell_options(common.TableAutoCellOptions())
        .no_value("none")
    )  # fmt: skip
    for name in ("severity", "state"):
        colours = SEVERITIES if name == "severity" else {**STATES, "firing": RED, "pending": ORANGE}
        shown = {
            "mappings": coloured(colours),
            "custom.cellOptions": {"type": "color-text"},
            "custom.width": 90,
        }
        panel.override_by_name(name, settings(shown))
    panel.override_by_regexp(
        "/^(since|starts|ends|fired|resolved|time|from)$/", settings({"custom.width": 165})
    )
    panel.override_by_name("link", settings(HIDDEN))
    for name, values in (fields or {}).items():
        panel.override_by_name(name, settings(values))
    for column, uid in (links or {}).items():
        # Escaped by the query already; `raw` keeps Grafana from doing it once more.
        url = f"/d/{uid}?${{__data.fields.link:raw}}"
        link = {"title": "More of it", "url": url, "targetBlank": False}
        panel.override_by_name(column, settings({"links": [link]}))
    return panel


HIDDEN: Properties = {
    "custom.hidden": True,
    "custom.hideFrom": {"legend": False, "tooltip": False, "viz": True},
}
"""Grafana up to 12.1 hides a column by the first, since then by the second."""


def data_age() -> Laid:
    """How old what the dashboard shows is."""
    return stat(
        "Data age",
        "Seconds from the event time up to which everything is taken in until now. Above a minute the pipeline is "
        "behind, or down: Pipeline health says which.",
        FRESH,
        SECONDS,
        bad_above=60,
        decimals=0,
        nothing="no data",
    )


def lay_out(*rows: tuple[int, Sequence[tuple[int, Laid]]]) -> list[Laid]:
    """Panels in rows: (height, [(width, panel), …]) with widths of 24 at most; ids count from 1, in this order."""
    placed: list[Laid] = []
    y = 0
    for height, across in rows:
        x = 0
        for width, panel in across:
            panel.id(len(placed) + 1)
            panel.grid_pos(dashboard.GridPos(h=height, w=width, x=x, y=y))
            placed.append(panel)
            x += width
        y += height
    return placed
