"""The commands as users type them: processes with arguments, output, and an exit code."""

from __future__ import annotations

import csv
import functools
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from pipeline import catalog
from pipeline.broker.kafka import EmbeddedKafka, free_port
from pipeline.ledger import status
from pipeline.serve.status_report import head
from pipeline.simulate.scenarios import load, plan
from tests.patience import PATIENCE

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "schemas" / "example-contract.yaml"
COMMANDS = (
    *("demo", "run", "kafka", "simulate", "status", "doctor", "sql", "topics create", "topics describe"),
    *(
        "contract check",
        *("map list", "map check", "map explain", "map try"),
        "deadletter list",
        "deadletter show",
        "deadletter replay",
        "import focus",
        "collect",
        "dashboards build",
        "dashboards push",
    ),
)
REPORT = {
    *("events", "by_topic", "offsets", "rate_events_per_s", "freshness_s", "decision_delay_s", "alerts"),
    *("expected_alerts_missing", "unexpected_alerts"),
}


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "pipeline.cli", *map(str, arguments)]


def gigawatch(
    *arguments: str | Path, code: int = 0, stdin: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    """One command, its output to a pipe, with its exit code checked."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("GIGAWATCH_") and k != "COLUMNS"}
    done = subprocess.run(
        command(*arguments), input=stdin, capture_output=True, text=True, timeout=PATIENCE,
        env={**env, **environment},
    )  # fmt: skip
    assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done


# -- words ---------------------------------------------------------------------------------------------------


def test_the_version_is_that_of_the_package() -> None:
    assert re.fullmatch(r"gigawatch \d+\.\d+\.\d+\n", gigawatch("--version").stdout)


@functools.cache
def help_of(name: str) -> str:
    return gigawatch(*name.split(), "--help").stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_with_an_example(name: str) -> None:
    text = help_of(name)
    assert re.search(rf"Examples?:.*gigawatch {name}", text, re.DOTALL)


FOR_SCRIPTS = {
    *("status", "doctor", "topics create", "topics describe", "contract check", "dashboards push"),
    *("deadletter list", "deadletter show", "deadletter replay", "import focus"),
    *("map list", "map check", "map explain", "map try"),
}
"""What says something that a script may want to read; `sql` has --format, `demo` --report."""
BY_SCHEMAS = {
    *(
        "run",
        "doctor",
        "sql",
        "topics create",
        "topics describe",
        "contract check",
        *("map check", "map explain", "map try"),
        "deadletter show",
        "deadletter replay",
        "import focus",
        "collect",
    ),
}
"""What reads events, or says which there are."""


def test_a_command_takes_json_and_schemas_where_they_mean_something_and_never_a_secret() -> None:
    for name in COMMANDS:
        options = re.findall(r"--[a-z-]+", help_of(name))
        assert ("--json" in options) == (name in FOR_SCRIPTS), name
        assert ("--schemas" in options) == (name in BY_SCHEMAS), name
        told = [o for o in options if "password" in o or "token" in o]
        assert not [o for o in told if not o.endswith(("-file", "-header"))]  # where a secret lies or goes


# -- settings ------------------------------------------------------------------------------------------------


def test_the_command_line_counts_before_the_environment_before_the_file(tmp_path: Path) -> None:
    toml = tmp_path / "gigawatch.toml"
    toml.write_text('bootstrap = "127.0.0.1:1"\n')
    asked = ["topics", "describe", "--config", toml]
    assert "127.0.0.1:1:" in gigawatch(*asked, code=3).stderr
    assert "127.0.0.1:2:" in gigawatch(*asked, code=3, GIGAWATCH_BOOTSTRAP="127.0.0.1:2").stderr
    given = gigawatch(*asked, "--bootstrap", "127.0.0.1:3", code=3, GIGAWATCH_BOOTSTRAP="127.0.0.1:2")
    assert "127.0.0.1:3:" in given.stderr


@pytest.mark.parametrize(
    ("arguments", "environment", "code", "said"),
    [
        (["run", "--bootstrap", "127.0.0.1:1"], {}, 3, "no broker there"),
        (["run", "--bootstrap", "nonsense:port"], {}, 3, "not a port number"),
        (["run", "--contract", "no-such.yaml"], {}, 2, "no-such.yaml"),
        (["run", "--seal-every", "-1"], {}, 2, "seal_every"),
        (["run"], {"GIGAWATCH_TICK": "soon"}, 2, "tick"),
        (["run"], {"GIGAWATCH_MEMORY_LIMIT": "lots"}, 2, "memory_limit"),
        (["run"], {"GIGAWATCH_SECURITY_PROTOCOL": "SASL-SSL"}, 2, "'SASL_SSL'"),
        (["run", "--config", "no-such.toml"], {}, 2, "no-such.toml"),
        (
            ["run", "--source", "otlp:otlp_proto"],
            {},
            2,
            "--source 'otlp:otlp_proto': found 'otlp:otlp_proto'",
        ),
        (
            ["run", "--source", "topic=a,format=otlp_proto"],
            {},
            2,
            "sources[0] (a): found no mapping, expected one",
        ),
        (["status", "--data", "no-such-dir"], {}, 2, "name it with --data"),
        (["sql", "SELECT 1", "--data", "no-such-dir"], {}, 2, "no such data directory"),
        (["simulate"], {}, 2, "neither --scenario nor --trace"),
        (["simulate", "--scenario", "steady", "--trace", "x"], {}, 2, "both --scenario and --trace"),
        (["simulate", "--scenario", "steady", "--mapping", "x"], {}, 2, "only with --trace"),
        (["simulate", "--trace", "x", "--arrays"], {}, 2, "only with --scenario"),
        (["simulate", "--trace", "x"], {}, 2, "without --mapping"),
        (["simulate", "--scenario", "dcgm"], {}, 2, "gigawatch demo --scenario dcgm plays it"),
        (["simulate", "--scenario", "steady", "--rate", "-5"], {}, 2, "expected a number above 0"),
        (
            ["simulate", "--scenario", "steady", "--bootstrap", "127.0.0.1:1"],
            {},
            3,
            "no Kafka broker answers",
        ),
        (["deadletter", "replay"], {}, 2, "--all for every one"),
        (["deadletter", "show", "telemetry.gpu"], {}, 2, "TOPIC/PARTITION/OFFSET"),
    ],
)
def test_what_a_user_can_cause_is_one_message_and_an_exit_code(
    tmp_path: Path, arguments: list[str], environment: dict[str, str], code: int, said: str
) -> None:
    data = ["--data", str(tmp_path / "data")] if arguments[0] == "run" else []
    assert said in gigawatch(*arguments, *data, code=code, **environment).stderr
    assert not (tmp_path / "data").exists(), "nothing changed"


def test_a_secret_in_the_wrong_place_is_not_repeated(tmp_path: Path) -> None:
    toml = tmp_path / "gigawatch.toml"
    for wrong in ('sasl_password = "hunter2"', "sasl_plain_password = ['hunter2']"):
        toml.write_text(wrong)
        said = gigawatch("run", "--config", toml, code=2).stderr
        assert wrong.split()[0] in said and "hunter2" not in said


# -- contracts -----------------------------------------------------------------------------------------------


def test_a_good_contract_is_told_in_a_few_lines() -> None:
    text = gigawatch("contract", "check", EXAMPLE).stdout
    assert "8 clauses" in text and "MW (it)" in text
    assert re.search(r"window fleet-replanning, Europe/Berlin:\n    (next|open)  \d{4}-", text)
    told = json.loads(gigawatch("contract", "check", EXAMPLE, "--json").stdout)
    (found,) = told["contracts"]
    assert (told["faults"], found["id"], len(found["clauses"])) == ([], "northwind-aurora", 8)
    (window,) = [each for each in found["windows"] if each["window"] == "fleet-replanning"]
    assert window["asks"]["planning-wait-p95"] == "at most 120s, critical"
    starts = [datetime.fromisoformat(each["starts"]) for each in window["occurrences"]]
    assert len(starts) == 3 and {f"{at:%H:%M}" for at in starts} == {"22:00"}, "in its own zone"


def test_every_fault_of_a_contract_is_told_at_once(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    text = EXAMPLE.read_text().replace("timezone: Europe/Berlin", "timezone: Europe/Berln", 1)
    wrong.write_text(text.replace("queue_wait_p95", "queue_wait_p59", 1))
    done = gigawatch("contract", "check", wrong, code=2)
    lines = done.stderr.splitlines()
    assert [line for line in lines if "Europe/Berln" in line] and [
        line for line in lines if "queue_wait_p59" in line
    ]
    assert all(re.match(r".*wrong\.yaml:\d+:\d+ ", line) for line in lines[:-1])
    assert not done.stdout
    told = json.loads(gigawatch("contract", "check", wrong, "--json", code=2).stdout)
    assert told["contracts"] == [] and len(told["faults"]) == len(lines) - 1
    assert all(f["file"] == str(wrong) and f["line"] > 0 and f["expected"] for f in told["faults"])


def test_a_contract_may_split_by_a_dimension_of_ones_own_schemas(tmp_path: Path) -> None:
    schemas, contract = tmp_path / "schemas", tmp_path / "contract.yaml"
    shutil.copytree(ROOT / "schemas", schemas)
    file = schemas / "gpu.utilization.v1.json"
    schema = json.loads(file.read_text())
    schema["properties"]["hall"] = {"type": "string", "x-role": "dimension", "description": "Hall."}
    file.write_text(json.dumps(schema))
    text = EXAMPLE.read_text()
    assert text.count("    by: [region]                #") == 1
    contract.write_text(
        text.replace("    by: [region]                #", "    by: [region, hall]          #")
    )
    assert "'hall'" in gigawatch("contract", "check", contract, code=2).stderr
    assert "8 clauses" in gigawatch("contract", "check", contract, "--schemas", schemas).stdout
    run = ("run", "--bootstrap", "127.0.0.1:1", "--contract", contract, "--data", tmp_path / "data")
    assert "no broker there" in gigawatch(*run, "--schemas", schemas, code=3).stderr


# -- beside a running pipeline -------------------------------------------------------------------------------


@dataclass
class Running:
    """`gigawatch run` beside the session's broker, over events that `gigawatch simulate` has written."""

    bootstrap: str
    data: Path
    contract: Path
    process: subprocess.Popen[str] | None = None
    logs: list[str] = field(default_factory=list)
    expected: int = 0

    def start(self) -> None:
        env = {
            **os.environ,
            "GIGAWATCH_SEAL_EVERY": "2",
            "GIGAWATCH_PUBLISH_EVERY": "1",
            "GIGAWATCH_DOOR": "",
            "GIGAWATCH_BOARD": "",
        }
        self.log = (self.data.parent / f"run-{time.monotonic_ns()}.log").open("w+")
        self.process = subprocess.Popen(
            command("run", "--bootstrap", self.bootstrap, "--contract", self.contract, "--data", self.data),
            env=env, stderr=self.log, text=True,
        )  # fmt: skip

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(gigawatch("status", "--json", "--data", self.data).stdout)
        return found

    def await_events(self, n: int) -> dict[str, Any]:
        """The status of this process once `n` events are in."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            assert self.process and self.process.poll() is None, self.lines()
            found = status.read(self.data)
            if found and found["pid"] == self.process.pid and found["events"]["in"] >= n:
                return self.status()
            time.sleep(0.2)
        raise AssertionError(f"not {n} events after {PATIENCE:.0f} s: {self.lines()}")

    def lines(self) -> list[str]:
        return Path(self.log.name).read_text().splitlines()

    def stop(self, number: int = signal.SIGTERM) -> int:
        assert self.process
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    """A broker of this file's own: what is counted here must be all that there is."""
    with EmbeddedKafka(tmp_path_factory.mktemp("cli-kafka"), heap="256m") as kafka:
        yield kafka


BAD = {
    "not_utf8": b"{ nobody closed this \xff\x1b[2J",
    "not_json": b"{ nor this",
    "confluent_wire_format": b"\x00\x00\x00\x00\x01abc",
}
ODD_KEY = b"\xff\x00key"


@pytest.fixture(scope="module")
def running(broker: EmbeddedKafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("cli")
    made = gigawatch("topics", "create", "--partitions", "2", "--bootstrap", broker.bootstrap).stdout
    assert made.count(": created") == len(catalog.load().topics) + 2  # dead letters and alerts
    contracts = folder / "contracts"
    sent = gigawatch("simulate", "--scenario", "steady", "--speed", "600", "--bootstrap", broker.bootstrap,
                     "--write-contract", contracts)  # fmt: skip
    [count] = re.findall(r"^([\d,]+) events in", sent.stdout)
    pipeline = Running(broker.bootstrap, folder / "data", contracts, expected=int(count.replace(",", "")))
    write_bad(broker.bootstrap)
    pipeline.expected += len(BAD) + 3 + 1
    pipeline.start()
    pipeline.await_events(pipeline.expected)
    yield pipeline
    if pipeline.process and pipeline.process.poll() is None:
        pipeline.stop()


def good_sample() -> dict[str, Any]:
    """A sample that the pipeline takes, from the simulator."""
    fleet = plan(load("steady"), time.time(), speed=600).fleet(arrays=True)
    at = fleet.start_ms
    found = (
        json.loads(m.value) for m in fleet.events(at // 1000, at // 1000 + 30) if m.topic == "telemetry.gpu"
    )
    event = next(found)
    return {**event, "source": "/test/cli", "id": "array-1", "data": event["data"][:2]}


def write_bad(bootstrap: str) -> None:
    """Two that cannot be read, an array of two good samples and a bad one, one that is too large."""
    producer = KafkaProducer(bootstrap_servers=bootstrap, max_request_size=3 * 2**20)
    structured = [("content-type", b"application/cloudevents+json")]
    for value in BAD.values():
        headers = [("trace", b"\x80\x81"), *structured]
        producer.send("telemetry.gpu", value=value, key=ODD_KEY, headers=headers, partition=0).get(PATIENCE)
    event = good_sample()
    event["data"].append({**event["data"][0], "gpu": 17})
    producer.send("telemetry.gpu", value=json.dumps(event).encode(), headers=structured, partition=0).get(
        PATIENCE
    )
    producer.send("telemetry.gpu", value=b"x" * (2**20 + 1), headers=structured, partition=0).get(PATIENCE)
    producer.close()


def test_topics_that_exist_are_left_and_told(running: Running) -> None:
    again = gigawatch("topics", "create", "--partitions", "3", "--bootstrap", running.bootstrap).stdout
    assert "telemetry.gpu: existed; partitions is 2, not 3" in again
    table = gigawatch("topics", "describe", "--bootstrap", running.bootstrap).stdout
    assert re.search(r"telemetry\.gpu +2 +1 +[\d,]+ +message\.timestamp\.type=LogAppendTime", table)


def test_status_beside_a_running_pipeline_accounts_for_every_event(running: Running) -> None:
    found = running.await_events(running.expected)
    assert set(found) >= REPORT
    assert (
        found["pipeline"]["running"] and running.process and found["pipeline"]["pid"] == running.process.pid
    )
    assert found["pipeline"]["kafka"]["answers"]
    events = found["events"]
    assert events["in"] == running.expected
    assert events["dead_lettered"] == len(BAD) + 1 + 1
    assert events["aggregated"] == running.expected - events["dead_lettered"]
    assert sum(sum(parts.values()) for parts in found["lag"].values()) == 0
    text = gigawatch("status", "--data", running.data).stdout
    assert (
        "running, process" in text and "eu-west-floor" in text and "Watchdog" in text and "too_large" in text
    )


def test_the_history_is_asked_in_sql_beside_a_running_pipeline(running: Running) -> None:
    query = "SELECT region, sum(samples)::BIGINT AS n FROM gpu_1h GROUP BY ALL ORDER BY region"

    def asked() -> list[dict[str, str]]:
        text = gigawatch("sql", query, "--data", running.data, "--format", "csv").stdout
        return list(csv.DictReader(io.StringIO(text)))

    expected = running.status()["by_topic"]["telemetry.gpu"]["aggregated"]
    deadline = time.monotonic() + PATIENCE
    while sum(int(row["n"]) for row in asked()) < expected and time.monotonic() < deadline:
        time.sleep(1)
    rows = asked()
    assert sum(int(row["n"]) for row in rows) == expected
    assert [row["region"] for row in rows] == ["eu-central", "eu-north", "eu-west", "us-east"]
    as_json = json.loads(gigawatch("sql", "--format", "json", "--data", running.data, stdin=query).stdout)
    assert [{k: str(v) for k, v in row.items()} for row in as_json] == rows
    table = gigawatch("sql", query, "--data", running.data).stdout
    assert "(4 rows)" in table
    refused = gigawatch("sql", "DROP VIEW gpu", "--data", running.data, code=2).stderr
    assert "expected one SELECT" in refused


def test_a_second_pipeline_on_the_same_directory_is_refused(running: Running) -> None:
    done = gigawatch("run", "--bootstrap", running.bootstrap, "--data", running.data, code=5)
    assert running.process and f"in use by process {running.process.pid}" in done.stderr


def test_a_destination_that_cannot_be_used_is_named_before_anything_is_made(
    running: Running, tmp_path: Path
) -> None:
    run = ("run", "--bootstrap", running.bootstrap, "--data", tmp_path / "data")
    for wrong, said in (
        (
            ("--webhook", "http://127.0.0.1:1", "--webhook-token-file", tmp_path / "token"),
            "token: the secret",
        ),
        (("--alertmanager", "alertmanager:9093"), "an address such as http://127.0.0.1:9093"),
    ):
        found = gigawatch(*run, *wrong, code=2).stderr
        assert said in found and "Unclosed" not in found
        assert not (tmp_path / "data").exists()


def listed(running: Running, *filters: str) -> dict[str, str]:
    """Reason → record of the dead letters that are listed."""
    text = gigawatch("deadletter", "list", *filters, "--bootstrap", running.bootstrap).stdout
    found = re.findall(r"^(telemetry\.\S+)\s+(\S+)", text, re.MULTILINE)
    return {reason: record for record, reason in found}


def test_dead_letters_are_listed_by_reason_and_topic(running: Running) -> None:
    assert set(listed(running)) == {*BAD, "gpu_mistyped", "too_large"}
    assert set(listed(running, "--reason", "not_json")) == {"not_json"}
    assert listed(running, "--topic", "telemetry.queue") == {}
    told = json.loads(gigawatch("deadletter", "list", "--json", "--bootstrap", running.bootstrap).stdout)
    assert {each["reason"]: each["record"] for each in told["records"]} == listed(running)
    assert told["in_all"] == len(told["records"])
    (large,) = [each for each in told["records"] if each["reason"] == "too_large"]
    assert (large["bytes"], "too large to keep" in large["lost"]) == (1_048_577, True)


def test_a_dead_letter_is_shown_with_everything_unprintable_escaped(running: Running) -> None:
    record = listed(running)["not_utf8"]
    text = gigawatch("deadletter", "show", record, "--bootstrap", running.bootstrap).stdout
    assert "\x1b" not in text
    assert (
        r"\xff\x1b[2J" in text
        and "header     trace: \\x80\\x81" in text
        and r"key        \xff\x00key" in text
    )
    assert "read now   1 dead_lettered (not_utf8)" in text
    whole = gigawatch("deadletter", "show", record, "--json", "--bootstrap", running.bootstrap).stdout
    told = json.loads(whole)
    assert "\x1b" not in whole and r"\xff" + "\x1b[2J" in told["value"]
    assert (told["key"], ["trace", r"\x80\x81"] in told["headers"]) == (r"\xff" + "\x00key", True)
    assert told["read_now"] == [{"fate": "dead_lettered", "reason": "not_utf8", "n": 1}]
    missing = gigawatch(
        "deadletter", "show", "telemetry.gpu/0/99999999", "--bootstrap", running.bootstrap, code=2
    )
    assert "no dead letter about telemetry.gpu/0/99999999" in missing.stderr


def last_record(bootstrap: str, topic: str, part: int) -> Any:
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, group_id=None)
    place = TopicPartition(topic, part)
    consumer.assign([place])
    consumer.seek(place, consumer.end_offsets([place])[place] - 1)
    record = next(iter(consumer))
    consumer.close()
    return record


def ends(bootstrap: str) -> int:
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, group_id=None)
    place = TopicPartition("telemetry.gpu", 0)
    end: int = consumer.end_offsets([place])[place]
    consumer.close()
    return end


def test_a_replay_sends_the_same_bytes_key_and_headers_and_only_what_was_kept_whole(running: Running) -> None:
    records, before = listed(running), ends(running.bootstrap)
    dry = gigawatch(
        "deadletter", "replay", "--all", "--dry-run", "--bootstrap", running.bootstrap, code=1
    ).stdout
    assert f"{records['not_utf8']}: would be sent" in dry
    assert f"{records['too_large']}: refused: its value (1,048,577 bytes) was too large" in dry
    assert f"{records['gpu_mistyped']}: refused: 2 samples of it were taken in already" in dry
    told = json.loads(
        gigawatch(
            "deadletter", "replay", records["not_utf8"], "telemetry.gpu/0/99999999", "--dry-run", "--json", "--bootstrap",
            running.bootstrap, code=1,
        ).stdout
    )  # fmt: skip
    assert [each["outcome"] for each in told] == ["would be sent", "missing"]
    assert ends(running.bootstrap) == before, "a dry run sends nothing"

    done = gigawatch("deadletter", "replay", records["not_utf8"], "--bootstrap", running.bootstrap).stdout
    assert done == f"{records['not_utf8']}: sent\n"
    sent = last_record(running.bootstrap, "telemetry.gpu", 0)
    assert sent.offset == before
    assert (sent.key, sent.value) == (ODD_KEY, BAD["not_utf8"])
    assert list(sent.headers) == [("trace", b"\x80\x81"), ("content-type", b"application/cloudevents+json")]

    running.expected += 1
    found = running.await_events(running.expected)
    assert found["events"]["dead_lettered"] == len(BAD) + 2 + 1, "still wrong, it came back"
    unknown = gigawatch(
        "deadletter", "replay", "telemetry.gpu/0/99999999", "--bootstrap", running.bootstrap, code=1
    )
    assert "no dead letter about it" in unknown.stderr


def test_a_pipeline_that_is_stopped_says_so_afterwards_and_logs_lines_of_json(running: Running) -> None:
    assert running.stop() == 0
    assert [json.loads(line) for line in running.lines()], "standard error is no terminal here"
    text = gigawatch("status", "--data", running.data).stdout
    assert "in good order" in text
    count = gigawatch(
        "sql", "SELECT count(*) AS n FROM gpu", "--data", running.data, "--format", "json"
    ).stdout
    assert json.loads(count)[0]["n"] == running.status()["by_topic"]["telemetry.gpu"]["aggregated"]

    running.start()
    running.await_events(running.expected)
    assert running.stop(signal.SIGKILL) == -signal.SIGKILL
    assert "it ended without a word" in gigawatch("status", "--data", running.data).stdout
    assert not running.status()["pipeline"]["running"]


def test_a_pipeline_that_ended_with_an_error_says_which(tmp_path: Path) -> None:
    ended = {"state": "running", "segments": 0, "contracts": [], "contract_error": None}
    status.StatusFile(tmp_path).write(ended)
    status.StatusFile(tmp_path).fail("the broker's log was cut\x1b[2J")
    found = status.read(tmp_path)
    assert found == {**ended, "state": "failed", "error": "the broker's log was cut\x1b[2J"}
    state = {"running": False, "age_s": 5, "kafka": {"bootstrap": "k:9092", "answers": True}}
    text = list(head(tmp_path, found, state))
    assert "it ended with an error" in text[0]
    assert text[1] == "It said: the broker's log was cut\\x1b[2J"


def test_a_pipeline_that_never_wrote_a_status_has_no_failure_to_tell(tmp_path: Path) -> None:
    status.StatusFile(tmp_path / "gone").fail("the disk is full")
    assert not (tmp_path / "gone").exists()


@pytest.mark.parametrize("segments", [0, 3])
def test_raw_rows_that_a_stop_had_no_time_to_publish_are_said(segments: int) -> None:
    found = {"state": "stopped", "segments": segments, "contracts": [], "contract_error": None}
    state = {"running": False, "age_s": 4.0, "kafka": {"bootstrap": "kafka:9092", "answers": True}}
    said = "\n".join(head(Path("data"), found, state))
    assert ("not readable yet" in said) == (segments > 0)


def test_the_lag_grows_while_nobody_reads_and_status_asks_kafka_for_it(running: Running) -> None:
    if running.process and running.process.poll() is None:
        running.stop()
    before = sum(sum(parts.values()) for parts in running.status()["lag"].values())
    producer = KafkaProducer(bootstrap_servers=running.bootstrap)
    for _ in range(7):
        producer.send("telemetry.queue", value=b"waits", partition=1).get(PATIENCE)
    producer.close()
    assert sum(sum(parts.values()) for parts in running.status()["lag"].values()) == before + 7
    away = gigawatch("status", "--data", running.data, "--bootstrap", "127.0.0.1:1").stdout
    assert "does not answer, lag as of then" in away


# -- simulate, kafka -----------------------------------------------------------------------------------------


def test_a_recorded_day_is_replayed(broker: EmbeddedKafka, tmp_path: Path) -> None:
    (tmp_path / "duty.csv").write_text("percent,at,pod\n50,30.0,a\n75.5,60.0,a\n100,60.0,b\n")
    mapping = tmp_path / "day.mapping.yaml"
    mapping.write_text(
        "mapping: day\ntopics:\n  - topic: telemetry.gpu\n    source: /trace/{node}\n"
        "    constants: {provider: p, region: r, site: s, cluster: c, sku: GPU}\n"
        "    entity: {gpu: pod, node: pod}\n    files:\n"
        "      - {file: duty.csv, time: at, fields: {utilization_ratio: {column: percent, scale: 0.01}}}\n"
    )
    at = ("--bootstrap", broker.bootstrap, "--json")
    made = json.loads(gigawatch("topics", "create", "--partitions", "2", *at).stdout)
    assert {each["outcome"] for each in made} <= {"created", "existed"}
    schemas = tmp_path / "schemas"
    shutil.copytree(ROOT / "schemas", schemas)
    file = schemas / "energy.reading.v1.json"
    file.write_text(file.read_text().replace('"telemetry.energy"', '"telemetry.power"'))
    own = json.loads(gigawatch("topics", "describe", "--schemas", schemas, *at).stdout)
    there = {each["topic"]: each for each in own}
    assert there["telemetry.power"] == {"topic": "telemetry.power", "exists": False}
    assert there["telemetry.gpu"]["exists"] and "telemetry.energy" not in there
    done = gigawatch("simulate", "--trace", tmp_path, "--mapping", mapping, "--bootstrap", broker.bootstrap)
    assert done.stdout.startswith("3 events in ") and "3 to telemetry.gpu" in done.stdout


def test_the_embedded_kafka_runs_until_it_is_told_to_stop(tmp_path: Path) -> None:
    port = free_port()
    process = subprocess.Popen(
        command("kafka", "--port", str(port), "--data", tmp_path / "kafka"), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    line = next(text for text in process.stdout if "answers" in text)
    assert f"127.0.0.1:{port}" in line
    assert "created" in gigawatch("topics", "create", "--bootstrap", f"127.0.0.1:{port}").stdout
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == 0
    assert (
        "no broker there"
        in gigawatch("topics", "describe", "--bootstrap", f"127.0.0.1:{port}", code=3).stderr
    )


def test_a_port_that_is_taken_is_named(broker: EmbeddedKafka, tmp_path: Path) -> None:
    done = gigawatch("kafka", "--port", str(broker.port), "--data", tmp_path / "kafka", code=2)
    assert f"port {broker.port}" in done.stderr
