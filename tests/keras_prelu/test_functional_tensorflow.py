"""prelu under TensorFlow: graphs, XLA, replicas, mixed precision, second derivatives, exported graphs."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_prelu import PReLU, prelu

ALPHAS = {
    "all-invertible": [0.25, 1.5, 0.016],
    "one-small": [0.25, 1.5, 0.002],
    "one-negative": [0.25, -0.5, 0.1],
    "one-zero": [0.0, 0.5, 2.0],
}
COMPILED = {
    "eager": lambda function: function,
    "graph": tf.function,
    "unknown-batch": lambda function: tf.function(
        function,
        input_signature=[
            tf.TensorSpec([None, 3, 4, 3]),
            tf.TensorSpec([3]),
            tf.TensorSpec([None, 3, 4, 3]),
        ],
    ),
    "unknown-shape": lambda function: tf.function(
        function, input_signature=[tf.TensorSpec([None, None, None, 3]), tf.TensorSpec([3]), tf.TensorSpec([None] * 4)]
    ),
    "xla": lambda function: tf.function(function, jit_compile=True),
}


def first_derivatives(x, alpha, upstream):
    with tf.GradientTape() as tape:
        tape.watch([x, alpha])
        outputs = prelu(x, alpha, training=True)
    return outputs, *tape.gradient(outputs, [x, alpha], upstream)


def second_derivatives(x, alpha, upstream):
    """Of sum(dx * dx) + sum(dalpha * dalpha), with respect to all three."""
    with tf.GradientTape() as tape:
        tape.watch([x, alpha, upstream])
        _, dx, dalpha = first_derivatives(x, alpha, upstream)
        penalty = tf.reduce_sum(dx**2) + tf.reduce_sum(dalpha**2)
    return tape.gradient(penalty, [x, alpha, upstream])


@pytest.fixture
def values(rng):
    x, upstream = rng.normal(size=(2, 2, 3, 4, 3)).astype("float32")
    return x, upstream


@pytest.mark.slow
@pytest.mark.parametrize("alpha", ALPHAS.values(), ids=ALPHAS)
@pytest.mark.parametrize("compiled", COMPILED.values(), ids=COMPILED)
def test_first_derivatives(values, compiled, alpha):
    x, upstream = values
    outputs, dx, dalpha = compiled(first_derivatives)(*map(tf.constant, (x, np.float32(alpha), upstream)))
    x, upstream = x.astype("float64"), upstream.astype("float64")
    np.testing.assert_allclose(outputs, np.where(x > 0, x, alpha * x), atol=1e-6)
    np.testing.assert_allclose(dx, np.where(x > 0, upstream, alpha * upstream), atol=1e-6)
    np.testing.assert_allclose(dalpha, np.where(x > 0, 0, upstream * x).sum(axis=(0, 1, 2)), rtol=1e-6, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("alpha", ALPHAS.values(), ids=ALPHAS)
@pytest.mark.parametrize("compiled", COMPILED.values(), ids=COMPILED)
def test_second_derivatives(values, compiled, alpha):
    x, upstream = values
    found = compiled(second_derivatives)(*map(tf.constant, (x, np.float32(alpha), upstream)))
    x, upstream = x.astype("float64"), upstream.astype("float64")
    slope, negative = np.where(x > 0, 1, alpha), np.minimum(x, 0)
    dalpha = (upstream * negative).sum(axis=(0, 1, 2))
    expected = [
        2 * dalpha * upstream * (x <= 0),
        2 * np.where(x > 0, 0, np.array(alpha) * upstream**2).sum(axis=(0, 1, 2)),
        2 * slope**2 * upstream + 2 * dalpha * negative,
    ]
    for derivative, closed_form in zip(found, expected, strict=True):
        np.testing.assert_allclose(derivative, closed_form, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize("alpha", ALPHAS.values(), ids=ALPHAS)
def test_other_dtypes(values, dtype, alpha):
    x, upstream = (tf.cast(each, dtype) for each in values)
    outputs, dx, dalpha = tf.function(first_derivatives)(x, tf.constant(alpha), upstream)
    assert (outputs.dtype, dx.dtype, dalpha.dtype) == (dtype, dtype, "float32")
    x, upstream = (tf.cast(each, tf.float64).numpy() for each in (x, upstream))
    tolerance = {"float16": 1e-2, "bfloat16": 1e-1, "float64": 1e-6}[dtype]  # a few bits more than a rounding
    np.testing.assert_allclose(
        dx.numpy().astype("float64"), np.where(x > 0, upstream, alpha * upstream), atol=tolerance
    )
    np.testing.assert_allclose(dalpha, np.where(x > 0, 0, upstream * x).sum(axis=(0, 1, 2)), atol=tolerance)


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
def test_conditional_stands_only_where_the_layer_is_compiled_alone(values, jit_compile):
    """A function that XLA compiles as a whole has no conditional, nor have those that are first traced inside it."""
    arguments = [tf.constant(each) for each in (values[0], np.float32(ALPHAS["all-invertible"]), values[1])]
    inner = tf.function(first_derivatives)
    function = tf.function(lambda *arguments: inner(*arguments), jit_compile=jit_compile)
    _, dx, dalpha = function(*arguments)
    if jit_compile:
        conditionals = "conditional" in function.experimental_get_compiler_ir(*arguments)(stage="hlo")
    else:
        library = function.get_concrete_function(*arguments).graph.as_graph_def().library
        conditionals = any("If" in node.op for each in library.function for node in each.node_def)
    assert conditionals != jit_compile
    x, alpha, upstream = (each.numpy().astype("float64") for each in arguments)
    np.testing.assert_allclose(dx, np.where(x > 0, upstream, alpha * upstream), atol=1e-6)
    np.testing.assert_allclose(dalpha, np.where(x > 0, 0, upstream * x).sum(axis=(0, 1, 2)), rtol=1e-6, atol=1e-6)


def test_gradient_taken_outside_the_function():
    function = tf.function(lambda x, alpha: prelu(x, alpha, training=True))
    x, alpha = tf.constant([[-2.0, 3.0]]), tf.constant([0.5, 0.5])
    with tf.GradientTape() as tape:
        tape.watch([x, alpha])
        y = function(x, alpha)
    dx, dalpha = tape.gradient(y, [x, alpha])
    np.testing.assert_array_equal(dx, [[0.5, 1]])
    np.testing.assert_array_equal(dalpha, [-2, 0])


def test_gradient_inside_a_loop():
    @tf.function
    def gradient(x, alpha):
        with tf.GradientTape() as tape:
            tape.watch(alpha)
            for _ in tf.range(3):
                x = prelu(x, alpha, training=True)
        return tape.gradient(x, alpha)

    np.testing.assert_allclose(gradient(tf.constant([-1.0]), tf.constant([0.5])), [-3 * 0.5**2])


@pytest.mark.slow
@pytest.mark.parametrize("use_bias", [False, True], ids=["no-bias", "bias"])
@pytest.mark.parametrize("slope_per", ["channel", "layer", "group", "element"])
def test_gradient_between_convolutions(rng, use_bias, slope_per):
    """Graph optimizers look for patterns around convolutions; what they make of them is to give the same numbers."""
    arguments = {"slope_per": slope_per, "groups": 2 if slope_per == "group" else None}
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(4, 3, use_bias=use_bias),
            PReLU(**arguments),
            keras.layers.Conv2D(4, 3, use_bias=use_bias),
            PReLU(**arguments),
            keras.layers.Flatten(),
            keras.layers.Dense(6, use_bias=use_bias),
            PReLU(**arguments),
        ]
    )
    images = tf.constant(rng.normal(size=(5, 8, 8, 3)).astype("float32"))
    upstream = tf.constant(rng.normal(size=(5, 6)).astype("float32"))

    def gradients():
        with tf.GradientTape() as tape:
            outputs = model(images, training=True)
        return tape.gradient(outputs, [variable.value for variable in model.trainable_variables], upstream)

    for compiled, eager in zip(tf.function(gradients)(), gradients(), strict=True):
        np.testing.assert_allclose(compiled, eager, rtol=1e-5, atol=1e-5)


def test_recomputed_layer_has_the_same_gradient(values):
    x, upstream = map(tf.constant, values)

    @tf.function
    def gradient(function, alpha):
        with tf.GradientTape() as tape:
            tape.watch(alpha)
            y = function(x, alpha)
        return tape.gradient(y, alpha, upstream)

    alpha = tf.constant([0.25, 0.5, -0.1])
    np.testing.assert_allclose(gradient(tf.recompute_grad(prelu), alpha), gradient(prelu, alpha), rtol=1e-6)


def test_replicas_sum_up_to_one_device(values):
    x, upstream = values
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice())
    with strategy.scope():
        layer = PReLU(0.5)
        layer.build(x.shape)
    shares = strategy.experimental_distribute_values_from_function(
        lambda context: tuple(np.array_split(each, 2)[context.replica_id_in_sync_group] for each in (x, upstream))
    )

    @tf.function
    def gradient(shares):
        def one_replica(share):
            with tf.GradientTape() as tape:
                y = layer(share[0], training=True)
            return tape.gradient(y, layer.alpha.value, share[1])

        return strategy.reduce("sum", strategy.run(one_replica, [shares]), axis=None)

    products = np.minimum(x.astype("float64"), 0) * upstream
    np.testing.assert_allclose(gradient(shares)[0, 0], products.sum(axis=(0, 1, 2)), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_trains_under_fit(rng, jit_compile, policy):
    x = rng.normal(size=(20, 4, 4, 3)).astype("float32")
    inputs = keras.Input((4, 4, 3))
    layer = PReLU(dtype=policy)
    model = keras.Model(inputs, keras.ops.cast(layer(inputs), "float32"))
    model.compile(keras.optimizers.SGD(1.0), "mse", jit_compile=jit_compile)
    model.fit(x, np.where(x > 0, x, 0.6 * x), batch_size=8, epochs=12, verbose=0)
    np.testing.assert_allclose(layer.alpha, np.full((1, 1, 3), 0.6), atol=0.02)


@pytest.mark.parametrize("training", [False, True])
def test_exported_forward_pass_is_the_form_converters_know(training):
    def operations(function):
        graph = function.get_concrete_function(tf.TensorSpec([2, 4, 4, 3])).graph
        return [operation.type for operation in graph.get_operations()]

    layer = PReLU()
    layer.build((2, 4, 4, 3))
    found = operations(tf.function(lambda x: layer(x, training=training)))
    assert ("Relu" not in found) == training
    assert ("StatefulPartitionedCall" in found or "PartitionedCall" in found) == training


def test_saved_model_answers_and_differentiates(rng, tmp_path):
    model = keras.Sequential([keras.Input((4, 4, 3)), PReLU(keras.initializers.RandomNormal(seed=1))])
    archive = tf.Module()
    archive.weights = [variable.value for variable in model.variables]
    archive.call = tf.function(model, input_signature=[tf.TensorSpec([None, 4, 4, 3])])
    tf.saved_model.save(archive, str(tmp_path / "model"))
    loaded = tf.saved_model.load(str(tmp_path / "model"))
    x = tf.constant(rng.normal(size=(2, 4, 4, 3)).astype("float32"))

    def answer_and_gradient(call):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = call(x)
        return y, tape.gradient(y, x)

    for ours, before in zip(answer_and_gradient(loaded.call), answer_and_gradient(model), strict=True):
        np.testing.assert_array_equal(ours, before)
