"""TensorFlow Serving's formats <-> arrays: JSON and protobuf messages. Imports no TensorFlow."""
