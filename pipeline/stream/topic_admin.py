"""Topics as we want them, made and looked at through kafka-python's synchronous admin client.

`client_settings` are kafka-python's own names (`security_protocol`, `ssl_cafile`, `sasl_mechanism`, …),
passed through as they are.  Whatever cannot be asked of the broker ends in BrokerUnreachable, within the
timeout, with the address and what to do about it.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, OffsetSpec
from kafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from pipeline.errors import BrokerUnreachable, GigawatchError

DEADLETTER = "telemetry.deadletter"
ALERTS = "gigawatch.alerts"
DAY_MS = 86_400_000
APPENDED = {"message.timestamp.type": "LogAppendTime"}
VALUE_LIMIT = 900_000
"""Bytes of the original value that a dead letter keeps: it must itself fit into a message."""
HEADER_LIMIT = 16_384
HEADERS_LIMIT = 400_000
"""Bytes of all its headers that are kept: they come on top of the value, and may be most of a record."""
LETTER_BYTES = VALUE_LIMIT + HEADERS_LIMIT + 3 * HEADER_LIMIT
"""What a dead letter can come to: the value, the record's own headers, and ours."""

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class TopicSpec:
    """A topic as it is wanted; `replication` -1 leaves the factor to the cluster's default."""

    name: str
    partitions: int = 1
    replication: int = -1
    config: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TopicDone:
    """What became of one spec; `differs` says where a topic that was there already is not as specified."""

    name: str
    what: Literal["created", "existed"]
    differs: tuple[str, ...] = ()


@dataclass(frozen=True)
class TopicState:
    """A topic as it is; `config`: what was set on the topic itself; `offsets`: (first, end) per partition.

    `id`: given out when the topic was made, so that a topic of the same name made later has another.
    """

    name: str
    partitions: int
    replication: int
    config: Mapping[str, str]
    offsets: Mapping[int, tuple[int, int]]
    id: str = ""

    @property
    def records(self) -> int:
        """Offsets between the first and the end: an upper bound of what can be read."""
        return sum(end - first for first, end in self.offsets.values())


def default_specs(topics: Iterable[str], partitions: int) -> list[TopicSpec]:
    """The telemetry `topics` with `partitions` each, and our own two: dead letters and alerts.

    LogAppendTime makes the record timestamp the broker's: the one clock that event times are checked against.
    """
    return [
        *(TopicSpec(name, partitions, config=APPENDED) for name in topics),
        *own_specs(DEADLETTER, ALERTS),
    ]


def own_specs(deadletter: str, alerts: str) -> list[TopicSpec]:
    """Our own two, by the names that they have here; an empty name is for none."""
    # A dead letter is a record that was accepted once, with our headers on top: it needs more room than that.
    letters = APPENDED | {"max.message.bytes": str(5 * 1024 * 1024), "retention.ms": str(30 * DAY_MS)}
    specs = [TopicSpec(deadletter, config=letters), TopicSpec(alerts, config={"cleanup.policy": "compact"})]
    return [spec for spec in specs if spec.name]


def create_topics(
    bootstrap: str, topics: Sequence[TopicSpec], client_settings: Settings | None = None
) -> list[TopicDone]:
    """Create what is not there yet; a topic that is there is left as it is, and reported where it differs.

    Raises GigawatchError when the cluster refuses a topic, BrokerUnreachable when none answers.
    """
    with admin(bootstrap, client_settings) as client:
        done = [_create(client, spec) for spec in topics]
        client.wait_for_topics([spec.name for spec in topics])
        return done


def describe_topics(
    bootstrap: str, topics: Iterable[str] | None = None, client_settings: Settings | None = None
) -> list[TopicState]:
    """The named topics, or all that are not Kafka's own, by name; a name that does not exist is left out."""
    with admin(bootstrap, client_settings) as client:
        wanted = None if topics is None else list(topics)
        found = [t for t in client.describe_topics(wanted) if t["error_code"] == 0 and not t["is_internal"]]
        return [_state(client, topic) for topic in sorted(found, key=lambda topic: str(topic["name"]))]


def topic_ids(client: KafkaAdminClient, topics: Iterable[str]) -> dict[str, str]:
    """Topic → the id that it was given when it was made; a topic that does not exist is left out."""
    found = client.describe_topics(list(topics))
    return {str(t["name"]): str(t["topic_id"]) for t in found if t["error_code"] == 0}


@dataclass(frozen=True, slots=True)
class ClockReading:
    """The cluster's clock stood at `at` (epoch seconds) when our steady one stood at `steady`, give or take `within`."""

    at: float
    steady: float
    within: float


def clock_of(client: KafkaAdminClient) -> ClockReading | None:
    """What the clock of the cluster's controller says; None where it does not tell, or not us.

    It is in no other answer of the protocol: a controller says of itself that it is up to date as of now (KIP-836, from
    Kafka 3.3).  It asks for the right to describe the cluster.
    """
    asked = time.monotonic()
    try:
        (quorum,) = client.describe_metadata_quorum()["topics"][0]["partitions"]
    except (KafkaError, LookupError, ValueError):
        return None
    answered = time.monotonic()
    leader = next((v for v in quorum["current_voters"] if v["replica_id"] == quorum["leader_id"]), None)
    if leader is None or leader["last_caught_up_timestamp"] <= 0:
        return None
    at = leader["last_caught_up_timestamp"] / 1000
    return ClockReading(at, (asked + answered) / 2, (answered - asked) / 2)


def cluster_id(bootstrap: str, client_settings: Settings | None = None, timeout: float = 10.0) -> str:
    """The id that the cluster was formatted with: another id is another cluster, whatever its address."""
    with admin(bootstrap, client_settings, timeout) as client:
        return str(client.describe_cluster()["cluster_id"])


def cluster_and_clock(
    bootstrap: str, client_settings: Settings | None = None
) -> tuple[str, ClockReading | None]:
    """The cluster's id, and what its clock says."""
    with admin(bootstrap, client_settings) as client:
        return str(client.describe_cluster()["cluster_id"]), clock_of(client)


@contextmanager
def admin(
    bootstrap: str, client_settings: Settings | None = None, timeout: float = 10.0
) -> Iterator[KafkaAdminClient]:
    """An admin client for the length of a `with`; whatever Kafka error occurs becomes BrokerUnreachable."""
    _connect(bootstrap, timeout)
    milliseconds = max(1, int(timeout * 1000))
    limits = {"bootstrap_timeout_ms": milliseconds, "request_timeout_ms": milliseconds}
    try:
        client = _Admin(
            **({"bootstrap_servers": bootstrap.split(",")} | limits | dict(client_settings or {}))
        )
        try:
            yield client
        finally:
            client.close()
    except KafkaError as error:
        raise BrokerUnreachable(
            f"kafka {bootstrap}: the port is open, but no Kafka broker answers as expected there: {error}; "
            f"check that the port is a Kafka listener and that its security settings (TLS, SASL) are ours"
        ) from error


class _Admin(KafkaAdminClient):  # type: ignore[misc]  # kafka-python has no annotations: its classes are Any
    """kafka-python's client, less its leak: when no broker answers, its I/O thread tries on for ever."""

    def __init__(self, **configs: Any) -> None:
        try:
            super().__init__(**configs)
        except BaseException:
            if hasattr(self, "_net"):
                self._client.close()
                self._net.stop()
            raise


def _connect(bootstrap: str, timeout: float) -> None:
    """One address of `bootstrap` must accept a connection; the operating system's reason says the most."""
    refused: list[str] = []
    addresses = [address.strip() for address in bootstrap.split(",")]
    for address in addresses:
        try:
            socket.create_connection(_host_port(address), timeout / len(addresses)).close()
            return
        except OSError as error:
            refused.append(f"{address}: {error.strerror or error}")
    raise BrokerUnreachable(
        f"kafka {bootstrap}: no broker there ({'; '.join(refused)}); start it (`gigawatch kafka` starts one "
        f"on this machine), or name the right HOST:PORT with --bootstrap or GIGAWATCH_BOOTSTRAP"
    )


def _host_port(address: str) -> tuple[str, int]:
    """`host:port` or `[v6]:port`; Kafka's port 9092 where none is given."""
    host, _, port = address.rpartition(":") if ":" in address.rpartition("]")[2] else (address, "", "9092")
    if not port.isdigit():
        raise BrokerUnreachable(f"kafka {address!r}: {port!r} is not a port number; expected HOST:PORT")
    return host.strip("[]"), int(port)


def _create(client: KafkaAdminClient, spec: TopicSpec) -> TopicDone:
    wish = {
        "num_partitions": spec.partitions,
        "replication_factor": spec.replication,
        "configs": dict(spec.config),
    }
    try:
        client.create_topics({spec.name: wish})
    except TopicAlreadyExistsError:
        return TopicDone(spec.name, "existed", _differences(client, spec))
    except KafkaError as error:
        raise GigawatchError(f"kafka topic {spec.name}: the cluster refuses to create it: {error}") from error
    return TopicDone(spec.name, "created")


def _differences(client: KafkaAdminClient, spec: TopicSpec) -> tuple[str, ...]:
    """How the existing topic is not as specified, in words."""
    topic = client.describe_topics([spec.name])[0]
    found = {"partitions": str(len(topic["partitions"]))} | _config(client, spec.name, "all")
    wanted = {"partitions": str(spec.partitions)} | dict(spec.config)
    return tuple(
        f"{key} is {found.get(key)}, not {value}" for key, value in wanted.items() if found.get(key) != value
    )


def config_in_force(client: KafkaAdminClient, topic: str) -> dict[str, str]:
    """All that is in force for a topic, its own settings and the broker's.  Raises KafkaError."""
    return _config(client, topic, "all")


def _config(client: KafkaAdminClient, topic: str, which: Literal["modified", "all"]) -> dict[str, str]:
    """The topic's configuration: what was set on the topic itself, or all that is in force for it."""
    entries = client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)], config_filter=which)
    return {
        name: str(entry["value"])
        for name, entry in entries["topic"][topic].items()
        if which == "all" or entry["config_source"] == "DYNAMIC_TOPIC_CONFIG"
    }


def _state(client: KafkaAdminClient, topic: Mapping[str, Any]) -> TopicState:
    name, partitions = str(topic["name"]), topic["partitions"]
    for partition in partitions:
        if partition["error_code"]:
            raise BrokerUnreachable(
                f"kafka topic {name} partition {partition['partition_index']}: "
                f"{for_code(partition['error_code']).__name__}; wait for the cluster to elect a leader"
            )
    places = [TopicPartition(name, partition["partition_index"]) for partition in partitions]
    first = client.list_partition_offsets({place: OffsetSpec.EARLIEST for place in places})
    end = client.list_partition_offsets({place: OffsetSpec.LATEST for place in places})
    return TopicState(
        name=name,
        partitions=len(places),
        replication=len(partitions[0]["replica_nodes"]),
        config=_config(client, name, "modified"),
        offsets={place.partition: (first[place].offset, end[place].offset) for place in sorted(places)},
        id=str(topic["topic_id"]),
    )
