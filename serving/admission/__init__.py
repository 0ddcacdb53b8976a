"""Who may send requests, and how many: TLS, tokens, limits, readiness."""
