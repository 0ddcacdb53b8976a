"""The studies that measure instead of training: signals, costs of steps, the networks of ImageNet."""

import math

import pytest

from training.reproduce import signals

MACHINE = {"cpu_seconds": 60.0, "machine": "a, 2 threads", "versions": {"tensorflow": "2.21.0", "keras": "3.15.1"}}


def lines(table):
    """The cells of a table's rows, without its header."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def network(seed, forward, backward):
    """A network of two layers with a product of gains of 0.01; pairs of predicted and measured by layer."""
    found = {"rule": "xavier", "rectifier": "relu", "seed": seed}
    for direction, (predicted, measured) in {"forward": forward, "backward": backward}.items():
        found[direction] = {"equations": -2.0, "predicted": predicted, "measured": measured}
    return found


def test_signals_are_compared_at_the_last_kernel_and_the_gradient_at_the_first():
    networks = [
        network(0, ([1.0, 0.1], [1.0, 1e-3]), ([1e-5, 1.0], [4e-5, 1.0])),
        network(1, ([1.0, 0.1], [1.0, 1e-1]), ([1e-5, 1.0], [0.0, 1.0])),
    ]
    tables = signals.tables([{"settings": {"depth": 2}, "networks": networks, **MACHINE}])
    assert lines(tables["forward"]) == [["xavier", "relu", "2", "-2.0", "-1.0", "-2.0 ± 1.4", "100.0", "0"]]
    assert lines(tables["backward"]) == [
        ["xavier", "relu", "2", "-2.0", "-5.0", "-4.4; 0 in 1 of 2", "4.0", "0 to 1"]  # log10(4e-5) is -4.398
    ]


def test_gradients_at_outputs_that_float32_makes_zero_are_not_compared():
    vanished = network(0, ([1.0, 1e-80], [1.0, 0.0]), ([1.0, 1.0], [2.0, 1000.0]))
    assert signals.ratios(vanished, "backward") == [2.0]


@pytest.mark.slow
def test_signals_of_a_small_network_are_as_predicted(tmp_path):
    """Without slopes and with the variance 1 / n, each of 13 rectifiers halves the mean square."""
    settings = {
        "depth": 14,
        "filters": [16, 16, 16],
        "rules": ["xavier"],
        "rectifiers": ["relu"],
        "seeds": [3],
        "config": {"dataset": "digits", "image_size": 32, "test_split": "test[:16]", "batch_size": 16},
    }
    (found,) = signals.predict_and_measure(settings, tmp_path)["networks"]
    assert (found["rule"], found["rectifier"], found["seed"]) == ("xavier", "relu", 3)
    assert found["forward"]["equations"] == pytest.approx(13 * math.log10(1 / 2), abs=0.5)
    assert len(found["forward"]["measured"]) == 14
    for direction in ("forward", "backward"):
        assert max(signals.ratios(found, direction)) < 10
    figure = signals.plots([{"settings": settings, "networks": [found | {"rectifier": "prelu", "seed": 0}]}])["signals"]
    assert [len(line.get_ydata()) for line in figure.axes[0].lines] == [14, 14, 2]
