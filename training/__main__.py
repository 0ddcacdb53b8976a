"""Command line of the trainer, `python -m training` or `keras-prelu`: a function per command, the exit statuses."""

import itertools
import os
import pathlib
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import Annotated, Any, Literal, NoReturn

try:
    from cyclopts import App, CycloptsError, Group, Parameter
except ModuleNotFoundError as error:  # an installation without the trainer's packages
    brings_it = "in a clone of keras_prelu, pip install -e '.[training]' brings it"
    print(f"training: the trainer needs {error.name}, which is not installed; {brings_it}", file=sys.stderr)
    raise SystemExit(2) from None
from tabulate import tabulate

from training import commands
from training.arguments import Names, Numbers, as_options, one_line, with_fields, with_values
from training.config import Config, default_workdir, load_config, named_configs, override
from training.distribute.cluster import read_cluster
from training.distribute.local_workers import run_local_workers
from training.environment import start_tensorflow
from training.errors import LOST_WORKER_STATUS, InputError, LostWorkerError, StoppedError, TrainingError
from training.interrupts import FIT_MESSAGE, MESSAGE, STATUS, STOPPED_STATUS, end_at_signals
from training.kernels import choose_onednn
from training.run.folder import Run

Paths = Annotated[list[pathlib.Path], Parameter(consume_multiple=True)]
Folder = Annotated[pathlib.Path, Parameter(alias="--workdir")]
Checkpoint = Literal["last", "best"]


def main(argv: list[str] | None = None) -> int:
    """Runs a command and returns its exit status.

    The status is 0 for success, 1 for a failed run, 2 for wrong input, 3 if another worker of the run has ended, 130
    for Ctrl-C and 143 for a run that SIGTERM has stopped.
    """
    argv = sys.argv[1:] if argv is None else argv
    try:
        return application(_config_of_help(argv))(with_values(argv)) or 0
    except CycloptsError as error:
        return _failed(one_line(error), 2)
    except InputError as error:
        return _failed(error, 2)
    except LostWorkerError as error:
        return _failed(error, LOST_WORKER_STATUS)
    except TrainingError as error:
        return _failed(error, 1)
    except StoppedError as error:
        return _failed(error, STOPPED_STATUS)
    except BrokenPipeError:  # who reads the output has enough, as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print(_interrupted(argv), file=sys.stderr)
        return STATUS


def application(config: Config) -> App:
    """Builds the command line; the help of `data` and `fit` shows the values of this config as defaults."""
    app = App(
        name=commands.program(),
        help="Train, evaluate and export image classifiers, on one device or many.",
        help_format="plaintext",
        version=lambda: f"keras_prelu {metadata.version('keras_prelu')}",
        default_parameter=Parameter(name_transform=str, negative=(), allow_repeating=True),
        result_action="return_value",
        exit_on_error=False,
        print_error=False,
    )
    training, options = Group("Training", sort_key=1), Group("Options", sort_key=3)
    fields = (with_fields(data, config), with_fields(fit, config))
    for each in (configs, *fields, evaluate, export, predict, report, reproduce, env):
        app.command(each, group=training)
    for option in ("--help", "--version"):
        app[option].group = options
    if commands.program() == commands.NAME:
        _add_others(app, options)
    return app


def _add_others(app: App, options: Group) -> None:
    """Lists the commands of the server in the help and in the completion of shells; `commands` runs them."""
    serving = Group("Serving", sort_key=2)
    app.help = "Train, evaluate, export and serve image classifiers."
    for name, (_, _, text) in commands.SERVING.items():
        app.command(App(name, help=text, group=serving))
    app.register_install_completion_command(group=options)


def configs() -> int:
    """List the configs, with what each trains."""
    rows = [(name, config.dataset, config.network, text) for name, (config, text) in named_configs().items()]
    print(tabulate(rows, headers=("config", "dataset", "network", ""), tablefmt="plain"))
    return 0


def data(name: str, /, *, sheet: pathlib.Path | None = None, download: bool = False, **fields: Any) -> int:
    """Describe a set of images: splits, classes, sizes, unreadable files. Any field of a config can be set.

    Args:
        name: A config, as `configs` lists them, or a dataset's name.
        sheet: Image file for a sheet of training images, as the network sees them.
        download: Let tensorflow-datasets download and prepare the dataset.
        fields: Fields of the config to set.
    """
    config = override(load_config(name) if name in named_configs() else Config(dataset=name), fields)
    start_tensorflow()
    from training.data.datasets import open_images_of
    from training.data.survey import describe, write_training_sheet

    images = open_images_of(config, download=download)
    for line in describe(images):
        print(line, flush=True)
    if sheet:
        write_training_sheet(images, config, sheet)
        print(f"\ntraining images as the network sees them: {sheet}")
    return 0


def fit(
    config: str,
    *,
    workdir: pathlib.Path | None = None,
    local_workers: int | None = None,
    dry_run: bool = False,
    **fields: Any,
) -> int:
    """Train a network, or resume its training. Any field can be set: --flip, --flip false, --filters 8,16.

    Args:
        config: A config, as `configs` lists them; or a file, as mine.py, mine.py:large or the config.json of a run.
        workdir: Folder of the run; default: runs/CONFIG.
        local_workers: Number of worker processes on this machine.
        dry_run: Print the resolved config, the number of steps and the needed memory, and train nothing.
        fields: Fields of the config to set.
    """
    resolved = override(load_config(config), fields)
    if dry_run:
        start_tensorflow()
        from training.dry_run import describe_run

        print(describe_run(resolved))
        return 0
    workdir = workdir or default_workdir(config)
    if local_workers is not None:
        command = ["fit", f"--config={config}", f"--workdir={workdir}", *as_options(fields)]
        return run_local_workers(local_workers, command)
    cluster = read_cluster(os.environ)
    stored, cache_dir = Run(workdir).onednn(), pathlib.Path(resolved.cache_dir)
    start_tensorflow(choose_onednn(stored, cache_dir, measured=cluster is None))
    from training.train import fit

    figures = fit(resolved, workdir, cluster)
    if cluster is None or cluster.index == 0:
        name = "validation" if resolved.val_split else "test"
        print(f"{name} accuracy {figures['accuracy']:.2%} on {resolved.dataset}, run in {workdir}")
    return 0


def evaluate(
    run: Paths,
    *,
    views: Literal["centre", "ten", "dense"] = "centre",
    scales: Numbers = (),
    split: str = "",
    checkpoint: Checkpoint = "last",
    data_dir: str = "",
    devices: str = "",
    json: pathlib.Path | None = None,
) -> int:
    """Evaluate a run's network, or the mean of several, on a whole split.

    Args:
        run: Folders of runs; the scores of several are averaged.
        views: A centre crop, ten crops, or every window of the whole image.
        scales: Sizes of the shorter side for ten and dense, comma-separated; default: the paper's, in proportion.
        split: Split to evaluate on; default: the config's test_split.
        checkpoint: The newest checkpoint, or that of the best evaluation.
        data_dir: Folder of the data; default: the one used in training.
        devices: Devices to evaluate on, as GPU:0,GPU:2; default: all GPUs, or the CPU.
        json: File for the result as JSON.
    """
    start_tensorflow(Run(run[0]).onednn() if run else None)
    from training.evaluation.evaluate import describe, evaluate_runs, write
    from training.evaluation.views import Protocol

    result = evaluate_runs(
        [Run(folder) for folder in run],
        Protocol(views, scales, split),
        checkpoint=checkpoint,
        data_dir=data_dir,
        devices=devices,
    )
    print(describe(result))
    if json:
        write(result, json)
    return 0


def export(
    run: Folder,
    *,
    output: pathlib.Path | None = None,
    checkpoint: Checkpoint = "last",
    dense: bool = False,
    formats: Names = (),
    keep: int = 0,
    data_dir: str = "",
) -> int:
    """Publish a run's network as a SavedModel, and in other formats.

    Args:
        run: Folder of the run.
        output: Folder of the versions; default: RUN/export.
        checkpoint: The newest checkpoint, or that of the best evaluation.
        dense: Add signatures for whole images of any size.
        formats: litert, litert_int8 and onnx, comma-separated; default: none.
        keep: Number of newest versions to keep; 0: all.
        data_dir: Folder of the data; default: the one used in training.
    """
    start_tensorflow(Run(run).onednn())
    from training.export.export import ExportOptions, describe, export

    options = ExportOptions(
        output=output,
        checkpoint=checkpoint,
        dense=dense,
        formats=tuple(dict.fromkeys(formats)),
        keep=keep,
        data_dir=data_dir,
    )
    version = export(Run(run), options)
    print(f"exported to {version}\n{describe(version)}")
    return 0


def predict(
    *paths: pathlib.Path,
    run: pathlib.Path | None = None,
    checkpoint: Checkpoint = "last",
    top: int = 5,
    json: bool = False,
) -> int:
    """Classify images with a run's network.

    Args:
        paths: Folder of the run, followed by JPEG, PNG, GIF or BMP files.
        run: Folder of the run, if PATHS are images only.
        checkpoint: The newest checkpoint, or that of the best evaluation.
        top: Number of labels per image.
        json: Print one JSON object per line.
    """
    if len(paths) < (1 if run else 2):
        raise InputError("there is no image to classify; give the folder of a run, and then image files")
    folder, *images = (run, *paths) if run else paths
    start_tensorflow(Run(folder).onednn())
    from training.evaluation.predict import json_line, predict, table

    answered, status = [], 0
    for prediction in predict(Run(folder), images, top, checkpoint):
        if prediction.error:
            status = _failed(prediction.error, 2)
        if json:
            print(json_line(prediction), flush=True)
        elif prediction.answers:
            answered.append(prediction)
    if answered:
        print(table(answered))
    return status


def report(run: Folder, *, checkpoint: Checkpoint = "last", data_dir: str = "") -> int:
    """Write report.html, with curves, errors and signals of a run, into its folder.

    Args:
        run: Folder of the run.
        checkpoint: The newest checkpoint, or that of the best evaluation.
        data_dir: Folder of the data; default: the one used in training.
    """
    start_tensorflow(Run(run).onednn())
    from training.report.report import write_report

    print(f"the report is {write_report(Run(run), data_dir, checkpoint)}")
    return 0


def reproduce(
    name: str = "",
    /,
    *,
    workdir: pathlib.Path = pathlib.Path("runs/reproduce"),
    jobs: int = 0,
    pages: pathlib.Path | None = None,
) -> int:
    """Measure a claim of the paper at the size of this machine; without a name, list the claims.

    What is on record is not measured again, and an interrupted training resumes.

    Args:
        name: A study, as listed; or `report`, to write the pages alone.
        workdir: Folder of the records, and of a run for each training.
        jobs: Trainings to run at once, with one thread each; default: one per core.
        pages: Folder of the pages whose tables and plots are updated; default: WORKDIR.
    """
    from training.reproduce.studies import STUDIES

    if not name:
        rows = [(name, study.claim, len(study.trials())) for name, study in STUDIES.items()]
        print(tabulate(rows, headers=("study", "", "trials"), tablefmt="plain"))
        return 0
    if name not in (*STUDIES, "report"):
        raise InputError(f"there is no study {name!r}; there are {', '.join(STUDIES)}, and report")
    from training.reproduce.pages import write_pages
    from training.reproduce.runs import take_missing

    if name != "report":
        take_missing(name, workdir, jobs or os.cpu_count() or 1)
    for page in write_pages(workdir, pages or workdir):
        print(f"written: {page}")
    return 0


def env() -> int:
    """Print the machine and the versions of Python and of the packages, for a bug report."""
    from training.machine import describe_environment

    print(describe_environment())
    return 0


def _config_of_help(argv: Sequence[str]) -> Config:
    """The config whose help is asked for, in `fit NAME --help` or `data NAME --help`."""
    if not {"--help", "-h"} & set(argv):
        return Config()
    words = [part for word in argv for part in word.split("=", 1)]
    pairs = itertools.pairwise(words)
    named = (name for before, name in pairs if before in ("--config", "fit", "data") and not name.startswith("-"))
    name = next(named, "")
    return load_config(name) if name else Config()


def _failed(message: object, status: int) -> int:
    print(f"training: {message}", file=sys.stderr)
    return status


def command() -> NoReturn:
    """Runs `main` as the process, which Ctrl-C ends at once, as does SIGTERM unless a run is to be saved first."""
    end_at_signals(_interrupted(sys.argv[1:]))
    sys.exit(main())


def _interrupted(argv: Sequence[str]) -> str:
    """The message of Ctrl-C: only `fit` resumes where it was interrupted."""
    return FIT_MESSAGE if argv[:1] == ["fit"] else MESSAGE


if __name__ == "__main__":
    command()
