"""What a new user stumbles over, looked at once."""
