"""The command line: `python -m training data`, `fit`, `evaluate`, `export`, `predict`, `report`."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from training.arguments import parse_arguments
from training.config import CONFIGS, Config, load_config, override
from training.distribute.cluster import read_cluster
from training.distribute.local_workers import run_local_workers
from training.environment import start_tensorflow
from training.errors import LOST_WORKER_STATUS, InputError, LostWorkerError, StoppedError, TrainingError
from training.interrupts import FIT_MESSAGE, MESSAGE, STATUS, STOPPED_STATUS, end_at_signals


def main(argv: list[str] | None = None) -> int:
    """Runs a command and returns its exit status.

    0; 2 for wrong input; 1 for a run gone wrong; 3 for one whose other worker has ended; 130 for Ctrl-C; 143 for a run
    that SIGTERM has stopped.
    """
    argv = sys.argv[1:] if argv is None else argv
    try:
        args = parse_arguments(argv)
        return _COMMANDS[args.command](args)
    except InputError as error:
        print(f"training: {error}", file=sys.stderr)
        return 2
    except LostWorkerError as error:
        print(f"training: {error}", file=sys.stderr)
        return LOST_WORKER_STATUS
    except TrainingError as error:
        print(f"training: {error}", file=sys.stderr)
        return 1
    except StoppedError as error:
        print(f"training: {error}", file=sys.stderr)
        return STOPPED_STATUS
    except KeyboardInterrupt:
        print(_interrupted(argv), file=sys.stderr)
        return STATUS


def _data(args: argparse.Namespace) -> int:
    named = (CONFIGS / f"{args.name}.py").is_file()
    config = override(load_config(args.name) if named else Config(dataset=args.name), args.overrides)
    start_tensorflow()
    from training.data.datasets import open_images_of
    from training.data.survey import describe, write_training_sheet

    images = open_images_of(config, download=args.download)
    for line in describe(images):
        print(line, flush=True)
    if args.sheet:
        write_training_sheet(images, config, args.sheet)
        print(f"\ntraining images as the network sees them: {args.sheet}")
    return 0


def _fit(args: argparse.Namespace) -> int:
    config = override(load_config(args.config), args.overrides)
    if args.local_workers is not None:
        fields = [f"--{name}={text}" for name, text in args.overrides.items()]
        command = ["fit", f"--config={args.config}", f"--workdir={args.workdir}", *fields]
        return run_local_workers(args.local_workers, command)
    cluster = read_cluster(os.environ)
    start_tensorflow()
    from training.train import fit

    figures = fit(config, args.workdir, cluster)
    if cluster is None or cluster.index == 0:
        name = "validation" if config.val_split else "test"
        print(f"{name} accuracy {figures['accuracy']:.2%} on {config.dataset}, run in {args.workdir}")
    return 0


def _evaluate(args: argparse.Namespace) -> int:
    try:
        scales = tuple(int(scale) for scale in args.scales.split(",") if scale)
    except ValueError:
        raise InputError(f"scales is {args.scales!r}, but must be numbers with commas, as 256,384,480") from None
    start_tensorflow()
    from training.evaluation.evaluate import describe, evaluate_runs, write
    from training.evaluation.protocols import Protocol
    from training.run.folder import Run

    runs = [Run(folder) for folder in args.run]
    result = evaluate_runs(runs, Protocol(args.views, scales, args.split, args.data_dir))
    print(describe(result))
    if args.json:
        write(result, args.json)
    return 0


def _export(args: argparse.Namespace) -> int:
    start_tensorflow()
    from training.export.export import ExportOptions, describe, export
    from training.run.folder import Run

    formats = tuple(dict.fromkeys(name for name in args.formats.split(",") if name))
    options = ExportOptions(
        output=args.output, dense=args.dense, formats=formats, keep=args.keep, data_dir=args.data_dir
    )
    version = export(Run(args.workdir), options)
    print(f"exported to {version}\n{describe(version)}")
    return 0


def _predict(args: argparse.Namespace) -> int:
    start_tensorflow()
    from training.evaluation.predict import json_line, predict, table
    from training.run.folder import Run

    answered, status = [], 0
    for prediction in predict(Run(args.run), args.pictures, args.top):
        if prediction.error:
            print(f"training: {prediction.error}", file=sys.stderr)
            status = 2
        if args.json:
            print(json_line(prediction), flush=True)
        elif prediction.answers:
            answered.append(prediction)
    if answered:
        print(table(answered))
    return status


def _report(args: argparse.Namespace) -> int:
    start_tensorflow()
    from training.report.report import write_report
    from training.run.folder import Run

    print(f"the report is {write_report(Run(args.workdir), args.data_dir)}")
    return 0


_COMMANDS = {
    "data": _data,
    "fit": _fit,
    "evaluate": _evaluate,
    "export": _export,
    "predict": _predict,
    "report": _report,
}


def command() -> NoReturn:
    """The process: what `main` does, ended at once by Ctrl-C and, unless a run is to be saved first, by SIGTERM."""
    end_at_signals(_interrupted(sys.argv[1:]))
    sys.exit(main())


def _interrupted(argv: Sequence[str]) -> str:
    """What Ctrl-C prints: only `fit` goes on where it was interrupted."""
    return FIT_MESSAGE if argv[:1] == ["fit"] else MESSAGE


if __name__ == "__main__":
    command()
