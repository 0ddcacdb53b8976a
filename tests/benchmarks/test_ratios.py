"""The table of ratios."""

from benchmarks.ratios import Row, table

ROWS = [
    Row("a step", "ours", "relu", 1.05, 1.06, "21 / 20 ms", "1.040-1.060"),
    Row("a step", "keras", "relu", 1.2, None, "24 / 20 ms"),
    Row("a pass", "ours", "relu", 1.25, 1.1, "25 / 20 ms"),
]


def test_table_says_which_targets_are_met():
    verdicts = [line.split("|")[7].strip() for line in table(ROWS).splitlines()[2:]]
    assert verdicts == ["ok", "", "MISSED"]
