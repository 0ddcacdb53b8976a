"""A run's folder: config, checkpoints and what it reports."""
