import math

import pytest

from keras_prelu.tables import text_table


def test_numbers_stand_to_the_right_and_words_to_the_left():
    rows = [("conv1", 64, 0.51234), ("fc", 1000, -12.0)]
    assert text_table(["layer", "units", "gain"], rows).splitlines() == [
        "layer  units   gain",
        "conv1     64  0.512",
        "fc      1000    -12",
    ]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.000123456, "0.000123"),
        (1234567.0, "1.23e+06"),
        (2.0, "2"),
        (math.inf, "inf"),
        (math.nan, "-"),
        (None, "-"),
        (12_345_678, "12345678"),
    ],
    ids=str,
)
def test_number_in_a_column_of_numbers(value, shown):
    *_, line = text_table(["layer", "n"], [("a", 0.5), ("b", value)]).splitlines()
    assert line.split() == ["b", shown]


@pytest.mark.parametrize("word", ["10", "1e5", "inf", "7x7, 64", "", "nan"])
def test_word_stays_as_it_is(word):
    lines = text_table(["spec", "n"], [("long word", 1), (word, 2)]).splitlines()
    assert lines[-1] == f"{word:9}  2"


def test_whole_numbers_beside_fractions_keep_all_their_digits():
    assert text_table(["fan"], [(12345,), (0.5,)]).splitlines() == ["  fan", "12345", "  0.5"]


def test_no_rows():
    assert text_table(["layer", "gain"], []) == "layer  gain"
