"""The topics that the pipeline writes, dead letters and alerts: made where they are missing, and what keeps them shut."""

from __future__ import annotations

from collections.abc import Iterator

import structlog
from kafka.errors import KafkaError, TopicAuthorizationFailedError, UnknownTopicOrPartitionError

from pipeline.errors import GigawatchError
from pipeline.stream.topic_admin import (
    LETTER_BYTES,
    Settings,
    TopicSpec,
    admin,
    config_in_force,
    create_topics,
    own_specs,
)

log = structlog.get_logger()


def make_own(bootstrap: str, deadletter: str, alerts: str, client: Settings | None = None) -> Iterator[str]:
    """Make those of the two that are missing; yields what is wrong with each afterwards, with what to do.

    Nothing is raised: a pipeline whose topics are shut goes on for as long as nothing has to be written there.
    """
    for spec in own_specs(deadletter, alerts):
        if words := mended(bootstrap, spec, client):
            yield words


def mend_letters(bootstrap: str, deadletter: str, client: Settings | None = None) -> str:
    """The same of the dead-letter topic alone."""
    return mended(bootstrap, own_specs(deadletter, "")[0], client)


def mended(bootstrap: str, spec: TopicSpec, client: Settings | None = None) -> str:
    """Why nobody can write to the topic of `spec`, "" when somebody can; if it is missing and we may, it is made."""
    what = "dead-letter topic" if "max.message.bytes" in spec.config else "topic of alerts"
    try:
        wrong = shut(bootstrap, spec.name, LETTER_BYTES if "max.message.bytes" in spec.config else 0, client)
        if wrong != MISSING:
            return f"the {what} {spec.name} {wrong}" if wrong else ""
        create_topics(bootstrap, [spec], client)
    except GigawatchError as error:
        remedy = f"gigawatch topics create --bootstrap {bootstrap}, as somebody who may"
        return f"the {what} {spec.name} is missing, and cannot be made by us ({error}): {remedy}"
    log.info("a topic of our own was missing and is made", topic=spec.name)
    return ""


MISSING = "is missing: gigawatch topics create"


def shut(bootstrap: str, topic: str, needs: int, client: Settings | None = None) -> str:
    """What keeps us from writing messages of `needs` bytes to `topic`, with what to do; "" when nothing does.

    Raises BrokerUnreachable.
    """
    with admin(bootstrap, client) as asked:
        found = asked.describe_topics([topic])[0]
        if found["error_code"] == UnknownTopicOrPartitionError.errno:
            return MISSING
        may = found.get("authorized_operations")
        if found["error_code"] == TopicAuthorizationFailedError.errno or (may and "WRITE" not in may):
            return "is closed to us: grant us WRITE and DESCRIBE on it"
        try:
            takes = int(config_in_force(asked, topic).get("max.message.bytes", needs))
        except KafkaError:  # its settings are not ours to read
            return ""
        if takes < needs:
            return f"takes {takes:,} bytes, and a dead letter may have {needs:,}: set max.message.bytes={5 * 2**20} on it"
        return ""
