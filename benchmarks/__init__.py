"""Measurements beside the peers that one would otherwise take; each is a module to run."""
