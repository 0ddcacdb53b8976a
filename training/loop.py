"""The training loop: restore; for each step train, log, evaluate, save when due."""

import contextlib
import pathlib
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from training.checkpoint import Checkpoints
from training.config import Config
from training.diagnosis import find_not_finite
from training.errors import NotFiniteError, StoppedError, TrainingError
from training.evaluation import make_evaluation
from training.experiment import Experiment, build_experiment, label_error
from training.interrupts import stop_requests
from training.pipeline import Batch
from training.profiling import parse_steps, profiled_steps
from training.progress import Progress
from training.run import Run
from training.steps import Metrics, repeated
from training.strategy import make_strategy


def fit(config: Config, workdir: pathlib.Path) -> dict[str, float]:
    """Trains a network, or takes its training up where the work folder's newest checkpoint left it.

    Args:
        config: The experiment.
        workdir: The run's folder; `training.run.Run` tells what lies in it.

    Returns:
        The last evaluation's `loss` and `accuracy` on the test split.

    Raises:
        InputError: Something that was given cannot work.
        TrainingError: The loss is not finite, or the disk is full.
        StoppedError: SIGTERM has come; the run is saved.
    """
    parse_steps(config.profile_steps)
    # First of all that uses TensorFlow: reading data would already fix its devices.
    strategy = make_strategy(config.cpu_devices, config.devices)
    experiment = build_experiment(config, strategy)
    run = Run(workdir)
    with _held(run, experiment) if _is_chief(strategy) else contextlib.nullcontext():
        try:
            figures = _train(experiment, run) or run.last_evaluation()
        except NotFiniteError as error:
            raise TrainingError(_diagnose(experiment, run, error.step)) from None
        except tf.errors.InvalidArgumentError as error:
            raise label_error(error, experiment) or error from None
        except OSError as error:
            raise TrainingError(
                f"{workdir} cannot be written any more: {error.strerror}; the same command goes on from the newest "
                "checkpoint"
            ) from None
    return {"loss": figures["loss"], "accuracy": figures["accuracy"]}


@contextlib.contextmanager
def _held(run: Run, experiment: Experiment) -> Iterator[None]:
    """Keeps the run's folder for this process, with what the run is in it."""
    with run.held():
        devices = experiment.strategy.extended.worker_devices
        run.start(experiment.config, experiment.images.labels, experiment.image_shape, devices)
        _describe(experiment)
        yield


def _train(experiment: Experiment, run: Run) -> dict[str, float]:
    """Takes the steps that are left, and returns the last evaluation; nothing where no step is left."""
    config = experiment.config
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    figures: dict[str, float] = {}
    checkpoints = _checkpoints(experiment, run)
    step = checkpoints.restore()
    take_steps, evaluate = _step_taker(experiment), make_evaluation(experiment)
    batches = iter(experiment.train_batches(step))
    with (
        Progress(run, config, step, _is_chief(experiment.strategy)) as progress,
        profiled_steps(config.profile_steps, run.tensorboard) as profile,
        stop_requests() as should_stop,
        checkpoints,
    ):
        stopped = False
        while step < config.steps and not stopped:
            profile(step)
            num_steps = steps_until_due(config, step)
            metrics = take_steps(batches, num_steps)
            step += num_steps
            done = step == config.steps
            if done or step % config.log_every == 0:
                progress.train(step, _finite(metrics, step))
            if config.signals_every and step % config.signals_every == 0:
                progress.signals(step, experiment.model, experiment.probe_images())
            if done or step % config.evaluate_every == 0:
                figures = evaluate()
                progress.evaluation(step, figures)
            stopped = should_stop()
            if done or stopped or step % config.checkpoint_every == 0:
                _finite(metrics, step)
                checkpoints.save(step)
            checkpoints.check()
            progress.advance(num_steps)
        profile(step)
    if step < config.steps:
        raise StoppedError(f"stopped at step {step:,} of {config.steps:,}, which is saved; the same command goes on")
    return figures


def steps_until_due(config: Config, step: int) -> int:
    """How many steps one call takes: `steps_per_call`, or fewer where something is due before."""
    periods = (config.log_every, config.evaluate_every, config.checkpoint_every, config.signals_every or config.steps)
    return min(config.steps_per_call, config.steps - step, *(every - step % every for every in periods))


def _step_taker(experiment: Experiment) -> Callable[[Iterator[Batch], int], Metrics]:
    step = experiment.train_step()
    if experiment.config.steps_per_call == 1:
        return lambda batches, num_steps: step(next(batches))
    steps = repeated(step)
    return lambda batches, num_steps: steps(batches, tf.constant(num_steps))


def _finite(metrics: Metrics, step: int) -> dict[str, float]:
    """The figures of the last step of a call."""
    if not np.isfinite(metrics["loss"]).all():
        raise NotFiniteError(step)
    return {name: float(np.ravel(values)[-1]) for name, values in metrics.items()}


def _diagnose(experiment: Experiment, run: Run, found: int) -> str:
    """Repeats the run from its newest checkpoint, in variables of its own, and says where it went wrong."""
    experiment = build_experiment(experiment.config, experiment.strategy)
    step = _checkpoints(experiment, run).restore()
    kept = f"the checkpoint of step {step} stays" if step else "there is no checkpoint yet"
    return (
        f"{find_not_finite(experiment, step, found)}; {kept}; a lower learning_rate or a longer warmup_steps, in "
        "another --workdir, may do"
    )


def _checkpoints(experiment: Experiment, run: Run) -> Checkpoints:
    return Checkpoints(
        run.checkpoints,
        experiment.model,
        keep=experiment.config.keep_checkpoints,
        writes=_is_chief(experiment.strategy),
        **experiment.parts,
    )


def _describe(experiment: Experiment) -> None:
    config, images, strategy = experiment.config, experiment.images, experiment.strategy
    sizes = images.num_examples(config.train_split), images.num_examples(config.test_split)
    kind = "GPU" if "GPU" in strategy.extended.worker_devices[0] else "CPU"
    print(f"{config.dataset}: {sizes[0]:,} images to train on, {sizes[1]:,} held out, {len(images.labels)} classes")
    print(
        f"{experiment.model.name}: {experiment.model.count_params():,} parameters, "
        f"{strategy.num_replicas_in_sync} x {kind}",
        flush=True,
    )


def _is_chief(strategy: tf.distribute.Strategy) -> bool:
    return bool(strategy.extended.should_checkpoint)
