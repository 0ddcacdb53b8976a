import numpy as np
import pytest

from serving.parity.compare import differences
from serving.parity.servers import Answer


def lines(a, b, tolerance=1e-3):
    return list(differences(Answer("OK", content=a), Answer("OK", content=b), tolerance))


@pytest.mark.parametrize(
    "value",
    [
        1,
        "text",
        0.25,
        float("nan"),
        None,
        [1, [2.0]],
        {"a": [{"b": 1}]},
        np.array([1.0, np.nan]),
        np.array([b"x"], object),
    ],
    ids=repr,
)
def test_a_value_is_like_itself(value):
    assert lines(value, value) == []


def test_numbers_within_the_tolerance_are_alike():
    assert lines({"y": [1.0, 5000.0]}, {"y": [1.0009, 5004.0]}) == []
    assert lines(np.array([1.0, 5000.0]), np.array([1.0009, 5004.0])) == []


@pytest.mark.parametrize(
    ("a", "b", "line"),
    [
        (1.0, 1.1, "1.0 / 1.1"),
        (1, 1.0, "1 / 1.0"),
        (1, True, "1 / True"),
        (float("nan"), 1.0, "nan / 1.0"),
        ("a", "b", "'a' / 'b'"),
        ("a" * 70, "b", f"'{'a' * 59}... / 'b'"),
        ([1], [1, 2], "1 / 2 elements"),
        ({"y": [0.0, 1.0]}, {"y": [0.0, 2.0]}, "y[1]: 1.0 / 2.0"),
        ({"y": 1}, {}, "y: only A has it"),
        ({}, {"x": {"y": 1}}, "x: only B has it"),
        (np.zeros(3), np.zeros((3, 1)), "shape [3] / [3, 1]"),
        (np.array([0.0, 1.0, 2.0]), np.array([0.0, 1.5, 2.25]), "2 of 3 numbers differ, by 0.5 at most"),
        (np.array([0, 255], np.uint8), np.array([255, 255], np.uint8), "1 of 2 numbers differ, by 255 at most"),
        (np.array([1.0]), np.array([np.inf]), "1 of 1 numbers differ, by inf at most"),
        (np.array([b"x", b"y"], object), np.array([b"x", b"z"], object), "1 of 2 values differ"),
        (np.array([True]), np.array([False]), "1 of 1 values differ"),
    ],
)
def test_a_difference_is_told(a, b, line):
    assert lines(a, b) == [line]


def test_two_statuses_are_told_without_their_contents():
    assert list(differences(Answer("OK", content=1), Answer("NOT_FOUND", "Gone"), 0)) == [
        "status: OK / NOT_FOUND",
        "text: '' / 'Gone'",
    ]


def test_an_explanation_after_the_text_of_an_error_is_no_difference():
    a, b = Answer("NOT_FOUND", "Gone"), Answer("NOT_FOUND", "Gone\nIt may come back.")
    assert list(differences(a, b, 0)) == list(differences(b, a, 0)) == []


def test_another_text_is_a_difference():
    assert list(differences(Answer("NOT_FOUND", "Gone"), Answer("NOT_FOUND", "Gone off"), 0)) == [
        "text: 'Gone' / 'Gone off'"
    ]
