"""Views and questions: typed before the first file, whole while files come and go, and plain about mistakes."""

from __future__ import annotations

import csv
import io
import itertools
import json
import shutil
import threading
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest

from pipeline.catalog import Catalog, load, schema_directory
from pipeline.errors import QueryError
from pipeline.history import query
from pipeline.views import all_views, published

T = 1_767_225_600  # 2026-01-01T00:00:00Z

TOKENS = {
    "title": "Tokens served",
    "x-topic": "telemetry.tokens",
    "x-view": "tokens",
    "x-interval": 30,
    "x-lateness": 5,
    "type": "object",
    "required": ["model", "endpoint"],
    "properties": {
        "model": {"type": "string", "x-role": "dimension"},
        "endpoint": {"type": "string", "x-role": "entity"},
        "tokens_served": {
            "type": "integer",
            "minimum": 0,
            "maximum": 1e9,
            "x-role": "measure",
            "x-quantum": "1",
        },
        "latency_seconds": {
            "type": "array",
            "items": {"type": "number", "minimum": 0, "maximum": 3600},
            "x-role": "measure",
            "x-quantum": "1e-6",
        },
    },
}


def test_every_view_is_typed_and_empty_before_the_pipeline_ever_ran(tmp_path: Path, catalog: Catalog) -> None:
    con = query.open_views(tmp_path, catalog)
    for table in published.published_tables(catalog):
        described = con.execute(f'DESCRIBE "{table.view}"').fetchall()
        assert tuple((name, kind) for name, kind, *_ in described) == table.shown
        assert con.execute(f'SELECT count(*) FROM "{table.view}"').fetchone() == (0,)
    assert list(tmp_path.iterdir()) == []


def test_the_views_are_those_that_the_domain_names(catalog: Catalog) -> None:
    raw = {"gpu", "queue", "energy", "billing"}
    rolled = {f"{v}_{w}" for v in raw for w in ("10s", "1m", "15m", "1h", "1d")} | {"gpu_minutes"}
    own = {
        "deliveries",
        "quarantine",
        "alerts",
        "alerts_now",
        "standing",
        "fates",
        "set_aside",
        "readings",
        "clauses",
        "windows",
        "aliases",
        "health",
        "forecasts",
    }
    ready = {
        "capacity", "power", "queue_wait", "spend", "gpu_hours", "since_yesterday", "energy_mix", "alerts_open", "data_age",
    }  # fmt: skip
    ready |= {"pipeline_health", "charges", "bills"}
    assert set(all_views.names(catalog)) == raw | rolled | own | ready


def test_a_view_made_before_the_first_file_shows_the_rows_that_come_later(
    ledger: Any, catalog: Catalog, rows: Any
) -> None:
    con = query.open_views(ledger.data, catalog)
    asked = "SELECT count(*), any_value(health) FROM gpu"
    assert con.execute(asked).fetchone() == (0, None)
    ledger.add("gpu", [rows.gpu(T, health="ok")])
    ledger.seal()
    ledger.publish()
    assert con.execute(asked).fetchone() == (1, "ok")
    assert con.execute("SELECT window_start, gpus FROM gpu_1h").fetchall() == [(rows.moment(T), 1)]


def test_an_older_file_shows_null_for_a_column_that_came_later(
    ledger: Any, catalog: Catalog, rows: Any
) -> None:
    ledger.add("gpu", [rows.gpu(T, power_watts=700.0)])
    ledger.add("gpu", [rows.gpu(T + 3600, power_watts=800.0)])
    ledger.seal()
    old = next(ledger.data.glob("history/telemetry.gpu/*/hour=00/*.parquet"))
    duckdb.sql(f"COPY (SELECT * EXCLUDE (power_watts) FROM '{old}') TO '{old}' (FORMAT parquet)")
    found = query.ask(query.open_views(ledger.data, catalog), "SELECT power_watts FROM gpu ORDER BY time")
    assert list(found.rows) == [(None,), (800.0,)]


def test_a_fifth_event_type_is_rolled_up_published_and_asked_for_without_code(
    tmp_path: Path, make_ledger: Any, rows: Any
) -> None:
    schemas = tmp_path / "schemas"
    shutil.copytree(schema_directory(), schemas)
    (schemas / "tokens.served.v1.json").write_text(json.dumps(TOKENS), "utf-8")
    catalog = load(schemas)
    ledger = make_ledger(tmp_path / "data", catalog)
    identity = {"source": "s", "idx": 0, "model": "m"}
    reports = [
        {
            "endpoint": e,
            "tokens_served": 10,
            "latency_seconds": [0.5, 2.0],
            "time": rows.moment(T + n),
            "id": str(n),
        }
        for n, e in enumerate(["a", "b", "a"])
    ]
    ledger.add("tokens", [report | identity for report in reports])
    ledger.seal()
    ledger.publish()
    ledger.close()
    con = query.open_views(tmp_path / "data", catalog)
    assert con.execute("SELECT count(*) FROM tokens").fetchone() == (3,)
    rolled = con.execute(
        "SELECT model, samples, gpus, tokens_served_sum, latency_seconds_count, latency_seconds_p50 FROM tokens_1d"
    )
    assert rolled.fetchall() == [("m", 3, 2, 30.0, 6, 0.5)]


def test_the_text_of_the_views_works_in_any_duckdb(ledger: Any, catalog: Catalog, rows: Any) -> None:
    ledger.add("gpu", [rows.gpu(T), rows.gpu(T + 1)])
    ledger.seal()
    con = duckdb.connect()
    con.execute(all_views.views_sql(ledger.data, catalog))
    assert con.execute("SELECT count(*) FROM gpu").fetchone() == (2,)


def test_plain_duckdb_reads_the_files_without_any_view(ledger: Any, rows: Any) -> None:
    ledger.add("gpu", [rows.gpu(T), rows.gpu(T + 3600)])
    ledger.seal()
    ledger.publish()
    by_hour = duckdb.sql(
        f"SELECT date::VARCHAR, hour, count(*) FROM '{ledger.data}/history/telemetry.gpu/**/*.parquet' GROUP BY ALL ORDER BY ALL"
    )
    assert by_hour.fetchall() == [("2026-01-01", "00", 1), ("2026-01-01", "01", 1)]
    assert duckdb.sql(
        f"SELECT sum(samples) FROM '{ledger.data}/rollups/telemetry.gpu/1h/**/*.parquet'"
    ).fetchall() == [(2,)]


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT utilisation_ratio FROM gpu", r"gpu\.utilization_ratio"),
        ("SELECT power_watt_mean FROM gpu_1m", r"gpu_10s\.power_watts_mean"),
        ("SELECT * FROM billings", r"nearest: billing"),
        ("SELECT FROM WHERE", r"syntax error"),
        ("SELECT 1; SELECT 2", r"found SELECT, SELECT; expected one SELECT"),
        ("", r"found nothing; expected one SELECT"),
        ("DROP VIEW gpu", r"found DROP; expected one SELECT"),
        ("SELECT 1 / health FROM gpu", r"(?i)cast|convert|conversion"),
    ],
)
def test_a_wrong_question_is_answered_with_what_is_wrong(
    sql: str, message: str, tmp_path: Path, catalog: Catalog
) -> None:
    con = query.open_views(tmp_path, catalog)
    with pytest.raises(QueryError, match=message):
        list(query.ask(con, sql).rows)


def test_a_missing_data_directory_is_named(tmp_path: Path, catalog: Catalog) -> None:
    with pytest.raises(QueryError, match=r"nowhere: no such data directory; give the --data"):
        query.open_views(tmp_path / "nowhere", catalog)


def test_a_data_directory_with_glob_characters_in_its_name_is_read(
    tmp_path: Path, make_ledger: Any, catalog: Catalog, rows: Any
) -> None:
    ledger = make_ledger(tmp_path / "all [of] it *", catalog)
    ledger.add("gpu", [rows.gpu(T)])
    ledger.seal()
    ledger.publish()
    con = query.open_views(ledger.data, catalog)
    assert con.execute("SELECT (SELECT count(*) FROM gpu), (SELECT sum(samples) FROM gpu_1h)").fetchone() == (
        1,
        1,
    )
    ledger.close()


ODD = """SELECT * FROM (VALUES
    (1.5::DECIMAL(9,2), 'a,"b"' || chr(10) || 'c', NULL),
    (2, chr(27) || '[31m', TIMESTAMP '2026-01-01 00:00:01')) t(n, label, moment)"""


def rendered(tmp_path: Path, catalog: Catalog, form: Any, sql: str = ODD) -> str:
    return "".join(query.render(query.ask(query.open_views(tmp_path, catalog), sql), form))


def test_csv_comes_back_as_it_went(tmp_path: Path, catalog: Catalog) -> None:
    found = list(csv.reader(io.StringIO(rendered(tmp_path, catalog, "csv"))))
    assert found == [
        ["n", "label", "moment"],
        ["1.50", 'a,"b"\nc', ""],
        ["2.00", "\x1b[31m", "2026-01-01T00:00:01Z"],
    ]


def test_json_is_an_array_of_objects_with_exact_money(tmp_path: Path, catalog: Catalog) -> None:
    first, second = json.loads(rendered(tmp_path, catalog, "json"))
    assert first == {"n": "1.50", "label": 'a,"b"\nc', "moment": None}
    assert (Decimal(second["n"]), second["moment"]) == (2, "2026-01-01T00:00:01Z")
    assert json.loads(rendered(tmp_path, catalog, "json", "SELECT 1 AS a WHERE false")) == []


def test_a_table_draws_no_escape_sequence_and_no_second_line(tmp_path: Path, catalog: Catalog) -> None:
    lines = rendered(tmp_path, catalog, "table").splitlines()
    assert lines[0].split() == ["n", "label", "moment"]
    assert len(lines) == 5
    assert lines[-1] == "(2 rows)"
    assert "\x1b" not in "".join(lines)


HOSTILE = """SELECT chr(27) || ']0;owned' || chr(7) || chr(8238) || 'gnp.exe' || chr(155) || '2J' || chr(127)
    || chr(917569) || 'ä' AS "a{}", 1 AS n""".format("\u202e")


def test_nothing_in_json_or_in_csv_on_a_terminal_steers_it(tmp_path: Path, catalog: Catalog) -> None:
    result = query.ask(query.open_views(tmp_path, catalog), HOSTILE)
    exact = "\x1b]0;owned\x07\u202egnp.exe\x9b2J\x7f\U000e0041ä"
    text = rendered(tmp_path, catalog, "json", HOSTILE)
    assert json.loads(text) == [{"a\u202e": exact, "n": 1}]
    assert all(line.isprintable() for line in text.splitlines())
    shown = "".join(query.render(result, "csv", terminal=True))
    assert all(line.isprintable() for line in shown.splitlines()) and "ä" in shown
    assert list(csv.reader(io.StringIO(rendered(tmp_path, catalog, "csv", HOSTILE))))[1] == [exact, "1"]


def test_rows_beyond_the_first_are_read_as_they_are_asked_for(tmp_path: Path, catalog: Catalog) -> None:
    result = query.ask(query.open_views(tmp_path, catalog), "SELECT i FROM range(1000000) t(i)")
    assert [next(result.rows) for _ in range(3)] == [(0,), (1,), (2,)]
    assert sum(1 for _ in result.rows) == 999_997


def test_files_that_are_replaced_while_they_are_read_give_the_old_rows_or_the_new_ones(
    ledger: Any, catalog: Catalog, rows: Any, tmp_path: Path
) -> None:
    def published(second: int, clusters: int) -> dict[Path, bytes]:
        times = range(T + second, T + second + 7200, 60)
        ledger.add("gpu", [rows.gpu(t, cluster=f"c{n}") for t in times for n in range(clusters)])
        ledger.publish()
        return {
            path: path.read_bytes() for path in (ledger.data / "rollups/telemetry.gpu/1m").rglob("*.parquet")
        }

    versions = [published(0, 70), published(10, 100)]
    assert set(versions[0]) == set(versions[1]) and len(versions[0]) > 10
    con = query.open_views(ledger.data, catalog)
    one_file = (
        "SELECT sum(samples), max(window_start), sum(gpus), min(cluster) FROM gpu_1m "
        "GROUP BY time_bucket(INTERVAL 10 MINUTE, window_start)"
    )
    right, done, replaced = [], threading.Event(), []
    for version in versions:
        for path, content in version.items():
            path.write_bytes(content)
        right.append(set(query.ask(con, one_file).rows))

    def replace() -> None:
        for version in itertools.cycle(versions):
            for path, content in version.items():
                staged = tmp_path / "staged"
                staged.write_bytes(content)
                staged.replace(path)
            replaced.append(True)
            if done.wait(0.05):  # what is published is replaced every ten seconds
                return

    replacing = threading.Thread(target=replace)
    replacing.start()
    try:
        asked = 0
        while asked < 1000 and (
            asked < 100 or len(replaced) < 100
        ):  # a slow machine sees as many in fewer questions
            assert set(query.ask(con, one_file).rows) <= right[0] | right[1]
            asked += 1
    finally:
        done.set()
        replacing.join()
