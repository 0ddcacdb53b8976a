"""A run's folder: what it keeps, shows and takes up again."""
