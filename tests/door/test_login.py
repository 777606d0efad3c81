"""Who comes in, and how: passwords, TLS, addresses, guesses, and the door as a child of somebody."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import socket
import ssl
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pymysql
import pytest

from pipeline.door.server import DoorOptions, run_door
from pipeline.errors import SettingsError
from pipeline.serve.child import Door
from pipeline.serve.users import (
    FAILURES,
    MANY,
    WITHIN,
    Authenticator,
    Secret,
    add_user,
    entry,
    proves,
    read_users,
)
from tests.patience import PATIENCE

Call = Callable[..., pymysql.Connection]
ROOT = Path(__file__).resolve().parents[2]


def tls(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate[0]))


def test_with_a_users_file_only_the_right_password_comes_in(
    open_door: Callable[..., Door], call: Call, users: Any
) -> None:
    file, passwords = users
    door = open_door("--users", str(file))
    with call(door, user="alice", password=passwords["alice"]) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT CURRENT_USER()")
        assert cursor.fetchone() == ("alice@%",)
    for name, password in (("alice", "wrong"), ("alice", ""), ("alice", passwords["bob"]), ("eve", "")):
        with pytest.raises(pymysql.MySQLError, match=f"Access denied for user '{name}'") as raised:
            call(door, user=name, password=password)
        assert raised.value.args[0] == 1045


def test_a_refused_client_that_goes_on_talking_is_not_answered(
    open_door: Callable[..., Door], users: Any
) -> None:
    door = open_door("--users", str(users[0]))
    host, _, port = door.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as line:
        line.recv(4096)
        capabilities = 0x00000200 | 0x00008000 | 0x00080000
        body = (
            struct.pack("<IIB23x", capabilities, 1 << 24, 45)
            + b"alice\0"
            + b"\0"
            + b"mysql_native_password\0"
        )
        line.sendall(struct.pack("<I", len(body) | 1 << 24) + body)
        query = b"\x03SELECT 4711"
        line.sendall(struct.pack("<I", len(query)) + query)
        said = b""
        try:
            while piece := line.recv(4096):
                said += piece
        except ConnectionResetError:
            pass
    assert b"Access denied" in said
    assert b"4711" not in said


def test_who_guesses_passwords_is_not_listened_to_for_a_while(
    open_door: Callable[..., Door], call: Call, users: Any
) -> None:
    file, passwords = users
    door = open_door("--users", str(file))
    inside = call(door, user="bob", password=passwords["bob"])
    for _ in range(FAILURES):
        with pytest.raises(pymysql.MySQLError, match="Access denied"):
            call(door, user="alice", password="guess")
    with pytest.raises(pymysql.MySQLError, match="too many logins of 'alice' from your address") as raised:
        call(door, user="alice", password=passwords["alice"])
    assert raised.value.args[0] == 1129
    with inside.cursor() as cursor:
        assert cursor.execute("SELECT 1") == 1
    with call(door, user="bob", password=passwords["bob"]) as another, another.cursor() as cursor:
        assert cursor.execute("SELECT 1") == 1


def test_a_block_ends_by_itself_and_is_for_one_address() -> None:
    now = [0.0]
    authenticator = Authenticator({"alice": Secret(bytes(20), None)}, clock=lambda: now[0])
    for _ in range(FAILURES):
        assert not authenticator.blocked("2001:db8::1", "alice")
        assert not authenticator.admits("alice", b"", b"x" * 20, "2001:db8::1")
    assert authenticator.blocked("2001:db8::2", "alice"), "one machine has 2^64 addresses"
    assert not authenticator.blocked("2001:db8::2", "bob"), "others may sit behind the same proxy"
    assert not authenticator.blocked("2001:db8:0:1::1", "alice")
    assert not authenticator.blocked("192.0.2.1", "alice")
    now[0] = WITHIN
    assert not authenticator.blocked("2001:db8::1", "alice")


def test_many_guesses_block_an_address_or_a_user_but_nobody_who_has_come_in_from_there() -> None:
    right = {
        name: Secret(hashlib.sha1(hashlib.sha1(b"right").digest()).digest(), None)
        for name in ("alice", "bob")
    }
    authenticator = Authenticator(right, clock=lambda: 0.0)
    assert authenticator.knows("alice", "right", "192.0.2.1")
    for n in range(MANY):
        assert not authenticator.knows(f"guess{n}", "x", "192.0.2.1")
    assert authenticator.blocked("192.0.2.1", "bob")
    assert not authenticator.blocked("192.0.2.1", "alice")
    assert not authenticator.blocked("192.0.2.2", "bob")
    for n in range(MANY):
        assert not authenticator.knows("bob", "x", f"198.51.100.{n}")
    assert authenticator.blocked("203.0.113.1", "bob")
    assert not authenticator.blocked("203.0.113.1", "alice")


def test_changing_the_user_needs_the_other_ones_password(
    open_door: Callable[..., Door], call: Call, users: Any
) -> None:
    file, passwords = users
    door = open_door("--users", str(file))
    connection = call(door, user="alice", password=passwords["alice"])
    connection._execute_command(0x11, b"bob\0\0\0" + struct.pack("<H", 45) + b"mysql_native_password\0\0")
    packet = connection._read_packet()
    assert packet.is_auth_switch_request()
    connection.write_packet(b"\x01" * 20)
    with pytest.raises(pymysql.MySQLError, match="Access denied for user 'bob'"):
        connection._read_packet()
    with pytest.raises(pymysql.MySQLError):
        connection.query("SELECT 1")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_is_offered_and_the_certificate_holds(
    open_door: Callable[..., Door], call: Call, certificate: tuple[Path, Path], version: ssl.TLSVersion
) -> None:
    door = open_door("--tls-cert", str(certificate[0]), "--tls-key", str(certificate[1]))
    context = tls(certificate)
    context.minimum_version = context.maximum_version = version
    with call(door, ssl=context) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT repeat('x', 100000), i FROM range(20) t(i)")
        assert [len(row[0]) for row in cursor.fetchall()] == [100_000] * 20
    with call(door) as connection, connection.cursor() as cursor:
        assert cursor.execute("SELECT 1") == 1


def test_a_hello_that_arrives_together_with_the_request_for_tls_is_not_lost(
    open_door: Callable[..., Door], certificate: tuple[Path, Path]
) -> None:
    door = open_door("--tls-cert", str(certificate[0]), "--tls-key", str(certificate[1]))
    host, _, port = door.address.rpartition(":")
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = tls(certificate).wrap_bio(incoming, outgoing, server_hostname="localhost")
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as line:
        line.recv(4096)
        with pytest.raises(ssl.SSLWantReadError):
            client.do_handshake()
        request = struct.pack("<IIB23x", 0x0800 | 0x0200 | 0x8000 | 0x80000, 1 << 24, 45)
        line.sendall(struct.pack("<I", len(request) | 1 << 24) + request + outgoing.read())
        while True:
            try:
                client.do_handshake()
                break
            except ssl.SSLWantReadError:
                incoming.write(line.recv(65536))
    assert client.version()


def test_beyond_the_loopback_nobody_comes_in_without_tls(
    open_door: Callable[..., Door], call: Call, certificate: tuple[Path, Path], users: Any
) -> None:
    file, passwords = users
    door = open_door(
        "--bind", "0.0.0.0", "--users", str(file),
        "--tls-cert", str(certificate[0]), "--tls-key", str(certificate[1]),
    )  # fmt: skip
    door.address = door.address.replace("0.0.0.0", "127.0.0.1")
    alice = {"user": "alice", "password": passwords["alice"]}
    with call(door, ssl=tls(certificate), **alice) as connection, connection.cursor() as cursor:
        assert cursor.execute("SELECT 1") == 1
    with pytest.raises(pymysql.MySQLError, match="takes TLS only"):
        call(door, ssl_disabled=True, **alice)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bind": "0.0.0.0"}, "open beyond this machine, without --users and --tls-cert"),
        ({"bind": "::"}, "open beyond this machine"),
        ({"bind": "192.0.2.1", "users": "USERS"}, "without --tls-cert"),
        ({"bind": "0.0.0.0", "tls": True}, "without --users"),
        ({"tls_cert": "CERT"}, "found one of --tls-cert and --tls-key"),
        ({"tls_cert": "USERS", "tls_key": "USERS"}, "expected a certificate and its key as PEM"),
        ({"bind": "no.such.name.invalid"}, "is no address of this machine"),
        ({"data": Path("/nowhere")}, "no such data directory"),
        ({"memory_limit": "much"}, "--memory-limit: found 'much', expected a size such as 512MB"),
        ({"temp_limit": "1 parsec"}, "--temp-limit: found '1 parsec'"),
    ],
)
def test_a_door_that_would_stand_open_or_cannot_be_built_is_refused(
    options: dict[str, Any], message: str, published: Path, certificate: tuple[Path, Path], users: Any
) -> None:
    if options.pop("tls", False):
        options |= {"tls_cert": certificate[0], "tls_key": certificate[1]}
    named = {"CERT": certificate[0], "USERS": users[0]}
    given = {
        key: named.get(value, value) if isinstance(value, str) else value for key, value in options.items()
    }
    with pytest.raises(Exception, match=message):
        run_door(DoorOptions(**{"data": published, "port": 0, **given}))


def test_a_port_that_is_taken_is_named(published: Path, door: Door) -> None:
    with pytest.raises(SettingsError, match=r"the door cannot be opened at 127\.0\.0\.1"):
        run_door(DoorOptions(data=published, port=int(door.address.rpartition(":")[2])))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "found no user; make one"),
        ("alice\n", r"users:1: found no user; expected name:\*HASH:HASH"),
        ("# staff\nalice:secret\n", r"users:2: found no user"),
        ("a:*" + "0" * 40 + "\na:*" + "1" * 40, r"users:2: found 'a' a second time"),
    ],
)
def test_a_users_file_that_is_wrong_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "users").write_text(text)
    with pytest.raises(SettingsError, match=message):
        read_users(tmp_path / "users")


def test_a_users_file_that_others_can_write_is_refused(tmp_path: Path) -> None:
    (tmp_path / "users").write_text(entry("alice", "secret"))
    for mode in (0o666, 0o606, 0o660):
        (tmp_path / "users").chmod(mode)
        with pytest.raises(SettingsError, match=f"found rights {mode:o}, with which others may write to it"):
            read_users(tmp_path / "users")


def test_a_user_is_added_once_to_a_file_of_its_owner_alone(users: Any) -> None:
    file, _ = users
    assert file.stat().st_mode & 0o777 == 0o600
    assert set(read_users(file)) == {"alice", "bob"}
    with pytest.raises(SettingsError, match="'bob' is a user already"):
        add_user(file, "bob")
    with pytest.raises(SettingsError, match="found no --users"):
        add_user(None, "eve")


def test_an_entry_is_what_mysql_stores() -> None:
    # SELECT PASSWORD('mypass'), from MySQL's manual.
    native, _, sha2 = entry("root", "mypass").partition("root:*")[2].partition(":")
    assert native == "6C8989366EAF75BB670AD8EA7A7FC1176A95CEF4"
    assert bytes.fromhex(sha2) == hashlib.sha256(hashlib.sha256(b"mypass").digest()).digest()
    assert not proves(b"", b"n" * 20, bytes(20), False)
    assert not proves(b"", b"n" * 20, bytes(32), True)
    with pytest.raises(SettingsError, match="expected 1 to 32 characters"):
        entry("a:b", "x")


@pytest.mark.parametrize(
    "noise",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x00" * 100, b"\xff" * 70000, b"\x01\x00\x00\x01\x00",
        b"\x16\x03\x01" + b"x" * 300,
        struct.pack("<I", 0xFFFFFF | 1 << 24) + b"x" * 100, struct.pack("<IIB23x", 32 | 1 << 24, 0xFFFFFFFF, 255) + b"x" * 8,
        b"",
    ],
)  # fmt: skip
def test_noise_in_place_of_a_login_harms_nobody(door: Door, call: Call, noise: bytes) -> None:
    host, _, port = door.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as line:
        line.sendall(noise)
        if not noise:
            line.shutdown(socket.SHUT_WR)
        try:
            while line.recv(65536):
                pass
        except (ConnectionResetError, TimeoutError):
            pass
    with call(door) as connection, connection.cursor() as cursor:
        assert cursor.execute("SELECT 1") == 1


def test_a_login_that_comes_byte_by_byte_is_understood(door: Door) -> None:
    host, _, port = door.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as line:
        line.recv(4096)
        body = (
            struct.pack("<IIB23x", 0x0200 | 0x8000 | 0x80000, 1 << 24, 45) + b"x\0\0mysql_native_password\0"
        )
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in struct.pack("<I", len(body) | 1 << 24) + body:
            line.sendall(bytes([byte]))
            time.sleep(0.001)
        assert line.recv(4096)[4] == 0


def test_the_door_ends_with_the_one_that_opened_it(published: Path, tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", "import sys, time; from pathlib import Path; from pipeline.serve.child import Door\n"
         f"door = Door(Path({str(published)!r}), Path({str(tmp_path / 'log')!r}), ['--port', '0']); door.start()\n"
         "print(door.pid, flush=True); time.sleep(600)"],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    translators = child.children()
    parent.kill()
    parent.wait()
    gone, alive = psutil.wait_procs([child, *translators], timeout=PATIENCE)
    assert not alive and len(gone) == 2


def test_a_door_that_was_killed_is_opened_again_at_the_same_address(
    published: Path, tmp_path: Path, call: Call
) -> None:
    with Door(published, tmp_path / "log", ["--port", "0"]) as door:
        address, pid = door.address, door.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        psutil.wait_procs([psutil.Process(pid)], timeout=PATIENCE)
        door.stop()
        door.start()
        assert (door.address, door.pid == pid) == (address, False)
        with call(door) as connection, connection.cursor() as cursor:
            assert cursor.execute("SELECT 1") == 1


def test_a_door_that_cannot_be_opened_says_why(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"could not be opened(.|\n)*no such data directory"):
        Door(tmp_path / "nowhere", tmp_path / "log").start()


def test_the_command_says_where_it_listens_and_stops_at_a_signal_in_the_midst_of_work(
    published: Path, tmp_path: Path
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "pipeline.cli", "door", "--data", str(published), "--port", "0"],
        cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert process.stdout is not None
    said = re.fullmatch(r"door ready at 127\.0\.0\.1:(\d+)\n", process.stdout.readline())
    assert said
    busy = [pymysql.connect(host="127.0.0.1", port=int(said[1]), user="x") for _ in range(6)]
    for one in busy:
        one._execute_command(3, "SELECT count(*) FROM range(1000000000000) t(i) WHERE hash(i) = 1")
    assert list(tmp_path.iterdir())
    process.terminate()
    assert process.wait(PATIENCE) == 0
    assert list(tmp_path.iterdir()) == []
