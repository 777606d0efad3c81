"""Nobody keeps others out of the door: not by questions, not by sessions, not by silence, not by guessing."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pymysql
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.door.connection_limits import ConnectionLimits
from pipeline.door.fair_queue import FairQueue, Places, Who
from pipeline.serve.child import Door
from pipeline.serve.users import PROBE
from tests.patience import PATIENCE

Call = Callable[..., pymysql.Connection]
ENDLESS = "SELECT count(*) FROM range(1000000000000) t(i) WHERE hash(i) = 1"


@contextmanager
def asking_without_end(connections: list[pymysql.Connection]) -> Iterator[list[int]]:
    """Each asks something without end, and is told to stop at the end; the list gets those that are answered."""
    answered: list[int] = []

    def ask(number: int) -> None:
        try:
            with connections[number].cursor() as cursor:
                cursor.execute(ENDLESS)
        except (pymysql.MySQLError, OSError, ValueError):
            pass
        answered.append(number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(connections))]
    for thread in threads:
        thread.start()
    try:
        yield answered
    finally:
        for connection in connections:
            connection._sock.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(PATIENCE)


def test_eight_questions_without_end_do_not_make_another_user_wait(door: Door, call: Call) -> None:
    with asking_without_end([call(door, user="greedy") for _ in range(8)]) as answered:
        for name in ("other", "third"):
            with call(door, user=name) as connection, connection.cursor() as cursor:
                for _ in range(3):
                    cursor.execute("SELECT count(*) FROM gpu")
                    assert cursor.fetchone() == (240,)
        assert door.fault(PATIENCE) is None, "nor `run`, which asks whether the door answers"
        assert answered == [], "all eight are still at it"


def test_strangers_who_never_log_in_take_no_place_from_those_who_do(door: Door, call: Call) -> None:
    host, _, port = door.address.rpartition(":")
    inside = call(door)
    with ExitStack() as stack:
        lines = [
            stack.enter_context(socket.create_connection((host, int(port)), timeout=PATIENCE))
            for _ in range(ConnectionLimits().unauthenticated * 3)
        ]
        for _ in range(3):
            with call(door) as connection, connection.cursor() as cursor:
                assert cursor.execute("SELECT 1") == 1
        while lines[0].recv(4096):  # its greeting, then the end
            pass
    with inside.cursor() as cursor:
        assert cursor.execute("SELECT 1") == 1


def test_a_user_has_so_many_sessions_and_others_have_theirs(
    open_door: Callable[..., Door], call: Call
) -> None:
    door = open_door("--user-sessions", "3")
    many = [call(door, user="many") for _ in range(3)]
    with pytest.raises(pymysql.MySQLError, match="'many' has 3 sessions already") as raised:
        call(door, user="many")
    assert raised.value.args[0] == 1203
    with call(door, user="other") as connection, connection.cursor() as cursor:
        assert cursor.execute("SELECT 1") == 1
        connection._execute_command(0x11, b"many\0\0\0" + b"\x2d\0" + b"mysql_native_password\0\0")
        assert connection._read_packet().is_auth_switch_request()
        connection.write_packet(b"\0")
        with pytest.raises(pymysql.MySQLError, match="'many' has 3 sessions already"):
            connection._read_packet()
    many.pop().close()
    for _ in range(50):
        try:
            many.append(call(door, user="many"))
            break
        except pymysql.MySQLError:
            continue
    assert len(many) == 3


def test_a_session_that_asks_nothing_is_closed_and_one_that_works_is_not(
    open_door: Callable[..., Door], call: Call
) -> None:
    door = open_door("--idle-timeout", "1")
    idle, busy, long = call(door), call(door), call(door)
    with long.cursor() as cursor:
        cursor.execute("SET wait_timeout = 1000")
    with busy.cursor() as cursor:
        cursor.execute("SELECT max(md5(i::VARCHAR)) FROM range(20000000) t(i)")
        assert cursor.fetchone()
    idle._sock.settimeout(30)
    with pytest.raises(pymysql.MySQLError):
        idle._read_packet()
    with pytest.raises(pymysql.MySQLError):
        long.ping(reconnect=False)
        long._sock.settimeout(30)
        long._read_packet()  # it may ask for less, not for more


def test_a_client_may_ask_to_be_closed_sooner(door: Door, call: Call) -> None:
    connection = call(door)
    with connection.cursor() as cursor:
        cursor.execute("SET wait_timeout = 1")
    connection._sock.settimeout(30)
    with pytest.raises(pymysql.MySQLError):
        connection._read_packet()


# --------------------------------------------------------------------------------------------------- whose turn it is

GREEDY, OTHER = Who("greedy", "192.0.2.1"), Who("other", "192.0.2.1")


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_who_has_none_gets_a_place_beyond_the_usual_and_a_free_one_goes_to_who_has_fewest() -> None:
    async def main() -> None:
        turns, came = FairQueue(Places(usual=2, most=3, address=9), PROBE), []

        async def enter(who: Who) -> None:
            await turns.enter(who)
            came.append(who.user)

        tasks = [asyncio.ensure_future(enter(who)) for who in [GREEDY] * 4 + [OTHER] * 2]
        await settled()
        assert came == ["greedy", "greedy", "other"]
        turns.leave(GREEDY)
        await settled()
        assert came == ["greedy", "greedy", "other"], "three less one are the usual two"
        turns.leave(GREEDY)
        await settled()
        assert came[3:] == ["greedy"], "none of greedy's runs, one of the other's does"
        turns.leave(GREEDY)
        await settled()
        assert came[4:] == ["greedy"]
        tasks += [asyncio.ensure_future(enter(Who(PROBE, "192.0.2.1")))]
        await settled()
        assert came[5:] == [PROBE]
        for task in tasks:
            task.cancel()

    asyncio.run(main())


def test_an_address_with_many_names_leaves_places_to_others() -> None:
    async def main() -> None:
        turns = FairQueue(Places(usual=2, most=6, address=4), PROBE)
        one = [asyncio.ensure_future(turns.enter(Who(f"u{n}", "192.0.2.1"))) for n in range(8)]
        await settled()
        assert [task.done() for task in one] == [True] * 4 + [False] * 4
        other = asyncio.ensure_future(turns.enter(Who("u9", "192.0.2.2")))
        await settled()
        assert other.done()
        for task in one:
            task.cancel()

    asyncio.run(main())


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xy"), st.integers(0, 3)), max_size=40))
def test_whatever_comes_goes_and_is_cancelled_no_place_is_lost_or_given_twice(
    steps: list[tuple[str, str, int]],
) -> None:
    places = Places(usual=2, most=4, address=3)

    async def main() -> None:
        turns = FairQueue(places, PROBE)
        tasks: list[tuple[Who, asyncio.Task[None]]] = []
        for user, address, what in steps:
            if what < 2:
                tasks.append((who := Who(user, address), asyncio.ensure_future(turns.enter(who))))
            elif tasks:
                who, task = tasks.pop(0)
                if not task.cancel() and not task.cancelled():
                    turns.leave(who)
            if what % 2:
                await settled()
            running = [who for who, task in tasks if task.done()]
            assert len(running) <= places.most
            assert all(sum(one.address == a for one in running) <= places.address for a in "xy")
        await settled()
        for who, task in tasks:
            if not task.cancel() and not task.cancelled():
                turns.leave(who)
        await settled()
        assert (turns._users, turns._addresses, turns._waiting) == ({}, {}, [])

    asyncio.run(main())
