"""Whole systems: what docker-compose.yml, Dockerfile and deploy/ name exists in the project, and is safe.

No engine is needed: the files are read as they are.  tests/containers/ builds and runs the image.
"""

from __future__ import annotations

import re
import runpy
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from ruamel.yaml import YAML

from pipeline.catalog import load as load_catalog
from pipeline.clauses import load as load_contract
from pipeline.clauses.service_levels import ServiceLevelClause
from pipeline.serve.keys import make_keys
from pipeline.settings import Settings
from pipeline.simulate import scenarios
from tests.clauses_of import clauses_of

ROOT = Path(__file__).resolve().parent.parent
COMPOSE = ROOT / "docker-compose.yml"
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
GUIDE = (ROOT / "docs" / "deploy.md").read_text("utf-8")
DATA = "/var/lib/gigawatch"


def yaml(path: Path) -> Any:
    return YAML(typ="safe", pure=True).load(path.read_text("utf-8"))


def filled_in(value: str) -> str:
    """`${NAME:-default}` as it is when the variable is not set."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)


FILE: Any = yaml(COMPOSE)
SERVICES: dict[str, Any] = FILE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"].startswith("gigawatch")}
LASTING = [name for name, service in SERVICES.items() if service["restart"] != "no"]
each = pytest.mark.parametrize("name", SERVICES)


def instructions(word: str) -> list[str]:
    """The arguments of an instruction of the Dockerfile, each as one line."""
    return re.findall(rf"^{word} (.*)$", DOCKERFILE.replace("\\\n", " "), re.MULTILINE)


def mounts(service: Any) -> Iterator[tuple[str, str, bool]]:
    """(source, target, read-only) of each volume."""
    for text in service.get("volumes", ()):
        source, target, *mode = filled_in(text).split(":")
        yield source, target, mode == ["ro"]


def listens(name: str) -> set[str]:
    """The ports that a service is known to listen on: those it publishes, and Kafka's listeners."""
    service = SERVICES[name]
    published = {text.split(":")[-1] for text in service.get("ports", ())}
    listeners = service.get("environment", {}).get("KAFKA_LISTENERS", "")
    return published | set(re.findall(r":(\d+)", listeners))


# -- images --------------------------------------------------------------------------------------------------


def test_every_image_is_pinned_to_a_version() -> None:
    bases = [default for _, default in re.findall(r"^ARG (BASE)=(.*)$", DOCKERFILE, re.MULTILINE)]
    assert len(bases) == 1 and set(instructions("FROM")) == {"${BASE} AS build", "${BASE}"}
    for image in [*bases, *(service["image"] for service in SERVICES.values())]:
        assert re.search(r":v?\d+\.\d+\.\d+(-[\w-]+)?$", image), image


def test_our_image_has_the_version_of_the_project_and_kafka_that_of_the_embedded_one() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    assert {service["image"] for service in OURS.values()} == {f"gigawatch:{version}"}
    [kafka] = re.findall(
        r"kafka_2\.13:(\S+)", (ROOT / "pipeline" / "broker" / "kafka.jars").read_text("utf-8")
    )
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{kafka}"


def test_the_python_of_the_image_is_one_that_the_project_supports() -> None:
    [found] = re.findall(r"^ARG BASE=python:(\d+)\.(\d+)", DOCKERFILE, re.MULTILINE)
    assert tuple(map(int, found)) >= (3, 11)


def ignored(path: str) -> bool:
    """Whether .dockerignore leaves the path out; the last line that matches decides."""
    out = False
    for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines():
        pattern = line.removeprefix("!")
        if line and not line.startswith("#") and (fnmatch(path, pattern) or path.startswith(f"{pattern}/")):
            out = not line.startswith("!")
    return out


def test_everything_that_is_copied_exists_and_is_sent_to_the_engine() -> None:
    copied = [
        word for line in instructions("COPY") if not line.startswith("--") for word in line.split()[:-1]
    ]
    assert {"pipeline", "schemas", "requirements.lock", "pyproject.toml"} <= set(copied)
    for path in copied:
        assert (ROOT / path).exists() and not ignored(path), path
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert {project["readme"], *project["license-files"]} <= set(copied), "the wheel is made with them"


def test_nothing_else_is_sent_to_the_engine() -> None:
    for path in (".git", ".venv", "deploy", "tests", "docs", "gigawatch-data", "pipeline/__pycache__"):
        assert ignored(path), path


def test_what_builds_the_wheel_comes_from_the_lock_file_whole() -> None:
    [names] = re.findall(r"\^\(([\w|-]+)\)==", DOCKERFILE)
    asked = [Requirement(line) for line in metadata.requires("hatchling") or ()]
    needed = {r.name for r in asked if r.marker is None or r.marker.evaluate()} | {"hatchling"}
    assert set(names.split("|")) == needed
    lock = (ROOT / "requirements-dev.lock").read_text("utf-8")
    assert all(re.search(rf"^{name}==", lock, re.MULTILINE) for name in needed)
    assert all("--require-hashes" in line for line in re.findall(r"pip install .*-r .*", DOCKERFILE))


def test_the_image_runs_as_a_number_that_is_not_root_and_owns_its_data() -> None:
    assert instructions("USER") == ["10001:10001"]
    assert "useradd --uid 10001 --user-group" in DOCKERFILE
    assert f"install -d -o gigawatch -g gigawatch -m 750 {DATA}" in DOCKERFILE
    assert instructions("VOLUME") == [DATA]


def test_the_health_check_is_a_command_of_ours_and_needs_no_shell() -> None:
    documented = runpy.run_path(str(ROOT / "tests" / "test_docs.py"))
    checks = [
        yaml_list(line) for line in re.findall(r"^HEALTHCHECK .*? CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)
    ]
    checks.append(SERVICES["pipeline"]["healthcheck"]["test"][1:])
    for command in checks:
        assert command == ["gigawatch", "status", "--check"]
        documented["options_of"](command[1:])
    assert instructions("ENTRYPOINT") == ['["gigawatch"]']


def yaml_list(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)


# -- services ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OURS)
def test_every_command_of_ours_exists_with_its_options(name: str) -> None:
    runpy.run_path(str(ROOT / "tests" / "test_docs.py"))["options_of"](OURS[name]["command"])


@pytest.mark.parametrize("name", OURS)
def test_our_containers_cannot_write_but_where_they_must_and_nobody_makes_them_root(name: str) -> None:
    service = OURS[name]
    assert service["read_only"] is True and service["build"] == "."
    assert "user" not in service and "entrypoint" not in service
    writable = {target for _, target, read_only in mounts(service) if not read_only}
    assert writable == {"pipeline": {DATA}, "keys": {"/etc/gigawatch/keys"}}.get(name, set())


@each
def test_no_container_has_capabilities_or_may_get_new_ones_and_each_has_a_limit(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"]
    assert re.fullmatch(r"\d+[mg]", service["mem_limit"])
    assert "privileged" not in service and service.get("network_mode") is None


def test_the_memory_of_the_pipeline_holds_what_its_settings_let_duckdb_have() -> None:
    megabytes = int(re.fullmatch(r"(\d+)MB", Settings().memory_limit)[1])  # type: ignore[index]
    assert SERVICES["pipeline"]["mem_limit"] == "2g" and megabytes * 2 < 2048


@each
def test_every_port_is_published_on_the_loopback_only(name: str) -> None:
    for text in SERVICES[name].get("ports", ()):
        assert re.fullmatch(r"127\.0\.0\.1:(\d+):\1", text), text


def test_no_two_services_publish_one_port() -> None:
    published = [text for service in SERVICES.values() for text in service.get("ports", ())]
    assert len(published) == len(set(published)) > 3


@each
def test_every_mounted_path_exists_and_every_volume_is_declared(name: str) -> None:
    for source, target, read_only in mounts(SERVICES[name]):
        assert target.startswith("/")
        if source.startswith("."):
            assert (ROOT / source).exists(), source
            assert read_only, f"{source}: the project's own files are not for containers to write"
        else:
            assert source in FILE["volumes"], source


def test_every_declared_volume_is_used() -> None:
    assert set(FILE["volumes"]) == {
        s for each in SERVICES.values() for s, _, _ in mounts(each) if s[0] != "."
    }


def test_no_secret_stands_in_the_file() -> None:
    for service in SERVICES.values():
        for variable in service.get("environment", {}):
            secret_like = re.search(r"PASSWORD|TOKEN|SECRET|KEY", variable)
            assert not secret_like or variable.endswith("_FILE"), variable


def test_a_key_that_is_read_is_one_that_is_made_before_and_mounted(tmp_path: Path) -> None:
    [folder, *names] = [word for word in SERVICES["keys"]["command"][1:]]
    made = {path.name for path, _ in make_keys(tmp_path / "keys", [name.partition("=")[2] for name in names])}
    assert {"--host=door", "--host=board"} <= set(names)
    for name, service in SERVICES.items():
        texts = [*service.get("environment", {}).values(), *(service.get("command") or ())]
        if name == "grafana":
            texts += [(ROOT / "dashboards/provisioning/datasources/gigawatch.yaml").read_text("utf-8")]
        read = {found for text in texts for found in re.findall(rf"{folder}/([\w.-]+)", text)}
        assert read <= made, name
        if read:
            assert (folder, True) in {(target, ro) for _, target, ro in mounts(service)}, name
            before = {"keys", *service["depends_on"]} if name == "grafana" else service["depends_on"]
            assert "keys" in before, name


@each
def test_every_variable_is_a_setting_or_is_explained(name: str) -> None:
    documented = (ROOT / "docs" / "settings.md").read_text("utf-8")
    for variable, value in SERVICES[name].get("environment", {}).items():
        assert isinstance(value, str), f"{variable}: quote it, or compose may rewrite it"
        if variable.startswith("GIGAWATCH_"):
            setting = variable.removeprefix("GIGAWATCH_").lower()
            assert setting in Settings.model_fields or f"`{variable}`" in documented, variable
        else:
            assert variable.startswith({"kafka": "KAFKA_", "grafana": "GF_"}[name]), variable


def test_the_settings_that_are_given_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    for service in OURS.values():
        for variable, value in service.get("environment", {}).items():
            monkeypatch.setenv(variable, filled_in(value))
    [set_in_image] = re.findall(r"GIGAWATCH_DATA=(\S+)", DOCKERFILE)
    monkeypatch.setenv("GIGAWATCH_DATA", set_in_image)
    settings = Settings()
    assert str(settings.data) == DATA
    assert DATA in {target for _, target, _ in mounts(SERVICES["pipeline"])}
    assert str(settings.contract) in {target for _, target, _ in mounts(SERVICES["pipeline"])}


def test_every_variable_that_a_user_may_set_is_explained() -> None:
    for name in set(re.findall(r"\$\{(\w+)", COMPOSE.read_text("utf-8"))):
        assert f"`{name}`" in GUIDE, name


def test_every_address_leads_to_a_service_that_listens_there() -> None:
    texts = [v for service in OURS.values() for v in service.get("environment", {}).values()]
    texts.append(yaml(ROOT / "dashboards/provisioning/datasources/gigawatch.yaml")["datasources"][0]["url"])
    texts.append(SERVICES["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"])
    found = {pair for text in texts for pair in re.findall(r"\b([a-z]+):(\d+)\b", text)}
    assert {host for host, _ in found} == {"kafka", "alertmanager", "door"}
    for host, port in found:
        assert port in listens(host), f"{host}:{port}"


# -- start order ---------------------------------------------------------------------------------------------


def test_who_waits_waits_for_health_and_who_runs_says_whether_it_is_well() -> None:
    for service in SERVICES.values():
        for other, how in service.get("depends_on", {}).items():
            wanted = "service_healthy" if other in LASTING else "service_completed_successfully"
            assert how == {"condition": wanted}
            assert "profiles" not in SERVICES[other], "it would not be there"
    assert "topics" not in LASTING
    for name in LASTING:
        check = SERVICES[name]["healthcheck"]
        assert name == "simulator" or check["test"][0] == "CMD", name


def test_everything_starts_after_what_it_needs() -> None:
    def before(name: str) -> set[str]:
        direct = set(SERVICES[name].get("depends_on", {}))
        return direct.union(*map(before, direct))

    assert before("grafana") == {"door", "keys", "pipeline", "topics", "kafka", "alertmanager"}
    assert before("simulator") == {"pipeline", "topics", "kafka", "alertmanager"}


def test_only_the_simulator_is_asked_for_by_name() -> None:
    assert {name: s["profiles"] for name, s in SERVICES.items() if "profiles" in s} == {
        "simulator": ["simulator"]
    }


# -- what is mounted -----------------------------------------------------------------------------------------


def test_grafana_finds_its_data_source_and_its_dashboards() -> None:
    targets = {target: source for source, target, _ in mounts(SERVICES["grafana"])}
    provisioning = ROOT / targets["/etc/grafana/provisioning"]
    [source] = yaml(provisioning / "datasources" / "gigawatch.yaml")["datasources"]
    assert (source["type"], source["uid"], source["editable"]) == ("mysql", "gigawatch", False)
    assert source["jsonData"]["timezone"] == "+00:00"
    [provider] = yaml(provisioning / "dashboards" / "gigawatch.yaml")["providers"]
    assert (ROOT / targets[provider["options"]["path"]]).is_dir()
    assert provider["allowUiUpdates"] is False


def test_the_contract_that_is_mounted_is_that_of_the_simulated_fleet() -> None:
    play = scenarios.plan(scenarios.load("peak-season"), 1_795_000_000.0)
    [file] = (ROOT / "deploy" / "contracts").glob("*.yaml")
    mounted, template = load_contract(file), YAML(typ="safe", pure=True).load(play.contract_text())
    ids = [clause["id"] for part in ("capacity", "power", "service_levels") for clause in template[part]]
    assert [c.id for c in mounted.clauses] == [*ids, *(t["id"] for t in template["spend"]["tranches"])]
    assert (mounted.id, mounted.currency) == (template["metadata"]["id"], template["currency"])
    assert mounted.term.end - mounted.term.start > 9 * 365 * 86_400, (
        "a feed that goes on outlives no term soon"
    )
    names = {name for event in load_catalog().types for name in (d.name for d in event.dimensions)}
    assert all(name in names for clause in mounted.clauses for name, _ in clause.match.items())
    for clause in clauses_of(mounted, ServiceLevelClause):
        assert "region" in clause.by, "or no CapacityShortfall can speak for it"


@pytest.mark.skipif(
    not (shutil.which("docker-compose") or shutil.which("docker")), reason="needs a compose binary"
)
@pytest.mark.parametrize("profile", [[], ["--profile", "simulator"]], ids=["plain", "simulator"])
def test_compose_itself_reads_the_file(profile: list[str]) -> None:
    command = next((c for c in (["docker-compose"], ["docker", "compose"]) if _composes(c)), None)
    if command is None:
        pytest.skip("needs a compose binary: apt-get install docker-compose")
    done = subprocess.run([*command, *profile, "config"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shown = YAML(typ="safe", pure=True).load(done.stdout)["services"]
    wanted = {name for name in SERVICES if profile or "profiles" not in SERVICES[name]}
    assert wanted <= set(shown)
    assert all(shown[name]["image"] == SERVICES[name]["image"] for name in wanted)


def _composes(command: list[str]) -> bool:
    if shutil.which(command[0]) is None:
        return False
    return subprocess.run([*command, "version"], capture_output=True).returncode == 0
