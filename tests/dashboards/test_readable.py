"""The dashboards as people see them: what fits, what has a unit, which colour says what, and what is said of silence.

There is no Grafana here.  Widths are those of Grafana 12 in a window of 1,600 pixels with its menu open, and texts are
measured by the widths of its font; what they are compared with are the answers of a real door over a played season.
"""

from __future__ import annotations

import re
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest

from pipeline.dashboards.panels import BLUE, GREY, ORANGE, RED, TIME
from pipeline.dashboards.sql_words import NOT_KNOWN, amount, span
from tests.dashboards import panels_asked
from tests.dashboards.panels_asked import ALL, PANELS, Ask, Panel, answer, of_type, overrides

ask = panels_asked.ask

# ------------------------------------------------------------------------------------------------- what fits

WINDOW, MENU, MARGIN, GAP, COLUMNS = 1600, 300, 16, 8, 24
ROW, HEADER = 38, 40
"""Pixels of a row of the grid with its gap, and of a panel's header."""
TITLE_EXTRAS = 104
"""Beside a title: its padding, the mark of the description and the place of the menu."""
BORDERS, SCROLLBAR, CELL = 18, 10, 13
LEAST_WIDTH = 150
"""Of a column that is given none."""
NARROW, SLIM, WIDE = frozenset("iIjl.,:;'|! ()[]/-"), frozenset("tfr"), frozenset("mwMW@%")


def width_of(panel: Panel) -> float:
    """Of a panel, in pixels."""
    cell = (WINDOW - MENU - 2 * MARGIN + GAP) / COLUMNS
    return float(panel["gridPos"]["w"] * cell - GAP)


def height_of(panel: Panel) -> int:
    """Of a panel below its header, in pixels."""
    return int(panel["gridPos"]["h"] * ROW - GAP - HEADER)


def text_width(text: str, size: float = 14) -> float:
    """Pixels of a text in Inter, by the width of its letters at 14 pixels, rounded up."""
    kinds = ((NARROW, 4.2), (SLIM, 5.3), (WIDE, 12.0), (frozenset("0123456789"), 8.4))
    each = (next((width for kind, width in kinds if c in kind), 9.4 if c.isupper() else 7.8) for c in text)
    return sum(each) * size / 14


@of_type("stat", "table", "timeseries", "state-timeline")
def test_a_title_is_not_cut(uid: str, panel: Panel) -> None:
    assert text_width(panel["title"]) + TITLE_EXTRAS <= width_of(panel)


@of_type("table")
def test_columns_and_what_stands_in_them_are_not_cut(
    uid: str, panel: Panel, season: tuple[Path, int], ask: Ask
) -> None:
    columns, rows = answer(ask, uid, panel, season[1])
    if panel["title"] == "Raw events":
        return  # twenty columns, which scroll
    set_to = overrides(panel)
    shown = [name for name in columns if not set_to.get(name, {}).get("custom.hidden")]
    available = width_of(panel) - BORDERS - SCROLLBAR
    given = {name: set_to.get(name, {}).get("custom.width") for name in shown}
    rest = [name for name, width in given.items() if width is None]
    left = available - sum(width for width in given.values() if width)
    widths = {name: width or max(left / len(rest), LEAST_WIDTH) for name, width in given.items()}
    assert sum(widths.values()) <= available + 1, widths
    cut = {}
    for name, width in widths.items():
        if set_to.get(name, {}).get("custom.inspect"):
            continue  # a click opens the whole of it
        at = columns.index(name)
        whole = [words(row[at]) for row in rows]
        if set_to.get(name, {}).get("custom.wrapText"):
            # A long word is broken, which is not lovely: names of clauses and queues should not be.
            whole = [part for text in whole for part in text.split()] if name != "value" else []
            whole = [text for text in whole if not text.startswith("https://") and "@" not in text]
        cut |= {text: (name, width) for text in [name, *whole] if text_width(text) + CELL > width}
    assert cut == {}


def words(value: Any) -> str:
    """A cell as Grafana writes it, as far as that is not a number."""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    return value if isinstance(value, str) else ""


@of_type("timeseries")
def test_a_legend_shows_every_series_with_its_whole_name(
    uid: str, panel: Panel, season: tuple[Path, int], ask: Ask
) -> None:
    _, rows = answer(ask, uid, panel, season[1])
    names = {row[1] for row in rows}
    legend = panel["options"]["legend"]
    assert (legend["displayMode"], legend["placement"], legend["showLegend"]) == ("table", "right", True)
    line, head, icon, column = 24, 30, 30, 76
    assert head + line * len(names) <= height_of(panel), sorted(names)
    room = legend["width"] - icon - column * len(legend["calcs"])
    assert {name for name in names if text_width(name, 12) > room} == set()


@of_type("stat")
def test_a_large_number_or_word_is_legible(
    uid: str, panel: Panel, season: tuple[Path, int], ask: Ask
) -> None:
    """Left to Grafana, several long words in one panel become 6 pixels high."""
    columns, [row] = answer(ask, uid, panel, season[1])
    size = panel["options"]["text"]["valueSize"]
    assert size >= 16 and panel["options"]["text"]["titleSize"] >= 12
    share = (width_of(panel) - BORDERS) / len(columns) - 24
    for text in [NOT_KNOWN, *(words(value) or f"{value}" for value in row if value is not None)]:
        assert text_width(text, size) * 1.04 <= share, text


@of_type("state-timeline")
def test_lanes_have_room_for_their_names_are_worst_first_and_have_a_key(
    uid: str, panel: Panel, season: tuple[Path, int], ask: Ask
) -> None:
    _, rows = answer(ask, uid, panel, season[1])
    lanes = sorted({row[1] for row in rows})
    axis, key, pages, letters = 30, 30, 40, 18
    assert 8 <= len(lanes) <= 12 and (height_of(panel) - axis - key - pages) / 12 >= letters
    assert max(text_width(lane, 12) for lane in lanes) <= 0.4 * width_of(panel)
    assert panel["options"]["legend"]["showLegend"] is True
    last = {lane: [row[2] for row in rows if row[1] == lane and row[2] is not None][-1] for lane in lanes}
    assert [last[lane] for lane in lanes] == sorted(last.values(), reverse=True)
    assert all([row for row in rows if row[1] == lane][-1][2] is None for lane in lanes), (
        "it ends with the data"
    )


# ------------------------------------------------------------------------------------------------- units and colours

NO_UNIT = {None, "", "string"}


@of_type("stat", "table")
def test_every_number_has_a_unit_and_texts_stay_as_they_are(
    uid: str, panel: Panel, season: tuple[Path, int], ask: Ask
) -> None:
    columns, rows = answer(ask, uid, panel, season[1])
    set_to, default = overrides(panel), panel["fieldConfig"]["defaults"]["unit"]
    numeric = {
        name for n, name in enumerate(columns)
        if any(isinstance(row[n], int | float | Decimal) and not isinstance(row[n], bool) for row in rows)
    }  # fmt: skip
    if panel["title"] == "Raw events":
        assert default == "string", "as they came; the names say the units"
    else:
        assert {name for name in numeric if set_to.get(name, {}).get("unit", default) in NO_UNIT} == set()
    assert panel["type"] == "stat" or default == "string"
    texts = {name for n, name in enumerate(columns) if any(isinstance(row[n], str) for row in rows)}
    assert {name for name in texts if set_to.get(name, {}).get("unit", "string") != "string"} == set(), (
        "as NaN"
    )
    times = {name for n, name in enumerate(columns) if any(isinstance(row[n], datetime) for row in rows)}
    if panel["title"] != "Raw events":
        assert {name for name in times if set_to.get(name, {}).get("unit") != TIME} == set()


@of_type("timeseries")
def test_an_axis_has_a_unit_that_is_not_another_ones(
    uid: str, panel: Panel, season: tuple[Path, int], ask: Ask
) -> None:
    unit = panel["fieldConfig"]["defaults"]["unit"]
    if unit == "short":
        _, [(told,)] = answer(ask, uid, panel, season[1], ref="unit")
        assert told.startswith(("suffix:", "currency:")) or told == "s"
    else:
        assert unit.startswith("suffix:") or unit in ("s", "percentunit", "none")
        assert unit != "none" or panel["title"] == "PUE"


def test_megawatts_are_never_shown_as_kilowatts() -> None:
    """Grafana's own units of power change with the size of the number."""
    text = str(ALL)
    units = set(
        re.findall(r"'unit': '([^']*)'", text) + re.findall(r"'id': 'unit', 'value': '([^']*)'", text)
    )
    assert {"suffix:MW", "suffix:MWh"} <= units and not {unit for unit in units if "watt" in unit}


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        ("1280.0", "GPUs", "1,280 GPUs"), ("0.870644", "MW", "0.871 MW"), ("74.6", "MW", "74.600 MW"),
        ("362.74", "s", "6m02s"), ("5.07", "s", "5s"), ("18300", "s", "5h05m"), ("270000", "s", "3d03h"),
        ("9739130.17", "USD", "9,739,130 USD"), ("0", "GPUs", "0 GPUs"), ("0.25", "EUR", "0.25 EUR"), ("NULL", "s", None),
    ],
)  # fmt: skip
def test_an_amount_is_told_with_its_unit(value: str, unit: str, expected: str | None) -> None:
    told = duckdb.sql(
        f"SELECT {amount('v', 'u')} FROM (SELECT {value}::DOUBLE AS v, '{unit}' AS u)"
    ).fetchall()
    assert told == [(expected,)]


def test_a_span_of_nothing_is_nothing() -> None:
    assert duckdb.sql(f"SELECT {span('v')} FROM (SELECT NULL::DOUBLE AS v)").fetchall() == [(None,)]


def test_severities_have_colours_and_zero_is_not_red() -> None:
    for uid, panel in PANELS:
        for name, given in overrides(panel).items():
            if name == "severity":
                [colours] = [m["options"] for m in given["mappings"] if m["type"] == "value"]
                assert {key: value["color"] for key, value in colours.items()} == {
                    "critical": RED, "warning": ORANGE, "ticket": BLUE, "info": GREY,
                }  # fmt: skip
            fixed = given.get("color", {}).get("fixedColor")
            assert fixed != RED or panel["type"] == "timeseries", (uid, panel["title"], name)
            for step in given.get("thresholds", {}).get("steps", []):
                assert step["color"] != RED or step["value"] == 1, (uid, panel["title"], name)


@of_type("timeseries")
def test_floors_and_ceilings_are_told_apart_from_each_other_and_from_what_is_read(
    uid: str, panel: Panel
) -> None:
    patterns = {
        each["matcher"]["options"]: {p["id"]: p["value"] for p in each["properties"]}
        for each in panel["fieldConfig"]["overrides"] if each["matcher"]["id"] == "byRegexp"
    }  # fmt: skip
    floors, ceilings = patterns.values()
    assert floors["custom.lineStyle"]["fill"] == ceilings["custom.lineStyle"]["fill"] == "dash"
    assert floors["custom.lineStyle"]["dash"] != ceilings["custom.lineStyle"]["dash"]
    assert "color" not in {**floors, **ceilings}, "each has its own: of five red lines none can be told"
    assert panel["fieldConfig"]["defaults"]["color"]["mode"] == "palette-classic"
