import keras
import numpy as np
from keras import ops

from keras_prelu.signals.gradients import differentiate


def arrays(tensors):
    return [ops.convert_to_numpy(tensor) for tensor in tensors]


def test_gradients_of_taps_in_a_chain():
    weights = [keras.Variable(np.array(value, "float32")) for value in ([1.0, -2.0], [3.0, 4.0])]

    def run(tap):
        first = tap(weights[0] * 2.0)
        second = tap(first * weights[1])
        return ops.sum(ops.square(second)), [ops.sum(first)]

    taps, of_taps, of_weights, (total,) = differentiate(run, weights)
    first = np.array([2.0, -4.0])
    second = first * [3.0, 4.0]
    for measured, expected in zip(arrays(taps), (first, second), strict=True):
        np.testing.assert_allclose(measured, expected, rtol=1e-6)
    for measured, expected in zip(arrays(of_taps), (2 * second * [3.0, 4.0], 2 * second), strict=True):
        np.testing.assert_allclose(measured, expected, rtol=1e-6)
    for measured, expected in zip(arrays(of_weights), (4 * second * [3.0, 4.0], 2 * second * first), strict=True):
        np.testing.assert_allclose(measured, expected, rtol=1e-6)
    assert ops.convert_to_numpy(total) == -2


def test_gradient_is_zero_where_nothing_leads_to_the_scalar():
    used, unused = (keras.Variable(np.ones(2, "float32")) for _ in range(2))

    def run(tap):
        tap(used * 5.0)  # dropped
        return ops.sum(used * 3.0), None

    _, of_taps, of_variables, _ = differentiate(run, [used, unused])
    assert [array.tolist() for array in arrays([*of_taps, *of_variables])] == [[0, 0], [3, 3], [0, 0]]


def test_one_tensor_tapped_twice_has_two_gradients():
    weight = keras.Variable(np.ones(1, "float32"))

    def run(tap):
        value = weight * 1.0
        return ops.sum(tap(value) * 2.0 + tap(value) * 3.0), None

    _, of_taps, (of_weight,), _ = differentiate(run, [weight])
    assert [array.tolist() for array in arrays([*of_taps, of_weight])] == [[2], [3], [5]]


def test_gradient_of_an_embedding_is_dense():
    embedding = keras.layers.Embedding(4, 2)
    embedding.build((None,))
    tokens = np.array([1, 3, 3])
    _, _, (gradient,), _ = differentiate(lambda tap: (ops.sum(tap(embedding(tokens))), None), [embedding.embeddings])
    assert ops.convert_to_numpy(gradient).tolist() == [[0, 0], [1, 1], [0, 0], [2, 2]]
