"""What the servers beside the pipeline share, and what the terminal shows."""
