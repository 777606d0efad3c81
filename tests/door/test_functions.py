"""The functions of the door: those that are listed exist and break nothing, the others are refused; engines come back."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import psutil
import pymysql
import pytest

from pipeline.catalog import load
from pipeline.door import execution, functions, query_check
from pipeline.door.engine import Engine
from pipeline.door.failover import Engines
from pipeline.door.fair_queue import Places, Who
from pipeline.door.mysql_catalog import MACROS
from pipeline.errors import QueryError
from tests.patience import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
KILLER = """SELECT "IS DISTINCT FROM"(uuid(), 0)"""
ME = Who("me", "127.0.0.1")


@pytest.fixture(scope="module")
def known() -> dict[str, set[str]]:
    """DuckDB's functions and our macros: name → types."""
    con = duckdb.connect()
    for macro in MACROS:
        con.execute(f"CREATE MACRO {macro}")
    found: dict[str, set[str]] = {}
    for name, kind in con.execute("SELECT function_name, function_type FROM duckdb_functions()").fetchall():
        found.setdefault(name.lower(), set()).add(kind)
    return found


def test_every_listed_function_exists_and_is_of_its_kind(known: dict[str, set[str]]) -> None:
    assert {
        name for name in functions.AGGREGATES if not known.get(name, set()) & {"aggregate", "macro"}
    } == set()
    assert {name for name in functions.WINDOWS if "window" not in known.get(name, set())} == set()
    assert {
        name for name in functions.TABLES if not known.get(name, set()) & {"table", "table_macro"}
    } == set()
    scalars = {name for name in functions.SCALARS if not known.get(name, set()) & {"scalar", "macro"}}
    assert scalars == {"if", "row", "nullif", "unnest"} - known.keys() | (scalars & {"unnest"}), scalars
    assert {text.partition("(")[0] for text in MACROS} <= functions.SCALARS


def test_a_function_that_is_not_listed_is_refused_in_every_form(known: dict[str, set[str]]) -> None:
    con = duckdb.connect()
    others = [name for name in known if name not in functions.CALLED | functions.TABLES]
    assert len(others) > 400
    for name in others:
        for sql in (
            f'SELECT "{name}"(1, 2)',
            f'SELECT "{name}"(1) OVER ()',
            f'SELECT main."{name}"(1)',
            f'SELECT [1]."{name}"()',
        ):
            with pytest.raises((QueryError, duckdb.ParserException), match=r"is not served|syntax|Parser"):
                query_check.check(con, sql)


@pytest.mark.parametrize(
    "sql",
    [
        KILLER, 'SELECT "+"(1, 2)', 'SELECT "="(1::UTINYINT, true)', "SELECT list_resize([1]::VARIANT, 0)",
        "SELECT array_resize([1], 3)", "SELECT 1::VARIANT", "SELECT CAST(NULL AS STRUCT(a VARIANT))",
        "SELECT mode(NULL::INT[] ORDER BY i) FROM range(3) t(i)", "SELECT mode(i ORDER BY i) OVER () FROM range(3) t(i)",
        "SELECT percentile_cont(NULL::DOUBLE[]) WITHIN GROUP (ORDER BY i) FROM range(3) t(i)",
        "SELECT to_json(0.1::DECIMAL(18, 18))", "SELECT reservoir_quantile(1, NULL::DOUBLE[])",
        "SELECT system.json_type((0.1::DECIMAL(18, 18))::JSON)", "SELECT system.main.json_keys((0.1::DECIMAL(18, 18))::JSON)",
        "SELECT list_aggregate([1], 'combine_aggr')", "SELECT [1].list_aggr('sum')",
        "SELECT range(TIMESTAMP '290309-12-22 (BC) 00:00:00', now()::TIMESTAMP, INTERVAL 1 MICROSECOND)",
        "SELECT generate_series(t, t, '1 microsecond') FROM (SELECT now()::TIMESTAMP AS t)",
        "SELECT t.range(t, INTERVAL 1 MICROSECOND) FROM (SELECT now()::TIMESTAMP AS t)",
        "SELECT json_extract((0.1::DECIMAL(18, 18))::JSON, 0)", "SELECT (0.1::DECIMAL(18, 18))::JSON -> 0",
        "SELECT (0.1::DECIMAL(18, 18))::JSON ->> 0", "SELECT list_transform(a -> 0, lambda x: x) FROM (SELECT '{}'::JSON AS a)",
    ],
)  # fmt: skip
def test_what_ends_a_database_or_never_ends_is_refused(ask: Callable[..., list[Any]], sql: str) -> None:
    with pytest.raises(pymysql.MySQLError, match=r"is not served|no number|no text") as raised:
        ask(sql)
    assert raised.value.args[0] in {1290, 1305}
    assert ask("SELECT 1") == [(1,)]


@pytest.mark.parametrize(
    ("sql", "row"),
    [
        ("SELECT 1 + 2, -i, 7 % 4, 7 // 2, 2 ** 3, 5 & 4, 1 << 3, ~1, 'a' || 'b' FROM range(1) t(i)",
         (3, 0, 3, 3, 8, 4, 8, -2, "ab")),
        ("SELECT 'ab' LIKE 'a%', 'ab' ILIKE 'A_', 'a%' LIKE 'a!%' ESCAPE '!', 'ab' SIMILAR TO 'a.', 'ab' ^@ 'a'",
         (1, 1, 1, 1, 1)),
        ("SELECT 1 IS DISTINCT FROM 2, 1 IN (1, 2), 2 BETWEEN 1 AND 3, [1] && [1], 1 = 1, NOT true",
         (1, 1, 1, 1, 1, 0)),
        ("SELECT EXTRACT(year FROM DATE '2026-01-02'), [x * 2 FOR x IN [1, 2] IF x > 1], {'a': 1}.a, [4, 5][2], (1, 2)[1]",
         (2026, "[4]", 1, 5, 1)),
        ("SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY i), mode() WITHIN GROUP (ORDER BY i) FROM range(3) t(i)",
         (1.0, 0)),
        ("SELECT sum(i) OVER (ORDER BY i), rank() OVER (ORDER BY i), lag(i) OVER (ORDER BY i) FROM range(1) t(i)",
         (0, 1, None)),
        ("SELECT quantile_cont(i, [0.25, 0.5]), len(range(1, 5, 2)), len(generate_series(3)) FROM range(5) t(i)",
         ("[1.0, 2.0]", 2, 4)),
        ("SELECT count(*) FROM generate_series(TIMESTAMP '2026-01-01', TIMESTAMP '2026-01-02', INTERVAL 1 HOUR)",
         (25,)),
        ("SELECT json_type('[1]'), json_keys('{\"a\": 1}'), json_array_length('[1]'::JSON), json_contains('[1]', '1')",
         ("ARRAY", '["a"]', 1, 1)),
        ("SELECT json_merge_patch('{\"a\": 1, \"b\": 2}'::JSON, '{\"b\": null}')",
         ('{"a":1}',)),
        ("SELECT list_transform([1], lambda x: 0), list_reduce([1, 2], lambda x, y: x + y)",
         ("[0]", 3)),
        ("SELECT '{\"a\": [1]}'::JSON -> 'a', '{\"a\": 1}' ->> '$.a', TRY_CAST('x' AS INT), COALESCE(NULL, 1), IF(1 > 0, 2, 3)",
         ("[1]", "1", None, 1, 2)),
        ("SELECT epoch(INTERVAL 1 DAY), DATE '2026-01-01' + INTERVAL 1 MONTH",
         (86400.0, None)),
    ],
)  # fmt: skip
def test_operators_casts_and_what_the_parser_makes_of_them_are_served(
    ask: Callable[..., list[Any]], sql: str, row: tuple[Any, ...]
) -> None:
    [found] = ask(sql)
    assert [a for a, b in zip(found, row, strict=True) if b is not None] == [b for b in row if b is not None]


@pytest.mark.timeout(300)
def test_no_listed_function_ends_the_database_or_the_process_whatever_its_arguments() -> None:
    seed, each = os.environ.get("GIGAWATCH_TEST_HUNT", "1 5").split()
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("function_hunt.py")), seed, each],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout == "end\n", f"{done.stdout}\nthe last: {done.stderr.splitlines()[-1:]}"
    assert len(done.stderr.splitlines()) > 2_000


# ------------------------------------------------------------------------------------------------ engines come back


@pytest.fixture
def engines(published: Path, tmp_path: Path) -> Iterator[Engines]:
    types = load()
    made = Engines(
        lambda folder: Engine(published, types, folder, memory_limit="100MB", temp_limit="1GB", threads=1),
        tmp_path,
    )
    yield made
    made.close()


def scheduler_of(engines: Engines, given_up: list[str], **limits: Any) -> execution.QueryScheduler:
    return execution.QueryScheduler(engines, execution.QueryLimits(**limits), lambda: None, given_up.append)


async def asked(scheduler: execution.QueryScheduler, sql: str) -> list[Any]:
    running = scheduler.query(ME)
    async with scheduler.place(running):
        await running.step(lambda: running.question.begin(sql))
        return await running.step(lambda: list(running.question.more()))


def test_an_engine_that_has_died_is_made_anew_and_what_runs_ends_there(
    engines: Engines, tmp_path: Path
) -> None:
    async def main() -> None:
        scheduler = scheduler_of(engines, given_up := [])
        running = asyncio.ensure_future(
            asked(scheduler, "SELECT count(*) FROM range(300000000) t(i) WHERE hash(i) = 1")
        )
        early = scheduler.query(ME)  # has its engine, and asks when that has died
        await asyncio.sleep(0.2)
        killer = scheduler.query(ME)
        with pytest.raises(QueryError) as raised:
            async with scheduler.place(killer):
                await killer.step(lambda: broken(killer.question))
        assert not isinstance(raised.value, execution.EngineRestarted)
        with pytest.raises(execution.EngineRestarted):
            async with scheduler.place(early):
                await early.step(lambda: early.question.begin("SELECT 1"))
        assert await asked(scheduler, "SELECT count(*) FROM gpu") == [(240,)]
        assert await running == [(0,)]
        assert [folder.name for folder in tmp_path.iterdir()] == ["2"], "the first one is put away"
        assert given_up == []
        scheduler.close()

    asyncio.run(main())


def broken(question: Any) -> None:
    """What `begin` does with a question that the check would refuse."""
    try:
        question._con.execute(KILLER)
    except duckdb.Error as error:
        raise QueryError(str(error)) from error


def test_an_engine_that_stays_full_is_made_anew(engines: Engines, tmp_path: Path) -> None:
    async def main() -> None:
        scheduler = scheduler_of(engines, [])
        holder = scheduler.query(ME).question  # nobody knows of it any more, and it keeps what it has
        engines._asked[holder.engine] -= 1
        holder._con.execute("SELECT list(i) FROM range(4000000) t(i)")
        with pytest.raises(QueryError, match="Out of Memory"):
            await asked(scheduler, "SELECT list(i) FROM range(100000000) t(i)")
        assert await asked(scheduler, "SELECT count(DISTINCT hash(i)) FROM range(1000000) t(i)") == [
            (1_000_000,)
        ]
        assert "2" in {folder.name for folder in tmp_path.iterdir()}
        scheduler.close()

    asyncio.run(main())


def test_an_engine_that_is_only_asked_too_much_stays(engines: Engines, tmp_path: Path) -> None:
    async def main() -> None:
        scheduler = scheduler_of(engines, [])
        for _ in range(10):
            with pytest.raises(QueryError, match="Out of Memory"):
                await asked(scheduler, "SELECT list(i) FROM range(100000000) t(i)")
        assert [folder.name for folder in tmp_path.iterdir()] == ["1"]
        scheduler.close()

    asyncio.run(main())


def test_questions_that_do_not_end_give_their_places_back_and_at_last_the_door_gives_up(
    engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "PATIENCE", 0.1)
    over = threading.Event()

    async def main() -> None:
        scheduler = scheduler_of(engines, given_up := [], timeout=0.2, places=Places(1, 1, 1))
        for number in range(1, execution.STUCK + 1):
            assert given_up == []
            running = scheduler.query(ME)
            with pytest.raises(execution.Stopped):
                async with scheduler.place(running):
                    await running.step(over.wait)
            assert (await asked(scheduler, "SELECT 1"), scheduler.stuck) == ([(1,)], True), number
        assert given_up == [f"{execution.STUCK} questions do not end"]
        over.set()
        scheduler.close()

    asyncio.run(main())


def test_clients_of_a_door_whose_engine_is_killed_again_and_again_notice_nothing(published: Path) -> None:
    """The check lets the killer through here, as it would one that nobody knows of."""
    process = subprocess.Popen(
        [sys.executable, "-c",
         "from pathlib import Path; from pipeline.door import query_check\n"
         "query_check.CALLED |= {'is distinct from'}\n"
         "from pipeline.door.server import DoorOptions, run_door\n"
         f"run_door(DoorOptions(data=Path({str(published)!r}), port=0))"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline().rpartition(":")[2])
        clients = [pymysql.connect(host="127.0.0.1", port=port, user=f"u{n}") for n in range(3)]
        answers: list[Any] = []

        def ask_on(connection: pymysql.Connection) -> None:
            try:
                for _ in range(40):
                    with connection.cursor() as cursor:
                        cursor.execute("SELECT count(*) FROM gpu")
                        answers.append(cursor.fetchall())
            except pymysql.MySQLError as error:
                answers.append(error)

        threads = [threading.Thread(target=ask_on, args=(client,)) for client in clients]
        for thread in threads:
            thread.start()
        with pymysql.connect(host="127.0.0.1", port=port, user="killer") as killer, killer.cursor() as cursor:
            for _ in range(3):
                with pytest.raises(pymysql.MySQLError, match="INTERNAL Error: Expected") as raised:
                    cursor.execute(KILLER)
                assert "Stack Trace" not in str(raised.value)
        for thread in threads:
            thread.join(PATIENCE)
        assert answers == [((240,),)] * 120
        assert psutil.pid_exists(process.pid)
    finally:
        process.terminate()
        assert process.wait(PATIENCE) == 0
