"""Gradients on whichever backend Keras runs: the layer's tests are the same on all of them."""

import keras
import numpy as np
import pytest


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def _tensorflow_gradients(function, inputs, upstream):
    import tensorflow as tf

    tensors = [tf.constant(each) for each in inputs]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        outputs = function(*tensors)
    return [gradient.numpy() for gradient in tape.gradient(outputs, tensors, tf.constant(upstream, outputs.dtype))]


def _torch_gradients(function, inputs, upstream):
    import torch

    tensors = [torch.tensor(each, requires_grad=True) for each in inputs]
    outputs = function(*tensors)
    gradients = torch.autograd.grad(outputs, tensors, torch.tensor(upstream, dtype=outputs.dtype))
    return [gradient.numpy() for gradient in gradients]


def _jax_gradients(function, inputs, upstream):
    import jax

    outputs, backward = jax.vjp(function, *inputs)
    return [np.asarray(gradient) for gradient in backward(jax.numpy.asarray(upstream, outputs.dtype))]


@pytest.fixture
def gradients():
    """gradients(function, inputs, upstream): those of sum(upstream * function(*inputs)), as NumPy arrays."""
    by_backend = {"tensorflow": _tensorflow_gradients, "torch": _torch_gradients, "jax": _jax_gradients}
    return by_backend[keras.config.backend()]
