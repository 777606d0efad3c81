"""What the documents say of the code is compared with the code: tables, links, commands, names.

Tables between `<!-- table: NAME -->` and `<!-- end -->` are made from the code, the schema of contracts and the sections of
the example contract from the fragments of the kinds of clause; `python tests/test_docs.py` writes them anew.
"""

from __future__ import annotations

import ast
import json
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pytest
import typer.main
from aiokafka.structs import ConsumerRecord
from pydantic_core import PydanticUndefined

from pipeline.catalog import EventType, Measure, load
from pipeline.clauses import KINDS
from pipeline.cli import app
from pipeline.contract.fragments import (
    clause_shape,
    definitions,
    example,
    fragment,
    merged,
    shared_shapes,
)
from pipeline.history.retention import Keep
from pipeline.ledger.store import Ledger
from pipeline.rollup.grid import DAY
from pipeline.rules.pipeline_alerts import FIRES_WHEN
from pipeline.rules.telemetry import WATCHES
from pipeline.settings import Settings
from pipeline.simulate.cloud_events import Message, cloud_event
from pipeline.stream.batch import topic_records
from pipeline.stream.decode import Decoder
from pipeline.stream.decoded import receive
from pipeline.stream.inspect import inspect
from pipeline.views.published import published_tables

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
CATALOG = load()
MAX_BYTES = 2**20

_MARKED = re.compile(r"<!-- table: ([\w ./]+) -->\n(.*?)<!-- end -->", re.DOTALL)
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)

# ---------------------------------------------------------------------------------------------- the tables

PLAIN = {
    "security_protocol": "`PLAINTEXT`, `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`",
    "sasl_mechanism": "`PLAIN`, `SCRAM-SHA-256`, `SCRAM-SHA-512`, …",
    "sasl_plain_username": "User name for SASL",
    "sasl_plain_password": "Password for SASL; from the environment, or better from `sasl_password_file`",
    "ssl_cafile": "PEM file with the authorities that sign the brokers' certificates",
    "ssl_certfile": "PEM file with our own certificate, where brokers ask for one",
    "ssl_keyfile": "PEM file with its key",
}
"""Settings that are passed through to the Kafka clients, and so have no description in the code."""

Rows = Iterator[tuple[str, ...]]


def table(rows: Rows) -> str:
    """Rows as a Markdown table; the first one is the head."""
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    lines.insert(1, "| " + " | ".join("---" for _ in range(lines[0].count(" | ") + 1)) + " |")
    return "\n".join(lines) + "\n"


def topics_table() -> Rows:
    yield "topic", "type", "dimensions", "entity", "measures", "every"
    for event in sorted(CATALOG.types, key=lambda event: (event.retained, event.entity is None, event.topic)):
        dimensions = ", ".join(f"{d.name}{'?' if d.optional else ''}" for d in event.dimensions)
        measures = ", ".join(measure.name for measure in event.measures)
        entity = event.entity.name if event.entity else ""
        yield f"`{event.topic}`", f"`{event.type}`", dimensions, entity, measures, _seconds(event.interval)


def fields_table(event: EventType) -> Rows:
    yield "field", "is", "range", "required", "says"
    optional = {field.name: field.optional for field in event.fields}
    if event.window_time:
        yield (
            f"`{event.window_time}`",
            "label, time; decides the window",
            "",
            "yes",
            _described(event, event.window_time),
        )
    for field in event.fields:
        if field.name == event.window_time:
            continue
        role = "dimension" if field in event.dimensions else "entity" if field == event.entity else "label"
        kind = {"time": "label, time", "json": "label, object"}.get(field.kind, role)
        words = ", ".join(f"`{word}`" for word in field.enum)
        yield f"`{field.name}`", kind, words, "" if optional[field.name] else "yes", field.description
    for measure in event.measures:
        required = "" if measure.optional else "yes"
        yield f"`{measure.name}`", _measured(measure), _range(measure), required, measure.description


def _described(event: EventType, name: str) -> str:
    return next(field.description for field in event.fields if field.name == name)


def _measured(measure: Measure) -> str:
    kinds = {"money": "exact decimal", "histogram": "list of values", "text": "word"}
    unit = f", {measure.unit}" if measure.unit else ""
    return f"measure: {kinds.get(measure.kind, 'whole number' if measure.integer else 'number')}{unit}"


def _range(measure: Measure) -> str:
    if measure.enum:
        return ", ".join(f"`{word}`" for word in measure.enum)
    if measure.minimum is None or measure.maximum is None:
        return ""
    return f"{_number(measure.minimum)} to {_number(measure.maximum)}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) < 1e7 else f"{value:.4g}"


def _seconds(seconds: int) -> str:
    return {30: "30 s", 3600: "1 h"}.get(seconds, f"{seconds} s")


def alerts_table() -> Rows:
    yield "alert", "fires when", "asked for by"
    for kind in KINDS:
        for rule in kind.alerts:
            yield rule.alertname, rule.fires_when, f"`{kind.path}`"
    for own in WATCHES:
        yield own.alertname, own.fires_when, "always"
    for name, words in FIRES_WHEN.items():
        yield name, words, "always"


def clauses_table() -> Rows:
    yield "section", "promises", "kind", "alerts", "view"
    for kind in KINDS:
        alerts = ", ".join(rule.alertname for rule in kind.alerts)
        view = f"`{kind.view.name}`" if kind.view else ""
        yield f"`{kind.path}`", fragment(kind.path)["description"], f"`{kind.name}`", alerts, view


def terms_table() -> Rows:
    """What each kind of clause can say; what every clause can is told once."""
    yield "section", "field", "default", "says"
    for name, shape in shared_shapes().items():
        yield "each", f"`{name}`", _default(shape), _says(shape)
    for kind in KINDS:
        shapes = clause_shape(kind)["properties"]
        for name in (name for name in shapes if name not in shared_shapes()):
            yield f"`{kind.path}`", f"`{name}`", _default(shapes[name]), _says(shapes[name])


def _default(shape: Mapping[str, Any]) -> str:
    found = shape.get("default")
    if found is None:
        return ""
    return f"`{', '.join(found) if isinstance(found, list) else found}`"


def _says(shape: Mapping[str, Any]) -> str:
    definition = definitions()[shape["$ref"].rpartition("/")[2]] if "$ref" in shape else {}
    return str({**definition, **shape}["description"])


def settings_table() -> Rows:
    yield "setting", "default", "meaning"
    for name, field in Settings.model_fields.items():
        default = "" if field.default in (None, "", PydanticUndefined) else f"`{field.default}`"
        yield f"`{name}`", default, field.description or PLAIN[name]


KEEP = Keep()
WHILE_THERE = "as long as the data directory"
KEPT: Mapping[str, tuple[str, str]] = {
    "gpu energy queue billing quarantine": ("raw rows", "raw"),
    **{f"*_{width}": (f"roll-ups of {width}, in files and ledger", f"widths.{width}") for width in KEEP.widths},
    "gpu_minutes": ("GPU-minutes", "widths.1h"),
    "fates set_aside": ("counts of fates, and of measures set aside", "fates"),
    "health": ("the pipeline itself, each minute", "health"),
    "readings": ("how each promise stood", "readings"),
    "alerts": ("alert changes", "alerts"),
    "forecasts": ("forecasts, one a day", "forecasts"),
    "standing alerts_now clauses windows aliases": ("how it is now", "replaced as it changes"),
    "charges deliveries": ("charges with every revision, and what closes deliveries of bills", "widths.1d"),
    "delivered counted": ("how complete each delivery is", "as long as its charges"),
    "tallies": ("what rules that look back over weeks count of their own verdicts", "tallies"),
    "outbox": ("alert changes for receivers", "outbox"),
    "alert_state alert_notes": ("live alerts", "until they end"),
    "revised_*": ("every report of what is measured for a time more than once", "widths.1d"),
    "reported": ("what sources last counted", "a day after the series was last heard"),
    "offsets frontier evaluated meta": ("how far everything is taken in and evaluated", WHILE_THERE),
    "series_* entities_* kin_* shared_*": ("names of series and entities", WHILE_THERE),
    "seen_* flow_* sightings_* moved_*": ("when each was last seen", "a day after it was last seen"),
    "pulses_*": ("counters that stand still", "an hour"),
    "segments files published dirty ragged": ("which files there are, and which are to be written", "as long as the files"),
}  # fmt: skip
"""Tables and views, by patterns of their names: what they hold, and the attribute of `Keep` that says how long, or words."""


def retention_table() -> Rows:
    yield "table", "holds", "kept"
    for names, (holds, kept) in KEPT.items():
        width = kept.removeprefix("widths.")
        seconds = KEEP.widths[width] if width != kept else getattr(KEEP, kept, None)
        more = ", once delivered" if kept == "outbox" else ""
        listed = ", ".join(f"`{name}`" for name in names.split())
        yield listed, holds, kept if seconds is None else _days(seconds) + more


def test_every_table_that_is_kept_is_listed_once(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, CATALOG)
    with ledger.cursor() as con:
        rows = con.execute("SELECT table_name FROM duckdb_tables() WHERE NOT temporary").fetchall()
    ledger.close()
    kept = {name for (name,) in rows} | {table.view for table in published_tables(CATALOG)}
    patterns = [pattern for names in KEPT for pattern in names.split()]
    matched = {name: [p for p in patterns if fnmatch(name, p)] for name in kept}
    assert {name: found for name, found in matched.items() if len(found) != 1} == {}
    assert {p for p in patterns if not any(fnmatch(name, p) for name in kept)} == set()


def _days(seconds: int) -> str:
    days = seconds // DAY
    return f"{days // 365} years" if days % 365 == 0 and days > 365 else f"{days} days"


TABLES: Mapping[str, Callable[[], Rows]] = {
    "topics": topics_table,
    "alerts": alerts_table,
    "clauses": clauses_table,
    "terms": terms_table,
    "settings": settings_table,
    "retention": retention_table,
    **{f"fields {event.topic}": partial(fields_table, event) for event in CATALOG.types},
}


def renewed(text: str) -> str:
    """The document with every table that is made from the code as it is now; others stay."""

    def renew(found: re.Match[str]) -> str:
        name, body = found.groups()
        body = "\n" + table(TABLES[name]()) + "\n" if name in TABLES else body
        return f"<!-- table: {name} -->\n{body}<!-- end -->"

    return _MARKED.sub(renew, text)


SCHEMA = ROOT / "schemas" / "contract.json"
EXAMPLE = ROOT / "schemas" / "example-contract.yaml"


def schema_text() -> str:
    """What editors read: the schema of a contract with every kind of clause."""
    return json.dumps(merged(KINDS), indent=2, ensure_ascii=False) + "\n"


def example_text(text: str) -> str:
    """The example contract with the sections of every kind: they stand between its windows and its aliases."""
    lines = text.splitlines(keepends=True)
    begin = next(i for i, line in enumerate(lines) if i > lines.index("windows:\n") and line[0] not in " \n")
    end = lines.index("aliases:\n")
    while lines[end - 1].startswith("#"):
        end -= 1
    return "".join([*lines[:begin], example(KINDS), "\n", *lines[end:]])


def test_the_schema_that_editors_read_is_merged_of_the_frame_and_every_kinds_fragment() -> None:
    assert SCHEMA.read_text("utf-8") == schema_text(), "write it anew: python tests/test_docs.py"


def test_the_example_contract_has_the_sections_of_every_kind() -> None:
    text = EXAMPLE.read_text("utf-8")
    assert example_text(text) == text, "write it anew: python tests/test_docs.py"


def test_every_fragment_is_that_of_a_kind() -> None:
    assert {path.stem for path in (ROOT / "schemas" / "clauses").iterdir()} == {kind.path for kind in KINDS}


def blocks(document: Path, *languages: str) -> list[str]:
    """The code blocks of a document in these languages."""
    return [body for language, body in _FENCE.findall(document.read_text("utf-8")) if language in languages]


def by_name(document: Path) -> str:
    return document.relative_to(ROOT).as_posix()


every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=by_name)


@every_document
def test_tables_that_are_made_from_the_code_are_as_the_code_is_now(document: Path) -> None:
    text = document.read_text("utf-8")
    assert renewed(text) == text, "write them anew: python tests/test_docs.py"


def test_every_table_stands_somewhere_once() -> None:
    found = [name for document in DOCUMENTS for name, _ in _MARKED.findall(document.read_text("utf-8"))]
    assert {name: found.count(name) for name in TABLES} == dict.fromkeys(TABLES, 1)


def test_a_passed_through_setting_is_explained_here_and_every_other_one_in_the_code() -> None:
    assert set(PLAIN) == {name for name, field in Settings.model_fields.items() if not field.description}


# ------------------------------------------------------------------------------------------------ commands

Command = list[str]

FOREIGN = {
    "pip",
    "git",
    "cd",
    ".",
    "amtool",
    "mysql",
    "export",
    "python",
    "curl",
    "docker",
    "mkdir",
    "chmod",
    "openssl",
    "npm",
}
"""Commands of others that a document may name."""


def commands(document: Path) -> list[Command]:
    """Every command in the shell blocks of a document, and those after `$` in the console ones."""
    found: list[Command] = []
    typed = [
        line[2:] for block in blocks(document, "console") for line in block.splitlines() if line[:2] == "$ "
    ]
    for text in [*blocks(document, "sh"), *typed]:
        for line in text.replace("\\\n", " ").splitlines():
            lexer = shlex.shlex(line, posix=True, punctuation_chars="&;|")
            lexer.whitespace_split = True
            command: Command = []
            for word in lexer:
                if word in ("&&", ";", "|", "&"):
                    found, command = [*found, command], []
                else:
                    command.append(word)
            found.append(command)
    return [command for command in found if command]


def options_of(arguments: Command) -> None:
    """Parses the arguments of `gigawatch` as it would, and runs nothing.  Raises what it would print."""
    command: Any = typer.main.get_command(app)
    context = command.make_context("gigawatch", list(arguments))
    while hasattr(command, "commands"):
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, rest, parent=context)


def targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))


@every_document
def test_every_command_in_a_shell_block_is_one_that_exists_with_its_options(document: Path) -> None:
    for command in commands(document):
        first, *rest = command
        if first == "gigawatch":
            options_of(rest)
        elif first == "make":
            wanted = {word for word in rest if "=" not in word and word not in ("<", "/dev/null")}
            assert wanted <= targets(), command
        else:
            assert first in FOREIGN, command
        for word in rest if first in ("export",) else ():
            name = word.partition("=")[0].removeprefix("GIGAWATCH_").lower()
            assert name in Settings.model_fields, word


def test_a_command_that_does_not_exist_is_found() -> None:
    for line in (
        "simulate --scenari steady",
        "statsu",
        "run --port 9",
        "topics make",
        "sql --format xml 'SELECT 1'",
    ):
        with pytest.raises(Exception, match=r"No such|not one of|Invalid"):
            options_of(shlex.split(line))


# ---------------------------------------------------------------------------------------------------- links


@every_document
def test_every_link_to_a_file_or_heading_leads_somewhere(document: Path) -> None:
    text = _FENCE.sub("", document.read_text("utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        assert file.exists(), f"{target}: no such file"
        if anchor:
            assert anchor in headings(file), f"{target}: no such heading"


def headings(document: Path) -> set[str]:
    """The anchors that GitHub gives to headings."""
    text = _FENCE.sub("", document.read_text("utf-8"))
    titles = re.findall(r"^#+ +(.+?) *$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@every_document
def test_every_file_that_a_document_names_exists(document: Path) -> None:
    named = re.findall(r"`((?:pipeline|schemas|tests|docs)/[\w./-]+)`", document.read_text("utf-8"))
    for name in named:
        to_come = "NAME" in name or "PATH" in name
        assert (ROOT / name).exists() or to_come, f"{name}: no such file"


# --------------------------------------------------------------------------------------------------- events


def examples() -> list[tuple[str, dict[str, Any]]]:
    """Every CloudEvent that stands in a document."""
    found = [
        (by_name(document), msgspec.json.decode(block))
        for document in DOCUMENTS
        for block in blocks(document, "json")
    ]
    return [(name, event) for name, event in found if "specversion" in event]


def event_type(example: Mapping[str, Any]) -> EventType:
    return next(event for event in CATALOG.types if event.type == example["type"])


def as_message(example: Mapping[str, Any], mode: str) -> Message:
    """The example as a record in either content mode, as it would be written to Kafka."""
    event = event_type(example)
    at = datetime.fromisoformat(example["time"]).timestamp()
    return cloud_event(
        event.topic, event.type, example["source"], example["id"], round(at * 1000), example["data"],
        "binary" if mode == "binary" else "structured",
    )  # fmt: skip


def test_each_type_of_event_has_an_example_with_every_field() -> None:
    shown = {event["type"]: event["data"] for name, event in examples() if name == "docs/events.md"}
    assert set(shown) == {event.type for event in CATALOG.types}
    for event in CATALOG.types:
        samples = shown[event.type] if isinstance(shown[event.type], list) else [shown[event.type]]
        known = {field.name for field in event.fields} | {measure.name for measure in event.measures}
        given = {name for sample in samples for name in sample if not name.startswith("x_")}
        assert given == known, event.type


@pytest.mark.parametrize("mode", ["structured", "binary"])
@pytest.mark.parametrize(
    "example", [e for _, e in examples()], ids=[f"{n} {e['type']}" for n, e in examples()]
)
def test_an_example_is_a_good_event_on_both_paths(example: dict[str, Any], mode: str) -> None:
    event, message = event_type(example), as_message(example, mode)
    at = datetime.fromtimestamp(message.time_ms / 1000 + 0.5, UTC).replace(tzinfo=None)
    value = msgspec.json.encode(example) if mode == "structured" else message.value  # as it stands there
    outcomes = list(inspect(event, value, message.headers, at, MAX_BYTES))
    assert [o.fate for o in outcomes] == ["aggregated"] * message.samples, outcomes
    record = ConsumerRecord(
        event.topic,
        0,
        0,
        message.time_ms + 500,
        1,
        message.key,
        value,
        None,
        0,
        len(value),
        tuple(message.headers),
    )
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        decoded = Decoder(con.cursor(), event, MAX_BYTES).decode(topic_records([(0, [record])], MAX_BYTES))
        assert decoded.refusals == []
        receive(con, event, decoded.samples)
        counted = con.execute(f"SELECT count(*) FROM batch_{event.view}").fetchone()
    assert counted == (message.samples,)


def reasons_in_the_code() -> dict[str, set[str]]:
    """Reason, with `*` for a field, → the fates it stands for, as the slow path gives them."""
    files = [ROOT / "pipeline" / "stream" / "inspect.py", *(ROOT / "pipeline" / "formats").glob("*.py")]
    tree = ast.parse("\n".join(file.read_text("utf-8") for file in files))
    found: dict[str, set[str]] = {}

    def note(fate: ast.expr, reason: ast.expr) -> None:
        if isinstance(fate, ast.Constant):
            for name in _texts(reason):
                found.setdefault(name, set()).add(str(fate.value))

    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Unfit":
            note(node.args[0], node.args[1])
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Outcome":
            note(node.args[1], node.args[2])
        elif isinstance(node, ast.FunctionDef) and node.name in ("_doubt", "_measure", "_list"):
            for value in [n.value for n in ast.walk(node) if isinstance(n, ast.Return) and n.value]:
                note(ast.Constant("quarantined"), value)
    return found


def _texts(expression: ast.expr) -> Iterator[str]:
    """The texts that an expression can come to; of an f-string its end, with `*` before it."""
    if isinstance(expression, ast.Constant) and isinstance(expression.value, str) and expression.value:
        yield expression.value
    elif isinstance(expression, ast.JoinedStr) and isinstance(end := expression.values[-1], ast.Constant):
        yield "*" + str(end.value)
    elif isinstance(expression, ast.IfExp):
        yield from [*_texts(expression.body), *_texts(expression.orelse)]
    elif isinstance(expression, ast.Tuple):
        for part in expression.elts:
            yield from _texts(part)


def test_every_reason_is_explained_with_its_fate() -> None:
    text = (ROOT / "docs" / "events.md").read_text("utf-8")
    explained: dict[str, set[str]] = {}
    for fate, reasons in re.findall(r"^\| (quarantined|dead-lettered) \| (.+?) \|", text, re.MULTILINE):
        for reason in re.findall(r"`([*\w]+)`", reasons):
            explained.setdefault(reason, set()).add(fate.replace("-", "_"))
    assert explained == reasons_in_the_code()


# -------------------------------------------------------------------------------------------------- the house


def test_the_rooms_are_drawn_as_they_are() -> None:
    rooms = runpy.run_path(str(ROOT / "tests" / "test_arrows.py"))["ROOMS"]
    [drawn] = [block for block in blocks(ROOT / "CONTRIBUTING.md", "text") if block.startswith("cli >")]
    assert " ".join(drawn.split()) == " > ".join(", ".join(level) for level in rooms)


def test_the_changelog_keeps_its_form_and_knows_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    versions = re.findall(r"^## \[([^\]]+)\](?: - \d{4}-\d\d-\d\d)?$", text, re.MULTILINE)
    assert versions[0] == "Unreleased"
    assert project["version"] in versions
    assert len(versions) == len(re.findall(r"^## ", text, re.MULTILINE))
    kinds = set(re.findall(r"^### (.+)$", text, re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def committed() -> list[Path]:
    """Every file of the project: what Git has, or what was unpacked where there is no Git."""
    if (ROOT / ".git").exists():
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
    foreign = {".venv", "node_modules"}
    return [path for path in ROOT.rglob("*") if path.is_file() and not foreign & {*path.parts}]


HOSTS = re.compile(
    r"127\.0\.0\.1|[\w-]+|[\w.-]+\.example|github\.com"  # ourselves, a name in some network, examples
    r"|(?:[\w-]+\.)*(?:json-schema\.org|prometheus\.io|apache\.org|semver\.org|keepachangelog\.com)"
)
"""Hosts that a file may name."""
PLACES = re.compile(
    "|".join((r"/wo" r"rk/", r"/ro" r"ot/", r"/ho" r"me/\w", r"/Us" r"ers/\w", r"[A-Z]:\\Us" r"ers"))
)
REGISTRIES = re.compile(
    "|".join(
        (r"py" r"pi\.", r"python" r"hosted", r"ma" r"ven\.(?:org|apache)", r"rep" r"o1\.", r"index" r"-url")
    )
)
"""Written in pieces, so that this file does not name them."""


def named_elsewhere(text: str) -> list[str]:
    """What a file must not name: registries, places of one machine, hosts that are no example."""
    hosts = [
        host
        for host in re.findall(r"https?://([a-zA-Z0-9][a-zA-Z0-9.-]*)", text)
        if not HOSTS.fullmatch(host)
    ]
    return hosts + PLACES.findall(text) + REGISTRIES.findall(text)


def test_no_file_names_a_registry_a_foreign_host_or_a_place_on_one_machine() -> None:
    found = {}
    for path in committed():
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError:
            continue
        if path.name != "LICENSE" and (names := named_elsewhere(text)):
            found[path.relative_to(ROOT).as_posix()] = names
    assert found == {}


@pytest.mark.parametrize(
    "text", ["see https://py" "pi.org/simple", "in /wo" "rk/main", "/ho" "me/ann/data", "http://10" ".0.0.7:9092"]
)  # fmt: skip
def test_a_registry_a_place_or_a_foreign_host_is_found(text: str) -> None:
    assert named_elsewhere(text)


def test_the_licence_of_the_project_is_the_one_that_lies_there() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["license"] == "Apache-2.0"
    assert "Apache License\n                           Version 2.0" in (ROOT / "LICENSE").read_text("utf-8")
    assert project["readme"] == "README.md"


if __name__ == "__main__":
    for path in DOCUMENTS:
        before = path.read_text("utf-8")
        if (after := renewed(before)) != before:
            path.write_text(after, "utf-8")
            print(f"{by_name(path)}: tables written anew", file=sys.stderr)
    SCHEMA.write_text(schema_text(), "utf-8")
    EXAMPLE.write_text(example_text(EXAMPLE.read_text("utf-8")), "utf-8")
