"""What the product makes of a kind of clause that it did not have; `test_new_kind.py` runs this in a copy that has it."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pymysql
import pytest
from jsonschema import Draft202012Validator

from pipeline.catalog import load
from pipeline.history import query, seal
from pipeline.serve.child import Door
from tests.patience import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
CHECKED = """\
metadata: {id: a, version: "1"}
parties: {customer: C, supplier: S}
term: {start: 2026-01-01, end: 2027-01-01}
currency: EUR
timezone: UTC
temperature:
  - id: misspelt
    ceiling_celcius: 70
  - id: too-hot
    by: [clustre]
    ceiling_celsius: 1500
    over: 95s
"""


def test_it_is_checked_like_any_other_with_each_fault_at_its_place(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(CHECKED)
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "contract", "check", str(tmp_path / "c.yaml")],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    found = [line.replace(f"{tmp_path}/", "") for line in done.stderr.splitlines()[:-1]]
    assert found == [
        "c.yaml:7:5 temperature[0].ceiling_celsius: found nothing, expected a number, or a list of steps such as "
        "{from: 2026-11-01, value: 4096}; is it misspelt as 'ceiling_celcius'?",
        "c.yaml:8:5 temperature[0].ceiling_celcius: found the unknown field 'ceiling_celcius', expected a field that belongs "
        "here; did you mean 'ceiling_celsius'?",
        "c.yaml:10:10 temperature[1].by[0]: found the unknown dimension 'clustre', expected one of provider, region, site, "
        "cluster, sku, nvlink_domain, data_class; did you mean 'cluster'?",
        "c.yaml:11:22 temperature[1].ceiling_celsius: found 1500, expected a temperature that a GPU can have, up to 150 °C",
        "c.yaml:12:11 temperature[1].over: found '95s', expected a whole multiple of 10 s, up to a day",
    ]


def test_an_editor_completes_it_from_the_schema() -> None:
    schema = json.loads((ROOT / "schemas" / "contract.json").read_text("utf-8"))
    section = schema["properties"]["temperature"]
    assert section["items"] == {"$ref": "#/$defs/temperature"} and section["description"]
    fields = schema["$defs"]["temperature"]["properties"]
    assert {"id", "match", "by", "severity", "ceiling_celsius", "over"} <= fields.keys()
    assert fields["ceiling_celsius"]["description"] and fields["over"]["default"] == "5m"
    wrong = {"temperature": [{"id": "a", "ceiling_celsius": "warm"}]}
    paths = {tuple(error.absolute_path) for error in Draft202012Validator(schema).iter_errors(wrong)}
    assert ("temperature", 0, "ceiling_celsius") in paths


def test_the_documents_list_it() -> None:
    assert "| TemperatureExceeded | the mean temperature of GPUs" in (ROOT / "docs" / "alerts.md").read_text(
        "utf-8"
    )
    contract = (ROOT / "docs" / "contracts.md").read_text("utf-8")
    assert (
        "| `temperature` | How warm GPUs may be on average. | `temperature` | TemperatureExceeded |"
        in contract
    )
    assert "| `temperature` | `ceiling_celsius` |" in contract
    example = (ROOT / "schemas" / "example-contract.yaml").read_text("utf-8")
    assert "\ntemperature:\n  - id: cool-clusters\n" in example


# --------------------------------------------------------------------------------------------- it runs


@pytest.fixture
def warm(stage: Any) -> Any:
    """Two clusters of four GPUs for five minutes until now: c0 is at 80 °C on average, c1 at 60 °C."""
    for t in range(stage.now - 300, stage.now + 1, 30):
        known = {"health": "ok", "known_from": stage.moment(t)}
        hot = [stage.gpu(t - 1, g, "c0", temperature_celsius=77.0 + 2 * g, **known) for g in range(4)]
        cool = [stage.gpu(t - 1, g, "c1", temperature_celsius=60.0, **known) for g in range(4)]
        stage.small.add("gpu", hot + cool)
        stage.small.watermark(t)
    seal.seal(stage.small.ledger.cursor(), stage.data, load())
    stage.publish()
    return stage


@pytest.fixture
def ask(warm: Any, tmp_path: Path) -> Iterator[Callable[..., list[tuple[Any, ...]]]]:
    """`ask(sql)`: what a door before the data answers."""
    door = Door(warm.data, tmp_path / "door.log", ["--port", "0"])
    door.start()
    host, _, port = door.address.rpartition(":")
    connection = pymysql.connect(host=host, port=int(port), user="tester")

    def asked(sql: str) -> list[tuple[Any, ...]]:
        with connection.cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())

    yield asked
    connection.close()
    door.stop()


def test_it_fires_and_resolves(warm: Any) -> None:
    told = "SELECT state, labels, observed, bound, unit FROM alerts WHERE alertname = 'TemperatureExceeded' ORDER BY time"
    [(state, labels, observed, bound, unit)] = warm.con.execute(told).fetchall()
    assert (state, observed, bound, unit) == ("firing", 80.0, 70.0, "°C")
    assert json.loads(labels)["cluster"] == "c0" and json.loads(labels)["severity"] == "critical"
    for t in range(warm.now + 30, warm.now + 181, 30):
        rows = [
            warm.gpu(t - 1, g, c, temperature_celsius=50.0, health="ok")
            for g in range(4)
            for c in ("c0", "c1")
        ]
        warm.small.add("gpu", rows)
        warm.small.watermark(t)
    assert [row[0] for row in warm.con.execute(told).fetchall()] == ["firing", "resolved"]


def test_every_view_of_all_kinds_has_it_and_its_own_has_comments(ask: Any) -> None:
    [standing] = ask(
        "SELECT state, observed FROM standing WHERE alertname = 'TemperatureExceeded' AND by_values LIKE '%c0%'"
    )
    assert standing == ("breach", 80.0)
    assert ask(
        "SELECT DISTINCT state FROM readings WHERE alertname = 'TemperatureExceeded' AND by_values LIKE '%c1%'"
    ) == [("ok",)]
    [clause] = ask("SELECT kind, terms FROM clauses WHERE clause = 'cool-clusters'")
    assert clause[0] == "temperature"
    assert json.loads(clause[1])["ceiling_celsius"][1] == {"from": "2026-08-31T22:00:00Z", "value": 70.0}
    [alert] = ask(
        "SELECT severity, about, observed, unit FROM alerts_open WHERE alertname = 'TemperatureExceeded'"
    )
    assert alert == ("critical", "c0", 80.0, "°C")
    rows = ask(
        "SELECT cluster, mean_celsius, ceiling_celsius, gpus, state FROM temperature ORDER BY time DESC, cluster LIMIT 2"
    )
    assert rows == [("c0", 80.0, 70.0, 4.0, "breach"), ("c1", 60.0, 70.0, 4.0, "ok")]
    columns = {row[0]: row[-1] for row in ask("SHOW FULL COLUMNS FROM temperature")}
    assert columns["mean_celsius"] == "Mean over the span of the clause, of all GPUs" and all(
        columns.values()
    )


def test_its_alert_says_it_in_words_and_its_sql_gives_the_number(warm: Any, ask: Any) -> None:
    told = "SELECT annotations FROM alerts WHERE alertname = 'TemperatureExceeded'"
    notes = json.loads(warm.con.execute(told).fetchone()[0])
    assert notes["summary"] == "cool-clusters: 80 °C on average, at most 70 allowed (c0)"
    assert "The mean of 4 GPUs." in notes["description"]
    assert notes["text"].startswith("Aurora cools the GPUs") and notes["contact"] == "Aurora facilities"
    assert ask(notes["sql"]) == [(80.0,)]
    asked = query.ask(query.open_views(warm.data, load()), notes["sql"])
    assert list(asked.rows) == [(80.0,)]
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "sql", "--data", str(warm.data), "--format", "csv", notes["sql"]],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["value", "80.0"], done.stderr


def test_the_board_shows_it(warm: Any, open_board: Any) -> None:
    board = open_board(warm.data)
    text = httpx.get(board.url, trust_env=False, timeout=PATIENCE).text
    for words in (
        "TemperatureExceeded",
        "80 °C",
        "against 70 °C",
        "Aurora cools the GPUs of each cluster",
        "cool-clusters",
    ):
        assert words in text, words
    metrics = httpx.get(f"{board.url}/metrics", trust_env=False, timeout=PATIENCE).text
    assert 'alertname="TemperatureExceeded"' in metrics


def test_the_noc_dashboard_shows_it(warm: Any, ask: Any) -> None:
    asked = runpy.run_path(str(ROOT / "tests" / "dashboards" / "test_dashboards.py"))
    noc = asked["ALL"]["gigawatch-noc"]
    shown = {}
    for panel in noc["panels"]:
        for target in panel["targets"]:
            sql = asked["expanded"]("gigawatch-noc", target["rawSql"], warm.now - 3600, warm.now + 60)
            shown[panel["title"]] = ask(sql)
    for title in ("What is wrong, worst first", "Every promise, worst first"):
        [row] = [row for row in shown[title] if "TemperatureExceeded" in row and "c0" in row]
        assert "80 °C" in row and "70 °C" in row and "cool-clusters" in row
