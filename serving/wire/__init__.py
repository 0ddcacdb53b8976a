"""TensorFlow Serving's formats <-> arrays: JSON and protobuf messages. The modules that the client uses need no TensorFlow."""
