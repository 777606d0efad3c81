"""A broker and its topics as `gigawatch doctor` looks at them: asked over one connection, nothing is written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import OffsetSpec
from kafka.errors import KafkaError

from pipeline.stream.topic_admin import (
    ClockReading,
    Settings,
    admin,
    clock_of,
    config_in_force,
    describe_topics,
)


@dataclass(frozen=True)
class TopicFacts:
    """One topic: what is in force for it (its own settings and the broker's), and what it holds.

    `records`: offsets between the first and the end; `newest_ms`: the greatest record timestamp, epoch ms,
    None when the topic is empty or the broker cannot say.
    """

    partitions: int
    replication: int
    config: Mapping[str, str]
    records: int
    newest_ms: int | None

    @property
    def stamped_by_the_broker(self) -> bool:
        """Whether record timestamps are the broker's clock (LogAppendTime) and not the producers'."""
        return self.config.get("message.timestamp.type") == "LogAppendTime"

    @property
    def max_message_bytes(self) -> int:
        """The largest batch of records that the broker takes."""
        return int(self.config["max.message.bytes"])


@dataclass(frozen=True)
class BrokerFacts:
    """The cluster that answered; `topics` has those of the wanted ones that exist.

    `clock`: what its clock said, None where it does not tell.
    """

    cluster: str
    brokers: int
    topics: Mapping[str, TopicFacts]
    clock: ClockReading | None = None


def look(
    bootstrap: str, topics: Iterable[str], client_settings: Settings | None = None, timeout: float = 10.0
) -> BrokerFacts:
    """What the cluster at `bootstrap` is, and how the named `topics` are.

    Raises BrokerUnreachable, at the latest a second or so after `timeout` (s) for each question.
    """
    with admin(bootstrap, client_settings, timeout) as client:
        cluster, clock = client.describe_cluster(), clock_of(client)
        there = set(client.list_topics())
        wanted = [name for name in topics if name in there]
    states = describe_topics(bootstrap, wanted, client_settings) if wanted else []
    with admin(bootstrap, client_settings, timeout) as client:
        found = {
            state.name: TopicFacts(
                partitions=state.partitions,
                replication=state.replication,
                config=config_in_force(client, state.name),
                records=state.records,
                newest_ms=_newest_ms(client, state.name, state.partitions),
            )
            for state in states
        }
    return BrokerFacts(str(cluster["cluster_id"]), len(cluster["brokers"]), found, clock)


def _newest_ms(client: KafkaAdminClient, topic: str, partitions: int) -> int | None:
    """The greatest record timestamp; brokers before Kafka 3.0 do not know the question."""
    places: dict[Any, Any] = {
        TopicPartition(topic, part): OffsetSpec.MAX_TIMESTAMP for part in range(partitions)
    }
    try:
        answers = client.list_partition_offsets(places)
    except KafkaError:
        return None
    return max((a.timestamp for a in answers.values() if a.offset >= 0 and a.timestamp >= 0), default=None)
