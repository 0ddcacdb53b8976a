"""Arguments that several commands have: counts, and how a server is reached."""

import argparse
from pathlib import Path

from serving.client.connection import Tls


def count(text: str) -> int:
    """Reads a number of at least 1."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{number} must be at least 1")
    return number


def add_connection(parser: argparse.ArgumentParser) -> None:
    """Adds the options for the time, the trust and the token of calls."""
    parser.add_argument("--timeout", type=float, default=60.0, metavar="SECONDS", help="per call; %(default)s")
    parser.add_argument("--ca", type=Path, metavar="FILE", help="PEM of the authority to trust")
    parser.add_argument("--certificate", type=Path, metavar="FILE", help="PEM of the client's certificate")
    parser.add_argument("--key", type=Path, metavar="FILE", help="PEM of its key")
    parser.add_argument("--token-file", type=Path, metavar="FILE", help="holds the bearer token to send")


def read_connection(args: argparse.Namespace) -> tuple[Tls, str | None]:
    """The files and the token that the options name. Raises OSError if the token's file cannot be read."""
    token = args.token_file.read_text().strip() if args.token_file else None
    return Tls(args.ca, args.certificate, args.key), token
