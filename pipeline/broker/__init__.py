"""An embedded Apache Kafka, for the demo and the tests."""
