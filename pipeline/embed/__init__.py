"""What a trial needs and production brings along: an embedded Apache Kafka, and a fleet that is simulated."""
