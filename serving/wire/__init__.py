"""TensorFlow Serving's formats <-> arrays: JSON and protobuf messages. What the client imports needs no TensorFlow."""
