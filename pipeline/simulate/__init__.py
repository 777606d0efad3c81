"""A fleet that is simulated, or a recording of one, played into Kafka."""
