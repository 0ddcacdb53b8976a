"""The REST API, and what it tells about itself."""
