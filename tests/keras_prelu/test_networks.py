import numpy as np
import pytest

from keras_prelu import PReLU
from keras_prelu.networks import small_network


def parameters(channels, filters, convolutions, num_classes):
    total, before = 0, channels
    for each in filters:
        for _ in range(convolutions):
            total += 9 * before * each + each + each  # kernel, bias, slopes
            before = each
    return total + before * num_classes + num_classes


@pytest.mark.parametrize(("filters", "convolutions", "channels"), [((32, 64), 2, 1), ((8,), 1, 3), ((4, 8, 16), 3, 3)])
def test_parameters_are_counted_by_hand(filters, convolutions, channels):
    model = small_network((16, 16, channels), 10, filters, convolutions)
    assert model.count_params() == parameters(channels, filters, convolutions, 10)
    assert sum(isinstance(layer, PReLU) for layer in model.layers) == len(filters) * convolutions


def test_kernels_start_with_the_variance_that_fits_the_slope():
    model = small_network((32, 32, 3), 10, filters=(64, 128), seed=0)
    for name, fan_in, slope in [("conv1_1", 27, 1), ("conv1_2", 576, 0.25), ("conv2_2", 1152, 0.25)]:
        kernel = np.asarray(model.get_layer(name).kernel, "float64")
        assert np.var(kernel) == pytest.approx(2 / (1 + slope**2) / fan_in, rel=0.1), name


def test_seed_decides_the_weights():
    first, again, other = (small_network((8, 8, 1), 10, seed=seed).get_weights() for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])


def test_any_image_size_where_none_is_given():
    model = small_network((None, None, 3), 4)
    assert model(np.zeros((2, 20, 31, 3), "float32")).shape == (2, 4)


def test_too_small_an_image_is_named():
    with pytest.raises(ValueError, match="at least 8x8 pixels, not 4x6"):
        small_network((4, 6, 1), 10, filters=(4, 4, 4, 4))
