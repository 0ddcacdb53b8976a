"""The same numbers as PyTorch's. Run by `make test-torch`, which installs PyTorch."""

import keras
import numpy as np
import pytest
import torch

from keras_prelu import HeNormal, PReLU


@pytest.mark.parametrize("slopes", [1, 6], ids=["layer", "channel"])
def test_prelu_and_its_gradients(slopes):
    rng = np.random.default_rng(0)
    x, upstream = rng.normal(size=(2, 4, 6, 5, 3)).astype("float32")
    alpha = rng.uniform(-0.5, 1.5, size=slopes).astype("float32")
    ours = PReLU(slope_per="layer" if slopes == 1 else "channel", data_format="channels_first")
    ours.build(x.shape)
    ours.alpha.assign(alpha.reshape(slopes, 1, 1))
    theirs = torch.nn.PReLU(slopes)
    theirs.weight.data = torch.tensor(alpha)

    def answer_and_gradients(layer, weight):
        inputs = torch.tensor(x, requires_grad=True)
        outputs = layer(inputs)
        return outputs.detach(), *torch.autograd.grad(outputs, [inputs, weight], torch.tensor(upstream))

    found = answer_and_gradients(ours, ours.alpha.value)
    expected = answer_and_gradients(theirs, theirs.weight)
    for value, peer in zip(found, expected, strict=True):
        np.testing.assert_allclose(value.reshape(peer.shape), peer, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", ["fan_in", "fan_out"])
@pytest.mark.parametrize("slope", [0.0, 0.25, 0.6, 1.0])
@pytest.mark.parametrize("shape", [(3, 3, 64, 128), (400, 300)], ids=["conv", "dense"])
def test_he_normal_is_kaiming_normal(shape, slope, mode):
    theirs = torch.empty(*shape[::-1])  # PyTorch's kernels are (outputs, inputs, ...)
    fan = torch.nn.init._calculate_correct_fan(theirs, mode)
    deviation = torch.nn.init.calculate_gain("leaky_relu", slope) / np.sqrt(fan)
    initializer = HeNormal(seed=1, negative_slope=slope, mode=mode)
    ours = keras.ops.convert_to_numpy(initializer(shape))
    assert ours.std() == pytest.approx(deviation, rel=1e-2)  # 73,728 or more samples: 0.3 % is one deviation
    # With the drawn numbers taken out, what is left is the scale, and that is the same to 1e-5.
    standard = keras.ops.convert_to_numpy(HeNormal(seed=1, negative_slope=1.0, mode="fan_in")(shape))
    unit = standard * np.sqrt(np.prod(shape[:-1]))
    np.testing.assert_allclose(ours, unit * deviation, rtol=1e-5)
    torch.nn.init.kaiming_normal_(theirs, a=slope, mode=mode, generator=torch.Generator().manual_seed(1))
    assert theirs.std().item() == pytest.approx(deviation, rel=1e-2)
