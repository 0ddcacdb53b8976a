import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_prelu import PReLU
from keras_prelu.layer.pooling import SpatialPyramidPooling2D
from keras_prelu.networks.fully_convolutional import fully_convolutional
from keras_prelu.networks.small import small_network


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def classifier(size, pooling, *head, padding="valid", data_format="channels_last"):
    """Two convolutions and a pooling with strides of 1, 2 and 2, what pools the last map, and a head."""
    shape = (*size, 3) if data_format == "channels_last" else (3, *size)
    keep = {"data_format": data_format}
    model = keras.Sequential(
        [
            keras.Input(shape),
            layers.Rescaling(1 / 50, offset=-1),
            layers.Conv2D(4, 3, padding=padding, bias_initializer="normal", **keep),
            PReLU(keras.initializers.RandomNormal(0.3), **keep),
            layers.MaxPooling2D(2, **keep),
            layers.Conv2D(5, 3, strides=2, padding=padding, **keep),
            layers.ReLU(),
            pooling,
            *head,
        ]
    )
    return with_random_weights(model)


def with_random_weights(model):
    for seed, weight in enumerate(model.trainable_weights):
        weight.assign(keras.random.normal(weight.shape, stddev=0.3, seed=seed))
    return model


def images(rng, *size):
    return rng.uniform(0, 100, size=(2, *size, 3)).astype("float32")


def windows(maps, size, stride=1):
    """Yields each window with its row and column."""
    for row in range((maps.shape[1] - size[0]) // stride + 1):
        for column in range((maps.shape[2] - size[1]) // stride + 1):
            top, left = row * stride, column * stride
            yield row, column, maps[:, top : top + size[0], left : left + size[1]]


def compiled(model):
    """Compiles the model with XLA: without oneDNN, TensorFlow's own CPU convolutions are channels_last only."""
    return tf.function(model, jit_compile=True, autograph=False)


def every_answer(answer, cut):
    """What `answer` says of each window, laid out by row and column."""
    answers = {(row, column): np.asarray(answer(window)) for row, column, window in cut}
    rows, columns = max(answers)
    return np.array([[answers[row, column] for column in range(columns + 1)] for row in range(rows + 1)]).transpose(
        2, 0, 1, 3
    )


def cut_at_pooling(model, name):
    """The layers before the pooling, at any image size, and those from it on, as functions of NumPy arrays."""
    index = [layer.name for layer in model.layers].index(name)

    def features(x):
        for layer in model.layers[:index]:
            x = x if isinstance(layer, layers.InputLayer) else layer(x)
        return np.asarray(x)

    def head(x):
        for layer in model.layers[index:]:
            x = layer(x)
        return x

    return features, head


HEAD = [
    lambda: layers.Dropout(0.5),
    lambda: layers.Dense(7, bias_initializer="normal", activation="tanh"),
    lambda: PReLU(keras.initializers.RandomNormal()),
    lambda: layers.Dropout(0.5),
    lambda: layers.Dense(6, use_bias=False),
    lambda: layers.LeakyReLU(0.2),
    lambda: layers.Dense(3, activation="softmax"),
]
POOLINGS = {
    "flatten": lambda **keep: layers.Flatten(**keep),
    "spp": lambda **keep: SpatialPyramidPooling2D((3, 2, 1), **keep),
    "one level": lambda **keep: SpatialPyramidPooling2D((2,), **keep),
    "average": lambda **keep: layers.GlobalAveragePooling2D(**keep),
    "max": lambda **keep: layers.GlobalMaxPooling2D(**keep),
}


@pytest.mark.slow
@pytest.mark.parametrize("pooling", POOLINGS)
def test_without_padding_each_answer_is_that_for_a_window_of_the_image(rng, pooling):
    size = (24, 28)  # last map 5 x 6: the pyramid's bins overlap, and leave some of it out
    model = classifier(size, POOLINGS[pooling](), *(make() for make in HEAD))
    larger = images(rng, 37, 41)
    expected = every_answer(model, windows(larger, size, stride=4))
    assert expected.shape == (2, 4, 4, 3)
    np.testing.assert_allclose(fully_convolutional(model)(larger), expected, atol=1e-5)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_with_padding_each_answer_is_that_for_a_window_of_the_last_map(rng, pooling):
    size = (28, 20)
    pool = POOLINGS[pooling](name="pooling")
    model = classifier(size, pool, *(make() for make in HEAD), padding="same")
    features, head = cut_at_pooling(model, "pooling")
    larger = images(rng, 39, 26)
    expected = every_answer(head, windows(features(larger), (7, 5)))
    np.testing.assert_allclose(fully_convolutional(model)(larger), expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("pooling", POOLINGS)
def test_channels_first_answers_alike_with_channels_last(rng, pooling):
    size = (24, 28)
    first = {"data_format": "channels_first"}
    model = classifier(size, POOLINGS[pooling](**first), layers.Dense(4), **first)
    larger = images(rng, 37, 41)
    dense, model = compiled(fully_convolutional(model)), compiled(model)
    expected = every_answer(lambda x: model(np.moveaxis(x, 3, 1)), windows(larger, size, stride=4))
    np.testing.assert_allclose(dense(np.moveaxis(larger, 3, 1)), expected, atol=1e-5)


def test_an_image_of_the_classifier_s_size_gets_its_answer(rng):
    model = with_random_weights(small_network((16, 12, 3), 5))
    image = images(rng, 16, 12)
    np.testing.assert_allclose(fully_convolutional(model)(image)[:, 0, 0], model(image), rtol=1e-5)


REST_OF_HEAD = {
    "batch normalization": lambda: [layers.BatchNormalization(momentum=0.5)],
    "softmax": lambda: [layers.Softmax()],
    "activation": lambda: [layers.Activation("gelu"), layers.ELU(0.5)],
    "keras prelu": lambda: [layers.PReLU("normal")],
    "shared keras prelu": lambda: [layers.PReLU("normal", shared_axes=[1])],
    "prelu per layer": lambda: [PReLU(-0.5, slope_per="layer")],
    "prelu per element": lambda: [PReLU(keras.initializers.RandomNormal(), slope_per="element")],
    "prelu per group": lambda: [PReLU(keras.initializers.RandomNormal(), slope_per="group", groups=3)],
}


@pytest.mark.parametrize("rest", REST_OF_HEAD.values(), ids=REST_OF_HEAD)
def test_other_layers_of_the_head_act_at_each_position(rng, rest):
    model = classifier((24, 28), layers.Flatten(), layers.Dense(6), *rest(), layers.Dense(2))
    model(images(rng, 24, 28), training=True)  # moves the batch normalization's averages
    larger = images(rng, 28, 32)
    expected = every_answer(model, windows(larger, (24, 28), stride=4))
    np.testing.assert_allclose(fully_convolutional(model)(larger), expected, atol=1e-5)


def test_residual_network_with_a_layer_used_twice(rng):
    inputs = keras.Input((9, 9, 3))
    rectifier = layers.LeakyReLU(0.3)
    maps = rectifier(layers.Conv2D(4, 3)(inputs))
    maps = layers.Add()([maps, layers.Conv2D(4, 1)(rectifier(maps))])
    features = rectifier(layers.Dense(5)(layers.GlobalAveragePooling2D()(maps)))
    model = with_random_weights(keras.Model(inputs, layers.Dense(2)(features)))
    larger = images(rng, 12, 10)
    expected = every_answer(model, windows(larger, (9, 9)))
    np.testing.assert_allclose(fully_convolutional(model)(larger), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["spp", "average"])
def test_precision_is_the_classifier_s_whatever_the_policy_of_the_day(rng, pooling):
    first = {"data_format": "channels_first"}
    model = classifier((24, 28), POOLINGS[pooling](**first), layers.Dense(4), **first)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        dense = fully_convolutional(model)
    finally:
        keras.config.set_dtype_policy("float32")
    image = np.moveaxis(images(rng, 24, 28), 3, 1)
    np.testing.assert_allclose(compiled(dense)(image)[:, 0, 0], compiled(model)(image), atol=1e-5)


def test_model_given_stays_as_it_is(rng):
    model = classifier((24, 28), layers.Flatten(), *(make() for make in HEAD))
    before, config = model.get_weights(), model.get_config()
    dense = fully_convolutional(model)
    for weight in dense.trainable_weights:
        weight.assign(keras.ops.zeros(weight.shape))
    assert all(np.array_equal(old, new) for old, new in zip(before, model.get_weights(), strict=True))
    assert model.get_config() == config
    assert model.layers[1].output.shape == (None, 22, 26, 4)  # one call each, so Keras still knows the output
    assert dense.count_params() == model.count_params()


@pytest.mark.slow
def test_saved_model_answers_alike(rng, tmp_path):
    dense = fully_convolutional(classifier((24, 28), SpatialPyramidPooling2D((3, 1)), layers.Dense(4)))
    dense.save(tmp_path / "model.keras")
    dense.export(tmp_path / "model", verbose=False)
    larger = images(rng, 30, 40)
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "model.keras")(larger), dense(larger))
    exported = tf.saved_model.load(str(tmp_path / "model"))
    np.testing.assert_allclose(exported.serve(larger), dense(larger), atol=1e-5)


def two_inputs():
    first, second = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    return keras.Model([first, second], layers.Dense(2)(layers.Flatten()(layers.Add()([first, second]))))


def nested():
    body = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(4, 3)], name="body")
    return keras.Sequential([keras.Input((8, 8, 3)), body, layers.Flatten(), layers.Dense(2)])


def chain(*each, shape=(8, 8, 3)):
    return lambda: keras.Sequential([keras.Input(shape), *each])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: keras.Sequential([layers.Flatten(), layers.Dense(2)], name="unbuilt"), "unbuilt must be a built"),
        (two_inputs, "has 2 inputs and 1 outputs"),
        (nested, "body is a model of its own"),
        (chain(layers.Conv2D(4, 3), layers.Dense(2)), "conv2d.*, a Conv2D, can't be moved"),
        (chain(layers.Dense(2)), "has no layer that combines all positions"),
        (chain(layers.Conv2D(4, 3), layers.Flatten(name="flat")), "no Dense layer after flat"),
        (
            chain(layers.Flatten(), layers.Dense(4), layers.LayerNormalization(name="norm"), layers.Dense(2)),
            "norm, a LayerNormalization, can't be moved",
        ),
        (chain(layers.Flatten(name="flat"), layers.ReLU(name="relu"), layers.Dense(2)), "relu stands between flat and"),
        (
            chain(layers.GlobalMaxPooling2D(name="max"), layers.Dense(2), shape=(None, None, 3)),
            r"max takes \(None, None, None, 3\), but must",
        ),
        (chain(layers.Resizing(4, 4), layers.Flatten(), layers.Dense(2)), "take the layer that fixes its size out"),
        (chain(PReLU(slope_per="element"), layers.Flatten(), layers.Dense(2)), "unknown along axes"),
    ],
    ids=[
        *("unbuilt", "two-inputs", "nested", "convolution-in-head", "no-pooling", "no-dense", "unknown-layer"),
        *("before-dense", "unknown-size", "fixed-size", "slope-per-element"),
    ],
)
def test_model_of_another_form_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        fully_convolutional(make())


@pytest.mark.slow
def test_quantized_model_is_refused():
    model = chain(layers.Flatten(), layers.Dense(16, name="wide"))()
    model.get_layer("wide").quantize("int8")
    with pytest.raises(ValueError, match="wide is quantized to int8"):
        fully_convolutional(model)
