"""The demo as its users start it: a process that begins, plays, compares, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from pipeline.catalog import load
from pipeline.demo.conclusion import published, summary_of, try_next
from pipeline.demo.folder import MADE, MARK, DemoFolder
from pipeline.demo.play_result import outcome
from pipeline.demo.receiver import Receiver
from pipeline.demo.screen import View, dashboard
from pipeline.errors import DataDirectoryInUse, LedgerError
from pipeline.history.query import open_views
from pipeline.ledger import status
from pipeline.simulate import scenarios
from pipeline.simulate.writer import Sent
from tests.patience import PATIENCE

REPORT = {
    *("events", "set_aside", "by_topic", "offsets", "rate_events_per_s", "freshness_s"),
    *("decision_delay_s", "alerts", "expected_alerts_missing", "unexpected_alerts"),
}
ALERT = {
    *("alertname", "clause", "labels", "state", "active_at", "fired_at", "resolved_at"),
    *("observed", "bound", "unit"),
}
ROOT = Path(__file__).resolve().parents[2]
FATES = ("aggregated", "duplicate", "quarantined", "dead_lettered")
# What must fire and cannot: the fleet of `steady` keeps every promise.
IMPOSSIBLE = """
expected:
  - alertname: CapacityShortfall
    clause: us-east-floor
    by: {region: us-east}
    onset: 30s
    from: 40s
    to: 2m
    why: It never comes; the demo has to say so.
"""


@pytest.fixture
def short(tmp_path: Path) -> Path:
    """`steady` as a file of the user's own: four minutes, three days of charges."""
    text = (scenarios.DIRECTORY / "steady.yaml").read_text()
    for old, new in (("scenario: steady", "scenario: short"), ("30m", "4m"), ("history: 20d", "history: 3d")):
        assert old in text
        text = text.replace(old, new)
    shutil.copy(scenarios.DIRECTORY / "northline.contract.yaml", tmp_path)
    (tmp_path / "short.yaml").write_text(text)
    return tmp_path / "short.yaml"


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "pipeline.cli", "demo", *map(str, arguments)]


def play(*arguments: str | Path, code: int = 0) -> str:
    """A headless demo from start to end; gives what it printed."""
    done = subprocess.run(
        command(*arguments), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )  # fmt: skip
    assert done.returncode == code, done.stdout
    return done.stdout


def families(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


@pytest.fixture
def started(tmp_path: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Demos that a test starts; those that it forgets are stopped."""
    running: list[subprocess.Popen[bytes]] = []
    yield running
    for process in running:
        if process.poll() is None:
            process.kill()
        process.wait()


def start(
    started: list[subprocess.Popen[bytes]], data: Path, *arguments: str
) -> tuple[subprocess.Popen[bytes], list[psutil.Process]]:
    """A demo under way, once its pipeline has taken events in, and the processes that it has started."""
    process = subprocess.Popen(
        command("--data", data, *arguments), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    started.append(process)
    deadline = time.monotonic() + PATIENCE
    while not ((found := status.read(data)) and found["events"]["in"] > 3000):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    return process, families(process.pid)


def gone(children: list[psutil.Process]) -> bool:
    return not psutil.wait_procs(children, timeout=PATIENCE)[1]


@pytest.mark.slow
def test_the_peak_season_ends_with_exactly_the_promised_alerts(tmp_path: Path) -> None:
    data, file = tmp_path / "demo", tmp_path / "report.json"
    text = play("--speed", "60", "--headless", "--data", data, "--report", file)

    report = json.loads(file.read_text())
    assert set(report) == REPORT
    assert report["expected_alerts_missing"] == report["unexpected_alerts"] == []
    promised = sorted((a.alertname, a.clause) for a in scenarios.load("peak-season").expected)
    fired = [a for a in report["alerts"] if a["alertname"] != "Watchdog"]
    assert sorted((a["alertname"], a["clause"]) for a in fired) == promised
    assert all(set(alert) == ALERT for alert in report["alerts"])
    for counts in (report["events"], *report["by_topic"].values()):
        assert counts["in"] == sum(counts[fate] for fate in FATES) > 0
    # One message is one event here, so that the offsets say how many there must be.
    for topic, offsets in report["offsets"].items():
        assert report["by_topic"][topic]["in"] == sum(offsets.values())
    assert report["decision_delay_s"] == {"p50": None, "p99": None}
    assert report["freshness_s"]["p99"] > 0

    assert "Exactly the promised alerts came." in text and "not meaningful" in text
    for name, _ in promised:
        assert f"firing    {name}" in text, "delivered to the receiver, and shown"
    assert not text.count("\x1b"), "a file is no terminal"


@pytest.mark.slow
@pytest.mark.long
def test_the_peak_season_that_is_scraped_from_exporters_ends_with_exactly_the_promised_alerts(
    tmp_path: Path,
) -> None:
    data, file = tmp_path / "demo", tmp_path / "report.json"
    text = play("--scenario", "dcgm", "--speed", "40", "--headless", "--data", data, "--report", file)
    report = json.loads(file.read_text())
    assert report["expected_alerts_missing"] == report["unexpected_alerts"] == []
    promised = sorted((a.alertname, a.clause) for a in scenarios.load("peak-season").expected)
    fired = [a for a in report["alerts"] if a["alertname"] != "Watchdog"]
    assert sorted((a["alertname"], a["clause"]) for a in fired) == promised
    assert report["events"]["in"] == report["events"]["aggregated"], "nothing that was scraped is lost"
    assert "123 exporters such as http://127.0.0.1:" in text and "Exactly the promised alerts came." in text
    with open_views(data) as con:
        origins = "SELECT count(DISTINCT gpu), bool_and(source LIKE '/collect/dcgm/%') FROM gpu"
        assert con.execute(origins).fetchone() == (scenarios.load("dcgm").fleet.gpus, True)


@pytest.mark.slow
def test_in_steady_times_nothing_fires_but_the_watchdog(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    text = play("--scenario", "steady", "--duration", "15s", "--data", tmp_path / "demo", "--report", file)
    report = json.loads(file.read_text())
    assert [alert["alertname"] for alert in report["alerts"]] == ["Watchdog"]
    assert report["unexpected_alerts"] == report["expected_alerts_missing"] == []
    assert "Nothing had to fire" in text


@pytest.mark.slow
def test_an_interrupted_demo_leaves_no_process_and_a_second_run_starts_clean(
    tmp_path: Path, short: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    data = tmp_path / "demo"
    process, children = start(started, data, "--scenario", str(short), "--speed", "4")
    assert any("java" in child.name() for child in children) and len(children) >= 2
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == 130
    assert gone(children)
    before = status.read(data)
    assert before is not None and before["state"] == "stopped", "the pipeline was let finish"
    left = {path.name for path in data.iterdir()} - {MARK, ".gitignore"}
    assert left <= set(MADE), "a demo that begins anew takes away all that one makes"

    (data / "notebook.ipynb").write_text("somebody's work")
    file = tmp_path / "report.json"
    text = play("--scenario", short, "--speed", "20", "--data", data, "--report", file)
    report = json.loads(file.read_text())
    assert {alert["alertname"] for alert in report["alerts"]} == {"Watchdog"}
    assert (
        report["events"]["in"]
        == report["events"]["aggregated"]
        == sum(n for offsets in report["offsets"].values() for n in offsets.values())
    ), "nothing of the first run is left"
    assert (data / "notebook.ipynb").read_text() == "somebody's work"
    assert "Nothing had to fire" in text


@pytest.mark.slow
def test_a_demo_that_goes_on_tells_the_rest_of_the_story_and_counts_nothing_twice(
    tmp_path: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    data, file = tmp_path / "demo", tmp_path / "report.json"
    process, children = start(started, data, "--speed", "60")
    process.kill()  # without a word: not even the demo can tidy up
    process.wait()
    assert gone(children)

    play("--keep", "--data", data, "--report", file)
    report = json.loads(file.read_text())
    assert report["expected_alerts_missing"] == report["unexpected_alerts"] == []
    counts = report["events"]
    assert counts["in"] == counts["aggregated"] + counts["duplicate"]
    kept = json.loads((data / MARK).read_text())
    assert (kept["scenario"], kept["speed"]) == ("peak-season", 60.0)
    with open_views(data) as con:
        twice = "SELECT count(*) FROM (SELECT source, id, idx FROM gpu GROUP BY ALL HAVING count(*) > 1)"
        rows = "SELECT count(*), count(DISTINCT time_bucket(INTERVAL 30 SECOND, time)) * 2840 FROM gpu WHERE time < ?"
        assert con.execute(twice).fetchone() == (0,)
        until = datetime.fromtimestamp(kept["start"] + 13 * 60, UTC).replace(tzinfo=None)
        reported, slots = con.execute(rows, [until]).fetchone() or (0, 1)
    assert reported == slots - 26 * 40, "every report of the first 13 minutes, in which 40 GPUs are not there"


@pytest.mark.slow
def test_an_alert_that_does_not_come_is_named_and_ends_with_code_1(tmp_path: Path, short: Path) -> None:
    short.write_text(short.read_text() + IMPOSSIBLE)
    file = tmp_path / "report.json"
    text = play("--scenario", short, "--speed", "20", "--data", tmp_path / "demo", "--report", file, code=1)
    [missing] = json.loads(file.read_text())["expected_alerts_missing"]
    assert (missing["alertname"], missing["clause"], missing["reason"]) == (
        "CapacityShortfall", "us-east-floor", "never fired",
    )  # fmt: skip
    assert "missing: CapacityShortfall us-east-floor: never fired" in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--scenario", "peak-saeson"], "did you mean 'peak-season'?"),
        (["--speed", "0.5"], "expected at least 1"),
        (["--speed", "2", "--duration", "60s"], "found both a speed and a duration"),
        (["--duration", "soon"], "expected a duration such as 90s"),
        (["--report", "no/such/folder/report.json"], "expected a file in a directory that exists"),
    ],
)
def test_what_cannot_be_played_is_refused_before_anything_is_touched(
    tmp_path: Path, arguments: list[str], said: str
) -> None:
    text = play(*arguments, "--data", tmp_path / "demo", code=2)
    assert said in text and "Traceback" not in text
    assert not (tmp_path / "demo").exists()


def test_a_directory_that_no_demo_made_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "history").mkdir()
    (tmp_path / "history" / "thesis.txt").write_text("ten years")
    text = play("--data", tmp_path, code=5)
    assert "not empty, and not made by a demo" in text
    assert [p.name for p in tmp_path.iterdir()] == ["history"]
    assert (tmp_path / "history" / "thesis.txt").read_text() == "ten years"


def test_a_second_demo_in_the_same_directory_is_refused_while_the_first_works(tmp_path: Path) -> None:
    with DemoFolder(tmp_path / "demo") as folder:
        (folder.data / "ledger.duckdb").write_text("precious")
        with (
            pytest.raises(DataDirectoryInUse, match="another demo runs there"),
            DemoFolder(tmp_path / "demo"),
        ):
            pass
        assert (folder.data / "ledger.duckdb").exists()
    with DemoFolder(tmp_path / "demo") as folder:
        assert not (folder.data / "ledger.duckdb").exists(), "the next one starts clean"


def test_a_link_out_of_the_directory_is_cut_and_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("kept")
    with DemoFolder(tmp_path / "demo") as folder:
        (folder.data / "history").symlink_to(outside)
    with DemoFolder(tmp_path / "demo") as folder:
        assert not (folder.data / "history").is_symlink()
    assert (outside / "file").read_text() == "kept"


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "demo").write_text("a file")
    with (
        pytest.raises(LedgerError, match="name another directory with --data"),
        DemoFolder(tmp_path / "demo"),
    ):
        pass


def test_the_receiver_takes_what_the_webhook_posts_and_refuses_the_rest() -> None:
    alert = {
        "status": "resolved", "labels": {"alertname": "A", "severity": "warning"}, "annotations": {},
        "startsAt": "2026-11-23T10:00:00Z", "endsAt": "2026-11-23T10:05:00Z",
    }  # fmt: skip
    with Receiver() as receiver:
        post = [
            httpx.post(receiver.url, content=body, trust_env=False, timeout=PATIENCE).status_code
            for body in (json.dumps({"alerts": [alert]}), "not json", '{"alerts": [{}]}')
        ]
    assert post == [200, 400, 400]
    [heard] = receiver.deliveries
    assert heard.is_of({"alertname": "A", "severity": "critical"}) and not heard.is_of({"alertname": "B"})
    assert datetime.fromtimestamp(heard.happened_at, UTC).isoformat() == "2026-11-23T10:05:00+00:00"


START = 1_795_460_400


def written(standing: int, alerts: int, label: str = "eu-west") -> dict[str, Any]:
    """A status with so many rows, as the pipeline writes it."""
    at = "2026-11-23T19:00:00Z"
    counts = {"in": 218_787, "aggregated": 218_787, "duplicate": 0, "quarantined": 0, "dead_lettered": 0}
    alert = {
        "alertname": "CapacityShortfall", "clause": "eu-west-floor", "state": "firing", "observed": 1208.0,
        "bound": 1280.0, "unit": "GPUs", "active_at": at, "fired_at": at, "resolved_at": None, "annotations": {},
    }  # fmt: skip
    row = {
        "contract": "c", "alertname": "QueueWaitBreach", "by_values": json.dumps({"queue": label}), "state": "breach",
        "observed": 380.75, "bound": 240.0, "unit": "s", "since": at, "time": at,
    }  # fmt: skip
    return {
        "state": "running", "written_at": at, "pid": os.getpid(), "bootstrap": "127.0.0.1:9092", "contracts": [],
        "contract_error": None, "events": counts, "by_topic": {"telemetry.gpu": {**counts, "reasons": {}}},
        "offsets": {"telemetry.gpu": {"0": 218_787}}, "watermarks": {"telemetry.gpu": at},
        "alerts": [{**alert, "labels": {"region": label, "n": str(n)}} for n in range(alerts)],
        "standing": [{**row, "clause": f"clause-{n}"} for n in range(standing)],
        "undelivered": [], "lag": {"telemetry.gpu": {"0": 12_345}}, "rate_events_per_s": 4697.6,
        "freshness_s": {"p50": 0.4, "p99": 1.2}, "decision_delay_s": {"p50": 3.0, "p99": 9.0},
    }  # fmt: skip


def drawn(content: Any, width: int, height: int = 50) -> list[str]:
    console = Console(width=width, height=height, force_terminal=True, color_system=None)
    with console.capture() as captured:
        console.print(content)
    return captured.get().splitlines()


@given(
    standing=st.integers(0, 40), alerts=st.integers(0, 30), width=st.integers(80, 250), height=st.integers(24, 70)
)  # fmt: skip
def test_the_dashboard_fits_into_every_terminal_from_80_by_24(
    standing: int, alerts: int, width: int, height: int
) -> None:
    peak = scenarios.Play(scenarios.load("peak-season"), START, 20.0)
    view = View(peak, time.time(), written(standing, alerts), Sent(event_time_ms=(START + 1000) * 1000))
    lines = drawn(dashboard(view, width, height), width, height)
    assert len(lines) < height
    assert max(map(len, lines)) <= width


def test_what_fires_is_seen_however_short_the_terminal_is() -> None:
    peak = scenarios.Play(scenarios.load("peak-season"), START, 20.0)
    found = written(30, 0)
    found["standing"][29] |= {"clause": "the-one", "alertname": "CapacityShortfall", "by_values": "{}"}
    found["alerts"] = [{**written(0, 1)["alerts"][0], "clause": "the-one"}]
    view = View(peak, time.time(), found, Sent(event_time_ms=(START + 1000) * 1000))
    assert any("firing" in line and "the-one" in line for line in drawn(dashboard(view, 80, 24), 80, 24))


def test_a_label_does_not_draw_on_the_terminal() -> None:
    peak = scenarios.Play(scenarios.load("peak-season"), START, 20.0)
    evil = "\x1b]0;owned\x07\x1b[2J\r\n[bold]x[/]\u202e"
    view = View(peak, time.time(), written(2, 2, evil), Sent(event_time_ms=(START + 1000) * 1000))
    text = "\n".join(drawn(dashboard(view, 200, 40), 200, 40))
    assert not {"\x1b", "\x07", "\r", "\u202e"} & set(text)
    assert "[bold]x[/]" in text, "shown as it is, not taken for a style"


def test_a_run_in_real_time_tells_its_delays() -> None:
    steady = scenarios.Play(scenarios.load("steady"), START, 1.0)
    result = outcome(steady, written(1, 0), [], 100.0, 4.0)
    text = "\n".join(drawn(summary_of(result, Path("demo"), None, 120), 120))
    assert "decision delay p99 9s" in text and "not meaningful" not in text
    assert result.report["decision_delay_s"] == {"p50": 3.0, "p99": 9.0}


def test_the_commands_to_try_next_can_be_pasted(tmp_path: Path) -> None:
    lines = try_next(Path("my demo"))
    assert len(lines) == 3
    assert all("'my demo'" in line and "\n" not in line for line in lines)


def test_what_to_try_next_asks_only_for_what_is_published(tmp_path: Path) -> None:
    ledgers = runpy.run_path(str(ROOT / "tests" / "ledger" / "conftest.py"))
    data, catalog = tmp_path / "data", load()
    small = ledgers["SmallLedger"](data, catalog)
    assert published(data, catalog) == set()
    small.add("gpu", [ledgers["gpu_row"](START + n) for n in range(60)])
    small.watermark(START + 60)
    small.publish()
    small.close()
    lines = try_next(data, published(data, catalog))
    assert len(lines) == 2 and "gpu_15m" in lines[1], "no alert has been published"
    done = subprocess.run(
        [sys.executable, "-P", "-m", "pipeline.cli", *shlex.split(lines[1])[1:], "--format", "csv"], cwd=ROOT,
        capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0 and len(done.stdout.splitlines()) > 1, done.stderr
