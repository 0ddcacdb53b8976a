"""Versions on disk -> models in memory."""
