import logging

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_prelu import PReLU
from keras_prelu.signals.measure import measure_gains
from keras_prelu.signals.monitor import SignalMonitor


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(12, 6)).astype("float32"), rng.normal(size=(12, 3)).astype("float32")


def network():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((6,)), layers.Dense(8, name="fc1"), PReLU(name="prelu1"), layers.Dense(3, name="fc2")]
    )
    model.compile(keras.optimizers.SGD(0.05), "mse")
    return model


def fit(model, data, monitor, epochs=4):
    model.fit(*data, batch_size=4, epochs=epochs, shuffle=False, callbacks=[monitor], verbose=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "steps"),
    [
        ({}, [0, 3, 6, 9, 12]),
        ({"every": 2}, [0, 6, 12]),
        ({"every": 5, "unit": "batch"}, [0, 5, 10]),
    ],
    ids=["each-epoch", "every-other", "batches"],
)
def test_measures_when_it_is_time(data, arguments, steps):
    monitor = SignalMonitor(data[0][:4], **arguments)
    fit(network(), data, monitor)
    assert list(monitor.reports) == steps


@pytest.mark.slow
def test_reports_are_of_the_model_as_it_was(data):
    model, monitor = network(), SignalMonitor(*data, loss="mse")
    before = measure_gains(model, *data, loss="mse")
    fit(model, data, monitor)
    assert str(monitor.reports[0]) == str(before)
    assert str(monitor.reports[12]) == str(measure_gains(model, *data, loss="mse"))
    assert str(before) != str(monitor.reports[12])


@pytest.mark.slow
def test_training_is_that_without_it(data):
    watched, plain = network(), network()
    fit(watched, data, SignalMonitor(data[0], unit="batch"))
    plain.fit(*data, batch_size=4, epochs=4, shuffle=False, verbose=0)
    for one, other in zip(watched.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_bad_verdict_is_a_warning(data, caplog):
    model = network()
    model.get_layer("fc1").kernel.assign(np.zeros((6, 8)))
    with caplog.at_level(logging.WARNING, "keras_prelu.signals.monitor"):
        fit(model, data, SignalMonitor(data[0]), epochs=1)
    assert "after 0 batches, fc1: vanishing, dead units" in caplog.messages


@pytest.mark.slow
def test_healthy_model_is_no_warning(data, caplog):
    with caplog.at_level(logging.WARNING, "keras_prelu.signals.monitor"):
        fit(network(), data, SignalMonitor(data[0]))
    assert caplog.messages == []


@pytest.mark.slow
def test_tensorboard_gets_scalars_and_histograms(data, tmp_path):
    model, monitor = network(), SignalMonitor(*data, loss="mse", log_dir=tmp_path)
    fit(model, data, monitor, epochs=2)
    scalars, histograms = {}, {}
    for file in tmp_path.iterdir():
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            for value in event.summary.value:
                kind = scalars if value.metadata.plugin_data.plugin_name == "scalars" else histograms
                kind[event.step, value.tag] = tf.make_ndarray(value.tensor)
    assert {step for step, _ in scalars} == {0, 3, 6}
    for quantity in ("forward_mean_square", "backward_mean_square", "gradient_mean_square", "decay_ratio"):
        for step, report in monitor.reports.items():
            for row in report.rows:
                written = scalars[step, f"signals/{quantity}/{row.name}"]
                assert written == pytest.approx(getattr(row, quantity), rel=1e-6)
    *_, buckets = histograms[6, "slopes/prelu1"]  # left edge, right edge, count
    assert set(histograms) == {(step, "slopes/prelu1") for step in (0, 3, 6)}
    assert buckets[1] == pytest.approx(np.max(model.get_layer("prelu1").alpha), rel=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"unit": "step"}, 'unit is \'step\', but must be "epoch" or "batch"'), ({"every": 0}, "every is 0")],
    ids=["unit", "every"],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        SignalMonitor(np.zeros((1, 6)), **arguments)
