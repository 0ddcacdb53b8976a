"""A version of a model in memory: arrays in, arrays out."""
