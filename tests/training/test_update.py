import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_prelu import PReLU
from training.config import Config
from training.distribute.strategy import make_strategy
from training.errors import InputError
from training.step.steps import make_train_step
from training.step.update import OPTIMIZERS, LossScale, Updater, make_updater


@pytest.fixture(scope="module", params=[1, 2], ids=["one-replica", "two-replicas"])
def strategy(request):
    return make_strategy(request.param)


def apply(strategy, optimizer, variables, gradients):
    """Gives replica r the (r + 1)-fold of the gradients, and returns the norm of their sum."""

    @tf.function
    def step():
        def replica_step():
            times = tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group + 1, tf.float32)
            return optimizer.apply([times * gradient for gradient in gradients], variables)

        return strategy.experimental_local_results(strategy.run(replica_step))[0]

    return float(step())


def test_three_steps_of_sgd_are_the_formula(strategy):
    rng = np.random.default_rng(0)
    kernel, bias = rng.normal(size=(3, 2)), rng.normal(size=2)
    all_gradients = [(rng.normal(size=(3, 2)), rng.normal(size=2)) for _ in range(3)]
    with strategy.scope():
        variables = [keras.Variable(kernel, dtype="float32"), keras.Variable(bias, dtype="float32")]
        optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
        optimizer.build(variables)
    updater = Updater(optimizer, decays={id(variables[0]): 0.2}, rate_factors={id(variables[1]): 0.5}, clip_norm=3.0)
    times = sum(range(1, strategy.num_replicas_in_sync + 1))
    velocities = [np.zeros((3, 2)), np.zeros(2)]
    weights, rates = [kernel, bias], [0.1, 0.05]
    for gradients in all_gradients:
        sums = [times * gradient for gradient in gradients]
        norm = np.sqrt(sum((each**2).sum() for each in sums))
        clipped = [each * min(1, 3.0 / norm) for each in sums]
        clipped[0] = clipped[0] + 0.2 * weights[0]
        velocities = [0.9 * v - rate * each for v, rate, each in zip(velocities, rates, clipped, strict=True)]
        weights = [weight + velocity for weight, velocity in zip(weights, velocities, strict=True)]
        given = [tf.constant(each, tf.float32) for each in gradients]
        assert apply(strategy, updater, variables, given) == pytest.approx(norm, rel=1e-6)
    for variable, weight in zip(variables, weights, strict=True):
        np.testing.assert_allclose(variable.numpy(), weight, atol=1e-6)
    assert int(optimizer.iterations.numpy()) == 3


@pytest.mark.parametrize("name", sorted(set(OPTIMIZERS) - {"sgd"}))
@pytest.mark.parametrize("xla", [False, True], ids=["", "xla"])
def test_two_replicas_move_as_kerass_optimizer_does_on_one(strategy, name, xla):
    rng = np.random.default_rng(1)
    values = [rng.normal(size=(3, 2)), rng.normal(size=2), rng.normal(size=2)]  # two of a shape
    all_gradients = [[tf.constant(rng.normal(size=value.shape), tf.float32) for value in values] for _ in range(3)]
    times = sum(range(1, strategy.num_replicas_in_sync + 1))
    own = [keras.Variable(value, dtype="float32") for value in values]
    decays = {"weight_decay": 0.3} | ({"adam_weight_decay": 0.3} if name == "muon" else {})
    reference = OPTIMIZERS[name](0.05, **decays)
    with strategy.scope():
        variables = [keras.Variable(value, dtype="float32") for value in values]
        optimizer = OPTIMIZERS[name](0.05, **dict.fromkeys(decays, 0.0))
        optimizer.build(variables)
    updater = Updater(optimizer, decays={id(variable): 0.3 for variable in variables}, xla=xla)
    for gradients in all_gradients:
        reference.apply([times * gradient for gradient in gradients], own)
        apply(strategy, updater, variables, gradients)
    for variable, expected in zip(variables, own, strict=True):
        np.testing.assert_allclose(variable.numpy(), expected.numpy(), atol=1e-5)


def test_decay_is_as_strong_as_caffes():
    kernel = keras.Variable([1.0])
    optimizer = keras.optimizers.SGD(0.01, momentum=0.9)
    optimizer.build([kernel])
    updater = Updater(optimizer, decays={id(kernel): 5e-4})
    step = tf.function(lambda: updater.apply([tf.zeros(1)], [kernel]))
    for _ in range(2000):
        step()
    assert float(kernel.numpy()[0]) == pytest.approx(0.905, abs=1e-3)  # Keras's own weight_decay leaves 0.990


def test_rate_falls_from_the_last_layer_to_the_first():
    layers = [keras.layers.Dense(2, name="first"), PReLU(), keras.layers.Dense(2), keras.layers.Dense(2)]
    model = keras.Sequential([keras.Input((2,)), *layers])
    model = keras.Model(model.inputs, model.outputs)
    before = model.get_weights()
    updater = make_updater(Config(learning_rate=1.0, momentum=0.0, warmup_steps=0, layer_decay=0.5), model)
    updater.apply([tf.ones_like(each.value) for each in model.trainable_variables], model.trainable_variables)
    moved = [float((weights - value).flat[0]) for weights, value in zip(before, model.get_weights(), strict=True)]
    assert moved == pytest.approx([0.25, 0.25, 0.25, 0.5, 0.5, 1, 1])


def test_l2_is_for_kernels_alone():
    inputs = keras.Input((4, 4, 2))
    x = keras.layers.SeparableConv2D(3, 3)(inputs)
    x = PReLU()(keras.layers.BatchNormalization()(x))
    inner = keras.Sequential([keras.Input((12,)), keras.layers.Dense(2)])
    model = keras.Model(inputs, inner(keras.layers.Flatten()(x)))
    for variable in model.trainable_variables:
        variable.assign(tf.ones_like(variable.value))
    updater = make_updater(Config(learning_rate=0.1, warmup_steps=0, weight_decay=0.5), model)
    updater.apply([tf.zeros_like(variable.value) for variable in model.trainable_variables], model.trainable_variables)
    moved = {variable.name for variable in model.trainable_variables if variable.numpy().min() < 1}
    assert moved == {"depthwise_kernel", "pointwise_kernel", "kernel"}


@pytest.fixture
def precision(request):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy(before)


def build(strategy, precision):
    with strategy.scope():
        inputs = keras.Input((6,))
        x = PReLU()(keras.layers.Dense(16, kernel_initializer=keras.initializers.HeNormal(seed=1))(inputs))
        kernel = keras.initializers.GlorotNormal(seed=2)
        model = keras.Model(inputs, keras.layers.Dense(3, kernel_initializer=kernel, dtype="float32")(x))
        return model, make_updater(Config(learning_rate=0.05, warmup_steps=0, precision=precision), model)


def run(strategy, model, optimizer, factors=(1,)):
    """A step for each factor, which the images of the last replica are multiplied by."""
    images = np.random.default_rng(0).normal(size=(8, 6)).astype("float32")
    labels = images[:, :3].argmax(axis=1)
    step = make_train_step(strategy, model, optimizer, Config())
    num = strategy.num_replicas_in_sync

    def batch(factor):
        def share(context):
            index = context.replica_id_in_sync_group
            rows = slice(index * 8 // num, (index + 1) * 8 // num)
            times = factor if index == num - 1 else 1
            return {
                "images": tf.constant(images[rows] * times),
                "labels": tf.constant(labels[rows]),
                "weights": tf.ones(8 // num),
            }

        return strategy.experimental_distribute_values_from_function(share)

    return [{name: float(value) for name, value in step(batch(factor)).items()} for factor in factors]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"], indirect=True)
def test_mixed_precision_learns(strategy, precision):
    model, optimizer = build(strategy, precision)
    assert model.layers[1].compute_dtype == precision.removeprefix("mixed_")
    metrics = run(strategy, model, optimizer, [1] * 40)
    assert metrics[-1]["loss"] < 0.5 * metrics[0]["loss"]
    assert [variable.dtype for variable in model.trainable_variables] == ["float32"] * 5
    assert ("loss_scale" in metrics[0]) == (precision == "mixed_float16")


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["mixed_float16"], indirect=True)
def test_float16_gradient_is_the_float32_one_whatever_the_scale(strategy, precision):
    model, optimizer = build(strategy, precision)
    optimizer.loss_scale.value.assign(2.0**10)
    (scaled,) = run(strategy, *build(strategy, precision))
    (other,) = run(strategy, model, optimizer)
    keras.config.set_dtype_policy("float32")
    (exact,) = run(strategy, *build(strategy, "float32"))
    assert scaled["gradient_norm"] == pytest.approx(other["gradient_norm"], rel=1e-3)
    assert scaled["gradient_norm"] == pytest.approx(exact["gradient_norm"], rel=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["mixed_float16"], indirect=True)
def test_overflow_on_one_replica_moves_nothing_and_halves_the_scale(strategy, precision):
    model, optimizer = build(strategy, precision)
    run(strategy, model, optimizer)
    before = model.get_weights() + [velocity.numpy() for velocity in optimizer.optimizer.momentums]
    (metrics,) = run(strategy, model, optimizer, [-1e3])  # judged wrong: the gradient overflows, the loss does not
    assert np.isfinite(metrics["loss"])
    assert not np.isfinite(metrics["gradient_norm"])
    after = model.get_weights() + [velocity.numpy() for velocity in optimizer.optimizer.momentums]
    for value, expected in zip(after, before, strict=True):
        np.testing.assert_array_equal(value, expected)
    assert int(optimizer.optimizer.iterations.numpy()) == 2
    recovered = run(strategy, model, optimizer, [1] * 20)
    assert recovered[0]["loss_scale"] == metrics["loss_scale"] / 2
    assert recovered[-1]["loss"] < 0.8 * recovered[0]["loss"]


def test_scale_grows_after_a_row_of_finite_steps_and_stays_in_bounds():
    scale = LossScale(initial=4.0, growth_steps=3)
    seen = []
    for finite in [True, True, True, True, False, True, True, True, False, False, False, False]:
        scale.update(tf.constant(finite))
        seen.append(float(scale.value.numpy()))
    assert seen == [4, 4, 8, 8, 4, 4, 4, 8, 4, 2, 1, 1]


def test_variables_hold_velocities_scale_and_plateau(strategy):
    def made():
        with strategy.scope():
            model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
            return make_updater(Config(schedule="plateau", patience=1, precision="mixed_float16"), model)

    optimizer = made()
    optimizer.optimizer.momentums[0].assign([[1.0], [2.0]])
    optimizer.loss_scale.value.assign(64.0)
    optimizer.optimizer.iterations.assign(7)
    assert [optimizer.plateau.observe(error) for error in (0.5, 0.6)] == [False, True]
    restored = made()
    for variable, stored in zip(restored.variables, optimizer.variables, strict=True):
        variable.assign(np.asarray(stored.numpy()))
    np.testing.assert_array_equal(restored.optimizer.momentums[0].numpy(), [[1], [2]])
    assert float(restored.loss_scale.value.numpy()) == 64
    assert int(restored.optimizer.iterations.numpy()) == 7
    assert (
        float(restored.optimizer.learning_rate)
        == float(optimizer.optimizer.learning_rate)
        == pytest.approx(0.05 * 7 / 50 / 10)
    )
    assert restored.plateau.observe(0.55)


def test_warmup_as_long_as_the_run_is_named():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    with pytest.raises(InputError, match="warmup_steps is 50, but must be below steps, 50"):
        make_updater(Config(steps=50, warmup_steps=50), model)
