"""What the author of a wrong contract reads: place, found, expected, and the nearest valid name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline.catalog import schema_directory
from pipeline.clauses import load
from pipeline.errors import ContractError

EXAMPLE = (schema_directory() / "example-contract.yaml").read_text("utf-8")
A_NAME = "a name of letters, digits, '.', '_' and '-', such as 'eu-floor'"
NO_CONTRACT = "expected a contract: a mapping that begins with metadata"
TOO_DEEP = "found more than 30 levels, expected a contract; does an alias repeat itself (&name, *name)?"
MISTAKES = YAML(typ="safe", pure=True).load((Path(__file__).parent / "mistakes.yaml").read_text("utf-8"))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path("northwind.yaml")


def refusal(path: Path, content: str | bytes) -> str:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ContractError) as error:
        load(path)
    return str(error.value)


def place(text: str, marker: str) -> str:
    """LINE:COL of `marker` in `text`, both from 1."""
    before = text[: text.index(marker)]
    return f"{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}"


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake["written"][:40].strip())
def test_a_mistake_is_named_with_its_place_and_its_remedy(here: Path, mistake: dict[str, str]) -> None:
    assert mistake["stands"] in EXAMPLE
    text = EXAMPLE.replace(mistake["stands"], mistake["written"], 1)
    says = re.sub(r"{line of (.*?)}", lambda m: place(text, m[1]).partition(":")[0], mistake["says"])
    where = f"{place(text, mistake['at'])} {mistake['path']}".strip()
    assert refusal(here, text) == f"contract northwind.yaml:{where}: {says}"


def test_a_missing_field_is_asked_for_where_it_should_stand(here: Path) -> None:
    text = EXAMPLE.replace("- id: eu-fleet\n    text", "- text", 1)
    at = place(text, "text: Aurora keeps")
    says = f"capacity[0].id: found nothing, expected {A_NAME}"
    assert refusal(here, text) == f"contract northwind.yaml:{at} {says}"


def test_every_fault_of_a_file_is_reported_at_once_in_the_order_of_the_file(here: Path) -> None:
    text = (
        EXAMPLE.replace("timezone: Europe/Berlin\n\n", "timezone: Mars\n\n", 1)
        .replace("FREQ=WEEKLY", "FREQ=OFTEN", 1)
        .replace("for: 2m", "for: ever", 1)
        .replace("severity: ticket", "severity: low", 1)
        .replace("- id: year-2", "- name: year-2", 1)
    )
    first, *rest = refusal(here, text).splitlines()
    assert first == "contract northwind.yaml: refused as a whole, 6 faults:"
    paths = [line.split()[1].rstrip(":") for line in rest]
    assert paths == [
        "timezone", "windows.fleet-replanning.recurring[0].rrule", "capacity[0].for",
        "spend.tranches[0].severity", "spend.tranches[1].id", "spend.tranches[1].name",
    ]  # fmt: skip
    lines = [int(line.split(":")[1]) for line in rest]
    assert lines == sorted(lines)


def test_a_file_with_hundreds_of_faults_shows_the_first_fifty(here: Path) -> None:
    clauses = "".join(f"  - {{id: c{i}, wrong: 1, committed_gpus: 1}}\n" for i in range(400))
    lines = refusal(here, EXAMPLE[: EXAMPLE.index("capacity:")] + "capacity:\n" + clauses).splitlines()
    assert len(lines) == 52
    assert lines[0] == "contract northwind.yaml: refused as a whole, 400 faults:"
    assert lines[-1] == "  … and 350 more"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", ":1:1: found an empty file, expected a contract"),
        (b"# nothing but a comment\n", ":1:1: found an empty file, expected a contract"),
        (b"null", f":1:1: found nothing, {NO_CONTRACT}"),
        (b"[1, 2]", f":1:1: found a list, {NO_CONTRACT}"),
        (b"secret", f":1:1: found text, {NO_CONTRACT}"),
        (b"42", f":1:1: found a single value, {NO_CONTRACT}"),
        (b"caf\xe9: 1", ":1:4: found the byte 0xE9, expected text in UTF-8; save the file as UTF-8"),
        (b"\xff\xfem\x00", ":1:1: found the byte 0xFF, expected text in UTF-8; save the file as UTF-8"),
        (b"a: 1\nb: [" + b"[" * 100_000, ":2:4: found endless nesting, expected a contract"),
        (b"a: " + b"[1, " * 31 + b"]" * 31, f":1:121: {TOO_DEEP}"),
        (b"a: &a [*a]", f":1:4: {TOO_DEEP}"),
        (b"#" * (1 << 20) + b"#", ": found more than 1 MiB, expected a contract of at most 1 MiB"),
    ],
)  # fmt: skip
def test_what_is_no_contract_at_all_is_one_fault(here: Path, content: bytes, says: str) -> None:
    assert refusal(here, content) == f"contract northwind.yaml{says}"


def test_some_other_file_is_not_shown_to_the_world(here: Path) -> None:
    message = refusal(here, b"password: hunter2\ntoken: abc\n")
    assert message.startswith("contract northwind.yaml:1:1: found no field of a contract, expected one of")
    assert "hunter2" not in message
    assert "token" not in message


def test_a_billion_laughs_are_refused(here: Path) -> None:
    lines = ["a0: &a0 [ha, ha, ha, ha, ha, ha, ha, ha, ha]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
    message = refusal(here, "\n".join(lines))
    assert "found more than 50,000 values, expected a contract; does an alias repeat itself" in message


def test_a_file_that_cannot_be_read_is_named(here: Path) -> None:
    for path, what in ((here, "no such file or directory"), (here.parent, "a directory")):
        with pytest.raises(ContractError, match=f"found {what}, expected"):
            load(path)
