"""Saves a run's weights, optimizer and step, and takes it up again."""

import pathlib

import keras
import tensorflow as tf

from training.errors import InputError


class Checkpoints:
    """The checkpoints of one run, newest last; TensorFlow's own files, so that any TensorFlow program reads them.

    Args:
        folder: Where they lie.
        model: Built model.
        optimizer: Built optimizer; None to restore a model's weights alone.
        keep: How many stay.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        model: keras.Model,
        optimizer: keras.Optimizer | None = None,
        keep: int = 3,
    ) -> None:
        parts = {"model": model} | ({"optimizer": optimizer} if optimizer else {})
        self._checkpoint = tf.train.Checkpoint(step=tf.Variable(0, dtype=tf.int64, trainable=False), **parts)
        self._manager = tf.train.CheckpointManager(self._checkpoint, str(folder), max_to_keep=keep)
        self._whole = optimizer is not None

    @property
    def latest_step(self) -> int:
        """The step of the newest checkpoint, 0 where there is none."""
        newest = self._manager.latest_checkpoint
        return int(newest.rpartition("-")[2]) if newest else 0

    def save(self, step: int) -> None:
        """Writes a checkpoint of a step, if that step has none; an interrupted write is never taken for one."""
        if step != self.latest_step:
            self._checkpoint.step.assign(step)
            self._manager.save(checkpoint_number=step)

    def restore(self) -> int:
        """Fills model and optimizer from the newest checkpoint, where there is one, and returns its step or 0.

        Raises:
            InputError: The newest checkpoint is damaged or of another model.
        """
        newest = self._manager.latest_checkpoint
        if newest is None:
            return 0
        try:
            status = self._checkpoint.restore(newest)
            if self._whole:
                status.assert_consumed()
            else:
                status.expect_partial().assert_existing_objects_matched()
        except (tf.errors.OpError, ValueError, AssertionError) as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(f"the checkpoint {newest} cannot be restored: {reason}") from None
        return int(self._checkpoint.step.numpy())
