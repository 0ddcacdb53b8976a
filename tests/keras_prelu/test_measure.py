import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_prelu import PReLU
from keras_prelu.signals.measure import measure_gains
from keras_prelu.signals.report import Thresholds

SLOPE = 0.25


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def dense_network(depth, deviation, rectifier, width=128, num_classes=10):
    """Kernels of variance `deviation**2 / width`."""
    model = keras.Sequential([keras.Input((width,))])
    for index in range(1, depth + 1):
        units = width if index < depth else num_classes
        initializer = keras.initializers.RandomNormal(0, deviation / np.sqrt(width), seed=index)
        model.add(layers.Dense(units, kernel_initializer=initializer, name=f"fc{index}"))
        if index < depth:
            model.add(rectifier(name=f"rectifier{index}"))
    return model


def column(report, name):
    return [getattr(row, name) for row in report.rows]


def test_report_equals_numpy(rng):
    model = dense_network(3, 1.5, PReLU, width=6, num_classes=4)
    batch, targets = rng.normal(size=(5, 6)), rng.normal(size=(5, 4))
    report = measure_gains(model, batch.astype("float32"), targets, loss="mse", weight_decay=0.01)

    kernels = [np.asarray(model.get_layer(f"fc{index}").kernel, "float64") for index in (1, 2, 3)]
    inputs, outputs = [batch], []
    for kernel in kernels:
        outputs.append(inputs[-1] @ kernel)
        inputs.append(np.where(outputs[-1] > 0, 1, SLOPE) * outputs[-1])
    gradients = [2 * (outputs[2] - targets) / targets.size]
    for kernel, output in zip(kernels[:0:-1], outputs[-2::-1], strict=True):
        gradients.insert(0, np.where(output > 0, 1, SLOPE) * (gradients[0] @ kernel.T))
    kernel_gradients = [x.T @ gradient for x, gradient in zip(inputs, gradients, strict=False)]

    forward = [np.mean(y**2) for y in outputs]
    backward = [np.mean(gradient**2) for gradient in gradients]
    close = {"rtol": 1e-5}  # float32 through three layers
    np.testing.assert_allclose(column(report, "forward_mean_square"), forward, **close)
    np.testing.assert_allclose(column(report, "forward_variance"), [np.var(y) for y in outputs], **close)
    np.testing.assert_allclose(column(report, "backward_mean_square"), backward, **close)
    np.testing.assert_allclose(column(report, "backward_variance"), [np.var(g) for g in gradients], **close)
    np.testing.assert_allclose(
        column(report, "forward_gain"), [np.nan, forward[1] / forward[0], forward[2] / forward[1]], **close
    )
    np.testing.assert_allclose(
        column(report, "backward_gain"), [backward[0] / backward[1], backward[1] / backward[2], np.nan], **close
    )
    np.testing.assert_allclose(
        column(report, "gradient_mean_square"), [np.mean(each**2) for each in kernel_gradients], **close
    )
    decay = [np.linalg.norm(each) / np.linalg.norm(0.01 * w) for each, w in zip(kernel_gradients, kernels, strict=True)]
    np.testing.assert_allclose(column(report, "decay_ratio"), decay, **close)


def test_random_gradients_have_variance_1_at_the_outputs(rng):
    model = dense_network(2, 1.4, layers.ReLU, width=32, num_classes=50)
    report = measure_gains(model, rng.normal(size=(200, 32)).astype("float32"), seed=3)
    assert report.rows[-1].backward_variance == pytest.approx(1, rel=0.05)  # 10,000 draws: standard error 1.4 %
    assert np.isnan(report.rows[-1].decay_ratio)


def test_gradients_through_nested_convolutions_equal_the_tape(rng):
    inner = keras.Sequential([keras.Input((8, 8, 4)), layers.Conv2D(6, 3, name="conv2"), PReLU()], name="stage")
    images = keras.Input((10, 10, 3))
    first = layers.Conv2D(4, 3, activation="relu", name="conv1")
    logits = layers.Dense(5, activation="softmax", name="logits")
    model = keras.Model(images, logits(layers.GlobalAveragePooling2D()(inner(first(images)))))
    batch, labels = rng.normal(size=(4, 10, 10, 3)).astype("float32"), np.array([0, 1, 2, 4])
    report = measure_gains(model, batch, labels, loss="sparse_categorical_crossentropy")

    with tf.GradientTape(persistent=True) as tape:
        conv1 = tf.nn.conv2d(batch, first.kernel, 1, "VALID")
        tape.watch(conv1)
        conv2 = inner.get_layer("conv2")(tf.nn.relu(conv1))
        tape.watch(conv2)
        scores = tf.reduce_mean(inner.layers[-1](conv2), (1, 2)) @ logits.kernel
        tape.watch(scores)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, scores))
    assert column(report, "name") == ["conv1", "stage/conv2", "logits"]
    for row, output, layer in zip(
        report.rows, [conv1, conv2, scores], [first, inner.get_layer("conv2"), logits], strict=True
    ):
        gradient, kernel_gradient = tape.gradient(loss, [output, layer.kernel.value])
        assert row.forward_mean_square == pytest.approx(np.mean(np.square(output)), rel=1e-5), row.name
        assert row.backward_mean_square == pytest.approx(np.mean(np.square(gradient)), rel=1e-5), row.name
        assert row.gradient_mean_square == pytest.approx(np.mean(np.square(kernel_gradient)), rel=1e-5), row.name


@pytest.mark.slow
def test_thirty_relu_layers_of_xavier_vanish_and_stall(rng):
    model = dense_network(30, 1, layers.ReLU)
    batch, labels = rng.normal(size=(64, 128)).astype("float32"), rng.integers(10, size=64)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    report = measure_gains(model, batch, labels, loss=loss)
    assert all("vanishing" in row.verdicts for row in report.rows)
    assert all("stalled" in row.verdicts for row in report.rows[:-1])
    # equation 9: half the variance a layer; 29 of them, of width 128, spread by half an order of magnitude
    assert np.log10(report.rows[-1].forward_mean_square / report.rows[0].forward_mean_square) == pytest.approx(
        29 * np.log10(0.5), abs=1
    )
    well = dense_network(30, np.sqrt(2), layers.ReLU)
    assert measure_gains(well, batch, labels, loss=loss).suspects == ()


def test_too_large_weights_explode(rng):
    report = measure_gains(dense_network(15, 3, layers.ReLU), rng.normal(size=(64, 128)).astype("float32"))
    assert all(row.verdicts == ("exploding",) for row in report.rows)


def test_what_is_not_finite_explodes(rng):
    report = measure_gains(dense_network(12, 1e5, layers.ReLU), rng.normal(size=(8, 128)).astype("float32"))
    assert not np.isfinite(report.rows[-1].forward_mean_square)
    assert "exploding" in report.rows[-1].verdicts


@pytest.mark.slow
def test_prelu_with_the_variance_of_its_slope_is_well(rng):
    model = dense_network(30, np.sqrt(2 / (1 + SLOPE**2)), PReLU)
    report = measure_gains(model, rng.normal(size=(64, 128)).astype("float32"))
    assert report.suspects == ()
    assert column(report, "dead")[:-1] == [0] * 29


def test_dead_layer_is_found(rng):
    model = dense_network(4, np.sqrt(2), layers.ReLU)
    model.get_layer("fc3").bias.assign(rng.normal(size=128))  # or it would be dead too, for want of a signal
    model.get_layer("fc2").bias.assign(np.full(128, -100.0))
    rows = measure_gains(model, rng.normal(size=(16, 128)).astype("float32")).rows
    assert [(row.name, row.dead) for row in rows if "dead units" in row.verdicts] == [("fc2", 1.0)]
    assert "vanishing" in rows[0].verdicts  # no gradient comes through
    assert rows[2].forward_variance == pytest.approx(np.var(model.get_layer("fc3").bias), rel=1e-5)  # nor a signal


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_dead_and_one_sided_units_are_counted_by_channel(data_format):
    images = np.linspace(-1, 1, 2 * 3 * 3 * 4, dtype="float32").reshape(2, 3, 3, 4)
    images[..., 0] = -1  # dead
    images[..., 1] = np.abs(images[..., 1]) + 1  # always above
    relu = layers.ReLU()
    if data_format == "channels_first":
        images = np.moveaxis(images, -1, 1)
        relu.data_format = data_format
    kernel = layers.Rescaling(1.0)  # in the place of what a convolution would give
    shape = images.shape[1:]
    flat = keras.Sequential([keras.Input(shape), layers.Flatten(), layers.Dense(36, "linear", name="same")])
    flat.get_layer("same").kernel.assign(np.eye(36))
    model = keras.Sequential([keras.Input(shape), kernel, flat, layers.Reshape(shape), relu])
    (row,) = measure_gains(model, images).rows
    assert (row.dead, row.one_sided) == (0.25, 0.5)


def test_slopes_leave_no_unit_dead_but_one_sided(rng):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(4, bias_initializer="ones", name="fc"), PReLU()])
    model.get_layer("fc").kernel.assign(np.zeros((4, 4)))
    (row,) = measure_gains(model, rng.normal(size=(8, 4)).astype("float32")).rows
    assert (row.dead, row.one_sided) == (0, 1)


def everything_with_a_state():
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(8, kernel_constraint="max_norm", name="fc1"),
            layers.BatchNormalization(),
            PReLU(alpha_constraint="non_neg"),
            layers.Dropout(0.5, seed=1),
            layers.Dense(3, name="fc2"),
        ]
    )
    model.layers[0].kernel.assign(3 * np.ones((6, 8)))  # beyond its constraint
    return model


def test_model_stays_as_it_is_and_report_is_repeatable(rng):
    model = everything_with_a_state()
    batch = rng.normal(size=(16, 6)).astype("float32")
    before = [np.array(variable) for variable in model.variables]
    first, second = measure_gains(model, batch), measure_gains(model, batch)
    assert str(first) == str(second)
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value, err_msg=variable.path)
    assert "call" not in vars(model.layers[1])
    assert model.layers[0].activation is keras.activations.linear


@pytest.mark.slow
def test_training_goes_on_as_if_nothing_had_been_measured(rng):
    batch, targets = rng.normal(size=(16, 6)).astype("float32"), rng.normal(size=(16, 3)).astype("float32")

    def train(measured):
        keras.utils.set_random_seed(0)
        model = everything_with_a_state()
        optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
        optimizer.build(model.trainable_variables)

        @tf.function
        def step():
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((model(batch, training=True) - targets) ** 2)
            optimizer.apply(tape.gradient(loss, [variable.value for variable in model.trainable_variables]))

        for _ in range(3):
            step()
            if measured:
                measure_gains(model, batch)
        return model.get_weights()

    for plain, watched in zip(train(False), train(True), strict=True):
        np.testing.assert_array_equal(plain, watched)


def test_training_decides_about_dropout(rng):
    model = keras.Sequential([keras.Input((64,)), layers.Dropout(0.5, seed=0), layers.Dense(64, name="fc")])
    batch = rng.normal(size=(64, 64)).astype("float32")
    with_dropout, without = (measure_gains(model, batch, training=training).rows[0] for training in (True, False))
    assert with_dropout.forward_mean_square == pytest.approx(2 * without.forward_mean_square, rel=0.1)


def test_shared_layer_is_one_row_over_its_calls(rng):
    shared, first, second = layers.Dense(4, name="shared"), keras.Input((4,)), keras.Input((4,))
    model = keras.Model([first, second], [shared(first), shared(second)])
    batches = [rng.normal(size=(5, 4)).astype("float32"), 3 * rng.normal(size=(5, 4)).astype("float32")]
    (row,) = measure_gains(model, batches, seed=7).rows
    outputs = np.concatenate(batches) @ np.asarray(shared.kernel)
    noise = np.random.default_rng(7).standard_normal((2, 5, 4), "float32")
    assert row.forward_mean_square == pytest.approx(np.mean(outputs**2), rel=1e-5)
    assert row.backward_mean_square == pytest.approx(np.mean(noise**2), rel=1e-5)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.attention = layers.MultiHeadAttention(2, 4, name="attention")
        self.logits = layers.Dense(3, activation=PReLU(), name="logits")

    def call(self, inputs):
        return {"scores": self.logits(self.attention(inputs, inputs)), "classes": keras.ops.argmax(inputs, -1)}


def test_subclassed_model_with_layers_in_layers(rng):
    report = measure_gains(Subclassed(), rng.normal(size=(2, 5, 8)).astype("float32"))
    assert [row.name.rpartition("/")[2] for row in report.rows] == [
        *("query", "key", "value", "attention_output"),
        "logits",
    ]
    assert all(row.backward_mean_square > 0 for row in report.rows)
    assert report.rows[-1].dead == 0


@pytest.mark.slow
def test_frozen_layer_has_no_gradient_of_its_own_but_passes_it_on(rng):
    model = dense_network(3, 1.4, layers.ReLU, width=8)
    model.get_layer("fc2").trainable = False
    batch, targets = rng.normal(size=(4, 8)).astype("float32"), np.zeros((4, 10))
    rows = measure_gains(model, batch, targets, loss="mse").rows
    assert [np.isnan(row.gradient_mean_square) for row in rows] == [False, True, False]
    assert np.isnan(rows[1].decay_ratio)
    assert rows[1].verdicts == ()  # a layer that does not learn cannot stall
    assert all(row.backward_mean_square > 0 for row in rows)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_is_summed_up_in_single(rng, policy):
    batch = rng.normal(size=(64, 256)).astype("float32")
    models = []
    for dtype in ("float32", policy):
        keras.utils.set_random_seed(0)
        models.append(
            keras.Sequential(
                [
                    keras.Input((256,)),
                    layers.Dense(512, dtype=dtype),
                    layers.Dense(512, "relu", dtype=dtype),
                    layers.Dense(10, dtype="float32"),
                ]
            )
        )
    single, half = (measure_gains(model, batch) for model in models)
    for name in ("forward_mean_square", "backward_mean_square", "gradient_mean_square"):
        np.testing.assert_allclose(column(half, name), column(single, name), rtol=0.02, err_msg=name)


def test_model_of_two_replicas_is_measured_as_that_of_one(rng):
    batch = rng.normal(size=(8, 6)).astype("float32")
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    keras.utils.set_random_seed(0)
    with strategy.scope():
        mirrored = everything_with_a_state()
    alone = everything_with_a_state()
    alone.set_weights(mirrored.get_weights())
    for one, two in zip(measure_gains(alone, batch).rows, measure_gains(mirrored, batch).rows, strict=True):
        assert one.forward_mean_square == pytest.approx(two.forward_mean_square, rel=1e-6)
        assert one.gradient_mean_square == pytest.approx(two.gradient_mean_square, rel=1e-6)


def test_thresholds_are_adjustable(rng):
    model = dense_network(5, 1, layers.ReLU)
    batch = rng.normal(size=(64, 128)).astype("float32")
    assert measure_gains(model, batch).suspects == ()
    strict = measure_gains(model, batch, thresholds=Thresholds(vanishing=0.5, dead=0.0))
    assert {verdict for row in strict.rows for verdict in row.verdicts} == {"vanishing", "dead units"}


def test_table_has_a_line_for_each_layer(rng):
    model = dense_network(4, 1, layers.ReLU)
    model.get_layer("fc1").kernel.assign(np.zeros((128, 128)))
    report = measure_gains(model, rng.normal(size=(8, 128)).astype("float32"))
    header, *lines = str(report).splitlines()
    assert header.split() == [
        *("layer", "forward", "gain", "backward", "gain", "dead", "one-sided", "gradient/decay", "verdict")
    ]
    assert [line.split()[0] for line in lines] == [f"fc{index}" for index in range(1, 5)]
    assert float(lines[3].split()[3]) == pytest.approx(report.rows[3].backward_mean_square, rel=0.01)
    assert lines[0].endswith("vanishing, dead units")


@pytest.mark.parametrize("arguments", [{"loss": "mse"}, {"targets": np.zeros((2, 10))}], ids=["loss", "targets"])
def test_loss_and_targets_go_together(arguments):
    with pytest.raises(ValueError, match="targets and loss go together"):
        measure_gains(dense_network(2, 1, layers.ReLU), np.zeros((2, 128), "float32"), **arguments)


def test_model_without_a_kernel_is_named():
    model = keras.Sequential([keras.Input((3,)), layers.ReLU()], name="bare")
    with pytest.raises(ValueError, match="No layer of 'bare' has a kernel"):
        measure_gains(model, np.zeros((2, 3), "float32"))


def test_outputs_without_a_gradient_need_a_loss():
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.ops.argmax(layers.Dense(2)(inputs), -1), name="classes")
    with pytest.raises(ValueError, match="No output of 'classes' is of floating-point numbers"):
        measure_gains(model, np.zeros((2, 3), "float32"))
