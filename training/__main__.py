"""The command line: `python -m training fit` and `python -m training export`."""

import argparse
import dataclasses
import logging
import os
import pathlib
import sys
from typing import NoReturn

from training import peers
from training.cluster import read_cluster
from training.config import Config, load_config, override
from training.errors import InputError, StoppedError, TrainingError
from training.interrupts import MESSAGE, STATUS, STOPPED_STATUS, end_at_signals
from training.workers import run_local_workers


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with the command line."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; `{self.prog} --help` lists what there is")


def main(argv: list[str] | None = None) -> int:
    """Runs a command and returns its exit status.

    0; 2 for wrong input; 1 for a run gone wrong; 3 for one whose other worker has ended; 130 for Ctrl-C; 143 for a run
    that SIGTERM has stopped.
    """
    try:
        return _run(_parse(sys.argv[1:] if argv is None else argv))
    except InputError as error:
        print(f"training: {error}", file=sys.stderr)
        return 2
    except peers.LostWorkerError as error:
        print(f"training: {error}", file=sys.stderr)
        return peers.STATUS
    except TrainingError as error:
        print(f"training: {error}", file=sys.stderr)
        return 1
    except StoppedError as error:
        print(f"training: {error}", file=sys.stderr)
        return STOPPED_STATUS
    except KeyboardInterrupt:
        print(MESSAGE, file=sys.stderr)
        return STATUS


def _run(args: argparse.Namespace) -> int:
    if args.command == "fit":
        return _fit(args)
    _start_tensorflow()
    from training.export import export
    from training.run import Run

    print(f"exported to {export(Run(args.workdir))}")
    return 0


def _fit(args: argparse.Namespace) -> int:
    config = override(load_config(args.config), args.overrides)
    if args.local_workers is not None:
        fields = [f"--{name}={text}" for name, text in args.overrides.items()]
        command = ["fit", f"--config={args.config}", f"--workdir={args.workdir}", *fields]
        return run_local_workers(args.local_workers, command)
    cluster = read_cluster(os.environ)
    _start_tensorflow()
    from training.loop import fit

    figures = fit(config, args.workdir, cluster)
    if cluster is None or cluster.index == 0:
        print(f"test accuracy {figures['accuracy']:.2%} on {config.dataset}, run in {args.workdir}")
    return 0


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = _Parser(prog="python -m training", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser, metavar="fit|export")
    fit = commands.add_parser(
        "fit",
        help="train a network, or go on with its training",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=_fields_help(),
        usage="python -m training fit --config NAME_OR_FILE --workdir FOLDER [--field value ...]",
        allow_abbrev=False,
    )
    fit.add_argument("--config", required=True, help="a name in training/configs, or the path of such a file")
    fit.add_argument("--local_workers", type=int, metavar="N", help="train with N processes on this machine")
    export = commands.add_parser("export", help="publish a run's network as a SavedModel", allow_abbrev=False)
    for command in (fit, export):
        command.add_argument("--workdir", required=True, type=pathlib.Path, help="the run's folder")
    args, rest = parser.parse_known_args(argv)
    if rest and args.command != "fit":
        raise InputError(f"unknown argument {rest[0]}; `python -m training {args.command} --help` lists what there is")
    args.overrides = _overrides(rest)
    return args


def _overrides(rest: list[str]) -> dict[str, str]:
    """Reads `--field value` and `--field=value`."""
    overrides = {}
    words = iter(rest)
    for word in words:
        if not word.startswith("--"):
            raise InputError(f"unexpected argument {word!r}; fields are set by --field value")
        name, equals, value = word[2:].partition("=")
        overrides[name] = value if equals else next(words, "")
    return overrides


def _fields_help() -> str:
    lines = [
        f"  --{field.name} ({field.type.__name__ if isinstance(field.type, type) else field.type}, "
        f"default {field.default!r})\n      {field.metadata['doc']}"
        for field in dataclasses.fields(Config)
    ]
    return "fields, with the defaults that a config file may change:\n" + "\n".join(lines)


def _start_tensorflow() -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.getLogger("absl").setLevel(logging.ERROR)  # tensorflow-datasets warns of each folder it finds empty
    from training.quiet import native_messages_held

    with native_messages_held():
        import tensorflow as tf

        tf.config.list_physical_devices("GPU")


def command() -> NoReturn:
    """The process: what `main` does, ended at once by Ctrl-C and, unless a run is to be saved first, by SIGTERM."""
    end_at_signals()
    sys.exit(main())


if __name__ == "__main__":
    command()
