"""What is measured of Keras layers, ours and its own: each function makes one step to run again and again."""

import os
import tempfile
from functools import partial
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np

from training.environment import native_messages_held

with native_messages_held():
    import tensorflow as tf

    tf.config.list_physical_devices()

import keras

from benchmarks.interleaved import Step
from keras_prelu import PReLU
from keras_prelu.networks.paper import paper_network

BATCH, SIZE = 128, 32
FIT_BATCHES = 4
LAYER_SHAPE = (64, 56, 56, 64)
RECTIFIERS = {
    "relu": keras.layers.ReLU,
    "keras": partial(keras.layers.PReLU, keras.initializers.Constant(0.25), shared_axes=[1, 2]),
    "ours": PReLU,
}


def network(rectifier: str) -> keras.Model:
    """Three stages of three 3x3 convolutions with 32, 64 and 128 channels."""
    keras.utils.set_random_seed(0)
    x = images = keras.Input((SIZE, SIZE, 3))
    for stage, filters in enumerate((32, 64, 128)):
        if stage:
            x = keras.layers.MaxPooling2D()(x)
        for _ in range(3):
            x = keras.layers.Conv2D(filters, 3, padding="same", kernel_initializer="he_normal")(x)
            x = RECTIFIERS[rectifier]()(x)
    return keras.Model(images, keras.layers.Dense(10)(keras.layers.GlobalAveragePooling2D()(x)))


def training_step(model: keras.Model, batch: int) -> Step:
    """Forward, backward and the update of SGD with momentum, on random images."""
    optimizer = keras.optimizers.SGD(1e-3, momentum=0.9)
    optimizer.build(model.trainable_variables)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    rng = np.random.default_rng(0)
    images = tf.constant(rng.normal(size=(batch, *model.input_shape[1:])).astype("float32"))
    labels = tf.constant(rng.integers(0, 10, batch))

    @tf.function(autograph=False)
    def step(images: Any, labels: Any) -> Any:
        with tf.GradientTape() as tape:
            value = loss(labels, model(images, training=True))
        optimizer.apply(tape.gradient(value, model.trainable_variables))
        return value

    return lambda: step(images, labels).numpy()


def network_step(rectifier: str) -> Step:
    """One training step of `network`."""
    return training_step(network(rectifier), BATCH)


def fit_step(rectifier: str) -> Step:
    """One call of Keras's `fit` with `network`, for a few batches."""
    model = network(rectifier)
    model.compile(
        keras.optimizers.SGD(1e-3, momentum=0.9), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    rng = np.random.default_rng(0)
    images = rng.normal(size=(FIT_BATCHES * BATCH, SIZE, SIZE, 3)).astype("float32")
    labels = rng.integers(0, 10, FIT_BATCHES * BATCH)
    return lambda: model.fit(images, labels, batch_size=BATCH, shuffle=False, verbose=0)


def layer_step(rectifier: str) -> Step:
    """Forward and backward of the rectifier alone."""
    layer = RECTIFIERS[rectifier]()
    layer.build(LAYER_SHAPE)
    rng = np.random.default_rng(0)
    x, upstream = (tf.constant(rng.normal(size=LAYER_SHAPE).astype("float32")) for _ in range(2))

    @tf.function(autograph=False)
    def step(x: Any, upstream: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
        return y, tape.gradient(y, [x, *layer.trainable_variables], upstream)

    def run() -> None:
        step(x, upstream)

    return run


def deep_network_step(rectifier: str, batch: int) -> Step:
    """One training step of the paper's 30-layer network on images of 224 x 224."""
    model = paper_network("30-layer", rectifier="relu")
    if rectifier != "relu":
        model = keras.models.clone_model(model, clone_function=partial(_with_rectifier, rectifier))
    return training_step(model, batch)


def _with_rectifier(rectifier: str, layer: keras.Layer) -> keras.Layer:
    if not isinstance(layer, keras.layers.ReLU):
        return layer.__class__.from_config(layer.get_config())
    if "fc" in layer.name and rectifier == "keras":  # no height and width to share slopes along
        return keras.layers.PReLU(keras.initializers.Constant(0.25), name=layer.name)
    return RECTIFIERS[rectifier](name=layer.name)


def inference_step(rectifier: str) -> Step:
    """One batch through the SavedModel of `network`."""
    with tempfile.TemporaryDirectory() as directory:
        network(rectifier).export(directory, verbose=False)
        loaded = tf.saved_model.load(directory)
    images = tf.constant(np.random.default_rng(0).normal(size=(BATCH, SIZE, SIZE, 3)).astype("float32"))
    return lambda loaded=loaded: loaded.serve(images).numpy()
