"""What readers are shown, over what the ledger publishes."""
