"""The command line's words: which commands there are, and what each is told."""

import argparse
import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any, NoReturn

from training.config import Config
from training.errors import InputError

DESCRIPTION = "Trains networks for classification with tf.distribute, judges them, publishes them."


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with the command line."""

    def __init__(self, **keywords: Any) -> None:
        super().__init__(allow_abbrev=False, **keywords)

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; `{self.prog} --help` lists what there is")


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Reads a command line: `command`, what it is told, and for `data` and `fit` the `overrides` of their config.

    Raises:
        InputError: It cannot be read.
    """
    parser = _Parser(prog="python -m training", description=DESCRIPTION)
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)
    for add in (_add_data, _add_fit, _add_evaluate, _add_export, _add_predict, _add_report):
        add(commands)
    args, rest = parser.parse_known_args(argv)
    if rest and args.command not in ("data", "fit"):
        raise InputError(f"unknown argument {rest[0]}; `python -m training {args.command} --help` lists what there is")
    args.overrides = _overrides(rest)
    return args


def _add_data(commands: Any) -> None:
    data = commands.add_parser(
        "data",
        help="tell what is in a set of images",
        usage="python -m training data NAME [--data_dir FOLDER] [--sheet FILE.png] [--download] [--field value ...]",
    )
    data.add_argument("name", help="a config in training/configs, or a set as `dataset` names it")
    data.add_argument(
        "--sheet", type=pathlib.Path, metavar="FILE", help="show training images as the network sees them"
    )
    data.add_argument("--download", action="store_true", help="let tensorflow-datasets download and prepare the set")


def _add_fit(commands: Any) -> None:
    fit = commands.add_parser(
        "fit",
        help="train a network, or go on with its training",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=_fields_help(),
        usage="python -m training fit --config NAME_OR_FILE --workdir FOLDER [--field value ...]",
    )
    fit.add_argument("--config", required=True, help="a name in training/configs, or the path of such a file")
    fit.add_argument("--local_workers", type=int, metavar="N", help="train with N processes on this machine")
    _add_workdir(fit)


def _add_evaluate(commands: Any) -> None:
    evaluate = commands.add_parser("evaluate", help="judge a run's network, or several together, on a whole split")
    evaluate.add_argument(
        "--run", required=True, nargs="+", type=pathlib.Path, help="runs' folders; the scores of several are averaged"
    )
    evaluate.add_argument(
        "--views",
        default="centre",
        choices=("centre", "ten", "dense"),
        help="a centre crop, ten crops, or every window of the whole image",
    )
    evaluate.add_argument(
        "--scales", default="", help="shorter sides for ten and dense, comma-separated; default: the paper's"
    )
    evaluate.add_argument("--split", default="", help="default: the config's test_split")
    evaluate.add_argument("--data_dir", default="", help="default: where the data lay in training")
    evaluate.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write the result there, too")


def _add_export(commands: Any) -> None:
    export = commands.add_parser("export", help="publish a run's network as a SavedModel, and in other formats")
    export.add_argument(
        "--output", type=pathlib.Path, metavar="BASE", help="the folder of the versions; default: WORKDIR/export"
    )
    export.add_argument("--dense", action="store_true", help="add signatures for the whole of images of any size")
    export.add_argument("--formats", default="", help="litert, litert_int8 and onnx, comma-separated; default: none")
    export.add_argument("--keep", type=int, default=0, metavar="N", help="remove all but the N newest versions")
    export.add_argument("--data_dir", default="", help="default: where the data lay in training")
    _add_workdir(export)


def _add_predict(commands: Any) -> None:
    predict = commands.add_parser("predict", help="tell what a run's network takes pictures for")
    predict.add_argument("--run", required=True, type=pathlib.Path, help="the run's folder")
    predict.add_argument("--top", type=int, default=5, metavar="K", help="labels for each picture; default: 5")
    predict.add_argument("--json", action="store_true", help="print a JSON object a line")
    predict.add_argument(
        "pictures", nargs="+", type=pathlib.Path, metavar="PICTURE", help="JPEG, PNG, GIF or BMP files"
    )


def _add_report(commands: Any) -> None:
    report = commands.add_parser("report", help="write all that is to be seen of a run into its report.html")
    report.add_argument("--data_dir", default="", help="default: where the data lay in training")
    _add_workdir(report)


def _add_workdir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workdir", required=True, type=pathlib.Path, help="the run's folder")


def _overrides(rest: Sequence[str]) -> dict[str, str]:
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
