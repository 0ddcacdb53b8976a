"""The training step and the evaluation step, exact over the global batch."""
