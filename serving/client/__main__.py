"""`python -m serving.client PICTURE ... --url grpc://localhost:8500 --model NAME`: labels and scores of pictures."""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from serving.client.connection import Tls
from serving.client.labelling import Question, choose_signature, json_line, label_pictures, table
from serving.client.synchronous import Client
from serving.errors import ServingError
from serving.extras import MissingPackageError


def main(arguments: Sequence[str] | None = None) -> int:
    """Asks and prints. Returns 0; 2 where a picture or an argument is wrong; 1 where the server fails."""
    args = _parse(arguments)
    try:
        token = args.token_file.read_text().strip() if args.token_file else None
        labels = args.labels.read_text(encoding="utf-8").splitlines() if args.labels else ()
        client = Client(args.url, args.model, timeout=args.timeout, tls=_tls(args), token=token)
    except (OSError, ValueError, MissingPackageError) as error:
        return _told(error, 2)
    with client:
        try:
            return _label(client, args, labels)
        except ServingError as error:
            return _told(error, 1)


def _label(client: Client, args: argparse.Namespace, labels: Sequence[str]) -> int:
    signatures = client.metadata(version=args.version, label=args.label)
    name = args.signature or choose_signature(signatures)
    if name not in signatures:
        return _told(f"there is no signature {name}; the model has {', '.join(sorted(signatures))}", 2)
    question = Question(name, args.version, args.label, args.top, labels)
    answered, status = [], 0
    for answer in label_pictures(client, signatures[name], question, args.pictures):
        if answer.error:
            status = _told(answer.error, 2)
        if args.json:
            print(json_line(answer), flush=True)
        elif answer.classes:
            answered.append(answer)
    if answered:
        print(table(answered))
    return status


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m serving.client", description="Tell what a served model sees.")
    path = pathlib.Path
    parser.add_argument("pictures", nargs="+", type=path, metavar="PICTURE", help="files as the model decodes them")
    parser.add_argument(
        "--url", default="grpc://localhost:8500", help="grpc://, grpcs://, unix:, http:// or https://; %(default)s"
    )
    parser.add_argument("--model", default="default", metavar="NAME", help="its name on the server; %(default)s")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--version", type=int, metavar="N", help="the version to ask; the newest")
    which.add_argument("--label", metavar="NAME", help="the label of the version to ask")
    parser.add_argument("--signature", metavar="NAME", help="one that takes a picture's bytes; found by itself")
    parser.add_argument("--labels", type=path, metavar="FILE", help="a label a line, where the model gives scores only")
    parser.add_argument("--top", type=_count, default=5, metavar="K", help="labels for each picture; %(default)s")
    parser.add_argument("--json", action="store_true", help="print a JSON object a line")
    parser.add_argument("--timeout", type=float, default=60.0, metavar="SECONDS", help="for each call; %(default)s")
    parser.add_argument("--ca", type=path, metavar="FILE", help="PEM of the authority to trust")
    parser.add_argument("--certificate", type=path, metavar="FILE", help="PEM to show a server that asks")
    parser.add_argument("--key", type=path, metavar="FILE", help="PEM of its key")
    parser.add_argument("--token-file", type=path, metavar="FILE", help="holds the bearer token to send")
    return parser.parse_args(arguments)


def _count(text: str) -> int:
    if (count := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{count} must be at least 1")
    return count


def _tls(args: argparse.Namespace) -> Tls:
    return Tls(args.ca, args.certificate, args.key)


def _told(error: object, status: int) -> int:
    print(f"serving.client: {error}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
