"""The walk: the statistics of signals and gradients at every call of a model, without running it."""
