import functools

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_prelu.initialization.places import kernel_places
from keras_prelu.layer.functional import prelu
from keras_prelu.layer.prelu import PReLU
from keras_prelu.walk.activations import negative_slope


def slopes(model):
    """Slopes before and after each kernel by its path, to six places."""
    rounded = functools.partial(round, ndigits=6)
    return {
        place.path: tuple(
            None if slope is None else rounded(slope) for slope in (place.slope_before, place.slope_after)
        )
        for place in kernel_places(model)
    }


def chain(*between, shape=(8, 8, 3)):
    """A kernel before and a kernel after some layers, the first named a and the last b."""
    conv = functools.partial(layers.Conv2D, 4, 3, padding="same")
    last = [layers.Flatten(), layers.Dense(2, name="b")]
    return keras.Sequential([keras.Input(shape), conv(name="a"), *between, *last])


def prelu_with(slopes, layer=PReLU):
    shape = np.shape(slopes)
    rectifier = layer(shared_axes=[1, 2])
    rectifier.build((None, 8, 8, shape[-1]))
    rectifier.alpha.assign(np.reshape(slopes, (1, 1, -1)))
    return rectifier


@pytest.mark.parametrize(
    ("activation", "slope"),
    [
        (None, 1.0),
        ("linear", 1.0),
        ("relu", 0.0),
        ("relu6", 0.0),
        ("leaky_relu", 0.2),
        (ops.relu, 0.0),
        (functools.partial(keras.activations.leaky_relu, negative_slope=0.3), 0.3),
        (layers.ReLU(), 0.0),
        (layers.ReLU(negative_slope=0.1), 0.1),
        (layers.ReLU(max_value=6), 0.0),
        (layers.LeakyReLU(0.7), 0.7),
        (layers.LeakyReLU(0.3, dtype="mixed_float16"), 0.3),
        (layers.Activation("relu"), 0.0),
        (prelu_with([0.3, 0.4]), np.sqrt(0.125)),
        (prelu_with([-0.5, 0.5]), 0.5),
        (prelu_with([0.3, 0.4], layers.PReLU), np.sqrt(0.125)),
        (layers.ReLU(max_value=1), None),
        (layers.ReLU(threshold=1), None),
        (layers.ELU(), None),
        (layers.Dropout(0.5), None),
        *[(name, None) for name in ("elu", "selu", "gelu", "silu", "tanh", "sigmoid", "softmax", "softplus", "glu")],
    ],
    ids=lambda value: str(value) if isinstance(value, str | float) else type(value).__name__,
)
def test_slope_of_an_activation(activation, slope):
    assert negative_slope(activation) == (slope if slope is None else pytest.approx(slope, abs=1e-6))


@pytest.mark.parametrize(
    "layer",
    [
        layers.Dropout(0.5),
        layers.SpatialDropout2D(0.5),
        layers.GaussianNoise(0.1),
        layers.MaxPooling2D(),
        layers.AveragePooling2D(2),
        layers.GlobalAveragePooling2D(),
        layers.GlobalMaxPooling2D(keepdims=True),
        layers.ZeroPadding2D(),
        layers.Cropping2D(1),
        layers.UpSampling2D(),
        layers.Reshape((16, 16)),
        layers.Permute((2, 1, 3)),
        layers.Identity(),
    ],
    ids=lambda layer: layer.name,
)
def test_what_lets_the_rectifier_through(layer):
    assert slopes(chain(layers.LeakyReLU(0.3), layer)) == {"a": (1, 0.3), "b": (0.3, 1)}
    assert slopes(chain(layer)) == {"a": (1, 1), "b": (1, 1)}


@pytest.mark.parametrize(
    "layer", [layers.BatchNormalization(), layers.LayerNormalization(), layers.GroupNormalization(2)]
)
def test_what_follows_a_normalization_sees_no_rectifier(layer):
    assert slopes(chain(layers.LeakyReLU(0.3), layer)) == {"a": (1, 0.3), "b": (1, 1)}
    assert slopes(chain(layer, layers.LeakyReLU(0.3))) == {"a": (1, 0.3), "b": (0.3, 1)}


def test_slopes_are_found_in_the_layer_and_in_the_layer_before():
    model = keras.Sequential(
        [
            keras.Input((9, 9, 3)),
            layers.Conv2D(4, 3, activation="relu", name="conv1"),
            layers.Conv2D(4, 3, activation=prelu_with([0.25] * 4), name="conv2"),
            layers.Conv2D(4, 3, name="conv3"),
            layers.Conv2D(4, 3, name="conv4"),
            layers.Flatten(),
            layers.Dense(2, activation="softmax", name="logits"),
        ]
    )
    assert slopes(model) == {
        "conv1": (1, 0),
        "conv2": (0, 0.25),
        "conv3": (0.25, 1),
        "conv4": (1, 1),
        "logits": (1, 1),
    }


def test_two_rectifiers_in_a_row_multiply_their_slopes():
    assert slopes(chain(layers.LeakyReLU(0.5), layers.LeakyReLU(0.5))) == {"a": (1, 0.25), "b": (0.25, 1)}


def test_separable_kernels_have_nothing_between_them():
    model = chain(layers.ReLU(), layers.SeparableConv2D(4, 3, name="middle"), layers.LeakyReLU(0.3))
    depthwise, pointwise = [place for place in kernel_places(model) if place.path == "middle"]
    assert (depthwise.slope_before, depthwise.slope_after) == (0, 1)
    assert (pointwise.slope_before, pointwise.slope_after) == (1, 0.3)


def test_projections_of_attention_stand_at_its_ends():
    inputs = keras.Input((5, 8))
    hidden = layers.Dense(8, activation="relu", name="dense")(inputs)
    attended = layers.MultiHeadAttention(2, 4, name="attention")(hidden, hidden)
    model = keras.Model(inputs, layers.LeakyReLU(0.3)(attended))
    assert slopes(model) == {
        "dense": (1, 0),
        "attention/query": (0, 1),
        "attention/key": (0, 1),
        "attention/value": (0, 1),
        "attention/attention_output": (1, 0.3),
    }


def test_nested_and_time_distributed_layers_are_reached():
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(4, name="dense"), layers.ReLU()], name="inner")
    inputs = keras.Input((6, 4))
    hidden = layers.TimeDistributed(inner, name="each")(inputs)
    hidden = layers.TimeDistributed(layers.LeakyReLU(0.5))(hidden)
    model = keras.Model(inputs, layers.TimeDistributed(layers.Dense(4), name="last")(hidden))
    assert slopes(model) == {"each/dense": (1, 0), "last": (0, 1)}


def test_operations_on_tensors_are_understood():
    inputs = keras.Input((8, 8, 3))
    hidden = ops.relu(layers.Conv2D(4, 3, name="a")(inputs))
    hidden = ops.leaky_relu(layers.Conv2D(4, 3, name="b")(ops.transpose(hidden, (0, 2, 1, 3))), 0.5)
    outputs = layers.Dense(2, name="c")(ops.reshape(hidden, (-1, 64)))
    assert slopes(keras.Model(inputs, outputs)) == {"a": (1, 0), "b": (0, 0.5), "c": (0.5, 1)}


@pytest.mark.parametrize("alpha", [0.5, np.array([0.1, 0.7], "float32")], ids=["number", "array"])
def test_prelu_of_a_tensor_is_a_rectifier(alpha):
    inputs = keras.Input((6,))
    hidden = prelu(layers.Dense(2, name="a")(inputs), alpha)
    model = keras.Model(inputs, layers.Dense(2, name="b")(hidden))
    assert slopes(model) == {"a": (1, 0.5), "b": (0.5, 1)}
    computed = layers.Dense(1, name="slope")(inputs)
    model = keras.Model(inputs, layers.Dense(2, name="b")(prelu(layers.Dense(2, name="a")(inputs), computed)))
    assert slopes(model)["b"] == (None, 1)


def test_concatenation_averages_second_moments_by_size():
    inputs = keras.Input((6,))
    three = layers.Dense(3, activation="relu", name="three")(inputs)
    one = layers.Dense(1, name="one")(inputs)
    outputs = layers.Dense(2, name="last")(layers.Concatenate()([three, one]))
    place = kernel_places(keras.Model(inputs, outputs))[-1]
    assert place.before.second_moment == pytest.approx((3 * 0.5 + 1) / 4)


def test_tensor_with_two_consumers_adds_up_their_gradients():
    inputs = keras.Input((6,))
    shared = layers.Dense(4, name="shared")(inputs)
    one = layers.Dense(4, name="one")(layers.ReLU()(shared))
    two = layers.Dense(4, name="two")(shared)
    place, *_ = kernel_places(keras.Model(inputs, layers.Concatenate()([one, two])))
    assert place.after.second_moment == pytest.approx(0.5 + 1)


def before_last(combine, *activations):
    """The signal behind a combination of the outputs of dense layers with activations, all of the same inputs."""
    inputs = keras.Input((6,))
    combined = combine([layers.Dense(4, activation=activation)(inputs) for activation in activations])
    return kernel_places(keras.Model(inputs, layers.Dense(2, name="last")(combined)))[-1].before


def test_sum_adds_up_second_moments_of_terms_without_a_mean():
    assert before_last(layers.Add(), "relu", None, None).second_moment == pytest.approx(2.5)
    assert before_last(layers.Average(), "relu", None, None).second_moment == pytest.approx(2.5 / 9)
    assert before_last(layers.Add(), None, None).second_moment == pytest.approx(2)


@pytest.mark.parametrize(
    ("combine", "weights"),
    [(layers.Add(), [1, 1, 1]), (layers.Average(), [1 / 3] * 3), (lambda terms: terms[0] - terms[1], [1, -1])],
    ids=["add", "average", "subtract"],
)
@pytest.mark.parametrize("slope", [0.0, 0.25])
def test_sum_of_rectified_terms_has_the_measured_moments(rng, combine, weights, slope):
    signal = before_last(combine, *[layers.LeakyReLU(slope) for _ in weights])
    normal = rng.normal(size=(len(weights), 400_000))
    drawn = weights @ np.where(normal > 0, normal, slope * normal)
    assert (*signal.mean, signal.second_moment) == pytest.approx((drawn.mean(), np.mean(drawn**2)), abs=0.01)


@pytest.mark.parametrize("slope", [0.0, 0.25])
def test_rectifier_behind_a_sum_of_rectified_terms_has_nearly_the_measured_moments(rng, slope):
    leaky = layers.LeakyReLU(slope)
    signal = before_last(lambda terms: leaky(layers.Add()([*terms])), leaky, leaky, None)
    normal = rng.normal(size=(3, 400_000))
    drawn = np.where(normal[:2] > 0, normal[:2], slope * normal[:2]).sum(axis=0) + normal[2]
    drawn = np.where(drawn > 0, drawn, slope * drawn)
    # the sum counts as normally distributed, which that of two rectified terms is not quite
    assert (*signal.mean, signal.second_moment) == pytest.approx((drawn.mean(), np.mean(drawn**2)), rel=0.05)


def test_rescaling_scales_the_variance():
    first, last = kernel_places(chain(layers.LeakyReLU(0.5), layers.Rescaling(3.0)))
    assert (last.before.second_moment, last.slope_before) == pytest.approx((9 * 0.625, 0.5))
    assert (first.after.second_moment, first.slope_after) == pytest.approx((9 * 0.625, 0.5))
    assert slopes(chain(layers.Rescaling(3.0, offset=1.0))) == {"a": (1, 1), "b": (1, 1)}


def test_embedding_sees_one_hot_vectors():
    model = keras.Sequential([keras.Input((5,), dtype="int32"), layers.Embedding(100, 16), layers.ReLU()])
    (place,) = kernel_places(model, input_second_moment=0.5)
    assert (place.before.second_moment, place.fan_in, place.slope_after) == (1, 1, 0)


def test_output_of_a_nested_model_that_nothing_uses():
    inputs = keras.Input((4,))
    two = keras.Model(
        inputs, [layers.Dense(4, name="used")(inputs), layers.Dense(4, name="unused")(inputs)], name="two"
    )
    used, _ = two(inputs)
    assert slopes(keras.Model(inputs, layers.ReLU()(used))) == {"two/used": (1, 0), "two/unused": (1, 1)}


def test_shared_layer_has_the_mean_over_its_calls():
    inputs = keras.Input((4,))
    shared = layers.Dense(4, name="shared")
    outputs = shared(layers.ReLU()(shared(inputs)))
    (place,) = kernel_places(keras.Model(inputs, outputs))
    assert place.before.second_moment == pytest.approx((1 + 0.5) / 2)
    assert place.after.second_moment == pytest.approx((1 + 0.5) / 2)


def test_what_is_done_to_the_inputs_counts_as_preprocessing():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Rescaling(1 / 255),
            layers.RandomFlip(),
            layers.Lambda(lambda x: x**2, output_shape=(8, 8, 3)),
            layers.Conv2D(4, 3, name="conv1"),
        ]
    )
    (place,) = kernel_places(model, input_second_moment=9.0)
    assert place.before.second_moment == 9


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: ops.softmax(x), "isn't elementwise"),
        (lambda x: x - ops.mean(x), "isn't elementwise"),
        (lambda x: x * keras.random.uniform(ops.shape(x), dtype=x.dtype), "gives other values each time"),
        (lambda x: ops.log(x), "isn't finite on -4 to 4"),
    ],
    ids=["softmax", "centred", "random", "log"],
)
@pytest.mark.parametrize("make", ["layer", "activation"])
def test_what_is_not_understood_is_named_with_the_reason(function, reason, make):
    if make == "layer":
        places, kind = kernel_places(chain(layers.Lambda(function, output_shape=(8, 8, 4), name="own"))), "Lambda own"
    else:
        places, kind = kernel_places(chain(layers.Conv2D(4, 3, activation=function, name="own"))), "<lambda> own"
    assert str(places[-1].before) == f"{kind}, which {reason}"
    assert str(places[0 if make == "layer" else 1].after) == f"{kind}, which {reason}"
    assert places[-1].slope_before is None


class OneOfOurOwn(layers.Layer):
    """A layer with a weight that nothing is known of."""

    def build(self, input_shape):
        self.factor = self.add_weight(shape=())

    def call(self, inputs):
        return inputs * self.factor


@pytest.mark.parametrize("axis", [-1, 1, (1, 2, 3)])
@pytest.mark.parametrize("reduce", [ops.mean, ops.max])
def test_a_mean_over_other_axes_than_the_positions_is_named(reduce, axis):
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="a")(inputs)
    outputs = layers.Dense(2, name="b")(layers.Flatten()(reduce(x, axis=axis, keepdims=True)))
    before = kernel_places(keras.Model(inputs, outputs))[-1].before
    assert str(before).endswith("over other axes than the positions")


def test_a_mean_over_the_positions_is_a_pooling():
    inputs = keras.Input((8, 8, 3))
    x = layers.ReLU()(layers.Conv2D(4, 3, name="a")(inputs))
    model = keras.Model(inputs, layers.Dense(2, name="b")(ops.mean(x, axis=(1, 2))))
    assert slopes(model) == {"a": (1, 0), "b": (0, 1)}


def test_a_layer_that_is_not_known_is_named():
    places = kernel_places(chain(OneOfOurOwn(name="own")))
    assert str(places[-1].before) == str(places[0].after) == "OneOfOurOwn own"


def test_an_obstacle_ends_at_the_next_kernel_or_normalization():
    model = chain(OneOfOurOwn(), layers.Conv2D(4, 3, name="middle"), layers.ReLU())
    assert slopes(model) == {"a": (1, None), "middle": (None, 0), "b": (0, 1)}
    model = chain(OneOfOurOwn(), layers.BatchNormalization())
    assert slopes(model) == {"a": (1, None), "b": (1, 1)}


def test_kernels_inside_other_layers_are_not_placed():
    model = keras.Sequential([keras.Input((5, 3)), layers.LSTM(4, name="lstm"), layers.Dense(2, name="dense")])
    assert slopes(model) == {"lstm/lstm_cell": (None, None), "dense": (None, 1)}


def residual(depth, *, post_activation=False, normalize=False, projection=False):
    inputs = keras.Input((16,))
    x = layers.Dense(16, name="stem")(inputs)
    for block in range(depth):
        hidden = layers.Dense(16, name=f"first{block}")(layers.ReLU()(x))
        hidden = layers.Dense(16, name=f"second{block}")(layers.ReLU()(hidden))
        hidden = layers.BatchNormalization()(hidden) if normalize else hidden
        shortcut = layers.Dense(16, name=f"projection{block}")(x) if projection else x
        x = layers.Add()([shortcut, hidden])
        x = layers.ReLU()(x) if post_activation else x
    return keras.Model(inputs, layers.Dense(2, name="logits")(x))


def scales(model):
    places = {place.path: place for place in kernel_places(model)}
    forward = {path: place.forward_scale for path, place in places.items() if place.forward_scale != 1}
    backward = {path: place.backward_scale for path, place in places.items() if place.backward_scale != 1}
    return forward, backward


@pytest.mark.parametrize("post_activation", [False, True], ids=["pre-activation", "post-activation"])
def test_residual_branches_are_scaled_at_their_ends(post_activation):
    forward, backward = scales(residual(4, post_activation=post_activation))
    assert forward == {f"second{block}": 0.5 for block in range(4)}
    assert backward == {f"first{block}": 0.5 for block in range(4)}


def test_branches_that_are_normalized_or_have_no_shortcut_are_not_scaled():
    assert scales(residual(4, normalize=True)) == ({}, {})
    assert scales(residual(4, projection=True)) == ({}, {})


def test_signal_in_a_residual_stream_at_most_doubles():
    before = [2 * place.before.second_moment for place in kernel_places(residual(9)) if place.path.startswith("first")]
    np.testing.assert_allclose(before, 1 + np.arange(9) / 9, rtol=1e-12)
    after = [place.after.second_moment for place in kernel_places(residual(9)) if place.path.startswith("second")]
    # each branch adds 1 / 9 to the gradient, of which its ReLU lets one half pass
    np.testing.assert_allclose(after, 1.5 - np.arange(1, 10) / 18, rtol=1e-12)


def test_branch_of_parallel_kernels_shares_the_gradient():
    inputs = keras.Input((4,))
    x = layers.Dense(8, name="stem")(inputs)
    parallel = [layers.Dense(4, name=name)(x) for name in ("left", "right")]
    model = keras.Model(inputs, x + layers.Concatenate()(parallel))
    forward, backward = scales(model)
    assert forward == {}
    assert backward == pytest.approx({"left": np.sqrt(0.5), "right": np.sqrt(0.5)})


def test_branches_that_end_in_a_sum_of_kernels_double_the_signal_together():
    inputs = keras.Input((4,))
    x = layers.Dense(8, name="stem")(inputs)
    for block in range(4):
        hidden = layers.ReLU()(x)
        ends = [layers.Dense(8, name=f"{name}{block}")(hidden) for name in ("left", "right")]
        x = layers.Add()([x, layers.Add()(ends)])
    model = keras.Model(inputs, layers.Dense(2, name="last")(x))
    assert kernel_places(model)[-1].before.second_moment == pytest.approx(2)


def test_models_without_a_graph_are_refused():
    with pytest.raises(ValueError, match="'unbuilt' is not built"):
        kernel_places(keras.Sequential([layers.Dense(2)], name="unbuilt"))
