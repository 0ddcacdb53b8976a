"""prelu and its gradients against equations 1 to 3 in NumPy's float64, on any Keras backend."""

import keras
import numpy as np
import pytest

from keras_prelu import prelu

SLOPE_SHAPES = {
    "number": (),
    "channel": (5,),
    "kept-axes": (1, 1, 5),
    "channels-first": (3, 1, 1),
    "element": (3, 4, 5),
}


def expected(x, alpha):
    return np.maximum(0.0, x) + alpha * np.minimum(0.0, x)


def summed_to(shape, values):
    extra = values.ndim - len(shape)
    axes = (*range(extra), *(extra + axis for axis, size in enumerate(shape) if size == 1))
    return values.sum(axis=axes).reshape(shape)


@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0, -0.5, 1.5])
def test_function_is_equation_1(rng, alpha):
    x = rng.normal(size=(4, 5)).astype("float32")
    outputs = keras.ops.convert_to_numpy(prelu(x, alpha))
    np.testing.assert_allclose(outputs, expected(x.astype("float64"), alpha), atol=1e-6)


@pytest.mark.parametrize("sign", [1, -1], ids=["positive-slopes", "slopes-of-both-signs"])
@pytest.mark.parametrize("shape", SLOPE_SHAPES.values(), ids=SLOPE_SHAPES)
def test_gradients_are_equations_2_and_3(rng, gradients, shape, sign):
    x = rng.normal(size=(2, 3, 4, 5)).astype("float32")
    upstream = rng.normal(size=x.shape).astype("float32")
    alpha = rng.uniform(min(sign, 0.1), 1, size=shape).astype("float32")
    dx, dalpha = gradients(prelu, [x, alpha], upstream)
    x, upstream = x.astype("float64"), upstream.astype("float64")
    np.testing.assert_allclose(dx, np.where(x > 0, upstream, alpha * upstream), atol=1e-6)
    np.testing.assert_allclose(dalpha, summed_to(shape, np.where(x > 0, 0, upstream * x)), rtol=1e-6, atol=2e-6)


def test_zero_belongs_to_the_branch_of_the_slope(gradients):
    x = np.array([0.0, -0.0], "float32")
    dx, dalpha = gradients(prelu, [x, np.float32(0.3)], np.ones(2))
    np.testing.assert_allclose(dx, [0.3, 0.3], rtol=1e-6)
    assert dalpha == 0


def test_slope_of_zero_has_a_gradient(gradients):
    _, dalpha = gradients(prelu, [np.array([-2.0, 1.0], "float32"), np.float32(0)], np.ones(2))
    assert dalpha == -2


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_sums_up_in_float32(gradients, dtype):
    # 100,000 times -1: float16 ends at 65504, bfloat16 stops counting at 256
    x = np.full((100_000, 1), -1, "float32")
    _, dalpha = gradients(
        lambda x, alpha: prelu(keras.ops.cast(x, dtype), alpha), [x, np.array([0.25], "float32")], np.ones(x.shape)
    )
    np.testing.assert_allclose(dalpha, [-100_000])


def test_symbolic_call_becomes_part_of_a_model(rng, tmp_path):
    inputs = keras.Input((4, 3))
    model = keras.Model(inputs, prelu(inputs, [0.1, 0.2, 0.3]))
    model.save(tmp_path / "model.keras")
    x = rng.normal(size=(2, 4, 3)).astype("float32")
    outputs = keras.saving.load_model(tmp_path / "model.keras")(x)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(outputs), expected(x, [0.1, 0.2, 0.3]), atol=1e-6)


@pytest.mark.parametrize(
    ("x", "alpha", "message"),
    [
        (np.ones((2, 3), "int32"), 0.25, "floating-point numbers, not int32"),
        (np.ones((2, 3), "float32"), np.ones(2, "float32"), r"alpha of shape \(2,\) does not fit x of shape \(2, 3\)"),
        (np.ones((2, 1), "float32"), np.ones(3, "float32"), r"alpha of shape \(3,\) does not fit x of shape \(2, 1\)"),
        (np.ones(3, "float32"), np.ones((1, 3), "float32"), r"alpha of shape \(1, 3\) does not fit x of shape \(3,\)"),
        (keras.Input((3,)), [0.1, 0.2], r"alpha of shape \(2,\) does not fit x of shape \(None, 3\)"),
    ],
    ids=["integers", "other-length", "enlarges-an-axis", "adds-an-axis", "symbolic"],
)
def test_wrong_arguments_are_named(x, alpha, message):
    with pytest.raises(ValueError, match=message):
        prelu(x, alpha)
