"""The door as its clients see it: PyMySQL, pandas over SQLAlchemy, the mysql command, Grafana's driver."""

from __future__ import annotations

import json
import math
import os
import runpy
import shutil
import subprocess
import threading
from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas
import psutil
import pymysql
import pymysql.cursors
import pytest
import sqlalchemy

from pipeline.catalog import load
from pipeline.serve.child import Door
from pipeline.views.all_views import names
from pipeline.views.all_views import names as view_names
from tests.patience import PATIENCE

Ask = Callable[..., list[tuple[Any, ...]]]
Call = Callable[..., pymysql.Connection]
T = 1_767_225_600
ON_CI = os.environ.get("CI") == "true"

# What Grafana's macros come to, by its own rules: $__timeGroupAlias(time, '1m'), $__timeFilter(time), …
GRAFANA = (
    f'SELECT UNIX_TIMESTAMP(window_start) DIV 60 * 60 AS "time", avg(power_watts_mean) AS watts FROM gpu_10s '
    f"WHERE window_start BETWEEN FROM_UNIXTIME({T}) AND FROM_UNIXTIME({T + 120}) GROUP BY 1 ORDER BY 1"
)


# ------------------------------------------------------------------------------------------------------ PyMySQL


def test_every_kind_of_value_arrives_as_its_kind(ask: Ask) -> None:
    [row] = ask(
        "SELECT 1::TINYINT, -2::SMALLINT, 3, 4::BIGINT, 18446744073709551615::UBIGINT, 5::HUGEINT, 1.50::DECIMAL(9,2), "
        "0.1::DOUBLE, 'NaN'::DOUBLE, true, false, NULL, 'é😀', '\\x00\\xFF'::BLOB, DATE '2026-01-02', "
        "TIME '01:02:03.5', TIMESTAMP '2026-01-02 03:04:05.000006', TIMESTAMPTZ '2026-01-02 03:00:00+02', "
        "[1, NULL, 2], {'a': 'ü', 'b': 1.5::DECIMAL(9,2)}, MAP {'k': 1}, '{\"j\":1}'::JSON, "
        "'00000000-0000-0000-0000-000000000001'::UUID, INTERVAL 90 MINUTE, 'a'::ENUM('a', 'b'), [DATE '2026-01-02']"
    )
    assert row[:8] == (1, -2, 3, 4, 18446744073709551615, 5, Decimal("1.50"), 0.1)
    assert math.isnan(row[8])
    assert row[9:14] == (1, 0, None, "é😀", b"\x00\xff")
    assert row[14:16] == (date(2026, 1, 2), timedelta(hours=1, minutes=2, seconds=3.5))
    assert row[16:18] == (datetime(2026, 1, 2, 3, 4, 5, 6), datetime(2026, 1, 2, 1))
    assert [json.loads(text) for text in row[18:22]] == [
        [1, None, 2],
        {"a": "ü", "b": "1.50"},
        {"k": 1},
        {"j": 1},
    ]
    assert row[22:] == ("00000000-0000-0000-0000-000000000001", "1:30:00", "a", '["2026-01-02"]')


def test_money_keeps_its_digits_and_time_is_utc(ask: Ask) -> None:
    assert ask("SELECT BilledCost FROM billing ORDER BY BilledCost DESC LIMIT 1") == [
        (Decimal("2.123456789100000"),)
    ]
    assert ask("SELECT min(time) FROM gpu") == [(datetime(2026, 1, 1),)]


def test_grafanas_macros_have_answers(ask: Ask) -> None:
    rows = ask(GRAFANA)
    assert [time for time, _ in rows] == [T, T + 60, T + 120]
    assert rows[0][1] == pytest.approx(715.0)
    assert ask(
        f"SELECT UNIX_TIMESTAMP(time) AS time_sec FROM gpu WHERE time >= FROM_UNIXTIME({T}) LIMIT 1"
    ) == [(T,)]
    assert ask(
        f"SELECT count(*) FROM gpu WHERE UNIX_TIMESTAMP(time) >= {T} AND UNIX_TIMESTAMP(time) <= {T + 3}"
    ) == [(4,)]
    assert ask("SELECT UNIX_TIMESTAMP(time) DIV 300 * 300, count(*) FROM gpu GROUP BY 1") == [(T, 240)]
    assert ask(f"SELECT 1767225600000000123 DIV 1000 * 1000, ({T} + 61) DIV 60 * 60") == [
        (1767225600000000000, T + 60)
    ]


def test_mysqls_forms_have_answers(ask: Ask) -> None:
    asked = {
        "SELECT DATE_FORMAT(min(time), '%Y-%m-%d %H:%i:%s') FROM gpu": "2026-01-01 00:00:00",
        "SELECT FROM_UNIXTIME(0, '%Y')": "1970",
        "SELECT count(*) FROM gpu WHERE time > DATE_SUB('2026-01-01 00:02:00', INTERVAL 1 MINUTE)": 178,
        "SELECT count(*) FROM gpu WHERE time < '2026-01-01' + INTERVAL 10 SECOND": 10,
        "SELECT `gpu` FROM gpu ORDER BY `gpu` DESC LIMIT 1, 1": "c0-1",
        "SELECT IF(1 > 0, 'a', 'b')": "a",
        "SELECT IFNULL(NULL, 'x') REGEXP 'x'": 1,
        "SELECT TIMESTAMPDIFF(SECOND, '2026-01-01', '2026-01-02')": 86400,
        "SELECT GROUP_CONCAT(DISTINCT gpu ORDER BY gpu SEPARATOR ';') FROM gpu": "c0-0;c0-1",
        "SELECT SUBSTRING_INDEX('a.b.c', '.', 2)": "a.b",
        "SELECT 'a' || 'b' FROM dual LIMIT 0, 1": "ab",
        "SELECT JSON_UNQUOTE('\"x\"')": "x",
        "SELECT 1 <=> NULL": 0,
        "SELECT COUNT(*) FROM gigawatch.gpu": 240,
        "SELECT count(*) FROM alerts WHERE `window` IS NULL AND \"window\" IS NULL": 0,
        "SELECT count(*) FROM standing WHERE `by_values` = 'x'": 0,
    }  # fmt: skip
    assert {sql: ask(sql)[0][0] for sql in asked} == asked


def test_duckdbs_own_forms_run_as_they_are(ask: Ask) -> None:
    assert ask("FROM gpu SELECT sku, count(*) GROUP BY ALL") == [("gb300", 240)]
    assert ask("SELECT max(power_watts) FILTER (WHERE gpu = 'c0-0') FROM gpu") == [(819.5,)]
    assert ask("SELECT list_sum([x * 2 FOR x IN [1, 2]])") == [(6,)]
    assert ask("SELECT time FROM gpu QUALIFY row_number() OVER (ORDER BY time DESC) = 1") == [
        (datetime(2026, 1, 1, 0, 3, 58),)
    ]
    assert len(ask("SUMMARIZE gpu")) == len(ask("DESCRIBE gpu"))
    assert ask("DESCRIBE SELECT 1 AS a")[0][:2] == ("a", "INTEGER")


def test_errors_are_mysqls_with_duckdbs_words_and_the_nearest_names(client: pymysql.Connection) -> None:
    expected = {
        "SELECT utilisation_ratio FROM gpu": (1054, "gpu.utilization_ratio"),
        "SELECT UNIX_TIMESTAMP(tme) DIV 60 FROM gpu": (1054, 'Referenced column "tme"'),
        "SELECT * FROM billings": (1146, "nearest: billing"),
        "SELECT FROM WHERE": (1064, "syntax error"),
        "SELECT no_such(1)": (1305, "no_such"),
        "SELECT 'x'::INTEGER": (1292, "Could not convert"),
        "DROP VIEW gpu": (1290, "read-only"),
        "USE elsewhere": (1049, "Unknown database 'elsewhere'"),
        "SELECT 5 % 0": (1105, "(?i)zero"),
        "": (1290, "found nothing"),
    }
    for sql, (code, words) in expected.items():
        with client.cursor() as cursor, pytest.raises(pymysql.MySQLError, match=words) as raised:
            cursor.execute(sql)
        assert raised.value.args[0] == code, sql


def test_more_rows_than_the_limit_are_an_error_and_no_part_of_an_answer(
    open_door: Callable[..., Door], call: Call
) -> None:
    door = open_door("--row-limit", "1500")
    with call(door) as connection, connection.cursor() as cursor:
        assert cursor.execute("SELECT * FROM range(1500)") == 1500
        with pytest.raises(pymysql.MySQLError, match="more than 1,500 rows; ask for less"):
            cursor.execute("SELECT * FROM range(1501)")
        cursor.execute("SET sql_select_limit = 7")
        assert cursor.execute("SELECT * FROM range(100000)") == 7
        cursor.execute("SET sql_select_limit = DEFAULT")
        assert cursor.execute("SELECT 1") == 1


def test_a_large_answer_goes_out_in_bounded_memory(door: Door, call: Call) -> None:
    process = psutil.Process(door.pid)
    with call(door, cursorclass=pymysql.cursors.SSCursor) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT repeat('x', 10000) FROM range(50000)")
        before, rows, most = process.memory_info().rss, 0, 0
        while cursor.fetchone():
            rows += 1
            if rows % 5000 == 0:
                most = max(most, process.memory_info().rss)
    assert rows == 50_000
    assert most - before < 250 * 2**20, "500 MB went through"


def test_a_file_that_is_replaced_while_it_is_read_does_not_matter(
    published: Path, door: Door, call: Call
) -> None:
    file = next(published.glob("history/telemetry.gpu/*/*/*.parquet"))
    stop = threading.Event()

    def replace() -> None:
        content, names = file.read_bytes(), [file, file.with_name("other.parquet")]
        while not stop.is_set():
            unnamed = file.with_name("new")
            unnamed.write_bytes(content)
            unnamed.rename(names[1])
            names[0].unlink()
            names.reverse()
            stop.wait(0.02)
        if not file.exists():  # it goes by the other name
            names[0].rename(file)

    worker = threading.Thread(target=replace)
    worker.start()
    try:
        with call(door) as connection, connection.cursor() as cursor:
            for _ in range(100):
                cursor.execute("SELECT count(*) % 240 FROM gpu")
                assert cursor.fetchone() == (0,)
    finally:
        stop.set()
        worker.join()


def test_twenty_clients_ask_at_once(door: Door, call: Call) -> None:
    found: list[Any] = []

    def asked() -> None:
        with call(door) as connection, connection.cursor() as cursor:
            for _ in range(5):
                cursor.execute(GRAFANA)
                found.append(cursor.fetchall())

    workers = [threading.Thread(target=asked) for _ in range(20)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(found) == 100
    assert len(set(found)) == 1


# ------------------------------------------------------------------------------------------- catalog and session


def test_the_catalog_is_what_the_views_are(ask: Ask) -> None:
    names = set(view_names(load()))
    assert {row[0] for row in ask("SHOW TABLES")} >= names
    assert {
        row[0]
        for row in ask("SELECT TABLE_NAME FROM INFORMATION_SCHEMA.TABLES WHERE TABLE_SCHEMA = DATABASE()")
    } >= names
    assert ("gpu", "VIEW") in ask("SHOW FULL TABLES FROM gigawatch LIKE 'g%'")
    assert ask("SHOW DATABASES") == [("gigawatch",), ("information_schema",)]
    columns = ask("SELECT column_name, data_type, column_type FROM information_schema.columns "
                  "WHERE table_schema = 'gigawatch' AND table_name = 'billing' ORDER BY ordinal_position")  # fmt: skip
    assert ("BilledCost", "decimal", "decimal(38,15)") in columns
    assert ("time", "datetime", "datetime(6)") in columns
    assert [row[0] for row in ask("DESCRIBE billing")] == [row[0] for row in columns]
    assert ask("SHOW INDEX FROM gpu") == ask("SHOW WARNINGS") == ask("SHOW PROCEDURE STATUS") == []
    assert ask("SHOW CREATE TABLE gpu")[0][1].startswith("CREATE ALGORITHM=UNDEFINED VIEW `gpu`")


def test_comments_on_views_and_columns_are_shown(tmp_path: Path) -> None:
    import duckdb

    from pipeline.door.mysql_catalog import names_sql
    from pipeline.door.show_statements import select
    from pipeline.views.all_views import views_sql

    with duckdb.connect(str(tmp_path / "gigawatch.duckdb")) as con:
        con.execute(views_sql(tmp_path, load()))
        con.execute("COMMENT ON VIEW gpu IS 'samples; it''s all'; COMMENT ON COLUMN gpu.sku IS 'kind of GPU'")
        con.execute(names_sql())
        assert con.execute(
            "SELECT table_comment FROM mysql_catalog.tables WHERE table_name = 'gpu'"
        ).fetchall() == [("samples; it's all",)]
        for full in (False, True):
            shown = select("COLUMNS", target="gpu", full=full, variables={}, user="")
            assert shown is not None
            comments = {row[0]: row[-1] for row in con.execute(shown).fetchall()}
            assert (comments["sku"], comments["time"]) == ("kind of GPU", "Event time, UTC")


@pytest.mark.parametrize("view", names(load()))
def test_every_view_answers_and_says_what_its_columns_are(ask: Ask, view: str) -> None:
    ask(f"SELECT * FROM `{view}` LIMIT 1")
    shown = {row[0]: row[-1] for row in ask(f"SHOW FULL COLUMNS FROM `{view}`")}
    assert shown and all(shown.values()), shown


def test_the_session_is_what_drivers_expect(ask: Ask, client: pymysql.Connection) -> None:
    [row] = ask(
        "SELECT @@version, @@session.time_zone, @@sql_mode, DATABASE(), USER(), @@autocommit, @@max_allowed_packet"
    )
    assert row[1:6] == ("UTC", "ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PIPES_AS_CONCAT", "gigawatch", "tester@%", 0)
    assert row[0].startswith("8.0.")
    assert client.server_status & 512, "backslashes are letters: drivers quote by this"
    for statement in (
        "SET NAMES utf8mb4", "SET NAMES utf8mb4 COLLATE utf8mb4_unicode_ci", "SET autocommit=0", "SET sql_mode='ANSI'",
        "SET character_set_results = NULL", "SET SESSION TRANSACTION READ ONLY", "SET time_zone = '+00:00'",
        "SET net_write_timeout=600", "SET @@session.sql_auto_is_null = 0", "/*!40101 SET NAMES utf8 */", "BEGIN",
        "START TRANSACTION WITH CONSISTENT SNAPSHOT", "COMMIT", "ROLLBACK", "USE gigawatch", "USE `gigawatch`",
    ):  # fmt: skip
        assert ask(statement) == []
    assert ask("SHOW VARIABLES LIKE 'sql_mode'") == [
        ("sql_mode", "ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PIPES_AS_CONCAT")
    ]
    assert ask("SHOW VARIABLES WHERE Variable_name = 'time_zone' OR Value = 'x'") == [("time_zone", "UTC")]
    with pytest.raises(pymysql.MySQLError, match="all times are in UTC here"):
        ask("SET time_zone = 'America/New_York'")
    client.ping()
    client.select_db("information_schema")
    assert len(ask("SELECT * FROM schemata")) == 2


# ------------------------------------------------------------------------------------- pandas over SQLAlchemy


def test_pandas_reads_queries_parameters_and_whole_views(door: Door) -> None:
    engine = sqlalchemy.create_engine(f"mysql+pymysql://analyst@{door.address}/gigawatch")
    frame = pandas.read_sql("SELECT time, gpu, power_watts, xid FROM gpu ORDER BY time, gpu", engine)
    assert (len(frame), frame["time"].min()) == (240, pandas.Timestamp("2026-01-01"))
    assert frame["power_watts"].dtype == "float64"
    assert frame["xid"].isna().all()
    asked = sqlalchemy.text("SELECT count(*) AS n FROM queue WHERE queue = :queue AND time >= :since")
    known = pandas.read_sql(
        asked, engine, params={"queue": 'it\'s \\ "quoted"', "since": datetime(2026, 1, 1)}
    )
    assert known["n"][0] == 3
    assert len(pandas.read_sql_table("gpu", engine)) == 240
    inspector = sqlalchemy.inspect(engine)
    assert "gpu" in inspector.get_view_names()
    types = {column["name"]: str(column["type"]) for column in inspector.get_columns("billing")}
    assert types["BilledCost"] == "DECIMAL(38, 15)"
    assert types["time"] == "DATETIME"
    engine.dispose()


# --------------------------------------------------------------------------------------------- the mysql command


def mysql(door: Door, *arguments: str, input: str | None = None) -> subprocess.CompletedProcess[str]:
    command = shutil.which("mysql") or shutil.which("mariadb")
    if command is None:
        missing = "needs the mysql command: apt-get install --no-install-recommends default-mysql-client"
        pytest.fail(missing) if ON_CI else pytest.skip(missing)
    host, _, port = door.address.rpartition(":")
    return subprocess.run(
        [command, "--no-defaults", "-h", host, "-P", port, "--protocol=tcp", "-u", "noc", *arguments],
        input=input, capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip


def test_the_mysql_command_asks(door: Door) -> None:
    done = mysql(
        door,
        "--batch",
        "gigawatch",
        "-e",
        "SELECT sku, count(*) AS n FROM gpu GROUP BY sku; SHOW TABLES LIKE 'gpu';",
    )
    assert done.stdout.splitlines() == ["sku\tn", "gb300\t240", "Tables_in_gigawatch", "gpu"], done.stderr
    assert mysql(door, "-e", "status").stdout.count("8.0.36-gigawatch") == 1
    done = mysql(door, "-e", "SELECT * FROM gpus")
    assert done.returncode == 1
    assert "ERROR 1146 (42S02)" in done.stderr and "nearest: gpu" in done.stderr


def test_the_mysql_command_completes_names_and_shows_columns(door: Door) -> None:
    done = mysql(door, "--auto-rehash", "-t", "gigawatch", input="DESCRIBE standing;\nSELECT 7 DIV 2;\n\\s\n")
    assert done.returncode == 0, done.stderr
    assert "| clause " in done.stdout


def test_the_mysql_command_comes_in_with_password_and_tls(
    open_door: Callable[..., Door], certificate: tuple[Path, Path], users: Any
) -> None:
    file, passwords = users
    door = open_door(
        "--users", str(file), "--tls-cert", str(certificate[0]), "--tls-key", str(certificate[1])
    )
    secure = [
        "-u",
        "alice",
        f"-p{passwords['alice']}",
        f"--ssl-ca={certificate[0]}",
        "--ssl-verify-server-cert",
    ]
    done = mysql(door, *secure, "--batch", "--skip-column-names", "-e", "SELECT current_user()")
    assert done.stdout == "alice@%\n", done.stderr
    assert mysql(door, "-u", "alice", "-pwrong", "-e", "SELECT 1").returncode == 1


def test_a_client_that_knows_only_caching_sha2_comes_in(
    open_door: Callable[..., Door], door: Door, users: Any, tmp_path: Path
) -> None:
    file, passwords = users
    old = tmp_path / "old"
    old.write_text("".join(line.rpartition(":")[0] + "\n" for line in file.read_text().splitlines()))
    asked = [
        "--default-auth=caching_sha2_password",
        "--batch",
        "--skip-column-names",
        "-e",
        "SELECT current_user()",
    ]
    for users_file in (file, old):  # the old one has native passwords only: the client is asked to use that
        guarded = open_door("--users", str(users_file))
        done = mysql(guarded, "-u", "alice", f"-p{passwords['alice']}", *asked)
        assert done.stdout == "alice@%\n", done.stderr
        for wrong in ("-pwrong", f"-p{passwords['bob']}"):
            assert "Access denied" in mysql(guarded, "-u", "alice", wrong, *asked).stderr
        assert "Access denied" in mysql(guarded, "-u", "alice", *asked).stderr
    assert mysql(door, *asked).stdout == "noc@%\n"
    assert mysql(door, "-pany", *asked).stdout == "noc@%\n"


# ---------------------------------------------------------------------------------------- Grafana's driver, in Go


@pytest.fixture(scope="session")
def go_client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small program over go-sql-driver/mysql, built here; skipped where Go is not installed."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("needs Go 1.21 or newer, to build a client over the driver that Grafana uses")
    folder = tmp_path_factory.mktemp("go")
    for source in (Path(__file__).parent / "goclient").iterdir():
        shutil.copy(source, folder)
    program = folder / "goclient"
    done = subprocess.run([go, "build", "-o", str(program), "."], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return program


def test_grafanas_driver_asks_in_both_protocols_and_cancels(go_client: Path, door: Door) -> None:
    attacks = runpy.run_path(str(Path(__file__).with_name("test_attacks.py")))["INJECTIONS"]
    texts = json.dumps([text for text in attacks if text])
    done = subprocess.run(
        [str(go_client), door.address, GRAFANA, texts], capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout)
    assert said["grafana"] == [
        [T, 715.0],
        [T + 60, pytest.approx(745, abs=5)],
        [T + 120, pytest.approx(760, abs=5)],
    ]
    assert said["types"] == {"n": "BIGINT", "money": "DECIMAL", "at": "DATETIME", "ratio": "DOUBLE", "yes": "TINYINT",
                             "text": "VARCHAR", "none": "VARCHAR"}  # fmt: skip
    for protocol in ("text", "binary", "interpolated"):
        assert said[protocol] == [
            240,
            "2.123456789100000",
            "2026-01-01T00:00:00Z",
            0.5,
            1,
            'it\'s \\ "quoted"',
            None,
        ], protocol
    assert "injected" not in said, said["injected"]
    assert said["cancelled"] == "context deadline exceeded"
    assert said["after"] == 1
