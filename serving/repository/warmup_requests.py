"""Turns the requests of a request log into warm-up requests: each once, without its answer.

python -m serving.repository.warmup_requests LOG... --output <version>/assets.extra/tf_serving_warmup_requests
"""

import argparse
import itertools
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from serving.repository.warmup import MOST_RECORDS
from serving.telemetry.request_log import PART

_DEFAULT_NUMBER = 100


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the file, and prints the number of its requests. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m serving.repository.warmup_requests", description=__doc__.splitlines()[0]
    )
    parser.add_argument("log", nargs="+", type=Path, help="files of a request log, the oldest first")
    parser.add_argument("--output", required=True, type=Path, help="file to write, in place of one that is there")
    parser.add_argument("--number", type=_number, default=_DEFAULT_NUMBER, help=f"most to write; {_DEFAULT_NUMBER}")
    given = parser.parse_args(arguments)
    try:
        requests = list(itertools.islice(distinct_requests(given.log), given.number))
        if not requests:
            raise ValueError("there are no requests in the log")
        _write(requests, given.output)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{len(requests)} requests in {given.output}")
    return 0


def distinct_requests(paths: Iterable[Path]) -> Iterator[bytes]:
    """PredictionLogs of requests alone, each request once.

    Raises:
        OSError: A file cannot be read.
        ValueError: It is no request log.
    """
    seen = set()
    for path in paths:
        for log in _logs(path):
            kind = log.WhichOneof("log_type")
            if kind is None:
                continue
            kept = PredictionLog()
            getattr(kept, kind).request.CopyFrom(getattr(log, kind).request)
            request = kept.SerializeToString(deterministic=True)
            if request not in seen:
                seen.add(request)
                yield request


def _logs(path: Path) -> Iterator[PredictionLog]:
    number = 0
    try:
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            yield PredictionLog.FromString(record)
            number += 1
    except tf.errors.NotFoundError as error:
        raise FileNotFoundError(f"there is no file {path}") from error
    except tf.errors.OpError as error:
        if not number:
            raise ValueError(f"{path} holds no TFRecords, or cannot be read") from error
        # The file of a killed process ends within a record.
    except DecodeError as error:
        raise ValueError(f"{path} holds no PredictionLogs") from error


def _write(requests: Iterable[bytes], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = f"{path}{PART}"
    with tf.io.TFRecordWriter(part) as writer:
        for request in requests:
            writer.write(request)
    os.replace(part, path)


def _number(text: str) -> int:
    number = int(text)
    if not 0 < number <= MOST_RECORDS:
        raise argparse.ArgumentTypeError(f"from 1 to {MOST_RECORDS}, the most that a version may have")
    return number


if __name__ == "__main__":
    sys.exit(main())
