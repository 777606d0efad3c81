"""What dashboards say of a pipeline that does not go on, of silence and of the past; and where their links lead.

There is no Grafana here: the answers are those of a real door over a played season.
"""

from __future__ import annotations

import re
import runpy
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from pipeline.catalog import load
from pipeline.dashboards.panels import BLUE, GREY, ORANGE, PURPLE, RED
from pipeline.dashboards.sql_words import NOT_KNOWN
from tests.dashboards import panels_asked
from tests.dashboards.panels_asked import (
    ALL,
    DAY,
    PANELS,
    Ask,
    Panel,
    answer,
    expanded,
    of_type,
    opened,
    overrides,
    table,
    texts,
)

ask = panels_asked.ask

# ------------------------------------------------------------------------------------------------- markers and links


@pytest.mark.parametrize("uid", ALL)
def test_alerts_and_windows_are_thin_markers_of_their_colours_in_series_only(uid: str) -> None:
    series = [panel["id"] for panel in ALL[uid]["panels"] if panel["type"] == "timeseries"]
    marked = ALL[uid]["annotations"]["list"]
    assert {m["name"]: m["iconColor"] for m in marked} == (
        {"Critical": RED, "Warnings": ORANGE, "Tickets": BLUE, "Windows": PURPLE} if series else {}
    )
    for each in marked:
        assert each["filter"] == {"exclude": False, "ids": series}
        assert "timeend" not in each["target"]["rawSql"]


def test_only_the_alerts_of_the_clause_that_is_shown_are_marked(season: tuple[Path, int], ask: Ask) -> None:
    critical, *_ = (m["target"]["rawSql"] for m in ALL["gigawatch-clause"]["annotations"]["list"])

    def marked(**chosen: Any) -> set[str]:
        _, rows = ask(expanded("gigawatch-clause", critical, season[1] - 7200, season[1], **chosen))
        return {title.split()[-1] for _, title, *_ in rows}

    assert marked(clause=["us-east-floor"]) == {"us-east-floor"} < marked()


def test_ranges_stay_as_they_are_along_links_and_contract_and_region_go_along(
    season: tuple[Path, int], ask: Ask
) -> None:
    led = 0
    for uid, panel in PANELS:
        for name, given in overrides(panel).items():
            for link in given.get("links", ()):
                if not link["url"].startswith("/d/"):
                    assert link["url"] == "${__data.fields.runbook:raw}", "the only one that leads elsewhere"
                    continue
                columns, rows = answer(ask, uid, panel, season[1])
                at = columns.index("link")
                for row in rows:
                    query = row[at] + link["url"].partition("${__data.fields.link:raw}")[2]
                    assert query.count("from=") + query.count("${__url_time_range}") == 1, (
                        uid,
                        panel["title"],
                        name,
                    )
                    assert "var-contract=" in query and "var-region=" in query, (uid, panel["title"], query)
                    led += 1
                assert link["url"].partition("?")[0].removeprefix("/d/") in ALL
        assert "${__from}&to" not in str(panel), "that would make a fixed range of a relative one"
    assert led > 50


def test_what_is_chosen_goes_along_with_rows_of_no_region(season: tuple[Path, int], ask: Ask) -> None:
    rows = table(ask, "gigawatch-noc", "Every promise, worst first", season[1], region=["eu-west", "a&b"])
    [tranche, *_] = [row for row in rows if row["clause"] == "tranche-1"]
    assert tranche["link"].endswith("&var-region=eu-west&var-region=a%26b")


def test_an_alert_that_is_open_leads_to_a_range_up_to_now_that_shows_its_beginning(
    season: tuple[Path, int], ask: Ask
) -> None:
    rows = table(ask, "gigawatch-noc", "What is wrong, worst first", season[1])
    assert rows and all(re.search(r"&from=now-(1h|3h)&to=now$", row["link"]) for row in rows)


def test_dashboards_of_minutes_and_of_days_do_not_take_over_each_others_ranges() -> None:
    for uid, document in ALL.items():
        kept = {link["tags"][0]: link["keepTime"] for link in document["links"]}
        assert all(link["includeVars"] for link in document["links"])
        days = "gigawatch-days" in document["tags"]
        assert days == (uid == "gigawatch-spend") and days != ("gigawatch-minutes" in document["tags"])
        assert kept == (
            {"gigawatch-minutes": False} if days else {"gigawatch-minutes": True, "gigawatch-days": False}
        )


def test_the_burn_down_shows_the_whole_of_its_tranche(season: tuple[Path, int], ask: Ask) -> None:
    """Grafana takes `timeFrom` before now, puts a minus before `timeShift`, and adds that to both ends."""
    [panel] = [p for uid, p in PANELS if p["title"] == "Burn-down"]
    assert (panel["timeFrom"], panel["timeShift"]) == ("${tranche_length}", "${tranche_shift}")
    asked = dict(texts(ALL["gigawatch-spend"]))
    [(length,)], [(shift,)] = (
        ask(expanded("gigawatch-spend", asked[f"variable tranche_{name}"], season[1] - DAY, season[1]))[1]
        for name in ("length", "shift")
    )
    _, [(starts, ends)] = ask("SELECT min(starts), max(ends) FROM spend")
    assert re.fullmatch(r"\d+h", length) and re.fullmatch(r"(0h\+)?\d+h", shift)
    moved = timedelta(hours=int(shift.removeprefix("0h+")[:-1])) * (1 if "+" in shift else -1)
    until = datetime.now(UTC).replace(tzinfo=None) + moved
    since = until - timedelta(hours=int(length[:-1]))
    assert ends <= until < ends + timedelta(hours=1.1) and starts - timedelta(hours=2.1) < since <= starts


@pytest.mark.parametrize("uid", ALL)
def test_each_opens_on_a_range_in_which_it_has_data(uid: str, season: tuple[Path, int], ask: Ask) -> None:
    for panel in ALL[uid]["panels"]:
        if panel["type"] in ("timeseries", "state-timeline"):
            _, rows = answer(ask, uid, panel, season[1] + 60)
            assert any(row[2] is not None for row in rows), panel["title"]


# ------------------------------------------------------------------------------------------------- what is not known


def test_silence_is_a_gap_or_a_word_and_never_zero(season: tuple[Path, int], ask: Ask) -> None:
    """us-east falls silent in the season, and later counts as lost."""
    start, end = season[1] - 3600, season[1]
    _, silent = ask(
        "SELECT time FROM readings WHERE clause = 'us-east-floor' AND observed = 0 AND alertname = 'CapacityShortfall'"
    )
    assert len(silent) > 10
    for uid, title in (
        ("gigawatch-capacity", "Delivered against committed"), ("gigawatch-capacity", "Headroom"),
        ("gigawatch-clause", "Read, and what is promised"),
    ):  # fmt: skip
        [panel] = [p for u, p in PANELS if (u, p["title"]) == (uid, title)]
        chosen = {"clause": ["us-east-floor"]} if uid == "gigawatch-clause" else {}
        _, rows = ask(expanded(uid, panel["targets"][0]["rawSql"], start, end, **chosen))
        of_it = [(at, value) for at, metric, value in rows if metric.startswith("us-east-floor")
                 and not metric.endswith((" committed", " bound"))]  # fmt: skip
        read = [value for _, value in of_it if value is not None]
        assert read and min(read) > 0
        assert any(value is None and silent[1][0] <= at <= silent[-1][0] for at, value in of_it), (
            "the line is broken"
        )


def test_the_minute_that_is_still_being_filled_is_not_drawn(
    season: tuple[Path, int], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data, end = shutil.copytree(season[0], tmp_path / "data"), season[1]
    reached = end // 60 * 60 - 270
    told(data, datetime.now(UTC), watermark=datetime.fromtimestamp(reached, UTC))
    with opened(data, tmp_path_factory.mktemp("log")) as asked:
        for uid, title in (
            ("gigawatch-capacity", "GPUs that reported, were healthy and in use"), ("gigawatch-queues", "Jobs pending"),
        ):  # fmt: skip
            [panel] = [p for u, p in PANELS if (u, p["title"]) == (uid, title)]
            _, rows = asked(expanded(uid, panel["targets"][0]["rawSql"], end - 3600, end))
            newest = max(at for at, _, value in rows if value is not None).replace(tzinfo=UTC).timestamp()
            assert newest == reached // 60 * 60 - 60


def test_the_fates_of_a_minute_that_goes_on_are_not_drawn(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    ledgers = runpy.run_path(str(Path(__file__).parents[1] / "ledger" / "conftest.py"))
    small = ledgers["SmallLedger"](tmp_path / "data", load())
    goes_on = datetime.now(UTC).replace(tzinfo=None, second=0, microsecond=0) + timedelta(minutes=10)
    over = goes_on - timedelta(minutes=20)
    for minute in (over, goes_on):
        small.con.execute("INSERT INTO fates VALUES ('telemetry.gpu', 0, ?, 'aggregated', '', 7)", [minute])
        small.con.execute("INSERT INTO dirty VALUES ('fates', ?)", [minute])
    small.publish()
    small.close()
    with opened(tmp_path / "data", tmp_path_factory.mktemp("log")) as asked:
        rows = table(asked, "gigawatch-pipeline", "Fates", goes_on.replace(tzinfo=UTC).timestamp())
    assert [(row["time"], row["value"]) for row in rows] == [(over, 7)]


def told(
    data: Path, at: datetime, *, watermark: datetime, state: str = "well", why: str | None = None
) -> None:
    """Makes this the last that the pipeline said of itself."""
    shutil.rmtree(data / "health")
    folder = data / "health" / f"date={at:%Y-%m-%d}"
    folder.mkdir(parents=True)
    since = f"TIMESTAMP '{watermark:%Y-%m-%d %H:%M:%S}'" if state != "well" else "NULL::TIMESTAMP"
    reason = f"'{why}'" if why else "NULL::VARCHAR"
    duckdb.sql(f"""
        COPY (SELECT TIMESTAMP '{at:%Y-%m-%d %H:%M:%S}' AS "time", 'telemetry.' || unnest(['gpu', 'queue', 'energy', 'billing'])
            AS topic, 9::BIGINT AS next_offset, 3::BIGINT AS lag, TIMESTAMP '{watermark:%Y-%m-%d %H:%M:%S}' AS watermark,
            2.0::DOUBLE AS events_per_second, 1.0::DOUBLE AS freshness_p99_seconds, 2.0::DOUBLE AS decision_delay_p99_seconds,
            0::BIGINT AS undelivered, '{state}' AS state, {since} AS since, {reason} AS why)
        TO '{folder / "all.parquet"}' (FORMAT parquet)""")


FACTS_OF_THE_PAST = {"GPUs now": {"committed"}, "Power now": {"contracted"}, "This time range": None,
                     "Nothing is lost": None, "Out of bounds": None, "Longest in breach": None,
                     "Tranche nearest to its ceiling": {"tranche"}, "Taken in": {"last published"}}  # fmt: skip
"""Stats, or fields of them (None: all), that do not say what is now: what is promised, and what was in the time range."""


@pytest.mark.parametrize(
    ("state", "minutes", "words"),
    [
        ("well", 43, r"^SILENT since .* UTC, 43m\d\ds: it has published nothing since .*: it is dead, or hangs. What is below"),
        ("stalled", 0, r"^STALLED since .* UTC, 43m\d\ds: no broker answers. What is below is of .* UTC$"),
        ("stopped", 0, r"^STOPPED since .* UTC, 43m\d\ds: no broker answers. What is below"),
        ("behind", 0, r"^BEHIND: everything is evaluated only up to .* UTC, 43m\d\ds ago$"),
    ],
)  # fmt: skip
def test_of_a_pipeline_that_does_not_go_on_nothing_is_green(
    state: str, minutes: int, words: str, season: tuple[Path, int], tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:  # fmt: skip
    data, now = shutil.copytree(season[0], tmp_path / "data"), datetime.now(UTC)
    old = now - timedelta(minutes=43)
    why = "no broker answers" if state in ("stalled", "stopped") else None
    told(
        data, now - timedelta(minutes=minutes), watermark=old, state=state.replace("behind", "well"), why=why
    )
    with opened(data, tmp_path_factory.mktemp("log")) as asked:
        for uid, panel in PANELS:
            if panel["type"] == "stat":
                columns, [row] = answer(asked, uid, panel, season[1])
                if panel["title"] == "The pipeline":
                    assert re.search(words, row[0]), row[0]
                    continue
                past = FACTS_OF_THE_PAST.get(panel["title"], set())
                here = dict(zip(columns, row, strict=True)) if past is not None else {}
                assert {n for n, v in here.items() if v is not None} <= (past or set()), (
                    uid,
                    panel["title"],
                    here,
                )
            elif panel["type"] == "table" and panel["title"] not in (
                "Its alerts",
                "Our own alerts of this time range",
            ):
                columns, rows = answer(asked, uid, panel, season[1])
                if "state" in columns and "summary" not in columns:
                    assert {row[columns.index("state")] for row in rows} == {NOT_KNOWN}, (uid, panel["title"])
                if panel["title"] == "Where":
                    assert {row[1:4] for row in rows} == {(None, None, None)}


@of_type("stat")
def test_what_is_not_known_is_said_in_grey(uid: str, panel: Panel) -> None:
    """On every dashboard but the line that says how the pipeline is, which is first, as wide as the page, and red."""
    mapped = panel["fieldConfig"]["defaults"]["mappings"]
    if panel["title"] == "The pipeline":
        assert panel["gridPos"] == {"h": 3, "w": 24, "x": 0, "y": 0}
        assert [m["options"]["result"]["color"] for m in mapped] == ["transparent", ORANGE, RED]
        assert panel["options"]["colorMode"] == "background_solid"
        return
    for mappings in [mapped, *(o["mappings"] for o in overrides(panel).values() if "mappings" in o)]:
        special = [m["options"] for m in mappings if m["type"] == "special"]
        assert special == [{"match": "null", "result": {"color": GREY, "index": 0, "text": NOT_KNOWN}}]


def test_every_dashboard_begins_with_how_the_pipeline_is() -> None:
    assert {document["panels"][0]["title"] for document in ALL.values()} == {"The pipeline"}
