"""Errors of a trained network, by the protocols of the paper."""
