"""`docs/sql.md`: what it shows works, and its figures are those of the code."""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli import servers
from pipeline.door.execution import QueryLimits
from pipeline.door.query_check import MAX_LENGTH
from pipeline.door.server import DoorOptions
from pipeline.door.session import SQL_MODE
from pipeline.serve.child import Door
from pipeline.serve.users import FAILURES, WITHIN

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "sql.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("sql", blocks("sql"))
def test_a_query_that_is_shown_has_an_answer(ask: Callable[..., list[Any]], sql: str) -> None:
    rows = ask(sql)
    assert rows
    assert None not in rows[0]


def test_the_python_that_is_shown_reads_a_frame(door: Door) -> None:
    [text] = blocks("python")
    found: dict[str, Any] = {}
    exec(text.replace("127.0.0.1:3306", door.address), found)
    assert len(found["frame"]) == 240
    found["engine"].dispose()


def test_the_commands_that_are_shown_have_these_options() -> None:
    known = {f"--{name.replace('_', '-')}" for name in inspect.signature(servers.door).parameters}
    shown = [
        line for block in blocks("sh") for line in block.splitlines() if line.startswith("gigawatch door")
    ]
    assert len(shown) == 3
    for line in shown:
        words = shlex.split(line.partition("#")[0].partition(">>")[0])
        assert {word for word in words if word.startswith("--")} <= known


def test_the_limits_that_are_shown_are_those_of_the_code() -> None:
    options, limits = DoorOptions(Path()), QueryLimits()
    sessions = options.connections
    section = TEXT.partition("## Limits")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| [^|]+ \| ([^|]+) \| (?:`(--[\w-]+)`|none) \|$", section, re.MULTILINE)
    assert rows == [
        (f"{limits.timeout:.0f} s", "--timeout"), (str(limits.rows), "--row-limit"),
        (options.memory_limit, "--memory-limit"), (options.temp_limit, "--temp-limit"), (str(MAX_LENGTH), ""),
        (str(limits.places.usual), ""), (str(limits.places.most), ""), (str(limits.places.address), ""),
        (str(sessions.user), "--user-sessions"), (str(sessions.address), ""), (str(sessions.sessions), ""),
        (f"{limits.idle:.0f} s", "--idle-timeout"),
    ]  # fmt: skip
    given = {name: p.default for name, p in inspect.signature(servers.door).parameters.items()}
    assert (given["timeout"], given["row_limit"]) == (limits.timeout, limits.rows)
    assert (given["memory_limit"], given["temp_limit"]) == (options.memory_limit, options.temp_limit)
    assert (given["idle_timeout"], given["user_sessions"]) == (limits.idle, sessions.user)
    assert (given["port"], given["bind"]) == (options.port, options.bind)
    assert (FAILURES, WITHIN) == (5, 60) and "Five failed logins of a user" in TEXT


def test_what_is_said_to_differ_does(ask: Callable[..., list[Any]]) -> None:
    assert f"`{SQL_MODE}`" in TEXT
    assert ask(
        "SELECT 'a' = 'A', 'a' LIKE 'A', 'a' || 'b', CONCAT('a', NULL), LOG(100), DAYOFWEEK(DATE '2026-01-04')"
    ) == [(0, 0, "ab", "a", 2.0, 0)]
    with pytest.raises(Exception, match=r"(?i)zero"):
        ask("SELECT 1 % 0")
