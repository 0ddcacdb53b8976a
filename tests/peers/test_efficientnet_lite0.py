"""The published weights of EfficientNet-Lite0 mean in the Keras network what they mean in PyTorch."""

import keras
import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_image
from torch.nn import functional

from examples.efficientnet_lite0 import main, network, packaged_state

KERNEL_SIZES = [3, 3, 3, 5, 5, 3, 3, 3, 5, 5, 5, 5, 5, 5, 5, 3]  # of the 16 blocks
STRIDES = [1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    file = tmp_path_factory.mktemp("lite0") / "lite0.weights.h5"
    assert main([str(file)]) == 0
    return file


def torch_logits(state, images):
    """The network that the weights were converted for, with TensorFlow's padding: an odd pixel right and below."""

    def convolve(x, name, stride=1, groups=1):
        kernel = state[f"{name}.weight"]
        pads = []
        for length in (x.shape[3], x.shape[2]):
            pad = max((-(-length // stride) - 1) * stride + kernel.shape[-1] - length, 0)
            pads += [pad // 2, pad - pad // 2]
        return functional.conv2d(functional.pad(x, pads), kernel, stride=stride, groups=groups)

    def normalize(x, name):
        mean, variance, scale, shift = (
            state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return functional.batch_norm(x, mean, variance, scale, shift, eps=1e-3)

    x = (torch.tensor(images.transpose(0, 3, 1, 2)) - 127) / 128
    x = functional.relu6(normalize(convolve(x, "_conv_stem", stride=2), "_bn0"))
    for block, stride in enumerate(STRIDES):
        name, inputs = f"_blocks.{block}.", x
        if block > 0:
            x = functional.relu6(normalize(convolve(x, f"{name}_expand_conv"), f"{name}_bn0"))
        x = convolve(x, f"{name}_depthwise_conv", stride, groups=x.shape[1])
        x = functional.relu6(normalize(x, f"{name}_bn1"))
        x = normalize(convolve(x, f"{name}_project_conv"), f"{name}_bn2")
        x = x + inputs if x.shape == inputs.shape else x
    x = functional.relu6(normalize(convolve(x, "_conv_head"), "_bn1"))
    return functional.linear(x.mean((2, 3)), state["_fc.weight"], state["_fc.bias"]).numpy()


@pytest.mark.parametrize("shape", [(224, 224), (97, 130)], ids=["even", "odd"])
def test_logits_are_pytorchs(file, shape):
    images = np.random.default_rng(0).uniform(0, 255, size=(2, *shape, 3)).astype("float32")
    model = network((*shape, 3), 1000)
    model.load_weights(file)
    state = {name: torch.tensor(array) for name, array in packaged_state().items()}
    logits = keras.ops.convert_to_numpy(model(images))
    np.testing.assert_allclose(logits, torch_logits(state, images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("photo", "label"), [("flower.jpg", 985), ("china.jpg", 698)], ids=["daisy", "palace"])
def test_photos_are_what_they_show(file, photo, label):
    model = network((224, 224, 3), 1000)
    model.load_weights(file)
    image = load_sample_image(photo)[:, 106:-107].astype("float32")  # 427 x 427 of 427 x 640
    images = keras.ops.image.resize(image[np.newaxis], (224, 224), antialias=True)
    assert keras.ops.convert_to_numpy(keras.ops.argmax(model(images), axis=-1)).tolist() == [label]
