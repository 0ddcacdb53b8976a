"""Loads that let requests go first."""

import os
import sys
import threading

import pytest

from serving.models.session import load
from serving.options import Options
from serving.repository.config import ModelConfig
from serving.repository.repository import Repository

pytestmark = pytest.mark.xdist_group("serving")


def test_later_loads_run_at_a_low_priority(save_plus, tmp_path):
    save_plus(tmp_path / "1", 1)
    priorities, seen = [], threading.Event()

    def loading(directory):
        priorities.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        if directory.name == "2":
            seen.set()
        return load(directory)

    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    repository = Repository(loading, Options(file_system_poll_wait_seconds=0.05))
    try:
        repository.start([ModelConfig("plus", tmp_path)])
        save_plus(tmp_path / "writing", 2)
        (tmp_path / "writing").rename(tmp_path / "2")
        assert seen.wait(20)
    finally:
        repository.stop(20)
    assert priorities == [before, 10 if sys.platform == "linux" else before]
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before
