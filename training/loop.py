"""The training loop: restore; for each step train, log, evaluate and save when due."""

import math
import pathlib
from collections.abc import Iterator

import tensorflow as tf

from training.checkpoint import Checkpoints
from training.config import Config
from training.datasets import open_image_set
from training.errors import TrainingError
from training.model import make_network, make_optimizer
from training.pipeline import Batch, evaluation_batches, train_batches
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
        TrainingError: The loss is not finite.
    """
    strategy = make_strategy(config.cpu_devices)  # first: reading data would already fix TensorFlow's devices
    images = open_image_set(config.dataset, config.data_dir)
    image_shape = images.input_shape(config.image_size)
    sizes = images.num_examples(config.train_split), images.num_examples(config.test_split)
    num_replicas = strategy.num_replicas_in_sync
    with strategy.scope():
        model = make_network(config, image_shape, len(images.labels))
        optimizer = make_optimizer(config, model)
    run = Run(workdir)
    run.start(config, images.labels, image_shape)
    checkpoints = Checkpoints(run.checkpoints, model, optimizer, config.keep_checkpoints)
    step = checkpoints.restore()

    print(f"{config.dataset}: {sizes[0]:,} images to train on, {sizes[1]:,} held out, {len(images.labels)} classes")
    print(
        f"{model.name}: {model.count_params():,} parameters, {num_replicas} x {_device_kind(strategy)}",
        flush=True,
    )
    train_step = make_train_step(strategy, model, optimizer)
    evaluation_step = make_evaluation_step(strategy, model)
    train = strategy.distribute_datasets_from_function(
        lambda _: train_batches(images, config, image_shape, num_replicas, step)
    )
    test = strategy.distribute_datasets_from_function(
        lambda _: evaluation_batches(images, config, image_shape, num_replicas)
    )
    with Progress(run, config, step) as progress:
        batches = iter(train)
        while step < config.steps:
            metrics = train_step(next(batches))
            step += 1
            done = step == config.steps
            if done or step % config.log_every == 0:
                progress.train(step, _finite(metrics, step))
            if done or step % config.evaluate_every == 0:
                progress.evaluation(step, evaluate(evaluation_step, test))
            if done or step % config.checkpoint_every == 0:
                _finite(metrics, step)
                checkpoints.save(step)
            progress.advance()
    last = run.last_evaluation()
    return {"loss": last["loss"], "accuracy": last["accuracy"]}


def evaluate(evaluation_step: Step, batches: Iterator[Batch]) -> dict[str, float]:
    """Averages an evaluation step's means over all batches, each with the number of images it stands for."""
    results = [{name: float(value) for name, value in evaluation_step(batch).items()} for batch in batches]
    total = sum(result["count"] for result in results)
    return {name: sum(r[name] * r["count"] for r in results) / total for name in ("loss", "accuracy")}


def _finite(metrics: dict[str, tf.Tensor], step: int) -> dict[str, float]:
    figures = {name: float(value) for name, value in metrics.items()}
    if not math.isfinite(figures["loss"]):
        raise TrainingError(
            f"the loss is {figures['loss']} at step {step}: the last checkpoint stays as it was; a lower learning_rate "
            "or a longer warmup_steps, in another --workdir, may do"
        )
    return figures


def _device_kind(strategy: tf.distribute.Strategy) -> str:
    return "GPU" if "GPU" in strategy.extended.worker_devices[0] else "CPU"
