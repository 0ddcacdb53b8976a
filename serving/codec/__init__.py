"""TensorFlow Serving's JSON <-> arrays; no sockets, no models."""
