import keras
import numpy as np
import pytest
from keras import layers

from keras_prelu import predict_gains
from keras_prelu.walk.statistics import measured_signal


def test_statistics_are_means_of_products(rng):
    images = rng.standard_normal((5, 7, 9, 2)) + rng.standard_normal((1, 1, 1, 2)) + 0.5
    signal = measured_signal(images)
    assert signal.mean[0] == pytest.approx(images.mean())
    assert signal.second_moment == pytest.approx(np.mean(images**2))
    assert signal.near[0, 1, 2] == pytest.approx(
        np.mean([np.mean(images[:, :-1, :-2] * images[:, 1:, 2:]), np.mean(images[:, 1:, :-2] * images[:, :-1, 2:])])
    )
    others = [
        np.mean(one.mean((0, 1)) * two.mean((0, 1)))
        for a, one in enumerate(images)
        for b, two in enumerate(images)
        if a != b
    ]
    assert signal.others[0] == pytest.approx(np.mean(others))
    far = [
        np.mean(images[:, p, q] * images[:, i, j])
        for p in range(7)
        for q in range(9)
        for i in range(7)
        for j in range(9)
        if abs(p - i) > 4 and abs(q - j) > 4
    ]
    assert signal.near[0, 5, 5] == pytest.approx(np.mean(far))


def test_prediction_follows_the_data(rng):
    model = keras.Sequential([keras.Input((8, 8, 3)), layers.Rescaling(1 / 255), layers.Conv2D(16, 3, name="conv")])
    images = rng.uniform(0, 255, (16, 8, 8, 3)).astype("float32")
    (row,) = predict_gains(model, images).rows
    assert row.forward_mean_square == pytest.approx(row.forward_gain * np.mean((images / 255) ** 2), rel=1e-5)
    assert row.likeness == pytest.approx(0.75, abs=0.01)  # of uniform numbers: (1/2)^2 over 1/3


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (np.zeros((1, 8, 8, 3)), "two images or more"),
        (np.zeros((0, 8, 8, 3)), "two images or more"),
        (np.full((4, 8, 8, 3), np.nan), "not finite"),
        ([np.zeros((4, 8, 8, 3))] * 2, "2 arrays, but the model takes 1"),
    ],
)
def test_batches_that_say_nothing_are_refused(batch, message):
    model = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(4, 3)])
    with pytest.raises(ValueError, match=message):
        predict_gains(model, batch)
