"""`keras-prelu parity A B`: the same requests to two servers, and every difference between their answers."""
