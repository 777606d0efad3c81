"""`gigawatch keys`: whatever is missing is made, whatever is there stays, and door and board open with it."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pymysql
import pytest

from pipeline.errors import SettingsError
from pipeline.serve.child import Board, Door
from pipeline.serve.keys import make_keys
from tests.patience import PATIENCE


def _entrance(keys: Path) -> list[str]:
    files = {"--users": "users", "--tls-cert": "cert.pem", "--tls-key": "key.pem"}
    return [word for option, name in files.items() for word in (option, str(keys / name))]


def test_door_and_board_let_in_who_has_what_is_made(published: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    assert all(made for _, made in make_keys(keys, ["localhost", "127.0.0.1"]))
    password = (keys / "grafana-password").read_text()
    guarded = ["--port", "0", *_entrance(keys)]
    with Door(published, tmp_path / "log", guarded) as door:
        port = int(door.address.rpartition(":")[2])
        context = ssl.create_default_context(cafile=keys / "cert.pem")
        login = {"host": "127.0.0.1", "port": port, "user": "grafana", "ssl": context}
        with pymysql.connect(**login, password=password) as connection, connection.cursor() as cursor:
            assert cursor.execute("SELECT 1") == 1
        with pytest.raises(pymysql.err.OperationalError, match="Access denied"):
            pymysql.connect(**login, password="guessed")
    with Board(published, tmp_path / "log", guarded) as board:
        url = f"https://127.0.0.1:{board.address.rpartition(':')[2]}/"
        asked: Callable[..., Any] = httpx.Client(verify=context, trust_env=False, timeout=PATIENCE).get
        assert asked(url).status_code == 401
        assert asked(url, auth=("grafana", password)).status_code == 200


def test_what_is_there_stays_and_what_is_missing_is_made(tmp_path: Path) -> None:
    first = dict(make_keys(tmp_path, ["door"]))
    before = {path: path.read_bytes() for path in first}
    assert not any(made for _, made in make_keys(tmp_path, ["door"]))
    (tmp_path / "grafana-admin").unlink()
    assert [path.name for path, made in make_keys(tmp_path, ["door"]) if made] == ["grafana-admin"]
    kept = [path for path in first if path.name != "grafana-admin"]
    assert all(path.read_bytes() == before[path] for path in kept)
    assert set(tmp_path.iterdir()) == set(first)


def test_only_the_owner_reads_what_no_other_service_needs(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    rights = {path.name: path.stat().st_mode & 0o777 for path, _ in make_keys(keys, ["door"])}
    assert rights["key.pem"] == rights["users"] == 0o600
    assert keys.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(("gone", "found"), [("key.pem", "cert.pem"), ("grafana-password", "users")])
def test_half_of_a_pair_is_refused(tmp_path: Path, gone: str, found: str) -> None:
    list(make_keys(tmp_path, ["door"]))
    (tmp_path / gone).unlink()
    with pytest.raises(
        SettingsError, match=f"found {found} without {gone}, expected both or none; .* take {found} away"
    ):
        list(make_keys(tmp_path, ["door"]))
    assert not (tmp_path / gone).exists()


def test_a_name_that_cannot_be_one_and_a_folder_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--host: found 'dör', expected a host name"):
        list(make_keys(tmp_path / "keys", ["dör"]))
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="keys cannot be written there"):
        list(make_keys(tmp_path / "file" / "keys", ["door"]))
