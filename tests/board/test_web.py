"""The board as a process: what it answers, to whom, and what it says when there is nothing good to say."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipeline.board import watch
from pipeline.board.pages import POLICY, Pages
from pipeline.catalog import load
from pipeline.notify.wire_text import wire_labels
from pipeline.serve.users import FAILURES
from tests.patience import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
ON_CI = os.environ.get("CI") == "true"
Open = Callable[..., Any]


def get(board: Any, path: str = "/", **how: Any) -> httpx.Response:
    return httpx.get(f"{board.url}{path}", trust_env=False, timeout=PATIENCE, **how)


def eventually(asked: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not asked():
        assert time.monotonic() < deadline, f"not within {PATIENCE:.0f} s: {what}"
        time.sleep(0.2)


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "pipeline.cli", *arguments], cwd=ROOT, capture_output=True, text=True,
        timeout=PATIENCE,
    )  # fmt: skip


def test_the_page_says_everything_about_an_alert(stage: Any, open_board: Open) -> None:
    stage.alert()
    stage.stands("breach")
    stage.spend()
    stage.publish()
    text = get(open_board(stage.data)).text
    for words in (
        "CapacityShortfall", "eu-west", "3,900 GPUs", "against 4,096 GPUs", "196 GPUs below", "peak-season",
        "Aurora keeps the committed number of healthy GPUs", "18,000 EUR an hour; 196 GPUs",
        '<a href="https://runbooks.example/capacity" rel="noreferrer noopener">', 'Aurora desk, <a href="tel:+49305550100"',
        "SELECT count(DISTINCT gpu)\nFROM gpu", "least 3,900 GPUs at", '<path class="bound"', "1 alert firing, 1 critical",
        "No Alertmanager is named", "47.34M EUR", "fleet-replanning", "Over the ceiling on <strong>2026-11-08</strong>",
        "passed on 2026-11-08",
    ):  # fmt: skip
        assert words in text, words
    assert 'id="problems"' not in text


def test_worst_comes_first_and_pending_is_not_firing(stage: Any, open_board: Open) -> None:
    stage.alert(severity="ticket", region="a", ago=10)
    stage.alert(severity="critical", region="b", ago=500)
    stage.alert("pending", severity="warning", region="c")
    stage.publish()
    text = get(open_board(stage.data)).text
    found = re.findall(r'<article id="alert-\w+" class="alert (\w+)( pending)?', text)
    assert found == [("critical", ""), ("warning", " pending"), ("ticket", "")]
    assert "2 alerts firing, 1 critical" in text


def test_what_comes_from_labels_is_never_markup(stage: Any, open_board: Open) -> None:
    evil = "<script>alert(1)</script>\u202e" + "x" * 10_000
    notes = dict.fromkeys(("summary", "text", "contact", "at_risk", "sql"), evil)
    stage.alert(region=evil, window=evil, unit=evil, labels={"<b>": evil},
                annotations={**notes, "runbook": "javascript:alert(1)"})  # fmt: skip
    stage.alert(region="q", annotations={"runbook": 'https://x/"onmouseover="alert(1)'})
    stage.stands("breach", region=evil, alertname=evil, unit=evil, window=evil)
    stage.stands("breach", region="q", observed=float("nan"), bound=float("inf"))
    stage.publish()
    board = open_board(stage.data)
    text = get(board).text
    assert "<script>alert" not in text and "&lt;script&gt;alert" in text
    assert "\u202e" not in text and "\\u202e" in text
    assert not re.search(r'href="\s*javascript', text) and "javascript:alert(1)" in text
    assert 'https://x/"onmouseover' not in text
    assert len(text) < 200_000
    assert get(board, "/metrics").status_code == 200


def test_every_answer_tells_the_browser_to_trust_nothing_else(shared_board: Any) -> None:
    for path in ("/", "/healthz", "/metrics", "/status.json", "/nowhere"):
        headers = get(shared_board, path).headers
        assert headers["content-security-policy"] == POLICY
        assert "unsafe" not in POLICY and "frame-ancestors 'none'" in POLICY
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-frame-options"] == "DENY"
    assert get(shared_board, "/nowhere").status_code == 404
    assert get(shared_board, "/static/../board.py").status_code == 404
    assert httpx.post(shared_board.url, trust_env=False, timeout=PATIENCE).status_code == 405


def test_a_page_that_the_browser_has_is_not_sent_again_and_files_are_kept_for_ever(shared_board: Any) -> None:
    page = get(shared_board)
    assert page.headers["content-encoding"] == "gzip"
    files = [f"/{name}" for name in re.findall(r'"(static/[0-9a-f]{20}/[\w.]+)"', page.text)]
    assert sorted(name.rpartition("/")[2] for name in files) == [
        "board.css",
        "board.js",
        "dygraph.js",
        "icon.png",
    ]
    for name in files:
        file = get(shared_board, name)
        assert file.status_code == 200 and "immutable" in file.headers["cache-control"]
        again = get(shared_board, name, headers={"If-None-Match": file.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    plain = get(shared_board, files[0], headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert sum(len(gzip.compress(get(shared_board, name).content)) for name in files) < 60_000, "for a phone"


STALLED = "the pipeline has been stalled since 2026-11-29 23:44:45 UTC: the broker does not answer"


def test_a_stall_is_said_in_the_same_words_by_page_readiness_check_and_terminal(
    stage: Any, open_board: Open
) -> None:
    stage.publish(stalled=STALLED)
    board = open_board(stage.data)
    assert f'<h1 class="dead">T{STALLED[1:]}</h1>' in get(board).text
    assert get(board, "/readyz").status_code == 503 and STALLED in get(board, "/readyz").text
    checked = command("status", "--check", "--data", str(stage.data))
    assert checked.returncode == 1 and STALLED in checked.stdout + checked.stderr


def test_health_readiness_and_status_tell_a_supervisor(stage: Any, open_board: Open) -> None:
    stage.publish()
    board = open_board(stage.data)
    assert get(board, "/healthz").text == "ok\n"
    ready = get(board, "/readyz")
    assert (ready.status_code, "running" in ready.text) == (200, True)
    said, told = get(board, "/status.json").json(), command("status", "--json", "--data", str(stage.data))
    other = json.loads(told.stdout)
    for one in (said, other):
        one["pipeline"].pop("age_s"), one["pipeline"].pop("kafka"), one.pop("lag")
    assert said == other
    stage.close()
    eventually(lambda: get(board, "/readyz").status_code == 503, "the pipeline is gone")
    assert "no pipeline runs on it; it has been dead since 20" in get(board, "/readyz").text


def test_a_pipeline_that_ends_or_stalls_is_said_at_the_top(stage: Any, open_board: Open) -> None:
    stage.alert()
    stage.publish()
    board = open_board(stage.data)
    assert "Do not trust" not in get(board).text
    stage.publish(written_at="2026-01-01T00:00:00Z")
    eventually(lambda: "it runs, and hangs or is suspended" in get(board).text, "it stalls")
    assert get(board, "/readyz").status_code == 503
    stage.publish(state="failed", error="disk <full>")
    stage.close()
    eventually(lambda: "The pipeline has failed" in get(board).text, "it fails")
    text = get(board).text
    assert "It said: disk &lt;full&gt;" in text
    assert text.index("Do not trust what is below") < text.index("CapacityShortfall")


def test_a_board_that_no_longer_looks_says_so_itself(stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.alert()
    stage.publish()
    looking = watch.Watch(stage.data, load(), Pages(), None)
    assert b"Do not trust" not in looking.current().body and looking.ready(time.time())[0]
    monkeypatch.setattr(watch, "STUCK_AFTER", -1.0)
    assert b'<h1 class="dead">The board has stopped looking</h1>' in looking.current().body
    assert b"CapacityShortfall" in looking.current().body
    assert looking.ready(time.time()) == (False, "the board has stopped looking")


def test_a_directory_where_nothing_ever_ran_is_no_error_and_no_good_news(
    tmp_path: Path, open_board: Open
) -> None:
    board = open_board(tmp_path)
    text = get(board).text
    assert "no pipeline has ever run here" in text
    assert "Nothing fires" not in text
    assert get(board, "/status.json").status_code == 503
    assert get(board, "/readyz").status_code == 503
    missing = open_board(tmp_path / "not-there")
    assert "The published history cannot be read" in get(missing).text
    assert get(missing, "/readyz").status_code == 503


def test_a_broken_file_is_said_and_once_it_is_whole_the_board_is(stage: Any, open_board: Open) -> None:
    stage.alert()
    stage.publish()
    file = next((stage.data / "alerts_now").rglob("*.parquet"))
    whole = file.read_bytes()
    staged = stage.data / "staging" / "broken"
    staged.write_bytes(b"this is no Parquet")
    staged.replace(file)
    board = open_board(stage.data)
    assert "The published history cannot be read" in get(board).text
    staged.write_bytes(whole)
    staged.replace(file)
    eventually(lambda: "cannot be read" not in get(board).text, "it is whole again")
    assert "CapacityShortfall" in get(board).text


def test_an_alert_that_fires_is_there_without_a_restart(stage: Any, open_board: Open) -> None:
    stage.publish()
    board = open_board(stage.data)
    assert "Nothing fires" in get(board).text
    stage.alert(region="ap-south")
    stage.publish()
    eventually(lambda: "ap-south" in get(board).text, "the alert")


def test_silences_are_shown_until_when_by_whom_and_why(
    stage: Any, open_board: Open, alertmanager: Any
) -> None:
    stage.alert(region="eu-west")
    stage.alert(region="eu-north")
    stage.publish()
    labels = {"alertname": "CapacityShortfall", "clause": "eu-fleet", "contract": "northwind-aurora",
              "region": "eu-west", "severity": "critical"}  # fmt: skip
    httpx.post(
        f"{alertmanager.url}/api/v2/alerts",
        trust_env=False,
        json=[{"labels": wire_labels(labels, "CapacityShortfall")}],
    ).raise_for_status()
    httpx.post(
        f"{alertmanager.url}/api/v2/silences", trust_env=False,
        json={"matchers": [{"name": "region", "value": "eu-.*st", "isRegex": True}], "startsAt": "2026-01-01T00:00:00Z",
              "endsAt": "2099-01-01T08:30:00Z", "createdBy": "ada <b>", "comment": "known & planned"},
    ).raise_for_status()  # fmt: skip
    board = open_board(stage.data, "--alertmanager", alertmanager.url)
    words = "<strong>Silenced</strong> until <time"
    eventually(lambda: words in get(board).text, "the silence")
    text = get(board).text
    assert text.count(words) == 1 and "01 Jan 08:30 UTC" in text
    assert "by ada &lt;b&gt;: known &amp; planned" in text
    assert text.count("not in Alertmanager") == 1, "eu-north was never sent there"
    alertmanager.stop()
    eventually(lambda: "Alertmanager does not answer" in get(board).text, "it is away")
    assert get(board).text.count("<article id=") == 2, "no alert is hidden"


def test_prometheus_tool_finds_no_fault_in_the_metrics(stage: Any, open_board: Open) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        missing = "needs promtool: apt-get install --no-install-recommends prometheus"
        pytest.fail(missing) if ON_CI else pytest.skip(missing)
    stage.alert()
    stage.stands("breach")
    stage.stands("ok", region='a"b\\c\nd')
    stage.con.execute(
        "INSERT INTO fates VALUES ('telemetry.gpu', 0, TIMESTAMP '2026-11-01 00:00:00', 'in', NULL, 5), "
        "('telemetry.gpu', 0, TIMESTAMP '2026-11-01 00:00:00', 'dead_lettered', 'not_json', 5)"
    )
    stage.con.execute("INSERT INTO dirty VALUES ('fates', TIMESTAMP '2026-11-01 00:00:00')")
    waits = [
        {
            "destination": "webhook",
            "count": 3,
            "oldest": "2026-11-01T00:00:00Z",
            "last_error": "x",
            "refused": 0,
        }
    ]
    stage.publish(undelivered=waits, stalled=STALLED)
    answer = get(open_board(stage.data), "/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=answer.text, capture_output=True, text=True
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
    clause = 'alertname="CapacityShortfall",by="region=eu-west",clause="eu-fleet",contract="northwind-aurora"'
    for line in (
        "gigawatch_pipeline_up 1.0",
        "gigawatch_pipeline_stalled 1.0",
        'gigawatch_events_in_total{topic="telemetry.gpu"} 5.0',
        'gigawatch_events_total{fate="dead_lettered",reason="not_json",topic="telemetry.gpu"} 5.0',
        'gigawatch_lag_records{topic="telemetry.gpu"} 7.0',
        'gigawatch_outbox_undelivered{destination="webhook"} 3.0',
        "gigawatch_freshness_p99_seconds 1.6",
        "gigawatch_decision_delay_p99_seconds 1.6",
        f'gigawatch_clause_observed{{{clause},unit="GPUs"}} 3900.0',
        f'gigawatch_clause_bound{{{clause},unit="GPUs"}} 4096.0',
        f'gigawatch_clause_state{{{clause},state="breach"}} 1.0',
        'gigawatch_alerts_firing{severity="critical"} 1.0',
    ):
        assert line in sorted_labels(answer.text), line
    assert "gigawatch_watermark_age_seconds{" in answer.text


def sorted_labels(text: str) -> list[str]:
    """Lines of an exposition with the labels in the order of their names."""

    def in_order(line: str) -> str:
        return re.sub(
            r"\{(.*)\}",
            lambda found: "{" + ",".join(sorted(re.findall(r'\w+="(?:[^"\\]|\\.)*"', found[1]))) + "}",
            line,
        )

    return [in_order(line) for line in text.splitlines()]


def test_a_page_elsewhere_whose_name_points_here_is_not_answered(shared_board: Any) -> None:
    port = shared_board.address.rpartition(":")[2]
    assert get(shared_board, headers={"Host": f"localhost:{port}"}).status_code == 200
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example"):
        refused = get(shared_board, headers={"Host": host})
        assert (refused.status_code, "Gigawatch" in refused.text) == (421, False)


def test_beyond_the_loopback_users_and_tls_are_demanded(tmp_path: Path) -> None:
    refused = command("board", "--data", str(tmp_path), "--bind", "0.0.0.0", "--port", "0")
    assert refused.returncode == 2
    assert refused.stderr.strip() == (
        "gigawatch: --bind 0.0.0.0: open beyond this machine, without --users and --tls-cert; expected a users file and "
        "TLS (--users FILE --tls-cert FILE --tls-key FILE; of `run` the settings users, tls_cert and tls_key), or "
        "--bind 127.0.0.1"
    )
    half = command("board", "--data", str(tmp_path), "--tls-cert", "c.pem", "--port", "0")
    assert half.returncode == 2 and "board: found one of --tls-cert and --tls-key" in half.stderr
    wrong = command("board", "--data", str(tmp_path), "--alertmanager", "am:9093", "--port", "0")
    assert wrong.returncode == 2 and "alertmanager: found 'am:9093'" in wrong.stderr


def test_with_users_and_tls_only_the_right_password_comes_in(
    stage: Any, open_board: Open, users: Any, certificate: tuple[Path, Path]
) -> None:
    stage.publish()
    file, passwords = users
    cert, key = certificate
    board = open_board(
        stage.data, "--bind", "0.0.0.0", "--users", str(file), "--tls-cert", str(cert), "--tls-key", str(key)
    )
    url = f"https://127.0.0.1:{board.address.rpartition(':')[2]}"
    with httpx.Client(
        verify=ssl.create_default_context(cafile=str(cert)), trust_env=False, timeout=PATIENCE
    ) as client:
        asked = client.get(url)
        assert asked.status_code == 401 and asked.headers["www-authenticate"].startswith("Basic ")
        assert "Gigawatch" not in asked.text
        assert client.get(url, auth=("alice", passwords["alice"])).status_code == 200
        assert client.get(f"{url}/healthz").status_code == 200
        assert [client.get(url + path).status_code for path in ("/metrics", "/status.json", "/readyz")] == [
            401
        ] * 3
        for _ in range(FAILURES):
            assert client.get(url, auth=("alice", passwords["bob"])).status_code == 401
        blocked = client.get(url, auth=("alice", passwords["alice"]))
        assert (blocked.status_code, blocked.headers["retry-after"]) == (429, "60"), (
            "five wrong ones in a minute"
        )


def test_a_board_over_nothing_is_refused(tmp_path: Path) -> None:
    for data in (tmp_path, tmp_path / "not-there"):
        refused = command("board", "--data", str(data), "--port", "0")
        assert refused.returncode == 2
        assert f"{data}: no status there, expected the data directory of a pipeline" in refused.stderr


def test_a_port_that_is_taken_is_said(shared_board: Any, stage: Any) -> None:
    stage.publish()
    port = shared_board.address.rpartition(":")[2]
    second = command("board", "--data", str(stage.data), "--port", port)
    assert second.returncode == 2
    assert f"--port {port}: the board cannot be opened at 127.0.0.1" in second.stderr


def test_a_child_ends_when_its_parent_does_and_at_sigterm(stage: Any, open_board: Open) -> None:
    stage.publish()
    first, second = open_board(stage.data), open_board(stage.data)
    assert first.stop() == 0
    second.process.send_signal(signal.SIGTERM)
    assert second.process.wait(PATIENCE) == 0
    assert second.log.read_text() == ""


def test_the_wheel_has_the_pages_and_what_goes_with_them() -> None:
    from hatchling.builders.wheel import WheelBuilder

    builder = WheelBuilder(str(ROOT))
    found = {file.distribution_path for file in builder.recurse_included_files()}
    pages = {f"pipeline/board/assets/{path.name}" for path in (ROOT / "pipeline/board/assets").iterdir()}
    assert pages <= found
    assert {"pipeline/board/assets/page.html", "pipeline/board/assets/board.js"} <= pages
