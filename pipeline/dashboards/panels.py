"""Panels as functions: each gives one of Grafana's built-in panels with a unit, a description and one question.

Bounds come as series and columns of the answers, never as thresholds typed into a panel: what is promised changes with
the contract, the date and the window.  The only thresholds here colour counts: zero is good.  Texts are in words with
their unit where it differs from row to row, as the questions give them (`panel_sql.amount`).
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

from pipeline.dashboards.panel_sql import SOURCE, Form, MysqlTarget
from pipeline.dashboards.sql_words import NOT_KNOWN, TRUTH

GREEN, ORANGE, RED, BLUE, GREY = "green", "orange", "red", "blue", "#8e8e8e"
PURPLE, PLAIN = "purple", "text"
MEGAWATTS = "suffix:MW"
"""Not Grafana's own megawatts, which become kilowatts below one: what is contracted in MW is compared in MW."""
GPUS, JOBS, EVENTS, TONNES = "suffix:GPUs", "suffix:jobs", "suffix:events", "suffix:t"
ENERGY, KILOGRAMS = "suffix:MWh", "suffix:kg"
SECONDS, SHARE, COUNT, NUMBER = units.Seconds, units.PercentUnit, units.LocaleFormat, units.Short
RATIO = units.Number
"""Of two like quantities."""
TEXT = units.String
"""Also of what looks like a number, such as a version."""
STATES = {"ok": GREEN, "unknown": ORANGE, "breach": RED}
SEVERITIES = {"critical": RED, "warning": ORANGE, "ticket": BLUE, "info": GREY}
FLOORS, CEILINGS = r"/\b(committed|commit|promised)\b/", r"/\b(ceiling|contracted|bound)\b/"
"""Names of series that are a bound: a floor is dashed, a ceiling dotted; each has a colour of its own."""
TIME = "time:YYYY-MM-DD HH:mm:ss"
"""Left to itself, Grafana adds thousandths to a column of times that lie close together, and cuts them off."""
TIME_WIDTH = 160
"""Of a column of times to the second, in pixels."""
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
    """A colour for each text; what is not known is grey."""
    results = {
        text: dashboard.ValueMappingResult(color=colour, index=n)
        for n, (text, colour) in enumerate(colours.items())
    }
    return [dashboard.ValueMap(results), *UNKNOWN]


def like(pattern: str, colour: str) -> ValueMapping:
    """A colour for all texts of a kind."""
    result = dashboard.ValueMappingResult(color=colour, index=0)
    return dashboard.RegexMap(dashboard.DashboardRegexMapOptions(pattern, result))


UNKNOWN: list[ValueMapping] = [
    dashboard.SpecialValueMap(
        dashboard.DashboardSpecialValueMapOptions(
            dashboard.SpecialValueMatch.NULL,
            dashboard.ValueMappingResult(color=GREY, text=NOT_KNOWN, index=0),
        )
    ),
    like(f"^{NOT_KNOWN}", GREY),
]
"""What nobody knows, of a pipeline that is dead or stalled: never the colour of what is well."""
NONE_IS_GOOD: list[ValueMapping] = [*UNKNOWN, like("^(0|none|nothing)( .*)?$", GREEN), like(".+", RED)]
"""Texts of what there should be nothing of: none is green, anything is red."""


def stat(
    title: str, description: str, sql: str, unit: str = TEXT, *, fields: Mapping[str, Properties] | None = None,
    mappings: Sequence[ValueMapping] = UNKNOWN, bad_above: float | None = None,
    filled: bool = False, size: int = 28,
) -> Laid:  # fmt: skip
    """Large words or numbers, every column of the first row; above `bad_above` a number is red.

    `size` of the values in pixels: left to Grafana, long words become too small to read.  `filled`: it is the ground
    that is coloured, not the text.
    """
    reduced = parts.ReduceDataOptions().values(False).calcs(["last"]).fields("/.*/")
    colours = common.BigValueColorMode.BACKGROUND_SOLID if filled else common.BigValueColorMode.VALUE
    panel = (
        stats.Panel().title(title).description(description).datasource(SOURCE).with_target(MysqlTarget(sql)).unit(unit)
        .reduce_options(reduced).graph_mode(common.BigValueGraphMode.NONE).no_value(NOT_KNOWN)
        .text_mode(common.BigValueTextMode.VALUE if filled else common.BigValueTextMode.AUTO)
        .orientation(common.VizOrientation.AUTO).justify_mode(common.BigValueJustifyMode.AUTO)
        .color_mode(colours).mappings(list(mappings)).text(parts.VizTextDisplayOptions().title_size(13).value_size(size))
        .thresholds(steps((None, GREEN), (bad_above, RED)) if bad_above is not None else steps((None, PLAIN)))
    )  # fmt: skip
    for name, values in (fields or {}).items():
        panel.override_by_name(name, settings(values))
    return panel


POINTS = 180
"""A day in steps of ten minutes.  In steps of five, forty series are 11,560 rows: they take the door as long as finding
them takes DuckDB."""


def lines(
    title: str, description: str, sql: str, unit: str, *, fields: Mapping[str, Properties] | None = None,
    bars: bool = False, decimals: float | None = None, least: str = "1m", zero: bool = False, legend: int = 300,
    more: Sequence[tuple[str, str, Form]] = (), transformations: Sequence[dashboard.DataTransformerConfig] = (),
    range_of_its_own: tuple[str, str] | None = None,
) -> Laid:  # fmt: skip
    """Series over time: the answer has `time`, `metric` and `value`, NULL where nothing is known: a gap, never a line.

    `bars` stacks them; `more` are further questions (ref, SQL, form) for `transformations`.  The legend is a table of
    `legend` pixels on the right, where it has room for every series: below, Grafana gives it a third of the height.
    `range_of_its_own`: (length before now, how far that is moved back), in place of the dashboard's where that is a
    relative one.
    """
    table_of_all = (
        parts.VizLegendOptions().display_mode(common.LegendDisplayMode.TABLE).placement(common.LegendPlacement.RIGHT)
        .show_legend(True).calcs(["lastNotNull", "max"]).width(legend)
    )  # fmt: skip
    tooltip = (
        parts.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING)
    )
    panel = (
        timeseries.Panel().title(title).description(description).datasource(SOURCE)
        .with_target(MysqlTarget(sql, "time_series")).unit(unit).interval(least).max_data_points(POINTS).legend(table_of_all)
        .tooltip(tooltip).span_nulls(False).show_points(common.VisibilityMode.AUTO).line_width(2)
        .color_scheme(dashboards.FieldColor().mode(dashboard.FieldColorModeId.PALETTE_CLASSIC))
        .override_by_regexp(FLOORS, settings(dashed(12, 6))).override_by_regexp(CEILINGS, settings(dashed(2, 6)))
    )  # fmt: skip
    if bars:
        panel.draw_style(common.GraphDrawStyle.BARS).fill_opacity(80)
        panel.stacking(parts.StackingConfig().mode(common.StackingMode.NORMAL).group("A"))
    if decimals is not None:
        panel.decimals(decimals)
    if zero or bars:
        panel.axis_soft_min(0)
    for ref, asked, form in more:
        panel.with_target(MysqlTarget(asked, form, ref))
    for name, values in (fields or {}).items():
        panel.override_by_name(name, settings(values))
    if range_of_its_own:
        panel.time_from(range_of_its_own[0]).time_shift(range_of_its_own[1]).hide_time_override(True)
    return panel.transformations(list(transformations)) if transformations else panel


def dashed(*pattern: int) -> Properties:
    """How a bound is drawn: dashes and gaps in pixels, a step where it changes."""
    return {
        "custom.lineStyle": {"fill": "dash", "dash": list(pattern)},
        "custom.lineWidth": 2,
        "custom.lineInterpolation": "stepAfter",
        "custom.showPoints": "never",
        "custom.drawStyle": "line",
        "custom.fillOpacity": 0,
        "custom.stacking": {"mode": "none", "group": "A"},
    }


def with_unit(sql: str) -> dict[str, Any]:
    """Keywords for `lines` whose unit is data: the question gives one row with the column `unit`."""
    mapping = {"fieldName": "unit", "handlerKey": "unit", "reducerId": "lastNotNull"}
    options = {"configRefId": "unit", "mappings": [mapping]}
    return {
        "more": [("unit", sql, "table")],
        "transformations": [dashboard.DataTransformerConfig(id_val="configFromData", options=options)],
    }


def timeline(title: str, description: str, sql: str) -> Laid:
    """States over time, a lane for each `metric`, with a key to the colours of ok, unknown and breach.

    Lanes are in the order of their names, so these begin with a rank.
    """
    legend = (
        parts.VizLegendOptions().show_legend(True).display_mode(common.LegendDisplayMode.LIST)
        .placement(common.LegendPlacement.BOTTOM)
    )  # fmt: skip
    return (
        statetimeline.Panel().title(title).description(description).datasource(SOURCE)
        .with_target(MysqlTarget(sql, "time_series")).unit(NUMBER).interval("1m").max_data_points(POINTS)
        .mappings([dashboard.ValueMap({
            str(value): dashboard.ValueMappingResult(text=name, color=colour, index=value)
            for value, (name, colour) in enumerate(STATES.items())
        })])
        .color_scheme(dashboards.FieldColor().mode(dashboard.FieldColorModeId.FIXED).fixed_color(GREY))
        .show_value(common.VisibilityMode.NEVER).row_height(0.8).merge_values(True).fill_opacity(90).legend(legend)
    )  # fmt: skip


def rows(
    title: str, description: str, sql: str, *, widths: Mapping[str, int], times: Sequence[str] = (),
    wrapped: Sequence[str] = (), fields: Mapping[str, Properties] | None = None, links: Mapping[str, str] | None = None,
    keep_time: bool = True,
) -> Laid:  # fmt: skip
    """A table; `widths`: a column → pixels, and what is left goes to the others; `times` are columns of times, and
    `wrapped` ones break their text.

    `links`: a column → the dashboard its cells lead to, at the address in the hidden column `link`, with this one's time
    range as it is, relative or not (`keep_time`), or with the range that the address has of its own.
    Every number needs a unit in `fields`: texts that look like numbers, such as versions, stay as they are.
    """
    panel = (
        table.Panel().title(title).description(description).datasource(SOURCE).with_target(MysqlTarget(sql)).unit(TEXT)
        .show_header(True).cell_height(common.TableCellHeight.SM).cell_options(common.TableAutoCellOptions())
        .no_value("-")
    )  # fmt: skip
    every: dict[str, dict[str, Any]] = {name: {"custom.width": width} for name, width in widths.items()}
    every |= {name: {"custom.width": TIME_WIDTH, "unit": TIME} for name in times}
    for name in wrapped:
        every.setdefault(name, {}).update({"custom.wrapText": True})
    for name, colours in (
        ("severity", SEVERITIES),
        ("state", {**STATES, "firing": RED, "pending": ORANGE, "resolved": GREEN}),
    ):
        shown = {"mappings": coloured(colours), "custom.cellOptions": {"type": "color-text"}}
        every.setdefault(name, {}).update(shown)
    for name, values in (fields or {}).items():
        every.setdefault(name, {}).update(values)
    for column, uid in (links or {}).items():
        # Escaped by the query already; `raw` keeps Grafana from doing it once more.
        url = f"/d/{uid}?${{__data.fields.link:raw}}" + ("&${__url_time_range}" if keep_time else "")
        link = {"title": "More of it", "url": url, "targetBlank": False}
        every.setdefault(column, {}).update({"links": [link]})
    for name, properties in every.items():
        panel.override_by_name(name, settings(properties))
    return panel.override_by_name("link", settings(HIDDEN))


RIGHT: Properties = {"custom.align": "right"}
"""Amounts, which are texts, below each other."""


def counts(*names: str) -> dict[str, Properties]:
    """Columns of whole numbers."""
    return {name: {"unit": COUNT, "decimals": 0} for name in names}


def tallies(*names: str) -> dict[str, Properties]:
    """Columns of whole numbers that may not be known."""
    grey = {
        "mappings": UNKNOWN,
        "color": {"mode": "fixed", "fixedColor": PLAIN},
        "custom.cellOptions": {"type": "color-text"},
    }
    return {name: {**of, **grey} for name, of in counts(*names).items()}


def none_is_good(*names: str) -> dict[str, Properties]:
    """Columns of whole numbers that are red from one on."""
    red = {
        "thresholds": {"mode": "absolute", "steps": [{"value": None, "color": PLAIN}, {"value": 1, "color": RED}]},
        "color": {"mode": "thresholds"},
        "custom.cellOptions": {"type": "color-text"},
        "unit": COUNT,
        "decimals": 0,
    }  # fmt: skip
    return {name: {**red, "mappings": UNKNOWN} for name in names}


HIDDEN: Properties = {
    "custom.hidden": True,
    "custom.hideFrom": {"legend": False, "tooltip": False, "viz": True},
}
"""Grafana up to 12.1 hides a column by the first, since then by the second."""


def truth() -> Laid:
    """What heads every dashboard: whether what it shows is of now; if not, since when and why."""
    return stat(
        "The pipeline",
        "Whether what is shown below is of now. Red: the pipeline is stalled, stopped or silent, since when and why; what "
        "is not known any more is grey below. Pipeline health says more.",
        TRUTH,
        mappings=[like("^Well.*", "transparent"), like("^(BEHIND|NO DATA).*", ORANGE), like(".+", RED)],
        filled=True,
        size=16,
    )


def lay_out(*rows: tuple[int, Sequence[tuple[int, Laid]]]) -> list[Laid]:
    """Panels in rows: (height, [(width, panel), …]) with widths of 24 at most; ids count from 1, in this order.

    The first row says how the pipeline is.
    """
    placed: list[Laid] = []
    y = 0
    for height, across in ((3, [(24, truth())]), *rows):
        x = 0
        for width, panel in across:
            panel.id(len(placed) + 1)
            panel.grid_pos(dashboard.GridPos(h=height, w=width, x=x, y=y))
            placed.append(panel)
            x += width
        y += height
    return placed
