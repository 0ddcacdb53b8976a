"""Initial weights from a model's graph, and the signals that they make."""
