"""BatchNormalization over the whole global batch: all replicas' images, and none that only fills a batch up.

Keras's layer takes its statistics from the images of one replica, blank ones included: two replicas would then learn
other weights than one device.
"""

import math
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from keras_prelu.keras_internals import flatten_layers, function_of, replay
from training.distribute.strategy import sum_over_replicas
from training.errors import InputError

_LEAST_FUSED_EPSILON = 1.001e-5  # that cuDNN takes


def training_network(model: keras.Model, exchanges: bool = True) -> keras.Model:
    """The same layers with a second input, each image's share of all that count, which every BatchNormalization gets.

    Args:
        model: A functional model of one input; functional models inside it are followed.
        exchanges: Whether replicas can exchange statistics inside of the step: not while a batch is processed part by
            part, nor within XLA.

    Returns:
        A model from `[images, shares]` to the model's output, a share being 0 for a blank image, and for each other one
        1 / the number of those that count on all replicas. It has all variables in common with the model. The model
        itself where no layer takes statistics of the batch.

    Raises:
        InputError: A BatchNormalization that the graph does not show, or that renormalizes, or replicas that cannot
            exchange statistics.
    """
    normalizations = {id(layer): layer for layer in _normalizations(model) if layer.trainable}
    if not normalizations:
        return model
    for layer in normalizations.values():
        if layer.renorm:
            raise InputError(f"{layer.path} renormalizes, which is not exact over replicas: make it without renorm")
    if not exchanges:
        raise InputError(
            "BatchNormalization on several devices needs the statistics of the whole batch: set "
            "--gradient_accumulation_steps 1 and --xla false, or --freeze the layers"
        )
    network = _with_shares(model, normalizations)
    if normalizations:
        raise InputError(
            f"{next(iter(normalizations.values())).path} lies inside a layer that shows no graph: build the network "
            "with the functional API, or --freeze the layer"
        )
    return network


def _normalizations(model: keras.Model) -> Iterator[Any]:
    return (layer for layer in flatten_layers(model) if isinstance(layer, keras.layers.BatchNormalization))


def _with_shares(model: keras.Model, left: dict[int, Any]) -> keras.Model:
    """Calls the layers again; takes each BatchNormalization that it finds out of `left`."""
    shares = keras.Input(())

    def call(layer: Any, *inputs: Any, **arguments: Any) -> Any:
        if isinstance(layer, keras.layers.BatchNormalization):
            left.pop(id(layer), None)
            if arguments.get("training") is not False:
                return _BatchStatistics(layer)(inputs[0], shares)
        elif function_of(layer) and arguments.get("training") is not False and any(_normalizations(layer)):
            return _with_shares(layer, left)([inputs[0], shares])
        return layer(*inputs, **arguments)

    images = keras.Input(model.inputs[0].shape[1:], dtype=model.inputs[0].dtype)
    return keras.Model([images, shares], replay(model, images, call), name=model.name)


class _BatchStatistics(keras.layers.Layer):
    """Runs a BatchNormalization with the mean and variance of the images that count, over all replicas.

    Args:
        normalization: The layer; its variables are used and its moving statistics moved.
    """

    def __init__(self, normalization: keras.layers.BatchNormalization) -> None:
        super().__init__(name=normalization.name, dtype=normalization.dtype_policy)
        self.normalization = normalization

    def call(self, inputs: Any, shares: Any, training: bool | None = None) -> Any:
        layer = self.normalization
        if not training or not layer.trainable:
            return layer(inputs, training=False)
        if tf.distribute.get_replica_context().num_replicas_in_sync > 1 or not self._has_fused_kernel(inputs):
            outputs, mean, variance = self._exact(inputs, shares)
        else:  # three times as fast with oneDNN, where no image is blank
            outputs, mean, variance = tf.cond(
                tf.reduce_all(shares > 0), lambda: self._fused(inputs), lambda: self._exact(inputs, shares)
            )
        for moving, value in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
            moving.assign(moving * layer.momentum + value * (1 - layer.momentum))
        return outputs

    def _has_fused_kernel(self, inputs: tf.Tensor) -> bool:
        layer, rank = self.normalization, inputs.shape.rank
        return (
            inputs.dtype != tf.float64 and rank == 4 and layer.axis in (-1, 3) and layer.epsilon >= _LEAST_FUSED_EPSILON
        )

    def _exact(self, inputs: tf.Tensor, shares: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        layer = self.normalization
        x = tf.cast(inputs, layer.variable_dtype)  # half precision overflows in sums
        shares = tf.cast(shares, x.dtype)
        axis = layer.axis % x.shape.rank
        shape = [1] * x.shape.rank
        shape[axis] = -1
        positions = [other for other in range(1, x.shape.rank) if other != axis]
        size = tf.cast(math.prod(tf.shape(x)[other] for other in positions), x.dtype)

        def mean_of(values: tf.Tensor) -> tf.Tensor:
            of_images = tf.reduce_sum(values, positions) / size if positions else values
            return _over_replicas(tf.linalg.matvec(of_images, shares, transpose_a=True))

        mean = mean_of(x)
        centred = x - tf.reshape(mean, shape)
        variance = mean_of(tf.square(centred))
        scale = tf.math.rsqrt(variance + layer.epsilon)
        if layer.scale:
            scale *= tf.cast(layer.gamma, x.dtype)
        outputs = centred * tf.reshape(scale, shape)
        if layer.center:
            outputs += tf.reshape(tf.cast(layer.beta, x.dtype), shape)
        return tf.cast(outputs, inputs.dtype), mean, variance

    def _fused(self, inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        layer = self.normalization
        ones = tf.ones(inputs.shape[-1])
        gamma = tf.cast(layer.gamma, tf.float32) if layer.scale else ones
        beta = tf.cast(layer.beta, tf.float32) if layer.center else tf.zeros_like(ones)
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs, scale=gamma, offset=beta, mean=[], variance=[], epsilon=layer.epsilon
        )
        count = tf.cast(tf.size(inputs) // inputs.shape[-1], tf.float32)
        return outputs, mean, _biased(variance, count)


def _biased(variance: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """The variance divided by the count, as Keras moves it; TensorFlow's fused kernel divides by one less."""
    return variance * (count - 1) / count


def _over_replicas(value: tf.Tensor) -> tf.Tensor:
    return value if tf.distribute.get_replica_context().num_replicas_in_sync == 1 else sum_over_replicas(value)
