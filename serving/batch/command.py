"""`keras-prelu batch EXPORT INPUT... --output DIR`: flags, and the steps of a run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from serving.client.arguments import count
from serving.errors import Code, MissingPackageError, ServingError, needing
from serving.options import Options
from serving.process import quiet_import

ENGINES = ("embedded", "ray")
"""The programs that run parts: each is a module of `serving.batch`."""


def main(arguments: Sequence[str]) -> int:
    """Runs the command. Returns 0; 2 for wrong arguments or inputs; 1 for a failed run; 128 + the signal's number."""
    given = _parse(arguments)
    try:
        with needing("batch"), quiet_import():
            from serving.batch.progress import Interrupted, Interruptions

            interruptions = Interruptions()
            import tensorflow as tf

            from serving.batch.run import run

            tf.config.list_physical_devices()  # complains of accelerators that are missing
        try:
            run(given, interruptions)
        except Interrupted as interrupted:
            return _fail(
                "interrupted; the same command resumes with the parts that are missing", 128 + interrupted.number
            )
    except ServingError as error:
        return _fail(error.message, 2 if error.code is Code.INVALID_ARGUMENT else 1)
    except MissingPackageError as error:
        return _fail(error, 2)
    except OSError as error:
        return _fail(f"{error.filename or given.output}: {error.strerror or error}", 1)
    return 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="keras-prelu batch", description="Run a model on many images, into Parquet files."
    )
    parser.add_argument(
        "export", type=Path, metavar="EXPORT", help="folder with the versions of a model, or a SavedModel"
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="folders, image files, TFRecords, Parquet files, globs, @FILE with paths",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of the Parquet files")
    parser.add_argument("--version", type=count, metavar="N", help="version of the model; the newest")
    parser.add_argument("--signature", metavar="NAME", help="one that takes an image; found by itself")
    parser.add_argument(
        "--labels", type=Path, metavar="FILE", help="one label per line; the export's assets/labels.txt"
    )
    parser.add_argument("--top", type=count, default=5, metavar="K", help="labels per image; %(default)s")
    parser.add_argument(
        "--column", metavar="NAME", help="column or feature with images; the one of bytes, image/encoded"
    )
    parser.add_argument("--batch_size", type=count, default=32, metavar="N", help="images per run; %(default)s")
    parser.add_argument("--part_rows", type=count, default=1000, metavar="N", help="most rows of a part; %(default)s")
    parser.add_argument(
        "--max_unreadable", type=_share, default=0.01, metavar="SHARE", help="of the images, at most; %(default)s"
    )
    parser.add_argument(
        "--max_image_pixels",
        type=int,
        default=Options.max_image_pixels,
        metavar="N",
        help="as of the server; %(default)s",
    )
    parser.add_argument("--engine", choices=ENGINES, default=ENGINES[0], help="what runs the parts; %(default)s")
    parser.add_argument("--ray_address", metavar="HOST:PORT", help="a cluster to join; RAY_ADDRESS, or one of its own")
    parser.add_argument("--ray_workers", type=count, metavar="N", help="how many hold a model; one per machine")
    return parser.parse_args(arguments)


def _share(text: str) -> float:
    if not 0 <= (share := float(text)) <= 1:
        raise argparse.ArgumentTypeError(f"{share} must be from 0 to 1")
    return share


def _fail(error: object, status: int) -> int:
    print(f"keras-prelu batch: {' '.join(str(error).split())}", file=sys.stderr)
    return status
