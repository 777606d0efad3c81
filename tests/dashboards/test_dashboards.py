"""The dashboards: committed as the code gives them, well-formed, and every question answered by the real door.

There is no Grafana here.  What stands for it: the SDK's typed classes, a strict schema of our own, Grafana's own schema
in `test_dashboards_schema.py`, and the expansion of Grafana's variables and macros in `grafana_macros.py`.  The data is
a whole peak season, played through the pipeline.
"""

from __future__ import annotations

import copy
import itertools
import json
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import jsonschema
import pymysql
import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from ruamel.yaml import YAML

from pipeline.catalog import load
from pipeline.dashboards import panel_sql
from pipeline.dashboards.generate import SURPLUS, differing, documents, files, write
from pipeline.door.mysql_catalog import MACROS
from pipeline.rollup.grid import HOUR
from pipeline.serve.child import Door
from pipeline.views.all_views import names
from pipeline.views.published import published_tables
from tests.dashboards.questions import panel_queries, texts

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "dashboards"
HERE = Path(__file__).parent
GRAFANA = runpy.run_path(str(HERE / "grafana_macros.py"))
ALL = {document["uid"]: document for document in documents()}
PARSER = duckdb.connect()
BUILT_IN = {"stat", "table", "timeseries", "state-timeline"}
ABOVE_THE_FOLD = 21
"""Grid rows that a screen of 1,000 lines shows of a dashboard."""
DAY = 86_400.0
each_dashboard = pytest.mark.parametrize("uid", ALL)

PANEL = {
    "type": "object",
    "required": ["id", "type", "title", "description", "gridPos", "datasource", "targets", "options", "fieldConfig"],
    "properties": {
        "id": {"type": "integer", "minimum": 1},
        "type": {"enum": sorted(BUILT_IN)},
        "title": {"type": "string", "minLength": 1},
        "description": {"type": "string", "minLength": 10},
        "datasource": {"const": {"type": "mysql", "uid": "gigawatch"}},
        "gridPos": {
            "type": "object",
            "required": ["h", "w", "x", "y"],
            "additionalProperties": False,
            "properties": {
                "h": {"type": "integer", "minimum": 3}, "w": {"type": "integer", "minimum": 2, "maximum": 24},
                "x": {"type": "integer", "minimum": 0, "maximum": 22}, "y": {"type": "integer", "minimum": 0},
            },
        },
        "targets": {
            "type": "array", "minItems": 1,
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["datasource", "editorMode", "format", "rawQuery", "rawSql", "refId"],
                "properties": {
                    "datasource": {"const": {"type": "mysql", "uid": "gigawatch"}}, "editorMode": {"const": "code"},
                    "format": {"enum": ["table", "time_series"]}, "rawQuery": {"const": True},
                    "rawSql": {"type": "string", "pattern": "^(SELECT|WITH) "}, "refId": {"type": "string"},
                },
            },
        },
        "fieldConfig": {
            "type": "object",
            "required": ["defaults", "overrides"],
            "properties": {"defaults": {"type": "object", "required": ["unit"]}, "overrides": {"type": "array"}},
        },
    },
}  # fmt: skip
CLASSIC = {
    "type": "object",
    "required": ["uid", "title", "description", "tags", "timezone", "schemaVersion", "time", "refresh", "panels",
                 "templating", "annotations", "links", "editable"],
    "not": {"anyOf": [{"required": ["spec"]}, {"required": ["kind"]}, {"required": ["elements"]}]},
    "properties": {
        "uid": {"type": "string", "pattern": "^gigawatch-[a-z]+$", "maxLength": 40},
        "timezone": {"const": "utc"},
        "refresh": {"const": "30s"},
        "schemaVersion": {"type": "integer", "minimum": 30},
        "tags": {"contains": {"const": "gigawatch"}},
        "panels": {"type": "array", "minItems": 4, "items": PANEL},
    },
}  # fmt: skip


def questions() -> Iterator[tuple[str, str, str]]:
    """(uid, what asks, SQL) of everything that asks."""
    for uid, document in ALL.items():
        for _, title, ref, sql in panel_queries(document):
            yield uid, f"{title} {ref}", sql
        for what, sql in texts(document):
            yield uid, what, sql


QUESTIONS = list(questions())
each_question = pytest.mark.parametrize(
    ("uid", "what", "sql"), QUESTIONS, ids=[f"{u}: {w}" for u, w, _ in QUESTIONS]
)

# ------------------------------------------------------------------------------------------------- the files


def test_the_committed_files_are_what_the_code_gives() -> None:
    assert differing(FOLDER) == []


def test_check_names_what_is_missing_what_differs_and_what_is_left_over(tmp_path: Path) -> None:
    assert [path.name for path in write(tmp_path)] == list(files())
    assert differing(tmp_path) == []
    (tmp_path / "noc.json").unlink()
    (tmp_path / "spend.json").write_text("{}")
    (tmp_path / "old.json").write_text("{}")
    found = {
        Path(line.partition(": ")[0]).name: line.partition(": ")[2].partition(";")[0]
        for line in command("build", "--check", "--out", str(tmp_path), expected=1).stderr.splitlines()
    }
    assert found == {
        "noc.json": "is missing",
        "spend.json": "is not what the code gives",
        "old.json": "is of no dashboard",
    }
    assert not (tmp_path / "noc.json").exists(), "--check writes nothing"
    assert str(tmp_path / "noc.json") in command("build", "--out", str(tmp_path)).stdout


def command(*arguments: str, expected: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "pipeline.cli", "dashboards", *arguments],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == expected, done.stderr
    return done


def test_grafana_finds_them_and_opens_the_first() -> None:
    compose = YAML(typ="safe", pure=True).load((ROOT / "docker-compose.yml").read_text("utf-8"))
    grafana = compose["services"]["grafana"]
    home = Path(grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    mounted = {
        target: ROOT / source for source, target, *_ in (volume.split(":") for volume in grafana["volumes"])
    }
    assert json.loads((mounted[str(home.parent)] / home.name).read_text("utf-8"))["uid"] == "gigawatch-noc"


# --------------------------------------------------------------------------------------------------- the form


@each_dashboard
def test_it_is_classic_json_with_what_every_panel_must_have(uid: str) -> None:
    jsonschema.Draft202012Validator(CLASSIC).validate(ALL[uid])


@each_dashboard
def test_the_sdks_classes_read_it_back_without_loss(uid: str) -> None:
    """They drop what Grafana's schema does not know, so a field that is misspelt would be lost."""
    register_default_plugins()
    panel_sql.register()
    read = json.loads(json.dumps(Dashboard.from_json(copy.deepcopy(ALL[uid])), cls=JSONEncoder))
    assert without_defaults(read) == without_defaults(ALL[uid])


DEFAULTS = {"repeatDirection", *(key for key, _ in SURPLUS)}
"""What the SDK gives of itself."""


def without_defaults(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_defaults(v) for k, v in value.items() if k not in DEFAULTS}
    return [without_defaults(each) for each in value] if isinstance(value, list) else value


@each_dashboard
def test_panels_lie_side_by_side_and_everything_has_a_number_of_its_own(uid: str) -> None:
    panels = ALL[uid]["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(at["x"] + i, at["y"] + j) for i in range(at["w"]) for j in range(at["h"])}
        assert at["x"] + at["w"] <= 24 and not cells & taken, panel["title"]
        taken |= cells
        refs = [target["refId"] for target in panel["targets"]]
        assert len(set(refs)) == len(refs), panel["title"]
    for group in ("list",):
        variables = [variable["name"] for variable in ALL[uid]["templating"][group]]
        assert len(set(variables)) == len(variables) and variables[:2] == ["contract", "region"]


def test_no_two_dashboards_have_one_uid_or_title() -> None:
    assert len({d["title"] for d in documents()}) == len({d["uid"] for d in documents()}) == len(documents())


@each_question
def test_it_asks_by_variables_that_the_dashboard_has(uid: str, what: str, sql: str) -> None:
    own = {variable["name"] for variable in ALL[uid]["templating"]["list"]}
    used = set(re.findall(r"\$\{(\w+)", sql)) | set(re.findall(r"\$(__interval_ms|__interval)\b", sql))
    assert used <= own | {"__from", "__to", "__interval_ms", "__interval"}


@each_question
def test_no_kind_of_clause_is_named(uid: str, what: str, sql: str) -> None:
    """A new kind of clause is then shown without a new dashboard."""
    table = (ROOT / "docs" / "alerts.md").read_text("utf-8").partition("<!-- table: alerts -->")[2]
    alerts = re.findall(r"^\| ([A-Z]\w+) \|", table.partition("<!-- end -->")[0], re.MULTILINE)
    assert len(alerts) > 8
    assert not [name for name in alerts if name in sql]


@each_dashboard
def test_no_bound_is_typed_in(uid: str) -> None:
    """Thresholds colour counts, of which there should be none; bounds come as series and columns."""
    for panel in ALL[uid]["panels"]:
        values = {step.get("value") for step in every(panel["fieldConfig"], "steps")}
        assert values <= {None, 1}, panel["title"]


def every(value: Any, key: str) -> Iterator[Any]:
    """Each item of each list that stands under a key, however deep."""
    if isinstance(value, dict):
        yield from value.get(key, ()) if isinstance(value.get(key), list) else ()
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from every(each, key)


def test_the_first_screen_says_what_is_wrong_where_and_since_when() -> None:
    first = [
        p for p in ALL["gigawatch-noc"]["panels"] if p["gridPos"]["y"] + p["gridPos"]["h"] <= ABOVE_THE_FOLD
    ]
    titles = {panel["title"] for panel in first}
    assert {"The pipeline", "Alerts firing", "Wrong since", "At risk an hour", "Beyond bounds", "What is wrong, worst first",
            "Where", "Business-critical windows"} == titles  # fmt: skip


@each_question
def test_duckdb_understands_it_as_it_stands(uid: str, what: str, sql: str) -> None:
    """Otherwise every refresh would wait for the translator; a column called `at` was enough."""
    [statement] = PARSER.extract_statements(expanded(uid, sql, 0, DAY))
    assert statement.type == duckdb.StatementType.SELECT


@each_question
def test_only_the_drill_down_reads_raw_events_and_it_is_bounded(uid: str, what: str, sql: str) -> None:
    read = set(re.findall(r"\b(?:FROM|JOIN) ([a-z_0-9]+)", expanded(uid, sql, 0, DAY)))
    assert read & {*names(load()), "information_schema", "tables"} or what == "variable resolution"
    raw = {event.view for event in load().types} & read
    if what.startswith("Raw events"):
        assert (
            raw == {"gpu"}
            and "INTERVAL 10 MINUTE" in expanded(uid, sql, 0, DAY)
            and sql.endswith("LIMIT 100")
        )
    else:
        assert not raw


def expanded(uid: str, sql: str, start: float, end: float, **variables: Any) -> str:
    document = ALL[uid]
    panel: Mapping[str, Any] = next(
        (p for p in document["panels"] if sql in [t["rawSql"] for t in p["targets"]]), {}
    )
    interval = GRAFANA["interval_of"](panel, start, end)
    given = {"resolution": resolution(start, end), **variables}
    text: str = GRAFANA["expand"](sql, start, end, variables=given, document=document, interval_ms=interval)
    return text


def resolution(start: float, end: float) -> str:
    """What the hidden variable comes to: see the test of it."""
    return next(
        width
        for width, most in (("1m", 3600), ("15m", DAY), ("1h", 5 * DAY), ("1d", 1e12))
        if end - start <= most
    )


# -------------------------------------------------------------------------------------------------- the answers


@pytest.fixture(scope="module")
def ask(season: tuple[Path, int], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Any]]:
    """`ask(sql)`: (names of columns, rows), through a door as Grafana would."""
    with opened(season[0], tmp_path_factory.mktemp("log")) as asked:
        yield asked


class opened:
    """A door before DATA and a client of it."""

    def __init__(self, data: Path, folder: Path) -> None:
        self.door = Door(data, folder / "door.log", ["--port", "0"])

    def __enter__(self) -> Callable[[str], Any]:
        self.door.start()
        host, _, port = self.door.address.rpartition(":")
        self.client = pymysql.connect(host=host, port=int(port), user="grafana")
        return self.ask

    def ask(self, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
        with self.client.cursor() as cursor:
            cursor.execute(sql)
            return [column[0] for column in cursor.description], list(cursor.fetchall())

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.door.stop()


@each_question
def test_the_door_answers_in_the_shape_that_is_asked_for(
    uid: str, what: str, sql: str, season: tuple[Path, int], ask: Callable[[str], Any]
) -> None:
    end = season[1]
    ahead = 30 * DAY if uid == "gigawatch-spend" else 60.0
    back = 30 * DAY if uid == "gigawatch-spend" else 2 * 3600.0
    columns, rows = ask(expanded(uid, sql, end - back, end + ahead))
    assert rows or what.startswith("annotation"), "alerts of that kind may not have fired"
    if (form := form_of(uid, sql)) == "time_series":
        assert columns == ["time", "metric", "value"]
        assert all(isinstance(at, datetime) and isinstance(name, str) and name for at, name, _ in rows)
        assert all(isinstance(value, float | int | Decimal) for *_, value in rows if value is not None)
        assert [row[0] for row in rows] == sorted(row[0] for row in rows)
        assert len({row[:2] for row in rows}) == len(rows), "one value for each time and series"
    elif what.startswith("annotation"):
        assert columns == ["time", "title", "text", "tags"], "instants: spans would lie over the series"
        assert all(isinstance(at, datetime) for at, *_ in rows)
    elif what.startswith("variable"):
        assert len(columns) == 1 and all(isinstance(value, str) and value for (value,) in rows)
    else:
        assert form == "table" and len(set(columns)) == len(columns)


def test_no_question_opens_a_file_of_a_day_that_it_does_not_ask_for(
    season: tuple[Path, int], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Only the age of the data is that of the newest row, whenever it was."""
    data, end = shutil.copytree(season[0], tmp_path / "data"), season[1]
    broken = 0
    for table in published_tables(load()):
        if table.directory is not None and (data / table.root).exists() and table.view != "health":
            below = "date=2020-02-20/hour=20" if table.directory == HOUR else "date=2020-02-20"
            (data / table.root / below).mkdir(parents=True)
            (data / table.root / below / "all.parquet").write_bytes(b"nobody reads this")
            broken += 1
    assert broken > 20
    with opened(data, tmp_path_factory.mktemp("log")) as ask:
        with pytest.raises(pymysql.Error, match="No magic bytes"):
            ask("SELECT count(*) FROM readings")
        for uid, _, sql in QUESTIONS:
            ask(expanded(uid, sql, end - 2 * 3600.0, end + 60.0))


def form_of(uid: str, sql: str) -> str | None:
    targets = [target for panel in ALL[uid]["panels"] for target in panel["targets"]]
    return next((target["format"] for target in targets if target["rawSql"] == sql), None)


def sql_of(uid: str, title: str) -> str:
    return next(sql for _, name, ref, sql in panel_queries(ALL[uid]) if (name, ref) == (title, "A"))


def table(
    ask: Callable[[str], Any], uid: str, title: str, end: float, back: float = 7200, **variables: Any
) -> list[dict[str, Any]]:
    columns, rows = ask(expanded(uid, sql_of(uid, title), end - back, end + 60, **variables))
    return [dict(zip(columns, row, strict=True)) for row in rows]


def test_before_the_first_event_every_question_has_an_answer(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Also that of a variable without values: `IN ()` would be an error on every panel of a new installation."""
    made = runpy.run_path(str(ROOT / "tests" / "ledger" / "conftest.py"))
    small = made["SmallLedger"](tmp_path / "data", load())
    # what a pipeline publishes of itself before anything came
    small.con.execute(
        "INSERT INTO health(time, topic, lag) VALUES (TIMESTAMP '2026-11-18 10:00', 'telemetry.gpu', 0)"
    )
    small.con.execute("INSERT INTO dirty VALUES ('health', TIMESTAMP '2026-11-18 10:00')")
    small.publish()
    small.close()
    with opened(tmp_path / "data", tmp_path_factory.mktemp("log")) as ask:
        for uid, what, sql in QUESTIONS:
            _, rows = ask(expanded(uid, sql, 1_795_000_000, 1_795_086_400))
            assert len(rows) <= 8, what


def test_the_promises_stand_as_the_ledger_says_the_broken_ones_first(
    season: tuple[Path, int], ask: Callable[[str], Any]
) -> None:
    rows = table(ask, "gigawatch-noc", "Every promise, worst first", season[1])
    _, direct = ask("SELECT clause, alertname, state, observed FROM standing")
    assert sorted((r["clause"], r["fires"], r["state"]) for r in rows) == sorted(row[:3] for row in direct)
    texts = {(r["clause"], r["fires"]): r["observed"] for r in rows}
    floors = [(clause, alert, value) for clause, alert, _, value in direct if alert == "CapacityShortfall"]
    assert floors and all(texts[clause, alert] == f"{value:,.0f} GPUs" for clause, alert, value in floors)
    order = ["breach", "unknown", "ok"]
    assert [r["state"] for r in rows] == sorted((r["state"] for r in rows), key=order.index)
    assert any(r["state"] == "breach" for r in rows)


def test_the_open_alerts_are_those_that_fire_without_the_watchdog(
    season: tuple[Path, int], ask: Callable[[str], Any]
) -> None:
    rows = table(ask, "gigawatch-noc", "What is wrong, worst first", season[1])
    _, direct = ask("SELECT alertname, clause FROM alerts_open WHERE severity <> 'info'")
    assert sorted((r["what"], r["clause"]) for r in rows) == sorted(direct) and direct
    [counts] = table(ask, "gigawatch-noc", "Alerts firing", season[1])
    assert sum(counts.values()) == sum(r["state"] == "firing" for r in rows)


def test_a_region_that_is_chosen_leaves_out_the_others_and_keeps_what_is_of_no_region(
    season: tuple[Path, int], ask: Callable[[str], Any]
) -> None:
    rows = table(ask, "gigawatch-noc", "Every promise, worst first", season[1], region=["eu-west"])
    assert {r["clause"] for r in rows} >= {"eu-west-floor", "tranche-1"}
    assert not {r["clause"] for r in rows} & {"eu-north-floor", "us-east-floor"}
    fleet = table(
        ask,
        "gigawatch-capacity",
        "GPUs that reported, were healthy and in use",
        season[1],
        region=["eu-west"],
    )
    assert {r["metric"].split()[0] for r in fleet} == {"eu-west"}


def test_a_contract_that_is_chosen_leaves_out_the_others(
    season: tuple[Path, int], ask: Callable[[str], Any]
) -> None:
    assert table(ask, "gigawatch-noc", "Every promise, worst first", season[1], contract=["another"]) == []
    hostile = ["x') OR ('1' = '1"]
    assert table(ask, "gigawatch-noc", "Every promise, worst first", season[1], contract=hostile) == []


def test_the_bound_that_is_drawn_is_the_one_in_force(
    season: tuple[Path, int], ask: Callable[[str], Any]
) -> None:
    """It tightens when the peak season begins, with no threshold in the panel."""
    rows = table(ask, "gigawatch-queues", "Waits against the bound in force", season[1])
    bounds = [
        r["value"]
        for r in rows
        if r["metric"].startswith("replanning-wait") and r["metric"].endswith(" bound")
    ]
    assert {600.0, 180.0} <= set(bounds)
    floors = {r["value"] for r in table(ask, "gigawatch-capacity", "Delivered against committed", season[1])
              if r["metric"].startswith("eu-north-floor") and r["metric"].endswith(" committed") and r["value"]}  # fmt: skip
    assert len(floors) == 2


def test_the_way_from_an_alert_leads_over_its_clause_to_raw_events(
    season: tuple[Path, int], ask: Callable[[str], Any]
) -> None:
    rows = table(ask, "gigawatch-noc", "Alerts of this time range", season[1])
    short = next(r for r in rows if r["clause"] == "us-east-floor")
    query = dict(pair.split("=", 1) for pair in short["link"].split("&"))
    assert query["var-clause"] == "us-east-floor" and query["var-region"] == "us-east"
    start, end = int(query["from"]) / 1000, int(query["to"]) / 1000
    lasted = (short["resolved"] - short["since"]).total_seconds()
    assert start == naive_utc(short["since"]) - 1800 and end - start == lasted + 3600
    chosen = {
        "clause": [query["var-clause"]],
        "region": [query["var-region"]],
        "contract": [query["var-contract"]],
    }
    read = table(ask, "gigawatch-clause", "Read, and what is promised", season[1], **chosen)
    assert {r["metric"].split(" / ")[0] for r in read} == {"us-east-floor"}
    raw = table(ask, "gigawatch-clause", "Raw events", season[1] - 60, back=1800, **chosen)
    assert raw and {r["region"] for r in raw} == {"us-east"} and len(raw) <= 100


def test_few_raw_events_are_shown_of_the_whole_time_range_and_many_of_its_last_minutes(
    season: tuple[Path, int], ask: Callable[[str], Any]
) -> None:
    [sql] = [sql for what, sql in texts(ALL["gigawatch-clause"]) if what == "variable raw_span"]
    span = {view: ask(expanded("gigawatch-clause", sql, season[1] - 30 * DAY, season[1], events=view))[1]
            for view in ("gpu", "billing")}  # fmt: skip
    assert span == {"gpu": [("400 DAY",)], "billing": [("400 DAY",)]}
    larger = sql.replace("<= 100000", "<= 1000")  # as if the season's 20,000 samples were those of a fleet
    assert larger != sql
    assert ask(expanded("gigawatch-clause", larger, season[1] - DAY, season[1]))[1] == [("10 MINUTE",)]
    chosen = {"events": "billing", "raw_span": "400 DAY"}
    bills = table(ask, "gigawatch-clause", "Raw events", season[1], back=30 * DAY, **chosen)
    assert {"BilledCost", "RegionId"} <= set(bills[0]) and len(bills) == 100
    recent = table(ask, "gigawatch-clause", "Raw events", season[1], back=30 * DAY)
    assert {r["time"].timestamp() >= naive(season[1] - 600) for r in recent} == {True}


def naive_utc(time: datetime) -> float:
    """Epoch seconds of a naive time in UTC, as the door gives it."""
    return time.replace(tzinfo=UTC).timestamp()


def naive(seconds: float) -> float:
    """The timestamp of a naive time in UTC, as the door gives it, by Python's reading in the local zone."""
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).timestamp()


def test_a_clause_of_a_kind_that_is_not_known_yet_is_shown(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    made = runpy.run_path(str(ROOT / "tests" / "ledger" / "conftest.py"))
    small, at, end = (
        made["SmallLedger"](tmp_path / "data", load()),
        made["moment"](1_795_000_000),
        1_795_000_060,
    )
    new = {"contract": "c & o", "clause": "moon-phase", "alertname": "MoonDrift", "by_values": '{"region": "m/1"}',
           "state": "breach", "observed": 2.0, "bound": 1.0, "unit": "phases", "facts": '{"tides": 3}'}  # fmt: skip
    insert(small, "readings", {**new, "time": at})
    insert(small, "standing", {**new, "time": at, "since": at})
    insert(
        small,
        "clauses",
        {"contract": "c & o", "clause": "moon-phase", "kind": "lunar", "terms": '{"phase_max": 1}'},
    )
    small.publish()
    small.close()
    with opened(tmp_path / "data", tmp_path_factory.mktemp("log")) as ask:
        [promise] = table(ask, "gigawatch-noc", "Every promise, worst first", end)
        assert (promise["clause"], promise["fires"], promise["where"]) == ("moon-phase", "MoonDrift", "m/1")
        assert promise["link"] == "var-contract=c%20%26%20o&var-clause=moon-phase&var-region=m%2F1"
        assert (promise["observed"], promise["bound"]) == ("2 phases", "1 phases")
        lane, over = table(ask, "gigawatch-noc", "Since when", end)
        assert lane["metric"] == over["metric"] == "01 moon-phase / MoonDrift / m/1"
        assert (lane["value"], over["value"]) == (2, None), "it ends where the data ends"
        read = [
            r
            for r in table(ask, "gigawatch-clause", "Read, and what is promised", end)
            if r["value"] is not None
        ]
        assert {r["metric"].rsplit(" ", 1)[1]: r["value"] for r in read} == {"observed": 2, "bound": 1}
        [unit] = ask(expanded("gigawatch-clause", unit_sql(), end - 60, end))[1]
        assert unit == ("suffix:phases",)
        [term] = table(ask, "gigawatch-clause", "Terms", end)
        assert (term["term"], term["value"]) == ("phase max", "1")
        [fact] = table(ask, "gigawatch-clause", "What else the readings say", end)
        assert (fact["what"], fact["value"]) == ("tides", "3")


def unit_sql() -> str:
    return next(sql for _, _, ref, sql in panel_queries(ALL["gigawatch-clause"]) if ref == "unit")


def test_alerts_are_listed_that_fired_long_before_and_were_open_in_the_time_range(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    made = runpy.run_path(str(ROOT / "tests" / "ledger" / "conftest.py"))
    small, end = made["SmallLedger"](tmp_path / "data", load()), 1_795_000_000
    start = end - DAY
    for clause, fired, over in (
        ("open", end - 9 * DAY, None),
        ("over-within", end - 9 * DAY, end - 3600),
        ("over-later", end - 9 * DAY, end + 3 * DAY),
        ("over-before", end - 9 * DAY, start - 60),
        ("later", end + 60, None),
    ):
        shared = {
            "alertname": "A",
            "contract": "c",
            "clause": clause,
            "severity": "warning",
            "active_at": fired,
        }
        labels = {"labels": json.dumps({"clause": clause, "severity": "warning"}), "annotations": "{}"}
        for state, at in (("firing", fired), ("resolved", over)):
            if at is not None:
                row = {**shared, **labels, "state": state, "time": at, "fired_at": fired}
                times = {**row, "resolved_at": over if state == "resolved" else None}
                insert(small, "alerts", {name: made["moment"](v) if isinstance(v, float | int) else v
                                         for name, v in times.items()})  # fmt: skip
    small.publish()
    small.close()
    with opened(tmp_path / "data", tmp_path_factory.mktemp("log")) as ask:
        listed = table(ask, "gigawatch-noc", "Alerts of this time range", end, back=DAY)
    assert {row["clause"] for row in listed} == {"open", "over-within", "over-later", "later"}


def insert(small: Any, view: str, row: Mapping[str, Any]) -> None:
    columns = ", ".join(f'"{name}"' for name in row)
    marks = ", ".join("?" * len(row))
    small.con.execute(f"INSERT INTO {view}({columns}) VALUES ({marks})", list(row.values()))
    small.con.execute("INSERT INTO dirty VALUES (?, ?)", [view, row.get("time")])


def test_the_width_of_roll_ups_follows_from_the_time_range(ask: Callable[[str], Any]) -> None:
    [sql] = [sql for what, sql in texts(ALL["gigawatch-capacity"]) if what == "variable resolution"]
    for seconds in (600, 3600, 7200, DAY, 2 * DAY, 5 * DAY, 30 * DAY, 90 * DAY):
        _, [(width,)] = ask(GRAFANA["expand"](sql, 1_795_000_000 - seconds, 1_795_000_000))
        assert width == resolution(1_795_000_000 - seconds, 1_795_000_000)


# --------------------------------------------------------------------------------------------- Grafana's macros


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("$__timeFilter(t)", "t BETWEEN FROM_UNIXTIME(100) AND FROM_UNIXTIME(460)"),
        ('$__timeFilter("time")', '"time" BETWEEN FROM_UNIXTIME(100) AND FROM_UNIXTIME(460)'),
        ("$__timeFrom() .. $__timeTo()", "FROM_UNIXTIME(100) .. FROM_UNIXTIME(460)"),
        ("$__time(t)", "UNIX_TIMESTAMP(t) as time_sec"),
        ("$__timeGroup(t, '5m')", "UNIX_TIMESTAMP(t) DIV 300 * 300"),
        ("$__timeGroupAlias(t,$__interval)", 'UNIX_TIMESTAMP(t) DIV 60 * 60 AS "time"'),
        ("$__unixEpochFilter(t)", "t >= 100 AND t <= 460"),
        ("$__unixEpochGroupAlias(t,'1h')", 't DIV 3600 * 3600 AS "time"'),
        ("$__unixEpochFrom() $__unixEpochTo()", "100 460"),
        ("$__interval $__interval_ms ${__from} ${__to}", "1m 60000 100000 460000"),
        ("IN ($many) $one ${many}", "IN ('a','it''s') raw 'a','it''s'"),
        ("facts ->> '$.healthy' $unknown", "facts ->> '$.healthy' $unknown"),
    ],
)
def test_macros_are_expanded_as_grafana_does(given: str, expected: str) -> None:
    document = {"templating": {"list": [
        {"name": "many", "multi": True, "includeAll": True, "allValue": "'*'", "current": {"value": "$__all"}},
        {"name": "one", "multi": False, "current": {"value": "raw"}},
    ]}}  # fmt: skip
    variables = {"many": ["a", "it's"]} if "many" in given else {}
    assert GRAFANA["expand"](given, 100, 460, document=document, variables=variables) == expected
    assert GRAFANA["expand"]("IN ($many)", 100, 460, document=document) == "IN ('*')"


def test_a_macro_that_grafana_has_not_is_told() -> None:
    with pytest.raises(ValueError, match=r"no macro \$__timeTurn"):
        GRAFANA["expand"]("$__timeTurn(t)", 0, 1)


def test_the_functions_that_macros_become_are_the_doors_own() -> None:
    assert [text for text in MACROS if text.startswith("from_unixtime(")]


def test_panels_ask_for_no_more_points_than_they_show() -> None:
    for start, (document, panel) in itertools.product(
        (3600, DAY, 90 * DAY),
        [(d, p) for d in ALL.values() for p in d["panels"] if p["type"] == "timeseries"],
    ):
        interval = GRAFANA["interval_of"](panel, 0, start)
        assert start * 1000 / interval <= 2 * panel["maxDataPoints"], (document["uid"], panel["title"])
