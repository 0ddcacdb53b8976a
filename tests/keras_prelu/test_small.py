import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_prelu import PReLU
from keras_prelu.networks.small import small_network

pytestmark = pytest.mark.xdist_group("networks")  # they share networks


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


@pytest.mark.parametrize(
    ("rectifier", "negative"),
    [("relu", 0.0), ("leaky_relu", -0.01), ("prelu", -0.25), ("prelu_shared", -0.25)],
)
def test_rectifier_is_the_one_named(rectifier, negative):
    model = small_network((8, 8, 1), 3, filters=(4, 6), convolutions=1, rectifier=rectifier)
    layer = model.get_layer("conv2_1_rectifier")
    values = np.array([-1.0, 1.0]).repeat(6).reshape(1, 2, 1, 6)
    np.testing.assert_allclose(np.asarray(layer(values))[0, :, 0], [[negative] * 6, [1.0] * 6], rtol=1e-6)
    assert layer.count_params() == {"prelu": 6, "prelu_shared": 1}.get(rectifier, 0)


@pytest.mark.parametrize(("rectifier", "slope"), [("relu", 0), ("leaky_relu", 0.01), ("prelu", 0.25)])
def test_kernels_start_with_the_variance_that_fits_the_slope(rectifier, slope):
    model = small_network((32, 32, 3), 10, filters=(64, 128), rectifier=rectifier, seed=0)
    for name, fan_in, before in [("conv1_1", 27, 1), ("conv1_2", 576, slope), ("conv2_2", 1152, slope)]:
        kernel = np.asarray(model.get_layer(name).kernel, "float64")
        # Standard error of a variance of k draws: sqrt(2 / k), here 0.034 at most.
        assert np.var(kernel) == pytest.approx(2 / (1 + before**2) / fan_in, rel=0.1 if fan_in == 27 else 0.03), name


def test_seed_decides_the_weights():
    first, again, other = (small_network((8, 8, 1), 10, seed=seed).get_weights() for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])


def test_any_image_size_where_none_is_given():
    model = small_network((None, None, 3), 4)
    assert model(np.zeros((2, 20, 31, 3), "float32")).shape == (2, 4)


def test_logits_are_float32_under_mixed_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = small_network((8, 8, 1), 3)
    finally:
        keras.config.set_dtype_policy("float32")
    assert (model.get_layer("conv1_1").compute_dtype, model(np.zeros((1, 8, 8, 1))).dtype) == ("bfloat16", "float32")


class FiftyConvolutions:
    """A network, and gradient descent on images that are dark or bright."""

    def __init__(self):
        self.model = small_network((16, 16, 1), 2, filters=(8, 16), convolutions=25, seed=0)
        # Unclipped, two of five seeds diverge once the loss falls; clipped, all five get below 0.4 in 32 steps.
        self.optimizer = keras.optimizers.SGD(0.03, momentum=0.9, global_clipnorm=0.3)
        self.optimizer.build(self.model.trainable_variables)
        self.labels = np.arange(8) % 2
        noise = np.random.default_rng(0).uniform(0, 127, size=(8, 16, 16, 1))
        self.images = (noise + 128 * self.labels.reshape(8, 1, 1, 1)).astype("float32")

    @tf.function
    def step(self):
        with tf.GradientTape() as tape:
            logits = self.model(self.images, training=True)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(self.labels, logits))
        gradients = tape.gradient(loss, [weight.value for weight in self.model.trainable_weights])
        self.optimizer.apply(gradients, self.model.trainable_variables)
        return loss, [tf.norm(each) for each in gradients if len(each.shape) == 4]

    def train(self, steps):
        """The loss at each step, and the norm of each kernel's gradient at the first."""
        results = [self.step() for _ in range(steps)]
        return [float(loss) for loss, _ in results], [float(norm) for norm in results[0][1]]

    def start_again(self, weights):
        """With the variance 1 / fan_in in all kernels, Xavier's as the paper compares it (footnote 3)."""
        self.model.set_weights(weights)
        for velocity in self.optimizer.momentums:
            velocity.assign(keras.ops.zeros(velocity.shape))
        for layer in self.model.layers:
            if isinstance(layer, keras.layers.Conv2D):
                kernel = layer.kernel.numpy()
                layer.kernel.assign(kernel / kernel.std() / np.sqrt(np.prod(kernel.shape[:3])))


@pytest.fixture(scope="module")
def fifty_convolutions():
    """What training gives from each of the two starts."""
    training = FiftyConvolutions()
    start = training.model.get_weights()
    he = training.train(32)
    training.start_again(start)
    return {"he": he, "xavier": training.train(8)}


@pytest.mark.slow
def test_fifty_convolutions_learn_from_the_first_step(fifty_convolutions):
    losses, _ = fifty_convolutions["he"]
    assert losses[0] == pytest.approx(np.log(2), abs=0.01)
    assert losses[-1] < 0.4


@pytest.mark.slow
def test_fifty_convolutions_pass_the_gradient_on(fifty_convolutions):
    _, norms = fifty_convolutions["he"]
    assert len(norms) == 50
    assert max(norms) / min(norms) < 100
    assert min(norms) > 1e-4


@pytest.mark.slow
def test_fifty_convolutions_stall_from_xavier_s_start(fifty_convolutions):
    losses, norms = fifty_convolutions["xavier"]
    assert max(norms) < 1e-6
    assert losses[-1] == pytest.approx(np.log(2), abs=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"filters": (4, 4, 4, 4)}, "at least 8x8 pixels, not 4x6"),
        ({"filters": ()}, "not 0 and 2"),
        ({"convolutions": 0}, "not 2 and 0"),
        ({"rectifier": "elu"}, "rectifier is 'elu', but must be one of relu, leaky_relu, prelu, prelu_shared"),
    ],
    ids=["too-small", "no-stage", "no-convolution", "rectifier"],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        small_network((4, 6, 1), 10, **arguments)


def test_dropout_stands_before_the_last_layer():
    network = small_network((8, 8, 1), 10, filters=(4,), dropout=0.5, seed=0)
    assert [layer.name for layer in network.layers[-3:]] == ["average", "dropout", "logits"]
    assert "dropout" not in [layer.name for layer in small_network((8, 8, 1), 10, filters=(4,)).layers]
