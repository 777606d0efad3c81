"""Containers for tests: Kafka as docker-compose.yml has it, and our own image, built here.

Where no Docker engine answers, every test of this folder is skipped and says so.  CONTAINERS_BASE names another base
image to build on, CONTAINERS_KAFKA another image in place of the official one: for machines that can pull nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.errors import DockerException
from ruamel.yaml import YAML
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer
from testcontainers.core.image import DockerImage
from testcontainers.core.network import Network

from pipeline.broker.kafka import free_port
from pipeline.errors import BrokerUnreachable
from pipeline.stream.topic_admin import cluster_id
from tests.patience import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
SERVICES: dict[str, Any] = YAML(typ="safe", pure=True).load((ROOT / "docker-compose.yml").read_text("utf-8"))[
    "services"
]

# The reaper is one more image to pull; every fixture here removes what it started.
testcontainers_config.ryuk_disabled = True


@pytest.fixture(scope="session", autouse=True)
def engine() -> Iterator[docker.DockerClient]:
    """The Docker engine; the tests are skipped where none answers."""
    try:
        client = docker.from_env()
        client.ping()
    except DockerException as error:
        pytest.skip(f"no Docker engine answers ({str(error)[:120]})")
    yield client
    client.close()


def eventually(what: str, true: Callable[[], Any]) -> Any:
    """The first truthy value of `true`; fails when it stays false."""
    deadline = time.monotonic() + PATIENCE
    while not (found := true()):
        assert time.monotonic() < deadline, f"not within {PATIENCE:.0f} s: {what}"
        time.sleep(0.5)
    return found


@pytest.fixture(name="eventually", scope="session")
def _eventually() -> Callable[..., Any]:
    return eventually


@dataclass(frozen=True)
class Broker:
    """Kafka in a container: its address for this machine, and for containers on `network`."""

    outside: str
    inside: str
    network: Network


@pytest.fixture(scope="session")
def broker(engine: docker.DockerClient) -> Iterator[Broker]:
    """The service `kafka` of docker-compose.yml, on a port of its own."""
    service, port = SERVICES["kafka"], free_port()
    environment = dict(service["environment"])
    advertised = environment["KAFKA_ADVERTISED_LISTENERS"]
    environment["KAFKA_ADVERTISED_LISTENERS"] = advertised.replace("127.0.0.1:9092", f"127.0.0.1:{port}")
    outside = f"127.0.0.1:{port}"

    def answers() -> bool:
        try:
            return bool(cluster_id(outside, timeout=3))
        except BrokerUnreachable:
            return False

    with Network() as network:
        kafka = DockerContainer(os.environ.get("CONTAINERS_KAFKA", service["image"]), env=environment)
        kafka.with_network(network).with_network_aliases("kafka")
        kafka.ports["9092/tcp"] = ("127.0.0.1", port)  # with_bind_ports would open it to every network
        kafka.with_kwargs(mem_limit=service["mem_limit"], cap_drop=service["cap_drop"], init=True)
        with kafka:
            eventually("Kafka in its container answers", answers)
            yield Broker(outside, "kafka:19092", network)


@pytest.fixture(scope="session")
def image(engine: docker.DockerClient) -> Iterator[str]:
    """Our own image, built from Dockerfile; gone afterwards."""
    base = os.environ.get("CONTAINERS_BASE")
    arguments = {"buildargs": {"BASE": base}} if base else {}
    with DockerImage(path=ROOT, tag="gigawatch:tested", **arguments) as built:
        yield str(built)


Ours = Callable[..., DockerContainer]


@pytest.fixture
def ours(image: str, broker: Broker) -> Iterator[Ours]:
    """`ours("status", …)`: a container of our image that docker-compose.yml's limits hold; gone afterwards.

    `contract`: whether the contract of the simulated fleet is mounted, as it is for the pipeline.
    """
    made: list[DockerContainer] = []
    service = SERVICES["pipeline"]

    def start(*command: str, contract: bool = False) -> DockerContainer:
        container = DockerContainer(image, command=list(command), network=broker.network)
        container.with_envs(GIGAWATCH_BOOTSTRAP=broker.inside)
        container.with_kwargs(
            read_only=service["read_only"], cap_drop=service["cap_drop"],
            security_opt=service["security_opt"], mem_limit=service["mem_limit"], init=service["init"],
        )  # fmt: skip
        for place in service["tmpfs"]:
            container.with_tmpfs_mount(*place.split(":"))
        if contract:
            target = service["environment"]["GIGAWATCH_CONTRACT"]
            container.with_envs(GIGAWATCH_CONTRACT=target)
            container.with_volume_mapping(ROOT / "deploy" / "contracts", target, "ro")
        made.append(container.start())
        return container

    yield start
    for container in reversed(made):
        container.stop()
