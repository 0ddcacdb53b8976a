"""Steps of training and evaluation, exact over the global batch."""
