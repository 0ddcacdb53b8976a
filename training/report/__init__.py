"""All that is to be seen of a run, in one file."""
