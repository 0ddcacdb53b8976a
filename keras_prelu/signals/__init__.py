"""Signals measured in a running model."""
