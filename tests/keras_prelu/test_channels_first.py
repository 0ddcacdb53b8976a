"""Layers with a `data_format` of their own run on CPUs for which TensorFlow has no `channels_first` kernels."""

import os
import subprocess
import sys

import pytest

WITHOUT_ONEDNN = """
import keras
import numpy as np
from keras_prelu import PReLU
from keras_prelu.networks.fully_convolutional import fully_convolutional
from keras_prelu.layer.pooling import SpatialPyramidPooling2D

maps = np.random.default_rng(0).normal(size=(2, 6, 7, 3)).astype("float32")
for make in (lambda **form: PReLU("normal", **form), lambda **form: SpatialPyramidPooling2D((2, 1), **form)):
    keras.utils.set_random_seed(0)
    last = np.asarray(make(data_format="channels_last")(maps))
    keras.utils.set_random_seed(0)
    first = np.asarray(make(data_format="channels_first")(np.moveaxis(maps, 3, 1)))
    np.testing.assert_array_equal(first if first.ndim == 2 else np.moveaxis(first, 1, 3), last)

shape = (3, 6, 7)
keep = {"data_format": "channels_first"}
model = keras.Sequential(
    [keras.Input(shape), keras.layers.Conv2D(2, 3, **keep), keras.layers.Flatten(**keep), keras.layers.Dense(2)]
)
try:
    fully_convolutional(model)(np.zeros((1, *shape), "float32"))
except Exception as error:
    print(error)
"""


@pytest.mark.slow
def test_without_onednn_layers_run_and_a_convolution_says_that_it_does_not():
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_ONEDNN],
        env={**os.environ, "TF_ENABLE_ONEDNN_OPTS": "0", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "only supports the NHWC tensor format on the CPU" in done.stdout
