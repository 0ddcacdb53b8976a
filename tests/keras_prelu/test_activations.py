import keras
import numpy as np
import pytest
from keras import layers
from numpy.polynomial.hermite_e import hermegauss

from keras_prelu.walk.activations import Elementwise, Rectifier, activation_of
from keras_prelu.walk.signal import Signal

FUNCTIONS = {
    "gelu": lambda x: np.asarray(keras.activations.gelu(x, approximate=False)),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "softplus": lambda x: np.log1p(np.exp(x)),
    "mish": lambda x: x * np.tanh(np.log1p(np.exp(x))),
}
KINKED = {
    "elu": lambda x: np.where(x > 0, x, np.expm1(x)),
    "selu": lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(x)),
    "hard_silu": lambda x: x * np.clip(x + 3, 0, 6) / 6,
    "hard_sigmoid": lambda x: np.clip(x + 3, 0, 6) / 6,
}


def signal(mean, variance, covariances, others):
    """Values of a mean and a variance; the covariances about 0 of others in the same image and in another one."""
    near = np.full((1, 6), covariances, "float64")
    near[0, 0] = variance + mean**2
    return Signal(np.ones(1), np.array([float(mean)]), near, np.array([float(others)]))


def pairs(rng, mean, variance, covariance, number=2_000_000):
    """Drawn pairs of that mean, variance and E[x x']."""
    r = (covariance - mean**2) / variance
    one, two = rng.standard_normal((2, number))
    return mean + np.sqrt(variance) * one, mean + np.sqrt(variance) * (r * one + np.sqrt(1 - r**2) * two)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(("mean", "variance"), [(0.0, 1.0), (0.5, 2.0)])
def test_smooth_functions_agree_with_gauss_hermite_quadrature(name, mean, variance):
    nodes, weights = hermegauss(100)
    values = FUNCTIONS[name](mean + np.sqrt(variance) * nodes)
    weights /= weights.sum()
    behind = activation_of(name).forward(signal(mean, variance, mean**2, mean**2))
    assert behind.mean[0] == pytest.approx(weights @ values, abs=1e-7)
    assert behind.second_moment == pytest.approx(weights @ values**2, rel=1e-7)
    assert behind.others[0] == pytest.approx((weights @ values) ** 2, abs=1e-7)  # values that have nothing in common


@pytest.mark.parametrize("name", [*FUNCTIONS, *KINKED])
def test_every_function_agrees_with_draws(rng, name):
    function = {**FUNCTIONS, **KINKED}[name]
    before = signal(0.3, 1.5, 0.9, 0.4)
    activation = activation_of(name)
    behind, (near, others) = activation.forward(before), activation.derivative(before)
    x, same = pairs(rng, 0.3, 1.5, 0.9)
    _, other = pairs(np.random.default_rng(0), 0.3, 1.5, 0.4)
    y = function(x)
    assert behind.mean[0] == pytest.approx(y.mean(), abs=5e-3)
    assert behind.second_moment == pytest.approx(np.mean(y**2), rel=5e-3, abs=2e-3)
    assert behind.near[0, 1] == pytest.approx(np.mean(y * function(same)), rel=5e-3, abs=2e-3)
    slope = (function(x + 1e-4) - function(x - 1e-4)) / 2e-4
    slope_same = (function(same + 1e-4) - function(same - 1e-4)) / 2e-4
    assert near[0, 0] == pytest.approx(np.mean(slope**2), rel=5e-3)
    assert near[0, 1] == pytest.approx(np.mean(slope * slope_same), rel=5e-3)
    assert others[0] < near[0, 1] < near[0, 0] or name in ("softplus", "sigmoid", "hard_sigmoid", "tanh")
    assert other.mean() == pytest.approx(0.3, abs=0.01)


@pytest.mark.parametrize("slope", [0.0, 0.25, 1.0, -0.5])
@pytest.mark.parametrize("mean", [0.0, 0.6])
def test_rectifiers_agree_with_draws(rng, slope, mean):
    before = signal(mean, 1.5, 0.9, 0.5)
    rectifier = Rectifier(slope, slope**2)
    behind, (near, _) = rectifier.forward(before), rectifier.derivative(before)
    x, same = pairs(rng, mean, 1.5, 0.9)
    rectified, rectified_same = np.where(x > 0, x, slope * x), np.where(same > 0, same, slope * same)
    assert behind.mean[0] == pytest.approx(rectified.mean(), abs=5e-3)
    assert behind.second_moment == pytest.approx(np.mean(rectified**2), rel=5e-3)
    assert behind.near[0, 1] == pytest.approx(np.mean(rectified * rectified_same), rel=5e-3, abs=2e-3)
    assert near[0, 0] == pytest.approx(np.mean(np.where(x > 0, 1, slope) ** 2), rel=5e-3)
    together = np.where(x > 0, 1, slope) * np.where(same > 0, 1, slope)
    assert near[0, 1] == pytest.approx(together.mean(), rel=5e-3, abs=2e-3)


@pytest.mark.parametrize("slope", [0.0, 0.25, 0.7])
def test_rectifiers_have_their_closed_forms(slope):
    c = 0.3
    behind = Rectifier(slope, slope**2).forward(signal(0, 1, c, 0))
    assert behind.second_moment == pytest.approx((1 + slope**2) / 2, rel=1e-12)
    assert behind.mean[0] == pytest.approx((1 - slope) / np.sqrt(2 * np.pi), rel=1e-12)
    cosine = (np.sqrt(1 - c**2) + (np.pi - np.arccos(c)) * c) / np.pi
    assert behind.near[0, 1] == pytest.approx(((1 - slope) ** 2 * cosine + 2 * slope * c) / 2, rel=1e-12)


def test_slopes_that_differ_count_by_mean_and_mean_square(rng):
    slopes = np.array([0.1, 0.5, -0.2])
    layer = layers.PReLU(shared_axes=[1])
    layer.build((None, 4, 3))
    layer.alpha.assign(slopes.reshape(1, 3))
    behind = activation_of(layer).forward(signal(0, 1, 0.5, 0.2))
    each = [Rectifier(slope, slope**2).forward(signal(0, 1, 0.5, 0.2)) for slope in slopes]
    assert behind.others[0] == pytest.approx(np.mean([one.others[0] for one in each]), rel=1e-6)
    assert behind.near[0, 1] == pytest.approx(np.mean([one.near[0, 1] for one in each]), rel=1e-6)


def test_a_users_own_function_counts():
    activation = activation_of(lambda x: keras.ops.sin(x) + 0.5 * x)
    assert isinstance(activation, Elementwise)
    nodes, weights = hermegauss(100)
    expected = weights @ (np.sin(nodes) + 0.5 * nodes) ** 2 / weights.sum()
    assert activation.forward(Signal.noise()).second_moment == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: keras.ops.softmax(x), "isn't elementwise"),
        (lambda x: keras.ops.sum(x), "isn't elementwise"),
        (lambda x: x - keras.ops.mean(x), "isn't elementwise"),
        (lambda x: x + keras.random.normal(keras.ops.shape(x), dtype=x.dtype), "gives other values each time"),
        (lambda x: keras.ops.sqrt(x), "isn't finite on -4 to 4"),
        (lambda x: 1 / 0, "can't be applied to an array (ZeroDivisionError)"),
    ],
    ids=["softmax", "sum", "centred", "random", "nan", "error"],
)
def test_what_is_no_elementwise_function_has_a_reason(function, reason):
    assert activation_of(function) == reason
