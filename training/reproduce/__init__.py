"""Studies that measure the claims of the paper at the size of one machine: `python -m training reproduce`."""
