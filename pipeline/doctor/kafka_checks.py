"""What `gigawatch doctor` looks at on the broker: does it answer, is it the right one, topics, settings, clock."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping

from pipeline.doctor.findings import Finding, fail, ok, warn
from pipeline.errors import BrokerUnreachable
from pipeline.serve.terminal import duration
from pipeline.stream.broker import BrokerFacts, TopicFacts, look
from pipeline.stream.own_topics import shut
from pipeline.stream.topic_admin import LETTER_BYTES, ClockReading

CLOCK_SCARCE = 2.0
"""Seconds that two clocks may differ unnoticed: a moment of the network, and a service that tells whole seconds."""
CLOCK_WRONG = 60.0
"""Beyond it events that are later than their record are quarantined, and pages go out late or not at all."""
AFTERWARDS = "its topics, settings and clock were not looked at"


def broker(
    bootstrap: str,
    client: Mapping[str, object],
    telemetry: Iterable[str],
    deadletter: str,
    alerts: str,
    max_message_bytes: int,
    written_from: str | None,
    now: float,
    sources: Iterable[str] = (),
) -> Iterator[Finding]:
    """Everything about the cluster at `bootstrap`, as `client` settings reach it.

    `written_from`: the cluster that the ledger was written from, None when not known; `now`: wall clock, epoch
    seconds; `sources`: topics that others write.  Nothing is written.
    """
    names, others = list(telemetry), list(sources)
    try:
        facts = look(bootstrap, [*names, *others, deadletter, *([alerts] if alerts else [])], client)
    except BrokerUnreachable as error:
        found, _, remedy = str(error).rpartition("; ")
        yield fail("broker", f"{found}; {AFTERWARDS}", remedy)
        return
    yield cluster(bootstrap, facts, written_from)
    yield from missing(bootstrap, [*names, deadletter, *([alerts] if alerts else [])], facts)
    yield from (unwritten(name) for name in others if name not in facts.topics)
    there = {name: facts.topics[name] for name in (*names, *others) if name in facts.topics}
    for name, topic in there.items():
        yield telemetry_topic(name, topic, facts.brokers, max_message_bytes)
    yield from own_topics(facts, deadletter, alerts)
    if there and not any(topic.records for topic in there.values()):
        yield warn(
            "topics",
            "no event has ever come",
            "let the suppliers' telemetry in; to try it out: gigawatch simulate --scenario steady",
        )
    yield from closed(bootstrap, [name for name in (deadletter, alerts) if name in facts.topics], client)
    yield from ([broker_clock(facts.clock)] if facts.clock else clock(there, now))


def closed(bootstrap: str, names: Iterable[str], client: Mapping[str, object]) -> Iterator[Finding]:
    """The topics of our own that we may not write to; of others the broker does not say it before it is tried."""
    for name in names:
        if words := shut(bootstrap, name, 0, client):
            found, _, remedy = words.partition(": ")
            yield fail("topics", f"{name} {found}", remedy)


def broker_clock(reading: ClockReading) -> Finding:
    """Our clock against that of the cluster's controller."""
    ours = time.time() - (time.monotonic() - reading.steady)
    return skew("the broker", reading.at - ours)


def cluster(bootstrap: str, facts: BrokerFacts, written_from: str | None) -> Finding:
    """Whether it is the cluster that the ledger knows."""
    count = f"{facts.brokers} broker{'' if facts.brokers == 1 else 's'}"
    found = f"{bootstrap}: cluster {facts.cluster}, {count}"
    if written_from not in (None, facts.cluster):
        return fail(
            "broker",
            f"{found}; the ledger was written from cluster {written_from}",
            "point --bootstrap at the right cluster, or start with an empty data directory",
        )
    return ok("broker", found)


def missing(bootstrap: str, names: Iterable[str], facts: BrokerFacts) -> Iterator[Finding]:
    """The topics that do not exist."""
    if absent := [name for name in names if name not in facts.topics]:
        yield fail(
            "topics",
            f"{', '.join(absent)}: does not exist",
            f"gigawatch topics create --bootstrap {bootstrap}",
        )


def unwritten(name: str) -> Finding:
    """A source's topic that does not exist: a collector makes it with the first that it writes."""
    return warn(
        "topics",
        f"{name}: does not exist, and is a source",
        "let the collector write to it, or name the topic that it writes to in [[sources]] or --source",
    )


def telemetry_topic(name: str, topic: TopicFacts, brokers: int, max_message_bytes: int) -> Finding:
    """One telemetry topic: its timestamps, its replicas, the size of what it takes; the worst of them."""
    found = f"{name}: {topic.partitions} partitions, {topic.records:,} records"
    if not topic.stamped_by_the_broker:
        return warn(
            "topics",
            f"{found}; timestamps are the producers' (CreateTime)",
            "set message.timestamp.type=LogAppendTime on it: the record's timestamp is what event times are "
            "checked against",
        )
    if topic.max_message_bytes < max_message_bytes:
        return warn(
            "topics",
            f"{found}; takes {topic.max_message_bytes:,} bytes, while max_message_bytes allows {max_message_bytes:,}",
            "raise max.message.bytes on it, or lower max_message_bytes: what the broker refuses is never seen here",
        )
    if topic.replication < min(2, brokers):
        return warn(
            "topics",
            f"{found}; one replica on {brokers} brokers",
            "give it a second replica: with its only broker down the telemetry is silent",
        )
    larger = "" if topic.max_message_bytes <= max_message_bytes * 1.01 else (
        f", of up to {topic.max_message_bytes:,} bytes; over {max_message_bytes:,} they become dead letters"
    )  # fmt: skip
    return ok("topics", f"{found}, LogAppendTime{larger}")


def own_topics(facts: BrokerFacts, deadletter: str, alerts: str) -> Iterator[Finding]:
    """The topics that the pipeline writes: room for whole dead letters, and alerts that are kept for ever."""
    letters, states = facts.topics.get(deadletter), facts.topics.get(alerts)
    if letters is not None:
        found = f"{deadletter}: {letters.records:,} dead letters so far"
        if letters.max_message_bytes < LETTER_BYTES:
            yield warn(
                "topics",
                f"{found}; takes {letters.max_message_bytes:,} bytes, a dead letter may have {LETTER_BYTES:,}",
                f"set max.message.bytes={5 * 2**20} on it: one that does not fit stops the pipeline",
            )
        elif "compact" in letters.config["cleanup.policy"]:
            yield warn(
                "topics",
                f"{found}; it is compacted",
                "set cleanup.policy=delete on it: letters replace others",
            )
        else:
            yield ok("topics", found)
    if states is not None:
        if "compact" in states.config["cleanup.policy"]:
            yield ok("topics", f"{alerts}: compacted, {states.records:,} records")
        else:
            yield warn(
                "topics",
                f"{alerts}: cleanup.policy is {states.config['cleanup.policy']}",
                "set cleanup.policy=compact on it: an alert that fires for long would expire",
            )


def clock(topics: Mapping[str, TopicFacts], now: float) -> Iterator[Finding]:
    """Our clock against the broker's, as far as it can be seen without writing.

    The newest record that the broker has stamped is not later than its clock; so it shows how far ours is
    behind, and nothing when ours is ahead.
    """
    stamps = [t.newest_ms for t in topics.values() if t.stamped_by_the_broker and t.newest_ms is not None]
    if stamps:
        ahead = max(stamps) / 1000 - now
        if ahead > CLOCK_SCARCE:
            yield skew("the broker", ahead)
        else:
            yield ok(
                "clock", f"not behind the broker's, whose newest record is {duration(round(-ahead))} old"
            )


def skew(whose: str, seconds: float) -> Finding:
    """A clock that is `seconds` ahead of ours (behind, if negative)."""
    way = "behind" if seconds > 0 else "ahead of"
    found = f"ours is {duration(round(abs(seconds), 1))} {way} that of {whose}"
    if abs(seconds) <= CLOCK_SCARCE:
        return ok("clock", f"within {CLOCK_SCARCE:g} s of that of {whose}")
    remedy = "let NTP set both clocks (chrony, systemd-timesyncd)"
    return (fail if abs(seconds) > CLOCK_WRONG else warn)("clock", found, remedy)
