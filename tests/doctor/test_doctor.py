"""What `gigawatch doctor` concludes from what it sees, without a broker: versions, disk, files, clocks, words."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import httpx
import pytest
from rich.console import Console

from pipeline.catalog import load
from pipeline.doctor import kafka_checks, machine_checks, receiver_checks
from pipeline.doctor.checks import checks, examine
from pipeline.doctor.findings import Finding, as_document, fail, ok, page, warn, worst
from pipeline.errors import BrokerUnreachable, SchemaError
from pipeline.ledger import status
from pipeline.ledger.lock import DirectoryLock
from pipeline.ledger.store import Ledger
from pipeline.settings import load_settings
from pipeline.stream.broker import BrokerFacts, TopicFacts

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "schemas" / "example-contract.yaml"
NOW = 1_795_000_000.0
GIB = 2**30


def verdicts(findings: Any) -> list[str]:
    return [finding.verdict for finding in findings]


# -- versions and ports --------------------------------------------------------------------------------------


def test_what_is_installed_here_is_what_the_package_asks_for() -> None:
    [found] = machine_checks.versions()
    assert found.verdict == "ok"
    assert "faust-streaming 0.15.3" in found.found and "aiokafka 0.14.0" in found.found


def test_another_aiokafka_than_the_pinned_one_and_a_missing_package_are_named() -> None:
    wanted = ["faust-streaming==0.15.3", "aiokafka[lz4]==0.14.0", "duckdb<3,>=2.0", 'pytest; extra == "dev"']
    have = {"faust-streaming": "0.15.3", "aiokafka": "0.15.0", "duckdb": None, "pytest": None}
    assert list(machine_checks.unmet(wanted, have)) == [
        "found aiokafka 0.15.0, expected ==0.14.0",
        "found duckdb missing, expected <3,>=2.0",
    ]


def test_an_old_python_fails() -> None:
    [found] = machine_checks.versions(python=(3, 10))
    assert (found.verdict, found.found) == ("fail", "Python 3.10")
    assert "3.11" in found.remedy


def test_a_taken_port_is_to_look_at_unless_our_own_pipeline_has_it() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        for running, verdict in ((False, "warn"), (True, "ok")):
            [found] = machine_checks.port("the board", "127.0.0.1", number, running)
            assert (found.verdict, f"127.0.0.1:{number}" in found.found) == (verdict, True)
    [found] = machine_checks.port("the board", "127.0.0.1", number, False)
    assert found.verdict == "ok"


# -- disk ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("free", "verdict"), [(GIB - 1, "fail"), (GIB, "warn"), (10 * GIB, "ok")])
def test_room_is_counted_from_what_a_seal_needs(free: int, verdict: str) -> None:
    assert machine_checks.room(Path("data"), free, 100 * GIB).verdict == verdict


def test_a_look_at_the_disk_leaves_nothing_behind_and_makes_no_data_directory(tmp_path: Path) -> None:
    found = list(machine_checks.disk(tmp_path / "not" / "there"))
    assert len(found) == 2 and "fail" not in verdicts(found)
    assert all(str(tmp_path) in finding.found for finding in found)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_a_file_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    [found] = machine_checks.disk(tmp_path / "data")
    assert found.verdict == "fail" and "--data" in found.remedy


# -- contract ------------------------------------------------------------------------------------------------


def test_a_contract_is_in_force_or_not_by_its_term() -> None:
    inside = datetime(2026, 6, 1, tzinfo=UTC).timestamp()
    [found] = machine_checks.contract(EXAMPLE, None, inside)
    assert found.verdict == "ok" and "8 clauses, in force" in found.found
    [found] = machine_checks.contract(EXAMPLE, None, inside + 20 * 365 * 86_400)
    assert found.verdict == "warn" and "not in force" in found.found


def test_a_wrong_contract_fails_with_its_first_fault_and_its_place(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(
        EXAMPLE.read_text().replace("Europe/Berlin", "Europe/Berln").replace("queue_wait_p95", "p59")
    )
    [found] = machine_checks.contract(wrong, None, NOW)
    assert found.verdict == "fail"
    assert "wrong.yaml:" in found.found and "more)" in found.found
    assert found.remedy.endswith(f"gigawatch contract check {wrong}")


def test_no_contract_is_to_look_at() -> None:
    assert verdicts(machine_checks.contract(None, None, NOW)) == ["warn"]


# -- data directory ------------------------------------------------------------------------------------------


def written(data: Path, pid: int, age: float, state: str = "running", **more: Any) -> None:
    at = (datetime.fromtimestamp(NOW, UTC) - timedelta(seconds=age)).isoformat()
    last = {"written_at": at, "pid": pid, "state": state, "contract_error": None, "undelivered": [], **more}
    status.StatusFile(data).write(last)


@pytest.fixture
def used(tmp_path: Path) -> Path:
    """A data directory whose ledger a pipeline has written, bound to a cluster, and closed."""
    ledger = Ledger(tmp_path / "data", load())
    ledger.bind_cluster("cluster-one")
    ledger.close()
    return tmp_path / "data"


def test_a_directory_that_was_never_used_is_in_order(tmp_path: Path) -> None:
    assert verdicts(machine_checks.directory(tmp_path / "data", NOW)) == ["ok"]
    assert machine_checks.ledger_cluster(tmp_path / "data") is None


def test_a_stopped_pipeline_is_told_from_one_that_died(used: Path) -> None:
    written(used, 7, 100, "stopped")
    assert verdicts(machine_checks.directory(used, NOW)) == ["ok", "ok"]
    written(used, 7, 100)
    died, ledger = machine_checks.directory(used, NOW)
    assert died.verdict == "warn" and "without a word" in died.found
    assert ledger.verdict == "ok" and "can be read" in ledger.found
    assert machine_checks.ledger_cluster(used) == "cluster-one"


def test_a_living_pipeline_is_well_until_its_status_grows_old(used: Path) -> None:
    import os

    lock = DirectoryLock(used)
    try:
        for age, verdict in ((2, "ok"), (300, "fail")):
            written(used, os.getpid(), age)
            [found] = machine_checks.directory(used, NOW)
            assert found.verdict == verdict and f"process {os.getpid()} runs" in found.found
    finally:
        lock.release()


def test_a_stall_an_error_and_a_clause_that_matches_nothing_are_told_in_the_words_of_the_pipeline(
    used: Path,
) -> None:
    import os

    stalled = "the pipeline has been stalled since 2026-11-29 23:30:00 UTC: the broker does not answer"
    clause = (
        "clause floor of c matches nothing that was ever seen: region is 'boralis'; did you mean 'borealis'?"
    )
    lock = DirectoryLock(used)
    try:
        written(used, os.getpid(), 2, stalled=stalled, unmatched=[clause])
        found = list(machine_checks.directory(used, NOW))
    finally:
        lock.release()
    assert verdicts(found) == ["fail", "fail"]
    assert stalled in found[0].found and found[1].found == clause and "`match`" in found[1].remedy
    written(used, 7, 100, "failed", error="no space left on the disk; free space")
    failed, *_ = machine_checks.directory(used, NOW)
    assert failed.verdict == "fail" and "with an error 1m40s ago: no space left on the disk" in failed.found


def test_without_a_pipeline_the_contract_is_compared_with_what_the_ledger_has_seen(stage: Any) -> None:
    stage.small.add("gpu", [stage.gpu(stage.now - 60)])
    stage.small.watermark(stage.now)
    assert list(machine_checks.matches(stage.data, EXAMPLE, None, stage.now)) == [], (
        "whoever runs on it says so itself"
    )
    stage.close()
    found = list(machine_checks.matches(stage.data, EXAMPLE, None, stage.now))
    assert set(verdicts(found)) == {"fail", "warn"}, "bills may still come"
    (fleet,) = [f.found for f in found if f.found.startswith("clause eu-fleet of northwind-aurora ")]
    assert "provider is 'aurora', and was 'azure'" in fleet


def test_what_the_pipeline_complains_of_is_told(used: Path) -> None:
    row = {"destination": "webhook", "count": 3, "oldest": None, "last_error": "HTTP 503", "refused": 0}
    written(used, 7, 1, "stopped", contract_error="new.yaml:1:1 no", undelivered=[row])
    found = list(machine_checks.directory(used, NOW))
    assert verdicts(found) == ["ok", "fail", "warn", "ok"]
    assert "new.yaml:1:1 no" in found[1].found and "3 alerts wait for webhook: HTTP 503" in found[2].found


def test_a_ledger_of_a_newer_program_and_a_broken_one_fail(used: Path) -> None:
    with duckdb.connect(str(used / "ledger.duckdb")) as con:
        con.execute("UPDATE meta SET value = '999' WHERE key = 'schema_version'")
    assert machine_checks.ledger(used).verdict == "fail"
    (used / "ledger.duckdb").write_bytes(b"no database at all" * 1000)
    found = machine_checks.ledger(used)
    assert found.verdict == "fail" and "backup" in found.remedy
    assert machine_checks.ledger_cluster(used) is None


# -- broker --------------------------------------------------------------------------------------------------

APPENDED = {
    "message.timestamp.type": "LogAppendTime",
    "max.message.bytes": "1048588",
    "cleanup.policy": "delete",
}


def topic(records: int = 1, newest_ms: int | None = None, replication: int = 1, **config: str) -> TopicFacts:
    changed = {name.replace("_", "."): value for name, value in config.items()}
    return TopicFacts(4, replication, APPENDED | changed, records, newest_ms)


@pytest.mark.parametrize(
    ("changed", "brokers", "verdict", "said"),
    [
        ({}, 1, "ok", "LogAppendTime"),
        ({"message_timestamp_type": "CreateTime"}, 1, "warn", "producers'"),
        ({"max_message_bytes": "500000"}, 1, "warn", "takes 500,000 bytes"),
        ({"max_message_bytes": "4194304"}, 1, "ok", "over 1,048,576 they become dead letters"),
        ({}, 3, "warn", "one replica on 3 brokers"),
    ],
)
def test_a_telemetry_topic_is_judged_by_its_clock_its_size_and_its_replicas(
    changed: dict[str, str], brokers: int, verdict: str, said: str
) -> None:
    found = kafka_checks.telemetry_topic("telemetry.gpu", topic(**changed), brokers, 2**20)
    assert (found.verdict, said in found.found) == (verdict, True), found


def test_topics_that_are_missing_come_with_the_command_that_makes_them() -> None:
    [found] = kafka_checks.missing("kafka:9092", ["a", "b"], BrokerFacts("one", 1, {"a": topic()}))
    assert found == fail("topics", "b: does not exist", "gigawatch topics create --bootstrap kafka:9092")


def test_the_pipelines_own_topics_keep_letters_whole_and_alerts_for_ever() -> None:
    good = {"letters": topic(max_message_bytes="5242880"), "alerts": topic(cleanup_policy="compact")}
    assert verdicts(kafka_checks.own_topics(BrokerFacts("one", 1, good), "letters", "alerts")) == ["ok", "ok"]
    bad = {"letters": topic(), "alerts": topic()}
    small, expiring = kafka_checks.own_topics(BrokerFacts("one", 1, bad), "letters", "alerts")
    assert small.verdict == expiring.verdict == "warn"
    assert "max.message.bytes=5242880" in small.remedy and "cleanup.policy=compact" in expiring.remedy


def test_another_cluster_than_the_ledgers_fails_before_the_start_does() -> None:
    facts = BrokerFacts("two", 3, {})
    assert kafka_checks.cluster("kafka:9092", facts, "one").verdict == "fail"
    assert kafka_checks.cluster("kafka:9092", facts, "two").verdict == "ok"
    assert kafka_checks.cluster("kafka:9092", facts, None).verdict == "ok"


@pytest.mark.parametrize(("ahead", "verdict"), [(-500.0, "ok"), (1.0, "ok"), (10.0, "warn"), (90.0, "fail")])
def test_a_record_from_our_future_says_that_our_clock_is_behind(ahead: float, verdict: str) -> None:
    [found] = kafka_checks.clock({"gpu": topic(newest_ms=round((NOW + ahead) * 1000))}, NOW)
    assert found.verdict == verdict, found


def test_a_clock_that_the_producers_set_says_nothing() -> None:
    late = topic(newest_ms=round((NOW + 900) * 1000), message_timestamp_type="CreateTime")
    assert list(kafka_checks.clock({"gpu": late, "queue": topic(newest_ms=None)}, NOW)) == []


# -- who is called -------------------------------------------------------------------------------------------


def answer(at: float) -> httpx.Response:
    return httpx.Response(
        200, headers={"date": f"{datetime.fromtimestamp(at, UTC):%a, %d %b %Y %H:%M:%S} GMT"}
    )


@pytest.mark.parametrize(
    ("off", "verdict"),
    [(0.0, "ok"), (0.9, "ok"), (-0.9, "ok"), (-2.9, "ok"), (30.0, "warn"), (-30.0, "warn"), (300.0, "fail")],
)
def test_a_date_of_whole_seconds_is_compared_as_such(off: float, verdict: str) -> None:
    [found] = receiver_checks.date_of("Alertmanager", answer(NOW + off), NOW)
    assert found.verdict == verdict, found
    assert not list(receiver_checks.date_of("Alertmanager", httpx.Response(200), NOW))


def test_nobody_who_is_called_is_to_look_at() -> None:
    assert verdicts(receiver_checks.called(None, None, "gigawatch.alerts")) == ["warn"]
    assert verdicts(receiver_checks.called(None, "http://hook.example", "")) == []


@pytest.mark.parametrize(
    "url", ["pager", "ftp://pager.example", "http://", "http://[::1", "http://pager:99999"]
)
def test_an_address_that_is_none_fails_with_what_was_found(url: str) -> None:
    settings = load_settings(webhook=url, bootstrap="127.0.0.1:1")
    found = [f for f in examine(checks(settings)) if f.check == "webhook"]
    assert verdicts(found) == ["fail"] and repr(url) in found[0].found


def test_a_token_must_be_there_and_stays_off_open_wires(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("\n")
    assert verdicts(receiver_checks.webhook("https://pager.example/hook", token)) == ["fail"]
    token.write_text("secret\n")
    for url, verdict in (
        ("https://pager.example/hook?key=1", "ok"),
        ("http://pager.example/hook", "warn"),
        ("http://127.0.0.1:9/hook", "ok"),
    ):
        [found] = receiver_checks.webhook(url, token)
        assert found.verdict == verdict and "secret" not in found.found and "key=1" not in found.found
    missing = [("webhook", lambda: receiver_checks.webhook("https://pager.example", tmp_path / "none"))]
    assert verdicts(examine(missing)) == ["fail"]


@pytest.mark.parametrize(
    ("version", "verdict"), [("0.21.0", "warn"), ("0.22.0", "ok"), ("0.9.1", "warn"), ("dev", "ok")]
)
def test_versions_are_compared_as_numbers(version: str, verdict: str) -> None:
    assert receiver_checks.old_or_not("alertmanager", "it", version, (0, 22)).verdict == verdict


# -- the page ------------------------------------------------------------------------------------------------


def test_an_error_becomes_a_finding_whose_remedy_is_its_last_part() -> None:
    def unreachable() -> list[Finding]:
        raise BrokerUnreachable("kafka x:1: no broker there (a; b); start it")

    def curt() -> list[Finding]:
        raise SchemaError("schemas/x.json: wrong")

    assert list(
        examine([("broker", unreachable), ("contract", curt), ("disk", lambda: [ok("disk", "fine")])])
    ) == [
        fail("broker", "kafka x:1: no broker there (a; b)", "start it"),
        fail("contract", "schemas/x.json: wrong", "mend what it names"),
        ok("disk", "fine"),
    ]


FINDINGS = [ok("disk", "fine"), warn("clock", "late", "set it"), fail("broker", "gone \x1b[2J", "start it")]


def shown(findings: list[Finding], width: int = 100) -> str:
    console = Console(width=width, file=open("/dev/null", "w"), record=True)  # noqa: SIM115 - the console's to close
    console.print(page(findings))
    return console.export_text()


def test_the_worst_stands_first_and_nothing_draws_on_the_terminal() -> None:
    text = shown(FINDINGS)
    assert text.index("broker") < text.index("clock") < text.index("disk")
    assert "What to do" in text and "1 failed, 1 to look at, 1 in order" in text
    assert "\x1b" not in text and r"\x1b" in text
    assert "What to do" not in shown([ok("disk", "fine")])


def test_what_to_do_is_whole_however_narrow_the_terminal_is() -> None:
    remedy = (
        "gigawatch topics create --bootstrap "
        + "kafka-1.somewhere.example:9093,kafka-2.somewhere.example:9093"
    )
    text = shown([fail("topics", "x " * 200, remedy)], width=60)
    assert remedy.replace(" ", "") in "".join(text.split())


def test_the_document_for_scripts_keeps_the_order_of_the_checks() -> None:
    document: dict[str, Any] = json.loads(json.dumps(as_document(FINDINGS)))
    assert document["verdict"] == worst(FINDINGS) == "fail"
    assert [check["check"] for check in document["checks"]] == ["disk", "clock", "broker"]
    assert worst([]) == "ok"


def test_a_check_looks_only_when_it_is_asked(tmp_path: Path) -> None:
    named: list[tuple[str, Callable[[], Any]]] = list(
        checks(load_settings(data=tmp_path / "data", bootstrap="127.0.0.1:1"), grafana="http://127.0.0.1:1")
    )
    assert [name for name, _ in named if name in ("alertmanager", "webhook", "grafana")] == ["grafana"]
    assert not (tmp_path / "data").exists()


def test_each_source_is_looked_at_as_it_would_be_read() -> None:
    def found(**change: Any) -> list[tuple[str, str]]:
        settings = load_settings(sources=[{"topic": "have", "format": "cloudevents", **change}])
        return [(f.verdict, f.found) for f in examine(checks(settings)) if f.check == "sources"]

    [(verdict, words)] = found()
    assert verdict == "ok" and words.startswith("have: cloudevents becomes ") and "telemetry.gpu" in words
    [(verdict, words)] = found(mapping="dcgm")
    assert verdict == "fail" and "sources[0] (have): found mapping, expected none" in words


def test_a_sources_topic_that_nobody_has_written_to_is_to_look_at() -> None:
    finding = kafka_checks.unwritten("otlp_metrics")
    assert finding.verdict == "warn" and "--source" in finding.remedy
