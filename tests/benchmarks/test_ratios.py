"""The table and the plot of ratios."""

from benchmarks.plot import plot_ratios
from benchmarks.ratios import Row, table

ROWS = [
    Row("a step", "ours", "relu", 1.05, 1.06, "21 / 20 ms", "1.040-1.060"),
    Row("a step", "keras", "relu", 1.2, None, "24 / 20 ms"),
    Row("a pass", "ours", "relu", 1.25, 1.1, "25 / 20 ms"),
]


def test_table_says_which_targets_are_met():
    verdicts = [line.split("|")[7].strip() for line in table(ROWS).splitlines()[2:]]
    assert verdicts == ["ok", "", "MISSED"]


def test_plot_has_a_panel_per_table(tmp_path):
    plot_ratios({"one": ROWS, "other": ROWS[:2]}, tmp_path / "ratios.svg")
    drawn = (tmp_path / "ratios.svg").read_text()
    assert (drawn.count("<!-- a step"), drawn.count("<!-- a pass")) == (4, 1)
    assert "<!-- one -->" in drawn
    assert "<!-- other -->" in drawn
