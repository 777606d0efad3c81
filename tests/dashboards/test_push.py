"""A push makes folder, data source and dashboards once, shows before what it would do, and says what to do when refused.

Against a small server that keeps to Grafana's contract (`grafana_api.py`), for CI has no Grafana.
"""

from __future__ import annotations

import os
import runpy
import socket
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipeline.dashboards.generate import documents
from pipeline.dashboards.push import Change, DataSource, Grafana, plan, push, token_from
from pipeline.errors import GigawatchError

ROOT = Path(__file__).resolve().parents[2]
API = runpy.run_path(str(Path(__file__).parent / "grafana_api.py"))
TOKEN, VIEWER = API["TOKEN"], API["VIEWER"]
DOOR = DataSource("door:3306", password="secret", certificate="-----BEGIN CERTIFICATE-----")


@pytest.fixture
def grafana() -> Iterator[Any]:
    with API["FakeGrafana"]() as server:
        yield server


def planned(grafana: Any, source: DataSource | None = DOOR, token: str = TOKEN) -> list[Change]:
    return plan(Grafana(grafana.url, token), documents(), source)


def pushed(grafana: Any, source: DataSource | None = DOOR, token: str = TOKEN) -> dict[str, str]:
    return {change.what: change.outcome for change in push(planned(grafana, source, token))}


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    own = {k: v for k, v in os.environ.items() if not k.startswith("GRAFANA")}
    return subprocess.run(
        [sys.executable, "-P", "-m", "pipeline.cli", "dashboards", "push", *arguments],
        cwd=ROOT, capture_output=True, text=True, env={**own, **environment},
    )  # fmt: skip


# --------------------------------------------------------------------------------------------------- what it does


def test_a_first_push_makes_everything_and_a_second_one_nothing(grafana: Any) -> None:
    first = pushed(grafana)
    assert set(first.values()) == {"new"} and len(first) == 2 + len(documents())
    assert set(grafana.dashboards) == {d["uid"] for d in documents()}
    assert {d["folderUid"] for d in grafana.dashboards.values()} == {"gigawatch"}
    writes = grafana.writes
    assert set(pushed(grafana, None).values()) == {"unchanged"} and grafana.writes == writes


def test_the_data_source_is_the_one_that_provisioning_makes(grafana: Any) -> None:
    pushed(grafana)
    file = ROOT / "dashboards" / "provisioning" / "datasources" / "gigawatch.yaml"
    [provisioned] = YAML(typ="safe", pure=True).load(file.read_text("utf-8"))["datasources"]
    made = grafana.sources["gigawatch"]
    for key in ("uid", "type", "access", "url", "user"):
        assert made[key] == provisioned[key], key
    assert made["jsonData"].items() <= provisioned["jsonData"].items()
    assert grafana.secrets == {"password": "secret", "tlsCACert": DOOR.certificate}


def test_a_data_source_that_differs_is_changed_and_keeps_what_others_set(grafana: Any) -> None:
    pushed(grafana)
    grafana.sources["gigawatch"]["jsonData"]["maxOpenConns"] = 10
    found = pushed(grafana, DataSource("other:3307"))
    assert found["data source Gigawatch"] == "changed"
    made = grafana.sources["gigawatch"]
    assert (made["url"], made["jsonData"]["maxOpenConns"]) == ("other:3307", 10)
    assert grafana.secrets["password"] == "secret", "a password that is not given stays"
    assert pushed(grafana, DataSource("other:3307"))["data source Gigawatch"] == "unchanged"


def test_a_dashboard_that_somebody_changed_is_ours_again_after_a_push(grafana: Any) -> None:
    pushed(grafana)
    kept = grafana.dashboards["gigawatch-noc"]["dashboard"]
    grafana.dashboards["gigawatch-noc"]["dashboard"] = {**kept, "refresh": "5m", "version": 7}
    [change] = [c for c in planned(grafana, None) if c.outcome == "changed"]
    differing = [line for line in change.diff if line[0] in "-+" and not line.startswith(("---", "+++"))]
    assert [line.strip(" ,") for line in differing] == ['-  "refresh": "5m"', '+  "refresh": "30s"']
    pushed(grafana, None)
    now = grafana.dashboards["gigawatch-noc"]["dashboard"]
    assert (now["refresh"], now["version"], now["id"]) == ("30s", 8, kept["id"])


def test_a_dashboard_that_was_moved_comes_back_into_our_folder(grafana: Any) -> None:
    pushed(grafana)
    grafana.dashboards["gigawatch-noc"]["folderUid"] = ""
    assert pushed(grafana, None)["dashboard NOC overview"] == "changed"
    assert grafana.dashboards["gigawatch-noc"]["folderUid"] == "gigawatch"


def test_a_dry_run_shows_the_difference_and_changes_nothing(grafana: Any, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    first = command(
        "--url",
        grafana.url,
        "--token-file",
        str(tmp_path / "token"),
        "--datasource",
        "door:3306",
        "--dry-run",
    )
    assert first.returncode == 0, first.stderr
    assert "folder Gigawatch: new" in first.stdout and grafana.writes == 0
    pushed(grafana)
    writes, noc = grafana.writes, grafana.dashboards["gigawatch-noc"]["dashboard"]
    noc["refresh"] = "5m"
    second = command("--url", grafana.url, "--dry-run", GRAFANA_TOKEN=TOKEN)
    assert second.returncode == 0, second.stderr
    assert "dashboard NOC overview: changed" in second.stdout and '+  "refresh": "30s"' in second.stdout
    assert "dashboard Spend: unchanged" in second.stdout
    assert grafana.writes == writes and noc["refresh"] == "5m"


def test_the_command_pushes_with_a_token_from_a_file(grafana: Any, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    (tmp_path / "password").write_text("pw\n")
    done = command(
        "--url", f"{grafana.url}/", "--token-file", str(tmp_path / "token"), "--datasource", "127.0.0.1:3306",
        "--datasource-user", "bi", "--datasource-password-file", str(tmp_path / "password"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(grafana.dashboards) == len(documents())
    assert (grafana.sources["gigawatch"]["user"], grafana.secrets) == ("bi", {"password": "pw"})
    assert TOKEN not in done.stdout + done.stderr and "pw" not in done.stdout


def test_a_grafana_below_a_path_is_found_there() -> None:
    with API["FakeGrafana"]("/grafana") as server:
        assert set(pushed(server).values()) == {"new"}
        server.url = server.url.removesuffix("/grafana")
        with pytest.raises(
            GigawatchError, match=r"does not answer as a Grafana does; name its root with --url"
        ):
            planned(server)


# ------------------------------------------------------------------------------------------------- what is refused


def test_a_token_that_is_not_known_is_told_with_where_to_get_one(grafana: Any) -> None:
    with pytest.raises(
        GigawatchError, match=r"refuses the token \(HTTP 401\).*Service accounts.*role Editor"
    ):
        planned(grafana, token="glsa_wrong")


def test_a_token_that_may_only_look_is_told_what_it_lacks(grafana: Any) -> None:
    with pytest.raises(
        GigawatchError, match=r"may not do that \(HTTP 403.*role Editor, and Admin for the data source"
    ):
        pushed(grafana, token=VIEWER)
    assert grafana.writes == 0


def test_what_somebody_saves_in_between_is_not_overwritten(grafana: Any) -> None:
    pushed(grafana)
    grafana.dashboards["gigawatch-noc"]["dashboard"]["refresh"] = "5m"

    def somebody(server: Any) -> None:
        server.dashboards["gigawatch-noc"]["dashboard"] |= {"version": 99, "title": "Theirs"}

    grafana.before_save = somebody
    with pytest.raises(GigawatchError, match=r"HTTP 412, version-mismatch.*look at it, then push again"):
        pushed(grafana, None)
    assert grafana.dashboards["gigawatch-noc"]["dashboard"]["title"] == "Theirs"


def test_what_comes_from_files_is_refused_before_anything_is_changed(grafana: Any) -> None:
    pushed(grafana)
    grafana.provisioned = {"gigawatch-spend"}
    grafana.dashboards["gigawatch-noc"]["dashboard"]["refresh"] = "5m"
    writes = grafana.writes
    with pytest.raises(
        GigawatchError, match=r"dashboard Spend is provisioned from files.*take its provider away"
    ):
        pushed(grafana, None)
    assert grafana.writes == writes
    grafana.provisioned = set()
    changes = planned(grafana, None)
    grafana.provisioned = {"gigawatch-noc"}  # it became so after we looked
    with pytest.raises(GigawatchError, match=r"provisioned from files \(HTTP 400"):
        list(push(changes))


def test_a_data_source_from_files_is_left_alone_or_refused(grafana: Any) -> None:
    pushed(grafana)
    grafana.sources["gigawatch"]["readOnly"] = True
    assert pushed(grafana, None)["data source Gigawatch"] == "unchanged"
    with pytest.raises(
        GigawatchError, match=r"is provisioned from files and cannot be changed; leave --datasource out"
    ):
        planned(grafana, DataSource("other:3307"))


def test_without_a_data_source_the_address_of_the_door_is_asked_for(grafana: Any) -> None:
    with pytest.raises(
        GigawatchError, match=r"no data source has the uid gigawatch; say where.*--datasource HOST:PORT"
    ):
        planned(grafana, None)
    pushed(grafana)
    grafana.sources["gigawatch"]["type"] = "postgres"
    with pytest.raises(GigawatchError, match=r"is a 'postgres', expected mysql"):
        planned(grafana, None)


def test_a_grafana_that_is_not_there_is_told_by_its_address() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and not listening: nobody else gets the port
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(
            GigawatchError, match=rf"grafana {url}: does not answer \(\w+\); start it, or name its root"
        ):
            plan(Grafana(url, TOKEN), documents(), None)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [(200, b"<html>hello</html>", "text/html"), (200, b"[1]", "application/json"), (404, b"nothing", "text/plain"),
     (200, b"{broken", "application/json"), (200, b'{"status": "UP"}', "application/json")],
)  # fmt: skip
def test_something_else_that_answers_is_not_taken_for_a_grafana(status: int, body: bytes, kind: str) -> None:
    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Other)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        with pytest.raises(GigawatchError, match="does not answer as a Grafana does"):
            plan(Grafana(f"http://127.0.0.1:{server.server_address[1]}", TOKEN), documents(), None)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize(
    "url", ["ftp://x", "x", "http://me:pw@host", "http://host?verify=False", "http://host#x"]
)
def test_an_address_that_is_none_or_holds_more_is_refused(url: str) -> None:
    with pytest.raises(GigawatchError, match=r"^url: found ") as refused:
        Grafana(url, TOKEN)
    assert "pw" not in str(refused.value)


def test_a_token_comes_from_a_file_or_the_environment_only(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    assert token_from(file, None) == token_from(None, f" {TOKEN}\n") == token_from(file, "another") == TOKEN
    with pytest.raises(GigawatchError, match=r"found no token, expected --token-file or GRAFANA_TOKEN"):
        token_from(None, None)
    with pytest.raises(GigawatchError, match=r"the secret cannot be read"):
        token_from(tmp_path / "none", None)
    for wrong in ("", "two words", "line\nline", "gl\u00fcck"):
        file.write_text(wrong)
        with pytest.raises(GigawatchError, match=r"does not hold a token"):
            token_from(file, None)
