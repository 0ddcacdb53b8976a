import keras
import numpy as np
import pytest
from keras import layers
from matplotlib import pyplot

from keras_prelu import PReLU
from keras_prelu.signals.measure import measure_gains
from keras_prelu.signals.plots import plot_gains, plot_slopes
from keras_prelu.signals.predict import predict_gains
from keras_prelu.signals.slope_table import SlopeTable, slope_table


@pytest.fixture
def batch():
    return np.random.default_rng(0).normal(size=(16, 32)).astype("float32")


def network(depth, deviation=2**0.5, name="fc"):
    model = keras.Sequential([keras.Input((32,))])
    for index in range(1, depth + 1):
        initializer = keras.initializers.RandomNormal(0, deviation / np.sqrt(32), seed=index)
        model.add(layers.Dense(32, kernel_initializer=initializer, name=f"{name}{index}"))
        model.add(PReLU(name=f"prelu{index}"))
    return model


def lines(axes):
    return {line.get_label(): line.get_ydata() for line in axes.lines}


def test_gains_are_drawn_as_measured_and_predicted(batch):
    model = network(4)
    report, prediction = measure_gains(model, batch), predict_gains(model)
    figure = plot_gains(report, prediction)
    for axes, quantity, origin in zip(
        figure.axes, ("forward_mean_square", "backward_mean_square"), (0, -1), strict=True
    ):
        measured = [getattr(row, quantity) for row in report.rows]
        predicted = np.array([getattr(row, quantity) for row in prediction.rows])
        assert axes.get_yscale() == "log"
        np.testing.assert_allclose(lines(axes)["measured"], measured)
        np.testing.assert_allclose(
            lines(axes)["predicted"], predicted * measured[origin] / predicted[origin], rtol=1e-12
        )
        assert "bad verdict" not in lines(axes)
    assert [label.get_text() for label in figure.axes[1].get_xticklabels()] == ["fc1", "fc2", "fc3", "fc4"]


def test_bad_verdicts_are_crossed(batch):
    model = network(4, deviation=1e3)
    report = measure_gains(model, batch)
    (crosses,) = (line for line in plot_gains(report).axes[0].lines if line.get_label() == "bad verdict")
    bad = [index for index, row in enumerate(report.rows) if row.verdicts]
    assert bad
    assert list(crosses.get_xdata()) == bad


def test_slopes_are_drawn_with_their_extremes(batch):
    model = network(3)
    for index, layer in enumerate(layer for layer in model.layers if isinstance(layer, PReLU)):
        layer.alpha.assign(np.linspace(-index, 1, 32))
    axes = plot_slopes(slope_table(model)).axes[0]
    (container,) = axes.containers
    means, _, (bars,) = container
    np.testing.assert_allclose(means.get_ydata().astype(float), [0.5, 0, -0.5], atol=1e-6)
    np.testing.assert_allclose(
        [np.asarray(segment)[:, 1] for segment in bars.get_segments()], [[0, 1], [-1, 1], [-2, 1]], atol=1e-6
    )


@pytest.mark.slow
def test_figures_are_written_and_pyplot_holds_none(batch, tmp_path):
    model = network(3)
    for name, figure in {
        "gains": plot_gains(measure_gains(model, batch), predict_gains(model)),
        "infinite": plot_gains(measure_gains(network(20, 1e5), batch)),
        "slopes": plot_slopes(slope_table(model)),
    }.items():
        figure.savefig(tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert pyplot.get_fignums() == []


def test_prediction_for_another_model_is_named(batch):
    with pytest.raises(ValueError, match="The prediction is for other1, the report for fc1"):
        plot_gains(measure_gains(network(1), batch), predict_gains(network(1, name="other")))


def test_model_without_learnt_slopes_is_refused():
    with pytest.raises(ValueError, match="no rectifiers with learnt slopes"):
        plot_slopes(SlopeTable(()))
