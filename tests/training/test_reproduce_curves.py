"""Tables and plots of the studies of initial weights and of depth, from records whose figures are known."""

import math
import pathlib

import numpy as np
import pytest

from training.reproduce import depth, init
from training.reproduce.curves import cell, smooth

PAGES = pathlib.Path(__file__).parents[2] / "docs/results"
MACHINE = {"machine": "a, 2 threads", "cpu_seconds": 30.0, "versions": {"tensorflow": "2.21.0", "keras": "3.15.1"}}


def record(study, name, losses, accuracies, **fields):
    """A run that logged a loss every ten steps, and evaluated at the last of these."""
    settings = failed(study, name)["settings"]
    train = [{"event": "train", "step": 10 * i, "loss": loss, "accuracy": 0.25} for i, loss in enumerate(losses, 1)]
    first = len(losses) - len(accuracies) + 1
    tests = [{"event": "evaluation", "step": 10 * i, "accuracy": value} for i, value in enumerate(accuracies, first)]
    return {"trial": name, "settings": settings, "events": train + tests} | MACHINE | fields


def failed(study, name):
    (trial,) = (each for each in study.trials() if each.name == name)
    return {"trial": name, "settings": trial.settings, "failed": "the loss is nan at step 20"} | MACHINE


def signals(gradients, backward):
    names = ("conv1", *(f"conv{i}" for i in range(2, len(gradients))), "fc3")
    return [
        {"name": name, "gradient_mean_square": gradient, "backward_mean_square": backward}
        for name, gradient in zip(names, gradients, strict=True)
    ]


def learning(seed):
    """Ten points over two epochs, so that a point is 0.2 epochs."""
    losses = ([2.4, 2.3, 2.1, *[1.5] * 6, 1.0], [2.4, 2.25, 2.2, 2.1, *[1.5] * 5, 2.0])[seed]
    accuracies = [0.3, (0.4, 0.5)[seed]]
    gradients = signals([(1e-4, 1e-6)[seed], 1e-5, 1e-3], 1e-6)
    return record(init, f"init/14-he_backward-relu-{seed}", losses, accuracies, first_signals=gradients)


def stalled(name, backward=0.0):
    return record(init, name, [2.3] * 10, [0.1], first_signals=signals([0.0, 0.0, 1e-3], backward))


def rows(table):
    return [[each.strip() for each in line.split("|")[1:-1]] for line in table.splitlines()[2:] if line[:1] == "|"]


def test_row_of_initial_weights_has_means_and_deviations_over_seeds():
    (row,) = rows(init.tables([learning(0), learning(1)])["errors"])
    assert row[:3] == ["14", "ReLU", "He fan_out"]
    assert row[3:6] == ["55.0 ± 7.1", "1.50 ± 0.71", "0.70 ± 0.14"]  # of 60 and 50, of 1 and 2, of 0.6 and 0.8
    assert row[6:] == ["-5.0 ± 1.4", "-2.0 ± 1.4"]  # of -4 and -6, of -1 and -3


def test_network_that_stalls_never_reaches_the_loss():
    (row,) = rows(init.tables([stalled("init/22-xavier-prelu-2")])["errors"])
    assert row == ["22", "PReLU", "Xavier", "90.0", "2.30", "never", "underflow", "underflow"]


def test_runs_that_stall_and_fail_are_counted_beside_the_others():
    name = "init/14-he_backward-relu-1"
    records = [learning(0), stalled(name), failed(init, name)]
    (row,) = rows(init.tables(records)["errors"])
    assert row[5] == "0.60 (1 never) (1 failed)"


def test_case_whose_runs_all_failed_is_a_row_with_the_reason_below():
    name = "init/30-he_forward-relu-0"
    table = init.tables([failed(init, name)])["errors"]
    assert rows(table) == [["30", "ReLU", "He fan_in", *["failed"] * 5]]
    assert table.endswith(f"|\n\n`{name}` failed: the loss is nan at step 20\n")


def test_findings_of_the_paper_stand_beside_those_with_relu():
    fixed = stalled("init/14-fixed_0.01-relu-0", backward=1e-30)
    others = [stalled("init/22-xavier-relu-0"), stalled("init/22-xavier-prelu-0")]
    table = rows(init.tables([learning(0), learning(1), fixed, *others])["paper"])
    assert [row[2] for row in table] == [
        "Epochs to a loss of 2.2, 22 layers: He fan_in -, He fan_out -, Xavier never",
        "Epochs to a loss of 2.2, 30 layers: He fan_in -, He fan_out -, Xavier -",
        "Test error, %, 14 layers: He fan_in -, He fan_out 55.0 ± 7.1, Xavier -",
        "Test error, %, 30 layers: He fan_in -, He fan_out -, Xavier -",
        "10^-12.0 at `conv1` of 14 layers",  # the root of 1e-30 / 1e-6
    ]


@pytest.mark.parametrize(("plot", "ylabel"), [("init", "test error, %"), ("init_training", "training error, %")])
def test_errors_over_epochs_have_a_panel_per_depth_and_rectifier(plot, ylabel):
    figure = init.plots([learning(0)])[plot]
    assert [axes.get_title() for axes in figure.axes] == [
        f"{layers} layers, {rectifier}" for rectifier in ("ReLU", "PReLU") for layers in (14, 22, 30)
    ]
    assert [axes.get_ylabel() for axes in figure.axes] == [ylabel, "", "", ylabel, "", ""]
    assert [axes.get_xlabel() for axes in figure.axes] == ["", "", "", "epochs", "epochs", "epochs"]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["He fan_in", "He fan_out", "Xavier", "std 0.01"]


def test_line_is_the_mean_over_seeds_and_the_band_their_range():
    axes = init.plots([learning(0), learning(1), failed(init, "init/14-he_backward-relu-2")])["init"].axes[0]
    line, guess = axes.get_lines()
    np.testing.assert_allclose(line.get_xydata(), [(1.8, 70.0), (2.0, 55.0)])
    np.testing.assert_allclose(guess.get_xydata(), [(0, 90), (2, 90)])
    (band,) = axes.collections
    assert {tuple(point) for point in band.get_paths()[0].vertices.round(3)} == {(1.8, 70.0), (2.0, 60.0), (2.0, 50.0)}
    assert not any(each.collections for each in init.plots([learning(0)])["init"].axes[1:])


def test_gradients_are_drawn_by_layer_on_a_logarithmic_scale():
    axes = init.plots([learning(0)])["init_gradients"].axes[0]
    assert axes.get_yscale() == "log"
    assert (axes.get_xlabel(), axes.get_title()) == ("", "14 layers, ReLU")
    (line,) = axes.get_lines()
    np.testing.assert_allclose(line.get_xydata(), [(1, 1e-4), (2, 1e-5), (3, 1e-3)])


def tailored(seed, losses=(2.4, 2.3, 2.1, *[1.5] * 7)):
    """The start of slopes of 1, which change no correlation."""
    slopes = [{"mean": 0.9}, {"mean": 0.7}]
    fields = {"start_slope": 1.0, "slopes": slopes}
    return record(depth, f"depth/60-tailored-{seed}", losses, [(0.4, 0.5)[seed]], **fields)


def test_row_of_a_depth_has_its_start_and_its_end():
    (row,) = rows(depth.tables([tailored(0), tailored(1)])["runs"])
    assert row[:3] == ["60", "tailored: 1.000", "0.000"]
    assert row[3:] == ["55.0 ± 7.1", "1.50", "30", "0.800"]


def test_depth_that_stalls_never_reaches_the_loss():
    (row,) = rows(depth.tables([tailored(0, [2.3] * 10)])["runs"])
    assert row[5] == "never"


def test_depth_that_failed_is_a_row_too():
    table = depth.tables([failed(depth, "depth/100-0-1")])["runs"]
    assert rows(table) == [["100", "0", *["failed"] * 5]]
    assert "`depth/100-0-1` failed: the loss is nan at step 20" in table


def test_errors_by_depth_stand_beside_those_of_the_papers():
    he, zhang = rows(depth.tables([tailored(0), tailored(1)])["paper"])
    assert he[1:] == ["14 layers 33.82, 30 layers 38.56", "14 layers -, 30 layers -"]
    assert zhang[2] == "14 layers -, 30 layers -, 60 layers 55.0 ± 7.1, 100 layers -"


@pytest.mark.parametrize(
    ("slope", "rectifiers", "expected"),
    [(0.0, 1, 1 / math.pi), (1.0, 99, 0.0), (0.5, 1, 0.2 / math.pi), (0.0, 0, 0.0)],
    ids=["one ReLU", "linear", "half a slope", "one layer"],
)
def test_likeness_of_slopes(slope, rectifiers, expected):
    assert depth.likeness(slope, rectifiers) == pytest.approx(expected)


def test_losses_have_a_panel_per_depth():
    figure = depth.plots([tailored(0), tailored(1), failed(depth, "depth/100-0-1")])["depth"]
    assert [axes.get_title() for axes in figure.axes] == ["14 layers", "30 layers", "60 layers", "100 layers"]
    assert [axes.get_xlabel() for axes in figure.axes] == ["steps"] * 4
    assert figure.axes[0].get_ylabel() == "training loss"
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["slopes start at 0", "at 0.25", "tailored"]
    assert [text.get_text() for text in figure.axes[2].texts] == ["C(0) = 0.000", "a guess"]
    line, guess = figure.axes[2].get_lines()
    np.testing.assert_allclose(line.get_xydata()[[0, 3]], [(10, 2.4), (40, (2.4 + 2.3 + 2.1 + 1.5) / 4)])
    np.testing.assert_allclose(guess.get_ydata(), [math.log(10)] * 2)


def test_smooth_takes_the_mean_of_a_point_and_those_before_it():
    assert smooth({10: 4.0, 20: 2.0, 30: 0.0}, 2) == {10: 4.0, 20: 3.0, 30: 1.0}


def test_cell_has_no_negative_zero_and_no_deviation_of_equal_figures():
    runs = [learning(0), learning(1)]
    assert cell(runs, lambda run: -0.01, 1) == "0.0"


@pytest.mark.parametrize("study", [init, depth], ids=["init", "depth"])
def test_page_has_a_place_for_each_table_and_names_each_plot(study):
    name = study.__name__.rpartition(".")[2]
    page = (PAGES / f"{name}.md").read_text()
    for table in study.tables([failed(study, study.trials()[0].name)]):
        begin, end = f"<!-- {table}: written by `reproduce report` -->\n", f"<!-- end of {table} -->\n"
        assert -1 < page.find(begin) < page.find(end)
    for plot in study.plots([]):
        assert f"{plot}.svg" in page
