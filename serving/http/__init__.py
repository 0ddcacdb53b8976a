"""HTTP/1.1 on an event loop; it knows nothing of models."""
