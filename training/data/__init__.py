"""Images: from a set's name to batches for the replicas."""
