"""The training loop: restore; for each step train, log, evaluate, save when due."""

import contextlib
import math
import pathlib
from collections.abc import Iterable

import tensorflow as tf

from training.checkpoint import Checkpoints
from training.config import Config
from training.diagnosis import find_not_finite
from training.errors import NotFiniteError, StoppedError, TrainingError
from training.experiment import Experiment, build_experiment
from training.interrupts import stop_requests
from training.pipeline import Batch
from training.profiling import parse_steps, profiled_steps
from training.progress import Progress
from training.run import Run
from training.steps import Step, make_evaluation_step, make_train_step
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
    strategy = make_strategy(config.cpu_devices)  # first: reading data would already fix TensorFlow's devices
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    experiment = build_experiment(config, strategy)
    run = Run(workdir)
    with run.held() if _is_chief(strategy) else contextlib.nullcontext():
        run.start(config, experiment.images.labels, experiment.image_shape, strategy.extended.worker_devices)
        _describe(experiment)
        try:
            _train(experiment, run)
        except NotFiniteError as error:
            raise TrainingError(_diagnose(experiment, run, error.step)) from None
        except OSError as error:
            raise TrainingError(
                f"{workdir} cannot be written any more: {error.strerror}; the same command goes on from the newest "
                "checkpoint"
            ) from None
        last = run.last_evaluation()
    return {"loss": last["loss"], "accuracy": last["accuracy"]}


def evaluate(evaluation_step: Step, batches: Iterable[Batch]) -> dict[str, float]:
    """Averages an evaluation step's means over all batches, each with the number of images it stands for."""
    results = [{name: float(value) for name, value in evaluation_step(batch).items()} for batch in batches]
    total = sum(result["count"] for result in results)
    return {name: sum(r[name] * r["count"] for r in results) / total for name in ("loss", "accuracy")}


def _train(experiment: Experiment, run: Run) -> None:
    config, model, strategy = experiment.config, experiment.model, experiment.strategy
    checkpoints = _checkpoints(experiment, run)
    step = checkpoints.restore()
    train_step = make_train_step(strategy, model, experiment.optimizer)
    evaluation_step = make_evaluation_step(strategy, model)
    batches, test = iter(experiment.train_batches(step)), experiment.test_batches()
    with (
        Progress(run, config, step, _is_chief(strategy)) as progress,
        profiled_steps(config.profile_steps, run.tensorboard) as profile,
        stop_requests() as should_stop,
        checkpoints,
    ):
        stopped = False
        while step < config.steps and not stopped:
            profile(step)
            batch = next(batches)
            metrics = train_step(batch)
            step += 1
            done = step == config.steps
            if done or step % config.log_every == 0:
                progress.train(step, _finite(metrics, step))
            if config.signals_every and step % config.signals_every == 0:
                progress.signals(step, model, strategy.experimental_local_results(batch["images"])[0])
            if done or step % config.evaluate_every == 0:
                progress.evaluation(step, evaluate(evaluation_step, test))
            stopped = should_stop()
            if done or stopped or step % config.checkpoint_every == 0:
                _finite(metrics, step)
                checkpoints.save(step)
            checkpoints.check()
            progress.advance()
        profile(step)
    if step < config.steps:
        raise StoppedError(f"stopped at step {step:,} of {config.steps:,}, which is saved; the same command goes on")


def _finite(metrics: dict[str, tf.Tensor], step: int) -> dict[str, float]:
    figures = {name: float(value) for name, value in metrics.items()}
    if not math.isfinite(figures["loss"]):
        raise NotFiniteError(step)
    return figures


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
