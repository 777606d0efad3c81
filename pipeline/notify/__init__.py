"""Where an alert can go, one file for each place, and the delivery out of the ledger's outbox."""
