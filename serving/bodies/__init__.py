"""What bodies of HTTP hold besides JSON, and which of them a request has or wants."""
