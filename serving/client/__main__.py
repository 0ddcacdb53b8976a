"""`keras-prelu ask IMAGE ... --url grpc://localhost:8500 --model NAME`: labels and scores of images."""

import argparse
import json
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from serving.client.arguments import add_connection, count, read_connection
from serving.client.client import Client
from serving.client.connection import Class
from serving.errors import Code, MissingPackageError, ServingError
from serving.wire.images import IMAGE_FEATURE, first_that_fits, gives_labels, takes_strings
from serving.wire.signatures import Signature

Classify = Callable[[pathlib.Path], Sequence[Class]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Classifies and prints. Returns 0; 2 if an image or an argument is wrong; 1 if the server fails."""
    args = _parse(arguments)
    try:
        tls, token = read_connection(args)
        labels = args.labels.read_text(encoding="utf-8").splitlines() if args.labels else ()
        client = Client(args.url, args.model, timeout=args.timeout, tls=tls, token=token)
    except (OSError, ValueError, MissingPackageError) as error:
        return _fail(error, 2)
    with client:
        try:
            return _classify_images(client, args, labels)
        except ServingError as error:
            return _fail(error, 1)


def _classify_images(client: Client, args: argparse.Namespace, labels: Sequence[str]) -> int:
    signatures = client.metadata(version=args.version, label=args.label)
    name = args.signature or _choose_signature(signatures)
    if name not in signatures:
        return _fail(f"there is no signature {name}; the model has {', '.join(sorted(signatures))}", 2)
    classify = _classifier(client, signatures[name], args, labels)
    rows, status = [("image", "label", "score")], 0
    for path in args.images:
        try:
            classes = classify(path)[: args.top]
        except (OSError, ServingError) as error:
            answer: dict[str, object] = {"error": _explain(error, path)}
            status = _fail(answer["error"], 2)
        else:
            answer = {"answers": [each._asdict() for each in classes]}
            rows += [(str(path) if not i else "", each.label, f"{each.score:.3g}") for i, each in enumerate(classes)]
        if args.json:
            print(json.dumps({"path": str(path), **answer}), flush=True)
    if len(rows) > 1 and not args.json:
        print(_table(rows))
    return status


def _choose_signature(signatures: Mapping[str, Signature]) -> str:
    """A signature that gives labels, or one that takes an image's bytes. Raises ServingError if there is none."""
    found = first_that_fits(signatures.values(), gives_labels, takes_strings)
    if found is not None:
        return found.name
    known = ", ".join(sorted(signatures))
    raise ServingError(Code.FAILED_PRECONDITION, f"no signature takes the bytes of an image; the model has {known}")


def _classifier(client: Client, signature: Signature, args: argparse.Namespace, labels: Sequence[str]) -> Classify:
    """The function that calls a signature for one image. Its classes are sorted by score."""
    options = {"signature": signature.name, "version": args.version, "label": args.label}
    if gives_labels(signature):
        return lambda path: sorted(client.classify([{IMAGE_FEATURE: path}], **options)[0], key=lambda each: -each.score)
    return lambda path: _rank(client.predict(path, **options).outputs, signature, labels)


def _rank(outputs: Mapping[str, np.ndarray], signature: Signature, labels: Sequence[str]) -> list[Class]:
    """The classes by score. An index without a label is its own label."""
    tables = {name: array for name, array in sorted(outputs.items()) if array.dtype.kind == "f" and array.ndim == 2}
    if not tables:
        raise ServingError(Code.FAILED_PRECONDITION, f"signature {signature.name} gives no scores by class")
    scores = outputs.get("scores", next(iter(tables.values())))[0]
    best = np.argsort(-scores, kind="stable")
    return [Class(labels[index] if index < len(labels) else str(index), float(scores[index])) for index in best]


def _explain(error: OSError | ServingError, path: pathlib.Path) -> str:
    """Why an image has no classes. Raises the error again if it is not the fault of the image."""
    if isinstance(error, OSError):
        return f"{path} cannot be read: {error.strerror}"
    if error.code is not Code.INVALID_ARGUMENT:
        raise error
    return f"{path} was refused: {error.message.strip().partition(chr(10))[0]}"


def _table(rows: Sequence[tuple[str, str, str]]) -> str:
    paths, labels, scores = (max(map(len, column)) for column in zip(*rows, strict=True))
    return "\n".join(f"{row[0]:<{paths}}  {row[1]:<{labels}}  {row[2]:>{scores}}" for row in rows)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="keras-prelu ask", description="Classify images by a served model.")
    path = pathlib.Path
    parser.add_argument("images", nargs="+", type=path, metavar="IMAGE", help="files that the model can decode")
    parser.add_argument(
        "--url", default="grpc://localhost:8500", help="grpc://, grpcs://, unix:, http:// or https://; %(default)s"
    )
    parser.add_argument("--model", default="default", metavar="NAME", help="its name on the server; %(default)s")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--version", type=int, metavar="N", help="the version to call; the newest")
    which.add_argument("--label", metavar="NAME", help="the label of the version to call")
    parser.add_argument("--signature", metavar="NAME", help="one that takes the bytes of an image; found by itself")
    parser.add_argument("--labels", type=path, metavar="FILE", help="one label per line, for a model that only scores")
    parser.add_argument("--top", type=count, default=5, metavar="K", help="labels per image; %(default)s")
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")
    add_connection(parser)
    return parser.parse_args(arguments)


def _fail(error: object, status: int) -> int:
    print(f"keras-prelu ask: {error}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
