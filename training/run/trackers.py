"""Sends a run's figures to an experiment tracker, MLflow or Weights & Biases, beside the run's own files.

Each finds its server by its own variables, as MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME, or WANDB_PROJECT and
WANDB_MODE. A run's folder has one run of each tracker: `trackers.json` holds the ids, by which a resumed run continues.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import sys
from collections.abc import Callable, Iterator, Mapping

from training.config import Config
from training.errors import InputError, check_packages

Log = Callable[[int, Mapping[str, float]], None]


def check_tracker(name: str) -> None:
    """Raises InputError, with how to install it, where the tracker is not installed."""
    if name:
        check_packages(f"tracker={name}", [name], name)


@contextlib.contextmanager
def tracked(config: Config, folder: pathlib.Path) -> Iterator[Log]:
    """Opens the run of the config's tracker and closes it with the block, as failed where an error leaves the block.

    Args:
        config: Becomes the tracker's parameters.
        folder: The run's folder, which exists.

    Yields:
        A function of the step and its figures. An error of the tracker is printed once and ends the tracking, not the
        training.

    Raises:
        InputError: The tracker is not installed, cannot be reached, or refuses the run.
    """
    if not config.tracker:
        yield lambda step, figures: None
        return
    check_tracker(config.tracker)
    tracker = _opened(config, folder)
    works = True

    def log(step: int, figures: Mapping[str, float]) -> None:
        nonlocal works
        if works:
            works = _tried(config.tracker, lambda: tracker.log(step, figures))

    failed = True
    try:
        yield log
        failed = False
    finally:
        _tried(config.tracker, lambda: tracker.close(failed))


class _MLflow:
    def __init__(self, config: Config, folder: pathlib.Path, run_id: str | None) -> None:
        import mlflow

        os.environ.setdefault("MLFLOW_ASYNC_LOGGING_THREADPOOL_SIZE", "1")  # ten threads lose and reorder figures
        self._mlflow = mlflow
        self.run_id: str = mlflow.start_run(run_id, run_name=folder.resolve().name).info.run_id
        if run_id is None:  # MLflow refuses to change a parameter
            mlflow.log_params(dataclasses.asdict(config))

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        self._mlflow.log_metrics(dict(figures), step, synchronous=False)

    def close(self, failed: bool) -> None:
        self._mlflow.flush_async_logging()
        self._mlflow.end_run("FAILED" if failed else "FINISHED")


class _Wandb:
    def __init__(self, config: Config, folder: pathlib.Path, run_id: str | None) -> None:
        import wandb

        self._run = wandb.init(
            dir=folder,
            id=run_id,
            resume="allow",
            name=folder.resolve().name,
            config=dataclasses.asdict(config),
            allow_val_change=True,
            settings=wandb.Settings(console="off", silent=True),
        )
        self._run.define_metric("*", step_metric="step")  # its own steps refuse those that a resumed run takes again
        self.run_id = self._run.id

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        self._run.log({"step": step, **figures})

    def close(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


def _opened(config: Config, folder: pathlib.Path) -> _MLflow | _Wandb:
    path = folder / "trackers.json"
    ids: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    make = _MLflow if config.tracker == "mlflow" else _Wandb
    try:
        tracker = make(config, folder, ids.get(config.tracker))
    except Exception as error:  # each has its own
        raise InputError(f"{config.tracker} cannot track this run: {_first_line(error)}") from None
    path.write_text(json.dumps(ids | {config.tracker: tracker.run_id}) + "\n")
    return tracker


def _tried(name: str, call: Callable[[], None]) -> bool:
    """Calls a tracker; what goes wrong there is printed, for the run itself needs no tracker."""
    try:
        call()
    except Exception as error:
        print(f"training: {name} tracks this run no more: {_first_line(error)}", file=sys.stderr)
        return False
    return True


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
