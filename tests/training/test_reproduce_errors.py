"""Tables and plots of the studies `rectifiers`, `slopes`, `decay` and `views`, from made-up records."""

import pathlib
import re

import pytest

from training.config import Config
from training.reproduce import decay, rectifiers, slopes, views
from training.reproduce.studies import STUDIES
from training.step.schedules import make_schedule

PAGES = pathlib.Path(__file__).parent.parent.parent / "docs/results"
NAMES = ("rectifiers", "slopes", "decay", "views")
STEPS = 3128


def record(trial, error=20.0, slope=0.25, seconds=100.0):
    """A record with an error, or None where the run failed, and a slope for all layers or one by layer."""
    settings = trial.settings
    if error is None:
        found = {"failed": "the loss or the weights are not finite at step 3"}
    else:
        found = results(error, slope, settings.get("views", ()))
    machine = {"machine": "a, 2 threads", "versions": {"tensorflow": "2.21.0", "keras": "3.15.1"}}
    return {"trial": trial.name, "settings": settings, **found, "cpu_seconds": seconds, **machine}


def results(error, slope, names):
    """Each view has an error of a point less than the one before it, and takes a second more."""
    return {
        "events": [
            {"event": "evaluation", "step": 391, "accuracy": 0.1},
            {"event": "evaluation", "step": STEPS, "accuracy": 1 - error / 100},
        ],
        "slopes": [
            {"layer": layer, "mean": slope[layer] if isinstance(slope, dict) else slope} for layer in slopes.LAYERS
        ],
        "views": {
            name: {"error": (error - place) / 100, "cpu_seconds": 2.0 + place} for place, name in enumerate(names)
        },
    }


def cifar10(rectifier, errors, **other):
    """Records of seeds 0, 1 and so on; None for one that failed."""
    return [record(rectifiers.trial("cifar10", rectifier, seed), error, **other) for seed, error in enumerate(errors)]


def row(table, *cells):
    """The other cells of the row that begins with these."""
    (line,) = [line for line in table.splitlines() if line.startswith(f"| {' | '.join(cells)} |")]
    return line.strip("| ").split(" | ")[len(cells) :]


def test_rectifiers_are_compared_with_relu_by_seed():
    """Of two comparisons, Holm doubles the smaller p."""
    records = [
        *cifar10("relu", [24.0, 25.0, 26.0]),
        *cifar10("prelu", [23.0, 23.0, 23.0], seconds=150.0),
        *cifar10("prelu_shared", [24.5, 23.0, 27.0], seconds=130.0),
    ]
    table = rectifiers.tables(records)["errors"]
    assert row(table, "CIFAR-10", "ReLU")[:6] == ["25.00 ± 1.00", "-", "-", "-", "-", "1.00"]
    assert row(table, "CIFAR-10", "PReLU channel-wise") == [
        *("23.00 ± 0.00", "-2.00 [-4.48, +0.48]", "0.074", "0.148", "3 of 3", "1.50"),
        "32.64 / 12.75",
    ]
    assert row(table, "CIFAR-10", "PReLU channel-shared")[4:] == ["1 of 3", "1.30", "32.71 / 12.87"]
    assert row(table, "Fashion-MNIST", "PReLU channel-wise")[:6] == ["-"] * 6


def test_failed_run_is_shown_and_left_out_of_mean_and_pairs():
    records = [*cifar10("relu", [24.0, 25.0, 26.0]), *cifar10("prelu", [23.0, None, 22.0])]
    tables = rectifiers.tables(records)
    cells = row(tables["errors"], "CIFAR-10", "PReLU channel-wise")
    assert cells[0] == "22.50 ± 0.71 (1 failed)"
    assert cells[4] == "2 of 2"
    assert row(tables["seeds"], "CIFAR-10", "PReLU channel-wise") == ["23.00", "failed", "22.00", "-", "-"]
    assert row(tables["seeds"], "CIFAR-10", "ReLU") == ["24.00", "25.00", "26.00", "-", "-"]


def test_slopes_stand_beside_those_of_the_paper():
    records = [
        *cifar10("prelu", [20.0], slope=0.2),
        record(rectifiers.trial("cifar10", "prelu", 1), slope=0.4),
    ]
    table = slopes.tables(records)["slopes"]
    assert row(table, "conv2_1") == ["0.103", "-", "-", "0.321", "0.300 ± 0.141", "-"]
    assert [line.split(" | ")[0].strip("| ") for line in table.splitlines()[2:]] == [*slopes.LAYERS]


def test_slopes_that_fall_with_depth_have_a_rank_correlation_of_minus_1():
    falling = {layer: 0.5 - place / 100 for place, layer in enumerate(slopes.LAYERS)}  # the others' mean is 0.435
    table = slopes.tables(cifar10("prelu", [20.0], slope=falling))["ranks"]
    assert row(table, "channel-wise", "CIFAR-10")[:2] == ["1.15", "-1.00"]
    assert row(table, "channel-wise", "Fashion-MNIST") == ["-", "-", "-"]


def test_slopes_in_the_paper_s_order_have_a_rank_correlation_of_1():
    """Table 1 has no two equal slopes per channel."""
    ours = {layer: slope**2 for layer, slope in zip(slopes.LAYERS, slopes.PAPER["prelu"], strict=True)}
    table = slopes.tables(cifar10("prelu", [20.0], slope=ours))["ranks"]
    assert row(table, "channel-wise", "CIFAR-10")[2] == "+1.00"


def decayed(errors, slope):
    runs = [rectifiers.trial("cifar10", "prelu", seed, slope_decay=5e-4, file="decay") for seed in range(len(errors))]
    return [record(trial, error, slope) for trial, error in zip(runs, errors, strict=True)]


def test_slopes_with_decay_are_compared_with_those_without():
    """By decay alone: exp(-5e-4 * 0.05 * 3128 / 2 / (1 - 0.9)) = 0.6764."""
    records = [*cifar10("prelu", [20.0, 21.0, 22.0], slope=0.3), *decayed([20.0, 22.0, 24.0], 0.15)]
    tables = decay.tables(records)
    assert row(tables["slopes"], "PReLU channel-wise", "fc1 and fc2") == [
        *("0.300 ± 0.000", "0.150 ± 0.000"),
        *("0.50 ± 0.00", "0.68"),
    ]
    assert row(tables["errors"], "PReLU channel-wise") == [
        *("21.00 ± 1.00", "22.00 ± 2.00"),
        *("+1.00 [-1.48, +3.48]", "0.225", "0.225", "0 of 3"),  # p = 1 - sqrt(3 / 5)
    ]
    assert row(tables["seeds"], "PReLU channel-wise", "with") == ["20.00", "22.00", "24.00", "-", "-"]


def test_groups_of_layers_have_the_mean_of_their_slopes():
    by_layer = dict.fromkeys(slopes.LAYERS, 0.25) | {"conv2_1": 0.1, "conv2_4": 0.6}
    table = decay.tables(cifar10("prelu", [20.0], slope=by_layer))["slopes"]
    assert row(table, "PReLU channel-wise", "conv2_1 to conv2_4")[0] == "0.300"
    assert row(table, "PReLU channel-wise", "conv1")[0] == "0.250"


def test_decay_alone_shrinks_a_slope_as_momentum_sgd_does():
    """A slope whose loss has no gradient, step by step."""
    trial = rectifiers.trial("cifar10", "prelu", 0, slope_decay=5e-4, file="decay")
    config = Config(**trial.settings["config"])
    slope, velocity = 1.0, 0.0
    for rate in decay.learning_rates(config, STEPS):
        velocity = 0.9 * velocity - rate * 5e-4 * slope
        slope += velocity
    assert decay.shrinkage(record(trial)) == pytest.approx(slope, rel=1e-3)


@pytest.mark.parametrize("warmup_steps", [0, 4])
def test_learning_rates_are_those_of_the_trainer(warmup_steps):
    config = Config(dataset="cifar10", steps=10, learning_rate=0.5, warmup_steps=warmup_steps, schedule="linear")
    schedule = make_schedule(config)
    assert decay.learning_rates(config, 10) == pytest.approx([float(schedule(step)) for step in range(10)])


def flowers(rectifier, errors):
    trials = [trial for trial in views.trials() if trial.settings["network"]["rectifier"] == rectifier]
    return [record(trial, error) for trial, error in zip(trials, errors, strict=False)]


def test_views_compare_prelu_with_relu_and_with_the_centre():
    """The records' views have an error of 0, 1 to 5 points below the centre's, and take 2, 3 to 7 seconds."""
    records = [*flowers("relu", [30.0, 31.0, 32.0]), *flowers("prelu", [29.0, 29.0, 29.0])]
    tables = views.tables(records)
    assert row(tables["views"], "dense 64") == [
        *("29.00 ± 1.00", "27.00 ± 0.00", "-2.00 [-4.48, +0.48]", "0.074", "0.445", "3 of 3"),
        *("2.0", "256: 26.25 → 25.81"),
    ]
    assert row(tables["views"], "centre")[-2:] == ["1.0", "-"]
    assert row(tables["gains"], "dense 96") == ["-4.00", "-4.00"]
    assert row(tables["seeds"], "ten", "ReLU") == ["29.00", "30.00", "31.00", "-", "-"]


@pytest.mark.parametrize("name", NAMES)
def test_page_has_a_place_for_each_table_and_shows_each_plot(name):
    study, page = STUDIES[name], (PAGES / f"{name}.md").read_text()
    records = [record(trial) for trial in study.trials()]
    assert re.findall(r"<!-- (\w+): written by `reproduce report` -->", page) == [*study.tables(records)]
    assert re.findall(r"<!-- end of (\w+) -->", page) == [*study.tables(records)]
    assert re.findall(r"\]\((\w+)\.svg\)", page) == [*study.plots(records)]


@pytest.mark.parametrize("name", NAMES)
def test_study_without_a_run_that_ended_well_has_a_page_all_the_same(name):
    study = STUDIES[name]
    records = [record(trial, error=None) for trial in study.trials()[:2]]
    assert row(study.tables(records)["cost"], "2", "2")
    study.plots(records)[name].draw_without_rendering()
