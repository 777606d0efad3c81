"""Whatever bytes a client sends, before its login and after: it is answered or cut off, and others are served."""

from __future__ import annotations

import contextlib
import re
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pymysql
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mysql_mimic.charset import CharacterSet
from mysql_mimic.types import Capabilities

from pipeline.door import packets, parameters
from pipeline.door.framing import Malformed
from pipeline.door.login import CAPABILITIES
from pipeline.door.prepared import STATEMENTS, TEXTS, PreparedStatements
from pipeline.door.session import first_word
from pipeline.errors import QueryError
from pipeline.serve import packet_reader
from pipeline.serve.child import Door
from tests.patience import PATIENCE

Call = Callable[..., pymysql.Connection]

WITH_ALL = 0x00000008 | 0x00000200 | 0x00008000 | 0x00080000 | 0x00200000
"""A database, protocol 4.1, a secure password, a plugin, and a password with its length in front."""
HEAD = struct.pack("<IIB23x", WITH_ALL, 1 << 24, 45)
GREETING = HEAD + b"alice\0" + b"\x14" + b"p" * 20 + b"gigawatch\0" + b"mysql_native_password\0"
CHANGE = b"bob\0" + b"\0" + b"gigawatch\0" + struct.pack("<H", 45) + b"mysql_native_password\0"
COMMANDS = {"COM_QUERY": 3, "COM_FIELD_LIST": 4, "COM_CHANGE_USER": 17, "COM_STMT_EXECUTE": 23}


def framed(body: bytes, sequence: int) -> bytes:
    return struct.pack("<I", len(body) | sequence << 24) + body


@contextlib.contextmanager
def dialled(door: Door) -> Iterator[socket.socket]:
    """A raw connection that has read the door's first packet."""
    host, _, port = door.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as line:
        assert line.recv(4096)
        yield line


def is_answered_or_cut_off(line: socket.socket) -> None:
    """Something comes, or the end; nothing at all is a timeout, which fails the test."""
    with contextlib.suppress(ConnectionResetError):
        line.recv(4096)


@pytest.fixture
def other(door: Door, call: Call) -> Iterator[pymysql.Connection]:
    """Somebody else, who is connected before, during and after."""
    connection = call(door)
    yield connection
    connection.close()


real = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)


@real
@given(
    body=st.binary(max_size=300)
    | st.builds(
        lambda capabilities, collation, rest: struct.pack("<IIB23x", capabilities, 0, collation) + rest,
        st.integers(0, 2**32 - 1) | st.just(WITH_ALL), st.integers(0, 255) | st.just(45), st.binary(max_size=100),
    )
)  # fmt: skip
def test_any_greeting_is_answered_or_cut_off_and_another_client_is_served(
    door: Door, other: pymysql.Connection, body: bytes
) -> None:
    with dialled(door) as line:
        line.sendall(framed(body, 1))
        line.shutdown(socket.SHUT_WR)
        is_answered_or_cut_off(line)
    other.ping(reconnect=False)


@real
@given(command=st.sampled_from(sorted(COMMANDS.values())) | st.integers(0, 255), body=st.binary(max_size=100))
def test_any_command_is_answered_or_cut_off_and_another_client_is_served(
    door: Door, other: pymysql.Connection, command: int, body: bytes
) -> None:
    with dialled(door) as line:
        line.sendall(framed(GREETING, 1))
        assert line.recv(4096)[4] == 0
        line.sendall(framed(bytes([command]) + body, 0) + framed(b"\x0e", 0))  # the second: a ping
        is_answered_or_cut_off(line)
    other.ping(reconnect=False)


@pytest.mark.parametrize("string", ["user", "database", "plugin"])
def test_a_greeting_whose_string_has_no_end_is_refused_and_another_client_is_served(
    door: Door, other: pymysql.Connection, string: str
) -> None:
    ends = [m.end() for m in re.finditer(b"\0", GREETING) if m.end() > len(HEAD)]
    cut = ends[["user", "database", "plugin"].index(string)] - 1
    with dialled(door) as line:
        line.sendall(framed(GREETING[:cut], 1))
        assert b"without the zero that ends it" in line.recv(4096)
    with other.cursor() as cursor:
        assert cursor.execute("SELECT 1") == 1


@pytest.mark.parametrize(
    ("command", "body"),
    [("COM_CHANGE_USER", b"bob"), ("COM_CHANGE_USER", b"bob\0\0gigawatch"), ("COM_FIELD_LIST", b"gpu")],
)
def test_a_command_whose_string_has_no_end_is_refused_and_another_client_is_served(
    door: Door, other: pymysql.Connection, command: str, body: bytes
) -> None:
    with dialled(door) as line:
        line.sendall(framed(GREETING, 1))
        assert line.recv(4096)[4] == 0
        line.sendall(framed(bytes([COMMANDS[command]]) + body, 0))
        assert b"without the zero that ends it" in line.recv(4096)
    with other.cursor() as cursor:
        assert cursor.execute("SELECT 1") == 1


@given(st.binary(max_size=400), st.integers(0, 2**32 - 1))
def test_any_bytes_are_a_greeting_or_an_error_never_without_end(data: bytes, offered: int) -> None:
    for read in (
        lambda: packets.greeting(data, Capabilities(offered)),
        lambda: packets.change_of_user(data, Capabilities(offered), CharacterSet.utf8mb4),
        lambda: packets.field_list(data, CharacterSet.utf8mb4),
    ):
        with contextlib.suppress(ValueError, LookupError):
            read()


@given(st.data())
def test_a_greeting_that_is_cut_anywhere_is_an_error(data: Any) -> None:
    cut = data.draw(st.integers(0, len(GREETING) - 1))
    with pytest.raises(packet_reader.Short):
        packets.greeting(GREETING[:cut], CAPABILITIES)
    found = packets.greeting(GREETING, CAPABILITIES)
    assert (found.user, found.answer, found.database) == ("alice", b"p" * 20, "gigawatch")
    assert found.plugin == "mysql_native_password"


def test_a_change_of_user_is_read_as_it_was_meant() -> None:
    found = packets.change_of_user(CHANGE, CAPABILITIES, CharacterSet.latin1)
    assert (found.user, found.database, found.charset) == ("bob", "gigawatch", CharacterSet.utf8mb4)


@given(st.binary(max_size=200), st.integers(0, 40), st.lists(st.tuples(st.integers(0, 255), st.booleans())))
def test_any_parameters_are_values_or_an_error(
    data: bytes, count: int, known: list[tuple[int, bool]]
) -> None:
    with contextlib.suppress(QueryError):
        values, _ = parameters.read(data, count, known, {}, "utf8")
        assert len(values) == count


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (" " * 60_000 + "'", ""), ("/*a*/" * 12_000 + "'", ""), ("(" * 60_000, ""), ("-- a\n" * 10_000, ""),
        (" \n-- why\n/* so */ ((select 1", "SELECT"), ("/*!40101 SET x = 1 */", "/*!"), ("# a\nshow tables", "SHOW"),
    ],
)  # fmt: skip
def test_the_first_word_is_found_in_one_pass(text: str, word: str) -> None:
    assert first_word(text) == word


def test_a_statement_that_begins_with_forty_blanks_and_a_quote_holds_nobody_up(
    door: Door, other: pymysql.Connection, call: Call
) -> None:
    with call(door) as connection, connection.cursor() as cursor, pytest.raises(pymysql.MySQLError):
        cursor.execute(" " * 40 + "'")
    with other.cursor() as cursor:
        assert cursor.execute("SELECT 1") == 1


def test_what_is_prepared_and_sent_ahead_is_bounded() -> None:
    prepared = PreparedStatements()
    for _ in range(STATEMENTS):
        prepared.refuse_more("SELECT ?")
        prepared.add("SELECT ?", 1)
    with pytest.raises(Exception, match="1000 statements are prepared already"):
        prepared.refuse_more("SELECT ?")
    few = PreparedStatements()
    few.add("x" * TEXTS, 1)
    with pytest.raises(Exception, match="1 statements are prepared already"):
        few.refuse_more("SELECT ?")
    with pytest.raises(Malformed, match="parameters of more than"):
        for number in range(1, STATEMENTS + 1):  # each has but little, or nothing
            for _ in range(10):
                prepared.keep_long_data(struct.pack("<IH", number, 0))
    reset = PreparedStatements()
    reset.add("SELECT ?", 1)
    for _ in range(1_000):
        reset.keep_long_data(struct.pack("<IH", 1, 0) + b"x" * 1000)
        reset.reset(struct.pack("<I", 1))
