"""The door under attack: whatever is asked, files stay as they are, secrets unread, and it goes on serving."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import psutil
import pymysql
import pytest

from pipeline.catalog import load
from pipeline.door import engine, execution, failover, functions, landlock, query_check
from pipeline.door.fair_queue import Who
from pipeline.serve.child import Door

Ask = Callable[..., list[tuple[Any, ...]]]
Call = Callable[..., pymysql.Connection]


@pytest.fixture(autouse=True, scope="module")
def unchanged(
    door: Door, published: Path, checksums: Callable[[], dict[str, str]], call: Call
) -> Iterator[None]:
    """After all attacks of this file: the same process, the same files, and no new one."""
    before, pid = checksums(), door.pid
    yield
    assert checksums() == before
    assert door.pid == pid
    with call(door) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM gpu")
        assert cursor.fetchone() == (240,)
    assert list(published.parent.iterdir()) == [published]


# One of every type of statement that DuckDB has; `{file}` is a published file.
STATEMENTS = {
    "INSERT": ["INSERT INTO gpu VALUES (1)", "INSERT INTO gpu SELECT * FROM gpu RETURNING *"],
    "UPDATE": ["UPDATE gpu SET sku = 'x'"],
    "DELETE": ["DELETE FROM gpu", "TRUNCATE gpu"],
    "CREATE": ["CREATE TABLE t (a INT)", "CREATE TEMP TABLE t AS SELECT 1", "CREATE OR REPLACE VIEW gpu AS SELECT 1",
               "CREATE MACRO m() AS 1", "CREATE SECRET s (TYPE s3)", "CREATE SCHEMA s", "CREATE TYPE t AS ENUM ('a')",
               "CREATE SEQUENCE s", "CREATE INDEX i ON gpu (sku)"],
    "CREATE_FUNC": ["CREATE FUNCTION f(x) AS x"],
    "DROP": ["DROP VIEW gpu", "DROP SCHEMA mysql_catalog CASCADE"],
    "ALTER": ["ALTER VIEW gpu RENAME TO g", "COMMENT ON VIEW gpu IS 'x'"],
    "COPY": ["COPY (SELECT 1) TO '{file}'", "COPY gpu TO '{file}' (FORMAT parquet)", "COPY gpu FROM '{file}'"],
    "COPY_DATABASE": ["COPY FROM DATABASE gigawatch TO memory"],
    "EXPORT": ["EXPORT DATABASE '{data}/history/x'"],
    "ATTACH": ["ATTACH '{data}/ledger.duckdb' AS l", "ATTACH ':memory:' AS m", "ATTACH 'x' (TYPE sqlite)"],
    "DETACH": ["DETACH gigawatch"],
    "EXPLAIN": ["EXPLAIN SELECT 1", "EXPLAIN ANALYZE SELECT 1", "EXPLAIN ANALYZE COPY (SELECT 1) TO '{file}'",
                "EXPLAIN (FORMAT json) SELECT 1", "EXPLAIN COPY (SELECT 1) TO '{file}'"],
    "SET": ["SET GLOBAL memory_limit = '99GB'", "RESET GLOBAL threads"],
    "VARIABLE_SET": ["SET VARIABLE a = 1"],
    "PRAGMA": ["PRAGMA database_list", "PRAGMA enable_profiling", "PRAGMA import_database('x')"],
    "CALL": ["CALL duckdb_settings()", "CALL pragma_version()", "CHECKPOINT", "FORCE CHECKPOINT"],
    "LOAD": ["LOAD httpfs", "INSTALL httpfs", "LOAD '{data}/x.duckdb_extension'", "UPDATE EXTENSIONS"],
    "PREPARE": ["PREPARE p AS SELECT 1"],
    "EXECUTE": ["EXECUTE p"],
    "VACUUM": ["VACUUM"],
    "ANALYZE": ["ANALYZE"],
    "MERGE_INTO": ["MERGE INTO gpu USING gpu AS o ON false WHEN NOT MATCHED THEN INSERT VALUES (1)"],
}  # fmt: skip
NOT_REACHED = {
    "SELECT": "it is what is served", "MULTI": "PIVOT, in a test of its own",
    "TRANSACTION": "BEGIN and COMMIT are answered, and do nothing",
    "INVALID": "no statement", "UNUSED": "no statement", "LOGICAL_PLAN": "has no text", "EXTENSION": "has no extension",
    "RELATION": "has no text",
}  # fmt: skip


def filled(sql: str, published: Path) -> str:
    file = next(published.glob("history/telemetry.gpu/*/*/*.parquet"))
    return sql.replace("{file}", str(file)).replace("{data}", str(published))


def refused(ask: Ask, sql: str) -> str:
    with pytest.raises(pymysql.MySQLError) as raised:
        ask(sql)
    assert raised.value.args[0] not in {2006, 2013}, "the connection broke"
    return str(raised.value.args[1])


def test_every_type_of_statement_that_duckdb_has_is_among_these() -> None:
    known = {name for name in dir(duckdb.StatementType) if name.isupper()}
    assert known - set(STATEMENTS) - set(NOT_REACHED) == set()


@pytest.mark.parametrize("sql", [sql for forms in STATEMENTS.values() for sql in forms])
def test_a_statement_that_is_no_select_is_refused(ask: Ask, published: Path, sql: str) -> None:
    assert "expected" in refused(ask, filled(sql, published))


@pytest.mark.parametrize(
    "sql",
    [
        "WITH a AS (COPY (SELECT 1) TO '{file}') SELECT 1",
        "WITH a AS (COPY (SELECT 1) TO '{file}') SELECT * FROM a",
        "WITH a AS MATERIALIZED (COPY (SELECT 1) TO '{file}') SELECT (SELECT count(*) FROM a)",
        "SELECT * FROM (WITH a AS (COPY (SELECT 1) TO '{file}') SELECT * FROM a)",
        "SELECT 1 WHERE EXISTS (WITH a AS (COPY (SELECT 1) TO '{file}') FROM a)",
        "WITH a AS (INSERT INTO gpu SELECT * FROM gpu RETURNING *) SELECT * FROM a",
        "WITH a AS (DELETE FROM gpu RETURNING *) SELECT * FROM a",
        "WITH a AS (UPDATE gpu SET sku = 'x' RETURNING *) SELECT * FROM a",
        "/* SELECT */ COPY (SELECT 1) TO '{file}'",
        "-- SELECT\nCOPY (SELECT 1) TO '{file}'",
        "/*! COPY (SELECT 1) TO '{file}' */",
        "/*!40101 SELECT 1 */; COPY (SELECT 1) TO '{file}'",
        "COPY (SELECT 1 DIV 1) TO '{file}'",
        "COPY (SELECT `a`) TO '{file}'",
        "COPY\n\t(SELECT 1)\nTO '{file}'",
        "(COPY (SELECT 1) TO '{file}')",
        "DESCRIBE COPY (SELECT 1) TO '{file}'",
        "SUMMARIZE COPY (SELECT 1) TO '{file}'",
        "SHOW COPY (SELECT 1) TO '{file}'",
        "SELECT 1 DIV 1; COPY (SELECT 1) TO '{file}'",
        "SELECT 1; COPY (SELECT 1) TO '{file}'",
        "SELECT 1;; SELECT 2",
        "SELECT 1 INTO OUTFILE '{file}'",
        "SELECT * FROM gpu INTO OUTFILE '{file}'",
        "SELECT 1 INTO DUMPFILE '{file}'",
        "LOAD DATA INFILE '{file}' INTO TABLE gpu",
        "LOAD DATA LOCAL INFILE '{file}' INTO TABLE gpu",
        "SELECT LOAD_FILE('{data}/secret.txt')",
        "USE gigawatch; COPY (SELECT 1) TO '{file}'",
        "SET NAMES utf8; COPY (SELECT 1) TO '{file}'",
        "SHOW TABLES; COPY (SELECT 1) TO '{file}'",
        "SHOW TABLES WHERE 1 = (WITH a AS (COPY (SELECT 1) TO '{file}') SELECT 1)",
        "DESCRIBE `gpu'; COPY (SELECT 1) TO '{file}'; --`; SELECT 1",
        "WITH a AS (SELECT 1) INSERT INTO gpu SELECT * FROM a",
        "CREATE TABLE x AS WITH a AS (SELECT 1 DIV 1) SELECT * FROM a",
        "HANDLER gpu OPEN", "DO 1", "LOCK TABLES gpu WRITE", "FLUSH TABLES", "GRANT ALL ON *.* TO x", "SHUTDOWN",
        "PREPARE s FROM 'COPY (SELECT 1) TO ''{file}'''", "RENAME TABLE gpu TO g", "REPLACE INTO gpu VALUES (1)",
        "INSTALL PLUGIN x SONAME 'y.so'", "CALL x()", "SET GLOBAL x = 1", "SET PERSIST x = 1", "SET @@global.x = 1",
        "SET PASSWORD = 'x'",
    ],
)  # fmt: skip
def test_a_disguise_does_not_help(ask: Ask, published: Path, sql: str) -> None:
    refused(ask, filled(sql, published))


@pytest.mark.parametrize(
    "sql",
    [
        *(f"SELECT * FROM {function}('{{data}}/secret.txt')" for function in (
            "read_text", "read_blob", "read_csv", "read_csv_auto", "sniff_csv", "read_json", "read_json_objects",
            "read_ndjson", "read_parquet", "parquet_scan", "parquet_metadata", "parquet_schema",
            "parquet_file_metadata", "parquet_kv_metadata", "read_duckdb", "glob", "read_single_csv_file",
        )),
        "SELECT * FROM read_text('{data}/history/../secret.txt')",
        "SELECT * FROM read_parquet('{file}')",
        "SELECT * FROM READ_TEXT('/etc/passwd')", 'SELECT * FROM "read_text"(\'/etc/passwd\')',
        "SELECT * FROM main.read_text('/etc/passwd')", "SELECT * FROM system.main.read_text('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'", "FROM '{file}'", 'SELECT * FROM "{file}"', "SELECT * FROM `{file}`",
        "SELECT * FROM 'https://127.0.0.1:1/x.parquet'", "SELECT * FROM 's3://a/b.parquet'",
        "SELECT * FROM query('SELECT 1')", "SELECT * FROM query_table('gpu')",
        "SELECT * FROM query('COPY (SELECT 1) TO ''{file}''')",
        "SELECT * FROM duckdb_settings()", "SELECT * FROM duckdb_secrets()", "SELECT * FROM duckdb_variables()",
        "SELECT * FROM duckdb_extensions()", "SELECT * FROM duckdb_logs()", "SELECT * FROM duckdb_databases()",
        "SELECT * FROM pragma_database_list", "SELECT * FROM which_secret('s3://a', 's3')",
        "SELECT * FROM duckdb_prepared_statements()", "SELECT * FROM duckdb_temporary_files()",
        "SELECT * FROM enable_logging()", "SELECT * FROM checkpoint()", "SELECT * FROM force_checkpoint()",
        "SELECT getenv('HOME')", "SELECT current_setting('temp_directory')", "SELECT getvariable('x')",
        "SELECT (SELECT current_setting('threads'))", "SELECT list_transform([1], x -> current_setting('threads'))",
        "SELECT * FROM gpu WHERE sku = current_setting('threads')", "SELECT 1 ORDER BY current_setting('threads')",
        "SELECT * FROM arrow_scan(1, 2, 3)", "SELECT * FROM pandas_scan(94000000000)",
        "SELECT * FROM python_map_function(1)", "SELECT * FROM arrow_scan_dumb(1, 2, 3)",
        "SELECT * FROM seq_scan('gpu')", "SELECT * FROM test_all_types()",
        "SELECT * FROM json_execute_serialized_sql('{}')", "SELECT write_log('x')", "SELECT sleep_ms(1000)",
        "SELECT pg_sleep(10)", "SELECT * FROM LATERAL (SELECT * FROM read_text('/etc/passwd'))",
        "SELECT * FROM gpu, LATERAL (SELECT * FROM read_text(gpu.sku))",
        "SELECT (SELECT content FROM read_text('/etc/passwd')) DIV 1",
        "SHOW TABLES WHERE (SELECT content FROM read_text('/etc/passwd')) = 'x'",
        "SELECT `content` FROM read_text('/etc/passwd') LIMIT 0, 1",
        "SELECT @@version, content FROM read_text('/etc/passwd')",
        "SHOW DATABASES; SELECT * FROM read_text('/etc/passwd')",
    ],
)  # fmt: skip
def test_files_environment_settings_and_secrets_are_not_told(ask: Ask, published: Path, sql: str) -> None:
    said = refused(ask, filled(sql, published))
    assert "do not read me" not in said and "root:" not in said


def test_python_variables_of_the_door_are_no_tables(ask: Ask) -> None:
    for name in ("sql", "con", "self", "options", "parameters"):
        assert "does not exist" in refused(ask, f"SELECT * FROM {name}")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT repeat('x', 2000000000)",
        "SELECT repeat('x', 200000000) FROM range(100)",
        "SELECT length(repeat(repeat('x', 1000000), 1000000))",
        "SELECT list_reduce([repeat('x', 100000000) FOR i IN range(100)], (a, b) -> a || b)",
        "SELECT range(1000000000000)",
        "SELECT list(i) FROM range(10000000000) t(i)",
        "SELECT string_agg(repeat('x', 10000), '') FROM range(10000000)",
        "SELECT array_agg(DISTINCT hash(i)::VARCHAR || repeat('x', 1000)) FROM range(100000000) t(i)",
        "SELECT rpad('x', 2000000000, 'y')",
        "SELECT printf('%2000000000d', 1)", "SELECT format('{:>2000000000}', 1)",
        "SELECT * FROM range(100000000) a(i) ORDER BY hash(i)::VARCHAR || repeat('x', 500) LIMIT 10000000",
        "WITH RECURSIVE r AS (SELECT 'x' AS s UNION ALL SELECT s || s FROM r) SELECT max(length(s)) FROM r",
    ],
)  # fmt: skip
def test_a_memory_bomb_is_refused_and_the_door_stays_small(door: Door, call: Call, sql: str) -> None:
    process = psutil.Process(door.pid)
    with call(door) as connection, connection.cursor() as cursor:
        cursor.execute("SET max_execution_time = 15000")
        with pytest.raises(pymysql.MySQLError) as raised:
            cursor.execute(sql)
        assert raised.value.args[0] not in {2006, 2013}
        assert process.memory_info().rss < 1500 * 2**20
        cursor.execute("SELECT 1")


def test_what_the_bombs_took_is_given_back(door: Door, ask: Ask) -> None:
    """By then the others have run; kept addresses used up the limit, and ordinary questions found no memory."""
    before = psutil.Process(door.pid).memory_info().vms
    assert before - psutil.Process(door.pid).memory_info().rss < 1300 * 2**20
    assert ask("SELECT count(DISTINCT hash(i)) > 0 FROM range(3000000) t(i)") == [(1,)]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) FROM range(1000000000000) t(i) WHERE hash(i) = 1",
        "SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE hash(a.range, b.range) = 1",
        "WITH RECURSIVE r AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM r) SELECT max(i) FROM r",
        "SELECT max(md5(i::VARCHAR)) FROM range(100000000000) t(i)",
        "SELECT sum(x) FROM (SELECT unnest(range(100000)) AS x FROM range(100000000))",
        "SELECT max(regexp_replace(repeat('a', 1000) || i, '(a*)*b', 'c')) FROM range(100000000) t(i)",
        "SELECT i FROM range(1000000000000) t(i) WHERE hash(i) = 1",
    ],
)
def test_a_time_bomb_is_ended_by_its_deadline_and_leaves_no_work_behind(
    door: Door, call: Call, sql: str
) -> None:
    with call(door) as connection, connection.cursor() as cursor:
        cursor.execute("SET max_execution_time = 500")
        with pytest.raises(pymysql.MySQLError) as raised:
            cursor.execute(sql)
        assert raised.value.args[0] == 3024
        cursor.execute("SELECT 1")
    assert_idle(door)


def assert_idle(door: Door) -> None:
    """The door comes to rest: a question that goes on in silence would keep a core busy for ever."""
    process = psutil.Process(door.pid)
    for _ in range(100):
        before = sum(process.cpu_times()[:2])
        time.sleep(0.2)
        if sum(process.cpu_times()[:2]) - before < 0.1:
            return
    pytest.fail("the door still works on something")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1 DIV 1 FROM a " + "JOIN b " * 40,
        "SELECT " + "(" * 5000 + "1" + ")" * 5000 + " DIV 1",
        "SELECT 1 DIV " + "~" * 20000 + "1",
        "SHOW TABLES WHERE " + "NOT " * 10000 + "1",
        "SELECT " + "CASE WHEN 1 THEN " * 2000 + "1" + " END" * 2000 + " DIV 1",
        "SELECT 1" + " UNION ALL SELECT 1" * 3000 + " DIV 1 FROM",
        "SET x = " + "(" * 10000,
        "SELECT '" + "?" * 60000 + "' DIV 1 FROM",
    ],
)
def test_a_text_that_is_hard_to_read_holds_nobody_up(door: Door, call: Call, sql: str) -> None:
    with call(door) as bomber, call(door) as other:
        with pytest.raises(pymysql.MySQLError) as raised, bomber.cursor() as cursor:
            cursor.execute(sql)
        assert raised.value.args[0] not in {2006, 2013}
        with other.cursor() as cursor:
            cursor.execute("SELECT 7 DIV 2")
            assert cursor.fetchone() == (3,)


def test_a_statement_of_more_bytes_than_served_is_refused_in_words(ask: Ask) -> None:
    assert "more than" in refused(ask, "SELECT '" + "x" * 2_000_000 + "'")
    assert "a question of" in refused(ask, "SELECT '" + "x" * 65_600 + "'")
    assert ask("SELECT 1") == [(1,)]


def test_temporary_files_are_bounded(open_door: Callable[..., Door], call: Call) -> None:
    door = open_door("--memory-limit", "100MB", "--temp-limit", "50MB")
    with call(door) as connection, connection.cursor() as cursor, pytest.raises(pymysql.MySQLError) as raised:
        cursor.execute("SELECT i, md5(i::VARCHAR) AS s FROM range(100000000) t(i) ORDER BY hash(i), s")
    assert raised.value.args[0] == 1041
    assert "max_temp_directory_size" in str(raised.value)
    assert_idle(door)


def test_a_pivot_that_needs_a_type_of_its_own_is_told_how_to_do_without(ask: Ask) -> None:
    assert "name them: PIVOT" in refused(ask, "PIVOT gpu ON sku USING count(*)")
    assert ask("PIVOT (SELECT sku FROM gpu) ON sku IN ('gb300') USING count(*)") == [(240,)]


INJECTIONS = [
    "x' or '1'='1", "x\\' or 1=1 -- ", "\\", "'", "''", '"', "`", "x'; COPY (SELECT 1) TO 'y'; --", "\0", "%", "?", "$1",
    "a\\'b", "\\\\'", "'\\", "\x1a\n\r\t", "é\U0001f600'", "/* x", "-- x", "') or ('1'='1",
]  # fmt: skip


@pytest.mark.parametrize("text", INJECTIONS)
def test_a_quoted_text_comes_back_as_it_went_and_matches_nothing_else(ask: Ask, text: str) -> None:
    assert ask("SELECT %s, length(%s)", (text, text)) == [(text, len(text))]
    assert ask("SELECT count(*) FROM gpu WHERE sku = %s", (text,)) == [(0,)]
    assert ask("SELECT count(*) DIV 1 FROM gpu WHERE sku = %s", (text,)) == [(0,)]


def test_backslashes_are_letters_and_double_quotes_are_names(ask: Ask) -> None:
    assert ask("SELECT 'a\\', 'b\\'") == [("a\\", "b\\")]
    assert ask("SELECT 'a\\', 7 DIV 2") == [("a\\", 3)]
    assert ask('SELECT DISTINCT "queue" FROM queue') == [('it\'s \\ "quoted"',)]
    assert ask("SELECT DISTINCT `queue` FROM queue WHERE `queue` = 'it''s \\ \"quoted\"'") != []
    with pytest.raises(pymysql.MySQLError, match="azure"):
        ask('SELECT count(*) FROM gpu WHERE provider = "azure"')


def test_a_kill_is_for_ones_own_questions_only(
    open_door: Callable[..., Door], call: Call, users: Any
) -> None:
    file, passwords = users
    door = open_door("--users", str(file))
    alice = [call(door, user="alice", password=passwords["alice"]) for _ in range(2)]
    bob = call(door, user="bob", password=passwords["bob"])
    ended: list[Any] = []

    def long() -> None:
        with alice[0].cursor() as cursor:
            try:
                cursor.execute("SELECT count(*) FROM range(1000000000000) t(i) WHERE hash(i) = 1")
            except pymysql.MySQLError as error:
                ended.append(error.args[0])

    with alice[0].cursor() as cursor:
        cursor.execute("SELECT CONNECTION_ID()")
        number = cursor.fetchone()[0]
    worker = threading.Thread(target=long)
    worker.start()
    with bob.cursor() as cursor, pytest.raises(pymysql.MySQLError, match="another user's"):
        cursor.execute(f"KILL QUERY {number}")
    with alice[1].cursor() as cursor:
        while worker.is_alive():
            cursor.execute(f"KILL QUERY {number}")
            worker.join(0.1)
    assert ended == [1317]
    with alice[0].cursor() as cursor:
        cursor.execute("SELECT 1")
    assert_idle(door)


def test_a_client_that_hangs_up_ends_its_question(door: Door, call: Call) -> None:
    connection = call(door)
    connection._execute_command(3, "SELECT count(*) FROM range(1000000000000) t(i) WHERE hash(i) = 1")
    connection._force_close()
    assert_idle(door)


def test_a_client_that_does_not_read_is_cut_off(open_door: Callable[..., Door], call: Call) -> None:
    door = open_door("--timeout", "2")
    connection = call(door)
    connection._execute_command(3, "SELECT repeat('x', 10000) FROM range(100000)")
    with call(door) as other, other.cursor() as cursor:
        cursor.execute("SELECT 1")
    port = connection._sock.getsockname()[1]
    while any(one.raddr and one.raddr.port == port for one in psutil.Process(door.pid).net_connections()):
        time.sleep(0.1)  # to read sooner would be to read in time
    assert_idle(door)
    with pytest.raises(pymysql.MySQLError):
        connection._read_query_result()
        list(connection._result.rows)


def test_a_locked_duckdb_that_reads_back_otherwise_is_not_served(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "data").mkdir()
    monkeypatch.setattr(engine, "_directories", lambda data, catalog: ["/"])
    (tmp_path / "door").mkdir()
    with pytest.raises(Exception, match=r"the locked DuckDB still did this: SELECT \* FROM read_text"):
        engine.Engine(
            tmp_path / "data", load(), tmp_path / "door", memory_limit="100MB", temp_limit="1GB", threads=1
        )


@pytest.fixture(scope="module")
def fenced(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skips where the kernel has no Landlock; a thread that has been fenced in stays so, so it is one of its own."""
    with ThreadPoolExecutor(1) as one:
        if not one.submit(landlock.fence, tmp_path_factory.mktemp("fence")).result():
            pytest.skip("needs a Linux kernel with Landlock")


def test_behind_check_and_settings_the_kernel_keeps_the_files(
    fenced: None, published: Path, tmp_path: Path, checksums: Callable[[], dict[str, str]]
) -> None:
    """An open DuckDB, made where questions run, asked for the worst."""
    before = checksums()
    file = next(published.glob("history/telemetry.gpu/*/*/*.parquet"))

    def attempt() -> list[str]:
        assert landlock.fence(tmp_path)
        con, failed = duckdb.connect(), []
        for sql in (f"COPY (SELECT 1) TO '{file}'", f"COPY (SELECT 1) TO '{file.parent}/new.parquet'",
                    f"EXPORT DATABASE '{published}/history/x'", f"ATTACH '{published}/x.duckdb' AS x"):  # fmt: skip
            with pytest.raises(duckdb.Error) as raised:
                con.execute(sql)
            failed.append(str(raised.value))
        for work in (
            file.unlink,
            lambda: file.open("ab"),
            lambda: os.truncate(file, 1),
            lambda: file.rename(tmp_path / "x"),
        ):
            with pytest.raises(OSError):
                work()
        con.execute(f"COPY (SELECT 1) TO '{tmp_path}/ours.parquet'")
        assert con.execute(f"SELECT count(*) FROM '{file}'").fetchone() == (240,)
        return failed

    with ThreadPoolExecutor(1) as one:
        assert len(one.submit(attempt).result()) == 4
    assert checksums() == before
    (tmp_path.parent / f"{tmp_path.name}-outside").touch()


async def desk_thread_writes(published: Path, folder: Path, outside: Path) -> None:
    engines = failover.Engines(
        lambda home: engine.Engine(
            published, load(), home, memory_limit="100MB", temp_limit="1GB", threads=1
        ),
        folder,
    )
    scheduler = execution.QueryScheduler(
        engines, execution.QueryLimits(), lambda: landlock.fence(folder), lambda why: None
    )
    running = scheduler.query(Who("me", "127.0.0.1"))
    async with scheduler.place(running):
        with pytest.raises(PermissionError):
            await running.step(lambda: outside.write_text("x"))
        await running.step(lambda: (folder / "inside").write_text("x"))
    scheduler.close()
    engines.close()


def test_the_threads_that_questions_run_on_are_fenced_in(
    fenced: None, published: Path, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    asyncio.run(desk_thread_writes(published, tmp_path / "folder", tmp_path / "outside"))
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize("name", ["plain", "all [of] it *", "it's"])
def test_a_history_behind_links_and_odd_names_is_served(tmp_path: Path, published: Path, name: str) -> None:
    real, data, home = tmp_path / "real" / name, tmp_path / f"link {name}", tmp_path / "door"
    real.mkdir(parents=True)
    home.mkdir()
    for part in published.iterdir():
        (real / part.name).symlink_to(part)
    data.symlink_to(real)
    made = engine.Engine(data, load(), home, memory_limit="100MB", temp_limit="1GB", threads=1)
    question = made.question()
    question.begin("SELECT (SELECT count(*) FROM gpu), (SELECT sum(samples) FROM gpu_1h)")
    assert question.more() == [(240, 240)]
    made.close()


@pytest.fixture(scope="module")
def locked(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[engine.Engine]:
    made = engine.Engine(
        published,
        load(),
        tmp_path_factory.mktemp("engine"),
        memory_limit="100MB",
        temp_limit="1GB",
        threads=1,
    )
    yield made
    made.close()


@pytest.mark.parametrize(
    "sql",
    ["COPY (SELECT 1) TO '{data}/x'", "CREATE TABLE t AS SELECT 1", "DROP VIEW gpu", "ATTACH '{data}/x.db' AS x",
     "ATTACH ':memory:' AS m", "EXPORT DATABASE '{data}/x'", "LOAD httpfs", "INSTALL httpfs", "SET threads = 4",
     "SELECT * FROM read_text('{data}/secret.txt')", "SELECT * FROM glob('{data}/*')", "RESET memory_limit"],
)  # fmt: skip
def test_behind_the_check_the_settings_hold_by_themselves(
    locked: engine.Engine, published: Path, sql: str
) -> None:
    with pytest.raises(duckdb.Error):
        locked.question()._con.execute(filled(sql, published))


def test_a_function_of_tables_that_duckdb_adds_later_is_refused_until_somebody_has_looked() -> None:
    con = duckdb.connect()
    known = {
        row[0]
        for row in con.execute(
            "SELECT DISTINCT function_name FROM duckdb_functions() WHERE function_type = 'table'"
        ).fetchall()
    }
    assert len(known) > 90
    for name in sorted(known - functions.TABLES):
        with pytest.raises(Exception, match="is not served"):
            query_check.check(con, f'SELECT * FROM "{name}"(1)')


@pytest.mark.parametrize(
    ("word", "statement"),
    [
        ("COPY", "COPY (SELECT 1) TO 'x.csv'"),
        ("INSERT", "INSERT INTO t SELECT 1 RETURNING *"),
        ("DELETE", "DELETE FROM t RETURNING *"),
        ("UPDATE", "UPDATE t SET a = 1 RETURNING *"),
    ],
)
def test_the_check_alone_finds_a_statement_inside_a_select(word: str, statement: str) -> None:
    con = duckdb.connect()
    sql = f"SELECT * FROM (WITH w AS ({statement}) SELECT * FROM w)"
    assert [s.type for s in con.extract_statements(sql)] == [duckdb.StatementType.SELECT], "that is the trap"
    with pytest.raises(Exception, match=f"found {word} inside the statement"):
        query_check.check(con, sql)
