"""The training loop: restore; for each step train, log, evaluate, save when due."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from training.batch import Batch
from training.config import Config
from training.data.datasets import open_images_of
from training.diagnose import find_not_finite, not_finite
from training.distribute.cluster import Cluster
from training.distribute.peers import Peers
from training.distribute.rendezvous import meet
from training.distribute.strategy import make_strategy
from training.environment import ONEDNN
from training.errors import NotFiniteError, StoppedError, TrainingError
from training.experiment import Experiment, build_experiment, data_error
from training.interrupts import stop_requests
from training.kernels import onednn_in_use
from training.run.checkpoint import Checkpoints
from training.run.folder import Run, versions, write_whole
from training.run.progress import Progress, parse_steps, profiled_steps
from training.run.trackers import check_tracker
from training.step.steps import Metrics, repeated


def fit(config: Config, workdir: pathlib.Path, cluster: Cluster | None = None) -> dict[str, float]:
    """Trains a network, or takes its training up where the work folder's newest checkpoint left it.

    Args:
        config: The experiment.
        workdir: The run's folder; `training.run.folder.Run` describes it. Several workers must all see it: the
            chief writes, and all read the checkpoints.
        cluster: All workers, each of which calls this, or None for a process that trains alone.

    Returns:
        The last evaluation's `loss` and `accuracy` on the validation split.

    Raises:
        InputError: Something that was given cannot work.
        TrainingError: The loss is not finite, the disk is full, or a worker did not come up.
        LostWorkerError: Another worker has ended.
        StoppedError: SIGTERM has come; the run is saved.
    """
    parse_steps(config.profile_steps)
    check_tracker(config.tracker)
    with meet(cluster, _terms(config), config.worker_timeout) as peers:
        # First of all that uses TensorFlow: reading data would already fix its devices.
        strategy = make_strategy(config.cpu_devices, config.devices, cluster)
        with peers.chief_first():  # which prepares what comes with this package
            images = open_images_of(config)
        run = Run(workdir)
        experiment = build_experiment(config, strategy, images, run)
        with _held(run, experiment) if peers.is_chief else contextlib.nullcontext():
            figures = _explained(experiment, run, peers)
    return {"loss": figures["loss"], "accuracy": figures["accuracy"]}


def _terms(config: Config) -> dict[str, Any]:
    """What all workers must have alike."""
    shared = (field.name for field in dataclasses.fields(config) if not field.metadata["per_worker"])
    return {name: getattr(config, name) for name in shared} | versions() | {ONEDNN: onednn_in_use()}


@contextlib.contextmanager
def _held(run: Run, experiment: Experiment) -> Iterator[None]:
    """Keeps the run's folder for this process, with what the run is in it."""
    with run.held():
        devices = experiment.strategy.extended.worker_devices
        run.start(experiment.config, experiment.images.labels, experiment.image_shape, devices)
        _describe(experiment)
        yield


def _explained(experiment: Experiment, run: Run, peers: Peers) -> dict[str, float]:
    """Trains; what goes wrong is raised as what it means for the run."""
    try:
        return _train(experiment, run, peers) or run.last_evaluation()
    except NotFiniteError as error:
        raise NotFiniteError(error.step, _diagnose(experiment, run, peers, error.step)) from None
    except tf.errors.InvalidArgumentError as error:
        raise data_error(error, experiment) or error from None
    except OSError as error:
        raise TrainingError(
            f"{run.folder} cannot be written any more: {error.strerror}; the same command resumes from the newest "
            "checkpoint"
        ) from None


def _train(experiment: Experiment, run: Run, peers: Peers) -> dict[str, float]:
    """Takes the steps that are left, and returns the last evaluation; nothing where no step is left."""
    config = experiment.config
    figures: dict[str, float] = {}
    checkpoints = _checkpoints(experiment, run, peers)
    step = _restored(checkpoints, peers)
    experiment.freeze(step)
    with peers.chief_first():  # which computes the mean, if the network subtracts it; the others read it
        experiment.load_mean(step)
    take_steps, evaluate = _step_taker(experiment), experiment.evaluation(config.validation_split)
    batches = iter(experiment.train_batches(step))
    if config.deterministic:
        # After the iterators: it would have them made without any thread, though their order is fixed anyway.
        tf.config.experimental.enable_op_determinism()
    with (
        Progress(
            run,
            config,
            step,
            peers.is_chief,
            num_devices=experiment.strategy.num_replicas_in_sync,
            steps_per_epoch=experiment.steps_per_epoch,
        ) as progress,
        profiled_steps(config.profile_steps if peers.is_chief else "", run.tensorboard) as profile,
        stop_requests() as should_stop,
        checkpoints,
    ):
        stopped, finished = False, experiment.is_finished(step)
        while not finished and not stopped:
            profile(step)
            num_steps = steps_until_due(config, step)
            metrics = take_steps(batches, num_steps)
            step += num_steps
            done = step == config.steps
            if done or step % config.log_every == 0:
                progress.train(step, _finite(metrics, step))
            if config.signals_every and step % config.signals_every == 0 and peers.is_chief:
                progress.signals(step, experiment.model, experiment.probe_images())
            best = False
            if done or step % config.evaluate_every == 0:
                figures = evaluate()
                best = _report_evaluation(experiment, figures, step, progress)
            finished = experiment.is_finished(step)
            stopped = not finished and peers.stops(step, should_stop())
            due = finished or stopped or step % config.checkpoint_every == 0
            if due:
                _finite(metrics, step)
            checkpoints.save(step, due=due, best=best)
            if step == config.unfreeze_step and not finished:
                experiment.freeze(step)
                take_steps = _step_taker(experiment)
            checkpoints.check()
            progress.advance(num_steps)
        profile(step)
    if not finished:
        raise StoppedError(f"stopped at step {step:,} of {config.steps:,}, which is saved; the same command resumes")
    _save_models(experiment, checkpoints, run, peers)
    return figures


def _report_evaluation(experiment: Experiment, figures: dict[str, float], step: int, progress: Progress) -> bool:
    """Tells an evaluation's figures to all who wait for them, and returns whether they are the best so far.

    At the end of the run it reports the test split's, too, where training evaluates another one.
    """
    progress.evaluation(step, figures)
    best = experiment.observe(figures)
    if experiment.config.val_split and experiment.is_finished(step):
        progress.test(step, experiment.evaluation(experiment.config.test_split)())
    return best


def _save_models(experiment: Experiment, checkpoints: Checkpoints, run: Run, peers: Peers) -> None:
    """Writes the network as `model.keras`, and as `best.keras` what it was at its best evaluation."""

    def save(path: pathlib.Path) -> None:
        if peers.is_chief:
            with experiment.average.applied() if experiment.average else contextlib.nullcontext():
                write_whole(path, experiment.model.save)

    if run.model.exists() and run.best_model.exists():
        return
    save(run.model)
    with peers.chief_first():  # by then it has written what it was writing
        checkpoints.restore_best()
    save(run.best_model)


def steps_until_due(config: Config, step: int) -> int:
    """How many steps one call takes: `steps_per_execution`, or fewer where something is due before."""
    periods = (config.log_every, config.evaluate_every, config.checkpoint_every, config.signals_every or config.steps)
    ends = [end - step for end in (config.steps, config.unfreeze_step) if end > step]
    return min(config.steps_per_execution, *ends, *(every - step % every for every in periods))


def _step_taker(experiment: Experiment) -> Callable[[Iterator[Batch], int], Metrics]:
    step = experiment.train_step()
    if experiment.config.steps_per_execution == 1:
        return lambda batches, num_steps: step(next(batches))
    steps = repeated(step)
    return lambda batches, num_steps: steps(batches, tf.constant(num_steps))


def _finite(metrics: Metrics, step: int) -> dict[str, float]:
    """The figures of the last step of a call."""
    if not_finite(metrics):
        raise NotFiniteError(step)
    return {name: float(np.ravel(values)[-1]) for name, values in metrics.items()}


def _diagnose(experiment: Experiment, run: Run, peers: Peers, found: int) -> str:
    """Repeats the run from its newest checkpoint, in variables of its own, and says where it went wrong."""
    experiment = build_experiment(experiment.config, experiment.strategy, experiment.images, run)
    step = _restored(_checkpoints(experiment, run, peers), peers)
    kept = f"the checkpoint of step {step} stays" if step else "there is no checkpoint yet"
    return (
        f"{find_not_finite(experiment, step, found)}; {kept}; a lower learning_rate or a longer warmup_steps, in "
        "another --workdir, may do"
    )


def _checkpoints(experiment: Experiment, run: Run, peers: Peers) -> Checkpoints:
    return Checkpoints(
        run.checkpoints,
        experiment.model,
        keep=experiment.config.keep_checkpoints,
        writes=peers.is_chief,
        **experiment.parts,
    )


def _restored(checkpoints: Checkpoints, peers: Peers) -> int:
    """The step that all workers resume from."""
    with peers.chief_first():  # by then it has written what it was writing
        step = checkpoints.restore()
    peers.agree("the newest checkpoint's step", step)
    return step


def _describe(experiment: Experiment) -> None:
    config, images, strategy = experiment.config, experiment.images, experiment.strategy
    sizes = images.num_examples(config.train_split), images.num_examples(config.validation_split)
    kind = "GPU" if "GPU" in strategy.extended.worker_devices[0] else "CPU"
    print(f"{config.dataset}: {sizes[0]:,} images to train on, {sizes[1]:,} held out, {len(images.labels)} classes")
    print(
        f"{experiment.model.name}: {experiment.model.count_params():,} parameters, "
        f"{strategy.num_replicas_in_sync} x {kind}",
        flush=True,
    )
