import keras
import numpy as np
import pytest

from keras_prelu import PReLU, normalized_network


@pytest.fixture(scope="module")
def network():
    return normalized_network((17, 17, 3), 10, filters=(64, 32), seed=0)


def test_parameters_are_counted_by_hand(network):
    kernels = 4 * 3 * 24 + 9 * (24 * 64 + 64 * 64 + 64 * 32 + 32 * 32)
    slopes = 24 + 2 * (64 + 32)
    normalizations = 4 * 2 * (64 + 32)  # mean, variance, scale and shift
    assert network.count_params() == kernels + slopes + normalizations + 32 * 10 + 10
    assert sum(isinstance(layer, PReLU) for layer in network.layers) == 5


def test_patches_are_scaled_wavelets_with_both_signs(network):
    kernel = np.asarray(network.get_layer("patches").kernel, "float64").reshape(12, 24)
    np.testing.assert_array_equal(kernel[:, 12:], -kernel[:, :12])
    gram = kernel[:, :12].T @ kernel[:, :12]
    np.testing.assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-5)
    # The first one is the patch's brightness, an orthonormal sum of twelve numbers, over its standard deviation of 3.
    np.testing.assert_allclose(kernel[:, 0], np.full(12, 12**-0.5 / 3), rtol=1e-6)


def test_gray_patches_have_no_colour(network):
    gray = np.random.default_rng(0).uniform(0, 255, (1, 17, 17, 1)).repeat(3, axis=-1)
    patches = network.get_layer("patches")(network.get_layer("rescaling")(gray))
    largest = np.abs(np.asarray(patches)).max((0, 1, 2)).reshape(2, 4, 3)
    assert largest[..., 0].min() > 0.5
    assert largest[..., 1:].max() < 1e-4


@pytest.mark.parametrize(("rectifier", "slope"), [("relu", 0), ("leaky_relu", 0.01), ("prelu", 0.25)])
def test_kernels_start_with_the_variance_that_fits_the_slope(rectifier, slope):
    model = normalized_network((17, 17, 3), 10, filters=(64, 32), rectifier=rectifier, seed=0)
    for name, fan_in in [("conv1_1", 216), ("conv1_2", 576), ("conv2_2", 288)]:
        kernel = np.asarray(model.get_layer(name).kernel, "float64")
        # Standard error of a variance of k draws: sqrt(2 / k), here 0.015 at most.
        assert np.var(kernel) == pytest.approx(2 / (1 + slope**2) / fan_in, rel=0.06), name


def test_every_stage_starts_normalized(network):
    images = np.random.default_rng(0).uniform(0, 255, (8, 17, 17, 3)).astype("float32")
    names = [layer.name for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert names == [f"conv{stage}_{index}_normalization" for stage in (1, 2) for index in (1, 2)]
    outputs = keras.Model(network.input, [network.get_layer(name).output for name in names])(images, training=True)
    for name, output in zip(names, map(np.asarray, outputs), strict=True):
        np.testing.assert_allclose(output.mean((0, 1, 2)), 0, atol=1e-4, err_msg=name)
        assert np.all((output.std((0, 1, 2)) > 0.9) & (output.std((0, 1, 2)) < 1.0001)), name


def test_loss_starts_near_the_logarithm_of_the_number_of_classes(network):
    images = np.random.default_rng(0).uniform(0, 255, (8, 17, 17, 3)).astype("float32")
    logits = np.asarray(network(images, training=True), "float64")
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[:, 0]
    assert losses.mean() == pytest.approx(np.log(10), abs=0.2)


def test_seed_decides_the_weights():
    first, again, other = (normalized_network((5, 5, 3), 4, (4, 4), seed=seed).get_weights() for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_any_image_size_where_none_is_given():
    model = normalized_network((None, None, 3), 4, filters=(4, 6))
    assert model(np.zeros((2, 20, 31, 3), "float32")).shape == (2, 4)


def test_saved_network_computes_the_same(network, tmp_path):
    network.save(tmp_path / "model.keras")
    images = np.random.default_rng(0).uniform(0, 255, (2, 17, 17, 3)).astype("float32")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(np.asarray(loaded(images)), np.asarray(network(images)))


@pytest.mark.parametrize(
    ("shape", "arguments", "message"),
    [
        ((32, 32, 1), {}, "a stage at least and three channels, not 3 and 1"),
        ((32, 32, 3), {"filters": ()}, "a stage at least and three channels, not 0 and 3"),
        ((8, 32, 3), {}, "at least 9x9 pixels, not 8x32"),
        ((32, 32, 3), {"rectifier": "gelu"}, "rectifier is 'gelu'"),
    ],
)
def test_network_that_cannot_be_is_refused(shape, arguments, message):
    with pytest.raises(ValueError, match=message):
        normalized_network(shape, 10, **arguments)
