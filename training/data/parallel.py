"""The number of images that are decoded at a time: that of the CPU cores, in place of tf.data's own tuning."""

import os

import tensorflow as tf

CALLS = os.cpu_count() or 1


def without_autotune(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Switches off the thread by which tf.data tunes a dataset.

    That thread sleeps for up to 60 seconds, and may miss that it is to end: TensorFlow 2.21 wakes it up before
    `IsCancelled` is true (Model::OptimizeLoop in core/framework/model.cc, CancellationManager::StartCancel). About one
    iterator in eight then holds up whoever gives it up: the end of a run, or the process that SIGTERM is to end.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)
