"""What the README shows is what happens: its alert is fired here, its queries are asked, its files are loaded.

The first seventeen minutes of the peak season, played into a real ledger without a broker, are the data: the
simulator is deterministic, so the alert that comes of it must be the README's to the letter.
"""

from __future__ import annotations

import configparser
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiokafka.structs import ConsumerRecord
from ruamel.yaml import YAML
from typer.testing import CliRunner

from pipeline import errors
from pipeline.catalog import load
from pipeline.clauses import load as load_contract
from pipeline.clauses import load_all, plan_of
from pipeline.cli import app
from pipeline.history import publish, seal
from pipeline.history.query import ask, open_views
from pipeline.history.retention import Keep
from pipeline.ledger import status
from pipeline.ledger.store import Ledger
from pipeline.ledger.transaction import Hooks
from pipeline.mappings.recording_mapping import load_mapping
from pipeline.notify.wire_text import wire_annotations, wire_labels
from pipeline.rollup.grid import DAY
from pipeline.settings import load_settings
from pipeline.simulate import scenarios
from pipeline.stream.batch import Batch
from pipeline.stream.process import Processor
from pipeline.views.all_views import names as view_names
from tests.processing import processed

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text("utf-8")
DOCS = {path.stem: path.read_text("utf-8") for path in sorted((ROOT / "docs").glob("*.md"))}
CATALOG = load()
STEP_MS = 30_000
DEMO = "gigawatch-demo"


def blocks(language: str, text: str = README) -> list[str]:
    """The code blocks of a document in one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def block(language: str, containing: str, text: str = README) -> str:
    """The one code block in a language that contains a text."""
    [found] = [found for found in blocks(language, text) if containing in found]
    return found


def yaml(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)


def table(name: str, text: str) -> list[list[str]]:
    """The rows of a marked table, without its head."""
    [body] = re.findall(rf"<!-- table: {name} -->\n(.*?)<!-- end -->", text, re.DOTALL)
    return [[cell.strip() for cell in row.split("|")[1:-1]] for row in body.strip().splitlines()[2:]]


def shown_alert() -> Mapping[str, Any]:
    """The alert of the first screen."""
    found: Mapping[str, Any] = yaml(block("yaml", "alertname: CapacityShortfall"))
    return found


def played(data: Path, until: int) -> None:
    """The peak season as `until` seconds of it would come through Kafka, into the ledger and its files.

    It begins when the README's alert says that its scenario began: the shortfall is out of bounds 15 min 20 s in.
    """
    since = int(datetime.fromisoformat(shown_alert()["annotations"]["since"]).timestamp())
    play = scenarios.Play(scenarios.load("peak-season"), since - (15 * 60 + 20), 20.0)
    play.write_contract(data / "contracts")
    ledger = Ledger(data, CATALOG, destinations=["webhook"])
    contracts = load_all(data / "contracts")
    ledger.use(contracts, plan_of(contracts, CATALOG), play.start)
    processor, fleet = Processor(ledger.con, CATALOG, data, 2**20), play.fleet()
    ends: dict[tuple[str, int], int] = {}
    for at in range(play.start * 1000, (play.start + until) * 1000, STEP_MS):
        batch = batch_of(fleet, at, ends)
        delta, letters = processed(processor, batch, ledger.known_from(), ledger.progress())
        assert not letters
        mark = datetime.fromtimestamp((at + STEP_MS) / 1000 - 5, UTC).replace(tzinfo=None)
        ledger.apply(delta, dict.fromkeys(CATALOG.topics, mark), (at + STEP_MS) / 1000)
    con, hooks = ledger.cursor(), Hooks(ledger.fence)
    publish.publish(con, data, CATALOG, hooks=hooks)
    seal.seal(con, data, CATALOG, hooks)
    write_status(data, ledger, con, play.end)
    con.close()
    ledger.close()


def batch_of(fleet: Any, at: int, ends: dict[tuple[str, int], int]) -> Batch:
    """What the fleet reports in one step, as records of one partition for each topic; `ends` moves on."""
    records: dict[tuple[str, int], list[Any]] = {}
    begins = dict(ends)
    for moment in range(at, at + STEP_MS, 10_000):
        for message in (m for found in fleet.step(moment, moment + 10_000) for m in found.messages()):
            place = (message.topic, 0)
            offset = ends.get(place, 0)
            records.setdefault(place, []).append(
                ConsumerRecord(
                    message.topic, 0, offset, max(message.time_ms, at + STEP_MS), 1, message.key, message.value,
                    None, len(message.key), len(message.value), tuple(message.headers),
                )
            )  # fmt: skip
            ends[place] = offset + 1
    return Batch(records, {place: (begins.get(place, 0), ends[place]) for place in records})


def write_status(data: Path, ledger: Ledger, con: Any, now: float) -> None:
    """What a pipeline that was stopped in good order leaves."""
    status.StatusFile(data).end(
        {
            "state": "stopped", "written_at": datetime.fromtimestamp(now, UTC).isoformat(), "pid": 1,
            "bootstrap": "127.0.0.1:1", "contract_error": None, **status.snapshot(con),
            "contracts": [{"id": "northline-halcyon", "version": "2026.3", "digest": ""}],
            "lag": {topic: {"0": 0} for topic in CATALOG.topics}, "rate_events_per_s": 0.0,
            "freshness_s": dict(status.NO_DELAY), "decision_delay_s": dict(status.NO_DELAY),
        },
    )  # fmt: skip


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the README's reader stands: `gigawatch-demo` lies there, as a demo left it."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / DEMO).mkdir()
    played(folder / DEMO, until=17 * 60)
    return folder


@pytest.fixture
def reader(demo: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, as the current directory, with no setting in the environment."""
    monkeypatch.chdir(demo)
    for name in os.environ:
        if name.startswith("GIGAWATCH_"):
            monkeypatch.delenv(name)
    return demo


def run(line: str) -> Any:
    """A command line of the README, run."""
    return CliRunner().invoke(app, shlex.split(line)[1:], catch_exceptions=False)


# -------------------------------------------------------------------------------------------- the first screen


def test_the_first_screen_has_the_sentence_the_two_commands_and_the_alert() -> None:
    screen = "\n".join(README.splitlines()[:45])
    assert screen.index("holds AI-compute suppliers to their contracts") < screen.index("make demo")
    assert "make test" in screen
    assert screen.index("make demo") < screen.index("alertname: CapacityShortfall") < screen.index("sql: |-")


def test_the_alert_that_is_shown_is_the_one_that_fires(demo: Path) -> None:
    with open_views(demo / DEMO, CATALOG) as con:
        query = "SELECT labels, annotations FROM alerts WHERE state = 'firing' AND alertname = 'CapacityShortfall'"
        [(labels, annotations)] = ask(con, query).rows
    assert wire_labels(json.loads(labels), "CapacityShortfall") == shown_alert()["labels"]
    fired = wire_annotations(json.loads(annotations))
    shown = shown_alert()["annotations"]
    assert {name: fired[name] for name in shown} == shown
    assert fired.keys() - shown.keys() == {"rows_sql"}  # it is as long again, and lists whom the other counts


def test_the_sql_of_the_alert_that_is_shown_gives_its_number(demo: Path) -> None:
    annotations = shown_alert()["annotations"]
    with open_views(demo / DEMO, CATALOG) as con:
        [(value,)] = ask(con, annotations["sql"]).rows
    assert f"{value:,}" == annotations["observed"]
    assert f"gives {value} in" in README
    with open_views(demo / DEMO, CATALOG) as con:
        query = "SELECT annotations ->> 'rows_sql' FROM alerts WHERE state = 'firing' AND alertname = 'CapacityShortfall'"
        [(listing,)] = ask(con, query).rows
        assert f"rows_sql lists the {len(list(ask(con, listing).rows))}" in README


def test_what_is_said_of_the_demo_is_what_its_scenario_holds() -> None:
    scenario = scenarios.load("peak-season")
    assert (
        f"{scenario.fleet.gpus:,} GPUs in four regions, {scenario.length // 60} minutes of events" in README
    )
    assert len(scenario.fleet.regions) == 4
    assert len(scenario.expected) == 8
    assert "Eight alerts must come" in README
    assert not scenarios.load("steady").expected


# ------------------------------------------------------------------------------------------- files that are shown


@pytest.mark.parametrize("document", ["README", "docs/contracts.md"])
def test_the_contract_that_is_shown_loads_and_is_an_extract_of_the_example(
    document: str, tmp_path: Path
) -> None:
    text = block("yaml", "# contract", README if document == "README" else DOCS["contracts"])
    (tmp_path / "contract.yaml").write_text(text)
    load_contract(tmp_path / "contract.yaml")
    strangers = list(
        not_in(yaml(text), yaml((ROOT / "schemas" / "example-contract.yaml").read_text("utf-8")))
    )
    assert strangers == []


def not_in(part: Any, whole: Any, path: str = "") -> Iterator[str]:
    """Paths of what `part` says and `whole` does not; items with an `id` are found by it."""
    if isinstance(part, dict) and isinstance(whole, dict):
        for key, value in part.items():
            yield from not_in(value, whole.get(key), f"{path}.{key}")
    elif isinstance(part, list) and isinstance(whole, list) and all(isinstance(p, dict) for p in part):
        for number, item in enumerate(part):
            same = [w for w in whole if w.get("id") == item.get("id")] if "id" in item else whole
            if not any(not list(not_in(item, found)) for found in same):
                yield f"{path}[{number}]"
    elif part != whole:
        yield path


def test_the_refusal_that_is_shown_is_the_one_that_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line, _, wanted = block("console", "contract check", DOCS["contracts"]).partition("\n")
    text = (ROOT / "schemas" / "example-contract.yaml").read_text("utf-8")
    wrong = text.replace("by: [region] ", "by: [regoin] ", 1).replace(
        "{peak-season: critical", "{peak-saison: critical", 1
    )
    (tmp_path / "my-contract.yaml").write_text(wrong)
    monkeypatch.chdir(tmp_path)
    result = run(line.removeprefix("$ "))
    assert result.exit_code == 2
    assert result.output == wanted


def test_the_settings_file_that_is_shown_is_one(reader: Path, tmp_path: Path) -> None:
    text = block("toml", "sasl_mechanism", DOCS["settings"])
    (tmp_path / "gigawatch.toml").write_text(text)
    settings = load_settings(tmp_path / "gigawatch.toml")
    assert settings.security_protocol == "SASL_SSL"
    assert settings.sasl_password_file == Path("/etc/gigawatch/kafka-password")


def test_the_alertmanager_file_that_is_shown_is_right(tmp_path: Path) -> None:
    text = block("yaml", "# alertmanager.yml", DOCS["alerts"])
    routes = yaml(text)["route"]["routes"]
    assert routes[0]["matchers"] == ['alertname="Watchdog"'], "first, so that no other route has it"
    amtool = shutil.which("amtool")
    if amtool is None:
        pytest.skip("needs amtool, which comes with Alertmanager")
    (tmp_path / "alertmanager.yml").write_text(text)
    done = subprocess.run(
        [amtool, "check-config", "alertmanager.yml"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for labels, receiver in (
        (("alertname=Watchdog", "severity=info"), "dead-mans-switch"),
        (("alertname=CapacityShortfall", "severity=critical"), "on-call"),
        (("alertname=TrancheExhausted", "severity=ticket", "team=finops"), "tickets"),
    ):
        routed = subprocess.run(
            [amtool, "config", "routes", "test", "--config.file=alertmanager.yml", *labels],
            cwd=tmp_path, capture_output=True, text=True,
        )  # fmt: skip
        assert routed.stdout.strip() == receiver


def test_the_systemd_unit_that_is_shown_runs_a_command_and_settings_that_exist() -> None:
    [text] = blocks("ini", DOCS["operations"])
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # keep the case of names
    unit.read_string(text)
    command = unit["Service"]["ExecStart"].split()
    documented = runpy.run_path(str(ROOT / "tests" / "test_docs.py"))
    documented["options_of"](command[1:])
    for name in re.findall(r"^Environment=GIGAWATCH_(\w+)=", text, re.MULTILINE):
        assert name.lower() in type(load_settings()).model_fields
    stopping = set(map(int, unit["Service"]["RestartPreventExitStatus"].split()))
    assert stopping == {errors.SettingsError.exit_code, errors.ForeignCluster.exit_code}


# ------------------------------------------------------------------------------------------------------- tables


def test_the_table_of_exit_codes_is_that_of_the_errors() -> None:
    kinds = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, errors.GigawatchError)]
    wanted: dict[str, set[str]] = {"0": set(), "1": set(), "130": set()}
    for kind in kinds:
        wanted.setdefault(str(kind.exit_code), set()).add(kind.__name__)
    found = {
        code: {name for name in names.split(", ") if name}
        for code, _, names, _ in table("exit codes", DOCS["operations"])
    }
    assert found == wanted


def test_the_ten_files_are_ten_and_in_the_order_in_which_an_event_flows() -> None:
    listed = re.findall(
        r"^\d+\. \[(pipeline/[\w/]+\.py)\]", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), re.MULTILINE
    )
    assert len(listed) == 10
    rooms = [Path(name).parts[1].removesuffix(".py") for name in listed]
    order = ["app", "stream", "rollup", "ledger", "readings", "clauses", "rules", "notify"]
    assert rooms == sorted(rooms, key=order.index)


# --------------------------------------------------------------------------------------------- history and status


def test_the_table_of_the_history_says_how_long_it_is_kept_and_how_old_it_is() -> None:
    keep, settings = Keep(), load_settings()
    widths = [seconds // DAY for seconds in keep.widths.values()]
    rolled = (
        [str(days) for days in widths if days < 365],
        [str(days // 365) for days in widths if days >= 365],
    )
    rows = {row.split(" | ")[0]: row for row in DOCS["history"].splitlines() if row.startswith("| `")}
    raw, rollups = (
        rows["| `history/<topic>/date=…/hour=…/`"],
        rows[f"| `rollups/<topic>/<{', '.join(keep.widths)}>/date=…/`"],
    )
    small = rows["| `alerts/`, `standing/`, `fates/`"]
    assert keep.raw == settings.keep_raw_days * DAY
    assert raw.endswith(
        f"| {settings.seal_every / 60:.0f} min (`seal_every`) | {settings.keep_raw_days} days (`keep_raw_days`) |"
    )
    assert rollups.endswith(
        f"| {settings.publish_every:.0f} s (`publish_every`) | {', '.join(rolled[0])} days, {', '.join(rolled[1])} years |"
    )
    assert small.endswith(f"| {keep.alerts // DAY // 365} years, now, {keep.fates // DAY} days |")
    history = rows["| `readings/`, `health/`"]
    assert history.endswith(f"| {keep.readings // DAY}, {keep.health // DAY} days |")


@pytest.mark.parametrize(
    "query",
    [
        "SELECT comment FROM duckdb_columns() WHERE (table_name, column_name) = ('gpu', 'time')",
        "SELECT \"COLUMN_COMMENT\" FROM information_schema.columns WHERE (table_name, column_name) = ('gpu', 'time')",
        "SELECT description FROM pg_description WHERE description LIKE 'Event time%' LIMIT 1",
    ],
)
def test_what_columns_say_of_themselves_is_there_for_who_asks(reader: Path, query: str) -> None:
    result = run(f"gigawatch sql --data {DEMO} --format csv {shlex.quote(query)}")
    assert "Event time, UTC" in result.output, result.output


@pytest.mark.parametrize("query", blocks("sql"), ids=range(len(blocks("sql"))))
def test_a_query_that_is_shown_has_an_answer(reader: Path, query: str) -> None:
    result = run(f"gigawatch sql --data {DEMO} --format json {shlex.quote(query)}")
    assert result.exit_code == 0, result.output
    rows = json.loads(result.output)
    assert rows
    assert any(value is not None for value in rows[0].values())


def _shown_elsewhere() -> Iterator[Any]:
    """Queries of the documents, but those of `sql.md`, which are asked at the door."""
    for path in sorted((ROOT / "docs").glob("*.md")):
        found = blocks("sql", path.read_text("utf-8")) if path.name != "sql.md" else []
        yield from (pytest.param(query, id=f"{path.name}-{n}") for n, query in enumerate(found))


@pytest.mark.parametrize("query", list(_shown_elsewhere()))
def test_a_query_of_another_document_has_an_answer(reader: Path, query: str) -> None:
    result = run(f"gigawatch sql --data {DEMO} --format json {shlex.quote(query)}")
    assert result.exit_code == 0, result.output
    rows = json.loads(result.output)
    assert rows or "quarantine" in query  # where nothing is amiss
    assert all(any(value is not None for value in row.values()) for row in rows)


def test_no_document_takes_the_mean_of_samples_for_that_of_gpus() -> None:
    """Some report more often; `gpu_*` says of each mean that it is of the samples."""
    means = {f"{measure.name}_mean" for measure in CATALOG.by_view("gpu").measures}
    for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        text = path.read_text("utf-8")
        asked = [*blocks("sql", text), *blocks("sh", text), *blocks("python", text)]
        assert not [name for name in means for query in asked if name in query], path.name


def test_there_are_three_queries() -> None:
    assert len(blocks("sql")) == 3


@pytest.mark.parametrize("path", ["README.md", "docs/performance.md", "docs/decisions.md"])
def test_a_page_that_everybody_reads_is_short(path: str) -> None:
    assert len((ROOT / path).read_text("utf-8").splitlines()) <= 250


def test_the_python_that_is_shown_reads_the_history(reader: Path) -> None:
    [text] = blocks("python", DOCS["history"])
    found: dict[str, Any] = {}
    exec(text.replace("duckdb.sql(", "found = duckdb.sql("), found)
    assert dict(found["found"].fetchall())["us-east"] == 320


@pytest.mark.parametrize(
    "line", re.findall(rf"^gigawatch sql --data {DEMO} .*$", DOCS["history"], re.MULTILINE)
)
def test_an_sql_command_that_is_shown_works(reader: Path, line: str) -> None:
    result = run(line)
    assert result.exit_code == 0, result.output
    assert len(result.output.splitlines()) > 1


def test_every_view_that_is_named_is_there() -> None:
    [listed] = re.findall(
        r"^`gigawatch sql` has a view for each: (.*?)\. Times", DOCS["history"], re.MULTILINE | re.DOTALL
    )
    named = re.findall(r"`(\w+)`", listed)
    assert len(named) > 9
    assert set(named) <= set(view_names(CATALOG))


def test_every_directory_of_the_history_that_is_named_is_there(demo: Path) -> None:
    for pattern in (
        "history/*/date=*/hour=*",
        "rollups/*/10s/date=*",
        "rollups/*/1d/date=*",
        "alerts",
        "fates",
    ):
        assert list((demo / DEMO).glob(pattern)), pattern
        root, _, _ = pattern.partition("/")
        assert f"`{root}/" in DOCS["history"]


def test_the_status_that_is_shown_has_the_form_of_the_one_that_is_printed(reader: Path) -> None:
    shown = block("console", "gigawatch status", DOCS["operations"])
    line, _, page = shown.partition("\n")
    result = run(f"{line.removeprefix('$ ')} --data {DEMO}")
    assert result.exit_code == 0
    printed = [row.split() for row in result.output.splitlines()]
    for row in page.splitlines():
        words = row.split()
        if words[:1] in (["topic"], ["clause"], ["Contract:"]):
            assert words in printed, row
        elif words[:1] and words[0].startswith("telemetry."):
            assert any(found[:1] == words[:1] and len(found) == len(words) for found in printed), row
    assert "in = " in result.output


# ------------------------------------------------------------------------------------------------ the recorded day


def test_the_mapping_and_the_contract_of_the_recorded_day_load(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "replay.md").read_text("utf-8")
    for found, name, loads in (
        (block("yaml", "mapping: ", text), "mapping.yaml", load_mapping),
        (block("yaml", "metadata: ", text), "contract.yaml", load_contract),
    ):
        (tmp_path / name).write_text(found)
        loads(tmp_path / name)
