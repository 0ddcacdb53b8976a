"""Which versions labels may stand for, as server_core.cc has it."""

from pathlib import Path

import pytest

from serving.errors import ServingError
from serving.repository.config import ModelConfig, assign_labels, version_of


def assign(labels, current, allow_unavailable=False):
    def is_available(name, version):
        return name == "m" and version == 1  # the one version that is loaded

    configs = [ModelConfig("m", Path("/m"), labels=labels)]
    return assign_labels(configs, {"m": current}, is_available, allow_unavailable)["m"]


ALLOWED = {
    "new-to-available": ({"new": 1}, {}, False),
    "moved-to-available": ({"old": 1}, {"old": 2}, False),
    "new-to-unavailable-with-flag": ({"new": 7}, {}, True),
    "kept-at-unavailable-with-flag": ({"old": 7}, {"old": 7}, True),
    "moved-to-available-with-flag": ({"old": 1}, {"old": 7}, True),
    "dropped": ({}, {"old": 1}, False),
}


@pytest.mark.parametrize(("labels", "current", "allow_unavailable"), ALLOWED.values(), ids=ALLOWED)
def test_allowed(labels, current, allow_unavailable):
    assert assign(labels, current, allow_unavailable) == labels


REFUSED = {
    "new-to-unavailable": ({"new": 7}, {}, False),
    "kept-at-unavailable": ({"old": 7}, {"old": 7}, False),
    "moved-to-unavailable": ({"old": 7}, {"old": 1}, False),
    "moved-to-unavailable-with-flag": ({"old": 7}, {"old": 1}, True),
}


@pytest.mark.parametrize(("labels", "current", "allow_unavailable"), REFUSED.values(), ids=REFUSED)
def test_refused(labels, current, allow_unavailable):
    with pytest.raises(ServingError) as caught:
        assign(labels, current, allow_unavailable)
    assert str(caught.value) == (
        "FAILED_PRECONDITION: Request to assign label to version 7 of model m, which is not currently available for "
        "inference"
    )


def test_unknown_label():
    assert version_of({"m": {"stable": 3}}, "m", "stable") == 3
    for name, label in (("m", "x"), ("n", "stable")):
        with pytest.raises(ServingError, match=f"^INVALID_ARGUMENT: Unrecognized servable version label: {label}$"):
            version_of({"m": {"stable": 3}}, name, label)
