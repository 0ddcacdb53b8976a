"""Admission of requests: TLS, tokens, limits, readiness."""
