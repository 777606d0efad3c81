"""What brings data to Kafka that nobody sends there: bills as files, and endpoints that are scraped."""
