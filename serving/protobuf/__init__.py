"""TensorFlow Serving's messages <-> what the service understands."""
