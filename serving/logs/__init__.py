"""What is written down of requests."""
