"""What stands in a topic."""

from __future__ import annotations

from typing import Any

from kafka import KafkaConsumer, TopicPartition


def records_of(bootstrap: str, topic: str) -> list[Any]:
    """Every record that the topic has now, each partition's in its order."""
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)
    try:
        parts = [TopicPartition(topic, part) for part in sorted(consumer.partitions_for_topic(topic) or ())]
        consumer.assign(parts)
        consumer.seek_to_beginning(*parts)
        ends, found = consumer.end_offsets(parts), []
        while any(consumer.position(part) < ends[part] for part in parts):
            for batch in consumer.poll(timeout_ms=500).values():
                found += batch
        return sorted(found, key=lambda record: record.partition)
    finally:
        consumer.close()
