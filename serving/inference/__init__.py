"""Classify, Regress and MultiInference over serialized examples."""
