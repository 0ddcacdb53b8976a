"""`keras-prelu parity A B --model NAME`: which answers of two servers differ."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path

from tensorflow.errors import OpError
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from serving.client.arguments import add_connection, read_connection
from serving.client.client import Client
from serving.client.connection import Tls
from serving.errors import ServingError, invalid_argument
from serving.parity.cases import Case, GrpcCase, cases, recorded
from serving.parity.compare import differences
from serving.parity.servers import Server
from serving.repository.warmup import read_logs

_MOST_LINES = 5  # for one request


def main(arguments: Sequence[str] | None = None) -> int:
    """Asks and prints. Returns 0 if all answers are alike, 1 if some differ, 2 if the servers cannot be compared."""
    args = _parse(arguments)
    with ExitStack() as connections:
        try:
            tls, token = read_connection(args)
            servers = [connections.enter_context(Server(urls, tls, token, args.timeout)) for urls in (args.a, args.b)]
            with _of(str(args.records)):
                logs = list(read_logs(args.records)) if args.records else []
            requests = list(_requests(servers, args, (tls, token), logs))
        except (OSError, ValueError, ServingError, OpError) as error:
            print(f"keras-prelu parity: {' '.join(str(error).split())}", file=sys.stderr)
            return 2
        num_different = sum(_differ(servers, case, args.tolerance) for case in requests)
    print(f"{len(requests)} requests: {len(requests) - num_different} answered alike, {num_different} not")
    return int(bool(num_different))


def _requests(
    servers: Sequence[Server],
    args: argparse.Namespace,
    connection: tuple[Tls, str | None],
    logs: Sequence[PredictionLog],
) -> Iterator[Case]:
    """The requests over the transports that both servers have. Raises ServingError where there is none."""
    tls, token = connection
    transports = servers[0].urls.keys() & servers[1].urls.keys()
    if not transports:
        raise invalid_argument(f"{args.a} and {args.b} have no transport in common; give both grpc:// or both http://")
    for model in args.model:
        for server in servers:
            url = server.urls["grpc" if "grpc" in transports else "rest"]
            with Client(url, model, timeout=args.timeout, tls=tls, token=token) as client, _of(url):
                signatures = client.metadata()
        for case in (*cases(model, signatures), *recorded(model, logs)):
            if ("grpc" if isinstance(case, GrpcCase) else "rest") in transports:
                yield case


@contextmanager
def _of(source: str) -> Iterator[None]:
    """Says which server or file an error comes from."""
    try:
        yield
    except ServingError as error:
        raise ServingError(error.code, f"{source}: {error.message}") from error


def _differ(servers: Sequence[Server], case: Case, tolerance: float) -> bool:
    """Asks both servers, prints how they differ, and returns whether they do."""
    a, b = (server.ask(case) for server in servers)
    lines = list(islice(differences(a, b, tolerance), _MOST_LINES + 1))
    if lines:
        print(f"{case.method if isinstance(case, GrpcCase) else case.path} ({case.name})")
        more = ["and more"] if len(lines) > _MOST_LINES else []
        print(*(f"  {line}" for line in lines[:_MOST_LINES] + more), sep="\n", flush=True)
    return bool(lines)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="keras-prelu parity",
        description="Send the same requests to two servers, and list how their answers differ: those that the "
        "signatures of a model allow, and wrong ones, over gRPC and REST.",
    )
    urls = "grpc://host:8500, http://host:8501, or both with a comma between; also grpcs and https"
    parser.add_argument("a", metavar="A", help=urls)
    parser.add_argument("b", metavar="B", help="as A")
    parser.add_argument("--model", action="append", required=True, metavar="NAME", help="its name on both; repeatable")
    parser.add_argument(
        "--records",
        type=Path,
        metavar="FILE",
        help="requests too: warm-up records, as assets.extra/tf_serving_warmup_requests",
    )
    parser.add_argument(
        "--tolerance", type=float, default=1e-5, metavar="X", help="up to which numbers are alike; %(default)s"
    )
    add_connection(parser)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
