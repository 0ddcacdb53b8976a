"""Many requests -> one run."""
