"""What a run is told and must not repeat stands in nothing that it writes, whoever writes it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import duckdb
import httpx
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import secret
from pipeline.broker.kafka import EmbeddedKafka, free_port
from pipeline.errors import SettingsError
from pipeline.history.query import ask, open_views
from pipeline.notify.post import checked_url
from pipeline.settings import load_settings
from tests.patience import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
PASSWORD, TOKEN, PATH, USERINFO, GRAFANA = (
    'sasl"Pass\\word-1', "webhook-token-2", "T0AAAA/B0BBBB/path-3", "alert-manager-4", "glsa_grafana-5",
)  # fmt: skip
SECRETS = (PASSWORD, TOKEN, PATH, USERINFO, GRAFANA)
JAAS = (
    "org.apache.kafka.common.security.plain.PlainLoginModule required "
    'username="gigawatch" password="{0}" user_gigawatch="{0}";'
)


class Rude(BaseHTTPRequestHandler):
    """Refuses everything, and repeats what it was sent."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        said = f"cannot POST {self.path} with {self.headers.get('authorization')}".encode()
        self.send_response(404)
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    do_GET = do_POST

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def rude() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Rude) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[str]:
    """A broker that asks for a password."""
    plain, safe, controller = free_port(), free_port(), free_port()
    jaas = JAAS.format(PASSWORD.replace("\\", "\\\\").replace('"', '\\"')).replace("\\", "\\\\")
    config = {
        "listeners": f"PLAINTEXT://127.0.0.1:{plain},SAFE://127.0.0.1:{safe},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{plain},SAFE://127.0.0.1:{safe}",
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SAFE:SASL_PLAINTEXT",
        "listener.name.safe.sasl.enabled.mechanisms": "PLAIN",
        "listener.name.safe.plain.sasl.jaas.config": jaas,
    }
    with EmbeddedKafka(tmp_path / "kafka", port=plain, heap="256m", config=config):
        yield f"127.0.0.1:{safe}"


def command(*arguments: str, **variables: str) -> str:
    """All that it says, on both streams."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIGAWATCH_")} | variables
    done = subprocess.run(
        [sys.executable, "-P", "-m", "pipeline.cli", "--log-level", "debug", *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, env=environment,
    )  # fmt: skip
    return done.stdout + done.stderr


def files_of(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield str(path), path.read_bytes()


def test_nothing_that_a_run_writes_has_a_secret_in_it(
    guarded: str, rude: str, tmp_path: Path, worker_factory: Any, eventually: Any
) -> None:
    (tmp_path / "password").write_text(PASSWORD + "\n")
    (tmp_path / "token").write_text(TOKEN + "\n")
    variables = {
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "PLAIN",
        "sasl_plain_username": "gigawatch",
        "sasl_password_file": tmp_path / "password",
        "webhook": f"http://{rude}/services/{PATH}",
        "webhook_token_file": tmp_path / "token",
        "alertmanager": f"http://ada:{USERINFO}@{rude}",
        "contract": ROOT / "schemas" / "example-contract.yaml",
    }
    settings = {f"GIGAWATCH_{name.upper()}": str(value) for name, value in variables.items()}
    command("topics", "create", "--bootstrap", guarded, **settings)
    worker = worker_factory(
        guarded, **variables, log_level="debug", door="127.0.0.1:0", board="127.0.0.1:0"
    ).start().await_begun()  # fmt: skip
    found: dict[str, bytes] = {}

    def refused_by_both(status: dict[str, Any]) -> bool:
        return {row["destination"] for row in status["undelivered"] if row["last_error"]} >= {
            "alertmanager",
            "webhook",
        }

    worker.await_status("both destinations were tried", refused_by_both)
    worker.await_status(
        "door and board are open", lambda s: all(one["address"] for one in s["servers"].values())
    )
    board = worker.status()["servers"]["board"]["address"]
    for path in ("/", "/metrics", "/status.json", "/readyz"):
        found[f"the board's {path}"] = httpx.get(
            f"http://{board}{path}", trust_env=False, timeout=PATIENCE
        ).content
    for child in psutil.Process(worker.process.pid).children(recursive=True):
        found[f"the command line of {child.pid}"] = "\0".join(child.cmdline()).encode()
    for words in (["status"], ["status", "--json"], ["doctor", "--bootstrap", guarded]):
        found[" ".join(words)] = command(*words, "--data", str(worker.data), **settings).encode()
    push = command("dashboards", "push", "--url", f"http://{rude}", GRAFANA_TOKEN=GRAFANA)
    found["dashboards push"] = push.encode()
    with open_views(worker.data) as con:
        for view in ("alerts", "alerts_now", "health", "clauses"):
            found[view] = repr(list(ask(con, f"SELECT * FROM {view}").rows)).encode()
    assert worker.stop() == 0, worker.said()
    with duckdb.connect(str(next(worker.data.glob("*.duckdb"))), read_only=True) as con:
        for (table,) in con.execute("SELECT table_name FROM duckdb_tables()").fetchall():
            found[f"ledger, {table}"] = repr(con.execute(f'SELECT * FROM "{table}"').fetchall()).encode()
    found |= dict(files_of(worker.data))
    log = worker.log.read_text()
    found["the log"] = log.encode()

    assert "Starting KafkaAdminClient with configuration" in log and "HTTP Request: POST" in log, (
        "it is at debug"
    )
    assert secret.HIDDEN in log
    assert log.count("SASL without TLS") == 1
    assert (
        b"cannot POST" in found["ledger, outbox"] and rude.encode() in found["doctor --bootstrap " + guarded]
    )
    forms = {form.encode() for one in SECRETS for form in secret._spelled(one)}
    leaks = sorted(
        {(place, form.decode()) for place, text in found.items() for form in forms if form in text}
    )
    assert leaks == []


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("hooks.example/services/T0/B0/abcdef", "hooks.example…"),
        ("https//hooks.example/services/T0/B0/abcdef", "https//hooks.example…"),
        ("htps://hooks.example/services/T0/B0/abcdef?key=1", "htps://hooks.example…"),
        ("https:///services/T0/B0/abcdef", "https://…"),
        ("https://ada:let-me-in@hooks.example:port/x", "https://…"),
        ("ada:let/me/in@hooks.example", "ada:…"),
        ("https://hooks.example:99999/T0/abcdef", "https://hooks.example:99999…"),
        ("am:9093", "am:9093"),
    ],
)
def test_a_mistyped_address_is_quoted_as_far_as_its_host(url: str, shown: str) -> None:
    with pytest.raises(SettingsError) as error:
        checked_url(url, "webhook")
    assert f"webhook: found {shown!r}, expected" in str(error.value)


def test_a_wrong_type_of_a_url_is_not_quoted(tmp_path: Path) -> None:
    (tmp_path / "g.toml").write_text('webhook = ["https://hooks.example/services/abcdef"]')
    with pytest.raises(SettingsError, match="webhook: ") as error:
        load_settings(tmp_path / "g.toml")
    assert "abcdef" not in str(error.value)


@given(
    st.text(
        st.characters(exclude_categories=["Cs"], exclude_characters=secret.HIDDEN),
        min_size=secret.LEAST,
        max_size=30,
    )
)
def test_a_secret_is_hidden_however_it_is_quoted(value: str) -> None:
    secret.keep(value)
    try:
        for written in (
            value,
            repr(value),
            json.dumps(value),
            repr(value.encode()),
            json.dumps([repr(value)]),
        ):
            text = secret.hidden(f"is {written}, then")
            assert secret.HIDDEN in text and value not in text
    finally:
        secret._forms.clear()
