"""What stands between the network and the service: TLS, tokens, limits."""
