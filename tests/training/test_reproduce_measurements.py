"""The studies that measure instead of training: signals, costs of steps, the networks of ImageNet."""

import math
import mmap
import sys

import keras
import pytest

from keras_prelu.networks.paper import paper_network
from training.config import Config
from training.environment import ONEDNN
from training.reproduce import cost, imagenet, signals
from training.reproduce.projection import Counts, Machine, project, projection_tables

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


def steps(rectifier, turn, seconds, mebibytes, batch_size=64):
    settings = {"kernels": "on", "rectifier": rectifier, "round": turn, "batch_size": batch_size}
    return {"settings": settings, "step_seconds": seconds, "step_mebibytes": mebibytes, **MACHINE}


FEW = [steps("relu", 0, 0.01, 10.0, batch_size=2), steps("prelu", 0, 0.01, 30.0, batch_size=2)]


def test_costs_are_compared_within_a_round():
    """The ratios of time are 1.5 and 1.25, those of memory beyond FEW's 60 / 40 and 90 / 90."""
    records = [
        *(*FEW, steps("relu", 0, 0.1, 50.0), steps("prelu", 0, 0.15, 90.0)),
        *(steps("relu", 1, 0.4, 100.0), steps("prelu", 1, 0.5, 120.0)),
    ]
    relu, prelu = lines(cost.tables(records)["steps"])
    assert relu[-5:] == ["250.0", "1.00 (1.00 to 1.00)", "75", "65", "1.00 (1.00 to 1.00)"]
    assert prelu == [
        *("oneDNN, float32", "prelu", "keras_prelu", "2"),
        *("325.0", "1.38 (1.31 to 1.44)", "105", "75", "1.25 (1.12 to 1.38)"),
    ]


def test_round_without_relu_does_not_count():
    records = [steps("relu", 0, 0.1, 50.0), steps("prelu", 0, 0.2, 50.0), steps("prelu", 1, 0.9, 50.0)]
    assert cost.ratios(records, "on", "prelu", "step_seconds") == [2.0]


def test_quartiles_of_five_rounds_are_the_second_third_and_fourth():
    assert cost.quartiles([5.0, 1.0, 2.0, 4.0, 3.0]) == (2.0, 3.0, 4.0)


def test_bars_are_the_medians():
    records = [*FEW, steps("relu", 0, 0.1, 50.0), steps("prelu", 0, 0.2, 90.0)]
    time, memory = cost.plots(records)["cost"].axes
    assert [bar.get_width() for bar in time.patches] == [2.0]
    assert [bar.get_width() for bar in memory.patches] == [1.5]


def test_prelu_of_keras_takes_the_place_of_every_relu():
    settings = {"rectifier": "prelu of Keras", "precision": "mixed_bfloat16", "filters": [3, 4, 5]}
    network = cost.build_network((32, 32, 3), settings)
    slopes = {layer.name: layer.alpha.shape for layer in network.layers if isinstance(layer, keras.layers.PReLU)}
    assert len(slopes) == 13
    assert slopes["conv1_rectifier"] == (1, 1, 3)
    assert slopes["fc2_rectifier"] == (10,)
    assert not any(isinstance(layer, keras.layers.ReLU) for layer in network.layers)
    assert {network.get_layer(name).compute_dtype for name in ("conv1", "conv1_rectifier")} == {"bfloat16"}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_steps_lower_the_loss_and_are_timed(tmp_path, monkeypatch):
    monkeypatch.setenv(ONEDNN, "0")  # which the trial takes out
    sizes = {"filters": [8, 8, 8], "image_size": 32, "batch_size": 4, "warmup_steps": 1}
    settings = {"onednn": False, "precision": "float32", "rectifier": "prelu", **sizes}
    first, last = (cost.measure({**settings, "steps": number}, tmp_path) for number in (1, 60))
    assert last["loss"] < first["loss"]
    assert 0 < last["step_seconds"] < 1


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_of_memory_starts_anew():
    size = 64 * 2**20
    for _ in range(2):
        held = cost.restart_peak()
        with mmap.mmap(-1, size) as memory:
            for page in range(0, size, mmap.PAGESIZE):
                memory[page] = 1
        assert 60 < cost.mebibytes("VmHWM") - held < 80
        assert cost.mebibytes("VmRSS") - held < 20


# Table 3's "ops", and what its layers' sizes come to.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "parameters", "slopes", "rectifiers", "multiply_adds"),
    [("14-layer", 74_993_896, 10_304, 13, 9.49e8), ("A", 178_017_384, 14_688, 18, 1.906e10)],
)
def test_networks_have_the_size_of_the_paper(name, parameters, slopes, rectifiers, multiply_adds):
    found = imagenet.count(paper_network(name))
    assert (found["parameters"], found["slopes"], found["rectifiers"]) == (parameters, slopes, rectifiers)
    assert found["multiply_adds"] == pytest.approx(multiply_adds, rel=1e-3)


def counted(name, **more):
    """A network of 1,000 weights."""
    counts = {"parameters": 990, "slopes": 10, "rectifiers": 2, "multiply_adds": 19_190_000_000}
    return {"settings": {"network": name, "batch_size": 4}, **counts, "weighted": 5, "kept": 7, **more, **MACHINE}


def test_counts_stand_beside_those_of_the_paper():
    a, other = lines(imagenet.tables([counted("A"), counted("30-layer")])["counts"])
    assert a == ["A", "990", "10", "2", "1.919e+10", "1.90e+10", "+1.0%"]
    assert other == ["30-layer", "990", "10", "2", "1.919e+10", "", ""]


def test_step_that_does_not_fit_and_loss_that_is_not_finite_are_shown():
    memory = {"needed_mebibytes": 9000.0, "free_mebibytes": 8000.0}
    taken = {"step_seconds": 2.0, "losses": [6.9, "nan"], "peak_mebibytes": 1234.0}
    records = [counted("A", **memory), counted("B", **memory | taken), counted("30-layer")]
    assert lines(imagenet.tables(records)["steps"]) == [
        ["A", "4", "9,000", "does not fit: 8,000 MiB are free", "", "", "", ""],
        ["B", "4", "9,000", "1,234", "2.0", "230", "6.900", "nan"],  # 6 x 19.19e9 x 4 / 2 s
    ]


def test_needed_memory_counts_four_copies_of_weights_and_two_of_activations():
    found = {"parameters": 2**20 - 10, "slopes": 10, "kept": 2**17}
    assert imagenet.needed_mebibytes(found, batch_size=4) == 4 * (4 + 2 * 4 / 8)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_two_steps_are_taken(tmp_path):
    (trial,) = (each for each in imagenet.trials() if each.name == "imagenet/14-layer")
    found = imagenet.count_and_train(trial.settings | {"image_size": 112, "batch_size": 1}, tmp_path)
    before, after = found["losses"]
    assert after < before < 8  # ln 1000 is 6.9
    assert found["step_seconds"] > 0


COUNTS = Counts(parameters=1_000_000, multiply_adds=1_000_000_000, weighted=1_000_000, kept=2_000_000)


def test_projection_adds_arithmetic_memory_and_sums():
    """16 images per GPU: 9.6e10 operations at 60e12/s, 92e6 and 2,048e6 bytes at 1,500e9/s, 7e6 bytes at 100e9/s."""
    config = Config(network="A", batch_size=128, epochs=80)
    found = project(COUNTS, config, Machine(gpus=8))
    assert found.arithmetic == pytest.approx(1.6e-3)
    assert found.memory == pytest.approx(2140e6 / 1500e9)
    assert found.sums == found.hidden == pytest.approx(70e-6)
    assert found.steps == pytest.approx(1_281_167 * 80 / 128)
    assert found.hours == pytest.approx(800_729.375 * (1.6e-3 + 2140e6 / 1500e9 + 70e-6) / 3600)
    assert found.hidden_hours == pytest.approx(800_729.375 * (1.6e-3 + 2140e6 / 1500e9) / 3600)
    assert found.rate == pytest.approx(128 / (1.6e-3 + 2140e6 / 1500e9))
    assert (found.weight_bytes, found.activation_bytes) == (16e6, 4 * 2e6 * 16)


def test_projection_of_xla_fuses_passes_and_hides_no_sums():
    """In bfloat16: half the bytes of activations at 15 passes, float32 weights at 13, 120e12 operations per second."""
    config = Config(network="A", batch_size=128, precision="mixed_bfloat16", xla=True, deterministic=False)
    found = project(COUNTS, config, Machine(gpus=8))
    assert found.arithmetic == pytest.approx(0.8e-3)
    assert found.memory == pytest.approx((4 * 13e6 + 2 * 15 * 16e6) / 1500e9)
    assert found.hidden == 0


def test_sums_hide_only_as_long_as_the_backward_pass_lasts():
    """A link of 1e9 bytes per second: 7 ms of sums, and a backward pass of two thirds of (1.6 + 1.365) ms."""
    found = project(COUNTS, Config(network="A", batch_size=128), Machine(gpus=8, link=1e9))
    assert found.hidden == pytest.approx(2 / 3 * (1.6e-3 + 2048e6 / 1500e9))


def test_projected_tables_name_gpus_and_gpu_hours():
    """Model A's recipe on one GPU: 800,729 steps of 12.8 ms of arithmetic and 10.98 ms of memory are 5.3 hours."""
    tables = projection_tables({"A": COUNTS})
    (row,) = (row for row in lines(tables["projected time"]) if row[:2] == ["imagenet_a", "1"])
    assert row == ["imagenet_a", "1", "12.8", "11.0", "0.0", "5.3", "5.3", "5"]
    needs = {row[0]: row for row in lines(tables["projected needs"])}
    assert list(needs) == ["imagenet_a", "imagenet_a_fast", "imagenet_a_fast, XLA"]
    assert needs["imagenet_a"] == ["imagenet_a", "42,291", "4.65", "0.0", "0.1", "0.0"]  # 128 images in 3.0267 ms
